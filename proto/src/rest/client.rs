//! A REST client for the CLI, the quickstart and tests: one hub or edge, over a socket, loopback or TLS.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use super::sse::EventReader;
use crate::tls::{Alpn, TlsError, Trust, client_config};

/// Connecting and the handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A whole answer, events excepted.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Largest answer that is read: the longest list of large values fits.
const ANSWER_BYTES_MAX: usize = 256 << 20;
/// Idle connections kept for the next request.
const IDLE_MAX: usize = 8;

pub(super) type Sender = SendRequest<Full<Bytes>>;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nothing was sent.
    #[error("{target} cannot be reached: {source}")]
    Unreachable { target: String, source: std::io::Error },
    /// Something was sent; whether it was done is not known.
    #[error("the connection to {target} was lost: {why}")]
    Lost { target: String, why: String },
    #[error("{target} did not answer in time")]
    TimedOut { target: String },
    #[error("the certificate of {target} is not trusted: {why}")]
    Untrusted { target: String, why: String },
    #[error("{address}: {why}")]
    Address { address: String, why: &'static str },
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("the token holds characters that no token has")]
    Token,
    #[error("{0} is no path of a request")]
    Path(String),
    #[error("the answer of {target} is larger than {ANSWER_BYTES_MAX} bytes")]
    TooLarge { target: String },
}

enum Way {
    Unix(PathBuf),
    Tcp(String),
    Tls { address: String, name: ServerName<'static>, connector: TlsConnector },
}

/// Speaks to one hub or edge. Connections are kept and used again.
pub struct Client {
    way: Way,
    host: HeaderValue,
    authorization: Option<HeaderValue>,
    idle: Arc<Mutex<Vec<Sender>>>,
    answer_timeout: Duration,
}

/// An answer, whatever its status.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// The body of a refusal.
#[derive(Clone, Debug, Deserialize)]
pub struct Refusal {
    pub error: String,
    pub message: String,
    #[serde(default)]
    pub details: serde_json::Value,
}

impl Answer {
    /// Whether the status is 2xx.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The body read as JSON.
    ///
    /// # Errors
    /// When it is not of that form.
    pub fn json<'a, T: Deserialize<'a>>(&'a self) -> serde_json::Result<T> {
        serde_json::from_slice(&self.body)
    }

    /// A header's text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Why it was refused; a body of another form is summed up by its status.
    pub fn refusal(&self) -> Refusal {
        self.json().unwrap_or_else(|_| Refusal {
            error: self.status.to_string(),
            message: format!("the answer has status {} and no explanation", self.status),
            details: serde_json::Value::Null,
        })
    }
}

/// A segment of a path, percent-encoded (RFC 3986): `app/llm` becomes `app%2Fllm`.
pub fn encode_segment(text: &str) -> String {
    // A segment of dots would be taken for a place in the path.
    let dots = matches!(text, "." | "..");
    let mut encoded = String::with_capacity(text.len() + 8);
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'~' => encoded.push(char::from(byte)),
            b'.' if !dots => encoded.push('.'),
            other => encoded.push_str(&format!("%{other:02X}")),
        }
    }
    encoded
}

/// `?a=1&b=2`, encoded; empty for no pairs.
pub fn encode_query(pairs: &[(&str, &str)]) -> String {
    let pairs =
        pairs.iter().map(|(name, value)| format!("{}={}", encode_segment(name), encode_segment(value)));
    let joined = pairs.collect::<Vec<_>>().join("&");
    if joined.is_empty() { joined } else { format!("?{joined}") }
}

impl Client {
    /// Over the Unix socket of an edge: the kernel says who is asking.
    pub fn unix(path: impl Into<PathBuf>) -> Self {
        Self::new(Way::Unix(path.into()), HeaderValue::from_static("localhost"), None)
    }

    /// `http://127.0.0.1:8080`: without TLS a token goes to this machine only.
    ///
    /// # Errors
    /// When the base is no such address, or names another machine.
    pub fn http(base: &str, token: Option<&str>) -> Result<Self, ClientError> {
        let (host, address) = parse_base(base, "http://", 80)?;
        let loopback = host == "localhost"
            || host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
        if !loopback {
            let why = "without TLS only this machine is spoken to; use https://";
            return Err(ClientError::Address { address: base.to_owned(), why });
        }
        let header = host_header(base, &address)?;
        Ok(Self::new(Way::Tcp(address), header, authorization(token)?))
    }

