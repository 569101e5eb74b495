//! Who this edge is: what the hub wrote at joining and at every renewal since, in `DIR/edge.json`.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use llm_config_shared::feed::Binding;
use llm_config_shared::name::{EdgeName, Environment, Subtree, Tenant};
use llm_config_shared::segment::VerificationKeys;
use llm_config_shared::stamp::ActorId;
use llm_config_shared::time::UnixMillis;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::keys::{KeyError, read_private, write_private};

/// The file's name in the edge's directory.
pub const FILE: &str = "edge.json";

const FORMAT: u32 = 1;

/// An edge that has joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EdgeIdentity {
    pub tenant: Tenant,
    pub edge: ActorId,
    pub name: EdgeName,
    /// `https://HOST:PORT` of the hub's sync port.
    pub hub: String,
    pub credentials: StoredCredentials,
    /// What the join token said; the hub may have changed it since.
    pub binding: Binding,
    /// What a request means that names no environment.
    pub default_environment: Environment,
    pub joined_at: UnixMillis,
}

/// What is replaced at every renewal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredCredentials {
    pub ca_pem: String,
    /// Leaf first.
    pub certificate_pem: String,
    /// Of the leaf.
    pub valid_until: UnixMillis,
    /// By this machine's clock.
    pub obtained_at: UnixMillis,
    pub verification_keys: VerificationKeys,
    /// When the CA said which keys these are.
    pub keys_stated_at: UnixMillis,
}

/// Why the identity could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("{} is not an edge's directory yet; join a hub first: llm-config edge join", .0.display())]
    NotJoined(PathBuf),
    #[error(transparent)]
    File(#[from] KeyError),
    #[error("{} is damaged: {what}", path.display())]
    Damaged { path: PathBuf, what: String },
}

/// The hub gave a certificate that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the certificate from the hub cannot be read")]
pub struct UnreadableCertificate;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct IdentityFile {
    format: u32,
    tenant: String,
    edge: String,
    name: String,
    hub: String,
    joined_at: u64,
    default_environment: String,
    namespaces: Vec<String>,
    environments: Vec<String>,
    write: Vec<String>,
    ca_pem: String,
    certificate_pem: String,
    verification_keys: Vec<KeyLine>,
    keys_stated_at: u64,
    obtained_at: u64,
}

#[derive(Serialize, Deserialize)]
struct KeyLine {
    /// As text: JSON readers lose digits of large numbers.
    id: String,
    public_key: String,
}

impl StoredCredentials {
    /// Reads the validity out of the certificate.
    ///
    /// # Errors
    /// When it is no certificate.
    pub fn new(
        ca_pem: String,
        certificate_pem: String,
        verification_keys: VerificationKeys,
        keys_stated_at: UnixMillis,
        obtained_at: UnixMillis,
    ) -> Result<Self, UnreadableCertificate> {
        let leaf =
            CertificateDer::from_pem_slice(certificate_pem.as_bytes()).map_err(|_| UnreadableCertificate)?;
        let (_, leaf) = X509Certificate::from_der(&leaf).map_err(|_| UnreadableCertificate)?;
        let seconds = u64::try_from(leaf.validity().not_after.timestamp()).unwrap_or(0);
        let valid_until = UnixMillis(seconds.saturating_mul(1_000));
        Ok(Self { ca_pem, certificate_pem, valid_until, obtained_at, verification_keys, keys_stated_at })
    }
}

impl EdgeIdentity {
    /// Whether there is one in `directory`.
    pub fn exists(directory: &Path) -> bool {
        directory.join(FILE).exists()
    }

    /// The identity in `directory`.
    ///
    /// # Errors
    /// When the edge has not joined, or the file cannot be read.
    pub fn load(directory: &Path) -> Result<Self, IdentityError> {
        let path = directory.join(FILE);
        let text = match read_private(&path) {
            Err(KeyError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                return Err(IdentityError::NotJoined(directory.to_owned()));
            }
            text => text?,
        };
        let damaged = |what: String| IdentityError::Damaged { path: path.clone(), what };
        let file: IdentityFile = serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
        if file.format != FORMAT {
            return Err(damaged(format!("format {} is not known to this version", file.format)));
        }
        file.parse().map_err(damaged)
    }

    /// Writes it, whole or not at all, durable.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn store(&self, directory: &Path) -> Result<(), IdentityError> {
        let text = serde_json::to_vec_pretty(&IdentityFile::of(self)).expect("texts and numbers");
        Ok(write_private(&directory.join(FILE), &text)?)
    }
}

