//! Reading for other programs: entries with inheritance followed and secrets in clear, kept for no longer than needed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Method;
use llm_config_shared::name::Namespace;
use serde::Serialize;
use zeroize::Zeroizing;

use super::address::Address;
use super::connection::Connection;
use super::entries::{self, Entry};
use super::exit::{Exit, Failure};
use super::output;
use super::pace::Backoff;

/// Pauses between two attempts to reach what is not there yet.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Asks again for as long as `patience` lasts while nobody answers, or has no data yet. At the start of a machine or a pod
/// nobody knows who is up first.
///
/// # Errors
/// The last failure, or at once one that waiting does not help against.
pub(crate) async fn patiently<T>(
    patience: Duration,
    mut ask: impl AsyncFnMut() -> Result<T, Failure>,
) -> Result<T, Failure> {
    let until = Instant::now() + patience;
    let mut backoff = Backoff::new(PAUSE_FIRST, PAUSE_MAX);
    loop {
        let answered = ask().await;
        let pause = backoff.next(rand::random());
        match &answered {
            Err(failure) if failure.exit == Exit::Unreachable && Instant::now() + pause < until => {
                output::hint(format!("{failure}; waiting"));
                tokio::time::sleep(pause).await;
            }
            _ => return answered,
        }
    }
}

/// A version of an entry, where its value was found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Used {
    namespace: String,
    key: String,
    environment: String,
    version: u64,
}

/// What an entry holds, as JSON. Wiped when it is no longer needed.
#[derive(Clone)]
pub(crate) struct Held {
    pub(crate) key: String,
    pub(crate) secret: bool,
    /// None for what the hub has not admitted yet: it has no version.
    pub(crate) used: Option<Used>,
    json: Zeroizing<String>,
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Held").field("key", &self.key).finish_non_exhaustive()
    }
}

impl Held {
    fn new(entry: &Entry) -> Self {
        let json = Zeroizing::new(entry.value.get().to_owned());
        let (namespace, environment) = match &entry.origin {
            Some(origin) => (&origin.namespace, &origin.environment),
            None => (&entry.namespace, &entry.environment),
        };
        let used = (!entry.pending).then(|| Used {
            namespace: namespace.clone(),
            key: entry.key.clone(),
            environment: environment.clone(),
            version: entry.version,
        });
        Self { key: entry.key.clone(), secret: entry.secret, used, json }
    }

    /// The value as JSON.
    pub(crate) fn json(&self) -> &str {
        &self.json
    }

    /// The value as programs want it in a variable: a string without quotes, else JSON; none for null.
    pub(crate) fn text(&self) -> Option<Zeroizing<String>> {
        match self.json.as_str() {
            "null" => None,
            json => {
                let plain = serde_json::from_str::<String>(json);
                Some(Zeroizing::new(plain.unwrap_or_else(|_| json.to_owned())))
            }
        }
    }
}

/// Reads one environment, or the default one of what is asked.
#[derive(Clone)]
pub(crate) struct Reader {
    connection: Arc<Connection>,
    environment: Option<String>,
}

impl Reader {
    pub(crate) fn new(connection: Arc<Connection>, environment: Option<String>) -> Self {
        Self { connection, environment }
    }

