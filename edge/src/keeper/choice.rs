//! What a person chose with `--key`, and what it comes to on this machine.

use std::path::Path;

use super::{Keeper, KeeperError, KeychainItem, VaultKey};

/// There where systemd runs the machine, and not in most containers: there its key of the host may be gone tomorrow.
const SYSTEMD_RUNS: &str = "/run/systemd/system";

/// Who shall keep the edge's keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyChoice {
    /// The best that works here.
    #[default]
    Auto,
    File,
    SystemdCreds,
    Tpm,
    Keychain,
    Vault,
}

/// A `--key` that cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKeyChoice {
    #[error("unknown place for keys: {0}; use auto, tpm, systemd-creds, keychain, vault or file")]
    Unknown(String),
}

impl std::str::FromStr for KeyChoice {
    type Err = InvalidKeyChoice;

    fn from_str(text: &str) -> Result<Self, InvalidKeyChoice> {
        match text {
            "auto" => Ok(Self::Auto),
            "file" => Ok(Self::File),
            "systemd-creds" => Ok(Self::SystemdCreds),
            "tpm" => Ok(Self::Tpm),
            "vault" => Ok(Self::Vault),
            "keychain" => Ok(Self::Keychain),
            other => Err(InvalidKeyChoice::Unknown(other.to_owned())),
        }
    }
}

impl KeyChoice {
    /// The keeper that this is here, for the edge in this directory, tried out. `before` is who keeps its keys now.
    ///
    /// # Errors
    /// When the one that was asked for does not work. `Auto` always finds one.
    pub fn keeper(self, directory: &Path, before: Option<&Keeper>) -> Result<Keeper, KeeperError> {
        let keeper = match self {
            Self::Auto => return Ok(best(Path::new(SYSTEMD_RUNS).exists(), Keeper::probe)),
            Self::File => Keeper::File,
            Self::SystemdCreds => Keeper::SystemdCreds,
            Self::Tpm => Keeper::Tpm,
            Self::Keychain => Keeper::Keychain(KeychainItem::make(directory, before)?),
            Self::Vault => Keeper::Vault(VaultKey::from_environment()?),
        };
        keeper.probe()?;
        Ok(keeper)
    }
}

/// Vault is never chosen by itself: an edge that needs it cannot start without a network. Nor is the keychain: it opens only
/// for who has logged in, and an edge starts before.
fn best(systemd_runs: bool, probe: impl Fn(&Keeper) -> Result<(), KeeperError>) -> Keeper {
    let candidates = [(true, Keeper::Tpm), (systemd_runs, Keeper::SystemdCreds)];
    for (_, keeper) in candidates.into_iter().filter(|(sensible, _)| *sensible) {
        match probe(&keeper) {
            Ok(()) => return keeper,
            Err(error) => tracing::debug!(keeper = keeper.as_str(), %error, "not chosen to keep keys"),
        }
    }
    Keeper::File
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(works: Option<&Keeper>) -> impl Fn(&Keeper) -> Result<(), KeeperError> {
        move |keeper| match works {
            Some(works) if works == keeper => Ok(()),
            _ => Err(KeeperError::Away { keeper: keeper.as_str(), why: "not here".into() }),
        }
    }

    #[test]
    fn the_best_that_works_is_chosen_and_the_file_is_left() {
        assert_eq!(best(true, |_| Ok(())), Keeper::Tpm);
        assert_eq!(best(true, only(Some(&Keeper::SystemdCreds))), Keeper::SystemdCreds);
        assert_eq!(
            best(false, only(Some(&Keeper::SystemdCreds))),
            Keeper::File,
            "a container loses its host key"
        );
        assert_eq!(best(true, only(None)), Keeper::File);
    }

    #[test]
    fn what_cannot_be_followed_says_what_to_write() {
        assert_eq!("auto".parse(), Ok(KeyChoice::Auto));
        assert_eq!("systemd-creds".parse(), Ok(KeyChoice::SystemdCreds));
        assert_eq!("keychain".parse(), Ok(KeyChoice::Keychain));
        let refused = "usb".parse::<KeyChoice>().unwrap_err().to_string();
        assert!(refused.contains("auto, tpm, systemd-creds"), "{refused}");
    }
}
