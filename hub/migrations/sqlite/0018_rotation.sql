-- Rotation of secrets' values, and their removal.

CREATE TABLE rotation_policy (
    scope INTEGER NOT NULL REFERENCES scope (id),
    key TEXT NOT NULL,
    -- JSON: {"generated": [length, alphabet]} or {"command": [name, whether it is told the old value]}.
    source TEXT NOT NULL,
    -- Null: by hand only.
    every_days INTEGER,
    grace_ms INTEGER NOT NULL,
    set_by BLOB NOT NULL,
    set_at INTEGER NOT NULL,
    PRIMARY KEY (scope, key)
) STRICT;

-- Each step is written down before the next is begun; whoever leads goes on where the last one was.
CREATE TABLE rotation (
    n INTEGER PRIMARY KEY,
    -- Also the id of the change that it writes.
    id BLOB NOT NULL UNIQUE,
    scope INTEGER NOT NULL REFERENCES scope (id),
    key TEXT NOT NULL,
    -- begun, written, retired or failed.
    step TEXT NOT NULL,
    started_by BLOB NOT NULL,
    old_version INTEGER NOT NULL,
    new_version INTEGER,
    began_at INTEGER NOT NULL,
    written_at INTEGER,
    retire_at INTEGER,
    retired_at INTEGER,
    why BLOB,
    again_at INTEGER NOT NULL
) STRICT;
CREATE INDEX rotation_by_entry ON rotation (scope, key, n);
CREATE UNIQUE INDEX rotation_begun ON rotation (scope, key) WHERE step = 'begun';
CREATE INDEX rotation_under_way ON rotation (n) WHERE step IN ('begun', 'written');

-- Versions whose value was removed for good; their rows in the history stay, without it.
CREATE TABLE purged (
    scope INTEGER NOT NULL REFERENCES scope (id),
    key TEXT NOT NULL,
    version INTEGER NOT NULL,
    purged_by BLOB NOT NULL,
    purged_at INTEGER NOT NULL,
    PRIMARY KEY (scope, key, version)
) STRICT;

-- Backups that were made of this database: what is in them cannot be removed.
CREATE TABLE made_backup (
    id BLOB NOT NULL PRIMARY KEY,
    made_at INTEGER NOT NULL,
    -- Everything up to here is in it.
    seq INTEGER NOT NULL,
    file BLOB NOT NULL
) STRICT;

-- How the bodies of a tenant's secrets are sealed: 0 XChaCha20-Poly1305, 1 AES-256-GCM, 2 ChaCha20-Poly1305.
ALTER TABLE tenant ADD COLUMN suite INTEGER NOT NULL DEFAULT 0;
