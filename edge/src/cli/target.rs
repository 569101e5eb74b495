//! Where a command goes: an edge's socket or a hub, from flags, the environment or what runs on this machine.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::exit::{Exit, Failure};
use super::login;

/// Flags that say where a command goes. Without them the environment decides, then the system's own edge.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Where to")]
pub(crate) struct TargetArgs {
    /// Socket of an edge on this machine [env: LLM_CONFIG_SOCKET]
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// Address of a hub, as https://HOST:PORT [env: LLM_CONFIG_HUB]
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) hub: Option<String>,
    /// File that holds the API token for --hub (the text itself: LLM_CONFIG_TOKEN)
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// File with the certificate authority of --hub, where it is the hub's own [env: LLM_CONFIG_CA]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// Folder of a local store (not available yet)
    #[arg(long, global = true, value_name = "DIR", hide = true)]
    pub(crate) storage: Option<PathBuf>,
}

/// Where the API token comes from. Its text is read when it is needed and printed nowhere.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Token {
    File(PathBuf),
    Text(String),
    /// Of the hub that was logged in to.
    Kept(String),
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "File({})", path.display()),
            Self::Text(_) => f.write_str("Text(…)"),
            Self::Kept(_) => f.write_str("Kept(…)"),
        }
    }
}

impl Token {
    /// The token itself.
    pub(crate) fn read(&self) -> Result<String, Failure> {
        let text = match self {
            Self::Text(text) | Self::Kept(text) => text.clone(),
            Self::File(path) => std::fs::read_to_string(path).map_err(|error| {
                Failure::usage(format!("cannot read the token file {}: {error}", path.display()))
            })?,
        };
        match text.trim() {
            "" => Err(Failure::usage(
                "the API token is empty; give it in the file of --token-file, or in LLM_CONFIG_TOKEN",
            )),
            token => Ok(token.to_owned()),
        }
    }
}

/// What a command talks to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Edge { socket: PathBuf },
    Hub { url: String, token: Token, ca: Option<Authority> },
}

/// The certificate authority of a hub, where it is the hub's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Authority {
    File(PathBuf),
    /// PEM.
    Text(String),
}

impl Target {
    /// Whether it is the hub that was logged in to.
    pub(crate) fn is_kept(&self) -> bool {
        matches!(self, Self::Hub { token: Token::Kept(_), .. })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Edge { socket } => write!(f, "edge at {}", socket.display()),
            Self::Hub { url, .. } => write!(f, "hub at {url}"),
        }
    }
}

/// What surrounds a command, as far as finding its target goes. An argument, so that a test needs no environment.
pub(crate) struct Surroundings {
    pub(crate) variables: fn(&str) -> Option<String>,
    /// Sockets where an edge of this machine listens, first choice first.
    pub(crate) sockets: Vec<PathBuf>,
    /// Where the hub that was logged in to is remembered.
    pub(crate) login: Option<PathBuf>,
}

impl Surroundings {
    /// The ones of this process.
    pub(crate) fn real() -> Self {
        let mut sockets = vec![PathBuf::from("/run/llm-config/edge.sock")];
        sockets
            .extend([Path::new("/var/lib/llm-config").join("edge.sock"), default_data().join("edge.sock")]);
        sockets.dedup();
        sockets.retain(|socket| socket.exists());
        let variables = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
        Self { variables, sockets, login: login::file(variables) }
    }
}

/// Where an edge keeps its data unless told otherwise: the system's state directory for root, the user's for others.
pub(crate) fn default_data() -> PathBuf {
    // systemd names the directory that it made for the unit; it may name several, separated by colons.
    let given = std::env::var("STATE_DIRECTORY").ok().filter(|text| !text.is_empty());
    if let Some(first) = given.as_deref().and_then(|text| text.split(':').next()) {
        return first.into();
    }
    let root =
        std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    let variable = |name| std::env::var_os(name).filter(|text| !text.is_empty()).map(PathBuf::from);
    match (root, variable("XDG_STATE_HOME"), variable("HOME")) {
        (true, ..) | (false, None, None) => "/var/lib/llm-config".into(),
        (false, Some(state), _) => state.join("llm-config"),
        (false, None, Some(home)) => home.join(".local/state/llm-config"),
    }
}

