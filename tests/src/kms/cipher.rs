//! What a cloud does with its keys, within these tests: AES-256-GCM.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hmac;

pub(super) fn seal(material: &[u8; 32], context: &[u8], plain: &[u8]) -> Vec<u8> {
    let nonce: [u8; 12] = rand::random();
    let mut sealed = plain.to_vec();
    cipher(material)
        .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(context), &mut sealed)
        .unwrap();
    [nonce.as_slice(), &sealed].concat()
}

pub(super) fn open(material: &[u8; 32], context: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let (nonce, sealed) = sealed.split_first_chunk::<12>()?;
    let (nonce, mut sealed) = (Nonce::assume_unique_for_key(*nonce), sealed.to_vec());
    Some(cipher(material).open_in_place(nonce, Aad::from(context), &mut sealed).ok()?.to_vec())
}

/// As long as RFC 3394 makes it of 32 bytes, and as deterministic; not the same bytes.
pub(super) fn wrap_short(material: &[u8; 32], plain: &[u8]) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, material);
    let check = hmac::sign(&key, plain);
    let check = &check.as_ref()[..8];
    [check, &masked(&key, check, plain)].concat()
}

pub(super) fn unwrap_short(material: &[u8; 32], wrapped: &[u8]) -> Option<Vec<u8>> {
    let (check, rest) = wrapped.split_first_chunk::<8>()?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, material);
    let plain = masked(&key, check, rest);
    (hmac::sign(&key, &plain).as_ref()[..8] == *check).then_some(plain)
}

fn masked(key: &hmac::Key, check: &[u8], bytes: &[u8]) -> Vec<u8> {
    let mask = hmac::sign(key, &[b"mask", check].concat());
    bytes.iter().zip(mask.as_ref()).map(|(byte, mask)| byte ^ mask).collect()
}

fn cipher(material: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, material).unwrap())
}

pub(super) fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

pub(super) fn unbase64(text: &str) -> Vec<u8> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).unwrap_or_default()
}
