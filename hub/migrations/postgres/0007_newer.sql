-- What becomes of writes that a restored hub lacks and edges still have.

-- discard, hold or accept; chosen when it was restored.
ALTER TABLE restored ADD COLUMN newer text NOT NULL DEFAULT 'discard';

-- What each edge has handed in of a loss, by what became of it.
CREATE TABLE handed_in (
    tenant text NOT NULL,
    -- Which loss: the leadership that began after it.
    new_epoch bigint NOT NULL,
    edge bytea NOT NULL,
    name text NOT NULL,
    known bigint NOT NULL,
    admitted bigint NOT NULL,
    held bigint NOT NULL,
    denied bigint NOT NULL,
    discarded bigint NOT NULL,
    refused bigint NOT NULL,
    left_out bigint NOT NULL,
    -- About how many, of what was kept.
    bytes bigint NOT NULL,
    PRIMARY KEY (tenant, new_epoch, edge)
);
