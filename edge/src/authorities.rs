//! The certificate authorities that this system trusts, for servers that are not our hub.

use std::path::{Path, PathBuf};
use std::{fs, io};

/// Where systems keep the authorities that they trust.
const SYSTEM: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// Why there are none.
#[derive(Debug, thiserror::Error)]
pub enum NoAuthorities {
    #[error("this system keeps no list of trusted authorities")]
    None,
    #[error("cannot read the authority {}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
}

/// Those in `file`, or the system's, as PEM.
///
/// # Errors
/// When there are none, or they cannot be read.
pub fn pem(file: Option<&Path>) -> Result<String, NoAuthorities> {
    let system = || SYSTEM.iter().map(Path::new).find(|path| path.exists());
    let path = file.or_else(system).ok_or(NoAuthorities::None)?;
    fs::read_to_string(path).map_err(|source| NoAuthorities::File { path: path.to_owned(), source })
}
