//! Short statements that a hub signs for one edge: the id of the key, what is said, an Ed25519 signature over both behind
//! a word that says what it is, so that no statement passes for one of another kind.

use bytes::Bytes;

use crate::codec::DecodeError;
use crate::segment::{Rejected, SIGNATURE_BYTES, VerificationKeys, seal, split};

/// A statement that only lacks its signature.
#[derive(Clone, Debug)]
pub struct StatementDraft {
    domain: &'static [u8],
    encoded: Vec<u8>,
}

impl StatementDraft {
    /// `domain` ends with a zero byte; `body` is what is said.
    pub fn new(domain: &'static [u8], key_id: u64, body: &[u8]) -> Self {
        Self { domain, encoded: [&key_id.to_be_bytes()[..], body].concat() }
    }

    /// What the key signs.
    pub fn message(&self) -> Vec<u8> {
        [self.domain, &self.encoded].concat()
    }

    /// The finished statement.
    pub fn signed(self, signature: &[u8; SIGNATURE_BYTES]) -> Bytes {
        seal(&self.encoded, signature, &[])
    }
}

/// Checks size and signature; what is said.
///
/// # Errors
/// Says what did not fit.
pub fn verify_statement(
    domain: &'static [u8],
    bytes: &Bytes,
    keys: &VerificationKeys,
) -> Result<Bytes, Rejected> {
    let (encoded, signature, rest) = split(bytes)?;
    if !rest.is_empty() {
        return Err(DecodeError::Trailing(rest.len()).into());
    }
    let (key_id, _) = encoded.split_first_chunk::<8>().ok_or(DecodeError::Truncated("key id"))?;
    keys.check(u64::from_be_bytes(*key_id), &[domain, encoded.as_ref()].concat(), &signature)?;
    Ok(encoded.slice(8..))
}

#[cfg(test)]
mod tests {
    use ring::signature::{Ed25519KeyPair, KeyPair as _};

    use super::*;

    const DOMAIN: &[u8] = b"llm-config test\0";

    #[test]
    fn only_what_the_key_signed_under_the_same_word_is_taken() {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[5; 32]).unwrap();
        let public: [u8; 32] = pair.public_key().as_ref().try_into().unwrap();
        let keys = VerificationKeys::new([(7, public)]);
        let draft = StatementDraft::new(DOMAIN, 7, b"said");
        let signature = pair.sign(&draft.message()).as_ref().try_into().unwrap();
        let bytes = draft.signed(&signature);
        assert_eq!(verify_statement(DOMAIN, &bytes, &keys).unwrap().as_ref(), b"said");
        assert!(verify_statement(b"llm-config other\0", &bytes, &keys).is_err());
        for place in 0..bytes.len() {
            let mut changed = bytes.to_vec();
            changed[place] ^= 1;
            assert!(verify_statement(DOMAIN, &changed.into(), &keys).is_err(), "byte {place}");
        }
        let longer: Bytes = [bytes.as_ref(), b"x"].concat().into();
        assert!(verify_statement(DOMAIN, &longer, &keys).is_err());
    }
}
