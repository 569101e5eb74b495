//! The home of the fleet's tables, from a region that is not it: what has to be decided once is asked for there, by the
//! caller's own token, and copied back before the caller is answered.
//!
//! What only takes away (a token, an edge) is done in every region by itself, also while the home cannot be reached.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::Method;
use llm_config_proto::join_token::JoinToken;
use llm_config_proto::rest::answer::passed_on;
use llm_config_proto::rest::error::ApiError;
use llm_config_proto::sync::{HubsClient, Joined, PassedJoin, PassedRequest, SyncError};
use llm_config_shared::replication::frame;
use llm_config_shared::store::JournalError;
use tokio::sync::Mutex;
use uuid::Uuid;

use super::fleet::read_on;
use super::peer::connect;
use crate::identity::Identity;
use crate::processes::line::LineError;
use crate::processes::passing::{Through, passed};
use crate::registry::{HomeKnown, Registry};
use crate::sync::roster::Roster;

/// Why the home did not decide.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    #[error(transparent)]
    Database(#[from] JournalError),
    #[error("{}; nothing was changed. {ADVICE}", cut_off(.home))]
    CutOff { home: HomeKnown },
    #[error(
        "the connection to the home region was lost; whether it changed anything is not known: look, and try again"
    )]
    Lost,
    #[error("the home region does not take it ({0}); nothing was changed")]
    Refused(String),
    #[error("the edge has joined, and is not known in this region yet; it will be soon")]
    NotReadBack,
}

/// Longer nobody waits to hear that the home is there.
const ALIVE_MAX: Duration = Duration::from_secs(5);
const JOIN_TOKENS: &str = "/api/v1/join-tokens";
const ADVICE: &str = "What was copied from there goes on working here. Where that region is gone for good, \
                      `llm-config-hub home --take` on this one makes it the home";

fn cut_off(home: &HomeKnown) -> String {
    let at = home.address.as_deref().map_or_else(
        || "that was never reached from here".to_owned(),
        |address| {
            let heard = home.heard_at.map_or_else(|| "never".to_owned(), |at| at.to_rfc3339());
            format!("{address}, which cannot be reached now and was last heard at {heard}")
        },
    );
    format!("new tokens, edges, tenants, environments and policies are decided in the home region, {at}")
}

/// One connection to the home.
#[derive(Clone)]
struct Open {
    address: String,
    client: HubsClient,
    /// How far its tables were read over this connection.
    read: Arc<Mutex<u64>>,
}

/// Who asks.
pub struct Asking<R> {
    /// This process, as its certificates name it.
    pub process: Uuid,
    /// There are no other regions.
    pub alone: bool,
    /// Where edges find this region, as its join tokens say it.
    pub edge_address: String,
    pub identity: Arc<Identity>,
    pub registry: Arc<R>,
    /// Told when what was copied may be about connected edges.
    pub roster: Arc<Roster>,
}

/// To the home, where that is another region.
pub struct HomeLine<R> {
    me: Asking<R>,
    open: Mutex<Option<Open>>,
}

impl<R: Registry> HomeLine<R> {
    /// Nothing is connected before something is asked.
    pub fn new(me: Asking<R>) -> Self {
        Self { me, open: Mutex::default() }
    }

    /// The home, where it is another region.
    ///
    /// # Errors
    /// When the database cannot be used.
    pub async fn elsewhere(&self) -> Result<Option<HomeKnown>, JournalError> {
        if self.me.alone {
            return Ok(None);
        }
        Ok(Some(self.me.registry.home().await?).filter(|known| !known.is_here()))
    }

    /// Whether an edge that is not known here may be known in another region.
    pub fn is_among_regions(&self) -> bool {
        !self.me.alone
    }

    /// Has the home let an edge in, and copies the edge.
    ///
    /// # Errors
    /// When it did not, or nobody knows. Asked again with the same keys, it is the same edge.
    pub async fn join(&self, home: HomeKnown, join: PassedJoin) -> Result<Joined, HomeError> {
        self.ask(home, |mut client| async move { client.join(join).await }).await
    }

    async fn pass(&self, home: HomeKnown, request: PassedRequest) -> Result<frame::Response, HomeError> {
        self.ask(home, |mut client| async move { client.pass(request).await }).await
    }

