-- What became of the writes that were carried here from an edge last, for the edge to hear.
CREATE TABLE carried (
    edge    BLOB NOT NULL PRIMARY KEY,
    made_at INTEGER NOT NULL,
    answers BLOB NOT NULL
) STRICT;
