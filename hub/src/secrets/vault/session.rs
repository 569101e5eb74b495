//! The token that the hub has at Vault, and how it comes to one.

use std::path::Path;
use std::time::Duration;

use serde_json::Value as Json;
use tokio::time::Instant;
use vaultrs::api::auth::approle::requests::LoginWithApproleRequest;
use vaultrs::api::auth::cert::requests::LoginRequest as LoginWithCertRequest;
use vaultrs::api::auth::kubernetes::requests::LoginWithKubernetesRequest;
use vaultrs::api::token::requests::{LookupTokenSelfRequest, RenewTokenSelfRequest};

use super::connection::{Connection, Heard};
use super::error::Reason;
use super::settings::{Credential, Hidden, VaultAuth};

/// What follows from one login. One request at a time has it.
#[derive(Default)]
pub(super) struct Session {
    pub(super) token: Option<Token>,
    /// Of the last request, so that the next one keeps a distance.
    pub(super) asked_at: Option<Instant>,
}

/// A token and what is known of its life.
pub(super) struct Token {
    pub(super) text: Hidden,
    renewable: bool,
    /// When it is to be renewed or replaced; none where it lives for ever or nothing can be done.
    pub(super) renew_at: Option<Instant>,
    /// How long it lived when it was given or renewed.
    life: Duration,
}

/// What a login or a renewal brought.
enum Step {
    Done,
    Denied,
}

impl Connection {
    /// Comes to a token by the way that the settings name.
    pub(super) async fn log_in(&self, session: &mut Session) -> Result<(), Failed> {
        let token = match &self.settings.auth {
            VaultAuth::Token(credential) => self.try_token(session, read(credential)?).await?,
            VaultAuth::AppRole { role_id, secret_id } => {
                let secret_id = read(secret_id)?;
                let request = LoginWithApproleRequest {
                    mount: self.settings.auth_mount.clone(),
                    role_id: role_id.expose().to_owned(),
                    secret_id: secret_id.expose().to_owned(),
                };
                self.given(session, &request).await?
            }
            VaultAuth::Kubernetes { role, jwt_file } => {
                let jwt = read(&Credential::File(jwt_file.clone()))?;
                let request = LoginWithKubernetesRequest {
                    mount: self.settings.auth_mount.clone(),
                    role: role.clone(),
                    jwt: jwt.expose().to_owned(),
                };
                self.given(session, &request).await?
            }
            VaultAuth::Cert { role, .. } => {
                let request = LoginWithCertRequest {
                    mount: self.settings.auth_mount.clone(),
                    cert_name: role.clone().unwrap_or_default(),
                };
                self.given(session, &request).await?
            }
        };
        tracing::info!(
            renewed_in_s = token.renew_at.map(|at| at.saturating_duration_since(Instant::now()).as_secs()),
            "logged in to Vault"
        );
        session.token = Some(token);
        Ok(())
    }

    /// Renews the token, or gets another one where that cannot be done.
    pub(super) async fn renew(&self, session: &mut Session) -> Result<(), Failed> {
        let Some(token) = &session.token else {
            return self.log_in(session).await;
        };
        if !token.renewable {
            return self.log_in(session).await;
        }
        let (text, life) = (token.text.clone(), token.life);
        let heard = self.send(session, "renew", &RenewTokenSelfRequest::default(), Some(&text)).await?;
        let step = match heard {
            Heard { status: 200..=299, body, .. } => {
                let token = granted(&body, Some(text)).ok_or_else(|| Failed::of(Reason::Failing(200)))?;
                // Near the end of what it may live for in all, each renewal gives less.
                let fading = token.life < life / 2;
                session.token = Some(token);
                if fading { Step::Denied } else { Step::Done }
            }
            Heard { status: 400 | 403, .. } => Step::Denied,
            other => return Err(other.failed()),
        };
        match (step, &self.settings.auth) {
            (Step::Done, _) => Ok(()),
            (Step::Denied, VaultAuth::Token(Credential::Text(_))) => {
                // There is no other one: it is used for as long as it lives.
                if let Some(token) = &mut session.token {
                    token.renew_at = None;
                }
                Ok(())
            }
            (Step::Denied, _) => self.log_in(session).await,
        }
    }

    /// A token that was given from outside: how long it lives has to be asked.
    async fn try_token(&self, session: &mut Session, text: Hidden) -> Result<Token, Failed> {
        let heard = self.send(session, "login", &LookupTokenSelfRequest::default(), Some(&text)).await?;
        if !heard.is_fine() {
            return Err(heard.failed_login());
        }
        let data = &heard.body["data"];
        let life = Duration::from_secs(data["ttl"].as_u64().unwrap_or(0));
        Ok(Token::new(text, life, data["renewable"].as_bool().unwrap_or(false)))
    }

    async fn given<E: rustify::Endpoint>(&self, session: &mut Session, request: &E) -> Result<Token, Failed> {
        let heard = self.send(session, "login", request, None).await?;
        if !heard.is_fine() {
            return Err(heard.failed_login());
        }
        granted(&heard.body, None).ok_or_else(|| Failed::of(Reason::Failing(heard.status)))
    }
}

impl Token {
    fn new(text: Hidden, life: Duration, renewable: bool) -> Self {
        // At two thirds of its life, and not all hubs at once.
        let wait = life.mul_f64((0.6 + rand::random::<f64>() / 15.0).min(1.0));
        let renew_at = (!life.is_zero()).then(|| Instant::now() + wait.max(Duration::from_secs(1)));
        Self { text, renewable, renew_at, life }
    }
}

/// The token in an answer; a renewal gives the same one again.
fn granted(body: &Json, same: Option<Hidden>) -> Option<Token> {
    let auth = &body["auth"];
    let text = match same {
        Some(text) => text,
        None => Hidden::new(auth["client_token"].as_str()?.to_owned()),
    };
    let life = Duration::from_secs(auth["lease_duration"].as_u64()?);
    Some(Token::new(text, life, auth["renewable"].as_bool()?))
}

/// Why Vault was of no use, and how long it asks to be left alone.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) reason: Reason,
    pub(super) asked: Option<Duration>,
}

impl Failed {
    pub(super) fn of(reason: Reason) -> Self {
        Self { reason, asked: None }
    }
}

/// A credential's text, without the line's end that editors add.
fn read(credential: &Credential) -> Result<Hidden, Failed> {
    let path: &Path = match credential {
        Credential::Text(text) => return Ok(text.clone()),
        Credential::File(path) => path,
    };
    let unreadable = |what: String| Failed::of(Reason::Credential { path: path.to_owned(), what });
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
    let text = text.trim();
    // It goes into a header or into JSON; anything else is another kind of file.
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(unreadable("it does not hold one word".to_owned()));
    }
    Ok(Hidden::new(text.to_owned()))
}
