//! `[secrets.vault]`: where Vault is, who the hub is there, and which transit key is its own.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use zeroize::Zeroizing;

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Hidden(Zeroizing<String>);

impl Hidden {
    /// Hides it from now on.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// To be sent to whoever asks the hub who it is, and nowhere else.
    pub(in crate::secrets) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Something secret that was given itself, or lies in a file, which is read anew at every login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    Text(Hidden),
    File(PathBuf),
}

/// How the hub shows who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VaultAuth {
    Token(Credential),
    AppRole {
        role_id: Hidden,
        secret_id: Credential,
    },
    Kubernetes {
        role: String,
        jwt_file: PathBuf,
    },
    /// A client certificate; `role` where several accept it.
    Cert {
        role: Option<String>,
        cert_file: PathBuf,
        key_file: PathBuf,
    },
}

/// All of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VaultSettings {
    /// `https://HOST:8200`
    pub addr: String,
    pub auth: VaultAuth,
    /// Where the way of logging in is mounted.
    pub auth_mount: String,
    pub namespace: Option<String>,
    /// What certificates of Vault are trusted besides the system's.
    pub ca_cert: Option<PathBuf>,
    /// Where transit is mounted.
    pub mount: String,
    pub transit_key: String,
    /// Whether a transit key that is missing is made also by `serve`.
    pub create_key: bool,
    /// A request that takes longer counts as failed.
    pub timeout: Duration,
}
