-- What becomes of writes that a restored hub lacks and edges still have.

-- discard, hold or accept; chosen when it was restored.
ALTER TABLE restored ADD COLUMN newer TEXT NOT NULL DEFAULT 'discard';

-- What each edge has handed in of a loss, by what became of it.
CREATE TABLE handed_in (
    tenant    TEXT NOT NULL,
    -- Which loss: the leadership that began after it.
    new_epoch INTEGER NOT NULL,
    edge      BLOB NOT NULL,
    name      TEXT NOT NULL,
    known     INTEGER NOT NULL,
    admitted  INTEGER NOT NULL,
    held      INTEGER NOT NULL,
    denied    INTEGER NOT NULL,
    discarded INTEGER NOT NULL,
    refused   INTEGER NOT NULL,
    left_out  INTEGER NOT NULL,
    -- About how many, of what was kept.
    bytes     INTEGER NOT NULL,
    PRIMARY KEY (tenant, new_epoch, edge)
) STRICT;
