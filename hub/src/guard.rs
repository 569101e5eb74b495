//! Who is asking, and may they: the only place that decides.
//!
//! Every request but health passes [`Guard::authenticate`] before its body is read. What a caller may do with an entry
//! is asked of [`may`], [`may_read`], [`may_write`] and [`may_reveal`].

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, header};
use llm_config_proto::rest::error::{ApiError, RateLimit};
use llm_config_proto::rest::router::is_public;
use llm_config_proto::rest::service::Caller;
use llm_config_shared::access::Permission;
use uuid::Uuid;

use crate::clock;
use crate::guard::failures::{Allowance, Failures};
use crate::identity::api_token;
use crate::registry::{ApiToken, Registry, TokenHash};

mod failures;
mod rules;

pub use rules::{edge_caller, may, may_operate, may_read, may_read_all, may_reveal, may_write};

/// How long a token is believed without asking the database: a removed one is refused elsewhere after so long.
const BELIEVED: Duration = Duration::from_secs(1);
/// Tokens remembered at once.
const REMEMBERED_MAX: usize = 10_000;

/// Knows callers by their tokens.
pub struct Guard<R> {
    registry: Arc<R>,
    failures: Failures,
    remembered: Mutex<HashMap<TokenHash, (ApiToken, Instant)>>,
}

impl<R: Registry> Guard<R> {
    /// Addresses that present more than so many wrong tokens a minute have to wait.
    pub fn new(registry: Arc<R>, failures_per_minute: u32) -> Self {
        Self { registry, failures: Failures::new(failures_per_minute), remembered: Mutex::default() }
    }

    /// Who presents this token.
    ///
    /// # Errors
    /// 401 without a token, with a wrong or an expired one; 429 after too many of those; 503 without the database.
    pub async fn authenticate(&self, headers: &HeaderMap, peer: IpAddr) -> Result<Caller, ApiError> {
        let Some(hash) = bearer(headers)?.and_then(api_token::hash) else {
            return Err(self.refuse(headers, peer));
        };
        if let Some(token) = self.remembered(&hash, BELIEVED) {
            return self.judge(token, peer);
        }
        // An address that must wait costs no query, unless its token was good before.
        let allowance = self.failures.allowance(peer, Instant::now());
        if allowance.remaining == 0 && self.remembered(&hash, Duration::MAX).is_none() {
            return Err(too_many(allowance));
        }
        let found = self.registry.token(&hash).await?;
        match found {
            Some(token) => {
                self.remember(&token);
                self.judge(token, peer)
            }
            None => {
                self.lock().remove(&hash);
                Err(self.refuse(headers, peer))
            }
        }
    }

    fn judge(&self, token: ApiToken, peer: IpAddr) -> Result<Caller, ApiError> {
        if token.expires_at.is_some_and(|expiry| expiry <= clock::now()) {
            self.count("expired", peer)?;
            return Err(ApiError::unauthorized("the token has expired; ask an administrator for a new one"));
        }
        Ok(Caller {
            name: format!("token:{}", token.name).into(),
            role: token.role,
            read: None,
            write: None,
            reveal: token.role.may(Permission::Reveal),
            tenant: token.tenant,
        })
    }

    fn refuse(&self, headers: &HeaderMap, peer: IpAddr) -> ApiError {
        // Forgetting the header is no attempt at guessing.
        if !headers.contains_key(header::AUTHORIZATION) {
            metrics::counter!("authentication_failures_total", "reason" => "missing").increment(1);
            return ApiError::unauthorized("a token is needed: Authorization: Bearer TOKEN");
        }
        match self.count("unknown", peer) {
            Ok(()) => ApiError::unauthorized("the token is not known"),
            Err(error) => error,
        }
    }

    fn count(&self, reason: &'static str, peer: IpAddr) -> Result<(), ApiError> {
        metrics::counter!("authentication_failures_total", "reason" => reason).increment(1);
        tracing::info!(%peer, reason, "a token was refused");
        let now = Instant::now();
        let before = self.failures.allowance(peer, now);
        if before.remaining == 0 {
            return Err(too_many(before));
        }
        self.failures.record(peer, now);
        Ok(())
    }

    /// Asks the database again about this token.
    pub fn forget(&self, id: Uuid) {
        self.lock().retain(|_, (token, _)| token.id != id);
    }

    fn remembered(&self, hash: &TokenHash, at_most: Duration) -> Option<ApiToken> {
        let remembered = self.lock();
        let (token, at) = remembered.get(hash)?;
        (at.elapsed() <= at_most).then(|| token.clone())
    }

