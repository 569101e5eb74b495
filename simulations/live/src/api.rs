//! What the story and the benchmarks ask of a hub or an edge: the REST API, as any program would use it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use llm_config_proto::rest::client::{Answer, Client, encode_segment};
use llm_config_shared::value::Value;
use serde_json::Value as Json;
use serde_json::value::RawValue;

use crate::process::LOOK_AGAIN;

/// How long something that has to come is waited for.
pub const WAIT_MAX: Duration = Duration::from_secs(60);

/// The target of a request for an entry, or for a part of it such as its history.
pub fn entry(namespace: &str, key: &str, part: &str) -> String {
    format!("/api/v1/configs/{}/{}{part}", encode_segment(namespace), encode_segment(key))
}

/// The target of a request for a folder.
pub fn folder(namespace: &str) -> String {
    format!("/api/v1/configs/{}", encode_segment(namespace))
}

/// An answer, whatever its status.
#[derive(Clone, Debug)]
pub struct Reply(Answer);

impl Reply {
    /// The HTTP status.
    pub fn status(&self) -> u16 {
        self.0.status
    }

    /// Itself, unless it says no.
    ///
    /// # Errors
    /// With the reason that was given.
    pub fn welcome(self, method: &str, target: &str) -> anyhow::Result<Self> {
        if self.0.is_success() {
            return Ok(self);
        }
        bail!("{method} {target} gave {}: {}", self.status(), self.0.refusal().message)
    }

    /// The body as JSON; null when it is none.
    pub fn json(&self) -> Json {
        self.0.json().unwrap_or(Json::Null)
    }

    /// A header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.0.header(name)
    }

    /// How far the hub's order had come for this answer.
    ///
    /// # Errors
    /// When the answer does not say.
    pub fn position(&self) -> anyhow::Result<String> {
        Ok(self.header("x-config-position").context("the answer names no position")?.to_owned())
    }
}

/// The value of an entry, exactly as it was sent; none when the answer holds no entry.
pub fn value_of(reply: &Reply) -> Option<Value> {
    #[derive(serde::Deserialize)]
    struct Entry {
        value: Box<RawValue>,
    }
    let entry: Entry = reply.0.json().ok()?;
    Value::parse(entry.value.get()).ok()
}

/// A way to a hub or an edge.
pub struct Api(Client);

impl Api {
    /// A hub's REST API on this machine.
    ///
    /// # Errors
    /// When the address or the token cannot be used.
    pub fn hub(url: &str, token: Option<&str>) -> anyhow::Result<Self> {
        Ok(Self(Client::http(url, token)?))
    }

    /// An edge's socket.
    pub fn edge(socket: &std::path::Path) -> Self {
        Self(Client::unix(socket))
    }

    /// Whether it answers and says that requests are welcome.
    pub async fn is_ready(&self) -> bool {
        self.call("GET", "/health/ready", None).await.is_ok_and(|reply| reply.status() == 200)
    }

    /// Sends a request; any answer will do.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn call(&self, method: &str, target: &str, body: Option<&Json>) -> anyhow::Result<Reply> {
        self.send(method, target, body.map(Json::to_string)).await
    }

    /// As [`Api::call`], with a body whose text must not change on a detour over a tree: numbers would.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn send(&self, method: &str, target: &str, body: Option<String>) -> anyhow::Result<Reply> {
        Ok(Reply(self.0.request(method.parse()?, target, body.map(bytes::Bytes::from)).await?))
    }

    /// Sends a request that has to work.
    ///
    /// # Errors
    /// When there is no answer, or one that says no.
    pub async fn expect(&self, method: &str, target: &str, body: Option<&Json>) -> anyhow::Result<Reply> {
        self.call(method, target, body).await?.welcome(method, target)
    }

    /// An entry's value, or its mask, or null when there is none.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn value(&self, namespace: &str, key: &str, environment: &str) -> anyhow::Result<Json> {
        let reply = self.call("GET", &entry(namespace, key, &format!("?env={environment}")), None).await?;
        Ok(reply.json()["value"].clone())
    }

    /// A secret in clear.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn revealed(&self, namespace: &str, key: &str, environment: &str) -> anyhow::Result<Json> {
        let target = entry(namespace, key, &format!("?env={environment}&reveal=true"));
        Ok(self.call("GET", &target, None).await?.json()["value"].clone())
    }

    /// Every entry of a folder, by key.
    ///
    /// # Errors
    /// When there is no answer, or one that says no or makes no sense.
    pub async fn all(&self, namespace: &str, environment: &str) -> anyhow::Result<BTreeMap<String, Value>> {
        #[derive(serde::Deserialize)]
        struct Entry {
            key: String,
            value: Box<RawValue>,
        }
        let mut all = BTreeMap::new();
        let mut cursor = String::new();
        loop {
            let target = format!("{}?env={environment}&limit=1000{cursor}", folder(namespace));
            let reply = self.expect("GET", &target, None).await?;
            for entry in reply.0.json::<Vec<Entry>>()? {
                all.insert(entry.key, Value::parse(entry.value.get())?);
            }
            match reply.header("x-next-cursor") {
                Some(next) => cursor = format!("&cursor={}", encode_segment(next)),
                None => return Ok(all),
            }
        }
    }

    /// How far the order of changes has come here.
    ///
    /// # Errors
    /// When the answer does not say.
    pub async fn position(&self, namespace: &str) -> anyhow::Result<String> {
        self.expect("GET", &format!("{}?limit=1", folder(namespace)), None).await?.position()
    }

    /// Waits until a read of that folder here sees everything up to `position`.
    ///
    /// # Errors
    /// When that takes too long.
    pub async fn reaches(&self, namespace: &str, position: &str) -> anyhow::Result<()> {
        let target = format!("{}?limit=1&at_least={}", folder(namespace), encode_segment(position));
        let begun = Instant::now();
        loop {
            let reply = self.call("GET", &target, None).await;
            match reply {
                Ok(reply) if reply.status() == 200 => return Ok(()),
                _ if begun.elapsed() > WAIT_MAX => {
                    bail!("what was written has not arrived after {WAIT_MAX:?}: {reply:?}")
                }
                _ => tokio::time::sleep(LOOK_AGAIN).await,
            }
        }
    }

    /// Waits until that folder holds exactly these entries, without asking for more than is here.
    ///
    /// # Errors
    /// When that takes too long.
    pub async fn shows(
        &self,
        namespace: &str,
        environment: &str,
        expected: &BTreeMap<String, Value>,
    ) -> anyhow::Result<()> {
        let begun = Instant::now();
        while self.all(namespace, environment).await? != *expected {
            if begun.elapsed() > WAIT_MAX {
                bail!("what was written has not arrived after {WAIT_MAX:?}");
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_one_segment() {
        assert_eq!(entry("a/b", "x:1*", "/history"), "/api/v1/configs/a%2Fb/x%3A1%2A/history");
        assert_eq!(folder("a/b"), "/api/v1/configs/a%2Fb");
    }
}
