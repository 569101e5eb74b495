//! The statements of a commit. SQLite runs each once per row; PostgreSQL takes the rows as arrays.

use super::super::dialect::Sql;

/// The head as its leader left it, locked until the end of the transaction. SQLite locks when the transaction begins.
pub(super) const FENCE: Sql = Sql {
    sqlite: "SELECT seq FROM shard_head WHERE shard = $1 AND epoch = $2 AND seq = $3",
    postgres: "SELECT seq FROM shard_head WHERE shard = $1 AND epoch = $2 AND seq = $3 FOR UPDATE",
};
pub(super) const HEAD: Sql = Sql::same("UPDATE shard_head SET seq = $2, hlc = $3 WHERE shard = $1");
/// A row that stands at a later place of the same shard is not replaced; the count then differs from the plan.
pub(super) const ENTRY: Sql = Sql {
    sqlite: "INSERT INTO entry (scope, key, shard, epoch, seq, hlc, actor, inc, ctr, version,
                 top_version, plain_seq, kind, value, value_hash, metadata, change_id,
                 context, base, admitted_at, origin, expires_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16,
                 $17, $18, $19, $20, $21, $22)
             ON CONFLICT (scope, key) DO UPDATE SET
                 shard = excluded.shard, epoch = excluded.epoch, seq = excluded.seq,
                 hlc = excluded.hlc, actor = excluded.actor, inc = excluded.inc, ctr = excluded.ctr,
                 version = excluded.version, top_version = excluded.top_version,
                 plain_seq = excluded.plain_seq, kind = excluded.kind, value = excluded.value,
                 value_hash = excluded.value_hash, metadata = excluded.metadata,
                 change_id = excluded.change_id, context = excluded.context, base = excluded.base,
                 admitted_at = excluded.admitted_at, origin = excluded.origin,
                 expires_at = excluded.expires_at
             WHERE entry.shard <> excluded.shard OR entry.seq < excluded.seq",
    postgres: "INSERT INTO entry (scope, key, shard, epoch, seq, hlc, actor, inc, ctr, version,
                   top_version, plain_seq, kind, value, value_hash, metadata, change_id,
                   context, base, admitted_at, origin, expires_at)
               SELECT * FROM unnest(
                   $1::bigint[], $2::text[], $3::bytea[], $4::bigint[], $5::bigint[], $6::bigint[],
                   $7::bytea[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[],
                   $12::bigint[], $13::bigint[], $14::bytea[], $15::bytea[], $16::bytea[],
                   $17::bytea[], $18::bytea[], $19::bytea[], $20::bigint[], $21::bytea[],
                   $22::bigint[])
               ON CONFLICT (scope, key) DO UPDATE SET
                   shard = excluded.shard, epoch = excluded.epoch, seq = excluded.seq,
                   hlc = excluded.hlc, actor = excluded.actor, inc = excluded.inc, ctr = excluded.ctr,
                   version = excluded.version, top_version = excluded.top_version,
                   plain_seq = excluded.plain_seq, kind = excluded.kind, value = excluded.value,
                   value_hash = excluded.value_hash, metadata = excluded.metadata,
                   change_id = excluded.change_id, context = excluded.context, base = excluded.base,
                   admitted_at = excluded.admitted_at, origin = excluded.origin,
                 expires_at = excluded.expires_at
               WHERE entry.shard <> excluded.shard OR entry.seq < excluded.seq",
};
pub(super) const RAISE: Sql = Sql {
    sqlite: "UPDATE entry SET top_version = max(top_version, $3) WHERE scope = $1 AND key = $2",
    postgres:
        "UPDATE entry SET top_version = greatest(top_version, v)
               FROM unnest($1::bigint[], $2::text[], $3::bigint[]) AS a (s, k, v) WHERE scope = s AND key = k",
};
pub(super) const HISTORY: Sql = Sql {
    sqlite: "INSERT INTO history (scope, key, version, hlc, actor, inc, ctr, claimed_hlc, kind, value,
                 content_hash, author, claimed_author, created_at, message,
                 change_type, change_id, status, reason, epoch, seq, context, base, held_id, origin,
                 returned_in)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16,
                 $17, $18, $19, $20, $21, $22, $23, $24, $25, $26)",
    postgres: "INSERT INTO history (scope, key, version, hlc, actor, inc, ctr, claimed_hlc, kind, value,
                   content_hash, author, claimed_author, created_at, message,
                   change_type, change_id, status, reason, epoch, seq, context, base, held_id, origin,
                   returned_in)
               SELECT * FROM unnest(
                   $1::bigint[], $2::text[], $3::bigint[], $4::bigint[], $5::bytea[], $6::bigint[],
                   $7::bigint[], $8::bigint[], $9::bigint[], $10::bytea[], $11::bytea[],
                   $12::bytea[], $13::bytea[], $14::bigint[], $15::bytea[], $16::text[],
                   $17::bytea[], $18::text[], $19::bytea[], $20::bigint[], $21::bigint[],
                   $22::bytea[], $23::bytea[], $24::bytea[], $25::bytea[], $26::bytea[])",
};
/// A write that is admitted after all stands in the history as that.
pub(super) const WITHDRAW: Sql = Sql {
    sqlite: "DELETE FROM history WHERE actor = $1 AND inc = $2 AND ctr = $3 AND seq IS NULL",
    postgres: "DELETE FROM history USING unnest($1::bytea[], $2::bigint[], $3::bigint[]) AS a (x, i, c)
               WHERE actor = x AND inc = i AND ctr = c AND seq IS NULL",
};
/// Before it goes, it is one less of the change that people find it in.
pub(super) const UNCOUNT: Sql = Sql {
    sqlite: "UPDATE change SET writes = writes - 1 FROM history h JOIN scope s ON s.id = h.scope
             WHERE h.actor = $1 AND h.inc = $2 AND h.ctr = $3 AND change.tenant = s.tenant
               AND change.id = coalesce(h.returned_in, h.change_id)",
    postgres: "UPDATE change SET writes = writes - gone
               FROM (SELECT s.tenant AS t, coalesce(h.returned_in, h.change_id) AS d, count(*) AS gone
                     FROM unnest($1::bytea[], $2::bigint[], $3::bigint[]) AS a (x, i, c)
                     JOIN history h ON h.actor = x AND h.inc = i AND h.ctr = c JOIN scope s ON s.id = h.scope
                     GROUP BY 1, 2) AS w
               WHERE tenant = t AND id = d",
};
pub(super) const FOLLOWING: Sql = Sql::same("UPDATE shard_head SET following = $2 WHERE shard = $1");
pub(super) const SUPERSEDE: Sql = Sql {
    sqlite: "UPDATE history SET status = 'superseded_concurrent' WHERE actor = $1 AND inc = $2 AND ctr = $3",
    postgres: "UPDATE history SET status = 'superseded_concurrent'
               FROM unnest($1::bytea[], $2::bigint[], $3::bigint[]) AS a (x, i, c)
               WHERE actor = x AND inc = i AND ctr = c",
};
pub(super) const CONFLICT: Sql = Sql {
    sqlite: "INSERT INTO conflict (id, tenant, scope, key, winner_actor, winner_inc, winner_ctr,
                 loser_actor, loser_inc, loser_ctr, winner_version, loser_version,
                 detected_at, seq)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
    postgres: "INSERT INTO conflict (id, tenant, scope, key, winner_actor, winner_inc, winner_ctr,
                   loser_actor, loser_inc, loser_ctr, winner_version, loser_version,
                   detected_at, seq)
               SELECT * FROM unnest(
                   $1::bytea[], $2::text[], $3::bigint[], $4::text[], $5::bytea[], $6::bigint[],
                   $7::bigint[], $8::bytea[], $9::bigint[], $10::bigint[], $11::bigint[],
                   $12::bigint[], $13::bigint[], $14::bigint[])",
};
pub(super) const FRONTIER: Sql = Sql {
    sqlite: "INSERT INTO frontier (edge, inc, last_ctr, session)
             VALUES ($1, $2, $3, $4)
             ON CONFLICT (edge, inc) DO UPDATE SET
                 last_ctr = max(frontier.last_ctr, excluded.last_ctr),
                 session = max(frontier.session, excluded.session)",
    postgres: "INSERT INTO frontier (edge, inc, last_ctr, session)
               SELECT * FROM unnest(
                   $1::bytea[], $2::bigint[], $3::bigint[], $4::bigint[])
               ON CONFLICT (edge, inc) DO UPDATE SET
                   last_ctr = greatest(frontier.last_ctr, excluded.last_ctr),
                   session = greatest(frontier.session, excluded.session)",
};
pub(super) const CHANGE: Sql = Sql {
    sqlite: "INSERT INTO change (tenant, id, created_at, author, message, writes)
             VALUES ($1, $2, $3, $4, $5, $6)
             ON CONFLICT (tenant, id) DO UPDATE SET writes = change.writes + excluded.writes",
    postgres: "INSERT INTO change (tenant, id, created_at, author, message, writes)
               SELECT * FROM unnest(
                   $1::text[], $2::bytea[], $3::bigint[], $4::bytea[], $5::bytea[], $6::bigint[])
               ON CONFLICT (tenant, id) DO UPDATE SET writes = change.writes + excluded.writes",
};
pub(super) const REPEAT: Sql = Sql {
    sqlite: "INSERT INTO repeat (tenant, change_id, batch, request_hash, answer)
             VALUES ($1, $2, $3, $4, $5)",
    postgres: "INSERT INTO repeat (tenant, change_id, batch, request_hash, answer)
               SELECT * FROM unnest(
                   $1::text[], $2::bytea[], $3::bigint[], $4::bytea[], $5::bytea[])",
};