impl IdentityFile {
    fn of(identity: &EdgeIdentity) -> Self {
        let subtrees = |subtrees: &[Subtree]| subtrees.iter().map(|part| part.as_str().to_owned()).collect();
        let credentials = &identity.credentials;
        let key = |(id, key): (u64, &[u8; 32])| KeyLine {
            id: format!("{id:016x}"),
            public_key: BASE64.encode(key),
        };
        Self {
            format: FORMAT,
            tenant: identity.tenant.to_string(),
            edge: identity.edge.0.to_string(),
            name: identity.name.to_string(),
            hub: identity.hub.clone(),
            joined_at: identity.joined_at.0,
            default_environment: identity.default_environment.to_string(),
            namespaces: subtrees(&identity.binding.namespaces),
            environments: identity.binding.environments.iter().map(Environment::to_string).collect(),
            write: subtrees(&identity.binding.write),
            ca_pem: credentials.ca_pem.clone(),
            certificate_pem: credentials.certificate_pem.clone(),
            verification_keys: credentials.verification_keys.iter().map(key).collect(),
            keys_stated_at: credentials.keys_stated_at.0,
            obtained_at: credentials.obtained_at.0,
        }
    }

    fn parse(self) -> Result<EdgeIdentity, String> {
        let subtrees = |names: &[String]| -> Result<Vec<Subtree>, String> {
            names.iter().map(|name| Subtree::parse(name).map_err(|error| error.to_string())).collect()
        };
        let environment = |name: &String| Environment::parse(name).map_err(|error| error.to_string());
        let keys: Option<Vec<(u64, [u8; 32])>> = self.verification_keys.iter().map(KeyLine::parse).collect();
        let keys = VerificationKeys::new(keys.ok_or("a verification key")?);
        let credentials = StoredCredentials::new(
            self.ca_pem,
            self.certificate_pem,
            keys,
            UnixMillis(self.keys_stated_at),
            UnixMillis(self.obtained_at),
        );
        Ok(EdgeIdentity {
            tenant: Tenant::parse(&self.tenant).map_err(|error| error.to_string())?,
            edge: ActorId(Uuid::try_parse(&self.edge).map_err(|error| error.to_string())?),
            name: EdgeName::parse(&self.name).map_err(|error| error.to_string())?,
            hub: self.hub,
            credentials: credentials.map_err(|error| error.to_string())?,
            binding: Binding {
                namespaces: subtrees(&self.namespaces)?,
                environments: self.environments.iter().map(environment).collect::<Result<_, _>>()?,
                write: subtrees(&self.write)?,
            },
            default_environment: environment(&self.default_environment)?,
            joined_at: UnixMillis(self.joined_at),
        })
    }
}

impl KeyLine {
    fn parse(&self) -> Option<(u64, [u8; 32])> {
        let id = u64::from_str_radix(&self.id, 16).ok()?;
        let key = BASE64.decode(&self.public_key).ok()?;
        Some((id, key.try_into().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn identity() -> EdgeIdentity {
        let key = KeyPair::generate().unwrap();
        let pem = CertificateParams::default().self_signed(&key).unwrap().pem();
        let keys = VerificationKeys::new([(u64::MAX - 1, [3; 32])]);
        EdgeIdentity {
            tenant: Tenant::parse("t").unwrap(),
            edge: ActorId(Uuid::from_u128(5)),
            name: EdgeName::parse("kiosk-7").unwrap(),
            hub: "https://localhost:8443".into(),
            credentials: StoredCredentials::new(pem.clone(), pem, keys, UnixMillis(9), UnixMillis(10))
                .unwrap(),
            binding: Binding {
                namespaces: vec![Subtree::parse("app").unwrap()],
                environments: vec![Environment::parse("production").unwrap()],
                write: vec![Subtree::ALL],
            },
            default_environment: Environment::parse("production").unwrap(),
            joined_at: UnixMillis(1_795_000_000_000),
        }
    }

    #[test]
    fn an_identity_comes_back_as_it_was_stored() {
        let directory = tempfile::tempdir().unwrap();
        assert!(matches!(EdgeIdentity::load(directory.path()), Err(IdentityError::NotJoined(_))));
        identity().store(directory.path()).unwrap();
        let loaded = EdgeIdentity::load(directory.path()).unwrap();
        assert_eq!(loaded.credentials.verification_keys, identity().credentials.verification_keys);
        assert_eq!(loaded.binding, identity().binding);
        assert_eq!((loaded.name, loaded.edge), (identity().name, identity().edge));
    }

    #[test]
    fn a_damaged_identity_says_what_is_wrong() {
        let directory = tempfile::tempdir().unwrap();
        write_private(&directory.path().join(FILE), b"{\"format\": 1}").unwrap();
        let error = EdgeIdentity::load(directory.path()).unwrap_err();
        assert!(error.to_string().contains("missing field"), "{error}");
    }
}
