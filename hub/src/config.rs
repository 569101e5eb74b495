//! The hub's settings: hub.toml, the same keys as environment variables, and the flags of `dev`.
//!
//! Everything is read before anything starts, and every problem is told at once, each with its key.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use llm_config_shared::limits::{DELETED_DAYS, SHARDS_MAX};

use crate::config::settings::Settings;

mod expiry;
mod kms;
mod rotation;
mod secrets;
mod settings;
mod sources;

pub use expiry::Expiry;
pub use rotation::RotationSettings;
pub use secrets::Secrets;
#[cfg(any(feature = "kms-gcp", feature = "kms-azure"))]
pub(crate) use secrets::is_this_machine;
pub use settings::{InvalidConfig, Problem};
pub use sources::Source;

/// What the hub was told to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub mode: Mode,
    pub listen: Listen,
    /// Sync ports of the hubs of other regions, `https://HOST:PORT` each.
    pub regions: Vec<String>,
    pub database: Database,
    pub secrets: Secrets,
    /// Namespaces whose secrets come from elsewhere.
    pub sources: Vec<Source>,
    pub limits: Limits,
    pub retention: Retention,
    pub telemetry: Telemetry,
}

/// How careful the hub is with what was left out of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// One machine, one person: a join token without lists gives everything.
    Dev,
    /// A join token says what it gives.
    Serve,
}

/// `[listen]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// The REST API.
    pub api: SocketAddr,
    /// Edges.
    pub sync: SocketAddr,
    /// Of the API; the sync port has certificates of the hub's own.
    pub tls: Option<TlsFiles>,
    /// Where edges find the sync port, as written into join tokens: `https://HOST:PORT`.
    pub public: Option<String>,
    /// Where the other processes of this hub find the sync port of this one: `https://HOST:PORT`.
    pub peer: Option<String>,
}

/// Certificate chain and private key, PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// `[database] url`
#[derive(Clone, PartialEq, Eq)]
pub enum Database {
    Sqlite(PathBuf),
    /// The URL, with its password.
    Postgres(String),
}

impl fmt::Debug for Database {
    /// A URL may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Self::Postgres(_) => f.write_str("postgres://…"),
        }
    }
}

/// `[limits]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Refused tokens from one address per minute, before it has to wait.
    pub failed_logins_per_minute: u32,
    /// A request that takes longer is given up.
    pub request: Duration,
    /// What runs when the hub is told to stop may take so long.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            failed_logins_per_minute: 30,
            request: Duration::from_secs(30),
            drain: Duration::from_secs(10),
        }
    }
}

/// `[retention]`. The history is kept for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// How long after its deletion an entry is purged: an edge that was away for longer fetches everything anew. None:
    /// never.
    pub deleted: Option<Duration>,
}

impl Default for Retention {
    fn default() -> Self {
        Self { deleted: Some(days(DELETED_DAYS)) }
    }
}

fn days(days: u64) -> Duration {
    Duration::from_secs(days * 86_400)
}

/// `[telemetry]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Telemetry {
    /// What is logged, as in `RUST_LOG`, which wins.
    pub log: Option<String>,
    /// JSON lines or text; by default text on a terminal and JSON elsewhere.
    pub format: LogFormat,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    #[default]
    Auto,
    Json,
    Text,
}

const VARIABLE_PREFIX: &str = "LLM_CONFIG_HUB_";

impl Config {
    /// What `dev` runs on: everything in one directory.
    ///
    /// # Errors
    /// When the API would be reachable from other machines without TLS.
    pub fn dev(data: &Path, api: SocketAddr, sync: SocketAddr) -> Result<Self, InvalidConfig> {
        let config = Self {
            mode: Mode::Dev,
            listen: Listen { api, sync, tls: None, public: None, peer: None },
            regions: Vec::new(),
            database: Database::Sqlite(data.join("hub.sqlite")),
            secrets: Secrets::local(data.join("keyring")),
            sources: Vec::new(),
            limits: Limits::default(),
            retention: Retention::default(),
            telemetry: Telemetry::default(),
        };
        match exposed(&config.listen) {
            Some(problem) => Err(InvalidConfig { problems: vec![problem] }),
            None => Ok(config),
        }
    }

