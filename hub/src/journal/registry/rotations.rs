//! Rotations of secrets' values, and what they are made by.

use std::collections::HashMap;
use std::sync::Arc;

use llm_config_shared::name::{EdgeName, EntryKey, Key, Tenant};
use llm_config_shared::rotation::{Rotation, Step};
use llm_config_shared::time::UnixMillis;
use serde_json::json;

use crate::journal::Database;
use crate::journal::dialect::{Answer, Arg, Cells, Dialect, Sql, Transact, bound};
use crate::journal::failure::corrupt;
use crate::journal::rows::{self, name, uuid, written, written_or_null};
use crate::registry::{ExposedPlan, RotationPolicy, Rotations, Source};

macro_rules! policies {
    ($condition:literal) => {
        Sql::same(concat!(
            "SELECT s.tenant, s.environment, s.namespace, p.key, p.source, p.every_days, p.grace_ms, p.set_by, p.set_at
             FROM rotation_policy p JOIN scope s ON s.id = p.scope ",
            $condition
        ))
    };
}
const ONE: Sql = policies!("WHERE s.tenant = $1 AND s.environment = $2 AND s.namespace = $3 AND p.key = $4");
const OF_TENANT: Sql = policies!("WHERE s.tenant = $1 ORDER BY s.environment, s.namespace, p.key");
const TIMED: Sql = policies!("WHERE p.every_days IS NOT NULL");
const EXPOSED: Sql = Sql::same(
    "SELECT s.tenant, s.environment, s.namespace, p.key, x.version, l.name
     FROM rotation_policy p JOIN scope s ON s.id = p.scope JOIN entry e ON e.scope = p.scope AND e.key = p.key
     JOIN exposed_secret x ON x.tenant = s.tenant AND x.environment = s.environment AND x.namespace = s.namespace
         AND x.key = p.key AND x.version = e.version
     JOIN edge_loss l ON l.edge = x.edge
     WHERE e.kind = 2 ORDER BY l.lost_at",
);
const SET: Sql = Sql::same(
    "INSERT INTO rotation_policy (scope, key, source, every_days, grace_ms, set_by, set_at)
     SELECT s.id, $4, $5, $6, $7, $8, $9 FROM scope s WHERE s.tenant = $1 AND s.environment = $2 AND s.namespace = $3
     ON CONFLICT (scope, key) DO UPDATE SET source = excluded.source, every_days = excluded.every_days,
         grace_ms = excluded.grace_ms, set_by = excluded.set_by, set_at = excluded.set_at",
);
const REMOVE: Sql = Sql::same(
    "DELETE FROM rotation_policy WHERE key = $4 AND scope IN
         (SELECT id FROM scope WHERE tenant = $1 AND environment = $2 AND namespace = $3)",
);

macro_rules! rotations {
    ($rest:literal) => {
        Sql::same(concat!(
            "SELECT s.tenant, s.environment, s.namespace, r.key, r.id, r.step, r.started_by, r.old_version, r.new_version,
                    r.began_at, r.written_at, r.retire_at, r.retired_at, r.why, r.again_at
             FROM rotation r JOIN scope s ON s.id = r.scope ",
            $rest
        ))
    };
}
const UNDER_WAY: Sql = rotations!("WHERE r.step IN ('begun', 'written') ORDER BY r.n");
const OF_ENTRY: Sql = rotations!(
    "WHERE s.tenant = $1 AND s.environment = $2 AND s.namespace = $3 AND r.key = $4 ORDER BY r.n DESC LIMIT $5"
);
const NEWEST: Sql = rotations!(
    "WHERE s.tenant = $1 AND r.n = (SELECT MAX(q.n) FROM rotation q WHERE q.scope = r.scope AND q.key = r.key)"
);
const BEGIN: Sql = Sql::same(
    "INSERT INTO rotation (id, scope, key, step, started_by, old_version, began_at, again_at)
     SELECT $5, s.id, $4, 'begun', $6, $7, $8, $9 FROM scope s
     WHERE s.tenant = $1 AND s.environment = $2 AND s.namespace = $3
     ON CONFLICT DO NOTHING",
);
const STEP: Sql = Sql::same(
    "UPDATE rotation SET step = $3, new_version = $4, written_at = $5, retire_at = $6, retired_at = $7, why = $8, again_at = $9
     WHERE id = $1 AND step = $2",
);

