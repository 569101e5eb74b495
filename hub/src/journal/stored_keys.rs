//! All wrapped keys of the database, and the change from one wrapping to another.

use llm_config_shared::name::{Environment, Tenant};

use super::Database;
use super::dialect::{Answer, Cells, Dialect, Sql, Transact};
use super::rows::name;
use crate::secrets::{KeyPlace, StoredKey, StoredKeys};

const NAMED: Sql = Sql::same("SELECT name, wrapped FROM wrapped_key ORDER BY name");
const ROOTS: Sql = Sql::same(
    "SELECT tenant, environment, key_epoch, wrapped FROM root ORDER BY tenant, environment, key_epoch",
);
const REPLACE_NAMED: Sql = Sql::same("UPDATE wrapped_key SET wrapped = $3 WHERE name = $1 AND wrapped = $2");
const REPLACE_ROOT: Sql = Sql::same(
    "UPDATE root SET wrapped = $5 WHERE tenant = $1 AND environment = $2 AND key_epoch = $3 AND wrapped = $4",
);

impl<D: Dialect> StoredKeys for Database<D> {
    async fn stored_keys(&self) -> Answer<Vec<StoredKey>> {
        let mut tx = self.dialect().begin_read().await?;
        let (roots, named) = (tx.fetch(ROOTS, Vec::new()).await?, tx.fetch(NAMED, Vec::new()).await?);
        tx.commit().await?;
        let mut keys = Vec::with_capacity(roots.len() + named.len());
        for row in &roots {
            let place = KeyPlace::Root {
                tenant: name(Tenant::parse(row.text(0)?))?,
                environment: name(Environment::parse(row.text(1)?))?,
                key_epoch: row.int(2)?,
            };
            keys.push(StoredKey { place, wrapped: row.blob(3)?.to_vec() });
        }
        for row in &named {
            let place = KeyPlace::Named(row.text(0)?.to_owned());
            keys.push(StoredKey { place, wrapped: row.blob(1)?.to_vec() });
        }
        Ok(keys)
    }

    async fn replace_key(&self, key: &StoredKey, wrapped: &[u8]) -> Answer<bool> {
        let mut tx = self.dialect().begin_write().await?;
        let before = key.wrapped.as_slice();
        let replaced = match &key.place {
            KeyPlace::Named(name) => {
                tx.execute(REPLACE_NAMED, vec![name.as_str().into(), before.into(), wrapped.into()]).await?
            }
            KeyPlace::Root { tenant, environment, key_epoch } => {
                let place = [tenant.as_str().into(), environment.as_str().into(), (*key_epoch).into()];
                let args = place.into_iter().chain([before.into(), wrapped.into()]).collect();
                tx.execute(REPLACE_ROOT, args).await?
            }
        };
        tx.commit().await?;
        Ok(replaced == 1)
    }
}
