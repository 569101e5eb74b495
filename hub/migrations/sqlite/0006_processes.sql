-- What the processes of one hub tell one another.

-- Which process of the hub writes, and where the others reach it to pass writes on. What is true of it is decided by the
-- fence: an old row here costs a refused call.
CREATE TABLE leader (
    shard   BLOB PRIMARY KEY NOT NULL,
    -- The leadership that this is about.
    epoch   INTEGER NOT NULL,
    -- A random id of the process: another one may come to the same address.
    process BLOB NOT NULL,
    -- https://HOST:PORT of its sync port.
    address TEXT NOT NULL
);

-- When each process last said which edges are connected to it, and which those are. A process that is gone says nothing
-- any more.
CREATE TABLE process (
    process BLOB PRIMARY KEY NOT NULL,
    said_at INTEGER NOT NULL
);
CREATE TABLE seat (
    process BLOB NOT NULL,
    edge    BLOB NOT NULL,
    PRIMARY KEY (process, edge)
);
