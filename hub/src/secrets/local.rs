//! The key-encryption key in a file of this machine: readable by its owner alone, written once, whole or not at all.
//!
//! The file is text: a line that names its form, then one line per key, the current one last. What is wrapped names its
//! key, so that a new key can be added without touching what older ones wrap.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use llm_config_shared::seal::{CannotOpen, NONCE_BYTES, SealKey, open, seal};
use ring::rand::SecureRandom as _;
use zeroize::Zeroizing;

const HEADER: &str = "llm-config-hub keyring 1";
const WRAPPED_FORM: u8 = 1;
const ID_BYTES: usize = 8;
/// A keyring is some lines; anything longer is another file.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// Why the keyring cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    #[error("the keyring {path} cannot be used: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("the keyring {path} can be read by others (mode {mode:o}): chmod 600 {path}")]
    TooOpen { path: PathBuf, mode: u32 },
    #[error("{path} is not a keyring of this program: line {line}")]
    Malformed { path: PathBuf, line: usize },
    #[error(
        "a stored key was wrapped with a key that this keyring does not have; is it this database's keyring?"
    )]
    UnknownKey,
    #[error("a stored key cannot be unwrapped")]
    CannotOpen(#[from] CannotOpen),
    #[error("there is another keyring at {path}; move it away first")]
    Another { path: PathBuf },
    #[error("the system has no randomness")]
    NoRandomness,
}

/// The key-encryption key, and those before it.
pub struct LocalKeyring {
    keys: Vec<([u8; ID_BYTES], SealKey)>,
}

impl LocalKeyring {
    /// Reads the keyring.
    ///
    /// # Errors
    /// When it is missing, malformed, or readable by others.
    pub fn open(path: &Path) -> Result<Self, KeyringError> {
        let failed = |source| KeyringError::File { path: path.to_owned(), source };
        let mut file = File::open(path).map_err(failed)?;
        let about = file.metadata().map_err(failed)?;
        let mode = about.mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(KeyringError::TooOpen { path: path.to_owned(), mode });
        }
        let mut text = Zeroizing::new(String::with_capacity(4_096));
        (&mut file).take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
        Self::parse(&text).map_err(|line| KeyringError::Malformed { path: path.to_owned(), line })
    }

    /// Reads the keyring, and creates it with a random key where there is none. For a database whose keys were wrapped
    /// before, use [`open`](Self::open): a new key would open none of them.
    ///
    /// # Errors
    /// As [`open`](Self::open), and when it cannot be written.
    pub fn open_or_create(path: &Path) -> Result<Self, KeyringError> {
        match Self::open(path) {
            Err(KeyringError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                create(path)?;
                Self::open(path)
            }
            other => other,
        }
    }

    /// The file's text, to be kept elsewhere.
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(4_096));
        text.push_str(HEADER);
        text.push('\n');
        for (_, key) in &self.keys {
            STANDARD_NO_PAD.encode_string(key.expose(), &mut text);
            text.push('\n');
        }
        text
    }

    /// Wraps a small key under the current key-encryption key, bound to its name.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn wrap(&self, name: &str, plain: &[u8]) -> Result<Vec<u8>, KeyringError> {
        // A keyring was never parsed without a key.
        let (id, key) = self.keys.last().ok_or(KeyringError::UnknownKey)?;
        let nonce: [u8; NONCE_BYTES] = random()?;
        let mut wrapped = vec![WRAPPED_FORM];
        wrapped.extend_from_slice(id);
        wrapped.extend_from_slice(&seal(key, nonce, &context(name), plain));
        Ok(wrapped)
    }

    /// The inverse of [`wrap`](Self::wrap).
    ///
    /// # Errors
    /// When it was wrapped by a key that is not here, under another name, or was changed.
    pub fn unwrap(&self, name: &str, wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyringError> {
        let Some((&WRAPPED_FORM, rest)) = wrapped.split_first() else {
            return Err(CannotOpen.into());
        };
        let (id, sealed) = rest.split_first_chunk::<ID_BYTES>().ok_or(CannotOpen)?;
        let (_, key) = self.keys.iter().find(|(known, _)| known == id).ok_or(KeyringError::UnknownKey)?;
        Ok(open(key, &context(name), sealed)?)
    }

    /// The number of the line that is wrong, where one is.
    fn parse(text: &str) -> Result<Self, usize> {
        let mut lines = text.lines().enumerate();
        if lines.next().is_none_or(|(_, first)| first != HEADER) {
            return Err(1);
        }
        let mut keys = Vec::new();
        for (line, encoded) in lines {
            let wrong = line + 1;
            let bytes = Zeroizing::new(STANDARD_NO_PAD.decode(encoded).map_err(|_| wrong)?);
            let key = SealKey::from_slice(&bytes).map_err(|_| wrong)?;
            keys.push((id_of(&key), key));
        }
        if keys.is_empty() { Err(2) } else { Ok(Self { keys }) }
    }
}

