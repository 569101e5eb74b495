//! The keychain of the operating system: a place for keys that are on no disk as they are, and open while their user is
//! logged in. A crate of its own, because hub and edge do not name each other.
//!
//! On Linux it is the Secret Service on the session's D-Bus, as GNOME Keyring, KWallet and KeePassXC offer it. Nobody is
//! ever asked anything from here: a keychain that is locked is told of and not unlocked, and one that does not answer is
//! given up, so that no daemon waits for ever behind a window that nobody sees.

use std::fmt;
use std::path::PathBuf;

use llm_config_shared::seal::SealKey;
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

#[cfg_attr(all(feature = "system", target_os = "linux"), path = "secret_service.rs")]
#[cfg_attr(not(all(feature = "system", target_os = "linux")), path = "absent.rs")]
mod system;

mod items;

pub use items::Items;

const NAME_BYTES: usize = 16;

/// Which item of a keychain; random, so that no two of anybody's are the same. No secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ItemName(String);

/// A text that names no item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the name of an item in a keychain")]
pub struct InvalidItemName;

impl ItemName {
    fn fresh() -> Result<Self, KeychainError> {
        let mut bytes = [0; NAME_BYTES];
        SystemRandom::new().fill(&mut bytes).map_err(|_| KeychainError::NoRandomness)?;
        Ok(Self(bytes.iter().map(|byte| format!("{byte:02x}")).collect()))
    }

    /// As it stands in files and in the keychain.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ItemName {
    type Error = InvalidItemName;

    fn try_from(text: String) -> Result<Self, InvalidItemName> {
        let fine = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if fine && text.len() == 2 * NAME_BYTES { Ok(Self(text)) } else { Err(InvalidItemName) }
    }
}

impl From<ItemName> for String {
    fn from(name: ItemName) -> Self {
        name.0
    }
}

impl fmt::Display for ItemName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a keychain did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeychainError {
    #[error(
        "this program was built without the system's keychain; build it with: cargo build --workspace --bins --features \
         llm-config-edge/keychain,llm-config-hub/keychain"
    )]
    NotBuilt,
    /// Somebody has to log in.
    #[error(
        "the keychain is locked; log in as its user, or unlock it with the desktop's program for keys or gnome-keyring-daemon \
         --unlock"
    )]
    Locked,
    /// There is none, or not yet.
    #[error(
        "no keychain can be reached: {why}; it needs a session of the user that this runs as (DBUS_SESSION_BUS_ADDRESS), with GNOME Keyring, KWallet or \
         another Secret Service"
    )]
    Away { why: String },
    #[error("the keychain did not answer in time; it may be asking something on a screen")]
    Silent,
    #[error(
        "the keychain has no item {item}: what needs it is a copy from another machine or user, or the item was deleted"
    )]
    Missing { item: ItemName },
    #[error("the keychain refused: {why}")]
    Refused { why: String },
    #[error("{}: {why}", path.display())]
    File { path: PathBuf, why: String },
    #[error("{} is not a list of items of this program", .0.display())]
    Damaged(PathBuf),
    #[error("the operating system gave no random bytes")]
    NoRandomness,
}

impl KeychainError {
    /// Whether the same may work later, with nothing changed here: somebody logs in.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Locked | Self::Away { .. } | Self::Silent => true,
            Self::NotBuilt
            | Self::Missing { .. }
            | Self::Refused { .. }
            | Self::File { .. }
            | Self::Damaged(_)
            | Self::NoRandomness => false,
        }
    }
}

/// The keychain of the user that this program runs as. Each call asks anew, takes bounded time, and may be made from
/// anywhere, inside a runtime and outside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keychain {
    /// None: the session's.
    bus: Option<String>,
}

impl Keychain {
    /// On another D-Bus than the session's.
    pub fn at(bus: &str) -> Self {
        Self { bus: Some(bus.to_owned()) }
    }

    /// The key in an item.
    ///
    /// # Errors
    /// When the keychain is locked, away, or has no such item.
    pub fn key(&self, item: &ItemName) -> Result<SealKey, KeychainError> {
        SealKey::from_slice(&system::get(self, item)?).map_err(|_| another())
    }
}

fn another() -> KeychainError {
    KeychainError::Refused { why: "what it gives is not what was put into it".to_owned() }
}

fn fresh_key() -> Result<SealKey, KeychainError> {
    let mut bytes = Zeroizing::new([0; 32]);
    SystemRandom::new().fill(bytes.as_mut()).map_err(|_| KeychainError::NoRandomness)?;
    Ok(SealKey::new(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_what_was_made_here_and_nothing_that_leads_elsewhere() {
        let name = ItemName::fresh().unwrap();
        assert_ne!(name, ItemName::fresh().unwrap());
        assert_eq!(ItemName::try_from(name.to_string()), Ok(name));
        for wrong in ["", "abc", "../../../../../../../etc/passwd0", "ABCDEF00112233445566778899aabbcc"] {
            assert_eq!(ItemName::try_from(wrong.to_owned()), Err(InvalidItemName), "{wrong}");
        }
    }

    #[test]
    fn what_heals_when_somebody_logs_in_is_waited_for_and_nothing_else() {
        let item = ItemName::fresh().unwrap();
        assert!(KeychainError::Locked.may_pass() && KeychainError::Silent.may_pass());
        assert!(!KeychainError::NotBuilt.may_pass() && !KeychainError::Missing { item }.may_pass());
    }

    #[cfg(not(feature = "system"))]
    #[test]
    fn a_program_without_it_says_how_to_get_it() {
        let said = Keychain::default().key(&ItemName::fresh().unwrap()).unwrap_err().to_string();
        assert!(said.contains("--features llm-config-edge/keychain"), "{said}");
    }

    #[cfg(all(feature = "system", target_os = "linux"))]
    #[test]
    fn without_a_bus_there_is_none_and_it_may_come() {
        let nowhere = Keychain::at("unix:path=/nowhere/at/all");
        let error = nowhere.key(&ItemName::fresh().unwrap()).unwrap_err();
        assert!(matches!(error, KeychainError::Away { .. }), "{error}");
        assert!(error.may_pass());
    }
}
