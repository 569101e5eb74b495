//! The text of a join token: where the hub is, how to know it, and a secret that lets one edge join.
//!
//! `lcj_` and base64url of: version byte, SHA-256 of the hub's CA certificate (32), secret (32), the hub's address, and
//! the first four bytes of the SHA-256 over all of it, so that a token that was cut while copying says so.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use zeroize::Zeroizing;

const PREFIX: &str = "lcj_";
const VERSION: u8 = 1;
const HASH_BYTES: usize = 32;
const SECRET_BYTES: usize = 32;
const CHECK_BYTES: usize = 4;
/// Version, fingerprint and secret, in front of the address.
const FIXED_BYTES: usize = 1 + HASH_BYTES + SECRET_BYTES;
/// Longest address that a token carries.
const ADDRESS_BYTES_MAX: usize = 300;

/// Lets an edge find a hub, know that it is the right one, and join it.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// `https://HOST:PORT` of the hub's sync port.
    pub hub: String,
    /// SHA-256 of the hub's CA certificate (DER).
    pub ca_fingerprint: [u8; HASH_BYTES],
    /// 256 random bits.
    pub secret: JoinSecret,
}

/// The part of a token that the hub recognises; it keeps only the hash.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinSecret(Zeroizing<[u8; SECRET_BYTES]>);

/// Why a text is not a join token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidJoinToken {
    #[error("this is not a join token: it does not begin with `lcj_`")]
    Prefix,
    #[error("the join token is damaged; copy it whole, in one piece")]
    Damaged,
    #[error("the join token is of version {0}, which this program does not know; update it")]
    Version(u8),
    #[error("the hub's address in the join token is not of the form https://HOST:PORT")]
    Address,
}

impl JoinSecret {
    /// 32 bytes from the system's random source.
    pub fn new(bytes: [u8; SECRET_BYTES]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// For the one message that presents it.
    pub(crate) fn as_bytes(&self) -> &[u8; SECRET_BYTES] {
        &self.0
    }

    /// What the hub stores and looks up.
    pub fn hash(&self) -> [u8; HASH_BYTES] {
        sha256(&self.0[..])
    }
}

impl fmt::Debug for JoinSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinSecret(***)")
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken").field("hub", &self.hub).finish_non_exhaustive()
    }
}

impl JoinToken {
    /// The text that is shown once and pasted on the joining machine.
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(FIXED_BYTES + self.hub.len() + CHECK_BYTES));
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.ca_fingerprint);
        bytes.extend_from_slice(&self.secret.0[..]);
        bytes.extend_from_slice(self.hub.as_bytes());
        let check = sha256(&bytes);
        bytes.extend_from_slice(&check[..CHECK_BYTES]);
        let mut text = Zeroizing::new(String::from(PREFIX));
        URL_SAFE_NO_PAD.encode_string(&*bytes, &mut text);
        text
    }

    /// The inverse of [`JoinToken::to_text`]; white space around it is ignored.
    ///
    /// # Errors
    /// Says what is wrong with the text, never what it holds.
    pub fn parse(text: &str) -> Result<Self, InvalidJoinToken> {
        let body = text.trim().strip_prefix(PREFIX).ok_or(InvalidJoinToken::Prefix)?;
        let bytes =
            URL_SAFE_NO_PAD.decode(body).map(Zeroizing::new).map_err(|_| InvalidJoinToken::Damaged)?;
        let (content, check) = bytes.split_last_chunk::<CHECK_BYTES>().ok_or(InvalidJoinToken::Damaged)?;
        if sha256(content)[..CHECK_BYTES] != *check {
            return Err(InvalidJoinToken::Damaged);
        }
        let (version, content) = content.split_first().ok_or(InvalidJoinToken::Damaged)?;
        if *version != VERSION {
            return Err(InvalidJoinToken::Version(*version));
        }
        let (fingerprint, content) =
            content.split_first_chunk::<HASH_BYTES>().ok_or(InvalidJoinToken::Damaged)?;
        let (secret, address) =
            content.split_first_chunk::<SECRET_BYTES>().ok_or(InvalidJoinToken::Damaged)?;
        let hub = std::str::from_utf8(address).map_err(|_| InvalidJoinToken::Address)?;
        check_address(hub)?;
        Ok(Self { hub: hub.to_owned(), ca_fingerprint: *fingerprint, secret: JoinSecret::new(*secret) })
    }
}

/// Only what an HTTP client can connect to over TLS: no path, no credentials.
fn check_address(hub: &str) -> Result<(), InvalidJoinToken> {
    if hub.len() > ADDRESS_BYTES_MAX {
        return Err(InvalidJoinToken::Address);
    }
    let uri: http::Uri = hub.parse().map_err(|_| InvalidJoinToken::Address)?;
    let authority = uri.authority().ok_or(InvalidJoinToken::Address)?;
    let plain = uri.scheme_str() == Some("https")
        && authority.port_u16().is_some_and(|port| port != 0)
        && !authority.as_str().contains('@')
        && matches!(uri.path(), "" | "/")
        && uri.query().is_none();
    if plain { Ok(()) } else { Err(InvalidJoinToken::Address) }
}

fn sha256(bytes: &[u8]) -> [u8; HASH_BYTES] {
    digest(&SHA256, bytes).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(hub: &str) -> JoinToken {
        JoinToken { hub: hub.to_owned(), ca_fingerprint: [7; 32], secret: JoinSecret::new([9; 32]) }
    }

    #[test]
    fn a_token_survives_its_text_and_its_secret_is_not_printed() {
        let token = token("https://hub.example.com:8443");
        let text = token.to_text();
        assert!(text.starts_with("lcj_"));
        assert_eq!(JoinToken::parse(&format!("  {}\n", *text)), Ok(token.clone()));
        assert!(!format!("{token:?}").contains('9'));
        assert_eq!(token.secret.hash(), sha256(&[9; 32]));
    }

    #[test]
    fn damaged_texts_are_refused_wherever_the_damage_is() {
        let text = token("https://127.0.0.1:8443").to_text().to_string();
        assert_eq!(JoinToken::parse("lcm_abc"), Err(InvalidJoinToken::Prefix));
        for length in PREFIX.len()..text.len() {
            assert!(JoinToken::parse(&text[..length]).is_err(), "cut at {length}");
        }
        for at in PREFIX.len()..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert!(JoinToken::parse(&changed).is_err(), "changed at {at}");
        }
    }

    #[test]
    fn only_a_tls_address_with_a_port_is_taken() {
        for hub in
            ["http://h:1", "https://h", "https://h:0", "https://u@h:1", "https://h:1/p", "https://h:1?q", ""]
        {
            assert_eq!(JoinToken::parse(&token(hub).to_text()), Err(InvalidJoinToken::Address), "{hub}");
        }
        assert!(JoinToken::parse(&token("https://[::1]:8443").to_text()).is_ok());
    }
}
