//! Conflicts and held writes: which there are, what each side was, and what is decided about them.

use http::Method;
use llm_config_shared::settled::ConflictState;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::address::Address;
use super::connection::{Answer, Connection};
use super::entries;
use super::exit::Failure;
use super::output;

#[derive(Clone, Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct ConflictsArgs {
    /// How many, newest first
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: usize,
    /// Only those that are open, restored or dismissed
    #[arg(long, value_name = "STATE", value_parser = state)]
    state: Option<String>,
    #[command(subcommand)]
    command: Option<ConflictCommand>,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum ConflictCommand {
    /// Both sides in full
    Show {
        /// Its id, as `conflicts` prints it
        id: Uuid,
        /// Show the plaintext of secrets
        #[arg(long)]
        reveal: bool,
    },
    /// Make the loser the entry's value again, as a new version
    Restore {
        /// Its id, as `conflicts` prints it
        id: Uuid,
        #[command(flatten)]
        terms: Terms,
    },
    /// Mark it as seen; nothing else changes
    Dismiss {
        /// Its id, as `conflicts` prints it
        id: Uuid,
    },
}

#[derive(Clone, Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct HeldArgs {
    /// How many, newest first
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: usize,
    #[command(subcommand)]
    command: Option<HeldCommand>,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum HeldCommand {
    /// One held write in full
    Show {
        /// Its id, as `held` prints it
        id: Uuid,
    },
    /// Write it anew, in your name
    Release {
        /// Its id, as `held` prints it
        id: Uuid,
        #[command(flatten)]
        terms: Terms,
    },
    /// Close it; nothing is written
    Drop {
        /// Its id, as `held` prints it
        id: Uuid,
    },
}

/// Under which conditions something is written.
#[derive(Clone, Debug, Default, clap::Args)]
struct Terms {
    /// Only if the entry is at this version; needed where it has changed since
    #[arg(long, value_name = "N")]
    if_version: Option<u64>,
    /// Also where the entry holds a secret, which is plain afterwards
    #[arg(long)]
    over_secret: bool,
    /// Why, for the history
    #[arg(long, short, value_name = "TEXT")]
    message: Option<String>,
}

impl Terms {
    fn body(&self) -> String {
        let mut body = json!({});
        if let Some(version) = self.if_version {
            body["if_version"] = version.into();
        }
        if self.over_secret {
            body["secret"] = false.into();
        }
        if let Some(message) = &self.message {
            body["change_description"] = message.as_str().into();
        }
        body.to_string()
    }
}

fn state(text: &str) -> Result<String, String> {
    let known = ConflictState::parse(text).map(|state| state.as_str().to_owned());
    known.ok_or_else(|| "write open, restored or dismissed".into())
}

/// The entry that something is about.
#[derive(Debug, Deserialize)]
struct Of {
    namespace: String,
    key: String,
    environment: String,
}

impl Of {
    fn entry(&self) -> String {
        format!("{} {}", self.namespace, self.key)
    }
}

/// One of two writes that met, or a held one.
#[derive(Debug, Deserialize)]
struct Side {
    version: u64,
    value: Option<Box<RawValue>>,
    created_at: String,
    created_by: String,
    change_description: Option<String>,
    change: String,
    status: String,
    reason: Option<String>,
    site: Option<String>,
    edge: Option<String>,
    compared_at: Option<String>,
    claimed_at: Option<String>,
    had_seen: Option<String>,
}

impl Side {
    fn value(&self) -> String {
        self.value.as_deref().map_or_else(|| "deleted".to_owned(), entries::plain)
    }

    fn told(&self) -> String {
        format!("{} (version {}, {})", output::shortened(&self.value(), 40), self.version, self.created_by)
    }

    fn place(&self) -> String {
        match (&self.site, &self.edge) {
            (_, Some(edge)) => format!("edge {edge}"),
            (Some(site), None) => site.clone(),
            (None, None) => String::new(),
        }
    }

