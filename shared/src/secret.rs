//! Secrets: a data key per version, scope keys derived down the path, and their hand-over to an edge.
//!
//! A root key per (tenant, environment, key epoch) gives the keys of all namespaces below by HKDF (RFC 5869), segment
//! by segment: who holds a subtree's key derives everything below and nothing beside. A secret's body is sealed under a
//! random data key, the data key under HKDF(scope key, "wrap"). Body and wrap are the same bytes for every edge. The
//! keys themselves reach an edge by HPKE (RFC 9180: X25519, HKDF-SHA256, ChaCha20-Poly1305).

use bytes::Bytes;
use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Kem as _, Serializable as _};
use ring::hkdf::{HKDF_SHA256, KeyType, Prk};
use zeroize::Zeroizing;

use crate::name::{EntryKey, Environment, Subtree, Tenant};
use crate::seal::{CannotOpen, NONCE_BYTES, SealKey, open, seal};

mod about;

use sealed::Bound;

pub use about::{About, SecretType, Told};
mod carried;
mod limited;
mod sealed;

pub use carried::{SealedFileKey, open_file_key, seal_file_key};

pub use limited::{
    SealedLimitKeys, limit_key, open_limit_keys, open_limited_grant, seal_limit_keys, seal_limited_grant,
};

/// A secret version as it lies in databases and replicas and travels: ciphertext only.
#[derive(Clone, PartialEq, Eq)]
pub struct SealedSecret {
    /// Which root its scope key derives from.
    pub key_epoch: u64,
    /// The entry's version that it was sealed for; part of the associated data.
    pub version: u64,
    /// What is told of it; part of the associated data.
    pub about: About,
    /// The plaintext under the data key.
    pub body: Bytes,
    /// The data key under the scope's wrapping key.
    pub wrap: Bytes,
}

impl SealedSecret {
    /// Whether its value was removed for good: what is told of it is left, and nothing to be opened.
    pub fn is_purged(&self) -> bool {
        self.body.is_empty() && self.wrap.is_empty()
    }
}

impl std::fmt::Debug for SealedSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SealedSecret(epoch {}, {} bytes)", self.key_epoch, self.body.len())
    }
}

/// Random bytes for sealing one secret version; never used twice.
pub struct FreshSeal {
    pub data_key: [u8; 32],
    pub body_nonce: [u8; NONCE_BYTES],
    pub wrap_nonce: [u8; NONCE_BYTES],
}

struct Length32;

impl KeyType for Length32 {
    fn len(&self) -> usize {
        32
    }
}

/// HKDF-Expand. ring concatenates the parts of the info without separators, so what varies goes in behind its length.
fn expand(key: &SealKey, label: &[u8], value: &[u8]) -> SealKey {
    let length = (value.len() as u32).to_be_bytes();
    let mut derived = [0; 32];
    Prk::new_less_safe(HKDF_SHA256, key.expose())
        .expand(&[label, &length, value], Length32)
        .and_then(|okm| okm.fill(&mut derived))
        .expect("32 bytes are within HKDF's limit");
    SealKey::new(derived)
}

/// The key of a subtree: of a root (everything) or of one namespace and all below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubtreeKey {
    subtree: Subtree,
    key: SealKey,
}

impl SubtreeKey {
    /// The root of a tenant's environment.
    pub fn root(key: SealKey) -> Self {
        Self { subtree: Subtree::ALL, key }
    }

    /// A key as an edge received it.
    pub fn of(subtree: Subtree, key: SealKey) -> Self {
        Self { subtree, key }
    }

    /// What the key opens.
    pub fn subtree(&self) -> &Subtree {
        &self.subtree
    }

    /// For sealing to an edge and for storing under another key.
    pub fn key(&self) -> &SealKey {
        &self.key
    }

    /// The key of a subtree inside this one; none for one beside or above it.
    pub fn descend(&self, to: &Subtree) -> Option<Self> {
        if !self.subtree.covers(to) {
            return None;
        }
        let depth = self.subtree.top().map_or(0, |top| top.segments().count());
        let below = to.top().into_iter().flat_map(|top| top.segments()).skip(depth);
        let key = below
            .fold(self.key.clone(), |key, segment| expand(&key, b"llm-config scope", segment.as_bytes()));
        Some(Self { subtree: to.clone(), key })
    }