/// Names a key without telling anything about it.
fn id_of(key: &SealKey) -> [u8; ID_BYTES] {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    context.update(b"llm-config key-encryption key id 1");
    context.update(key.expose());
    context.finish().as_ref()[..ID_BYTES].try_into().expect("SHA-256 has 32 bytes")
}

fn context(name: &str) -> Vec<u8> {
    [b"llm-config wrapped key 1 ".as_slice(), name.as_bytes()].concat()
}

/// A keyring of a random key. Of two processes that start at once one's file stays.
fn create(path: &Path) -> Result<(), KeyringError> {
    let key: Zeroizing<[u8; 32]> = Zeroizing::new(random()?);
    let mut text = Zeroizing::new(format!("{HEADER}\n"));
    STANDARD_NO_PAD.encode_string(key.as_slice(), &mut text);
    text.push('\n');
    put_whole(path, &text).map(|_| ())
}

/// Written under another name, synced, and then given its own only if nobody has it: a crash leaves no half a keyring.
/// False when somebody has it.
fn put_whole(path: &Path, text: &str) -> Result<bool, KeyringError> {
    let unique = u64::from_be_bytes(random()?);
    let draft = path.with_extension(format!("{unique:016x}.new"));
    let linked = write_once(&draft, text.as_bytes()).and_then(|()| match fs::hard_link(&draft, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
        Ok(()) => Ok(true),
    });
    let removed = fs::remove_file(&draft);
    let folder =
        path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    let done = linked.and_then(|put| removed.and(synced).map(|()| put));
    done.map_err(|source| KeyringError::File { path: path.to_owned(), source })
}

/// A keyring that comes back from a backup: it goes again unless what needs it has come back too.
pub struct NewKeyring {
    /// None when the same keyring was there before.
    written: Option<PathBuf>,
}

impl NewKeyring {
    /// Writes a keyring's text where there is none, or the same.
    ///
    /// # Errors
    /// When another keyring is there, or the text is none.
    pub fn write(path: &Path, text: &str) -> Result<Self, KeyringError> {
        let malformed = |line| KeyringError::Malformed { path: path.to_owned(), line };
        LocalKeyring::parse(text).map_err(malformed)?;
        if put_whole(path, text)? {
            return Ok(Self { written: Some(path.to_owned()) });
        }
        if LocalKeyring::open(path)?.to_text().as_str() == text {
            return Ok(Self { written: None });
        }
        Err(KeyringError::Another { path: path.to_owned() })
    }

    /// It stays.
    pub fn keep(mut self) {
        self.written = None;
    }
}

impl Drop for NewKeyring {
    fn drop(&mut self) {
        if let Some(path) = &self.written {
            let _ = fs::remove_file(path);
        }
    }
}

