//! One way to talk to an edge and to a hub: the REST API, with failures in words that say what to do.

use bytes::Bytes;
use http::{Method, StatusCode};
use llm_config_edge::authorities::{self, NoAuthorities};
use llm_config_proto::rest::EventReader;
use llm_config_proto::rest::client::{Answer as RawAnswer, Client, ClientError};
use serde::de::DeserializeOwned;

use super::address::Address;
use super::exit::{self, Failure};
use super::target::{Authority, Target};

/// An answer that says yes.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    raw: RawAnswer,
}

impl Answer {
    /// The body as it came.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.raw.body).trim_end().to_owned()
    }

    /// The body, byte for byte.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.raw.body
    }

    /// JSON over several lines, for people.
    pub(crate) fn indented(&self) -> Result<String, Failure> {
        let value: serde_json::Value = self.parsed()?;
        serde_json::to_string_pretty(&value).map_err(|error| Failure::failed(error.to_string()))
    }

    /// The body as what it should be.
    pub(crate) fn parsed<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_slice(&self.raw.body).map_err(|error| {
            Failure::failed(format!(
                "the answer makes no sense ({error}); is this the address of a hub or edge?"
            ))
        })
    }

    /// A header, by its name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.raw.header(name)
    }
}

/// A way to the target.
pub(crate) struct Connection {
    target: Target,
    client: Client,
}

impl Connection {
    /// Gets ready to talk to `target`; nothing is sent yet.
    ///
    /// # Errors
    /// When the address, the token or the authority cannot be used.
    pub(crate) fn open(target: Target) -> Result<Self, Failure> {
        let client = match &target {
            Target::Edge { socket } => Client::unix(socket),
            Target::Hub { url, token, ca } => {
                let token = token.read()?;
                let client = if url.starts_with("http://") {
                    Client::http(url, Some(&token))
                } else {
                    Client::https(url, &authorities(ca.as_ref())?, Some(&token))
                };
                client.map_err(|error| Failure::usage(error.to_string()))?
            }
        };
        Ok(Self { target, client })
    }

    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// Sends a request and gives the answer, if it is a good one.
    ///
    /// # Errors
    /// With the exit code that the answer, or its absence, stands for.
    pub(crate) async fn ask(
        &self,
        method: Method,
        address: &Address,
        body: Option<String>,
    ) -> Result<Answer, Failure> {
        self.ask_with(method, address, body.map(Bytes::from)).await
    }

    /// The same with any bytes.
    ///
    /// # Errors
    /// As [`Connection::ask`].
    pub(crate) async fn ask_with(
        &self,
        method: Method,
        address: &Address,
        body: Option<Bytes>,
    ) -> Result<Answer, Failure> {
        let answer = self.client.request(method, address.as_str(), body).await;
        let raw = answer.map_err(|error| self.no_answer(&error))?;
        if !raw.is_success() {
            return Err(self.refused(&raw));
        }
        let status = StatusCode::from_u16(raw.status).unwrap_or(StatusCode::OK);
        Ok(Answer { status, raw })
    }

    /// Opens a stream of events, behind the position `after` if there is one.
    ///
    /// # Errors
    /// As [`Connection::ask`].
    pub(crate) async fn events(
        &self,
        address: &Address,
        after: Option<&str>,
    ) -> Result<EventReader, Failure> {
        let opened = self.client.events(address.as_str(), after).await;
        opened.map_err(|error| self.no_answer(&error))?.map_err(|refused| self.refused(&refused))
    }

    fn no_answer(&self, error: &ClientError) -> Failure {
        let remedy = match (error, &self.target) {
            (ClientError::Unreachable { .. }, Target::Edge { .. }) => {
                "is it running? start it with `llm-config edge run`"
            }
            (ClientError::Unreachable { .. }, Target::Hub { .. }) => {
                "check the address, and whether the hub runs"
            }
            (ClientError::Lost { .. } | ClientError::TimedOut { .. }, _) => {
                "what was asked may or may not have been done; look, then try again"
            }
            (ClientError::Untrusted { .. }, target) if target.is_kept() => {
                "run `llm-config login URL --ca FILE` again, with the hub's own authority"
            }
            (ClientError::Untrusted { .. }, _) => "give the hub's own authority with --ca FILE",
            (
                ClientError::Address { .. }
                | ClientError::Tls(_)
                | ClientError::Token
                | ClientError::Path(_)
                | ClientError::TooLarge { .. },
                _,
            ) => return Failure::failed(error.to_string()),
        };
        Failure::unreachable(format!("{error}; {remedy}"))
    }

    fn refused(&self, raw: &RawAnswer) -> Failure {
        let refusal = raw.refusal();
        let status = StatusCode::from_u16(raw.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let aged = raw.header("x-config-age-ms").is_some() || refusal.details.get("age_ms").is_some();
        let remedy = match status {
            StatusCode::UNAUTHORIZED if self.target.is_kept() => {
                "; run `llm-config login` again, with another token"
            }
            StatusCode::UNAUTHORIZED => "; check the API token",
            StatusCode::TOO_MANY_REQUESTS => "; wait a moment, then try again",
            StatusCode::INTERNAL_SERVER_ERROR => "; its log says more",
            _ => "",
        };
        Failure::new(exit::of_status(status, aged), format!("{}{remedy}", refusal.message))
    }
}

/// Those that a hub's certificate is checked with, as PEM: its own, or the system's.
///
/// # Errors
/// When there are none, or they cannot be read.
pub(crate) fn authorities(own: Option<&Authority>) -> Result<String, Failure> {
    let file = match own {
        Some(Authority::Text(pem)) => return Ok(pem.clone()),
        Some(Authority::File(path)) => Some(path.as_path()),
        None => None,
    };
    authorities::pem(file).map_err(|error| match error {
        NoAuthorities::None => Failure::usage(format!("{error}; give the hub's with --ca FILE")),
        NoAuthorities::File { .. } => Failure::usage(error.to_string()),
    })
}
