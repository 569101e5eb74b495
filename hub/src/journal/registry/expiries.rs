//! Secrets that expire, by the time beside each current row; and the warnings that were given.

use llm_config_shared::entry::Content;
use llm_config_shared::name::{EntryKey, Key, Tenant};
use llm_config_shared::secret::SecretType;
use llm_config_shared::time::UnixMillis;

use crate::journal::Database;
use crate::journal::dialect::{Answer, Arg, Cells, Dialect, Sql, Transact, bound};
use crate::journal::encoding::to_content;
use crate::journal::failure::corrupt;
use crate::journal::rows::{self, name};
use crate::registry::{Expiries, Expiring, ExpiryWarning, Outlook};

macro_rules! expiring_columns {
    () => {
        "SELECT s.tenant, s.environment, s.namespace, e.key, e.version, e.kind, e.value, e.expires_at
         FROM entry e JOIN scope s ON s.id = e.scope WHERE e.expires_at IS NOT NULL AND e.expires_at <= $1 "
    };
}

const OF_TENANT: Sql = Sql::same(concat!(
    expiring_columns!(),
    "AND s.tenant = $2 ORDER BY e.expires_at, s.namespace, e.key LIMIT $3"
));
const TO_WARN_OF: Sql = Sql::same(concat!(
    expiring_columns!(),
    "AND NOT EXISTS (SELECT 1 FROM expiry_warning w WHERE w.scope = e.scope AND w.key = e.key AND w.version = e.version
                     AND w.days = 0)
     ORDER BY e.expires_at LIMIT $2"
));
const OUTLOOK: Sql = Sql::same(
    "SELECT count(*), min(expires_at) FROM entry WHERE expires_at IS NOT NULL AND expires_at <= $1",
);
const WARN: Sql = Sql::same(
    "INSERT INTO expiry_warning (scope, key, version, days, secret_type, expires_at, warned_at)
     SELECT s.id, $4, $5, $6, $7, $8, $9 FROM scope s WHERE s.tenant = $1 AND s.environment = $2 AND s.namespace = $3
     ON CONFLICT (scope, key, version, days) DO NOTHING",
);
const MARK: Sql = Sql::same("SELECT coalesce(max(n), 0) FROM expiry_warning");
const AFTER: Sql = Sql::same(
    "SELECT s.tenant, s.environment, s.namespace, w.key, w.version, w.secret_type, w.expires_at, w.n, w.days
     FROM expiry_warning w JOIN scope s ON s.id = w.scope WHERE s.tenant = $1 AND w.n > $2 ORDER BY w.n LIMIT $3",
);

impl<D: Dialect> Expiries for Database<D> {
    async fn expiring(&self, tenant: &Tenant, by: UnixMillis, limit: usize) -> Answer<Vec<Expiring>> {
        let args = vec![bound(by.0).into(), tenant.as_str().into(), bound(limit as u64).into()];
        let mut tx = self.dialect().begin_read().await?;
        let found = found(&mut tx, OF_TENANT, args).await?;
        tx.commit().await?;
        Ok(found)
    }

    async fn to_warn_of(&self, by: UnixMillis, limit: usize) -> Answer<Vec<Expiring>> {
        let args = vec![bound(by.0).into(), bound(limit as u64).into()];
        let mut tx = self.dialect().begin_read().await?;
        let found = found(&mut tx, TO_WARN_OF, args).await?;
        tx.commit().await?;
        Ok(found)
    }

    async fn warn(&self, of: &[(Expiring, u64)], now: UnixMillis) -> Answer<Vec<(Expiring, u64)>> {
        if of.is_empty() {
            return Ok(Vec::new());
        }
        let mut tx = self.dialect().begin_write().await?;
        let mut new = Vec::new();
        for (secret, days) in of {
            if tx.execute(WARN, warning_args(secret, *days, now)).await? > 0 {
                new.push((secret.clone(), *days));
            }
        }
        tx.commit().await?;
        Ok(new)
    }

    async fn warning_mark(&self) -> Answer<u64> {
        let mut tx = self.dialect().begin_read().await?;
        let found = tx.fetch(MARK, vec![]).await?;
        tx.commit().await?;
        found.first().map_or(Ok(0), |row| row.int(0))
    }

    async fn warnings_after(&self, tenant: &Tenant, after: u64, limit: usize) -> Answer<Vec<ExpiryWarning>> {
        let args = vec![tenant.as_str().into(), bound(after).into(), bound(limit as u64).into()];
        let mut tx = self.dialect().begin_read().await?;
        let found = tx.fetch(AFTER, args).await?;
        tx.commit().await?;
        found.iter().map(warning).collect()
    }

    async fn outlook(&self, by: UnixMillis) -> Answer<Outlook> {
        let mut tx = self.dialect().begin_read().await?;
        let found = tx.fetch(OUTLOOK, vec![bound(by.0).into()]).await?;
        tx.commit().await?;
        let Some(row) = found.first() else { return Ok(Outlook::default()) };
        Ok(Outlook { count: row.int(0)?, soonest: row.int_or_null(1)?.map(UnixMillis) })
    }
}

async fn found<T: Transact>(tx: &mut T, sql: Sql, args: Vec<Arg<'_>>) -> Answer<Vec<Expiring>> {
    tx.fetch(sql, args).await?.iter().map(expiring).collect()
}

fn place(row: &impl Cells) -> Answer<EntryKey> {
    Ok(EntryKey { scope: rows::scope(row, 0)?, key: name(Key::parse(row.text(3)?))? })
}

fn expiring(row: &impl Cells) -> Answer<Expiring> {
    let Content::Secret(sealed) = to_content(row.int(5)?, row.blob_or_null(6)?)? else {
        return Err(corrupt("an entry that expires and is no secret"));
    };
    let expires_at = UnixMillis(row.int(7)?);
    let secret_type = sealed.about.told.secret_type;
    Ok(Expiring { at: place(row)?, version: row.int(4)?, secret_type, expires_at })
}

fn warning(row: &impl Cells) -> Answer<ExpiryWarning> {
    let secret_type = SecretType::from_number(row.int(5)?);
    let secret = Expiring {
        at: place(row)?,
        version: row.int(4)?,
        secret_type: secret_type.ok_or_else(|| corrupt("a secret of an unknown type"))?,
        expires_at: UnixMillis(row.int(6)?),
    };
    Ok(ExpiryWarning { number: row.int(7)?, secret, days: row.int(8)? })
}

fn warning_args(secret: &Expiring, days: u64, now: UnixMillis) -> Vec<Arg<'_>> {
    let scope = &secret.at.scope;
    vec![
        scope.tenant.as_str().into(),
        scope.environment.as_str().into(),
        scope.namespace.as_str().into(),
        secret.at.key.as_str().into(),
        secret.version.into(),
        days.into(),
        u64::from(secret.secret_type.number()).into(),
        secret.expires_at.0.into(),
        now.0.into(),
    ]
}
