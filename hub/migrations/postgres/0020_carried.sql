-- What became of the writes that were carried here from an edge last, for the edge to hear.
CREATE TABLE carried (
    edge    bytea NOT NULL PRIMARY KEY,
    made_at bigint NOT NULL,
    answers bytea NOT NULL
);
