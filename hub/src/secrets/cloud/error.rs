//! Why a cloud's key management gave no answer that helps, in words for whoever runs the hub.

use crate::secrets::provider::ProviderKind;

/// Why it cannot be used at the moment. It may be usable later without a change at the hub.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloudReason {
    #[error("cannot be reached")]
    Unreachable,
    #[error("does not answer in time")]
    Slow,
    #[error("limits the hub's requests")]
    Throttled,
    #[error("denies the hub {0}: allow it in the key's policy and in that of the hub's role")]
    Denied(&'static str),
    #[error(
        "cannot be asked, for the hub has no credentials: give it a role, or say in hub.toml where they lie"
    )]
    NoCredentials,
    #[error("cannot be asked, for the hub's credentials are of no use: {0}")]
    Credentials(String),
    #[error("does not accept the hub's credentials: they are wrong or have expired")]
    BadCredentials,
    #[error("has the hub's key disabled: enable it")]
    KeyDisabled,
    #[error("does not let the hub's key be used: it waits for its deletion or its material is missing")]
    KeyNotUsable,
    #[error("fails (status {0})")]
    Failing(u16),
    #[error("gave an answer that is none")]
    NoAnswer,
    #[error("and the hub do not hear the same: what is sent between them is changed on the way")]
    Garbled,
}

/// Why a key could not be wrapped or unwrapped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloudError {
    #[error("{} {reason}", provider.title())]
    Away { provider: ProviderKind, reason: CloudReason, retry_after_s: u32 },
    #[error("{} has no key {key}", provider.title())]
    NoKey { provider: ProviderKind, key: String },
    #[error("the key {key} of {} {what}", provider.title())]
    UnfitKey { provider: ProviderKind, key: String, what: &'static str },
    #[error(
        "a stored key was wrapped by the key {wrapped} of {}, and the settings name {configured}; if both are yours, add \
         the former to previous_keys", provider.title()
    )]
    OtherKey { provider: ProviderKind, wrapped: String, configured: String },
    #[error(
        "{} cannot open a stored key: it was changed, belongs to another place, or to a key that is gone",
        provider.title()
    )]
    CannotOpen { provider: ProviderKind },
    #[error(
        "{} does not open what version {version} of the key {key} wrapped any more, for it is disabled or destroyed: enable \
         it, and run `llm-config-hub keys rewrap` before it goes", provider.title()
    )]
    OldVersion { provider: ProviderKind, key: String, version: String },
    #[error("{} gave {what}", provider.title())]
    Answer { provider: ProviderKind, what: &'static str },
    #[error(
        "{} has begun a rotation and not ended it: `llm-config-hub keys status` tells when another version wraps, then run \
         `llm-config-hub keys rewrap`", provider.title()
    )]
    RotationUnderWay { provider: ProviderKind },
    #[error("the connection to {} cannot be set up: {what}", provider.title())]
    SetUp { provider: ProviderKind, what: String },
    #[error("the system gives no random bytes")]
    NoRandomness,
    #[error("this program was built without it: build it with --features {feature}")]
    NotBuilt { feature: &'static str },
}

impl CloudError {
    /// When to ask again, in seconds, where it may work then without a change at the hub.
    pub fn retry_after_s(&self) -> Option<u32> {
        match self {
            Self::Away { retry_after_s, .. } => Some(*retry_after_s),
            Self::NoKey { .. }
            | Self::UnfitKey { .. }
            | Self::OldVersion { .. }
            | Self::RotationUnderWay { .. } => Some(30),
            Self::OtherKey { .. }
            | Self::CannotOpen { .. }
            | Self::Answer { .. }
            | Self::SetUp { .. }
            | Self::NoRandomness
            | Self::NotBuilt { .. } => None,
        }
    }
}