/// Decides where a command goes.
///
/// # Errors
/// When two targets are named at once, when a hub is named without a token, or when there is nothing to talk to.
pub(crate) fn resolve(args: &TargetArgs, around: &Surroundings) -> Result<Target, Failure> {
    if let Some(target) = from_flags(args, around)? {
        return Ok(target);
    }
    if let Some(target) = from_variables(args, around)? {
        return Ok(target);
    }
    if let Some(socket) = around.sockets.first() {
        return Ok(Target::Edge { socket: socket.clone() });
    }
    if let Some(hub) = around.login.as_deref().map_or(Ok(None), login::remembered)? {
        return Ok(hub);
    }
    Err(Failure::usage(
        "no edge runs here and no hub is named; start one with `llm-config edge run`, or `llm-config login` to a hub, or \
         give --socket PATH, or --hub URL with --token-file FILE (or LLM_CONFIG_SOCKET, or LLM_CONFIG_HUB with \
         LLM_CONFIG_TOKEN)",
    ))
}

fn from_flags(args: &TargetArgs, around: &Surroundings) -> Result<Option<Target>, Failure> {
    let named = [
        ("--socket", args.socket.is_some()),
        ("--hub", args.hub.is_some()),
        ("--storage", args.storage.is_some()),
    ];
    let named: Vec<_> = named.iter().filter(|(_, given)| *given).map(|(flag, _)| *flag).collect();
    if named.len() > 1 {
        return Err(Failure::usage(format!("{} name two targets; give one of them", named.join(" and "))));
    }
    if args.storage.is_some() {
        return Err(Failure::usage(
            "a local store is not available yet; use an edge (--socket PATH) or a hub (--hub URL --token-file FILE)",
        ));
    }
    if let Some(socket) = &args.socket {
        if args.token_file.is_some() || args.ca.is_some() {
            return Err(Failure::usage(
                "--token-file and --ca belong to --hub; an edge's socket knows who you are",
            ));
        }
        return Ok(Some(Target::Edge { socket: socket.clone() }));
    }
    args.hub.as_deref().map(|url| hub(url, args, around)).transpose()
}

fn from_variables(args: &TargetArgs, around: &Surroundings) -> Result<Option<Target>, Failure> {
    match ((around.variables)("LLM_CONFIG_SOCKET"), (around.variables)("LLM_CONFIG_HUB")) {
        (Some(_), Some(_)) => {
            Err(Failure::usage("LLM_CONFIG_SOCKET and LLM_CONFIG_HUB name two targets; unset one of them"))
        }
        (Some(socket), None) => Ok(Some(Target::Edge { socket: socket.into() })),
        (None, Some(url)) => hub(&url, args, around).map(Some),
        (None, None) if args.token_file.is_some() || args.ca.is_some() => {
            Err(Failure::usage("--token-file and --ca need --hub URL beside them"))
        }
        (None, None) => Ok(None),
    }
}

/// The address of a hub, checked: scheme, host and perhaps a port, without the slash that people leave behind it.
///
/// # Errors
/// When it is anything else.
pub(crate) fn hub_address(url: &str) -> Result<&str, Failure> {
    let url = url.trim_end_matches('/');
    let bad = |why: &str| Failure::usage(format!("{url} is no hub address: {why}; write https://HOST:PORT"));
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err(bad("it has no https:// in front"));
    };
    if !matches!(scheme, "http" | "https") {
        return Err(bad("it is neither https nor http"));
    }
    if rest.is_empty() || rest.contains(['/', '?', '#', '@', ' ']) {
        return Err(bad("it is more than a host and a port"));
    }
    Ok(url)
}

/// Whether a token may be sent there: encrypted, or never leaving this machine.
pub(crate) fn is_safe(url: &str) -> bool {
    let Some(rest) = url.strip_prefix("http://") else { return true };
    // An IPv6 address stands in brackets, and has colons of its own.
    let host = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or(rest, |(host, _)| host),
        None => rest.split_once(':').map_or(rest, |(host, _)| host),
    };
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|host| host.is_loopback())
}

