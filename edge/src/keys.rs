//! The edge's own keys: made on this machine, kept in one file that only its user can read, never sent anywhere.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use llm_config_shared::seal::SealKey;
use llm_config_shared::secret::sealing_keypair;
use rcgen::PublicKeyData;
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use rustls_pki_types::PrivatePkcs8KeyDer;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

/// The file's name in the edge's directory.
pub const FILE: &str = "keys";

const FORMAT: u32 = 1;
/// Read and written by the owner alone.
const MODE: u32 = 0o600;

/// What the warning at join says about keys in a file.
pub const FILE_WARNING: &str =
    "the edge's keys lie in a file that only this user can read; whoever copies the disk has them";

/// Who keeps the edge's keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyProvider {
    /// The best that this build has: the file.
    #[default]
    Auto,
    File,
}

/// A `--key` that cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKeyProvider {
    #[error("keys in {0} come in a later version; use --key file")]
    Later(String),
    #[error("unknown place for keys: {0}; use auto or file")]
    Unknown(String),
}

impl std::str::FromStr for KeyProvider {
    type Err = InvalidKeyProvider;

    fn from_str(text: &str) -> Result<Self, InvalidKeyProvider> {
        match text {
            "auto" => Ok(Self::Auto),
            "file" => Ok(Self::File),
            "tpm" | "systemd-creds" | "keychain" | "vault" => Err(InvalidKeyProvider::Later(text.to_owned())),
            other => Err(InvalidKeyProvider::Unknown(other.to_owned())),
        }
    }
}

/// Why the keys could not be made, read or written.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{} can be read by others (mode {mode:o}); run: chmod 600 {}", path.display(), path.display())]
    Permissions { path: PathBuf, mode: u32 },
    #[error("{} is damaged: {what}", path.display())]
    Damaged { path: PathBuf, what: &'static str },
    #[error("{} was written by a newer version (format {format})", path.display())]
    Newer { path: PathBuf, format: u32 },
    #[error("the operating system gave no random bytes")]
    NoRandomness,
}

/// Everything that never leaves this machine.
pub struct EdgeKeys {
    /// Seals the replica.
    pub replica: SealKey,
    /// Proves who the edge is, PKCS#8 (P-256).
    pub tls: Zeroizing<Vec<u8>>,
    /// 32 random bytes that the X25519 pair for receiving keys derives from.
    pub sealing_seed: Zeroizing<[u8; 32]>,
}

#[derive(Serialize, Deserialize)]
struct KeyFile {
    format: u32,
    replica: String,
    tls: String,
    sealing: String,
}

impl Drop for KeyFile {
    fn drop(&mut self) {
        self.replica.zeroize();
        self.tls.zeroize();
        self.sealing.zeroize();
    }
}

impl std::fmt::Debug for EdgeKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EdgeKeys(***)")
    }
}

impl EdgeKeys {
    /// New keys.
    ///
    /// # Errors
    /// When the operating system gives no random bytes.
    pub fn generate() -> Result<Self, KeyError> {
        let random = SystemRandom::new();
        let mut replica = [0; 32];
        let mut sealing_seed = Zeroizing::new([0; 32]);
        random.fill(&mut replica).map_err(|_| KeyError::NoRandomness)?;
        random.fill(sealing_seed.as_mut()).map_err(|_| KeyError::NoRandomness)?;
        let tls = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random)
            .map_err(|_| KeyError::NoRandomness)?;
        let keys =
            Self { replica: SealKey::new(replica), tls: Zeroizing::new(tls.as_ref().to_vec()), sealing_seed };
        replica.zeroize();
        Ok(keys)
    }

    /// The keys in `directory`, made and written first where there are none.
    ///
    /// # Errors
    /// When they cannot be made, written or read, or others can read them.
    pub fn load_or_generate(directory: &Path) -> Result<Self, KeyError> {
        match Self::load(directory) {
            Err(KeyError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                let keys = Self::generate()?;
                keys.store(directory)?;
                Ok(keys)
            }
            loaded => loaded,
        }
    }

    /// The keys in `directory`.
    ///
    /// # Errors
    /// When they cannot be read, or others can read them as well.
    pub fn load(directory: &Path) -> Result<Self, KeyError> {
        let path = directory.join(FILE);
        let text = read_private(&path)?;
        let damaged = |what| KeyError::Damaged { path: path.clone(), what };
        let file: KeyFile = serde_json::from_slice(&text).map_err(|_| damaged("not in its format"))?;
        if file.format != FORMAT {
            return Err(KeyError::Newer { path, format: file.format });
        }
        let decode = |text: &str| BASE64.decode(text).map(Zeroizing::new).map_err(|_| damaged("not base64"));
        let replica = SealKey::from_slice(&decode(&file.replica)?).map_err(|_| damaged("replica key"))?;
        let sealing: [u8; 32] =
            decode(&file.sealing)?.as_slice().try_into().map_err(|_| damaged("sealing key"))?;
        let tls = decode(&file.tls)?;
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &tls, &SystemRandom::new())
            .map_err(|_| damaged("TLS key"))?;
        Ok(Self { replica, tls, sealing_seed: Zeroizing::new(sealing) })
    }

    fn store(&self, directory: &Path) -> Result<(), KeyError> {
        let file = KeyFile {
            format: FORMAT,
            replica: BASE64.encode(self.replica.expose()),
            tls: BASE64.encode(self.tls.as_slice()),
            sealing: BASE64.encode(self.sealing_seed.as_slice()),
        };
        let text = Zeroizing::new(serde_json::to_vec_pretty(&file).expect("strings and a number"));
        write_private(&directory.join(FILE), &text)
    }

    /// The pair that the hub seals keys of subtrees to: (private, public).
    pub fn sealing_pair(&self) -> (SealKey, [u8; 32]) {
        sealing_keypair(&self.sealing_seed)
    }

    /// The public half of the TLS key: SubjectPublicKeyInfo, DER.
    pub fn public_key(&self) -> Vec<u8> {
        let pair = rcgen::KeyPair::try_from(&PrivatePkcs8KeyDer::from(self.tls.as_slice()));
        pair.expect("checked when it was made or loaded").subject_public_key_info()
    }

    /// The TLS key as TLS libraries read it.
    pub fn tls_pem(&self) -> Zeroizing<String> {
        let text = Zeroizing::new(BASE64.encode(self.tls.as_slice()));
        let mut pem = Zeroizing::new(String::with_capacity(text.len() + 64));
        pem.push_str("-----BEGIN PRIVATE KEY-----\n");
        for at in (0..text.len()).step_by(64) {
            pem.push_str(&text[at..text.len().min(at + 64)]);
            pem.push('\n');
        }
        pem.push_str("-----END PRIVATE KEY-----\n");
        pem
    }

    /// Signs what the hub asked, ECDSA P-256 with SHA-256, ASN.1.
    ///
    /// # Errors
    /// When the operating system gives no random bytes.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &self.tls, &random)
            .expect("checked when it was made or loaded");
        let signature = pair.sign(&random, message).map_err(|_| KeyError::NoRandomness)?;
        Ok(signature.as_ref().to_vec())
    }
}