    /// Never the derivation key itself: a leaked wrapping key opens one namespace and nothing below.
    fn wrapping(&self) -> SealKey {
        expand(&self.key, b"llm-config wrap", b"")
    }
}

/// What a secret's ciphertext is bound to: its place, its version, its part, the algorithm, and what is told of it.
fn context(at: &EntryKey, version: u64, key_epoch: u64, about: &About, part: &str) -> Vec<u8> {
    let mut context = Vec::with_capacity(160);
    let form = format!("llm-config secret 1 {}", about.suite.as_str());
    let parts = [
        form.as_str(),
        part,
        at.scope.tenant.as_str(),
        at.scope.environment.as_str(),
        at.scope.namespace.as_str(),
        at.key.as_str(),
    ];
    for part in parts {
        context.extend_from_slice(&(part.len() as u32).to_be_bytes());
        context.extend_from_slice(part.as_bytes());
    }
    context.extend_from_slice(&version.to_be_bytes());
    context.extend_from_slice(&key_epoch.to_be_bytes());
    let Told { secret_type, expires_at } = about.told;
    if about.told != Told::default() {
        // What was sealed before anything was told of a secret ends here.
        context.push(secret_type.number());
        context.push(u8::from(expires_at.is_some()));
        context.extend_from_slice(&expires_at.unwrap_or_default().0.to_be_bytes());
    }
    context
}

/// Seals one version of a secret. `scope_key` must cover the entry's namespace.
///
/// # Errors
/// When the key is of another subtree.
pub fn seal_secret(
    scope_key: &SubtreeKey,
    key_epoch: u64,
    at: &EntryKey,
    version: u64,
    plaintext: &[u8],
    about: About,
    fresh: &FreshSeal,
) -> Result<SealedSecret, CannotOpen> {
    let scope = scope_key.descend(&Subtree::of(at.scope.namespace.clone())).ok_or(CannotOpen)?;
    let data_key = SealKey::new(fresh.data_key);
    let body_context = context(at, version, key_epoch, &about, "body");
    let body = about.suite.seal_once(&data_key, fresh.body_nonce, &body_context, plaintext);
    let wrap_context = context(at, version, key_epoch, &about, "wrap");
    let wrap = seal(&scope.wrapping(), fresh.wrap_nonce, &wrap_context, data_key.expose());
    Ok(SealedSecret { key_epoch, version, about, body: body.into(), wrap: wrap.into() })
}

/// The plaintext of one version, for a reader's hands only.
///
/// # Errors
/// When the key is of another subtree or epoch, or any byte was changed.
pub fn open_secret(
    scope_key: &SubtreeKey,
    at: &EntryKey,
    sealed: &SealedSecret,
) -> Result<Zeroizing<Vec<u8>>, CannotOpen> {
    let scope = scope_key.descend(&Subtree::of(at.scope.namespace.clone())).ok_or(CannotOpen)?;
    let context = |part| context(at, sealed.version, sealed.key_epoch, &sealed.about, part);
    let data_key = SealKey::from_slice(&open(&scope.wrapping(), &context("wrap"), &sealed.wrap)?)?;
    sealed.about.suite.open(&data_key, &context("body"), &sealed.body)
}

type Kem = X25519HkdfSha256;

/// The key of one subtree in one key epoch, sealed to one edge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyGrant {
    pub environment: Environment,
    pub subtree: Subtree,
    pub key_epoch: u64,
    pub encapsulated: Bytes,
    pub ciphertext: Bytes,
}

fn grant_context(
    tenant: &Tenant,
    edge: &str,
    environment: &Environment,
    subtree: &Subtree,
    epoch: u64,
) -> Vec<u8> {
    let mut context = Vec::with_capacity(128);
    for part in [tenant.as_str(), edge, environment.as_str(), subtree.as_str()] {
        context.extend_from_slice(&(part.len() as u32).to_be_bytes());
        context.extend_from_slice(part.as_bytes());
    }
    context.extend_from_slice(&epoch.to_be_bytes());
    context
}