    /// One call, after which what it changed is here.
    async fn ask<T, F: Future<Output = Result<T, SyncError>>>(
        &self,
        home: HomeKnown,
        call: impl FnOnce(HubsClient) -> F,
    ) -> Result<T, HomeError> {
        let open = self.alive(&home).await?;
        let answer = match call(open.client.clone()).await.map_err(LineError::from) {
            Ok(answer) => answer,
            Err(LineError::Refused(refusal)) => return Err(HomeError::Refused(refusal.to_string())),
            Err(error) => {
                self.hang_up(&open).await;
                return Err(if error.is_nothing_done() {
                    HomeError::CutOff { home }
                } else {
                    HomeError::Lost
                });
            }
        };
        // It is done there: whoever asked is told so whether or not it can be read here already.
        self.read_back(&open).await;
        Ok(answer)
    }

    /// A connection over which the home has just answered: so that a request is not lost on one that broke long ago, for then
    /// nobody would know what became of it.
    async fn alive(&self, home: &HomeKnown) -> Result<Open, HomeError> {
        for _ in 0..2 {
            let open = self.opened(home).await?;
            match tokio::time::timeout(ALIVE_MAX, self.read_back(&open)).await {
                Ok(true) => return Ok(open),
                Ok(false) => {}
                // What was read of a large fleet over a slow link stays read, for the next request.
                Err(_) => break,
            }
        }
        Err(HomeError::CutOff { home: home.clone() })
    }

    /// Whether all that the home has is here.
    async fn read_back(&self, open: &Open) -> bool {
        let mut read = open.read.lock().await;
        match read_on(&mut open.client.clone(), &*self.me.registry, &mut read).await {
            Ok(copied) => {
                if copied.changed > 0 {
                    self.me.roster.recheck();
                }
                true
            }
            Err(error) => {
                tracing::info!(%error, "the home region cannot be read");
                self.hang_up(open).await;
                false
            }
        }
    }

    /// The connection that is open, or a new one.
    async fn opened(&self, home: &HomeKnown) -> Result<Open, HomeError> {
        let cut_off = || HomeError::CutOff { home: home.clone() };
        let address = home.address.as_ref().ok_or_else(cut_off)?;
        let mut open = self.open.lock().await;
        if let Some(open) = open.as_ref().filter(|open| open.address == *address) {
            return Ok(open.clone());
        }
        let client = connect(&self.me.identity, self.me.process, address).await.map_err(|_| cut_off())?;
        Ok(open.insert(Open { address: address.clone(), client, read: Arc::default() }).clone())
    }

    /// The next call connects anew, and reads everything again.
    async fn hang_up(&self, lost: &Open) {
        self.open.lock().await.take_if(|open| Arc::ptr_eq(&open.read, &lost.read));
    }
}

/// Whether a request is decided in the home region alone.
fn decides(method: &Method, route: &str) -> bool {
    matches!(
        (method.as_str(), route),
        ("POST", "/api/v1/join-tokens" | "/api/v1/tokens" | "/api/v1/tenants")
            | ("PATCH", "/api/v1/edges/{name}")
            | ("PUT", "/api/v1/environments/{name}" | "/api/v1/secrets/sealing")
            | (
                "PUT" | "DELETE",
                "/api/v1/namespaces/{namespace}/policy" | "/api/v1/namespaces/{namespace}/offline-limit"
            )
    )
}

/// Passes on what only the home decides, where that is another region.
pub async fn to_home<R: Registry>(
    State(line): State<Arc<HomeLine<R>>>,
    request: Request,
    next: Next,
) -> Response {
    let route = request.extensions().get::<MatchedPath>();
    if !route.is_some_and(|route| decides(request.method(), route.as_str())) {
        return next.run(request).await;
    }
    let from_region = matches!(request.extensions().get(), Some(Through::Region));
    match line.elsewhere().await {
        Ok(None) => next.run(request).await,
        Ok(Some(_)) if from_region => {
            ApiError::unavailable("this region is not the home any more; nothing was changed", 1)
                .into_response()
        }
        Ok(Some(home)) => answer(&line, home, request).await.unwrap_or_else(ApiError::into_response),
        Err(error) => ApiError::from(error).into_response(),
    }
}

