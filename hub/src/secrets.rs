//! Secrets at the hub: sealed on the way in, opened for a caller who may, and their keys handed to edges.
//!
//! A root per (tenant, environment, key epoch) lies in the database under the key-encryption key; everything else
//! derives from it. Roots are unwrapped once and stay in this process's memory. Which epochs exist is asked of the
//! database each time something is sealed or handed out, for another process may have begun one.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use llm_config_shared::name::{EntryKey, Environment, Tenant};
use llm_config_shared::seal::{CannotOpen, SealKey};
use llm_config_shared::secret::{SealedSecret, SubtreeKey, open_secret};
use llm_config_shared::store::JournalError;
use tokio::sync::OnceCell;
use zeroize::Zeroizing;

use crate::clock;
use crate::registry::Registry;

mod aging;
mod grants;
mod keys;
mod limit;
mod local;
mod sealer;

pub use aging::keep_young;
use keys::Roots;
pub use local::{KeyringError, LocalKeyring, NewKeyring};
pub use sealer::PreparedSealer;

/// The name under which a database keeps something that its keyring wrapped, to know it again.
const KEYRING_MARK: &str = "keyring";

/// Why a secret or a key could not be had.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    #[error("the key that the secret was sealed with is missing from the database")]
    NoRoot,
    #[error(transparent)]
    CannotOpen(#[from] CannotOpen),
    #[error("no hub has been started on this database yet")]
    NoKeyring,
    #[error("the edge's key cannot be sealed to; let it join again")]
    BadSealingKey,
}

/// Seals and opens secrets, and hands out keys.
pub struct SecretStore<R> {
    registry: Arc<R>,
    keyring: Arc<LocalKeyring>,
    roots: Roots,
    /// What all edges' limit keys derive from, once it was needed.
    of_limits: OnceCell<SealKey>,
}

impl<R: Registry> SecretStore<R> {
    /// Over the hub's database and its keyring.
    pub fn new(registry: Arc<R>, keyring: Arc<LocalKeyring>) -> Self {
        Self { registry, keyring, roots: Roots::default(), of_limits: OnceCell::new() }
    }

    /// The plaintext, for a caller who may see it.
    ///
    /// # Errors
    /// When the key or the database is away, or the secret was changed.
    pub async fn open(
        &self,
        at: &EntryKey,
        sealed: &SealedSecret,
    ) -> Result<Zeroizing<Vec<u8>>, SecretError> {
        let place = (at.scope.tenant.clone(), at.scope.environment.clone(), sealed.key_epoch);
        let root = match self.roots.get(&place) {
            Some(root) => root,
            None => {
                self.load(&at.scope.tenant).await?;
                self.roots.get(&place).ok_or(SecretError::NoRoot)?
            }
        };
        Ok(open_secret(&root, at, sealed)?)
    }

    /// Seals in these tenants' environments, with keys that are in memory from now on. Where a key cannot be had, sealing
    /// there fails; the reason is logged here.
    pub async fn sealer(&self, places: &BTreeSet<(Tenant, Environment)>) -> PreparedSealer {
        let mut sealer = PreparedSealer::default();
        for (tenant, environment) in places {
            match self.current(tenant, environment).await {
                Ok((key_epoch, root)) => {
                    sealer.add(tenant.clone(), environment.clone(), key_epoch, root, &self.roots);
                }
                Err(error) => tracing::error!(%tenant, %environment, %error, "secrets cannot be sealed"),
            }
        }
        sealer
    }

    /// Begins a new key epoch: what is sealed from now on cannot be opened with keys that were handed out before.
    ///
    /// # Errors
    /// When the key or the database is away.
    pub async fn begin_epoch(
        &self,
        tenant: &Tenant,
        environments: &[Environment],
    ) -> Result<(), SecretError> {
        let known = self.load(tenant).await?;
        for environment in environments {
            // Where no secret was ever sealed and no key handed out, there is nothing to end.
            if let Some(current) = keys::newest(&known, environment) {
                self.create(tenant, environment, current + 1).await?;
            }
        }
        Ok(())
    }

    /// The newest root of an environment, made now if it is the first.
    async fn current(
        &self,
        tenant: &Tenant,
        environment: &Environment,
    ) -> Result<(u64, SubtreeKey), SecretError> {
        let known = self.load(tenant).await?;
        let key_epoch = match keys::newest(&known, environment) {
            Some(newest) => newest,
            None => self.create(tenant, environment, 1).await?,
        };
        let place = (tenant.clone(), environment.clone(), key_epoch);
        Ok((key_epoch, self.roots.get(&place).ok_or(SecretError::NoRoot)?))
    }

    /// Which roots a tenant has; all of them are in memory afterwards.
    async fn load(&self, tenant: &Tenant) -> Result<Vec<(Environment, u64)>, SecretError> {
        let stored = self.registry.roots(tenant).await?;
        let mut known = Vec::with_capacity(stored.len());
        for root in &stored {
            self.roots.take_in(&self.keyring, root)?;
            known.push((root.environment.clone(), root.key_epoch));
        }
        Ok(known)
    }

    /// Stores a new root. Of two processes that do so at once, both go on with the one that was stored first.
    async fn create(
        &self,
        tenant: &Tenant,
        environment: &Environment,
        key_epoch: u64,
    ) -> Result<u64, SecretError> {
        let fresh = keys::fresh_root(&self.keyring, tenant, environment, key_epoch, clock::now())?;
        let stored = self.registry.put_root(&fresh).await?;
        self.roots.take_in(&self.keyring, &stored)?;
        Ok(key_epoch)
    }
}

/// The keyring of this database. It is created only for a database that never had one: a new key would open nothing of
/// what an older one wrapped.
///
/// # Errors
/// When it is missing, is another database's, or cannot be used; or the database cannot.
pub async fn keyring_of<R: Registry>(registry: &R, path: &Path) -> Result<LocalKeyring, SecretError> {
    if let Some(mark) = registry.wrapped_key(KEYRING_MARK).await? {
        return known_keyring(path, &mark);
    }
    let keyring = LocalKeyring::open_or_create(path)?;
    let mark = keyring.wrap(KEYRING_MARK, b"")?;
    // Another process may have been first, with a keyring of its own.
    let stored = registry.put_wrapped_key(KEYRING_MARK, &mark).await?;
    keyring.unwrap(KEYRING_MARK, &stored)?;
    Ok(keyring)
}

/// The keyring of a database that has been used.
///
/// # Errors
/// As [`keyring_of`], and when no hub was ever started on the database.
pub async fn existing_keyring<R: Registry>(registry: &R, path: &Path) -> Result<LocalKeyring, SecretError> {
    let mark = registry.wrapped_key(KEYRING_MARK).await?.ok_or(SecretError::NoKeyring)?;
    known_keyring(path, &mark)
}

fn known_keyring(path: &Path, mark: &[u8]) -> Result<LocalKeyring, SecretError> {
    let keyring = LocalKeyring::open(path)?;
    keyring.unwrap(KEYRING_MARK, mark)?;
    Ok(keyring)
}