fn exposed(row: &impl Cells) -> Answer<ExposedPlan> {
    Ok(ExposedPlan { at: entry(row)?, version: row.int(4)?, edge: name(EdgeName::parse(row.text(5)?))? })
}

fn place(at: &EntryKey) -> Vec<Arg<'_>> {
    let scope = &at.scope;
    let names =
        [scope.tenant.as_str(), scope.environment.as_str(), scope.namespace.as_str(), at.key.as_str()];
    names.into_iter().map(Arg::from).collect()
}

impl<D: Dialect> Rotations for Database<D> {
    async fn rotation_policy(&self, at: &EntryKey) -> Answer<Option<RotationPolicy>> {
        let mut tx = self.dialect().begin_read().await?;
        let found = tx.fetch(ONE, place(at)).await?;
        tx.commit().await?;
        found.first().map(policy).transpose()
    }

    async fn rotation_policies(&self, tenant: &Tenant) -> Answer<Vec<(RotationPolicy, Option<Rotation>)>> {
        let mut tx = self.dialect().begin_read().await?;
        let policies = tx.fetch(OF_TENANT, vec![tenant.as_str().into()]).await?;
        let newest = tx.fetch(NEWEST, vec![tenant.as_str().into()]).await?;
        tx.commit().await?;
        let newest = newest.iter().map(rotation).collect::<Answer<Vec<_>>>()?;
        let mut newest: HashMap<_, _> = newest.into_iter().map(|last| (last.at.clone(), last)).collect();
        let with_last = |row: &_| {
            let policy = policy(row)?;
            let last = newest.remove(&policy.at);
            Ok((policy, last))
        };
        policies.iter().map(with_last).collect()
    }

    async fn timed_rotation_policies(&self) -> Answer<Vec<RotationPolicy>> {
        let mut tx = self.dialect().begin_read().await?;
        let found = tx.fetch(TIMED, vec![]).await?;
        tx.commit().await?;
        found.iter().map(policy).collect()
    }

    async fn exposed_plans(&self) -> Answer<Vec<ExposedPlan>> {
        let mut tx = self.dialect().begin_read().await?;
        let found = tx.fetch(EXPOSED, vec![]).await?;
        tx.commit().await?;
        found.iter().map(exposed).collect()
    }

    async fn set_rotation_policy(&self, policy: &RotationPolicy) -> Answer<()> {
        let source = source_text(&policy.source);
        let mut args = place(&policy.at);
        args.extend([
            source.as_str().into(),
            policy.every_days.into(),
            policy.grace_ms.into(),
            policy.set_by.as_bytes().into(),
            policy.set_at.0.into(),
        ]);
        let mut tx = self.dialect().begin_write().await?;
        tx.execute(SET, args).await?;
        tx.commit().await
    }

    async fn remove_rotation_policy(&self, at: &EntryKey) -> Answer<bool> {
        let mut tx = self.dialect().begin_write().await?;
        let removed = tx.execute(REMOVE, place(at)).await?;
        tx.commit().await?;
        Ok(removed > 0)
    }

    async fn begin_rotation(&self, rotation: &Rotation) -> Answer<bool> {
        let mut args = place(&rotation.at);
        args.extend([
            rotation.id.as_bytes().as_slice().into(),
            rotation.by.as_bytes().into(),
            rotation.old_version.into(),
            rotation.began_at.0.into(),
            rotation.again_at.0.into(),
        ]);
        let mut tx = self.dialect().begin_write().await?;
        let begun = tx.execute(BEGIN, args).await?;
        tx.commit().await?;
        Ok(begun > 0)
    }

