-- Each time that this database was filled from a backup: what was written after the backup is lost to it, and edges may
-- have seen that.
CREATE TABLE restored (
    -- 1, 2, 3…
    n           INTEGER PRIMARY KEY,
    shard       BLOB NOT NULL,
    -- The last leadership that the backup knew of, and how far it had come.
    epoch       INTEGER NOT NULL,
    cut         INTEGER NOT NULL,
    restored_at INTEGER NOT NULL,
    -- The first leadership afterwards; none until somebody has taken it.
    new_epoch   INTEGER
) STRICT;
