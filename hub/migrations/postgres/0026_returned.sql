-- What edges brought back after the hub was restored keeps its own change; people find it in that of the loss as well.
ALTER TABLE history ADD COLUMN returned_in BYTEA;
CREATE INDEX history_returned ON history (returned_in) WHERE returned_in IS NOT NULL;
