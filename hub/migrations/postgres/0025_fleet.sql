-- What several regions copy from one another beside entries: tenants, tokens, edges and what belongs to them.

CREATE TABLE fleet_head (
    one      bigint PRIMARY KEY CHECK (one = 1),
    -- The region that decides; null: this one, unless it was told otherwise.
    home     bytea,
    -- How often a region was made the home.
    term     bigint NOT NULL,
    -- The last change here, and the latest moment that was heard of.
    n        bigint NOT NULL,
    at       bigint NOT NULL,
    -- Where the home was reached, and when it was last heard that its rows are here.
    home_at  text,
    heard_at bigint
);

-- Of each row of those tables: when it last changed here, and when that was said. The row of one that has ended stays.
CREATE TABLE fleet_row (
    kind  text COLLATE "C" NOT NULL,
    id    text COLLATE "C" NOT NULL,
    n     bigint NOT NULL UNIQUE,
    term  bigint NOT NULL,
    at    bigint NOT NULL,
    ended bigint NOT NULL,
    PRIMARY KEY (kind, id)
);

INSERT INTO fleet_row (kind, id, n, term, at, ended)
SELECT kind, id, row_number() OVER (), 0, 0, 0 FROM (
    SELECT 'tenant' AS kind, name AS id FROM tenant
    UNION ALL SELECT 'environment', tenant || '/' || name FROM environment
    UNION ALL SELECT 'policy', tenant || '/' || namespace FROM policy
    UNION ALL SELECT 'offline_limit', tenant || '/' || namespace FROM offline_limit
    UNION ALL SELECT 'token', encode(id, 'hex') FROM api_token
    UNION ALL SELECT 'join_token', encode(id, 'hex') FROM join_token
    UNION ALL SELECT 'edge', encode(id, 'hex') FROM edge
    UNION ALL SELECT 'removal', encode(id, 'hex') FROM edge WHERE removed_at IS NOT NULL
    UNION ALL SELECT 'loss', encode(edge, 'hex') FROM edge_loss
    UNION ALL SELECT 'wipe', encode(edge, 'hex') FROM wipe
    UNION ALL SELECT 'grant', encode(edge, 'hex') || '/' || environment || '/' || key_epoch || '/' || subtree FROM grant_ledger
) AS found;
INSERT INTO fleet_head (one, term, n, at) SELECT 1, 1, count(*), 0 FROM fleet_row HAVING count(*) > 0;
