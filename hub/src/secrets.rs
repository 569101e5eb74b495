//! Secrets at the hub: sealed on the way in, opened for a caller who may, and their keys handed to edges.
//!
//! A root per (tenant, environment, key epoch) lies in the database under the key-encryption key; everything else
//! derives from it. Roots are unwrapped once and stay in this process's memory, so what holds the key-encryption key may
//! be away. Which epochs exist is asked of the database each time something is sealed or handed out, for another process
//! may have begun one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use llm_config_shared::name::{EntryKey, Environment, Tenant};
use llm_config_shared::seal::{CannotOpen, SealKey};
use llm_config_shared::secret::{SealedSecret, SubtreeKey, open_secret};
use llm_config_shared::store::JournalError;
use tokio::sync::{Mutex, OnceCell};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::clock;
use crate::registry::{Registry, WrappedRoot};

mod aging;
pub mod cloud;
mod grants;
mod keys;
mod limit;
mod local;
mod open;
mod outage;
mod provider;
mod regions;
mod rewrap;
mod sealer;
mod stored;
mod types;
pub mod vault;

pub use aging::keep_young;
use keys::Roots;
pub use local::{KeyringError, LocalKeyring, NewKeyring, Passphrase, Sealing};
pub use open::{existing_providers, keyring_of, providers_of};
pub use provider::{KeyProvider, KeyVersion, ProviderError, ProviderKind, Providers, wrapped_by};
pub use rewrap::{Counts, Step, count, rewrap};
pub use sealer::PreparedSealer;
pub use stored::{KeyPlace, StoredKey, StoredKeys};
pub use types::{InvalidSecret, examined};

/// How long warming up waits at least before it tries again.
const WARM_UP_PAUSE: Duration = Duration::from_secs(2);

/// Why a secret or a key could not be had.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Provider(#[from] ProviderError),
    #[error("the key that the secret was sealed with is missing from the database")]
    NoRoot,
    #[error(transparent)]
    CannotOpen(#[from] CannotOpen),
    #[error("no hub has been started on this database yet")]
    NoKeyring,
    #[error("the edge's key cannot be sealed to; let it join again")]
    BadSealingKey,
}

impl From<KeyringError> for SecretError {
    fn from(error: KeyringError) -> Self {
        Self::Provider(error.into())
    }
}

impl SecretError {
    /// When to ask again, in seconds, where that helps.
    pub fn retry_after_s(&self) -> Option<u32> {
        match self {
            Self::Provider(error) => error.retry_after_s(),
            Self::Journal(_) | Self::NoRoot | Self::CannotOpen(_) | Self::NoKeyring | Self::BadSealingKey => {
                None
            }
        }
    }
}

/// Seals and opens secrets, and hands out keys.
pub struct SecretStore<R> {
    registry: Arc<R>,
    providers: Providers,
    roots: Roots,
    /// One caller fetches what many wait for.
    fetching: Mutex<()>,
    /// Other regions may begin key epochs as well.
    among_regions: bool,
    /// What all edges' limit keys derive from, once it was needed.
    of_limits: OnceCell<SealKey>,
    /// What edges' files to this hub are sealed to comes from it, once it was needed.
    of_files: OnceCell<SealKey>,
    /// What is wrong, by source.
    noted: std::sync::Mutex<BTreeMap<String, String>>,
}

impl<R: Registry> SecretStore<R> {
    /// Over the hub's database and what holds its key-encryption key.
    pub fn new(registry: Arc<R>, providers: impl Into<Providers>) -> Self {
        let (roots, fetching, noted, of_limits, of_files) = Default::default();
        Self {
            registry,
            providers: providers.into(),
            roots,
            fetching,
            noted,
            of_limits,
            of_files,
            among_regions: false,
        }
    }

    /// The same, of a hub that other regions follow.
    #[must_use]
    pub fn among_regions(self, among_regions: bool) -> Self {
        Self { among_regions, ..self }
    }

    fn next_epoch(&self, newest: u64) -> u64 {
        if self.among_regions { regions::next_among_regions(newest) } else { newest + 1 }
    }

    /// What is wrong now with what holds keys or gives secrets, in words for everybody.
    pub fn troubles(&self) -> Vec<String> {
        let vault = self.providers.vault().and_then(|vault| vault.trouble());
        let clouds = self.providers.clouds().iter().filter_map(|cloud| cloud.trouble());
        let noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        vault.into_iter().chain(clouds).chain(noted.values().cloned()).collect()
    }

    /// Notes what is wrong with a source of secrets, or that nothing is.
    pub fn note_trouble(&self, source: &str, trouble: Option<String>) {
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        match trouble {
            Some(trouble) => noted.insert(source.to_owned(), trouble),
            None => noted.remove(source),
        };
    }