    /// One entry; none if there is no such one.
    ///
    /// # Errors
    /// As [`Connection::ask`], except for what does not exist.
    pub(crate) async fn one(&self, namespace: &str, key: &str) -> Result<Option<Held>, Failure> {
        let address = self.wanted(Address::entry(namespace, key, &[]));
        match self.connection.ask(Method::GET, &address, None).await {
            Ok(answer) => Ok(Some(Held::new(&answer.parsed::<Entry>()?))),
            Err(failure) if failure.exit == Exit::NotFound => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Every entry of a namespace, without those of folders below.
    ///
    /// # Errors
    /// As [`Connection::ask`]. An empty namespace is none; one that the edge does not receive is.
    pub(crate) async fn all(&self, namespace: &str) -> Result<Vec<Held>, Failure> {
        let address = self.wanted(Address::new(&["configs", namespace]));
        let raw = entries::all(&self.connection, &address).await?;
        Ok(entries::parsed(&raw)?.iter().map(Held::new).collect())
    }

    /// ` for production`, or nothing where the environment is the default one.
    pub(crate) fn for_environment(&self) -> String {
        self.environment.as_ref().map_or_else(String::new, |environment| format!(" for {environment}"))
    }

    fn wanted(&self, address: Address) -> Address {
        address
            .with_some("env", self.environment.as_deref())
            .with("resolve", "true")
            .with_flag("reveal", true)
    }
}

/// `KEY` of the default namespace, or `NAMESPACE//KEY`.
///
/// # Errors
/// When a name is not one, or there is no namespace.
pub(crate) fn place(text: &str, default: Option<&str>) -> Result<(String, String), String> {
    let named = text.split_once("//").filter(|(namespace, _)| Namespace::parse(namespace).is_ok());
    let (namespace, key) = match (named, default) {
        (Some((namespace, key)), _) => (namespace, key),
        (None, Some(namespace)) => (namespace, text),
        (None, None) => {
            return Err(format!("{text}: in which namespace? say NAMESPACE//KEY, or --namespace"));
        }
    };
    Ok((namespace.to_owned(), entries::key(key)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(json: &str) -> Held {
        Held { key: "k".into(), secret: true, used: None, json: Zeroizing::new(json.into()) }
    }

    #[test]
    fn a_variable_holds_plain_text_or_json_and_null_is_none() {
        let text = |json: &str| held(json).text().map(|text| text.to_string());
        assert_eq!(text(r#""two \"words\"\n""#).as_deref(), Some("two \"words\"\n"));
        assert_eq!(text("9007199254740993").as_deref(), Some("9007199254740993"));
        assert_eq!(text("true").as_deref(), Some("true"));
        assert_eq!(text(r#"{"a":[1]}"#).as_deref(), Some(r#"{"a":[1]}"#));
        assert_eq!(text(r#""""#).as_deref(), Some(""));
        assert_eq!(text("null"), None);
    }

    #[test]
    fn a_place_names_its_namespace_or_takes_the_default() {
        let told = |text, default| place(text, default).map(|(n, k)| format!("{n} {k}"));
        assert_eq!(told("model", Some("app")).unwrap(), "app model");
        assert_eq!(told("app/llm//model", Some("app")).unwrap(), "app/llm model");
        assert_eq!(told("app/llm//model", None).unwrap(), "app/llm model");
        assert_eq!(told("app//azure//x", None).unwrap(), "app azure//x");
        assert_eq!(told("*//x", Some("app")).unwrap(), "app *//x", "a key may hold slashes");
        assert!(told("model", None).unwrap_err().contains("--namespace"));
        assert!(told("a b", Some("app")).is_err());
    }

    #[tokio::test]
    async fn what_is_not_there_yet_is_waited_for_and_what_is_wrong_is_not() {
        let mut asked = 0;
        let failing = async |asked: &mut u32, failure: Failure| {
            *asked += 1;
            if *asked < 3 { Err(failure) } else { Ok(*asked) }
        };
        let away = Failure::unreachable("away");
        let minute = Duration::from_secs(60);
        assert_eq!(patiently(minute, async || failing(&mut asked, away.clone()).await).await, Ok(3));
        asked = 0;
        assert_eq!(
            patiently(Duration::ZERO, async || failing(&mut asked, away.clone()).await).await,
            Err(away)
        );
        let wrong = Failure::usage("wrong");
        assert_eq!(patiently(minute, async || failing(&mut asked, wrong.clone()).await).await, Err(wrong));
    }

    #[test]
    fn what_is_held_is_never_shown() {
        assert!(!format!("{:?}", held("\"sk-canary\"")).contains("canary"));
    }
}
