//! The file of keys. In clear it has all of them; in an envelope it says who keeps them, and what that one made of them.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use llm_config_shared::seal::SealKey;
use llm_config_shared::time::UnixMillis;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use super::sealing::{SealingKey, SealingKeys};
use super::{EdgeKeys, KeyError, read_private, write_private};
use crate::keeper::{Keeper, Purpose};
use crate::offline::destroy;

/// The file's name in the edge's directory.
pub const FILE: &str = "keys";
/// Keys that were replaced, until they are overwritten.
pub const OLD_FILE: &str = "keys.old";
/// Keys that were being written when somebody pulled the plug.
const NEW_FILE: &str = "keys.new";

const CLEAR: u32 = 1;
const ENVELOPE: u32 = 2;
/// All keys as text take less: written into this room, they never move.
const TEXT_BYTES: usize = 8 << 10;

/// What every format begins with.
#[derive(Deserialize)]
struct Head {
    format: u32,
}

#[derive(Serialize, Deserialize)]
struct Envelope {
    format: u32,
    #[serde(flatten)]
    keeper: Keeper,
    wrapped: String,
}

#[derive(Serialize, Deserialize)]
struct Clear {
    format: u32,
    replica: String,
    tls: String,
    sealing: String,
    /// None in files from before sealing keys were replaced.
    #[serde(default)]
    sealing_made_at: u64,
    /// Newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    sealing_before: Vec<Before>,
}

#[derive(Serialize, Deserialize)]
struct Before {
    seed: String,
    made_at: u64,
}

impl Drop for Clear {
    fn drop(&mut self) {
        self.replica.zeroize();
        self.tls.zeroize();
        self.sealing.zeroize();
        self.sealing_before.iter_mut().for_each(|before| before.seed.zeroize());
    }
}

pub(super) fn load(directory: &Path) -> Result<EdgeKeys, KeyError> {
    let path = directory.join(FILE);
    let text = read_private(&path)?;
    let damaged = |what| KeyError::Damaged { path: path.clone(), what };
    let head: Head = serde_json::from_slice(&text).map_err(|_| damaged("not in its format"))?;
    match head.format {
        CLEAR => read(&text, Keeper::File).map_err(damaged),
        ENVELOPE => {
            let envelope: Envelope =
                serde_json::from_slice(&text).map_err(|_| damaged("not in its format"))?;
            let blob = BASE64.decode(&envelope.wrapped).map_err(|_| damaged("not base64"))?;
            let text = envelope.keeper.unwrap(Purpose::Keys, &blob)?;
            read(&text, envelope.keeper).map_err(damaged)
        }
        format => Err(KeyError::Newer { path, format }),
    }
}

/// Who keeps the keys in this directory, as their file says; none where there are no keys. Nobody is asked.
///
/// # Errors
/// When the file cannot be read.
pub fn keeper(directory: &Path) -> Result<Option<Keeper>, KeyError> {
    let path = directory.join(FILE);
    let text = match read_private(&path) {
        Err(KeyError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text?,
    };
    let damaged = |_| KeyError::Damaged { path: path.clone(), what: "not in its format" };
    let head: Head = serde_json::from_slice(&text).map_err(damaged)?;
    match head.format {
        CLEAR => Ok(Some(Keeper::File)),
        ENVELOPE => Ok(Some(serde_json::from_slice::<Envelope>(&text).map_err(damaged)?.keeper)),
        format => Err(KeyError::Newer { path, format }),
    }
}

fn read(text: &[u8], keeper: Keeper) -> Result<EdgeKeys, &'static str> {
    let file: Clear = serde_json::from_slice(text).map_err(|_| "not in its format")?;
    if file.format != CLEAR {
        return Err("keys of a newer version");
    }
    let decode = |text: &str| BASE64.decode(text).map(Zeroizing::new).map_err(|_| "not base64");
    let sealing = |text: &str, made_at| -> Result<SealingKey, &'static str> {
        let seed: [u8; 32] = decode(text)?.as_slice().try_into().map_err(|_| "sealing key")?;
        Ok(SealingKey::new(Zeroizing::new(seed), UnixMillis(made_at)))
    };
    let mut all = vec![sealing(&file.sealing, file.sealing_made_at)?];
    for before in &file.sealing_before {
        all.push(sealing(&before.seed, before.made_at)?);
    }
    let replica = SealKey::from_slice(&decode(&file.replica)?).map_err(|_| "replica key")?;
    let tls = decode(&file.tls)?;
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &tls, &SystemRandom::new())
        .map_err(|_| "TLS key")?;
    let sealing = Arc::new(SealingKeys::of(all).expect("there is one"));
    Ok(EdgeKeys { replica, tls, sealing, keeper })
}

fn clear(keys: &EdgeKeys) -> Zeroizing<Vec<u8>> {
    let all = keys.sealing.all();
    let (newest, before) = all.split_first().expect("there is always one");
    let before =
        before.iter().map(|key| Before { seed: BASE64.encode(key.seed.as_slice()), made_at: key.made_at.0 });
    let file = Clear {
        format: CLEAR,
        replica: BASE64.encode(keys.replica.expose()),
        tls: BASE64.encode(keys.tls.as_slice()),
        sealing: BASE64.encode(newest.seed.as_slice()),
        sealing_made_at: newest.made_at.0,
        sealing_before: before.collect(),
    };
    let mut text = Zeroizing::new(Vec::with_capacity(TEXT_BYTES));
    serde_json::to_writer_pretty(&mut *text, &file).expect("strings and numbers");
    text
}

