//! Tokens for the REST API: shown once, kept as a hash.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use ring::rand::SecureRandom;
use zeroize::Zeroizing;

use super::NoRandomness;
use crate::registry::TokenHash;

const PREFIX: &str = "lcm_";
const SECRET_BYTES: usize = 32;

/// A new token's text, and the hash to store.
///
/// # Errors
/// When the system has no randomness.
pub fn generate(random: &dyn SecureRandom) -> Result<(Zeroizing<String>, TokenHash), NoRandomness> {
    let mut secret = Zeroizing::new([0; SECRET_BYTES]);
    random.fill(&mut secret[..]).map_err(|_| NoRandomness)?;
    let mut text = Zeroizing::new(String::from(PREFIX));
    URL_SAFE_NO_PAD.encode_string(&secret[..], &mut text);
    let hash = hash_of_text(&text);
    Ok((text, hash))
}

/// The hash to look a presented token up by; none for a text that cannot be one, which needs no database to refuse.
pub fn hash(presented: &str) -> Option<TokenHash> {
    let body = presented.strip_prefix(PREFIX)?;
    // 32 bytes are 43 characters: a longer text is not worth decoding.
    let secret = (body.len() == SECRET_BYTES.div_ceil(3) * 4 - 1)
        .then(|| URL_SAFE_NO_PAD.decode(body).ok().map(Zeroizing::new))
        .flatten()?;
    (secret.len() == SECRET_BYTES).then(|| hash_of_text(presented))
}

fn hash_of_text(text: &str) -> TokenHash {
    digest(&SHA256, text.as_bytes()).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use ring::rand::SystemRandom;

    use super::*;

    #[test]
    fn a_token_is_found_by_its_text_alone() {
        let (text, stored) = generate(&SystemRandom::new()).unwrap();
        assert_eq!(hash(&text), Some(stored));
        assert_ne!(generate(&SystemRandom::new()).unwrap().1, stored);
        for other in ["", "lcm_", &text[..text.len() - 1], &format!("{}A", *text), &text[1..], "lcj_abc"] {
            assert_eq!(hash(other), None, "{other}");
        }
    }
}
