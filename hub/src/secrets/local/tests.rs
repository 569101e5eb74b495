//! The local keyring on real files.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use llm_config_keychain::{Keychain, KeychainError};

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
    let text = LocalKeyring::open_or_create(&path).unwrap().to_text().unwrap();
    assert_eq!(*text, fs::read_to_string(&path).unwrap());
    drop(NewKeyring::write(&back, &text).unwrap());
    assert!(!back.exists(), "what needs it did not come back");
    NewKeyring::write(&back, &text).unwrap().keep();
    assert_eq!(fs::metadata(&back).unwrap().mode() & 0o777, 0o600);
    drop(NewKeyring::write(&back, &text).unwrap());
    assert_eq!(fs::read_to_string(&back).unwrap(), *text, "what was there before stays");

    let other = LocalKeyring::open_or_create(&folder.path().join("other")).unwrap().to_text().unwrap();
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
    assert_eq!(old.unwrap("ca", &newer).unwrap().as_slice(), b"a key", "the file is read again");
}

#[test]
fn a_key_that_is_added_wraps_and_another_process_finds_it() {
    let folder = folder();
    let path = folder.path().join("keyring");
    let (mine, theirs) =
        (LocalKeyring::open_or_create(&path).unwrap(), LocalKeyring::open_or_create(&path).unwrap());
    let old = mine.wrap("ca", b"a key").unwrap();
    mine.add_key().unwrap();
    let new = mine.wrap("ca", b"a key").unwrap();
    assert_ne!(LocalKeyring::wrapped_by(&old), LocalKeyring::wrapped_by(&new));
    for keyring in [&mine, &theirs, &LocalKeyring::open(&path).unwrap()] {
        assert_eq!(keyring.unwrap("ca", &old).unwrap().as_slice(), b"a key");
        assert_eq!(keyring.unwrap("ca", &new).unwrap().as_slice(), b"a key");
    }
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);

    let used = [LocalKeyring::wrapped_by(&old).unwrap()];
    assert_eq!(mine.forget_unused(&used).unwrap(), 0, "what is used stays");
    assert_eq!(mine.forget_unused(&[]).unwrap(), 1);
    let left = LocalKeyring::open(&path).unwrap();
    assert!(matches!(left.unwrap("ca", &old), Err(KeyringError::UnknownKey)));
    assert_eq!(left.unwrap("ca", &new).unwrap().as_slice(), b"a key", "the current one stays");
}

#[test]
fn a_passphrase_seals_the_file_and_nothing_else_opens_it() {
    let folder = folder();
    let path = folder.path().join("keyring");
    let passphrase = |text: &str| Sealing::from(Passphrase::new(text));
    let made = LocalKeyring::open_or_create_locked(&path, passphrase("correct horse\n")).unwrap();
    let wrapped = made.wrap("ca", b"a key").unwrap();
    let key = STANDARD_NO_PAD.encode(made.read().keys[0].1.expose());
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.starts_with("llm-config-hub keyring 2 argon2id m=65536 t=3 ") && !text.contains(&key));

    let again = LocalKeyring::open_locked(&path, passphrase("correct horse")).unwrap();
    assert_eq!(again.unwrap("ca", &wrapped).unwrap().as_slice(), b"a key");
    assert!(matches!(
        LocalKeyring::open_locked(&path, passphrase("wrong horse")),
        Err(KeyringError::WrongPassphrase { .. })
    ));
    assert!(matches!(LocalKeyring::open(&path), Err(KeyringError::NeedsPassphrase { .. })));
    assert!(!format!("{:?}", passphrase("correct horse")).contains("horse"));
}

#[test]
fn a_keyring_of_before_is_sealed_when_a_key_is_added() {
    let folder = folder();
    let path = folder.path().join("keyring");
    let wrapped = LocalKeyring::open_or_create(&path).unwrap().wrap("ca", b"a key").unwrap();
    let passphrase = || Sealing::from(Passphrase::new("correct horse"));
    let keyring = LocalKeyring::open_locked(&path, passphrase()).unwrap();
    keyring.add_key().unwrap();
    assert!(matches!(LocalKeyring::open(&path), Err(KeyringError::NeedsPassphrase { .. })));
    let again = LocalKeyring::open_locked(&path, passphrase()).unwrap();
    assert_eq!(again.unwrap("ca", &wrapped).unwrap().as_slice(), b"a key");
}

#[test]
fn a_keyring_whose_key_is_in_a_keychain_is_waited_for_and_only_that() {
    let folder = folder();
    let path = folder.path().join("keyring");
    let nowhere = || Sealing::from(Keychain::at("unix:path=/nowhere/at/all"));
    let put = |lock: &str| {
        fs::write(&path, format!("llm-config-hub keyring 2 {lock}\nAAAA\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    };
    put("keychain 00112233445566778899aabbccddeeff");
    let error = LocalKeyring::open_locked(&path, nowhere()).err().unwrap();
    assert!(matches!(error, KeyringError::Keychain(_)), "{error}");
    put("keychain ../../etc/passwd");
    let error = LocalKeyring::open_locked(&path, nowhere()).err().unwrap();
    assert!(matches!(error, KeyringError::Malformed { line: 1, .. }), "{error}");

    let away = |error: KeychainError| ProviderError::from(KeyringError::from(error)).away();
    assert!(away(KeychainError::Locked).is_some_and(|(reason, _)| reason.contains("locked")));
    assert_eq!(away(KeychainError::NotBuilt), None, "nobody waits for what never comes");
}
