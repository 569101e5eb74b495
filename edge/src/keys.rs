//! The edge's own keys: made on this machine, kept in one file that only its user can read, never sent anywhere. Who keeps
//! what lies in that file is [`crate::keeper`]'s business.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use llm_config_shared::seal::SealKey;
use rcgen::PublicKeyData;
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use rustls_pki_types::PrivatePkcs8KeyDer;
use zeroize::{Zeroize, Zeroizing};

use crate::clock::Clock;
use crate::keeper::{Keeper, KeeperError};

mod disk;
mod file;
mod sealing;

pub use disk::{read_private, write_private};
pub use file::{FILE, OLD_FILE, keeper, settle};
pub use sealing::{PublicHalf, SealingKeys};

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
    #[error(transparent)]
    Keeper(#[from] KeeperError),
    #[error("the operating system gave no random bytes")]
    NoRandomness,
}

impl KeyError {
    /// Whether the same may work later: nothing is wrong here.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Keeper(error) if error.may_pass())
    }
}

/// Everything that never leaves this machine.
pub struct EdgeKeys {
    /// Seals the replica.
    pub replica: SealKey,
    /// Proves who the edge is, PKCS#8 (P-256).
    pub tls: Zeroizing<Vec<u8>>,
    /// What the hub seals keys of subtrees to: replaced now and then, while everything else stays.
    pub sealing: Arc<SealingKeys>,
    /// Who keeps all of it.
    pub keeper: Keeper,
}

impl std::fmt::Debug for EdgeKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EdgeKeys(***)")
    }
}

impl EdgeKeys {
    /// New keys, which nobody keeps yet.
    ///
    /// # Errors
    /// When the operating system gives no random bytes.
    pub fn generate(keeper: Keeper) -> Result<Self, KeyError> {
        let random = SystemRandom::new();
        let mut replica = [0; 32];
        random.fill(&mut replica).map_err(|_| KeyError::NoRandomness)?;
        let tls = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random)
            .map_err(|_| KeyError::NoRandomness)?;
        let sealing = Arc::new(SealingKeys::generate(Clock::start().wall())?);
        let tls = Zeroizing::new(tls.as_ref().to_vec());
        let keys = Self { replica: SealKey::new(replica), tls, sealing, keeper };
        replica.zeroize();
        Ok(keys)
    }

    /// The keys in `directory`, made and written to a plain file first where there are none.
    ///
    /// # Errors
    /// When they cannot be made, written or read, or others can read them.
    pub fn load_or_generate(directory: &Path) -> Result<Self, KeyError> {
        Self::load_or_keep(directory, &Keeper::File)
    }

    /// The keys in `directory`, whoever keeps them; made and given to `keeper` where there are none.
    ///
    /// # Errors
    /// When they cannot be made, written or read, or others can read them.
    pub fn load_or_keep(directory: &Path, keeper: &Keeper) -> Result<Self, KeyError> {
        match Self::load(directory) {
            Err(KeyError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                let keys = Self::generate(keeper.clone())?;
                keys.store(directory)?;
                Ok(keys)
            }
            loaded => loaded,
        }
    }

    /// The keys in `directory`.
    ///
    /// # Errors
    /// When they cannot be read or unwrapped, or others can read them as well.
    pub fn load(directory: &Path) -> Result<Self, KeyError> {
        file::load(directory)
    }

    /// Writes them, whole or not at all, durable; what lay there before is overwritten. Killed at any moment, what lies there
    /// is one of both, and [`settle`] does the rest.
    ///
    /// # Errors
    /// When they cannot be wrapped or written; then the keys from before stand.
    pub fn store(&self, directory: &Path) -> Result<(), KeyError> {
        file::store(self, directory)
    }

    /// Gives the keys in `directory` to another keeper, and then takes from the one before what it kept for them alone.
    ///
    /// # Errors
    /// As [`load`](Self::load) and [`store`](Self::store); and when the keeper before cannot be reached, after the keys have moved.
    pub fn rekey(directory: &Path, keeper: &Keeper) -> Result<Self, KeyError> {
        settle(directory)?;
        let keys = Self { keeper: keeper.clone(), ..Self::load(directory)? };
        keys.store(directory)?;
        Keeper::settle(Some(keeper), directory)?;
        Ok(keys)
    }

    /// The pair that the hub seals to by now: (private, public).
    pub fn sealing_pair(&self) -> (SealKey, [u8; 32]) {
        self.sealing.newest()
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

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
        let keys = EdgeKeys::generate(Keeper::File).unwrap();
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
}
