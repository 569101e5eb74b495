//! Secrets that are kept the same here and in Vault.

use std::collections::BTreeMap;

use llm_config_shared::name::Key;

use crate::journal::Database;
use crate::journal::dialect::{Answer, Cells, Dialect, Sql, Transact};
use crate::journal::rows::name;
use crate::registry::{SourceKeys, Versions};

const ALL: Sql = Sql::same("SELECT key, vault_version, entry_version FROM source_key WHERE source = $1");
const PUT: Sql = Sql::same(
    "INSERT INTO source_key (source, key, vault_version, entry_version) VALUES ($1, $2, $3, $4)
     ON CONFLICT (source, key) DO UPDATE SET
         vault_version = excluded.vault_version, entry_version = excluded.entry_version",
);
const FORGET: Sql = Sql::same("DELETE FROM source_key WHERE source = $1 AND key = $2");

impl<D: Dialect> SourceKeys for Database<D> {
    async fn source_keys(&self, source: &str) -> Answer<BTreeMap<Key, Versions>> {
        let mut tx = self.dialect().begin_read().await?;
        let found = tx.fetch(ALL, vec![source.into()]).await?;
        tx.commit().await?;
        let versions = |row: &_| {
            let (key, vault, entry) = cells(row)?;
            Ok((key, Versions { vault, entry }))
        };
        found.iter().map(versions).collect()
    }

    async fn note_source_key(&self, source: &str, key: &Key, versions: Versions) -> Answer<()> {
        let mut tx = self.dialect().begin_write().await?;
        if versions == Versions::default() {
            tx.execute(FORGET, vec![source.into(), key.as_str().into()]).await?;
        } else {
            let Versions { vault, entry } = versions;
            tx.execute(PUT, vec![source.into(), key.as_str().into(), vault.into(), entry.into()]).await?;
        }
        tx.commit().await
    }
}

fn cells(row: &impl Cells) -> Answer<(Key, Option<u64>, Option<u64>)> {
    Ok((name(Key::parse(row.text(0)?))?, row.int_or_null(1)?, row.int_or_null(2)?))
}
