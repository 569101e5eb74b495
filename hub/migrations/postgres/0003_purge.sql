-- A deletion is purged once everybody has had time to hear of it: its row goes, a stub stays.

-- The hub's wall clock when the row was admitted; an author's own clock may say anything. Deletions from before this
-- step count as of now; of other rows nobody asks.
ALTER TABLE entry ADD COLUMN admitted_at bigint NOT NULL DEFAULT 0;
UPDATE entry SET admitted_at = (extract(epoch FROM now()) * 1000)::bigint WHERE kind = 0;
CREATE INDEX entry_deleted ON entry (shard, admitted_at, seq) WHERE kind = 0;

-- By the plain SHA-256 of the key, so that a stub has one small size however long the key was. It hides nothing: the
-- history beside it names every key for ever.
CREATE TABLE stub (
    scope bigint NOT NULL REFERENCES scope (id),
    key_hash bytea NOT NULL,
    shard bytea NOT NULL,
    epoch bigint NOT NULL,
    seq bigint NOT NULL,
    hlc bigint NOT NULL,
    actor bytea NOT NULL,
    inc bigint NOT NULL,
    ctr bigint NOT NULL,
    version bigint NOT NULL,
    top_version bigint NOT NULL,
    plain_seq bigint NOT NULL,
    PRIMARY KEY (scope, key_hash)
);
