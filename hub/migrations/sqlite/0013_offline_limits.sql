-- How long an edge's secrets stay open without contact, where somebody set it: for a namespace and everything below it.
CREATE TABLE offline_limit (
    tenant    TEXT NOT NULL REFERENCES tenant (name),
    namespace TEXT NOT NULL,
    limit_ms  INTEGER NOT NULL,
    PRIMARY KEY (tenant, namespace)
) STRICT;
