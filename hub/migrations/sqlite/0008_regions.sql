-- Other regions, whose histories this one follows.

-- Where a write was admitted first, if that was in another region: shard, leadership, place.
ALTER TABLE entry ADD COLUMN origin BLOB;
ALTER TABLE stub ADD COLUMN origin BLOB;
ALTER TABLE history ADD COLUMN origin BLOB;

-- How far this database has come in the histories of other regions; null where there are none.
ALTER TABLE shard_head ADD COLUMN following BLOB;