fn write_once(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Bytes from the system's random source.
pub(super) fn random<const N: usize>() -> Result<[u8; N], KeyringError> {
    let mut bytes = [0; N];
    ring::rand::SystemRandom::new().fill(&mut bytes).map_err(|_| KeyringError::NoRandomness)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn a_keyring_is_created_once_and_opens_what_it_wrapped() {
        let folder = folder();
        let path = folder.path().join("keyring");
        assert!(matches!(LocalKeyring::open(&path), Err(KeyringError::File { .. })));
        let first = LocalKeyring::open_or_create(&path).unwrap();
        let again = LocalKeyring::open_or_create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no draft is left");

        let wrapped = first.wrap("ca", b"a key").unwrap();
        assert_eq!(again.unwrap("ca", &wrapped).unwrap().as_slice(), b"a key");
        assert!(matches!(again.unwrap("signing", &wrapped), Err(KeyringError::CannotOpen(_))));
        assert!(again.unwrap("ca", &wrapped[..9]).is_err() && again.unwrap("ca", b"").is_err());

        let other = LocalKeyring::open_or_create(&folder.path().join("other")).unwrap();
        assert!(matches!(other.unwrap("ca", &wrapped), Err(KeyringError::UnknownKey)));
    }

    #[test]
    fn a_keyring_that_others_can_read_is_refused() {
        let folder = folder();
        let path = folder.path().join("keyring");
        LocalKeyring::open_or_create(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let refused = LocalKeyring::open_or_create(&path).err().unwrap().to_string();
        assert!(refused.contains("chmod 600"), "{refused}");
    }

    #[test]
    fn a_file_that_is_no_keyring_is_left_alone() {
        let folder = folder();
        let path = folder.path().join("keyring");
        for (text, line) in [("", 1), ("something else\n", 1), ("llm-config-hub keyring 1\n", 2)] {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            let refused = LocalKeyring::open_or_create(&path).err().unwrap();
            assert!(matches!(refused, KeyringError::Malformed { line: at, .. } if at == line), "{refused}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn a_keyring_comes_back_whole_or_goes_again() {
        let folder = folder();
        let (path, back) = (folder.path().join("keyring"), folder.path().join("back"));
        let text = LocalKeyring::open_or_create(&path).unwrap().to_text();
        assert_eq!(*text, fs::read_to_string(&path).unwrap());
        drop(NewKeyring::write(&back, &text).unwrap());
        assert!(!back.exists(), "what needs it did not come back");
        NewKeyring::write(&back, &text).unwrap().keep();
        assert_eq!(fs::metadata(&back).unwrap().mode() & 0o777, 0o600);
        drop(NewKeyring::write(&back, &text).unwrap());
        assert_eq!(fs::read_to_string(&back).unwrap(), *text, "what was there before stays");

        let other = LocalKeyring::open_or_create(&folder.path().join("other")).unwrap().to_text();
        assert!(matches!(NewKeyring::write(&back, &other), Err(KeyringError::Another { .. })));
        assert!(matches!(NewKeyring::write(&back, "other"), Err(KeyringError::Malformed { .. })));
        assert_eq!(fs::read_to_string(&back).unwrap(), *text);
    }

    #[test]
    fn what_an_older_key_wrapped_still_opens() {
        let folder = folder();
        let path = folder.path().join("keyring");
        let old = LocalKeyring::open_or_create(&path).unwrap();
        let wrapped = old.wrap("ca", b"a key").unwrap();
        let mut text = fs::read_to_string(&path).unwrap();
        STANDARD_NO_PAD.encode_string([7; 32], &mut text);
        fs::write(&path, &text).unwrap();
        let both = LocalKeyring::open(&path).unwrap();
        assert_eq!(both.unwrap("ca", &wrapped).unwrap().as_slice(), b"a key");
        let newer = both.wrap("ca", b"a key").unwrap();
        assert!(matches!(old.unwrap("ca", &newer), Err(KeyringError::UnknownKey)));
    }
}