    /// What `serve` runs on. `text` is hub.toml, `directory` where it lies: its relative paths start there. `variables`
    /// are those of the process; they win over the file.
    ///
    /// # Errors
    /// All that is wrong, each with its key.
    pub fn parse(
        text: &str,
        directory: &Path,
        variables: &BTreeMap<String, String>,
    ) -> Result<Self, InvalidConfig> {
        let mut settings = Settings::read(text, VARIABLE_PREFIX, variables)?;
        let listen = read_listen(&mut settings, directory);
        let regions = read_regions(&mut settings);
        let database = read_database(&mut settings, directory);
        let secrets = secrets::read(&mut settings, directory, database.as_ref(), variables);
        let sources = sources::read(&mut settings, secrets.vault.is_some());
        let limits = read_limits(&mut settings);
        let retention = read_retention(&mut settings);
        let telemetry = read_telemetry(&mut settings);
        settings.finish()?;
        // Each is there, because a missing one was a problem.
        match (listen, database) {
            (Some(listen), Some(database)) => Ok(Self {
                mode: Mode::Serve,
                listen,
                regions,
                database,
                secrets,
                sources,
                limits,
                retention,
                telemetry,
            }),
            _ => unreachable!("a section that could not be read was reported as a problem"),
        }
    }

    /// Where the keyring lies, and the files that the hub writes for people.
    pub fn data_directory(&self) -> &Path {
        match self.secrets.keyring.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        }
    }
}

fn exposed(listen: &Listen) -> Option<Problem> {
    let open = listen.tls.is_none() && !listen.api.ip().is_loopback();
    open.then(|| Problem {
        key: "listen.api".to_owned(),
        what: format!(
            "{} can be reached from other machines and there is no TLS; set listen.tls.cert and listen.tls.key, or \
             listen on 127.0.0.1",
            listen.api
        ),
    })
}

fn read_listen(settings: &mut Settings, directory: &Path) -> Option<Listen> {
    let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let api =
        settings.parsed("listen.api", "an address like 127.0.0.1:8080").unwrap_or_else(|| address(8080));
    let sync =
        settings.parsed("listen.sync", "an address like 0.0.0.0:8443").unwrap_or_else(|| address(8443));
    let public = read_address(settings, "listen.public");
    let peer = read_address(settings, "listen.peer");
    let cert = settings.text("listen.tls.cert").map(|path| directory.join(path));
    let key = settings.text("listen.tls.key").map(|path| directory.join(path));
    for (name, path) in [("listen.tls.cert", &cert), ("listen.tls.key", &key)] {
        if let Some(path) = path
            && !path.is_file()
        {
            settings.problem(name, format!("there is no file {}", path.display()));
        }
    }
    let tls = match (cert, key) {
        (Some(cert), Some(key)) => Some(TlsFiles { cert, key }),
        (None, None) => None,
        (Some(_), None) => {
            settings.problem("listen.tls.key", "is missing beside listen.tls.cert".to_owned());
            return None;
        }
        (None, Some(_)) => {
            settings.problem("listen.tls.cert", "is missing beside listen.tls.key".to_owned());
            return None;
        }
    };
    let listen = Listen { api, sync, tls, public, peer };
    if let Some(Problem { key, what }) = exposed(&listen) {
        settings.problem(&key, what);
    }
    Some(listen)
}

/// `[regions] peers`: addresses of the hubs of other regions, with commas between them.
fn read_regions(settings: &mut Settings) -> Vec<String> {
    let Some(peers) = settings.text("regions.peers") else { return Vec::new() };
    let peers: Vec<String> = peers.split(',').map(|peer| peer.trim().to_owned()).collect();
    if peers.len() >= SHARDS_MAX || !peers.iter().all(|peer| is_public_address(peer)) {
        let what = format!(
            "must be at most {} addresses like https://HOST:PORT, with commas between",
            SHARDS_MAX - 1
        );
        settings.problem("regions.peers", what);
    }
    peers
}

/// Where others find a port of this hub.
fn read_address(settings: &mut Settings, key: &str) -> Option<String> {
    let url = settings.text(key)?;
    if !is_public_address(&url) {
        settings.problem(key, "must look like https://HOST:PORT".to_owned());
    }
    Some(url)
}

fn is_public_address(url: &str) -> bool {
    let Some(authority) = url.strip_prefix("https://") else {
        return false;
    };
    let Ok(authority) = authority.parse::<http::uri::Authority>() else {
        return false;
    };
    authority.port().is_some() && !authority.as_str().contains('@')
}

