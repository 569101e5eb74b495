-- Secrets of sources that are written through: how both sides were when they were last the same.
CREATE TABLE source_key (
    -- From where to where: another path or namespace begins anew.
    source TEXT NOT NULL,
    key TEXT NOT NULL,
    -- Null: there was nothing.
    vault_version INTEGER,
    entry_version INTEGER,
    PRIMARY KEY (source, key)
) STRICT;