    /// Takes every root into memory, so that an outage later finds this process with all that it may need.
    pub async fn warm_up(&self, stop: CancellationToken) {
        loop {
            let pause = match self.take_in_all().await {
                Ok(()) => return,
                Err(error) => {
                    let after = error.retry_after_s().map_or(0, u64::from);
                    tracing::warn!(%error, "not every key of secrets is in memory yet");
                    Duration::from_secs(after).max(WARM_UP_PAUSE)
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// # Errors
    /// Of what may come back by itself; a root that is lost for good does not hold up the others.
    async fn take_in_all(&self) -> Result<(), SecretError> {
        self.of_limits.get_or_try_init(|| self.load_limit_key()).await?;
        for tenant in self.registry.tenants().await? {
            for root in self.registry.roots(&tenant.name).await? {
                self.take_in_if_possible(&root).await?;
            }
        }
        Ok(())
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
        let (tenant, environment) = (&at.scope.tenant, &at.scope.environment);
        let place = (tenant.clone(), environment.clone(), sealed.key_epoch);
        let root = match self.roots.get(&place) {
            Some(root) => root,
            None => {
                let stored = self.registry.roots(tenant).await?;
                let ours = |root: &&WrappedRoot| {
                    root.environment == *environment && root.key_epoch == sealed.key_epoch
                };
                self.take_in(stored.iter().find(ours).ok_or(SecretError::NoRoot)?).await?;
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
                Ok(current) => {
                    let suite = match self.registry.suite(tenant).await {
                        Ok(suite) => suite,
                        Err(error) => {
                            tracing::error!(%tenant, %environment, %error, "secrets cannot be sealed");
                            continue;
                        }
                    };
                    sealer.add(tenant.clone(), environment.clone(), current, suite, &self.roots);
                }
                Err(error) => tracing::error!(%tenant, %environment, %error, "secrets cannot be sealed"),
            }
        }
        sealer
    }

    /// Sees to it that something can be sealed in an environment, before the writer is asked to: it shall not wait for
    /// whoever holds the key-encryption key while others wait for it.
    ///
    /// # Errors
    /// When it cannot, and why.
    pub async fn ready_to_seal(&self, tenant: &Tenant, environment: &Environment) -> Result<(), SecretError> {
        if self.roots.of_environment(tenant, environment).is_empty() {
            self.current(tenant, environment).await?;
        }
        Ok(())
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
        let stored = self.registry.roots(tenant).await?;
        for environment in environments {
            // Where no secret was ever sealed and no key handed out, there is nothing to end.
            if let Some(current) = keys::newest(&stored, environment) {
                self.create(tenant, environment, self.next_epoch(current.key_epoch)).await?;
            }
        }
        Ok(())
    }

    /// The newest root of an environment, made now if it is the first; older ones as far as they can be had.
    async fn current(
        &self,
        tenant: &Tenant,
        environment: &Environment,
    ) -> Result<(u64, SubtreeKey), SecretError> {
        let stored = self.registry.roots(tenant).await?;
        let key_epoch = match keys::newest(&stored, environment) {
            Some(newest) => {
                self.take_in(newest).await?;
                newest.key_epoch
            }
            None => self.create(tenant, environment, self.next_epoch(0)).await?,
        };
        for older in stored.iter().filter(|root| root.environment == *environment) {
            // What was sealed long ago may be sealed anew; if it cannot be, the rest can.
            if self.take_in_if_possible(older).await.is_err() {
                break;
            }
        }
        let place = (tenant.clone(), environment.clone(), key_epoch);
        Ok((key_epoch, self.roots.get(&place).ok_or(SecretError::NoRoot)?))
    }

    /// Takes all roots of an environment into memory, and makes the first one.
    ///
    /// # Errors
    /// When one cannot be had now and may be later.
    async fn all_of(&self, tenant: &Tenant, environment: &Environment) -> Result<(), SecretError> {
        let stored = self.registry.roots(tenant).await?;
        if keys::newest(&stored, environment).is_none() {
            self.create(tenant, environment, self.next_epoch(0)).await?;
        }
        for root in stored.iter().filter(|root| root.environment == *environment) {
            self.take_in_if_possible(root).await?;
        }
        Ok(())
    }

    /// As [`take_in`](Self::take_in); one that will not come back by itself is told of and left out.
    async fn take_in_if_possible(&self, root: &WrappedRoot) -> Result<(), SecretError> {
        match self.take_in(root).await {
            Err(error) if lost(&error) => {
                let WrappedRoot { tenant, environment, key_epoch, .. } = root;
                tracing::error!(%tenant, %environment, key_epoch, %error, "a key of secrets cannot be unwrapped");
                Ok(())
            }
            other => other,
        }
    }

    /// Takes a root into memory. Of many callers one asks for it.
    async fn take_in(&self, root: &WrappedRoot) -> Result<(), SecretError> {
        let place = (root.tenant.clone(), root.environment.clone(), root.key_epoch);
        if self.roots.get(&place).is_some() {
            return Ok(());
        }
        let _alone = self.fetching.lock().await;
        self.roots.take_in(&self.providers, root).await
    }

    /// Stores a new root. Of two processes that do so at once, both go on with the one that was stored first.
    async fn create(
        &self,
        tenant: &Tenant,
        environment: &Environment,
        key_epoch: u64,
    ) -> Result<u64, SecretError> {
        let now = clock::now();
        let fresh = keys::fresh_root(&self.providers, tenant, environment, key_epoch, now).await?;
        let stored = self.registry.put_root(&fresh).await?;
        self.take_in(&stored).await?;
        Ok(key_epoch)
    }
}

/// Whether asking again would be in vain, until somebody does something about it.
fn lost(error: &SecretError) -> bool {
    match error {
        SecretError::Provider(error) => error.away().is_none(),
        SecretError::CannotOpen(_) => true,
        SecretError::Journal(_)
        | SecretError::NoRoot
        | SecretError::NoKeyring
        | SecretError::BadSealingKey => false,
    }
}
