-- Secrets that expire, and the warnings that were given of that.

-- Of the current row of a secret that expires; null for every other.
ALTER TABLE entry ADD COLUMN expires_at INTEGER;
CREATE INDEX entry_expiring ON entry (expires_at) WHERE expires_at IS NOT NULL;

-- Each is given once, whoever leads.
CREATE TABLE expiry_warning (
    n           INTEGER PRIMARY KEY,
    scope       INTEGER NOT NULL REFERENCES scope (id),
    key         TEXT NOT NULL,
    version     INTEGER NOT NULL,
    -- So many before; 0: it has expired.
    days        INTEGER NOT NULL,
    secret_type INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL,
    warned_at   INTEGER NOT NULL,
    UNIQUE (scope, key, version, days)
) STRICT;
