//! Opening what holds the key-encryption key, and seeing that it is this database's.

use std::path::Path;
use std::sync::Arc;

use llm_config_keychain::Keychain;

use super::cloud::{Cloud, CloudError};
use super::local::{LocalKeyring, Passphrase, Sealing};
use super::provider::{KeyProvider as _, ProviderKind, Providers, wrapped_by};
use super::vault::Vault;
use super::{KeyringError, SecretError};
use crate::config::Secrets;
use crate::registry::Registry;

/// The name under which a database keeps something that its key-encryption key wrapped, to know it again.
pub(super) const KEYRING_MARK: &str = "keyring";

/// What holds the key-encryption key of this database, by the settings. For a database that never had one, the key is
/// made: a keyring always, a transit key with `make` or where the settings allow it.
///
/// # Errors
/// When it is missing, is another database's, or cannot be used; or the database cannot.
pub async fn providers_of<R: Registry>(
    registry: &R,
    settings: &Secrets,
    make: bool,
) -> Result<Providers, SecretError> {
    let mark = registry.wrapped_key(KEYRING_MARK).await?;
    let local = local_aside(settings, mark.clone()).await?;
    let vault = settings.vault.clone().map(Vault::new).transpose().map_err(super::ProviderError::from)?;
    if let Some(vault) = vault.as_ref().filter(|_| settings.provider == ProviderKind::Vault) {
        let may_make =
            (make && mark.is_none()) || settings.vault.as_ref().is_some_and(|vault| vault.create_key);
        vault.check_key(may_make).await.map_err(super::ProviderError::from)?;
    }
    let providers = Providers::new(settings.provider, local.map(Arc::new), vault.map(Arc::new));
    let providers = with_clouds(providers, settings).await.map_err(super::ProviderError::from)?;
    if settings.provider.is_a_cloud() {
        // Sees that the key is there and of use: nobody makes it but its owner.
        providers.current().await?;
    }
    let mark = match mark {
        Some(mark) => mark,
        None => {
            let mark = providers.wrap_key(KEYRING_MARK, b"").await?;
            // Another process may have been first, with a key of its own.
            registry.put_wrapped_key(KEYRING_MARK, &mark).await?
        }
    };
    providers.unwrap_key(KEYRING_MARK, &mark).await?;
    Ok(providers)
}

async fn with_clouds(mut providers: Providers, settings: &Secrets) -> Result<Providers, CloudError> {
    if let Some(aws) = &settings.aws_kms {
        providers = providers.with(Arc::new(Cloud::aws(aws).await?));
    }
    if let Some(gcp) = &settings.gcp_kms {
        providers = providers.with(Arc::new(Cloud::gcp(gcp)?));
    }
    if let Some(azure) = &settings.azure_keyvault {
        providers = providers.with(Arc::new(Cloud::azure(azure)?));
    }
    Ok(providers)
}

/// The same for a database that has been used: nothing is made.
///
/// # Errors
/// As [`providers_of`], and when no hub was ever started on the database.
pub async fn existing_providers<R: Registry>(
    registry: &R,
    settings: &Secrets,
) -> Result<Providers, SecretError> {
    registry.wrapped_key(KEYRING_MARK).await?.ok_or(SecretError::NoKeyring)?;
    providers_of(registry, settings, false).await
}

/// A passphrase costs time, and a keychain may not answer: nobody else shall wait for that.
async fn local_aside(settings: &Secrets, mark: Option<Vec<u8>>) -> Result<Option<LocalKeyring>, SecretError> {
    let settings = settings.clone();
    let opened = tokio::task::spawn_blocking(move || local(&settings, mark.as_deref())).await;
    opened.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()))
}

/// The keyring of the settings. It is made where it is wanted and nothing was ever wrapped by one: a new key would open
/// nothing of what an older one wrapped.
fn local(settings: &Secrets, mark: Option<&[u8]>) -> Result<Option<LocalKeyring>, SecretError> {
    let path = &settings.keyring;
    let sealing = settings.sealing()?;
    let wrapped_here = match mark {
        Some(mark) => wrapped_by(mark)?.provider == ProviderKind::Local,
        None => false,
    };
    let wanted = settings.provider == ProviderKind::Local;
    if wanted && !wrapped_here {
        return Ok(Some(LocalKeyring::open_or_create_locked(path, sealing)?));
    }
    // Beside another provider it only unwraps what is left of it.
    if wanted || wrapped_here || path.exists() {
        return Ok(Some(LocalKeyring::open_locked(path, sealing)?));
    }
    Ok(None)
}

impl Secrets {
    fn sealing(&self) -> Result<Sealing, KeyringError> {
        let passphrase = match (&self.passphrase, &self.passphrase_file) {
            (Some(passphrase), _) => Some(passphrase.clone()),
            (None, Some(path)) => Some(Passphrase::read(path)?),
            (None, None) => None,
        };
        Ok(Sealing { passphrase, keychain: self.keychain.then(Keychain::default) })
    }
}

/// A local keyring of this database, made for a database that never had one.
///
/// # Errors
/// As [`providers_of`].
pub async fn keyring_of<R: Registry>(registry: &R, path: &Path) -> Result<LocalKeyring, SecretError> {
    let mark = registry.wrapped_key(KEYRING_MARK).await?;
    let keyring = match mark {
        Some(_) => LocalKeyring::open(path)?,
        None => LocalKeyring::open_or_create(path)?,
    };
    let mark = match mark {
        Some(mark) => mark,
        None => registry.put_wrapped_key(KEYRING_MARK, &keyring.wrap(KEYRING_MARK, b"")?).await?,
    };
    keyring.unwrap(KEYRING_MARK, &mark)?;
    Ok(keyring)
}
