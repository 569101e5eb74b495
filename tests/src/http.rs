//! A plain HTTP client over TCP or a Unix socket: it knows nothing of the product, so it sees what any client sees.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::wait::eventually;

/// No answer takes longer, except those that are asked to wait.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Clone, Debug)]
enum Target {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// Sends requests to one place with one token. A connection each: a restart in between is not its concern.
#[derive(Clone, Debug)]
pub struct Client {
    target: Target,
    token: Option<String>,
}

/// Key, and value with version.
pub type Rows = BTreeMap<String, (Value, u64)>;

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Client {
    /// A client of a TCP address, without a token.
    pub fn tcp(address: SocketAddr) -> Self {
        Self { target: Target::Tcp(address), token: None }
    }

    /// A client of a Unix socket.
    pub fn unix(socket: impl Into<PathBuf>) -> Self {
        Self { target: Target::Unix(socket.into()), token: None }
    }

    /// The same with a bearer token.
    #[must_use]
    pub fn with_token(mut self, token: &str) -> Self {
        self.token = Some(token.trim().to_owned());
        self
    }

    /// `GET`.
    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, None).await
    }

    /// `GET` again and again until the answer is as it should be.
    ///
    /// # Panics
    /// After a minute, with the last answer.
    #[track_caller]
    pub fn until(&self, path: &str, wanted: impl Fn(&Answer) -> bool) -> impl Future<Output = Answer> {
        let ask = async move || {
            let answer = self.try_send("GET", path, None).await.map_err(|e| e.to_string())?;
            if wanted(&answer) { Ok(answer) } else { Err(format!("{}: {}", answer.status, answer.text())) }
        };
        eventually(path, ask)
    }

    /// Reads an entry until it has this value.
    ///
    /// # Panics
    /// After a minute, with the last answer.
    #[track_caller]
    pub fn until_value(&self, path: &str, value: impl Into<Value>) -> impl Future<Output = Answer> {
        let value = value.into();
        self.until(path, move |answer| answer.status == 200 && answer.json()["value"] == value)
    }

    /// Every entry of a namespace in one environment, page by page.
    ///
    /// # Panics
    /// When a page is refused.
    pub async fn everything(&self, namespace: &str, env: &str) -> Rows {
        let mut found = Rows::new();
        let mut cursor = String::new();
        loop {
            let page = self.get(&format!("{}?env={env}&limit=100{cursor}", list(namespace))).await;
            for entry in page.expect(200).as_array().expect("a list") {
                let row = (entry["value"].clone(), entry["version"].as_u64().expect("a version"));
                let before = found.insert(entry["key"].as_str().expect("a key").to_owned(), row);
                assert_eq!(before, None, "no entry is on two pages");
            }
            match page.header("x-next-cursor") {
                Some(next) => cursor = format!("&cursor={}", segment(next)),
                None => return found,
            }
        }
    }

    /// `POST` of JSON.
    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.send("POST", path, Some(body)).await
    }

    /// `PUT` of JSON.
    pub async fn put(&self, path: &str, body: Value) -> Answer {
        self.send("PUT", path, Some(body)).await
    }

    /// `DELETE`.
    pub async fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, None).await
    }

    /// Any request that must be answered.
    ///
    /// # Panics
    /// When no answer comes.
    pub async fn send(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        self.try_send(method, path, body)
            .await
            .unwrap_or_else(|e| panic!("{method} {path} at {:?}: {e}", self.target))
    }

    /// Any request.
    ///
    /// # Errors
    /// When no answer comes: nothing listens, or it went away.
    pub async fn try_send(&self, method: &str, path: &str, body: Option<Value>) -> io::Result<Answer> {
        let body = body.map(|value| Bytes::from(value.to_string()));
        self.try_send_bytes(method, path, body).await
    }

    /// A request with a body that need not be JSON.
    ///
    /// # Errors
    /// When no answer comes: nothing listens, or it went away.
    pub async fn try_send_bytes(&self, method: &str, path: &str, body: Option<Bytes>) -> io::Result<Answer> {
        let mut request = Request::builder().method(method).uri(path).header("host", "localhost");
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let request = request.body(Full::new(body.unwrap_or_default())).map_err(io::Error::other)?;
        let answer = async {
            match &self.target {
                Target::Tcp(address) => exchange(TcpStream::connect(address).await?, request).await,
                Target::Unix(path) => exchange(UnixStream::connect(path).await?, request).await,
            }
        };
        tokio::time::timeout(PATIENCE, answer).await.map_err(|_| io::ErrorKind::TimedOut)?
    }
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> io::Result<Answer>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.map_err(io::Error::other)?;
    let driver = tokio::spawn(connection);
    let answer = sender.send_request(request).await.map_err(io::Error::other)?;
    let (parts, body) = answer.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    driver.abort();
    Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body })
}

impl Answer {
    /// The body as JSON; null when there is none.
    ///
    /// # Panics
    /// When it is something else.
    #[track_caller]
    pub fn json(&self) -> Value {
        if self.body.is_empty() {
            return Value::Null;
        }
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body, when the status is the one expected.
    ///
    /// # Panics
    /// When it is not, with the body.
    #[track_caller]
    pub fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        self.json()
    }

    /// The message of an error with this status and its reason phrase.
    ///
    /// # Panics
    /// When the answer is anything else.
    #[track_caller]
    pub fn refusal(&self, status: u16) -> String {
        let body = self.expect(status);
        let reason = http::StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason());
        assert_eq!(body["error"].as_str(), reason, "{body}");
        body["message"].as_str().unwrap_or_else(|| panic!("an error without a message: {body}")).to_owned()
    }
}

/// Text as one segment of a path, percent-encoded.
pub fn segment(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// The path of an entry: `app/llm` and `model` make `/api/v1/configs/app%2Fllm/model`.
pub fn entry(namespace: &str, key: &str) -> String {
    format!("/api/v1/configs/{}/{}", segment(namespace), segment(key))
}

/// The path of a list of entries.
pub fn list(namespace: &str) -> String {
    format!("/api/v1/configs/{}", segment(namespace))
}
