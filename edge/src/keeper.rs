//! What keeps the edge's own keys while nobody runs: the disk alone, or something that is not on the disk.
//!
//! A keeper turns bytes into a blob that may lie on the disk, and back. Both name a purpose, and a blob of one purpose
//! does not open as another. Nothing of a blob is kept elsewhere: to forget it is to destroy it. Of keepers only the keychain
//! has something of its own for each edge, which [`Keeper::settle`] deletes when nothing needs it.

use std::path::Path;

use llm_config_keychain::KeychainError;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

mod choice;
mod keychain;
mod systemd_creds;
mod vault;

pub use choice::{InvalidKeyChoice, KeyChoice};
pub use keychain::KeychainItem;
pub(crate) use keychain::has_items;
pub use vault::VaultKey;

/// What a blob holds; part of what it is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The keys of the edge: who it is, what opens its replica, what the hub seals to.
    Keys,
    /// What the limit keys lie under where `offline_restart = tpm`.
    LimitSecret,
}

impl Purpose {
    fn name(self) -> &'static str {
        match self {
            Self::Keys => "llm-config-edge-keys",
            Self::LimitSecret => "llm-config-edge-limit-secret",
        }
    }
}

/// Who keeps keys. As it lies beside the blob: what is needed to open it again, and no secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kept_by", rename_all = "kebab-case")]
pub enum Keeper {
    /// Nobody: they lie in the file as they are, which only its user can read.
    #[default]
    File,
    /// systemd's key of this machine, which only root can read.
    SystemdCreds,
    /// The TPM of this machine.
    Tpm,
    /// The keychain of the user that the edge runs as.
    Keychain(KeychainItem),
    /// Transit of Vault or OpenBao.
    Vault(VaultKey),
}

/// Why keys cannot be wrapped or unwrapped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeeperError {
    /// The same may work later, with nobody doing anything here.
    #[error("{keeper} cannot be reached: {why}")]
    Away { keeper: &'static str, why: String },
    #[error("{keeper} does not take or give the keys: {why}; {remedy}")]
    Refused { keeper: &'static str, why: String, remedy: &'static str },
    #[error(transparent)]
    Keychain(#[from] KeychainError),
}

impl KeeperError {
    /// Whether the same may work later.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Away { .. } => true,
            Self::Keychain(error) => error.may_pass(),
            Self::Refused { .. } => false,
        }
    }
}

impl Keeper {
    /// As people write and read it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::File => "file",
            Self::SystemdCreds => "systemd-creds",
            Self::Tpm => "tpm",
            Self::Keychain(_) => "keychain",
            Self::Vault(_) => "vault",
        }
    }

    /// What whoever has a copy of the disk has, in words for a person.
    pub fn explained(&self) -> &'static str {
        match self {
            Self::File => {
                "the edge's keys lie in a file that only this user can read; whoever copies the disk has them, and all \
                 configuration with them"
            }
            Self::SystemdCreds => {
                "the edge's keys are wrapped with this system's key; a copy of the edge's folder opens nothing, a copy of the \
                 whole system disk does"
            }
            Self::Tpm => {
                "the edge's keys are wrapped by this machine's TPM; a copy of the disk opens nothing elsewhere"
            }
            Self::Keychain(_) => {
                "the edge's keys are wrapped with a key in this user's keychain; a copy of the disk opens nothing without the \
                 keychain's password; each start waits until it is unlocked"
            }
            Self::Vault(_) => {
                "the edge's keys are wrapped by Vault; the disk opens nothing without a token for it, so keep the token off \
                 this disk; each start needs Vault"
            }
        }
    }

    /// Whether a copy of the disk is all that it takes.
    pub fn is_on_disk(&self) -> bool {
        matches!(self, Self::File)
    }

    /// The inverse of [`unwrap`](Self::unwrap).
    ///
    /// # Errors
    /// When the keeper is not there or refuses.
    pub fn wrap(&self, purpose: Purpose, plain: &[u8]) -> Result<Vec<u8>, KeeperError> {
        match self {
            Self::File => Ok(plain.to_vec()),
            Self::SystemdCreds => systemd_creds::HOST.encrypt(purpose.name(), plain),
            Self::Tpm => systemd_creds::TPM.encrypt(purpose.name(), plain),
            Self::Keychain(item) => item.wrap(purpose.name(), plain),
            Self::Vault(key) => vault::wrap(key, purpose.name(), plain),
        }
    }

    /// The bytes that were wrapped for this purpose.
    ///
    /// # Errors
    /// When the keeper is not there or refuses: also another machine, another purpose, and changed bytes.
    pub fn unwrap(&self, purpose: Purpose, blob: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeeperError> {
        match self {
            Self::File => Ok(Zeroizing::new(blob.to_vec())),
            Self::SystemdCreds => systemd_creds::HOST.decrypt(purpose.name(), blob),
            Self::Tpm => systemd_creds::TPM.decrypt(purpose.name(), blob),
            Self::Keychain(item) => item.unwrap(purpose.name(), blob),
            Self::Vault(key) => vault::unwrap(key, purpose.name(), blob),
        }
    }

    /// Wraps, and makes sure that it opens again, before anything else relies on it.
    ///
    /// # Errors
    /// As [`wrap`](Self::wrap), and when what comes back is not what was given.
    pub fn wrap_for_sure(&self, purpose: Purpose, plain: &[u8]) -> Result<Vec<u8>, KeeperError> {
        let blob = self.wrap(purpose, plain)?;
        if self.unwrap(purpose, &blob)?.as_slice() == plain {
            return Ok(blob);
        }
        let why = "what was wrapped came back as something else".to_owned();
        Err(KeeperError::Refused { keeper: self.as_str(), why, remedy: "choose another place with --key" })
    }

    /// Deletes what a keychain still has of the edge in this directory, but for what this keeper needs; without one, all.
    ///
    /// # Errors
    /// When the keychain cannot be asked: then it is left for the next time.
    pub fn settle(used: Option<&Self>, directory: &Path) -> Result<(), KeeperError> {
        keychain::settle(directory, used)
    }

    /// Whether it works here, found out by trying.
    ///
    /// # Errors
    /// Says why it does not.
    pub fn probe(&self) -> Result<(), KeeperError> {
        self.wrap_for_sure(Purpose::Keys, b"whether this works here").map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_beside_a_blob_says_who_opens_it() {
        let written = |keeper: &Keeper| serde_json::to_string(keeper).unwrap();
        assert_eq!(written(&Keeper::SystemdCreds), r#"{"kept_by":"systemd-creds"}"#);
        for keeper in [Keeper::File, Keeper::SystemdCreds, Keeper::Tpm] {
            assert_eq!(serde_json::from_str::<Keeper>(&written(&keeper)).unwrap(), keeper);
            assert!(written(&keeper).contains(keeper.as_str()));
        }
    }

    #[test]
    fn every_purpose_has_a_name_of_its_own() {
        assert_ne!(Purpose::Keys.name(), Purpose::LimitSecret.name());
    }
}
