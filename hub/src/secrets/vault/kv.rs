//! A KV store of version 2: which secrets there are below a path, at which version each is, and what is in it.

use serde_json::Value as Json;
use vaultrs::api::kv2::requests::{
    DeleteSecretVersionsRequest, ListSecretsRequest, ReadSecretMetadataRequest, ReadSecretRequest,
    SetSecretRequest, SetSecretRequestOptions,
};
use zeroize::Zeroizing;

use super::connection::AskError;
use super::{Vault, VaultError};

/// Most secrets below one path, and most folders in one another: more is a mistake in the path.
const SECRETS_MAX: usize = 1_000;
const DEPTH_MAX: usize = 16;

/// Why the store gave nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KvError {
    #[error(transparent)]
    Vault(#[from] VaultError),
    #[error("Vault denies the hub {0}; check the policy of its token")]
    Denied(String),
    #[error(
        "there are more than {SECRETS_MAX} secrets, or more than {DEPTH_MAX} folders in one another, at {0}"
    )]
    TooMany(String),
    #[error("{0} is no secret of a KV store of version 2")]
    NoKv2(String),
    #[error("the value for {0} is no text, which is all that a KV store takes")]
    NoText(String),
}

/// Where a secret has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvVersion {
    pub number: u64,
    /// False once this version was deleted or destroyed.
    pub live: bool,
}

impl Vault {
    /// The secrets below a path, by their path from there; empty where there is nothing.
    ///
    /// # Errors
    /// When Vault cannot be asked, says no, or has too many.
    pub async fn kv_list(&self, mount: &str, path: &str) -> Result<Vec<String>, KvError> {
        let (mut found, mut folders) = (Vec::new(), vec![String::new()]);
        while let Some(folder) = folders.pop() {
            let at = format!("{path}/{folder}");
            let request =
                ListSecretsRequest { mount: mount.to_owned(), path: at.trim_end_matches('/').to_owned() };
            let Some(listed) = self.kv_ask("kv_list", &request, mount, path).await? else {
                continue;
            };
            for name in listed["data"]["keys"].as_array().into_iter().flatten().filter_map(Json::as_str) {
                let name = format!("{folder}{name}");
                if name.ends_with('/') { folders.push(name) } else { found.push(name) }
            }
            let deep = folders.iter().any(|folder| folder.matches('/').count() > DEPTH_MAX);
            if deep || found.len() + folders.len() > SECRETS_MAX {
                return Err(KvError::TooMany(format!("{mount}/{path}")));
            }
        }
        found.sort();
        Ok(found)
    }

    /// The current version of a secret; none where it is gone with all of its versions.
    ///
    /// # Errors
    /// When Vault cannot be asked, or says no.
    pub async fn kv_version(&self, mount: &str, path: &str) -> Result<Option<KvVersion>, KvError> {
        let request = ReadSecretMetadataRequest { mount: mount.to_owned(), path: path.to_owned() };
        let Some(told) = self.kv_ask("kv_metadata", &request, mount, path).await? else {
            return Ok(None);
        };
        let number = told["data"]["current_version"].as_u64();
        let number = number.ok_or_else(|| KvError::NoKv2(format!("{mount}/{path}")))?;
        let version = &told["data"]["versions"][number.to_string()];
        let deleted = version["deletion_time"].as_str().is_none_or(|at| !at.is_empty());
        let live = !deleted && version["destroyed"].as_bool() == Some(false);
        Ok(Some(KvVersion { number, live }))
    }

    /// What a version holds, as an entry's value: a text where its only field is called `value`, else the JSON object of
    /// its fields. None where it was deleted meanwhile.
    ///
    /// # Errors
    /// When Vault cannot be asked, or says no.
    pub async fn kv_read(
        &self,
        mount: &str,
        path: &str,
        version: u64,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, KvError> {
        let request =
            ReadSecretRequest { mount: mount.to_owned(), path: path.to_owned(), version: Some(version) };
        let Some(mut told) = self.kv_ask("kv_read", &request, mount, path).await? else {
            return Ok(None);
        };
        let Json::Object(mut fields) = told["data"]["data"].take() else {
            return Err(KvError::NoKv2(format!("{mount}/{path}")));
        };
        let lone = (fields.len() == 1).then(|| fields.get_mut("value").map(Json::take)).flatten();
        Ok(Some(Zeroizing::new(match lone {
            Some(Json::String(value)) => value.into_bytes(),
            Some(other) => {
                fields.insert("value".to_owned(), other);
                Json::Object(fields).to_string().into_bytes()
            }
            None => Json::Object(fields).to_string().into_bytes(),
        })))
    }

    /// Writes a version after `last`, 0 for none: its number, or none when there is another by now. An entry's value
    /// becomes fields as [`Vault::kv_read`] makes it of them.
    ///
    /// # Errors
    /// When Vault cannot be asked, or says no.
    pub async fn kv_write(
        &self,
        mount: &str,
        path: &str,
        value: &[u8],
        last: u64,
    ) -> Result<Option<u64>, KvError> {
        let place = || format!("{mount}/{path}");
        let text = std::str::from_utf8(value).map_err(|_| KvError::NoText(place()))?;
        let fields = match serde_json::from_str(text) {
            Ok(Json::Object(fields)) => Json::Object(fields),
            Ok(_) | Err(_) => serde_json::json!({ "value": text }),
        };
        let cas = u32::try_from(last).map_err(|_| KvError::NoKv2(place()))?;
        let options = Some(SetSecretRequestOptions { cas });
        let request =
            SetSecretRequest { mount: mount.to_owned(), path: path.to_owned(), data: fields, options };
        match self.connection.ask_beside("kv_write", &request).await {
            Ok(told) => {
                let number = told["data"]["version"].as_u64();
                number.map(Some).ok_or_else(|| KvError::NoKv2(place()))
            }
            // Only a mismatch of what was seen is answered so: the path and the fields are those of a secret that is read.
            Err(AskError::Refused { status: 400, said }) if said.contains("check-and-set") => Ok(None),
            Err(AskError::Refused { status: 403, .. }) => Err(KvError::Denied(place())),
            Err(AskError::Refused { .. }) => Err(KvError::NoKv2(place())),
            Err(AskError::Away(error)) => Err(error.into()),
        }
    }

    /// Deletes a version as Vault does: it can be undeleted there. A later one stays.
    ///
    /// # Errors
    /// When Vault cannot be asked, or says no.
    pub async fn kv_delete(&self, mount: &str, path: &str, version: u64) -> Result<(), KvError> {
        let versions = vec![version];
        let request =
            DeleteSecretVersionsRequest { mount: mount.to_owned(), path: path.to_owned(), versions };
        self.kv_ask("kv_delete", &request, mount, path).await.map(drop)
    }

    /// None for what is not there. A path that is denied says nothing about the transit key.
    async fn kv_ask<E: rustify::Endpoint>(
        &self,
        operation: &'static str,
        request: &E,
        mount: &str,
        path: &str,
    ) -> Result<Option<Json>, KvError> {
        match self.connection.ask_beside(operation, request).await {
            Ok(told) => Ok(Some(told)),
            Err(AskError::Refused { status: 404, .. }) => Ok(None),
            Err(AskError::Refused { status: 403, .. }) => Err(KvError::Denied(format!("{mount}/{path}"))),
            Err(AskError::Refused { .. }) => Err(KvError::NoKv2(format!("{mount}/{path}"))),
            Err(AskError::Away(error)) => Err(error.into()),
        }
    }
}