fn read_database(settings: &mut Settings, directory: &Path) -> Option<Database> {
    let Some(url) = settings.text("database.url") else {
        settings.required("database.url", "sqlite:PATH or postgres://USER:PASSWORD@HOST/DATABASE");
        return None;
    };
    if url.starts_with("postgres://") || url.starts_with("postgresql://") {
        return Some(Database::Postgres(url));
    }
    match url.strip_prefix("sqlite:").map(|path| path.strip_prefix("//").unwrap_or(path)) {
        Some(path) if !path.is_empty() => Some(Database::Sqlite(directory.join(path))),
        // The text itself is not repeated: it may hold a password.
        _ => {
            settings.problem("database.url", "must begin with sqlite: or postgres://".to_owned());
            None
        }
    }
}

fn read_limits(settings: &mut Settings) -> Limits {
    let default = Limits::default();
    let mut number = |key: &str, default: u64, range| settings.number(key, range).unwrap_or(default);
    let failed_logins =
        number("limits.failed_logins_per_minute", u64::from(default.failed_logins_per_minute), 1..=100_000);
    let request = number("limits.request_seconds", default.request.as_secs(), 1..=600);
    let drain = number("limits.drain_seconds", default.drain.as_secs(), 0..=600);
    Limits {
        failed_logins_per_minute: u32::try_from(failed_logins).expect("the range was checked"),
        request: Duration::from_secs(request),
        drain: Duration::from_secs(drain),
    }
}

/// The history is never purged in this version, so there is one thing that may be asked for.
fn read_retention(settings: &mut Settings) -> Retention {
    if settings.text("retention.history").is_some_and(|kept| kept != "forever") {
        settings.problem("retention.history", "must be \"forever\": this version keeps all of it".to_owned());
    }
    let kept = settings.number("retention.deleted_days", 0..=36_500);
    match settings.text("retention.deleted").as_deref() {
        None => Retention { deleted: Some(days(kept.unwrap_or(DELETED_DAYS))) },
        Some("forever") if kept.is_none() => Retention { deleted: None },
        Some(_) => {
            let what = "can only be \"forever\"; a number of days is retention.deleted_days, and not both";
            settings.problem("retention.deleted", what.to_owned());
            Retention::default()
        }
    }
}

