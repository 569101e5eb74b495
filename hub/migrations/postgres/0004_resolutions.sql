-- What people decide about conflicts and held writes, and what namespaces do with concurrent writes.

-- How far the shard had come when the conflict was found; 0 where that was not written down yet.
ALTER TABLE conflict ADD COLUMN seq bigint NOT NULL DEFAULT 0;
-- Null while nobody has decided. Change and version are null where nothing was written.
ALTER TABLE conflict ADD COLUMN settled_by bytea;
ALTER TABLE conflict ADD COLUMN settled_at bigint;
ALTER TABLE conflict ADD COLUMN settled_change bytea;
ALTER TABLE conflict ADD COLUMN settled_version bigint;
CREATE INDEX conflict_open ON conflict (tenant, n) WHERE settled_by IS NULL;

-- Of writes that are or were held; null for those that were held before there was such an id.
ALTER TABLE history ADD COLUMN held_id bytea;
ALTER TABLE history ADD COLUMN settled_by bytea;
ALTER TABLE history ADD COLUMN settled_at bigint;
ALTER TABLE history ADD COLUMN settled_change bytea;
ALTER TABLE history ADD COLUMN settled_version bigint;
CREATE UNIQUE INDEX history_by_held_id ON history (held_id) WHERE held_id IS NOT NULL;

CREATE TABLE policy (
    tenant text COLLATE "C" NOT NULL REFERENCES tenant (name),
    namespace text COLLATE "C" NOT NULL,
    -- last_write_wins, hub_wins, edge_wins, reject or manual.
    conflicts text COLLATE "C" NOT NULL,
    PRIMARY KEY (tenant, namespace)
);
