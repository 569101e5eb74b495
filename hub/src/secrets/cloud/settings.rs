//! Tables of hub.toml for clouds.

use std::path::PathBuf;
use std::time::Duration;

/// `[secrets.aws_kms]`. Who the hub is, it finds out as AWS's own tools do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AwsSettings {
    /// The id, ARN or alias of a symmetric key.
    pub key: String,
    /// ARNs of keys that wrapped before and still unwrap.
    pub previous_keys: Vec<String>,
    /// None: as AWS's tools find it, or that of the key's ARN.
    pub region: Option<String>,
    /// Of a private endpoint, `https://HOST`.
    pub endpoint: Option<String>,
    /// A certificate that is trusted besides the system's.
    pub ca_cert: Option<PathBuf>,
    /// A profile of AWS's files.
    pub profile: Option<String>,
    /// Read in the place of `~/.aws/credentials`.
    pub credentials_file: Option<PathBuf>,
    /// A request that takes longer counts as failed.
    pub timeout: Duration,
}
