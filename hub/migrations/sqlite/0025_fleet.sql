-- What several regions copy from one another beside entries: tenants, tokens, edges and what belongs to them.

CREATE TABLE fleet_head (
    one      INTEGER PRIMARY KEY CHECK (one = 1),
    -- The region that decides; null: this one, unless it was told otherwise.
    home     BLOB,
    -- How often a region was made the home.
    term     INTEGER NOT NULL,
    -- The last change here, and the latest moment that was heard of.
    n        INTEGER NOT NULL,
    at       INTEGER NOT NULL,
    -- Where the home was reached, and when it was last heard that its rows are here.
    home_at  TEXT,
    heard_at INTEGER
) STRICT;

-- Of each row of those tables: when it last changed here, and when that was said. The row of one that has ended stays.
CREATE TABLE fleet_row (
    kind  TEXT NOT NULL,
    id    TEXT NOT NULL,
    n     INTEGER NOT NULL UNIQUE,
    term  INTEGER NOT NULL,
    at    INTEGER NOT NULL,
    ended INTEGER NOT NULL,
    PRIMARY KEY (kind, id)
) STRICT;

INSERT INTO fleet_row (kind, id, n, term, at, ended)
SELECT kind, id, row_number() OVER (), 0, 0, 0 FROM (
    SELECT 'tenant' AS kind, name AS id FROM tenant
    UNION ALL SELECT 'environment', tenant || '/' || name FROM environment
    UNION ALL SELECT 'policy', tenant || '/' || namespace FROM policy
    UNION ALL SELECT 'offline_limit', tenant || '/' || namespace FROM offline_limit
    UNION ALL SELECT 'token', lower(hex(id)) FROM api_token
    UNION ALL SELECT 'join_token', lower(hex(id)) FROM join_token
    UNION ALL SELECT 'edge', lower(hex(id)) FROM edge
    UNION ALL SELECT 'removal', lower(hex(id)) FROM edge WHERE removed_at IS NOT NULL
    UNION ALL SELECT 'loss', lower(hex(edge)) FROM edge_loss
    UNION ALL SELECT 'wipe', lower(hex(edge)) FROM wipe
    UNION ALL SELECT 'grant', lower(hex(edge)) || '/' || environment || '/' || key_epoch || '/' || subtree FROM grant_ledger
);
INSERT INTO fleet_head (one, term, n, at) SELECT 1, 1, count(*), 0 FROM fleet_row HAVING count(*) > 0;
