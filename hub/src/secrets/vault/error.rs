//! Why Vault gave no answer that helps, in words for whoever runs the hub.

use std::path::PathBuf;

/// Why Vault cannot be used at the moment. It may be usable later without a change at the hub.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    #[error("Vault cannot be reached")]
    Unreachable,
    #[error("Vault does not answer in time")]
    Slow,
    #[error("Vault is sealed or on standby")]
    Sealed,
    #[error("Vault limits the hub's requests")]
    RateLimited,
    #[error("Vault refuses the hub's login; check secrets.vault.auth and what belongs to it")]
    LoginRefused,
    #[error("Vault denies the hub the use of its transit key; check the policy of its token")]
    Denied,
    #[error("Vault has lost the hub's transit key")]
    NoKey,
    #[error("Vault fails (status {0})")]
    Failing(u16),
    #[error("{path} cannot be read: {what}")]
    Credential { path: PathBuf, what: String },
}

impl Reason {
    /// For metrics.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Slow => "timeout",
            Self::Sealed => "sealed",
            Self::RateLimited => "rate_limited",
            Self::LoginRefused | Self::Denied => "denied",
            Self::NoKey | Self::Failing(_) | Self::Credential { .. } => "error",
        }
    }
}

/// Why a key could not be wrapped or unwrapped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    #[error("{reason}")]
    Away { reason: Reason, retry_after_s: u32 },
    #[error(
        "Vault has no transit key {key}: `llm-config-hub init` makes it, or set secrets.vault.create_key = true"
    )]
    NoKey { key: String },
    #[error("Vault's transit key {key} {what}")]
    UnfitKey { key: String, what: &'static str },
    #[error("a stored key was wrapped by Vault's transit key {wrapped}, and the settings name {configured}")]
    OtherKey { wrapped: String, configured: String },
    #[error(
        "Vault does not open what version {version} of the transit key {key} wrapped any more: lower its \
         min_decryption_version, run `llm-config-hub keys rewrap`, and raise it again"
    )]
    OldVersion { key: String, version: u64 },
    #[error(
        "Vault cannot open a stored key: it was changed, belongs to another place, or to a key that is gone"
    )]
    CannotOpen,
    #[error("Vault gave {0}")]
    Answer(&'static str),
    #[error("the connection to Vault cannot be set up: {0}")]
    SetUp(String),
}

impl VaultError {
    /// When to ask again, in seconds, where it may work then without a change at the hub.
    pub fn retry_after_s(&self) -> Option<u32> {
        match self {
            Self::Away { retry_after_s, .. } => Some(*retry_after_s),
            Self::NoKey { .. } | Self::OldVersion { .. } | Self::UnfitKey { .. } => Some(30),
            Self::OtherKey { .. } | Self::CannotOpen | Self::Answer(_) | Self::SetUp(_) => None,
        }
    }
}