    /// What is told of it, line by line.
    fn cells(&self) -> [(&'static str, String); 10] {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        [
            ("value", self.value()),
            ("version", self.version.to_string()),
            ("by", self.created_by.clone()),
            ("where", self.place()),
            ("made", self.created_at.clone()),
            ("compared by its time", text(&self.compared_at)),
            ("its clock said", text(&self.claimed_at)),
            ("had seen", text(&self.had_seen)),
            ("message", text(&self.change_description)),
            ("change", self.change.clone()),
        ]
    }
}

/// Who decided, when, and what came of it.
#[derive(Debug, Deserialize)]
struct Resolution {
    by: String,
    at: String,
    version: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Conflict {
    id: String,
    detected_at: String,
    state: String,
    resolution: Option<Resolution>,
    current_version: Option<u64>,
    winner: Side,
    loser: Side,
}

/// Read in parts, for a value's own text survives no flattening.
fn both<A: serde::de::DeserializeOwned, B: serde::de::DeserializeOwned>(
    text: &RawValue,
) -> Result<(A, B), Failure> {
    let unexpected = |error| Failure::failed(format!("unexpected answer: {error}"));
    let first = serde_json::from_str(text.get()).map_err(unexpected)?;
    Ok((first, serde_json::from_str(text.get()).map_err(unexpected)?))
}

/// Runs `conflicts` and what stands below it.
pub(crate) async fn conflicts(
    connection: &Connection,
    args: &ConflictsArgs,
    json: bool,
) -> Result<(), Failure> {
    match &args.command {
        None => list(connection, args, json).await,
        Some(ConflictCommand::Show { id, reveal }) => {
            let address = Address::new(&["conflicts", &id.to_string()]).with_flag("reveal", *reveal);
            show(&connection.ask(Method::GET, &address, None).await?, json)
        }
        Some(ConflictCommand::Restore { id, terms }) => {
            let address = Address::new(&["conflicts", &id.to_string(), "restore"]);
            let answer = connection.ask(Method::POST, &address, Some(terms.body())).await?;
            told_resolution(&answer, json, "restored")
        }
        Some(ConflictCommand::Dismiss { id }) => {
            let address = Address::new(&["conflicts", &id.to_string(), "dismiss"]);
            let answer = connection.ask(Method::POST, &address, None).await?;
            told_resolution(&answer, json, "dismissed")
        }
    }
}

async fn list(connection: &Connection, args: &ConflictsArgs, json: bool) -> Result<(), Failure> {
    let address = Address::new(&["conflicts"])
        .with("limit", &args.limit.to_string())
        .with_some("state", args.state.as_deref());
    let answer = connection.ask(Method::GET, &address, None).await?;
    if json {
        return output::line(answer.text());
    }
    let mut rows = Vec::new();
    for row in answer.parsed::<Vec<Box<RawValue>>>()? {
        let (of, conflict): (Of, Conflict) = both(&row)?;
        rows.push(vec![
            conflict.id,
            of.entry(),
            of.environment,
            conflict.winner.told(),
            conflict.loser.told(),
            conflict.detected_at,
            conflict.state,
        ]);
    }
    let head = ["conflict", "entry", "environment", "won", "kept in the history", "noticed", "state"];
    output::table(&head, rows)
}

fn show(answer: &Answer, json: bool) -> Result<(), Failure> {
    if json {
        return output::line(answer.text());
    }
    let (of, conflict): (Of, Conflict) = both(&answer.parsed::<Box<RawValue>>()?)?;
    let now = match conflict.current_version {
        Some(version) => format!("at version {version} now"),
        None => "deleted now".to_owned(),
    };
    output::line(format!("{} in {}: {}, {now}", of.entry(), of.environment, conflict.state))?;
    if let Some(Resolution { by, at, version }) = &conflict.resolution {
        let written = version.map_or_else(String::new, |version| format!(", as version {version}"));
        output::line(format!("{} by {by} at {at}{written}", conflict.state))?;
    }
    let rows = conflict.winner.cells().into_iter().zip(conflict.loser.cells());
    let rows = rows.map(|((name, won), (_, lost))| vec![name.to_owned(), won, lost]);
    output::table(&["", "won", "lost"], rows)
}

/// What a decision did, in one line.
fn told_resolution(answer: &Answer, json: bool, verb: &str) -> Result<(), Failure> {
    if json {
        return output::line(answer.text());
    }
    #[derive(Deserialize)]
    struct Decided {
        #[serde(flatten)]
        of: Of,
        resolution: Option<Resolution>,
    }
    let decided: Decided = answer.parsed()?;
    let version = decided.resolution.and_then(|resolution| resolution.version);
    let written = version.map_or_else(String::new, |version| format!(" as version {version}"));
    output::line(format!("{} in {}: {verb}{written}", decided.of.entry(), decided.of.environment))
}

/// Runs `held` and what stands below it.
pub(crate) async fn held(connection: &Connection, args: &HeldArgs, json: bool) -> Result<(), Failure> {
    let (id, part, method, body, verb) = match &args.command {
        None => return list_held(connection, args, json).await,
        Some(HeldCommand::Show { id }) => (id, None, Method::GET, None, ""),
        Some(HeldCommand::Release { id, terms }) => {
            (id, Some("release"), Method::POST, Some(terms.body()), "released")
        }
        Some(HeldCommand::Drop { id }) => (id, Some("drop"), Method::POST, None, "dropped"),
    };
    let id = id.to_string();
    let segments: Vec<&str> = ["held", &id].into_iter().chain(part).collect();
    let answer = connection.ask(method, &Address::new(&segments), body).await?;
    if json || part.is_some() {
        return told_resolution(&answer, json, verb);
    }
    let (of, write): (Of, Side) = both(&answer.parsed::<Box<RawValue>>()?)?;
    let reason = write.reason.clone().unwrap_or_default();
    output::line(format!("{} in {}: {}: {reason}", of.entry(), of.environment, write.status))?;
    output::table(&["", "written"], write.cells().into_iter().map(|(name, cell)| vec![name.to_owned(), cell]))
}

async fn list_held(connection: &Connection, args: &HeldArgs, json: bool) -> Result<(), Failure> {
    let address = Address::new(&["held"]).with("limit", &args.limit.to_string());
    let answer = connection.ask(Method::GET, &address, None).await?;
    if json {
        return output::line(answer.text());
    }
    #[derive(Deserialize)]
    struct Held {
        held_id: String,
        #[serde(flatten)]
        of: Of,
    }
    let mut rows = Vec::new();
    for row in answer.parsed::<Vec<Box<RawValue>>>()? {
        let (held, write): (Held, Side) = both(&row)?;
        let value = output::shortened(&write.value(), 40);
        let reason = write.reason.unwrap_or_default();
        let of = held.of;
        rows.push(vec![
            held.held_id,
            of.entry(),
            of.environment,
            value,
            write.created_by,
            write.created_at,
            reason,
        ]);
    }
    output::table(&["held", "entry", "environment", "value", "by", "when", "why"], rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_are_told_with_their_exact_values() {
        let side = |version: u64, value: &str| {
            format!(
                r#"{{"version":{version},"value":{value},"created_at":"t","created_by":"edge:e/uid:0","change":"c",
                "change_description":null,"change_type":"update","status":"applied","site":"edge","edge":"e",
                "compared_at":"u","had_seen":"version 1"}}"#
            )
        };
        let text = format!(
            r#"{{"id":"i","namespace":"a/b","key":"k","environment":"base","detected_at":"t","state":"open",
            "current_version":2,"winner":{},"loser":{}}}"#,
            side(2, "1.50"),
            side(3, "null")
        );
        let text = RawValue::from_string(text).unwrap();
        let (of, conflict): (Of, Conflict) = both(&text).unwrap();
        assert_eq!((of.entry().as_str(), of.environment.as_str()), ("a/b k", "base"));
        assert_eq!(conflict.winner.told(), "1.50 (version 2, edge:e/uid:0)");
        let cells = conflict.winner.cells();
        assert_eq!((cells[3].1.as_str(), cells[7].1.as_str()), ("edge e", "version 1"));
        assert!(conflict.resolution.is_none());
    }

    #[test]
    fn only_what_was_said_is_sent() {
        assert_eq!(Terms::default().body(), "{}");
        let terms = Terms { if_version: Some(4), over_secret: true, message: None };
        assert_eq!(terms.body(), r#"{"if_version":4,"secret":false}"#);
        assert!(state("closed").is_err());
    }
}
