-- What the processes of one hub tell one another.

-- Which process of the hub writes, and where the others reach it to pass writes on. What is true of it is decided by the
-- fence: an old row here costs a refused call.
CREATE TABLE leader (
    shard bytea PRIMARY KEY,
    -- The leadership that this is about.
    epoch bigint NOT NULL,
    -- A random id of the process: another one may come to the same address.
    process bytea NOT NULL,
    -- https://HOST:PORT of its sync port.
    address text NOT NULL
);

-- When each process last said which edges are connected to it, and which those are. A process that is gone says nothing
-- any more.
CREATE TABLE process (
    process bytea PRIMARY KEY,
    said_at bigint NOT NULL
);
CREATE TABLE seat (
    process bytea NOT NULL,
    edge bytea NOT NULL,
    PRIMARY KEY (process, edge)
);
