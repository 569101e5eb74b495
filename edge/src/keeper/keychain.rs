//! The keychain of the user that the edge runs as. It holds one random key for each edge, which seals what lies on the disk: so
//! keys can be replaced without writing to the keychain, and what it holds never was on the disk.

use std::path::Path;

use llm_config_keychain::{ItemName, Items, Keychain, KeychainError};
use llm_config_shared::seal::{NONCE_BYTES, open, seal};
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Keeper, KeeperError};

/// Names what the keychain has of the edge in this directory.
const ITEMS: &str = "keychain-items";

/// Which item of the keychain it is that opens the keys; no secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeychainItem {
    item: ItemName,
}

impl KeychainItem {
    /// A new one for the edge in this directory, once the keychain was tried out. What `used` needs stays.
    ///
    /// # Errors
    /// When the keychain does not work here.
    pub(super) fn make(directory: &Path, used: Option<&Keeper>) -> Result<Self, KeeperError> {
        let items = items(directory);
        items.try_out(item_of(used))?;
        let label = format!("LLM Config: what opens the keys of the edge in {}", directory.display());
        let (item, _) = items.make(&label)?;
        Ok(Self { item })
    }

    pub(super) fn wrap(&self, purpose: &str, plain: &[u8]) -> Result<Vec<u8>, KeeperError> {
        let key = Keychain::default().key(&self.item)?;
        let mut nonce = [0; NONCE_BYTES];
        SystemRandom::new().fill(&mut nonce).map_err(|_| KeychainError::NoRandomness)?;
        Ok(seal(&key, nonce, purpose.as_bytes(), plain))
    }

    pub(super) fn unwrap(&self, purpose: &str, blob: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeeperError> {
        let key = Keychain::default().key(&self.item)?;
        open(&key, purpose.as_bytes(), blob).map_err(|_| KeeperError::Refused {
            keeper: "the keychain",
            why: "what lies on the disk was changed, or is another edge's".to_owned(),
            remedy: "bring the file of keys back from where it was copied, or let the edge join again",
        })
    }
}

/// Deletes what the keychain has for this directory, but for what `used` needs.
pub(super) fn settle(directory: &Path, used: Option<&Keeper>) -> Result<(), KeeperError> {
    Ok(items(directory).settle(item_of(used))?)
}

fn item_of(keeper: Option<&Keeper>) -> Option<&ItemName> {
    match keeper? {
        Keeper::Keychain(item) => Some(&item.item),
        Keeper::File | Keeper::SystemdCreds | Keeper::Tpm | Keeper::Vault(_) => None,
    }
}

fn items(directory: &Path) -> Items {
    Items::new(directory.join(ITEMS), Keychain::default())
}

/// Whether the keychain may have something of an edge in this directory.
pub(crate) fn has_items(directory: &Path) -> bool {
    directory.join(ITEMS).exists()
}
