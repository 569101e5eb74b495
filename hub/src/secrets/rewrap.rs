//! Putting everything under the key-encryption key as it is now: its newest version, or that of another provider.
//!
//! Each key is a transaction of its own, which takes effect only where nobody else changed the key meanwhile. Whatever
//! interrupts it, every key is wrapped by something that the settings name, and running it again does what is left. Hubs
//! that run meanwhile have what they need in memory, and read from the database whatever wrapped it.

use std::collections::BTreeMap;

use super::SecretError;
use super::provider::{KeyProvider, KeyVersion, ProviderError, Providers, wrapped_by};
use super::stored::{StoredKey, StoredKeys};

/// Hubs that run may store new keys under the old version all the time; they are told of as left over.
const PASSES_MAX: usize = 3;

/// How many keys each version wraps.
pub type Counts = BTreeMap<KeyVersion, usize>;

/// One key that is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub name: String,
    pub from: KeyVersion,
    /// Counted from 1 within this pass.
    pub number: usize,
    pub of: usize,
}

/// Which versions wrap what is stored.
///
/// # Errors
/// When the database is away, or something in it is no wrapped key.
pub async fn count<S: StoredKeys>(store: &S) -> Result<Counts, SecretError> {
    let mut counts = Counts::new();
    for key in store.stored_keys().await? {
        *counts.entry(wrapped_by(&key.wrapped)?).or_default() += 1;
    }
    Ok(counts)
}

/// Wraps everything by the current version. `told` hears of each key once it is stored. Gives how many were changed.
///
/// # Errors
/// When a key cannot be unwrapped or wrapped, or the database is away. What was done by then stays done.
pub async fn rewrap<S: StoredKeys>(
    store: &S,
    providers: &Providers,
    mut told: impl FnMut(&Step),
) -> Result<usize, SecretError> {
    let mut changed = 0;
    for _ in 0..PASSES_MAX {
        let current = providers.current().await?;
        let mut left = Vec::new();
        for key in store.stored_keys().await? {
            let by = wrapped_by(&key.wrapped)?;
            if by != current {
                left.push((key, by));
            }
        }
        if left.is_empty() {
            break;
        }
        left.sort_by_key(|(key, _)| key.place.is_mark());
        let of = left.len();
        for (number, (key, from)) in (1..).zip(left) {
            if rewrap_one(store, providers, &key).await? {
                changed += 1;
                told(&Step { name: key.place.name(), from, number, of });
            }
        }
    }
    Ok(changed)
}

/// False when somebody else changed it meanwhile: the next pass sees what it is then.
async fn rewrap_one<S: StoredKeys>(
    store: &S,
    providers: &Providers,
    key: &StoredKey,
) -> Result<bool, SecretError> {
    let name = key.place.name();
    let plain = providers.unwrap_key(&name, &key.wrapped).await?;
    let wrapped = providers.wrap_key(&name, &plain).await?;
    // What replaces the only copy of a key has been opened once.
    if *providers.unwrap_key(&name, &wrapped).await? != *plain {
        return Err(ProviderError::NotTheSame(wrapped_by(&wrapped)?.provider).into());
    }
    Ok(store.replace_key(key, &wrapped).await?)
}
