//! The hub's own keys: its certificate authority and the key that signs what it sends, and the tokens that it gives out.
//!
//! The keys are created once and lie in the database wrapped by the key-encryption key; every process of a hub reads
//! the same ones.

use llm_config_proto::key_statement::KeyStatement;
use llm_config_shared::store::JournalError;
use llm_config_shared::time::UnixMillis;
use zeroize::Zeroizing;

use self::ca::{Ca, CaError};
use self::repeats::RepeatMac;
use self::signing::{NoSigningKey, SigningKey};
use crate::registry::Registry;
use crate::secrets::{KeyProvider as _, ProviderError, Providers};

pub mod api_token;
pub mod ca;
pub mod issue;
pub mod join_token;
pub mod process;
pub mod repeats;
pub mod server_certificate;
pub mod signing;

const CA: &str = "ca";
const SIGNING: &str = "signing";
const REPEATS: &str = "repeats";

/// The system's random source failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the system has no randomness")]
pub struct NoRandomness;

/// Why the hub's keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Ca(#[from] CaError),
    #[error(transparent)]
    Signing(#[from] NoSigningKey),
    #[error(transparent)]
    Random(#[from] NoRandomness),
    #[error("the hub's stored keys cannot be used: {0}")]
    Provider(#[from] ProviderError),
}

/// The CA's word on which keys sign, as it is sent to edges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedStatement {
    pub body: Vec<u8>,
    pub signature: Vec<u8>,
}

/// The hub's keys, unwrapped, for as long as the process runs.
pub struct Identity {
    ca: Ca,
    signing: SigningKey,
    repeats: RepeatMac,
    statement: SignedStatement,
}

impl Identity {
    /// Reads the hub's keys, and makes and stores those that do not exist. Two processes that start at once agree,
    /// because what is stored first stays.
    ///
    /// # Errors
    /// When the database is away or the keys were wrapped by another key-encryption key.
    pub async fn open<R: Registry>(
        registry: &R,
        providers: impl Into<Providers>,
        now: UnixMillis,
    ) -> Result<Self, IdentityError> {
        let providers = &providers.into();
        let ca = stored(registry, providers, CA, || Ok(Ca::create(now)?.to_stored())).await?;
        let signing = stored(registry, providers, SIGNING, || Ok(SigningKey::generate()?)).await?;
        let repeats = stored(registry, providers, REPEATS, || Ok(RepeatMac::generate()?)).await?;
        let repeats = RepeatMac::from_stored(&repeats);
        Self::of(Ca::from_stored(&ca)?, SigningKey::from_stored(&signing)?, repeats, now)
    }

    /// Keys that are stored nowhere.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn fresh(now: UnixMillis) -> Result<Self, IdentityError> {
        let signing = SigningKey::from_stored(&SigningKey::generate()?)?;
        Self::of(Ca::create(now)?, signing, RepeatMac::from_stored(&RepeatMac::generate()?), now)
    }

    fn of(ca: Ca, signing: SigningKey, repeats: RepeatMac, now: UnixMillis) -> Result<Self, IdentityError> {
        let body = KeyStatement { issued_at: now, keys: vec![signing.verification_key()] }.encode();
        let signature = ca.sign_statement(&body)?;
        Ok(Self { ca, signing, repeats, statement: SignedStatement { body, signature } })
    }

    /// Issues certificates.
    pub fn ca(&self) -> &Ca {
        &self.ca
    }

    /// Signs what is sent to edges.
    pub fn signing(&self) -> &SigningKey {
        &self.signing
    }

    /// Knows requests again.
    pub fn repeats(&self) -> &RepeatMac {
        &self.repeats
    }

    /// What edges learn the signing keys from.
    pub fn statement(&self) -> &SignedStatement {
        &self.statement
    }
}

async fn stored<R: Registry>(
    registry: &R,
    providers: &Providers,
    name: &str,
    create: impl FnOnce() -> Result<Zeroizing<Vec<u8>>, IdentityError> + Send,
) -> Result<Zeroizing<Vec<u8>>, IdentityError> {
    let wrapped = match registry.wrapped_key(name).await? {
        Some(wrapped) => wrapped,
        None => {
            let wrapped = providers.wrap_key(name, &create()?).await?;
            registry.put_wrapped_key(name, &wrapped).await?
        }
    };
    Ok(providers.unwrap_key(name, &wrapped).await?)
}
