//! What stands beside a secret's ciphertext and is read without opening it: its type, its expiry, its cipher.

use crate::seal::Suite;
use crate::time::UnixMillis;

/// What a secret is, and so what its document has to hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SecretType {
    /// Any text.
    #[default]
    Generic,
    ApiKey,
    DatabaseCredentials,
    X509Certificate,
    SshKey,
    OauthToken,
    JwtSigningKey,
}

impl SecretType {
    /// All of them, each at the place of its number on the wire and on disks.
    pub const ALL: [Self; 7] = [
        Self::Generic,
        Self::ApiKey,
        Self::DatabaseCredentials,
        Self::X509Certificate,
        Self::SshKey,
        Self::OauthToken,
        Self::JwtSigningKey,
    ];

    /// As people and programs see it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Generic => "generic",
            Self::ApiKey => "api_key",
            Self::DatabaseCredentials => "database_credentials",
            Self::X509Certificate => "x509_certificate",
            Self::SshKey => "ssh_key",
            Self::OauthToken => "oauth_token",
            Self::JwtSigningKey => "jwt_signing_key",
        }
    }

    /// The inverse of [`SecretType::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|secret_type| secret_type.as_str() == text)
    }

    /// Its number on the wire and on disks.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The inverse of [`SecretType::number`].
    pub fn from_number(number: u64) -> Option<Self> {
        Self::ALL.get(usize::try_from(number).ok()?).copied()
    }
}

/// What the author of a secret says of it, or its content does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    pub secret_type: SecretType,
    /// When it is of no use any more; none where nobody knows.
    pub expires_at: Option<UnixMillis>,
}

/// Everything beside the ciphertext. It is part of what the ciphertext is bound to: changed, the secret does not open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct About {
    pub told: Told,
    /// Of the body; the wrap is always XChaCha20-Poly1305.
    pub suite: Suite,
}

impl About {
    /// A generic secret that does not expire, in the first suite: such ones are written as they were before there was
    /// anything to say.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_have_one_name_and_one_number() {
        for (n, secret_type) in SecretType::ALL.into_iter().enumerate() {
            assert_eq!(SecretType::parse(secret_type.as_str()), Some(secret_type));
            assert_eq!(usize::from(secret_type.number()), n);
            assert_eq!(SecretType::from_number(n as u64), Some(secret_type));
        }
        assert_eq!(SecretType::from_number(7), None);
        assert_eq!(SecretType::parse("password"), None);
    }
}