const GRANT_INFO: &[u8] = b"llm-config subtree key 1";

/// An edge's key pair for receiving grants, from 32 random bytes: (private, public), 32 bytes each.
pub fn sealing_keypair(random: &[u8; 32]) -> (SealKey, [u8; 32]) {
    let (private, public) = Kem::derive_keypair(random);
    let private = SealKey::from_slice(&private.to_bytes()).expect("X25519 keys have 32 bytes");
    (private, public.to_bytes().as_slice().try_into().expect("X25519 keys have 32 bytes"))
}

/// Opens a grant without a limit key, as all were before there were such keys: what a thief of a disk would try.
///
/// # Errors
/// When the grant was made for another edge, place or epoch, or was changed.
pub fn open_grant(
    grant: &KeyGrant,
    tenant: &Tenant,
    edge: &str,
    private: &SealKey,
) -> Result<SubtreeKey, CannotOpen> {
    let context = grant_context(tenant, edge, &grant.environment, &grant.subtree, grant.key_epoch);
    let bound = Bound { info: GRANT_INFO, context: &context, shared: None };
    let key = sealed::open((&grant.encapsulated, &grant.ciphertext), private, bound)?;
    Ok(SubtreeKey::of(grant.subtree.clone(), SealKey::from_slice(&key)?))
}