fn read_telemetry(settings: &mut Settings) -> Telemetry {
    let log = settings.text("telemetry.log");
    if let Some(filter) = &log
        && filter.parse::<tracing_subscriber::EnvFilter>().is_err()
    {
        settings.problem("telemetry.log", "is no filter like info or llm_config_hub=debug".to_owned());
    }
    let format = match settings.text("telemetry.format").as_deref() {
        None | Some("auto") => LogFormat::Auto,
        Some("json") => LogFormat::Json,
        Some("text") => LogFormat::Text,
        Some(_) => {
            settings.problem("telemetry.format", "must be auto, json or text".to_owned());
            LogFormat::Auto
        }
    };
    Telemetry { log, format }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn problems(text: &str, pairs: &[(&str, &str)]) -> Vec<String> {
        let error = Config::parse(text, Path::new("/etc/hub"), &variables(pairs)).unwrap_err();
        error.problems.iter().map(|problem| problem.key.clone()).collect()
    }

    #[test]
    fn a_short_file_is_enough() {
        let text = "[database]\nurl = \"sqlite:data/hub.sqlite\"\n";
        let config = Config::parse(text, Path::new("/etc/hub"), &BTreeMap::new()).unwrap();
        assert_eq!(config.database, Database::Sqlite("/etc/hub/data/hub.sqlite".into()));
        assert_eq!(config.secrets.keyring, Path::new("/etc/hub/data/keyring"));
        assert_eq!(config.data_directory(), Path::new("/etc/hub/data"));
        assert_eq!(config.listen.api.to_string(), "127.0.0.1:8080");
        assert_eq!(config.limits, Limits::default());
    }

    #[test]
    fn variables_win_over_the_file() {
        let text = "[database]\nurl = \"sqlite:hub.sqlite\"\n[listen]\napi = \"127.0.0.1:1\"\n";
        let pairs = [
            ("LLM_CONFIG_HUB_LISTEN__API", "127.0.0.1:9000"),
            ("LLM_CONFIG_HUB_DATABASE__URL", "postgres://u:p@h/d"),
            ("LLM_CONFIG_HUB_SECRETS__LOCAL__KEYRING", "/keys/ring"),
            ("LLM_CONFIG_HUB_LIMITS__REQUEST_SECONDS", "7"),
            ("LLM_CONFIG_HUB_TOKEN", "belongs to the command line"),
        ];
        let config = Config::parse(text, Path::new("."), &variables(&pairs)).unwrap();
        assert_eq!(config.listen.api.port(), 9000);
        assert_eq!(config.database, Database::Postgres("postgres://u:p@h/d".to_owned()));
        assert_eq!(config.secrets.keyring, Path::new("/keys/ring"));
        assert_eq!(config.limits.request, Duration::from_secs(7));
        assert!(!format!("{config:?}").contains("u:p"));
    }

    #[test]
    fn every_problem_is_told_at_once_with_its_key() {
        let text = r#"
            [listen]
            api = "0.0.0.0:8080"
            sync = "nowhere"
            apis = 1
            [listen.tls]
            cert = "/no/such/file"
            [database]
            url = "mysql://u:hunter2@h/d"
            [secrets]
            provider = "abacus"
            [limits]
            request_seconds = 0
            [retention]
            history = "90d"
            [surprise]
            x = 1
        "#;
        let pairs = [("LLM_CONFIG_HUB_LISTEN__PORT", "1"), ("LLM_CONFIG_HUB_LIMITS__DRAIN_SECONDS", "soon")];
        let mut found = problems(text, &pairs);
        found.sort();
        let expected = [
            "LLM_CONFIG_HUB_LIMITS__DRAIN_SECONDS",
            "LLM_CONFIG_HUB_LISTEN__PORT",
            "database.url",
            "limits.request_seconds",
            "listen.apis",
            "listen.sync",
            "listen.tls.cert",
            "listen.tls.key",
            "retention.history",
            "secrets.provider",
            "surprise.x",
        ];
        assert_eq!(found, expected);
        let error = Config::parse(text, Path::new("."), &variables(&pairs)).unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn the_shipped_example_lacks_only_what_is_of_its_machine() {
        let example = include_str!("../../deploy/hub.toml");
        let found = Config::parse(example, Path::new("/etc/llm-config-hub"), &variables(&[]));
        let problems = found.expect_err("nobody has these certificates here").problems;
        let keys: Vec<&str> = problems.iter().map(|problem| problem.key.as_str()).collect();
        assert_eq!(keys, ["listen.tls.cert", "listen.tls.key"]);
    }

    #[test]
    fn deletions_are_kept_for_thirty_days_or_as_long_as_is_said() {
        let kept = |retention: &str| {
            let text = format!("[database]\nurl = \"sqlite:x\"\n[retention]\n{retention}\n");
            Config::parse(&text, Path::new("."), &BTreeMap::new()).map(|config| config.retention.deleted)
        };
        assert_eq!(kept("").unwrap(), Some(Duration::from_secs(30 * 86_400)));
        assert_eq!(kept("deleted_days = 400").unwrap(), Some(Duration::from_secs(400 * 86_400)));
        assert_eq!(kept("deleted_days = 0").unwrap(), Some(Duration::ZERO));
        assert_eq!(kept("deleted = \"forever\"\nhistory = \"forever\"").unwrap(), None);
        for wrong in ["deleted_days = -1", "deleted = \"30d\"", "deleted = \"forever\"\ndeleted_days = 9"] {
            assert!(kept(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn beyond_loopback_the_api_needs_tls() {
        let open: SocketAddr = "0.0.0.0:8080".parse().unwrap();
        let here: SocketAddr = "127.0.0.1:8443".parse().unwrap();
        assert!(Config::dev(Path::new("d"), open, here).is_err());
        assert!(Config::dev(Path::new("d"), here, open).is_ok(), "the sync port always has TLS");
        let text = "[listen]\napi = \"[::]:8080\"\n[database]\nurl = \"sqlite:x\"\n";
        assert_eq!(problems(text, &[]), ["listen.api"]);
    }

    #[test]
    fn what_is_not_toml_is_told_with_its_line_and_without_its_text() {
        let error =
            Config::parse("[database]\nurl = \"p4ss\n", Path::new("."), &BTreeMap::new()).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("line 2") && !text.contains("p4ss"), "{text}");
    }
}
