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
