-- What at each edge said that it uses which version of an entry.
CREATE TABLE in_use (
    edge bytea NOT NULL,
    consumer text COLLATE "C" NOT NULL,
    -- 1: stays until it says something else. 0: goes when its edge does not tell of it any more.
    lasting bigint NOT NULL,
    scope bigint NOT NULL REFERENCES scope (id),
    key text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    said_at bigint NOT NULL,
    PRIMARY KEY (edge, consumer, scope, key)
);
CREATE INDEX in_use_by_entry ON in_use (scope, key);
