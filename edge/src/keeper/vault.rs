//! Transit of Vault or OpenBao: keys are sent there to be wrapped, and at each start to be unwrapped. It is needed then alone.

use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::Method;
use llm_config_proto::rest::client::{Answer, Client, ClientError, encode_segment};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::KeeperError;
use crate::authorities;
use crate::keys::read_private;

const KEEPER: &str = "Vault";
const REMEDY: &str = "check VAULT_ADDR, the token (VAULT_TOKEN or LLM_CONFIG_VAULT_TOKEN_FILE), and that its policy lets it encrypt and decrypt \
     with the key";
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// Which key of which Vault; no token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VaultKey {
    addr: String,
    namespace: Option<String>,
    mount: String,
    key: String,
    token_file: Option<PathBuf>,
}

impl VaultKey {
    /// As `VAULT_ADDR`, `VAULT_NAMESPACE`, `LLM_CONFIG_VAULT_MOUNT` (`transit`), `LLM_CONFIG_VAULT_KEY` (`llm-config-edge`) and
    /// `LLM_CONFIG_VAULT_TOKEN_FILE` say.
    ///
    /// # Errors
    /// When there is no address.
    pub fn from_environment() -> Result<Self, KeeperError> {
        let addr = variable("VAULT_ADDR").ok_or_else(|| refused("VAULT_ADDR does not say where it is"))?;
        Ok(Self {
            addr,
            namespace: variable("VAULT_NAMESPACE"),
            mount: variable("LLM_CONFIG_VAULT_MOUNT").unwrap_or_else(|| "transit".to_owned()),
            key: variable("LLM_CONFIG_VAULT_KEY").unwrap_or_else(|| "llm-config-edge".to_owned()),
            token_file: variable("LLM_CONFIG_VAULT_TOKEN_FILE").map(PathBuf::from),
        })
    }

    /// The environment of now goes before what it was when keys were wrapped: servers move.
    fn client(&self) -> Result<Client, KeeperError> {
        let token = self.token()?;
        let addr = variable("VAULT_ADDR").unwrap_or_else(|| self.addr.clone());
        let addr = addr.trim_end_matches('/');
        let client = if addr.starts_with("http://") {
            Client::http(addr, Some(&token))
        } else {
            let ca = variable("VAULT_CACERT").map(PathBuf::from);
            let authorities = authorities::pem(ca.as_deref()).map_err(|error| refused(error.to_string()))?;
            Client::https(addr, &authorities, Some(&token))
        };
        Ok(client.map_err(|error| refused(error.to_string()))?.with_timeout(ANSWER_TIMEOUT))
    }

    fn token(&self) -> Result<Zeroizing<String>, KeeperError> {
        if let Some(token) = variable("VAULT_TOKEN") {
            return Ok(Zeroizing::new(token));
        }
        let file =
            variable("LLM_CONFIG_VAULT_TOKEN_FILE").map(PathBuf::from).or_else(|| self.token_file.clone());
        let file = file.ok_or_else(|| refused("there is no token"))?;
        let text = read_private(Path::new(&file)).map_err(|error| refused(error.to_string()))?;
        let text = std::str::from_utf8(&text).map_err(|_| refused("the token's file holds no token"))?;
        Ok(Zeroizing::new(text.trim().to_owned()))
    }

    fn path(&self, operation: &str) -> String {
        let segments = |path: &str| path.split('/').map(encode_segment).collect::<Vec<_>>().join("/");
        let namespace = self
            .namespace
            .iter()
            .map(|namespace| segments(namespace.trim_matches('/')) + "/")
            .collect::<String>();
        format!(
            "/v1/{namespace}{}/{operation}/{}",
            segments(self.mount.trim_matches('/')),
            encode_segment(&self.key)
        )
    }
}

