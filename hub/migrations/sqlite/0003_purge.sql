-- A deletion is purged once everybody has had time to hear of it: its row goes, a stub stays.

-- The hub's wall clock when the row was admitted; an author's own clock may say anything. Deletions from before this
-- step count as of now; of other rows nobody asks.
ALTER TABLE entry ADD COLUMN admitted_at INTEGER NOT NULL DEFAULT 0;
UPDATE entry SET admitted_at = unixepoch() * 1000 WHERE kind = 0;
CREATE INDEX entry_deleted ON entry (shard, admitted_at, seq) WHERE kind = 0;

-- By the plain SHA-256 of the key, so that a stub has one small size however long the key was. It hides nothing: the
-- history beside it names every key for ever.
CREATE TABLE stub (
    scope       INTEGER NOT NULL REFERENCES scope (id),
    key_hash    BLOB NOT NULL,
    shard       BLOB NOT NULL,
    epoch       INTEGER NOT NULL,
    seq         INTEGER NOT NULL,
    hlc         INTEGER NOT NULL,
    actor       BLOB NOT NULL,
    inc         INTEGER NOT NULL,
    ctr         INTEGER NOT NULL,
    version     INTEGER NOT NULL,
    top_version INTEGER NOT NULL,
    plain_seq   INTEGER NOT NULL,
    PRIMARY KEY (scope, key_hash)
) STRICT, WITHOUT ROWID;
