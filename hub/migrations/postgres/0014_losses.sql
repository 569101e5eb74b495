-- Edges that were lost, and what each could read: a signed statement, as JSON.
CREATE TABLE edge_loss (
    edge    bytea NOT NULL PRIMARY KEY,
    tenant  text COLLATE "C" NOT NULL,
    name    text COLLATE "C" NOT NULL,
    lost_at bigint NOT NULL,
    receipt bytea NOT NULL
);

-- Secrets that a lost edge could read as they were then: to be replaced.
CREATE TABLE exposed_secret (
    edge        bytea NOT NULL,
    tenant      text COLLATE "C" NOT NULL,
    environment text COLLATE "C" NOT NULL,
    namespace   text COLLATE "C" NOT NULL,
    key         text COLLATE "C" NOT NULL,
    version     bigint NOT NULL,
    PRIMARY KEY (tenant, environment, namespace, key, version, edge)
);

-- Edges that have said, signed with their own key, that they destroyed their data.
CREATE TABLE wipe (
    edge     bytea NOT NULL PRIMARY KEY,
    wiped_at bigint NOT NULL,
    proof    bytea NOT NULL
);