/// Reads a file that nobody but its owner may read.
///
/// # Errors
/// When it cannot be read, or its permissions are wider.
pub fn read_private(path: &Path) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let io = |source| KeyError::Io { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(io)?;
    let mode = file.metadata().map_err(io)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Permissions { path: path.to_owned(), mode });
    }
    let mut bytes = Zeroizing::new(Vec::new());
    io::Read::read_to_end(&mut file, &mut bytes).map_err(io)?;
    Ok(bytes)
}

/// Writes a file that nobody but its owner may read: whole or not at all, and durable.
///
/// # Errors
/// When any step fails; then the old file, if there was one, stands.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), KeyError> {
    let io = |source| KeyError::Io { path: path.to_owned(), source };
    let mut name = path.file_name().map(ToOwned::to_owned).unwrap_or_default();
    name.push(".new");
    let new = path.with_file_name(name);
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(&new).map_err(io)?;
    file.write_all(bytes).map_err(io)?;
    file.sync_all().map_err(io)?;
    fs::rename(&new, path).map_err(io)?;
    let directory =
        path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(io)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_made_once_and_come_back_from_a_file_of_the_owner_alone() {
        let directory = tempfile::tempdir().unwrap();
        let made = EdgeKeys::load_or_generate(directory.path()).unwrap();
        let loaded = EdgeKeys::load_or_generate(directory.path()).unwrap();
        assert_eq!(made.replica, loaded.replica);
        assert_eq!(made.tls, loaded.tls);
        assert_eq!(made.sealing_pair().1, loaded.sealing_pair().1);
        let mode = fs::metadata(directory.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(format!("{made:?}"), "EdgeKeys(***)");
    }

    #[test]
    fn signatures_fit_the_public_half() {
        let keys = EdgeKeys::generate().unwrap();
        let signature = keys.sign(b"message").unwrap();
        let check =
            |message: &[u8]| llm_config_proto::possession::verify(&keys.public_key(), message, &signature);
        assert!(check(b"message").is_ok() && check(b"other").is_err());
        assert_eq!(keys.tls_pem().lines().next(), Some("-----BEGIN PRIVATE KEY-----"));
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        EdgeKeys::load_or_generate(directory.path()).unwrap();
        let path = directory.path().join(FILE);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let refused = EdgeKeys::load_or_generate(directory.path()).unwrap_err();
        assert!(matches!(refused, KeyError::Permissions { mode: 0o640, .. }), "{refused}");
    }

    #[test]
    fn a_damaged_file_is_reported_and_never_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        write_private(&path, b"{}").unwrap();
        assert!(matches!(EdgeKeys::load_or_generate(directory.path()), Err(KeyError::Damaged { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"{}");
    }

    #[test]
    fn places_for_keys_that_come_later_say_so() {
        assert_eq!("auto".parse(), Ok(KeyProvider::Auto));
        assert_eq!("tpm".parse::<KeyProvider>(), Err(InvalidKeyProvider::Later("tpm".into())));
        assert_eq!("x".parse::<KeyProvider>(), Err(InvalidKeyProvider::Unknown("x".into())));
    }
}