    async fn rotations_under_way(&self) -> Answer<Vec<Rotation>> {
        let mut tx = self.dialect().begin_read().await?;
        let found = tx.fetch(UNDER_WAY, vec![]).await?;
        tx.commit().await?;
        found.iter().map(rotation).collect()
    }

    async fn rotations(&self, at: &EntryKey, limit: usize) -> Answer<Vec<Rotation>> {
        let mut args = place(at);
        args.push(bound(limit as u64).into());
        let mut tx = self.dialect().begin_read().await?;
        let found = tx.fetch(OF_ENTRY, args).await?;
        tx.commit().await?;
        found.iter().map(rotation).collect()
    }

    async fn step_rotation(&self, rotation: &Rotation, from: Step) -> Answer<bool> {
        let time = |at: Option<UnixMillis>| Arg::from(at.map(|at| at.0));
        let args = vec![
            rotation.id.as_bytes().as_slice().into(),
            from.as_str().into(),
            rotation.step.as_str().into(),
            rotation.new_version.into(),
            time(rotation.written_at),
            time(rotation.retire_at),
            time(rotation.retired_at),
            Arg::Blob(rotation.why.as_deref().map(|why| why.as_bytes().into())),
            rotation.again_at.0.into(),
        ];
        let mut tx = self.dialect().begin_write().await?;
        let stepped = tx.execute(STEP, args).await?;
        tx.commit().await?;
        Ok(stepped > 0)
    }
}

fn entry(row: &impl Cells) -> Answer<EntryKey> {
    Ok(EntryKey { scope: rows::scope(row, 0)?, key: name(Key::parse(row.text(3)?))? })
}

fn policy(row: &impl Cells) -> Answer<RotationPolicy> {
    Ok(RotationPolicy {
        at: entry(row)?,
        source: to_source(row.text(4)?).ok_or_else(|| corrupt("a rotation by an unknown source"))?,
        every_days: row.int_or_null(5)?,
        grace_ms: row.int(6)?,
        set_by: written(row.blob(7)?)?,
        set_at: UnixMillis(row.int(8)?),
    })
}

fn rotation(row: &impl Cells) -> Answer<Rotation> {
    let time = |column| -> Answer<_> { Ok(row.int_or_null(column)?.map(UnixMillis)) };
    Ok(Rotation {
        at: entry(row)?,
        id: uuid(row, 4)?,
        step: Step::parse(row.text(5)?).ok_or_else(|| corrupt("a rotation at an unknown step"))?,
        by: written(row.blob(6)?)?,
        old_version: row.int(7)?,
        new_version: row.int_or_null(8)?,
        began_at: UnixMillis(row.int(9)?),
        written_at: time(10)?,
        retire_at: time(11)?,
        retired_at: time(12)?,
        why: written_or_null(row, 13)?,
        again_at: UnixMillis(row.int(14)?),
    })
}

fn source_text(source: &Source) -> String {
    match source {
        Source::Generated { length, alphabet } => json!({ "generated": [length, &**alphabet] }),
        Source::Command { name, old_value } => json!({ "command": [&**name, old_value] }),
    }
    .to_string()
}

/// The inverse of [`source_text`].
fn to_source(text: &str) -> Option<Source> {
    let parsed: serde_json::Value = serde_json::from_str(text).ok()?;
    if let Some([length, alphabet]) = parsed["generated"].as_array().map(Vec::as_slice) {
        let length = u32::try_from(length.as_u64()?).ok()?;
        return Some(Source::Generated { length, alphabet: alphabet.as_str()?.into() });
    }
    let [name, old_value] = parsed["command"].as_array()?.as_slice() else { return None };
    Some(Source::Command { name: Arc::from(name.as_str()?), old_value: old_value.as_bool()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_read_as_it_was_written() {
        for source in [
            Source::Generated { length: 40, alphabet: "ab\"c".into() },
            Source::Command { name: "openai".into(), old_value: true },
        ] {
            assert_eq!(to_source(&source_text(&source)), Some(source));
        }
        assert_eq!(to_source("{}"), None);
    }
}
