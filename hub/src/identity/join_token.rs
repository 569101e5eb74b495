//! Join tokens: minted for one binding, shown once, kept as a hash.

use llm_config_proto::join_token::{JoinSecret, JoinToken};
use ring::rand::SecureRandom;
use zeroize::Zeroizing;

use super::NoRandomness;
use crate::registry::TokenHash;

/// How long a join token is good for when nobody says otherwise.
pub const TTL_MS: u64 = 15 * 60 * 1_000;
/// The longest that may be asked for.
pub const TTL_MS_MAX: u64 = 30 * 24 * 3_600 * 1_000;

/// A new token's text for the hub at `hub` (`https://HOST:PORT`) with the CA of this fingerprint, and the hash to store.
///
/// # Errors
/// When the system has no randomness.
pub fn generate(
    hub: &str,
    ca_fingerprint: [u8; 32],
    random: &dyn SecureRandom,
) -> Result<(Zeroizing<String>, TokenHash), NoRandomness> {
    let mut secret = Zeroizing::new([0; 32]);
    random.fill(&mut secret[..]).map_err(|_| NoRandomness)?;
    let secret = JoinSecret::new(*secret);
    let hash = secret.hash();
    Ok((JoinToken { hub: hub.to_owned(), ca_fingerprint, secret }.to_text(), hash))
}

#[cfg(test)]
mod tests {
    use ring::rand::SystemRandom;

    use super::*;

    #[test]
    fn what_is_stored_is_what_the_text_hashes_to() {
        let (text, stored) = generate("https://localhost:8443", [3; 32], &SystemRandom::new()).unwrap();
        let token = JoinToken::parse(&text).unwrap();
        assert_eq!((token.secret.hash(), token.ca_fingerprint), (stored, [3; 32]));
        assert_eq!(token.hub, "https://localhost:8443");
    }
}
