//! Where this program was built without the system's keychain, or for a system whose keychain it does not know.

use zeroize::Zeroizing;

use crate::{ItemName, Keychain, KeychainError};

pub(crate) fn put(_: &Keychain, _: &ItemName, _label: &str, _secret: &[u8]) -> Result<(), KeychainError> {
    Err(KeychainError::NotBuilt)
}

pub(crate) fn get(_: &Keychain, _: &ItemName) -> Result<Zeroizing<Vec<u8>>, KeychainError> {
    Err(KeychainError::NotBuilt)
}

pub(crate) fn remove(_: &Keychain, _: &ItemName) -> Result<(), KeychainError> {
    Err(KeychainError::NotBuilt)
}
