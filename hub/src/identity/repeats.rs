//! The key under which a request that may be repeated is remembered: with a plain hash of it, whoever has the database could
//! guess at a weak secret in it.

use ring::hmac;
use ring::rand::{SecureRandom as _, SystemRandom};
use zeroize::Zeroizing;

use super::NoRandomness;

/// HMAC-SHA256 over the bodies of requests.
#[derive(Clone)]
pub struct RepeatMac(hmac::Key);

impl RepeatMac {
    /// A new key of 32 bytes, to be wrapped and stored.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn generate() -> Result<Zeroizing<Vec<u8>>, NoRandomness> {
        let mut key = Zeroizing::new(vec![0; 32]);
        SystemRandom::new().fill(&mut key).map_err(|_| NoRandomness)?;
        Ok(key)
    }

    /// Over what [`RepeatMac::generate`] gave.
    pub fn from_stored(key: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// What is kept of a request.
    pub fn of(&self, body: &[u8]) -> [u8; 32] {
        hmac::sign(&self.0, body).as_ref().try_into().expect("HMAC-SHA256 has 32 bytes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_request_is_known_under_the_same_key_alone() {
        let (one, other) = (RepeatMac::generate().unwrap(), RepeatMac::generate().unwrap());
        let of = |key: &[u8], body: &[u8]| RepeatMac::from_stored(key).of(body);
        assert_eq!(of(&one, b"request"), of(&one, b"request"));
        assert_ne!(of(&one, b"request"), of(&one, b"another"));
        assert_ne!(of(&one, b"request"), of(&other, b"request"));
    }
}
