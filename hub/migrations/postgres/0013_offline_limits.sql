-- How long an edge's secrets stay open without contact, where somebody set it: for a namespace and everything below it.
CREATE TABLE offline_limit (
    tenant    text COLLATE "C" NOT NULL REFERENCES tenant (name),
    namespace text COLLATE "C" NOT NULL,
    limit_ms  bigint NOT NULL,
    PRIMARY KEY (tenant, namespace)
);
