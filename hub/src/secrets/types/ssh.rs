//! SSH keys: `private_key`, and where there are some `public_key` and `passphrase`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use llm_config_shared::time::UnixMillis;

use super::document::Document;
use super::{Checked, armour, invalid};

/// How OpenSSH's own form begins (PROTOCOL.key of OpenSSH).
const MAGIC: &[u8] = b"openssh-key-v1\0";
/// Other forms, which are not looked into.
const LABELS: [&str; 4] = ["PRIVATE KEY", "ENCRYPTED PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"];

/// Whatever form the private key has, it is one; a public key beside one in OpenSSH's form is its own.
pub(super) fn check(document: &Document) -> Checked<Option<UnixMillis>> {
    let text = document.text("private_key")?;
    document.optional_text("passphrase")?;
    let what = "must be a private key as OpenSSH or PEM write it";
    let (label, bytes) = armour::first(text).ok_or_else(|| invalid("private_key", what))?;
    let own = match label {
        "OPENSSH PRIVATE KEY" => Some(public_part(&bytes).ok_or_else(|| invalid("private_key", what))?),
        label if LABELS.contains(&label) => None,
        _ => return Err(invalid("private_key", what)),
    };
    let Some(line) = document.optional_text("public_key")? else { return Ok(None) };
    let public = public_key(line).ok_or_else(|| {
        invalid("public_key", "must be one line as in authorized_keys: kind, base64, comment")
    })?;
    match own {
        Some(own) if own != public => Err(invalid("public_key", "belongs to another private key")),
        Some(_) | None => Ok(None),
    }
}

/// The public key inside OpenSSH's form, which is in the clear also where the private one is not.
fn public_part(bytes: &[u8]) -> Option<&[u8]> {
    let mut rest = bytes.strip_prefix(MAGIC)?;
    for _ in ["cipher", "kdf", "its options"] {
        rest = take(rest)?.1;
    }
    let (count, rest) = rest.split_first_chunk::<4>()?;
    (u32::from_be_bytes(*count) == 1).then_some(())?;
    let (public, rest) = take(rest)?;
    take(rest).filter(|(private, _)| !private.is_empty()).map(|_| public)
}

/// Bytes behind their length.
fn take(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)
}

/// The bytes repeat the kind that stands before them.
fn public_key(line: &str) -> Option<Vec<u8>> {
    let mut words = line.split_whitespace();
    let (kind, base64) = (words.next()?, words.next()?);
    let bytes = STANDARD.decode(base64).ok()?;
    let repeats = take(&bytes).is_some_and(|(named, _)| named == kind.as_bytes());
    repeats.then_some(bytes)
}

#[cfg(test)]
mod tests {
    use llm_config_shared::secret::{SecretType, Told};
    use serde_json::json;

    use super::super::examined;
    use super::*;

    const TYPE: Told = Told { secret_type: SecretType::SshKey, expires_at: None };

    fn long(bytes: &[u8]) -> Vec<u8> {
        [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
    }

    fn public(seed: u8) -> Vec<u8> {
        [long(b"ssh-ed25519"), long(&[seed; 32])].concat()
    }

    fn private(seed: u8) -> String {
        let bytes = [
            MAGIC.to_vec(),
            long(b"none"),
            long(b"none"),
            long(b""),
            1_u32.to_be_bytes().to_vec(),
            long(&public(seed)),
            long(&[seed; 64]),
        ]
        .concat();
        let label = "OPENSSH PRIVATE KEY";
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(bytes))
    }

    fn line(seed: u8) -> String {
        format!("ssh-ed25519 {} somebody@canary", STANDARD.encode(public(seed)))
    }

    #[test]
    fn a_key_in_a_known_form_is_taken_with_its_own_public_key() {
        for document in [
            json!({"private_key": private(7)}),
            json!({"private_key": private(7), "public_key": line(7), "passphrase": "canary"}),
        ] {
            assert_eq!(examined(&document.to_string(), TYPE), Ok(TYPE));
        }
    }

    #[test]
    fn anything_else_is_refused_by_its_member() {
        let cut = private(7).replace("AAAA", "");
        for (document, field) in [
            (json!({"private_key": private(7), "public_key": line(8)}), "public_key"),
            (json!({"private_key": private(7), "public_key": "ssh-rsa canary"}), "public_key"),
            (json!({"private_key": line(7)}), "private_key"),
            (json!({"private_key": cut}), "private_key"),
            (json!({"private_key": private(7).replace("OPENSSH", "CANARY")}), "private_key"),
            (json!({"public_key": line(7)}), "private_key"),
        ] {
            let refused = examined(&document.to_string(), TYPE).unwrap_err();
            assert_eq!(refused.field(), field, "{refused}");
            assert!(!refused.to_string().to_lowercase().contains("canary"));
        }
    }
}