pub(super) fn store(keys: &EdgeKeys, directory: &Path) -> Result<(), KeyError> {
    let text = clear(keys);
    let text = if keys.keeper.is_on_disk() {
        text
    } else {
        let wrapped = BASE64.encode(keys.keeper.wrap_for_sure(Purpose::Keys, &text)?);
        let envelope = Envelope { format: ENVELOPE, keeper: keys.keeper.clone(), wrapped };
        Zeroizing::new(serde_json::to_vec_pretty(&envelope).expect("strings and a number"))
    };
    replace(directory, &text)
}

/// The old file keeps a second name until it is overwritten, so that a power cut in between leaves nothing behind.
fn replace(directory: &Path, text: &[u8]) -> Result<(), KeyError> {
    settle(directory)?;
    let (path, old) = (directory.join(FILE), directory.join(OLD_FILE));
    match fs::hard_link(&path, &old) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            return Err(KeyError::Io { path: old, source });
        }
        _ => {}
    }
    write_private(&path, text)?;
    destroy(&old).map_err(|source| KeyError::Io { path: old, source })
}

/// Overwrites and removes what a program that was killed while it replaced keys left beside them.
///
/// # Errors
/// When that cannot be done.
pub fn settle(directory: &Path) -> Result<(), KeyError> {
    let (new, old) = (directory.join(NEW_FILE), directory.join(OLD_FILE));
    destroy(&new).map_err(|source| KeyError::Io { path: new, source })?;
    let settled = match (fs::metadata(&old), fs::metadata(directory.join(FILE))) {
        (Err(error), _) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        (Err(error), _) => Err(error),
        // Not replaced yet: both are names of the keys that count.
        (Ok(old_file), Ok(file)) if old_file.ino() == file.ino() && old_file.dev() == file.dev() => {
            fs::remove_file(&old)
        }
        (Ok(_), _) => destroy(&old),
    };
    settled.map_err(|source| KeyError::Io { path: old, source })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_from_before_opens_and_its_sealing_key_is_due() {
        let directory = tempfile::tempdir().unwrap();
        let made = EdgeKeys::load_or_generate(directory.path()).unwrap();
        let text = fs::read_to_string(directory.path().join(FILE)).unwrap();
        let mut file: serde_json::Value = serde_json::from_str(&text).unwrap();
        file.as_object_mut().unwrap().remove("sealing_made_at").unwrap();
        write_private(&directory.path().join(FILE), file.to_string().as_bytes()).unwrap();
        let loaded = EdgeKeys::load(directory.path()).unwrap();
        assert_eq!((loaded.keeper.clone(), loaded.tls.clone()), (Keeper::File, made.tls));
        assert_eq!(loaded.sealing.due_in_ms(UnixMillis(1_795_000_000_000)), 0);
    }

    #[test]
    fn all_sealing_keys_come_back() {
        let directory = tempfile::tempdir().unwrap();
        let keys = EdgeKeys::load_or_generate(directory.path()).unwrap();
        let old = keys.sealing_pair();
        keys.sealing.begin(UnixMillis(7)).unwrap();
        keys.store(directory.path()).unwrap();
        let loaded = EdgeKeys::load(directory.path()).unwrap();
        assert_eq!(loaded.sealing_pair(), keys.sealing_pair());
        assert!(!loaded.sealing.retain(|public| *public == old.1) && loaded.sealing.count() == 2);
    }

    /// However far it came: what lies there opens, and nothing stays beside it.
    #[test]
    fn replacing_keys_leaves_one_of_both_and_no_other_copy() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let first = EdgeKeys::load_or_generate(directory.path()).unwrap();
        let text = fs::read(path(FILE)).unwrap();
        let left = || {
            settle(directory.path()).unwrap();
            let names = fs::read_dir(directory.path()).unwrap();
            assert_eq!(names.count(), 1, "only the keys");
            EdgeKeys::load(directory.path()).unwrap().public_key()
        };
        // Killed after the second name was made.
        fs::hard_link(path(FILE), path(OLD_FILE)).unwrap();
        assert_eq!(left(), first.public_key());
        // Killed while the new file was written.
        fs::hard_link(path(FILE), path(OLD_FILE)).unwrap();
        fs::write(path(NEW_FILE), &text[..text.len() / 2]).unwrap();
        assert_eq!(left(), first.public_key());
        // Killed before the old one was overwritten.
        let second = EdgeKeys::generate(Keeper::File).unwrap();
        fs::hard_link(path(FILE), path(OLD_FILE)).unwrap();
        write_private(&path(FILE), &clear(&second)).unwrap();
        let open = fs::File::open(path(OLD_FILE)).unwrap();
        assert_eq!(left(), second.public_key());
        let mut overwritten = Vec::new();
        io::Read::read_to_end(&mut &open, &mut overwritten).unwrap();
        assert!(!overwritten.is_empty() && overwritten.iter().all(|byte| *byte == 0), "not overwritten");
        assert_eq!(fs::metadata(path(FILE)).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
