-- Whole numbers are below 2^63. Ids and digests are 16 bytes, big-endian. Text that people write is kept as bytes.
-- Blobs named context, base, metadata, binding and labels begin with the version of their encoding.

CREATE TABLE shard_head (
    shard   BLOB PRIMARY KEY NOT NULL,
    -- 1 for the shard that this database is the primary of.
    local   INTEGER NOT NULL,
    epoch   INTEGER NOT NULL,
    seq     INTEGER NOT NULL,
    hlc     INTEGER NOT NULL,
    -- Edges below it get a snapshot, because tombstones they need are gone.
    f_seq   INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE UNIQUE INDEX shard_head_local ON shard_head (local) WHERE local = 1;

CREATE TABLE shard_epoch (
    shard     BLOB NOT NULL,
    ord       INTEGER NOT NULL,
    epoch     INTEGER NOT NULL,
    start_seq INTEGER NOT NULL,
    PRIMARY KEY (shard, ord),
    UNIQUE (shard, epoch)
) STRICT;

CREATE TABLE scope (
    id             INTEGER PRIMARY KEY,
    tenant         TEXT NOT NULL,
    environment    TEXT NOT NULL,
    namespace      TEXT NOT NULL,
    plain_sum      BLOB NOT NULL,
    plain_live     INTEGER NOT NULL,
    secret_sum     BLOB NOT NULL,
    secret_live    INTEGER NOT NULL,
    last_seq       INTEGER NOT NULL,
    plain_last_seq INTEGER NOT NULL,
    UNIQUE (tenant, environment, namespace)
) STRICT;

-- The current row of each key, tombstones included: an index of the latest, not a log.
CREATE TABLE entry (
    scope       INTEGER NOT NULL REFERENCES scope (id),
    key         TEXT NOT NULL,
    shard       BLOB NOT NULL,
    epoch       INTEGER NOT NULL,
    seq         INTEGER NOT NULL,
    hlc         INTEGER NOT NULL,
    actor       BLOB NOT NULL,
    inc         INTEGER NOT NULL,
    ctr         INTEGER NOT NULL,
    version     INTEGER NOT NULL,
    top_version INTEGER NOT NULL,
    plain_seq   INTEGER NOT NULL,
    -- 0 deleted, 1 plain, 2 secret.
    kind        INTEGER NOT NULL,
    value       BLOB,
    value_hash  BLOB NOT NULL,
    metadata    BLOB NOT NULL,
    change_id   BLOB NOT NULL,
    context     BLOB NOT NULL,
    base        BLOB,
    PRIMARY KEY (scope, key)
) STRICT;
CREATE UNIQUE INDEX entry_by_seq ON entry (shard, epoch, seq);
CREATE INDEX entry_scope_seq ON entry (scope, shard, seq);

-- Every write that was decided, for ever. Its scope was numbered in the same transaction; checking that again for
-- each row is what a large import would wait for.
CREATE TABLE history (
    id             INTEGER PRIMARY KEY AUTOINCREMENT,
    scope          INTEGER NOT NULL,
    key            TEXT NOT NULL,
    version        INTEGER NOT NULL,
    hlc            INTEGER NOT NULL,
    actor          BLOB NOT NULL,
    inc            INTEGER NOT NULL,
    ctr            INTEGER NOT NULL,
    claimed_hlc    INTEGER,
    kind           INTEGER NOT NULL,
    value          BLOB,
    content_hash   BLOB NOT NULL,
    author         BLOB NOT NULL,
    claimed_author BLOB,
    created_at     INTEGER NOT NULL,
    message        BLOB,
    change_type    TEXT NOT NULL,
    change_id      BLOB NOT NULL,
    status         TEXT NOT NULL,
    reason         BLOB,
    epoch          INTEGER,
    seq            INTEGER,
    context        BLOB NOT NULL,
    base           BLOB,
    UNIQUE (actor, inc, ctr)
) STRICT;
CREATE INDEX history_by_entry ON history (scope, key, id, version);
CREATE INDEX history_by_change ON history (change_id, id);
CREATE UNIQUE INDEX history_by_seq ON history (seq, epoch) WHERE seq IS NOT NULL;
CREATE INDEX history_held ON history (id) WHERE status = 'held';

CREATE TABLE conflict (
    n              INTEGER PRIMARY KEY AUTOINCREMENT,
    id             BLOB NOT NULL UNIQUE,
    tenant         TEXT NOT NULL,
    scope          INTEGER NOT NULL REFERENCES scope (id),
    key            TEXT NOT NULL,
    winner_actor   BLOB NOT NULL,
    winner_inc     INTEGER NOT NULL,
    winner_ctr     INTEGER NOT NULL,
    loser_actor    BLOB NOT NULL,
    loser_inc      INTEGER NOT NULL,
    loser_ctr      INTEGER NOT NULL,
    winner_version INTEGER NOT NULL,
    loser_version  INTEGER NOT NULL,
    detected_at    INTEGER NOT NULL
) STRICT;
CREATE INDEX conflict_by_tenant ON conflict (tenant, n);

-- The last write of each edge incarnation that was decided.
CREATE TABLE frontier (
    edge     BLOB NOT NULL,
    inc      INTEGER NOT NULL,
    last_ctr INTEGER NOT NULL,
    session  INTEGER NOT NULL,
    PRIMARY KEY (edge, inc)
) STRICT;

CREATE TABLE change (
    n          INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant     TEXT NOT NULL,
    id         BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    author     BLOB NOT NULL,
    message    BLOB,
    writes     INTEGER NOT NULL,
    UNIQUE (tenant, id)
) STRICT;
CREATE INDEX change_by_tenant ON change (tenant, n);

-- Answers kept for requests that come again.
CREATE TABLE repeat (
    tenant       TEXT NOT NULL,
    change_id    BLOB NOT NULL,
    batch        INTEGER NOT NULL,
    request_hash BLOB NOT NULL,
    answer       BLOB NOT NULL,
    PRIMARY KEY (tenant, change_id, batch)
) STRICT;

CREATE TABLE tenant (
    name       TEXT PRIMARY KEY NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE environment (
    tenant TEXT NOT NULL REFERENCES tenant (name),
    name   TEXT NOT NULL,
    parent TEXT,
    PRIMARY KEY (tenant, name)
) STRICT;

CREATE TABLE api_token (
    id         BLOB PRIMARY KEY NOT NULL,
    tenant     TEXT NOT NULL REFERENCES tenant (name),
    name       BLOB NOT NULL,
    hash       BLOB NOT NULL UNIQUE,
    role       TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    created_by BLOB NOT NULL,
    expires_at INTEGER
) STRICT;
CREATE INDEX api_token_by_tenant ON api_token (tenant, created_at);

CREATE TABLE join_token (
    id         BLOB PRIMARY KEY NOT NULL,
    tenant     TEXT NOT NULL REFERENCES tenant (name),
    name       TEXT NOT NULL,
    hash       BLOB NOT NULL UNIQUE,
    binding    BLOB NOT NULL,
    labels     BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    created_by BLOB NOT NULL,
    expires_at INTEGER NOT NULL,
    max_uses   INTEGER NOT NULL,
    uses       INTEGER NOT NULL
) STRICT;

CREATE TABLE edge (
    id           BLOB PRIMARY KEY NOT NULL,
    tenant       TEXT NOT NULL REFERENCES tenant (name),
    name         TEXT NOT NULL,
    binding      BLOB NOT NULL,
    labels       BLOB NOT NULL,
    public_key   BLOB NOT NULL,
    sealing_key  BLOB NOT NULL,
    joined_at    INTEGER NOT NULL,
    removed_at   INTEGER,
    last_seen_at INTEGER,
    acked_seq    INTEGER NOT NULL,
    join_token   BLOB NOT NULL REFERENCES join_token (id)
) STRICT;
CREATE UNIQUE INDEX edge_named ON edge (tenant, name) WHERE removed_at IS NULL;
CREATE INDEX edge_by_token ON edge (join_token, public_key);

-- Keys of this hub, wrapped by the key-encryption key.
CREATE TABLE wrapped_key (
    name    TEXT PRIMARY KEY NOT NULL,
    wrapped BLOB NOT NULL
) STRICT;

CREATE TABLE root (
    tenant      TEXT NOT NULL,
    environment TEXT NOT NULL,
    key_epoch   INTEGER NOT NULL,
    wrapped     BLOB NOT NULL,
    created_at  INTEGER NOT NULL,
    PRIMARY KEY (tenant, environment, key_epoch)
) STRICT;

-- Which keys were handed to which edge; only ever grows.
CREATE TABLE grant_ledger (
    edge        BLOB NOT NULL,
    tenant      TEXT NOT NULL,
    environment TEXT NOT NULL,
    subtree     TEXT NOT NULL,
    key_epoch   INTEGER NOT NULL,
    granted_at  INTEGER NOT NULL,
    PRIMARY KEY (edge, environment, subtree, key_epoch)
) STRICT;