async fn answer<R: Registry>(
    line: &HomeLine<R>,
    home: HomeKnown,
    request: Request,
) -> Result<Response, ApiError> {
    let request = PassedRequest { from_region: true, ..passed(request).await? };
    let is_join_token = &*request.target == JOIN_TOKENS;
    Ok(match line.pass(home, request).await {
        Ok(answer) if is_join_token => passed_on(leading_here(answer, &line.me.edge_address)),
        Ok(answer) => passed_on(answer),
        Err(HomeError::Database(error)) => ApiError::from(error).into_response(),
        Err(error) => ApiError::unavailable(error.to_string(), 5).into_response(),
    })
}

/// A join token leads edges to the region where it was asked for: the home may be out of their reach.
fn leading_here(mut answer: frame::Response, address: &str) -> frame::Response {
    let rewritten = || {
        let mut body: serde_json::Value = serde_json::from_slice(&answer.body).ok()?;
        let mut token = JoinToken::parse(body["token"].as_str()?).ok()?;
        address.clone_into(&mut token.hub);
        body["token"] = token.to_text().as_str().into();
        serde_json::to_vec(&body).ok()
    };
    if let Some(body) = rewritten().filter(|_| answer.status == 200) {
        answer.body = body.into();
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is changed in every region by itself: it only takes away, or is about this region's connections and files.
    const HERE: [(&str, &str); 5] = [
        ("DELETE", "/api/v1/tokens/{id}"),
        ("DELETE", "/api/v1/edges/{name}"),
        ("POST", "/api/v1/edges/{name}/lost"),
        ("POST", "/api/v1/fleet/carried"),
        ("PUT", "/api/v1/uses"),
    ];

    #[test]
    fn what_only_takes_away_is_done_where_it_is_asked() {
        for (method, route) in HERE {
            assert!(!decides(&method.parse().unwrap(), route), "{method} {route}");
        }
        assert!(decides(&Method::POST, "/api/v1/tokens") && !decides(&Method::GET, "/api/v1/tokens"));
    }

    #[test]
    fn every_route_that_changes_the_fleets_tables_is_in_one_of_the_two_lists() {
        let document = serde_json::to_value(llm_config_proto::rest::openapi::hub_document()).unwrap();
        let mut decided = 0;
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, route) in methods.as_object().unwrap() {
                let tag = route["tags"][0].as_str().unwrap_or_default();
                let method = method.to_uppercase();
                if method == "GET" || !["fleet", "access", "environments"].contains(&tag) {
                    continue;
                }
                let home = decides(&method.parse().unwrap(), path);
                decided += usize::from(home);
                assert!(home != HERE.contains(&(&*method, &**path)), "{method} {path}");
            }
        }
        assert!(decided >= 5, "{decided}");
    }

    #[test]
    fn a_join_token_leads_to_the_region_where_it_was_asked_for() {
        let random = ring::rand::SystemRandom::new();
        let (text, hash) =
            crate::identity::join_token::generate("https://home:8443", [3; 32], &random).unwrap();
        let answer = |status, body: serde_json::Value| frame::Response {
            status,
            headers: vec![],
            body: body.to_string().into(),
        };
        let made = answer(200, serde_json::json!({"token": &*text, "name": "e1"}));
        let told = leading_here(made, "https://here:8443");
        let told: serde_json::Value = serde_json::from_slice(&told.body).unwrap();
        let token = JoinToken::parse(told["token"].as_str().unwrap()).unwrap();
        assert_eq!(
            (&*token.hub, token.secret.hash(), token.ca_fingerprint),
            ("https://here:8443", hash, [3; 32])
        );
        assert_eq!(told["name"], "e1");
        let refused = answer(422, serde_json::json!({"error": "no"}));
        assert_eq!(leading_here(refused.clone(), "https://here:8443"), refused);
    }

    #[test]
    fn a_refusal_says_where_the_home_is_and_since_when_it_is_silent() {
        use llm_config_shared::store::fleet::Home;
        use llm_config_shared::time::UnixMillis;
        use llm_config_shared::vector::ShardId;
        let id = |n| ShardId(Uuid::from_u128(n));
        let mut home = HomeKnown {
            region: id(1),
            home: Home { region: id(2), term: 1 },
            address: Some("https://10.0.0.1:8443".into()),
            heard_at: Some(UnixMillis(0)),
        };
        let text = HomeError::CutOff { home: home.clone() }.to_string();
        assert!(text.contains("https://10.0.0.1:8443") && text.contains("1970-01-01"), "{text}");
        assert!(text.contains("nothing was changed"), "{text}");
        home.address = None;
        assert!(HomeError::CutOff { home }.to_string().contains("never reached"));
    }
}