fn hub(url: &str, args: &TargetArgs, around: &Surroundings) -> Result<Target, Failure> {
    let url = hub_address(url)?;
    let token = match (&args.token_file, (around.variables)("LLM_CONFIG_TOKEN")) {
        (Some(file), _) => Token::File(file.clone()),
        (None, Some(text)) => Token::Text(text),
        (None, None) => {
            let message = format!(
                "the hub at {url} wants an API token; give --token-file FILE or set LLM_CONFIG_TOKEN"
            );
            return Err(Failure::new(Exit::Usage, message));
        }
    };
    let ca = args.ca.clone().or_else(|| (around.variables)("LLM_CONFIG_CA").map(PathBuf::from));
    Ok(Target::Hub { url: url.to_owned(), token, ca: ca.map(Authority::File) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn none(_: &str) -> Option<String> {
        None
    }

    fn hub_and_token(name: &str) -> Option<String> {
        let known = [("LLM_CONFIG_HUB", "https://h:1"), ("LLM_CONFIG_TOKEN", "t")];
        known.iter().find(|(known, _)| *known == name).map(|(_, text)| (*text).to_owned())
    }

    fn around(variables: fn(&str) -> Option<String>, sockets: &[&str]) -> Surroundings {
        Surroundings { variables, sockets: sockets.iter().map(PathBuf::from).collect(), login: None }
    }

    fn socket(path: &str) -> Target {
        Target::Edge { socket: path.into() }
    }

    fn socket_only(name: &str) -> Option<String> {
        (name == "LLM_CONFIG_SOCKET").then(|| "/var".to_owned())
    }

    #[test]
    fn flags_come_before_variables_and_those_before_the_system() {
        let args = TargetArgs { socket: Some("/flag".into()), ..TargetArgs::default() };
        assert_eq!(resolve(&args, &around(hub_and_token, &["/system"])).unwrap(), socket("/flag"));
        let bare = TargetArgs::default();
        let hub = Target::Hub { url: "https://h:1".into(), token: Token::Text("t".into()), ca: None };
        assert_eq!(resolve(&bare, &around(hub_and_token, &["/system"])).unwrap(), hub);
        assert_eq!(resolve(&bare, &around(socket_only, &["/system"])).unwrap(), socket("/var"));
        assert_eq!(resolve(&bare, &around(none, &["/system", "/user"])).unwrap(), socket("/system"));
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("hub.json");
        super::super::whole_file::replace(&file, r#"{"hub":"https://h:1","token":"t"}"#, 0o600).unwrap();
        let logged_in = |sockets| Surroundings { login: Some(file.clone()), ..around(none, sockets) };
        assert_eq!(resolve(&bare, &logged_in(&["/system"])).unwrap(), socket("/system"));
        let kept = Target::Hub { url: "https://h:1".into(), token: Token::Kept("t".into()), ca: None };
        assert_eq!(resolve(&bare, &logged_in(&[])).unwrap(), kept);
    }

    #[test]
    fn two_of_a_kind_and_nothing_at_all_are_used_wrongly() {
        let two = TargetArgs {
            socket: Some("/s".into()),
            hub: Some("https://h:1".into()),
            ..TargetArgs::default()
        };
        let failure = resolve(&two, &around(none, &[])).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.message.contains("--socket and --hub"));
        let both = around(|name| name.starts_with("LLM_CONFIG").then(|| "x".to_owned()), &["/system"]);
        assert!(resolve(&TargetArgs::default(), &both).is_err());
        assert_eq!(resolve(&TargetArgs::default(), &around(none, &[])).unwrap_err().exit, Exit::Usage);
        let store = TargetArgs { storage: Some("d".into()), ..TargetArgs::default() };
        assert!(
            resolve(&store, &around(none, &["/system"])).unwrap_err().message.contains("not available yet")
        );
    }

    #[test]
    fn a_hub_needs_a_token_and_a_plain_address() {
        let hub = |url: &str| TargetArgs { hub: Some(url.into()), ..TargetArgs::default() };
        assert!(
            resolve(&hub("https://h:1"), &around(none, &[])).unwrap_err().message.contains("--token-file")
        );
        let token = around(|name| (name == "LLM_CONFIG_TOKEN").then(|| "t".to_owned()), &[]);
        assert!(resolve(&hub("https://h:1/"), &token).is_ok());
        for bad in ["h:1", "ftp://h", "https://", "https://h/api", "https://u@h"] {
            assert_eq!(resolve(&hub(bad), &token).unwrap_err().exit, Exit::Usage, "{bad}");
        }
        let stray = TargetArgs { token_file: Some("f".into()), ..TargetArgs::default() };
        assert!(resolve(&stray, &around(none, &["/system"])).is_err());
    }

    #[test]
    fn a_token_goes_in_clear_to_this_machine_alone() {
        for safe in [
            "https://h",
            "http://localhost:80",
            "http://127.0.0.1:8080",
            "http://[::1]:8080",
            "http://127.9.9.9",
        ] {
            assert!(is_safe(safe), "{safe}");
        }
        for open in [
            "http://h:80",
            "http://localhost.example.com",
            "http://127.0.0.1.example.com",
            "http://localhostile:80",
            "http://[::2]",
        ] {
            assert!(!is_safe(open), "{open}");
        }
    }

    #[test]
    fn a_token_is_never_printed() {
        for token in [Token::Text("lcm_secret".into()), Token::Kept("lcm_secret".into())] {
            assert!(!format!("{token:?}").contains("secret"));
        }
    }
}
