//! Tables of hub.toml for clouds.

use std::path::PathBuf;
use std::time::Duration;

use crate::secrets::vault::Credential;

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

/// `[secrets.gcp_kms]`. Without a file the hub is whoever the machine that it runs on is to Google.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GcpSettings {
    /// `projects/P/locations/L/keyRings/R/cryptoKeys/K`
    pub key: String,
    /// Keys that wrapped before and still unwrap.
    pub previous_keys: Vec<String>,
    /// `https://cloudkms.googleapis.com`, or a private endpoint.
    pub endpoint: String,
    /// A certificate that is trusted besides the system's.
    pub ca_cert: Option<PathBuf>,
    /// The key file of a service account, or the configuration of a workload identity. Read anew with each token.
    pub credentials_file: Option<PathBuf>,
    /// Where the machine's own identity is told: `HOST` or `HOST:PORT`.
    pub metadata_host: String,
    /// A request that takes longer counts as failed.
    pub timeout: Duration,
}

/// `[secrets.azure_keyvault]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AzureSettings {
    /// `https://VAULT.vault.azure.net/keys/NAME`, or of a managed HSM; without a version.
    pub key: String,
    /// Keys that wrapped before and still unwrap.
    pub previous_keys: Vec<String>,
    pub identity: AzureIdentity,
    /// `https://login.microsoftonline.com`, or that of another cloud of Azure's.
    pub authority: String,
    /// A certificate that is trusted besides the system's.
    pub ca_cert: Option<PathBuf>,
    /// A request that takes longer counts as failed.
    pub timeout: Duration,
}

/// Who the hub is to Azure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AzureIdentity {
    /// An application with a secret.
    Application { tenant: String, client_id: String, secret: Credential },
    /// An application that trusts whoever signed the token in this file: Kubernetes, mostly.
    Workload { tenant: String, client_id: String, token_file: PathBuf },
    /// The managed identity of the machine; which one, where it has several.
    Machine { client_id: Option<String> },
}
