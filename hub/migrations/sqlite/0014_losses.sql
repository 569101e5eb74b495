-- Edges that were lost, and what each could read: a signed statement, as JSON.
CREATE TABLE edge_loss (
    edge    BLOB NOT NULL PRIMARY KEY,
    tenant  TEXT NOT NULL,
    name    TEXT NOT NULL,
    lost_at INTEGER NOT NULL,
    receipt BLOB NOT NULL
) STRICT;

-- Secrets that a lost edge could read as they were then: to be replaced.
CREATE TABLE exposed_secret (
    edge        BLOB NOT NULL,
    tenant      TEXT NOT NULL,
    environment TEXT NOT NULL,
    namespace   TEXT NOT NULL,
    key         TEXT NOT NULL,
    version     INTEGER NOT NULL,
    PRIMARY KEY (tenant, environment, namespace, key, version, edge)
) STRICT;

-- Edges that have said, signed with their own key, that they destroyed their data.
CREATE TABLE wipe (
    edge     BLOB NOT NULL PRIMARY KEY,
    wiped_at INTEGER NOT NULL,
    proof    BLOB NOT NULL
) STRICT;