    /// `https://HOST:PORT`, trusting the CA in `ca_pem` and no other.
    ///
    /// # Errors
    /// When the base is no such address, or the CA's certificate cannot be read.
    pub fn https(base: &str, ca_pem: &str, token: Option<&str>) -> Result<Self, ClientError> {
        let (host, address) = parse_base(base, "https://", 443)?;
        let invalid = |_| ClientError::Address {
            address: base.to_owned(),
            why: "the host is not a name or an address",
        };
        let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned()).map_err(invalid)?;
        let config = client_config(&Trust::Ca { pem: ca_pem.to_owned() }, None, Alpn::Http1)?;
        let header = host_header(base, &address)?;
        let way = Way::Tls { address, name, connector: TlsConnector::from(config) };
        Ok(Self::new(way, header, authorization(token)?))
    }

    fn new(way: Way, host: HeaderValue, authorization: Option<HeaderValue>) -> Self {
        Self { way, host, authorization, idle: Arc::default(), answer_timeout: ANSWER_TIMEOUT }
    }

    /// With another limit of time for a whole answer.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.answer_timeout = timeout;
        self
    }

    /// Where it speaks to, for messages.
    pub fn target(&self) -> String {
        match &self.way {
            Way::Unix(path) => path.display().to_string(),
            Way::Tcp(address) => format!("http://{address}"),
            Way::Tls { address, .. } => format!("https://{address}"),
        }
    }

    /// One request. `path` begins with a slash and may have a query; a body is JSON.
    ///
    /// # Errors
    /// When there was no answer; a refusal is an answer.
    pub async fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
    ) -> Result<Answer, ClientError> {
        let exchange = async {
            let (response, sender) = self.send(&method, path, body, None).await?;
            let (parts, body) = response.into_parts();
            let body = self.read(body).await?;
            self.keep(sender);
            Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body })
        };
        match tokio::time::timeout(self.answer_timeout, exchange).await {
            Ok(answered) => answered,
            Err(_) => Err(ClientError::TimedOut { target: self.target() }),
        }
    }

    /// Follows changes; `after` continues behind a position. An answer other than 200 comes back as it is.
    ///
    /// # Errors
    /// When there was no answer.
    pub async fn events(
        &self,
        path: &str,
        after: Option<&str>,
    ) -> Result<Result<EventReader, Answer>, ClientError> {
        let (response, sender) = self.send(&Method::GET, path, None, after).await?;
        let (parts, body) = response.into_parts();
        if parts.status == http::StatusCode::OK {
            return Ok(Ok(EventReader::new(body, sender, self.target())));
        }
        let body = self.read(body).await?;
        Ok(Err(Answer { status: parts.status.as_u16(), headers: parts.headers, body }))
    }

    fn build(
        &self,
        method: &Method,
        path: &str,
        body: Option<&Bytes>,
        after: Option<&str>,
    ) -> Result<Request<Full<Bytes>>, ClientError> {
        let mut request = Request::builder().method(method).uri(path).header(HOST, &self.host);
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let Some(after) = after {
            request = request.header("last-event-id", after).header(ACCEPT, "text/event-stream");
        }
        let body = Full::new(body.cloned().unwrap_or_default());
        request.body(body).map_err(|_| ClientError::Path(path.to_owned()))
    }

    /// On a kept connection if there is one. The other side may have closed it meanwhile: then what was not sent, or
    /// may be sent twice, goes out once more on a fresh one.
    async fn send(
        &self,
        method: &Method,
        path: &str,
        body: Option<Bytes>,
        after: Option<&str>,
    ) -> Result<(Response<Incoming>, Sender), ClientError> {
        let request = self.build(method, path, body.as_ref(), after)?;
        if let Some(mut sender) = self.idle() {
            match sender.send_request(request).await {
                Ok(response) => return Ok((response, sender)),
                Err(error) if error.is_canceled() || *method == Method::GET => {}
                Err(error) => return Err(self.lost(&error)),
            }
        }
        let mut sender = self.connect().await?;
        let request = self.build(method, path, body.as_ref(), after)?;
        let response = sender.send_request(request).await.map_err(|error| self.lost(&error))?;
        Ok((response, sender))
    }

    fn lost(&self, error: &hyper::Error) -> ClientError {
        let source = std::error::Error::source(error);
        let why = source.map_or_else(|| error.to_string(), ToString::to_string);
        ClientError::Lost { target: self.target(), why }
    }

    async fn read(&self, body: Incoming) -> Result<Bytes, ClientError> {
        let collected = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        collected.map(http_body_util::Collected::to_bytes).map_err(|error| {
            if error.is::<LengthLimitError>() {
                return ClientError::TooLarge { target: self.target() };
            }
            ClientError::Lost { target: self.target(), why: error.to_string() }
        })
    }

    fn idle(&self) -> Option<Sender> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(sender) = idle.pop() {
            if sender.is_ready() {
                return Some(sender);
            }
        }
        None
    }

    fn keep(&self, sender: Sender) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX && !sender.is_closed() {
            idle.push(sender);
        }
    }

    async fn connect(&self) -> Result<Sender, ClientError> {
        let stream = match tokio::time::timeout(CONNECT_TIMEOUT, self.open()).await {
            Ok(opened) => opened?,
            Err(_) => return Err(self.unreachable(std::io::ErrorKind::TimedOut.into())),
        };
        let (sender, connection) =
            handshake(TokioIo::new(stream)).await.map_err(|error| self.lost(&error))?;
        // Ends with its sender; what goes wrong on it comes back with the request.
        tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(sender)
    }

    fn unreachable(&self, source: std::io::Error) -> ClientError {
        ClientError::Unreachable { target: self.target(), source }
    }

    async fn open(&self) -> Result<Pin<Box<dyn Duplex>>, ClientError> {
        Ok(match &self.way {
            Way::Unix(path) => {
                Box::pin(UnixStream::connect(path).await.map_err(|error| self.unreachable(error))?)
            }
            Way::Tcp(address) => Box::pin(self.tcp(address).await?),
            Way::Tls { address, name, connector } => {
                let tcp = self.tcp(address).await?;
                let connected = connector.connect(name.clone(), tcp).await;
                Box::pin(connected.map_err(|error| ClientError::Untrusted {
                    target: self.target(),
                    why: error.to_string(),
                })?)
            }
        })
    }

    async fn tcp(&self, address: &str) -> Result<TcpStream, ClientError> {
        let stream = TcpStream::connect(address).await.map_err(|error| self.unreachable(error))?;
        stream.set_nodelay(true).map_err(|error| self.unreachable(error))?;
        Ok(stream)
    }
}

