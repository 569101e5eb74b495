//! The SDK's clients of the vaults that the settings name, and who the hub is to them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use azure_core::cloud::CustomConfiguration;
use azure_core::credentials::{Secret, TokenCredential};
use azure_core::http::{ClientOptions, RetryOptions, Transport, Url};
use azure_identity::{
    ClientAssertionCredentialOptions, ClientSecretCredential, ClientSecretCredentialOptions,
    ManagedIdentityCredential, ManagedIdentityCredentialOptions, UserAssignedId, WorkloadIdentityCredential,
    WorkloadIdentityCredentialOptions,
};
use azure_security_keyvault_keys::{KeyClient, KeyClientOptions};
use reqwest::Client;
use tokio::time::timeout;

use super::super::error::CloudReason;
use super::super::service::{Failed, away};
use super::super::settings::{AzureIdentity, AzureSettings};
use super::Place;
use crate::config::is_this_machine;
use crate::secrets::vault::Credential;

/// Clients by vault.
pub(super) type Clients = BTreeMap<String, Arc<KeyClient>>;

/// What clients are made of. They are made anew after credentials were refused: tokens live in them.
pub(super) struct Connection {
    http: Client,
    identity: AzureIdentity,
    authority: String,
    vaults: Vec<String>,
    /// For the machine's own identity: where there is none, nobody answers.
    patience: Duration,
}

impl Connection {
    pub(super) fn new(http: Client, settings: &AzureSettings, places: &[&Place]) -> Self {
        let mut vaults: Vec<String> = places.iter().map(|place| place.vault.clone()).collect();
        vaults.dedup();
        Self {
            http,
            identity: settings.identity.clone(),
            authority: settings.authority.clone(),
            vaults,
            patience: settings.timeout.mul_f64(0.7),
        }
    }

    pub(super) async fn clients(&self) -> Result<Clients, Failed> {
        let credential = self.credential()?;
        if let AzureIdentity::Machine { .. } = self.identity {
            self.see_that_it_is_somebody(&*credential).await?;
        }
        self.vaults
            .iter()
            .map(|vault| Ok((vault.clone(), Arc::new(self.client(vault, &credential)?))))
            .collect()
    }

    /// One attempt each, with our own TLS: the gate decides when there is another.
    fn options(&self) -> ClientOptions {
        let mut cloud = CustomConfiguration::default();
        cloud.authority_host.clone_from(&self.authority);
        ClientOptions {
            retry: RetryOptions::none(),
            transport: Some(Transport::new(Arc::new(self.http.clone()))),
            cloud: Some(Arc::new(cloud.into())),
            ..ClientOptions::default()
        }
    }

    fn credential(&self) -> Result<Arc<dyn TokenCredential>, Failed> {
        let client_options = self.options();
        let made: azure_core::Result<Arc<dyn TokenCredential>> = match self.identity.clone() {
            AzureIdentity::Application { tenant, client_id, secret } => {
                let options = ClientSecretCredentialOptions { client_options };
                ClientSecretCredential::new(&tenant, client_id, read(&secret)?, Some(options))
                    .map(|credential| credential as _)
            }
            AzureIdentity::Workload { tenant, client_id, token_file } => {
                readable(&token_file)?;
                let options = WorkloadIdentityCredentialOptions {
                    credential_options: ClientAssertionCredentialOptions { client_options },
                    client_id: Some(client_id),
                    tenant_id: Some(tenant),
                    token_file_path: Some(token_file),
                };
                WorkloadIdentityCredential::new(Some(options)).map(|credential| credential as _)
            }
            AzureIdentity::Machine { client_id } => {
                let user_assigned_id = client_id.map(UserAssignedId::ClientId);
                let options = ManagedIdentityCredentialOptions { user_assigned_id, client_options };
                ManagedIdentityCredential::new(Some(options)).map(|credential| credential as _)
            }
        };
        made.map_err(|_| of_no_use("tenant or client_id is not of Azure's form".to_owned()))
    }

    fn client(&self, vault: &str, credential: &Arc<dyn TokenCredential>) -> Result<KeyClient, Failed> {
        let host = Url::parse(vault).ok().and_then(|url| url.host_str().map(str::to_owned));
        let options = KeyClientOptions {
            client_options: self.options(),
            // A vault says what tokens are for, and the SDK sees that it says its own domain. What has an address of this
            // machine has no domain, and a token for it does not get far.
            verify_challenge_resource: Some(!host.as_deref().is_some_and(is_this_machine)),
            ..KeyClientOptions::default()
        };
        KeyClient::new(vault, Arc::clone(credential), Some(options))
            .map_err(|_| of_no_use("the key's address is not of Azure's form".to_owned()))
    }

    /// The SDK asks for the machine's identity for more than a minute, where there is nobody to answer.
    async fn see_that_it_is_somebody(&self, credential: &dyn TokenCredential) -> Result<(), Failed> {
        let domain = self.vaults.first().and_then(|vault| vault.split_once('.')).map(|(_, domain)| domain);
        let scope = format!("https://{}/.default", domain.unwrap_or("vault.azure.net"));
        match timeout(self.patience, credential.get_token(&[&scope], None)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(away(CloudReason::NoCredentials)),
        }
    }
}

fn read(secret: &Credential) -> Result<Secret, Failed> {
    match secret {
        Credential::Text(text) => Ok(Secret::new(text.expose().to_owned())),
        Credential::File(path) => {
            let text = std::fs::read_to_string(path);
            let text = text.map_err(|error| of_no_use(format!("{}: {error}", path.display())))?;
            Ok(Secret::new(text.trim().to_owned()))
        }
    }
}

fn readable(path: &PathBuf) -> Result<(), Failed> {
    std::fs::File::open(path).map(drop).map_err(|error| of_no_use(format!("{}: {error}", path.display())))
}

fn of_no_use(what: String) -> Failed {
    away(CloudReason::Credentials(what))
}