#[cfg(test)]
pub(crate) use tests::Counting;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::{Key, Namespace, Scope};
    use crate::seal::Suite;
    use crate::time::UnixMillis;

    fn at(namespace: &str, key: &str) -> EntryKey {
        let scope = Scope {
            tenant: Tenant::parse("t").unwrap(),
            environment: Environment::base(),
            namespace: Namespace::parse(namespace).unwrap(),
        };
        EntryKey { scope, key: Key::parse(key).unwrap() }
    }

    fn root() -> SubtreeKey {
        SubtreeKey::root(SealKey::new([5; 32]))
    }

    fn sealed(version: u64) -> SealedSecret {
        let fresh = FreshSeal { data_key: [1; 32], body_nonce: [2; 24], wrap_nonce: [3; 24] };
        seal_secret(&root(), 1, &at("a/b", "k"), version, b"hunter2", About::default(), &fresh).unwrap()
    }

    #[test]
    fn what_is_told_of_a_secret_cannot_be_changed() {
        let told = Told { secret_type: SecretType::ApiKey, expires_at: Some(UnixMillis(7)) };
        for suite in Suite::ALL {
            let about = About { told, suite };
            let fresh = FreshSeal { data_key: [1; 32], body_nonce: [2; 24], wrap_nonce: [3; 24] };
            let secret = seal_secret(&root(), 1, &at("a", "k"), 1, b"hunter2", about, &fresh).unwrap();
            assert_eq!(open_secret(&root(), &at("a", "k"), &secret).unwrap().as_slice(), b"hunter2");
            let changed = [
                About { told: Told { expires_at: Some(UnixMillis(8)), ..told }, suite },
                About { told: Told { expires_at: None, ..told }, suite },
                About { told: Told { secret_type: SecretType::SshKey, ..told }, suite },
                About { told: Told::default(), suite },
            ];
            for about in changed {
                let secret = SealedSecret { about, ..secret.clone() };
                assert_eq!(open_secret(&root(), &at("a", "k"), &secret), Err(CannotOpen), "{about:?}");
            }
        }
    }

    /// Replicas and backups outlive programs: what an earlier one sealed opens for ever.
    #[test]
    fn the_bytes_that_a_plain_secret_is_bound_to_stay_as_they_were() {
        let bound = context(&at("a", "k"), 2, 1, &About::default(), "body");
        let parts = ["llm-config secret 1 xchacha20poly1305", "body", "t", "base", "a", "k"];
        let mut expected = Vec::new();
        for part in parts {
            expected.extend_from_slice(&(part.len() as u32).to_be_bytes());
            expected.extend_from_slice(part.as_bytes());
        }
        expected.extend_from_slice(&2u64.to_be_bytes());
        expected.extend_from_slice(&1u64.to_be_bytes());
        assert_eq!(bound, expected);
    }

    fn subtree(path: &str) -> Subtree {
        Subtree::parse(path).unwrap()
    }

    #[test]
    fn the_keys_of_a_subtree_open_what_is_below_and_nothing_beside() {
        let secret = sealed(1);
        for path in ["", "a", "a/b"] {
            let key = root().descend(&subtree(path)).unwrap();
            assert_eq!(open_secret(&key, &at("a/b", "k"), &secret).unwrap().as_slice(), b"hunter2", "{path}");
        }
        assert_eq!(root().descend(&subtree("a/b/c")).unwrap().descend(&subtree("a/b")), None);
        let beside = SubtreeKey::of(subtree("a"), root().descend(&subtree("x")).unwrap().key().clone());
        assert_eq!(open_secret(&beside, &at("a/b", "k"), &secret), Err(CannotOpen));
        assert_ne!(
            root().descend(&subtree("ab")).unwrap().key(),
            root().descend(&subtree("a/b")).unwrap().key()
        );
    }

    #[test]
    fn a_secret_is_bound_to_its_place_and_version() {
        let secret = sealed(1);
        assert_eq!(open_secret(&root(), &at("a/b", "other"), &secret), Err(CannotOpen));
        assert_eq!(open_secret(&root(), &at("a", "k"), &secret), Err(CannotOpen));
        let rolled_back = SealedSecret { version: 2, ..secret };
        assert_eq!(open_secret(&root(), &at("a/b", "k"), &rolled_back), Err(CannotOpen));
    }

    /// As hubs made them.
    fn seal_grant(
        key: &SubtreeKey,
        key_epoch: u64,
        tenant: &Tenant,
        edge: &str,
        environment: &Environment,
        public: &[u8],
        rng: &mut impl hpke::rand_core::CryptoRng,
    ) -> Result<KeyGrant, CannotOpen> {
        let context = grant_context(tenant, edge, environment, &key.subtree, key_epoch);
        let bound = Bound { info: GRANT_INFO, context: &context, shared: None };
        let (encapsulated, ciphertext) = sealed::seal(key.key.expose(), public, bound, rng)?;
        Ok(KeyGrant {
            environment: environment.clone(),
            subtree: key.subtree.clone(),
            key_epoch,
            encapsulated,
            ciphertext,
        })
    }

    #[test]
    fn a_grant_opens_at_the_edge_that_it_was_made_for() {
        let (private, public) = sealing_keypair(&[9; 32]);
        let (stranger, _) = sealing_keypair(&[8; 32]);
        let tenant = Tenant::parse("t").unwrap();
        let key = root().descend(&subtree("a")).unwrap();
        let mut rng = Counting(0);
        let grant = seal_grant(&key, 3, &tenant, "edge-1", &Environment::base(), &public, &mut rng).unwrap();
        assert_eq!(open_grant(&grant, &tenant, "edge-1", &private).unwrap(), key);
        assert_eq!(open_grant(&grant, &tenant, "edge-1", &stranger), Err(CannotOpen));
        assert_eq!(open_grant(&grant, &tenant, "edge-2", &private), Err(CannotOpen));
        let moved = KeyGrant { key_epoch: 4, ..grant };
        assert_eq!(open_grant(&moved, &tenant, "edge-1", &private), Err(CannotOpen));
    }

    /// No randomness at all: enough for a test, and the same each time.
    pub(crate) struct Counting(pub(crate) u8);

    impl hpke::rand_core::TryRng for Counting {
        type Error = std::convert::Infallible;

        fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
            hpke::rand_core::utils::next_word_via_fill(self)
        }

        fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
            hpke::rand_core::utils::next_word_via_fill(self)
        }

        fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
            for byte in bytes {
                self.0 = self.0.wrapping_add(41);
                *byte = self.0;
            }
            Ok(())
        }
    }

    impl hpke::rand_core::TryCryptoRng for Counting {}
}
