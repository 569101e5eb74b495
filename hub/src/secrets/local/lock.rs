//! What the keys in the keyring's file are sealed by: a passphrase, or a key in the system's keychain.

use std::fmt;
use std::path::Path;

use llm_config_keychain::{ItemName, Items, Keychain};
use llm_config_shared::seal::SealKey;

use super::file::KeyringError;
use super::passphrase::{Derivation, Passphrase};

/// How the settings want the keys sealed: by the keychain if there is one, else by the passphrase if there is one, else
/// not. What is wanted no more still opens what it sealed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sealing {
    pub passphrase: Option<Passphrase>,
    pub keychain: Option<Keychain>,
}

impl From<Option<Passphrase>> for Sealing {
    fn from(passphrase: Option<Passphrase>) -> Self {
        Self { passphrase, keychain: None }
    }
}

impl From<Keychain> for Sealing {
    fn from(keychain: Keychain) -> Self {
        Self { passphrase: None, keychain: Some(keychain) }
    }
}

impl Sealing {
    /// Whether this is how it is wanted.
    pub(super) fn is_met_by(&self, lock: Option<&Lock>) -> bool {
        match lock.map(|lock| &lock.by) {
            Some(By::Keychain(_)) => self.keychain.is_some(),
            Some(By::Passphrase(_)) => self.keychain.is_none() && self.passphrase.is_some(),
            None => self.keychain.is_none() && self.passphrase.is_none(),
        }
    }

    /// A new lock for the keyring at this path, as wanted; none where none is wanted.
    pub(super) fn fresh(&self, path: &Path) -> Result<Option<Lock>, KeyringError> {
        if self.keychain.is_some() {
            let label = format!("LLM Config: what opens the hub's keyring {}", path.display());
            let (item, key) = self.items(path).make(&label)?;
            return Ok(Some(Lock { key, by: By::Keychain(item) }));
        }
        let Some(passphrase) = &self.passphrase else { return Ok(None) };
        let derivation = Derivation::fresh()?;
        let key = derivation.key(passphrase).ok_or(KeyringError::NoRandomness)?;
        Ok(Some(Lock { key, by: By::Passphrase(derivation) }))
    }

    /// What the keychain has for the keyring at this path.
    pub(super) fn items(&self, path: &Path) -> Items {
        Items::new(path.with_extension("keychain"), self.keychain())
    }

    fn keychain(&self) -> Keychain {
        self.keychain.clone().unwrap_or_default()
    }
}

/// The sealing key, and where it comes from. Its text is the latter alone.
#[derive(Clone)]
pub(super) struct Lock {
    pub(super) key: SealKey,
    by: By,
}

#[derive(Clone, PartialEq, Eq)]
enum By {
    Passphrase(Derivation),
    Keychain(ItemName),
}

impl Lock {
    /// None when it is not of the form that [`fmt::Display`] gives. A lock that is known already is asked nobody for.
    pub(super) fn parse(
        path: &Path,
        text: &str,
        sealing: &Sealing,
        known: Option<&Self>,
    ) -> Result<Option<Self>, KeyringError> {
        let Some(by) = By::parse(text) else { return Ok(None) };
        if let Some(known) = known.filter(|known| known.by == by) {
            return Ok(Some(known.clone()));
        }
        let key = match &by {
            By::Keychain(item) => sealing.keychain().key(item)?,
            By::Passphrase(derivation) => {
                let passphrase = sealing.passphrase.as_ref();
                let passphrase =
                    passphrase.ok_or_else(|| KeyringError::NeedsPassphrase { path: path.to_owned() })?;
                let Some(key) = derivation.key(passphrase) else { return Ok(None) };
                key
            }
        };
        Ok(Some(Self { key, by }))
    }

    /// The item of the keychain that has the key, where one has it.
    pub(super) fn item(&self) -> Option<&ItemName> {
        match &self.by {
            By::Keychain(item) => Some(item),
            By::Passphrase(_) => None,
        }
    }

    /// In words, for a person.
    pub(super) fn told(&self) -> &'static str {
        match self.by {
            By::Keychain(_) => "sealed by a key in the keychain",
            By::Passphrase(_) => "sealed by its passphrase",
        }
    }

    /// What to say when the key does not open what lies under it.
    pub(super) fn refused(&self, path: &Path) -> KeyringError {
        match &self.by {
            By::Keychain(_) => KeyringError::OtherItem { path: path.to_owned() },
            By::Passphrase(_) => KeyringError::WrongPassphrase { path: path.to_owned() },
        }
    }
}

impl By {
    fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix("keychain ") {
            Some(item) => ItemName::try_from(item.to_owned()).ok().map(Self::Keychain),
            None => Derivation::parse(text).map(Self::Passphrase),
        }
    }
}

impl fmt::Display for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.by {
            By::Keychain(item) => write!(f, "keychain {item}"),
            By::Passphrase(derivation) => derivation.fmt(f),
        }
    }
}