pub(super) fn wrap(key: &VaultKey, name: &str, plain: &[u8]) -> Result<Vec<u8>, KeeperError> {
    let plaintext = Zeroizing::new(BASE64.encode(plain));
    let data = ask(
        key,
        "encrypt",
        json!({"plaintext": plaintext.as_str(), "associated_data": BASE64.encode(name)}),
    )?;
    let blob = data["ciphertext"].as_str().ok_or_else(|| refused("its answer holds no ciphertext"))?;
    Ok(blob.as_bytes().to_vec())
}

pub(super) fn unwrap(key: &VaultKey, name: &str, blob: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeeperError> {
    let ciphertext =
        std::str::from_utf8(blob).map_err(|_| refused("what is to be opened is none of its own"))?;
    let data =
        ask(key, "decrypt", json!({"ciphertext": ciphertext, "associated_data": BASE64.encode(name)}))?;
    let plain = data["plaintext"].as_str().and_then(|text| BASE64.decode(text).ok());
    plain.map(Zeroizing::new).ok_or_else(|| refused("its answer holds no keys"))
}

/// On a thread of its own, so that keys can be had from anywhere, inside a runtime and outside.
fn ask(key: &VaultKey, operation: &str, body: Value) -> Result<Value, KeeperError> {
    let (client, path) = (key.client()?, key.path(operation));
    let body = Bytes::from(body.to_string());
    let asked = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| refused(error.to_string()))?;
        runtime.block_on(client.request(Method::POST, &path, Some(body))).map_err(|error| no_answer(&error))
    });
    let answer = asked.join().map_err(|_| refused("asking it failed"))??;
    judge(&answer)
}

fn judge(answer: &Answer) -> Result<Value, KeeperError> {
    let status = answer.status;
    match status {
        200 => {
            let body: Value = answer.json().map_err(|_| refused("its answer is not JSON"))?;
            Ok(body["data"].clone())
        }
        403 => Err(refused("the token may not do this, or is over (403)")),
        404 => Err(refused("there is no such key or mount (404)")),
        // Sealed, starting, standing by, or too many requests: by itself it comes back.
        412 | 429 | 472 | 473 | 500..=599 => {
            Err(KeeperError::Away { keeper: KEEPER, why: format!("it answered with status {status}") })
        }
        _ => Err(refused(format!("it answered with status {status}; these keys may be another edge's"))),
    }
}

fn no_answer(error: &ClientError) -> KeeperError {
    match error {
        ClientError::Unreachable { .. } | ClientError::Lost { .. } | ClientError::TimedOut { .. } => {
            KeeperError::Away { keeper: KEEPER, why: error.to_string() }
        }
        ClientError::Untrusted { .. }
        | ClientError::Address { .. }
        | ClientError::Tls(_)
        | ClientError::Token
        | ClientError::Path(_)
        | ClientError::TooLarge { .. } => refused(error.to_string()),
    }
}

fn refused(why: impl Into<String>) -> KeeperError {
    KeeperError::Refused { keeper: KEEPER, why: why.into(), remedy: REMEDY }
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_asked_for_in_its_namespace_and_mount() {
        let key = VaultKey {
            addr: "http://127.0.0.1:1".into(),
            namespace: Some("team/a/".into()),
            mount: "edges/transit".into(),
            key: "k 1".into(),
            token_file: None,
        };
        assert_eq!(key.path("encrypt"), "/v1/team/a/edges/transit/encrypt/k%201");
        assert_eq!(VaultKey { namespace: None, ..key }.path("decrypt"), "/v1/edges/transit/decrypt/k%201");
    }

    #[test]
    fn a_sealed_server_is_waited_for_and_a_refused_token_is_not() {
        let answer = |status| Answer { status, headers: http::HeaderMap::new(), body: Bytes::new() };
        assert!(matches!(judge(&answer(503)), Err(KeeperError::Away { .. })));
        assert!(matches!(judge(&answer(403)), Err(KeeperError::Refused { .. })));
        assert!(matches!(judge(&answer(400)), Err(KeeperError::Refused { .. })));
    }
}
