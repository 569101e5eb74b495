-- Secrets of sources that are written through: how both sides were when they were last the same.
CREATE TABLE source_key (
    -- From where to where: another path or namespace begins anew.
    source text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    -- Null: there was nothing.
    vault_version bigint,
    entry_version bigint,
    PRIMARY KEY (source, key)
);
