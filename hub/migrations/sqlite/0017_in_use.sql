-- What at each edge said that it uses which version of an entry.
CREATE TABLE in_use (
    edge     BLOB NOT NULL,
    consumer TEXT NOT NULL,
    -- 1: stays until it says something else. 0: goes when its edge does not tell of it any more.
    lasting  INTEGER NOT NULL,
    scope    INTEGER NOT NULL REFERENCES scope (id),
    key      TEXT NOT NULL,
    version  INTEGER NOT NULL,
    said_at  INTEGER NOT NULL,
    PRIMARY KEY (edge, consumer, scope, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX in_use_by_entry ON in_use (scope, key);
