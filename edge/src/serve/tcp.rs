//! Loopback TCP, when asked for: every request shows a token, and nothing beyond this machine can connect.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use ring::digest::{SHA256, digest};
use tokio::net::TcpListener;
use zeroize::Zeroizing;

/// Shorter ones can be guessed.
const TOKEN_BYTES_MIN: usize = 16;

/// Why TCP cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum TcpError {
    #[error("{0} is not on this machine; the edge listens on loopback only (127.0.0.1 or ::1)")]
    NotLoopback(SocketAddr),
    #[error("--listen needs --token-file: on TCP every caller shows a token")]
    NoToken,
    #[error("{}: the token is shorter than {TOKEN_BYTES_MIN} characters", .0.display())]
    ShortToken(PathBuf),
    #[error("{}: {source}", path.display())]
    Token { path: PathBuf, source: io::Error },
    #[error("cannot listen on {address}: {source}")]
    Listen { address: SocketAddr, source: io::Error },
}

/// What every request on TCP has to show; only its hash is kept.
#[derive(Clone, PartialEq, Eq)]
pub struct BearerToken([u8; 32]);

impl std::fmt::Debug for BearerToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BearerToken(***)")
    }
}

impl BearerToken {
    /// The first line of the file.
    ///
    /// # Errors
    /// When it cannot be read or is too short.
    pub fn read(path: &Path) -> Result<Self, TcpError> {
        let text = fs::read_to_string(path).map(Zeroizing::new);
        let text = text.map_err(|source| TcpError::Token { path: path.to_owned(), source })?;
        let token = text.lines().next().unwrap_or_default().trim();
        if token.len() < TOKEN_BYTES_MIN {
            return Err(TcpError::ShortToken(path.to_owned()));
        }
        Ok(Self::of(token))
    }

    fn of(token: &str) -> Self {
        let hash = digest(&SHA256, token.as_bytes());
        Self(hash.as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }

    /// Whether the header shows this token. Hashes are compared, so time tells nothing about the token.
    pub fn is_shown_in(&self, authorization: Option<&str>) -> bool {
        let shown = authorization.and_then(|header| {
            let (scheme, token) = header.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
        });
        shown.is_some_and(|token| Self::of(token) == *self)
    }
}

/// # Errors
/// When the address is not on this machine.
pub fn check(address: SocketAddr) -> Result<(), TcpError> {
    if address.ip().is_loopback() { Ok(()) } else { Err(TcpError::NotLoopback(address)) }
}

/// Listens on `address`, which has to be on this machine.
///
/// # Errors
/// When it is not, or is taken.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, TcpError> {
    check(address)?;
    TcpListener::bind(address).await.map_err(|source| TcpError::Listen { address, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_itself_is_taken() {
        let token = BearerToken::of("0123456789abcdef");
        assert!(token.is_shown_in(Some("Bearer 0123456789abcdef")));
        assert!(token.is_shown_in(Some("bearer 0123456789abcdef")));
        for wrong in
            [None, Some(""), Some("Bearer"), Some("Bearer 0123456789abcde"), Some("Basic 0123456789abcdef")]
        {
            assert!(!token.is_shown_in(wrong), "{wrong:?}");
        }
    }

    #[test]
    fn a_short_token_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "short\n").unwrap();
        assert!(matches!(BearerToken::read(file.path()), Err(TcpError::ShortToken(_))));
        fs::write(file.path(), "0123456789abcdef\n").unwrap();
        assert_eq!(BearerToken::read(file.path()).unwrap(), BearerToken::of("0123456789abcdef"));
    }

    #[tokio::test]
    async fn nothing_beyond_this_machine_is_listened_on() {
        assert!(matches!(bind("0.0.0.0:0".parse().unwrap()).await, Err(TcpError::NotLoopback(_))));
        assert!(bind("127.0.0.1:0".parse().unwrap()).await.is_ok());
    }
}