    fn remember(&self, token: &ApiToken) {
        let mut remembered = self.lock();
        if remembered.len() >= REMEMBERED_MAX {
            remembered.clear();
        }
        remembered.insert(token.hash, (token.clone(), Instant::now()));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<TokenHash, (ApiToken, Instant)>> {
        self.remembered.lock().expect("nothing panics while it holds this lock")
    }
}

/// The token in the header; none when there is no header.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = all.next() else {
        return Ok(None);
    };
    if all.next().is_some() {
        return Err(ApiError::bad_request("there is more than one Authorization header"));
    }
    let Some((scheme, token)) = value.to_str().ok().and_then(|text| text.split_once(' ')) else {
        return Ok(None);
    };
    Ok(scheme.eq_ignore_ascii_case("bearer").then(|| token.trim()))
}

fn too_many(allowance: Allowance) -> ApiError {
    let wait = u32::try_from(allowance.retry_after.max(1)).unwrap_or(u32::MAX);
    let limit = RateLimit { limit: allowance.limit, remaining: allowance.remaining, reset_s: wait };
    ApiError::too_many_requests(
        "too many wrong tokens came from this address; wait and try again",
        wait,
        limit,
    )
}

/// Lets requests with a good token through, with their caller attached; the body has not been read yet.
pub async fn require_caller<R: Registry>(
    State(guard): State<Arc<Guard<R>>>,
    mut request: Request,
    next: Next,
) -> Response {
    if is_public(request.method(), request.uri().path()) {
        return next.run(request).await;
    }
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
    let Some(peer) = peer else {
        return ApiError::internal("the request came from nowhere").into_response();
    };
    match guard.authenticate(request.headers(), peer).await {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(error) => error.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use llm_config_shared::access::Role;
    use llm_config_shared::name::Tenant;
    use llm_config_shared::time::UnixMillis;
    use ring::rand::SystemRandom;
    use zeroize::Zeroizing;

    use super::*;
    use crate::journal::SqliteJournal;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

    struct House {
        guard: Guard<SqliteJournal>,
        store: Arc<SqliteJournal>,
        _directory: tempfile::TempDir,
    }

    async fn house() -> House {
        let directory = tempfile::tempdir().unwrap();
        let store = Arc::new(SqliteJournal::open(&directory.path().join("hub.sqlite")).await.unwrap());
        store.migrate().await.unwrap();
        store.create_tenant(&Tenant::parse("t").unwrap(), UnixMillis(1)).await.unwrap();
        House { guard: Guard::new(Arc::clone(&store), 2), store, _directory: directory }
    }

    impl House {
        async fn token(&self, role: Role, expires_at: Option<UnixMillis>) -> (Zeroizing<String>, Uuid) {
            let (text, hash) = api_token::generate(&SystemRandom::new()).unwrap();
            let token = ApiToken {
                id: Uuid::new_v4(),
                tenant: Tenant::parse("t").unwrap(),
                name: "ci".to_owned(),
                hash,
                role,
                created_at: UnixMillis(1),
                created_by: "test".to_owned(),
                expires_at,
            };
            self.store.add_token(&token).await.unwrap();
            (text, token.id)
        }

        async fn ask(&self, text: Option<&str>) -> Result<Caller, u16> {
            let mut headers = HeaderMap::new();
            if let Some(text) = text {
                let value = HeaderValue::from_str(&format!("Bearer {text}")).unwrap();
                headers.insert(header::AUTHORIZATION, value);
            }
            self.guard.authenticate(&headers, PEER).await.map_err(|error| error.kind.status())
        }
    }

    #[tokio::test]
    async fn a_caller_is_known_by_the_token_alone() {
        let house = house().await;
        let (text, id) = house.token(Role::Reader, None).await;
        let caller = house.ask(Some(&text)).await.unwrap();
        assert_eq!((&*caller.name, caller.role, caller.reveal), ("token:ci", Role::Reader, false));
        assert_eq!(house.ask(None).await, Err(401));
        let (old, _) = house.token(Role::Admin, Some(UnixMillis(5))).await;
        assert_eq!(house.ask(Some(&old)).await, Err(401));

        house.store.remove_token(&caller.tenant, id).await.unwrap();
        house.guard.forget(id);
        assert_eq!(house.ask(Some(&text)).await, Err(401));
    }

    #[tokio::test]
    async fn guessing_ends_in_waiting_but_a_good_token_still_works() {
        let house = house().await;
        let (text, _) = house.token(Role::Writer, None).await;
        house.ask(Some(&text)).await.unwrap();
        let (late, _) = house.token(Role::Writer, None).await;
        for _ in 0..5 {
            assert_eq!(house.ask(None).await, Err(401), "no token is no guess");
        }
        for status in [401, 401, 429, 429] {
            assert_eq!(house.ask(Some("lcm_wrong")).await, Err(status));
        }
        assert!(house.ask(Some(&text)).await.is_ok());
        assert_eq!(house.ask(Some(&late)).await, Err(429), "not seen before");
    }
}
