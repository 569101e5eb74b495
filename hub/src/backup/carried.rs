//! The keyring that a backup carries inside its seal, so that a restore needs the recovery key and nothing else: also
//! where the key-encryption key is held by somebody who may be gone by then.
//!
//! A hub on the local keyring puts that into its backup. One whose keys are wrapped by Vault cannot: there every wrapped
//! key is opened, and goes into the backup under a keyring that is made for this backup alone.

use std::collections::BTreeMap;

use zeroize::Zeroizing;

use super::BackupError;
use crate::journal::whole::{Cell, Dumped, Table};
use crate::secrets::{KeyProvider as _, LocalKeyring, ProviderKind, Providers, StoredKeys, wrapped_by};

/// What the tables name the column of a wrapped key.
const WRAPPED: &str = "wrapped";

/// A keyring, and what becomes of what others wrapped.
pub(super) struct Carried {
    keyring: Zeroizing<String>,
    /// By what it was, as it lies under the keyring. None where everything does already.
    wrapped: Option<BTreeMap<Vec<u8>, Vec<u8>>>,
    /// Of the table whose rows follow.
    column: Option<usize>,
}

impl Carried {
    /// For what is stored now.
    ///
    /// # Errors
    /// When a key cannot be unwrapped, or the database is away.
    pub(super) async fn of<S: StoredKeys>(store: &S, providers: &Providers) -> Result<Self, BackupError> {
        let stored = store.stored_keys().await?;
        let mut local = providers.local().is_some();
        for key in &stored {
            let by = wrapped_by(&key.wrapped).map_err(crate::secrets::SecretError::from)?;
            local &= by.provider == ProviderKind::Local;
        }
        if let Some(keyring) = providers.local().filter(|_| local) {
            return Ok(Self { keyring: keyring.to_text()?, wrapped: None, column: None });
        }
        let keyring = LocalKeyring::in_memory()?;
        let mut wrapped = BTreeMap::new();
        for key in stored {
            let name = key.place.name();
            let plain =
                providers.unwrap_key(&name, &key.wrapped).await.map_err(crate::secrets::SecretError::from)?;
            wrapped.insert(key.wrapped, keyring.wrap(&name, &plain)?);
        }
        Ok(Self { keyring: keyring.to_text()?, wrapped: Some(wrapped), column: None })
    }

    /// The keyring's text.
    pub(super) fn keyring(&self) -> Zeroizing<String> {
        self.keyring.clone()
    }

    /// What goes into the backup for something that was read.
    ///
    /// # Errors
    /// [`BackupError::KeysChanged`] when a wrapped key is another one than it was just before.
    pub(super) fn pass(&mut self, dumped: Dumped) -> Result<Dumped, BackupError> {
        let Some(wrapped) = &self.wrapped else {
            return Ok(dumped);
        };
        match dumped {
            Dumped::Table(table) => {
                self.column = column_of_wrapped(&table);
                Ok(Dumped::Table(table))
            }
            Dumped::Row(mut cells) => {
                if let Some(Cell::Blob(bytes)) = self.column.and_then(|column| cells.get_mut(column)) {
                    *bytes = wrapped.get(bytes).ok_or(BackupError::KeysChanged)?.clone();
                }
                Ok(Dumped::Row(cells))
            }
        }
    }
}

fn column_of_wrapped(table: &Table) -> Option<usize> {
    table.columns.iter().position(|column| column.name == WRAPPED)
}