/// A stream of bytes in both directions.
trait Duplex: AsyncRead + AsyncWrite + Send {}

impl<T: AsyncRead + AsyncWrite + Send> Duplex for T {}

/// Host, and `HOST:PORT`.
fn parse_base(base: &str, scheme: &str, port: u16) -> Result<(String, String), ClientError> {
    let invalid = |why| ClientError::Address { address: base.to_owned(), why };
    let rest = base.strip_prefix(scheme).ok_or_else(|| invalid("the address has another scheme"))?;
    let rest = rest.trim_end_matches('/');
    let authority: http::uri::Authority =
        rest.parse().map_err(|_| invalid("write it as SCHEME://HOST:PORT"))?;
    if authority.as_str().contains('@') {
        return Err(invalid("the address must not hold a user or a password"));
    }
    let host = authority.host().to_owned();
    let address = format!("{host}:{}", authority.port_u16().unwrap_or(port));
    Ok((host, address))
}

fn host_header(base: &str, address: &str) -> Result<HeaderValue, ClientError> {
    let invalid =
        |_| ClientError::Address { address: base.to_owned(), why: "the host is not a name or an address" };
    HeaderValue::from_str(address).map_err(invalid)
}

fn authorization(token: Option<&str>) -> Result<Option<HeaderValue>, ClientError> {
    let Some(token) = token else { return Ok(None) };
    let text = Zeroizing::new(format!("Bearer {}", token.trim()));
    let mut value = HeaderValue::from_str(&text).map_err(|_| ClientError::Token)?;
    value.set_sensitive(true);
    Ok(Some(value))
}

#[cfg(test)]
mod tests;
