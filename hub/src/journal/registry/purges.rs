//! Removing the value of one version, and what still holds it.

use llm_config_shared::entry::Content;
use llm_config_shared::name::{EntryKey, Tenant};
use llm_config_shared::seal::Suite;
use llm_config_shared::secret::SealedSecret;
use llm_config_shared::store::fleet::Kind;
use llm_config_shared::time::UnixMillis;

use super::fleet;
use crate::journal::dialect::{Answer, Arg, Cells, Dialect, Sql, Transact};
use crate::journal::failure::corrupt;
use crate::journal::rows::{uuid, written};
use crate::journal::{Database, encoding, entries, history};
use crate::registry::{MadeBackup, PurgedVersion, Purges};

/// A version is one write, but for those of different regions that bear the same number: all of them go.
const ERASE: Sql = Sql::same(
    "UPDATE history SET value = $6 WHERE key = $4 AND version = $5 AND kind = 2
         AND status IN ('applied', 'superseded_concurrent')
         AND scope = (SELECT id FROM scope WHERE tenant = $1 AND environment = $2 AND namespace = $3)",
);
const NOTE: Sql = Sql::same(
    "INSERT INTO purged (scope, key, version, purged_by, purged_at)
     SELECT s.id, $4, $5, $6, $7 FROM scope s WHERE s.tenant = $1 AND s.environment = $2 AND s.namespace = $3
     ON CONFLICT (scope, key, version) DO NOTHING",
);
const NOTED: Sql = Sql::same(
    "SELECT p.purged_at FROM purged p JOIN scope s ON s.id = p.scope
     WHERE s.tenant = $1 AND s.environment = $2 AND s.namespace = $3 AND p.key = $4 AND p.version = $5",
);
const BACKUPS: Sql = Sql::same(
    "SELECT id, made_at, seq, file FROM made_backup WHERE seq >= $1 AND made_at <= $2 ORDER BY made_at",
);
const BACKUP: Sql = Sql::same("INSERT INTO made_backup (id, made_at, seq, file) VALUES ($1, $2, $3, $4)");
const SUITE: Sql = Sql::same("SELECT suite FROM tenant WHERE name = $1");
const SET_SUITE: Sql = Sql::same("UPDATE tenant SET suite = $2 WHERE name = $1");

fn place(at: &EntryKey, version: u64) -> Vec<Arg<'_>> {
    let scope = &at.scope;
    let names =
        [scope.tenant.as_str(), scope.environment.as_str(), scope.namespace.as_str(), at.key.as_str()];
    names.into_iter().map(Arg::from).chain([Arg::from(version)]).collect()
}

impl<D: Dialect> Purges for Database<D> {
    async fn purge_version(
        &self,
        at: &EntryKey,
        version: u64,
        by: &str,
        now: UnixMillis,
    ) -> Answer<PurgedVersion> {
        let mut tx = self.dialect().begin_write().await?;
        let Some(row) = history::version(&mut tx, at, version).await? else {
            return Ok(PurgedVersion::NotFound);
        };
        let Content::Secret(sealed) = &row.content else { return Ok(PurgedVersion::NotSecret) };
        let current = entries::rows(&mut tx, std::slice::from_ref(at)).await?;
        if current.iter().any(|current| current.row.version == version) {
            return Ok(PurgedVersion::Current);
        }
        let erased = SealedSecret { body: bytes::Bytes::new(), wrap: bytes::Bytes::new(), ..sealed.clone() };
        let erased = Content::Secret(erased);
        let (_, erased) = encoding::content(&erased);
        let mut args = place(at, version);
        args.push(Arg::Blob(erased));
        tx.execute(ERASE, args).await?;
        let mut args = place(at, version);
        args.extend([by.as_bytes().into(), now.0.into()]);
        tx.execute(NOTE, args).await?;
        let noted = tx.fetch(NOTED, place(at, version)).await?;
        let purged_at = noted.first().map_or(Ok(now.0), |row| row.int(0))?;
        // Without a place of its own, any backup may hold it.
        let found = tx.fetch(BACKUPS, vec![row.seq.unwrap_or(0).into(), purged_at.into()]).await?;
        let backups = found.iter().map(backup).collect::<Answer<_>>()?;
        tx.commit().await?;
        Ok(PurgedVersion::Gone { backups })
    }

    async fn record_backup(&self, backup: &MadeBackup) -> Answer<()> {
        let args = vec![
            backup.id.as_bytes().as_slice().into(),
            backup.made_at.0.into(),
            backup.seq.into(),
            backup.file.as_bytes().into(),
        ];
        let mut tx = self.dialect().begin_write().await?;
        tx.execute(BACKUP, args).await?;
        tx.commit().await
    }

    async fn suite(&self, tenant: &Tenant) -> Answer<Suite> {
        let mut tx = self.dialect().begin_read().await?;
        let found = tx.fetch(SUITE, vec![tenant.as_str().into()]).await?;
        tx.commit().await?;
        let Some(row) = found.first() else { return Ok(Suite::default()) };
        Suite::from_number(row.int(0)?).ok_or_else(|| corrupt("a tenant with an unknown cipher"))
    }

    async fn set_suite(&self, tenant: &Tenant, suite: Suite) -> Answer<()> {
        let args = vec![tenant.as_str().into(), u64::from(suite.number()).into()];
        let mut tx = self.dialect().begin_write().await?;
        tx.execute(SET_SUITE, args).await?;
        fleet::changed(&mut tx, Kind::Tenant, tenant.as_str()).await?;
        tx.commit().await
    }
}

fn backup(row: &impl Cells) -> Answer<MadeBackup> {
    Ok(MadeBackup {
        id: uuid(row, 0)?,
        made_at: UnixMillis(row.int(1)?),
        seq: row.int(2)?,
        file: written(row.blob(3)?)?,
    })
}
