//! The life of secrets: which expire, and how each is rotated.

use std::time::{Duration, Instant};

use http::Method;
use serde::Deserialize;
use serde_json::json;

use super::address::Address;
use super::connection::{Answer, Connection};
use super::entries::{self, Place};
use super::exit::{Exit, Failure};
use super::output;
use super::pace::length;

/// How often it is looked how far a rotation has come.
const ASK_EVERY: Duration = Duration::from_millis(300);

#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum SecretsCommand {
    /// Secrets that expire soon or have expired, the first to expire first
    Expiring {
        /// How soon, as 30d or 12h
        #[arg(long, value_name = "TIME", default_value = "30d")]
        within: String,
        /// How many
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: usize,
    },
    /// Say how a secret is rotated: by a generated value, or by a command of the hub's settings
    Plan(PlanArgs),
    /// Rotate a secret now, as its plan says
    Rotate(RotateArgs),
    /// Every secret with a plan, or how one is rotated and how far its rotations have come
    Rotations {
        /// Folder path, as app/llm
        #[arg(value_parser = entries::namespace, requires = "key")]
        namespace: Option<String>,
        /// Name of the entry
        #[arg(value_parser = entries::key)]
        key: Option<String>,
        /// Environment; without it, the default of what is asked
        #[arg(long, short, value_name = "ENV", value_parser = entries::environment, requires = "key")]
        env: Option<String>,
    },
    /// Remove the value of one old version for good; its place in the history stays
    Purge {
        #[command(flatten)]
        place: Place,
        /// Which version
        #[arg(long, value_name = "N")]
        version: u64,
    },
    /// How the hub encrypts secrets that are written from now on: xchacha20poly1305, aes256gcm or chacha20poly1305
    Cipher {
        /// Another one than now
        name: Option<String>,
    },
    /// Say that the old version of a rotated secret is not needed any more
    Retire {
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    place: Place,
    /// Rotate it so many days after it was written last; without it, only when it is asked for
    #[arg(long, value_name = "DAYS")]
    every: Option<u64>,
    /// How long the old version is still needed at most
    #[arg(long, value_name = "TIME", default_value = "24h")]
    grace: String,
    /// Random characters, which is what happens unless a command is named
    #[arg(long, conflicts_with = "command")]
    generate: bool,
    /// How many
    #[arg(long, value_name = "N", conflicts_with = "command")]
    length: Option<u32>,
    /// Of which
    #[arg(long, value_name = "CHARACTERS", conflicts_with = "command")]
    alphabet: Option<String>,
    /// Name of a command in the hub's settings
    #[arg(long, value_name = "NAME")]
    command: Option<String>,
    /// Tell the command the old value, on its stdin
    #[arg(long, requires = "command")]
    old_value: bool,
    /// Do not rotate it any more
    #[arg(long, conflicts_with_all = ["every", "generate", "length", "alphabet", "command", "old_value"])]
    remove: bool,
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct RotateArgs {
    #[command(flatten)]
    place: Place,
    /// How long to wait until the new value is written
    #[arg(long, value_name = "TIME", default_value = "90s", value_parser = length)]
    timeout: Duration,
}

/// A secret that expires, as the REST API gives it.
#[derive(Debug, Deserialize)]
struct Expiring {
    namespace: String,
    key: String,
    environment: String,
    version: u64,
    secret_type: String,
    expires_at: String,
}

/// How a secret is rotated, as the REST API gives it.
#[derive(Debug, Deserialize)]
struct State {
    plan: Option<serde_json::Value>,
    rotations: Vec<Rotation>,
}

#[derive(Debug, Deserialize)]
struct Rotation {
    id: String,
    step: String,
    by: String,
    old_version: u64,
    new_version: Option<u64>,
    began_at: String,
    retire_at: Option<String>,
    why: Option<String>,
}

fn address(place: &Place, what: &str) -> Address {
    Address::new(&["secrets", &place.namespace, &place.key, what]).with_some("env", place.env.as_deref())
}

pub(crate) async fn secrets(
    connection: &Connection,
    command: &SecretsCommand,
    json: bool,
) -> Result<(), Failure> {
    match command {
        SecretsCommand::Expiring { within, limit } => expiring(connection, within, *limit, json).await,
        SecretsCommand::Plan(args) => plan(connection, args, json).await,
        SecretsCommand::Rotate(args) => rotate(connection, args, json).await,
        SecretsCommand::Rotations { namespace: Some(namespace), key: Some(key), env } => {
            let place = Place { namespace: namespace.clone(), key: key.clone(), env: env.clone() };
            rotations(connection, &place, json).await
        }
        SecretsCommand::Rotations { .. } => planned(connection, json).await,
        SecretsCommand::Purge { place, version } => purge(connection, place, *version, json).await,
        SecretsCommand::Cipher { name } => cipher(connection, name.as_deref(), json).await,
        SecretsCommand::Retire { place } => {
            let answer = connection.ask(Method::POST, &address(place, "retire"), None).await?;
            let told =
                |rotation: Rotation| format!("version {} is not needed any more", rotation.old_version);
            told_or(&answer, json, told)
        }
    }
}

fn told_or<T: serde::de::DeserializeOwned>(
    answer: &Answer,
    json: bool,
    told: impl Fn(T) -> String,
) -> Result<(), Failure> {
    if json { output::line(answer.text()) } else { output::line(told(answer.parsed()?)) }
}

async fn expiring(connection: &Connection, within: &str, limit: usize, json: bool) -> Result<(), Failure> {
    let address =
        Address::new(&["secrets", "expiring"]).with("within", within).with("limit", &limit.to_string());
    let answer = connection.ask(Method::GET, &address, None).await?;
    if json {
        return output::line(answer.text());
    }
    let rows = answer.parsed::<Vec<Expiring>>()?.into_iter().map(|secret| {
        let entry = format!("{} {}", secret.namespace, secret.key);
        vec![secret.expires_at, entry, secret.environment, secret.secret_type, secret.version.to_string()]
    });
    output::table(&["expires", "entry", "environment", "type", "version"], rows)
}

async fn plan(connection: &Connection, args: &PlanArgs, json: bool) -> Result<(), Failure> {
    let (place, name) =
        (address(&args.place, "rotation"), format!("{} {}", args.place.namespace, args.place.key));
    if args.remove {
        connection.ask(Method::DELETE, &place, None).await?;
        return if json {
            output::line("{\"removed\":true}")
        } else {
            output::line(format!("{name}: not rotated any more"))
        };
    }
    let mut body = json!({ "every_days": args.every, "grace": args.grace, "old_value": args.old_value });
    match &args.command {
        Some(command) => body["command"] = command.as_str().into(),
        None => body["generate"] = json!({ "length": args.length, "alphabet": args.alphabet }),
    }
    let answer = connection.ask(Method::PUT, &place, Some(body.to_string())).await?;
    let when =
        args.every.map_or_else(|| "when it is asked for".to_owned(), |days| format!("every {days} days"));
    told_or(&answer, json, |_: State| format!("{name}: rotated {when}"))
}

async fn purge(connection: &Connection, place: &Place, version: u64, json: bool) -> Result<(), Failure> {
    #[derive(Deserialize)]
    struct Purged {
        backups: Vec<Backup>,
    }
    #[derive(Deserialize)]
    struct Backup {
        made_at: String,
        file: String,
    }
    let body = json!({ "version": version }).to_string();
    let answer = connection.ask(Method::POST, &address(place, "purge"), Some(body)).await?;
    if json {
        return output::line(answer.text());
    }
    let Purged { backups } = answer.parsed()?;
    let held =
        if backups.is_empty() { "no backup of this hub holds it" } else { "these backups still hold it:" };
    output::line(format!(
        "the value of version {version} of {} {} is gone; {held}",
        place.namespace, place.key
    ))?;
    backups.iter().try_for_each(|backup| output::line(format!("{} {}", backup.made_at, backup.file)))
}

async fn cipher(connection: &Connection, name: Option<&str>, json: bool) -> Result<(), Failure> {
    #[derive(Deserialize)]
    struct Sealing {
        cipher: String,
    }
    let address = Address::new(&["secrets", "sealing"]);
    let answer = match name {
        None => connection.ask(Method::GET, &address, None).await?,
        Some(name) => {
            let body = json!({ "cipher": name }).to_string();
            connection.ask(Method::PUT, &address, Some(body)).await?
        }
    };
    told_or(&answer, json, |sealing: Sealing| sealing.cipher)
}

/// Begins a rotation and waits until it is written.
async fn rotate(connection: &Connection, args: &RotateArgs, json: bool) -> Result<(), Failure> {
    let begun: Rotation =
        connection.ask(Method::POST, &address(&args.place, "rotate"), None).await?.parsed()?;
    let until = Instant::now() + args.timeout;
    loop {
        let answer = connection.ask(Method::GET, &address(&args.place, "rotation"), None).await?;
        let rotations = answer.parsed::<State>()?.rotations;
        let Some(rotation) = rotations.into_iter().find(|rotation| rotation.id == begun.id) else {
            return Err(Failure::failed("the hub does not know of the rotation any more"));
        };
        match (rotation.step.as_str(), rotation.new_version) {
            ("written" | "retired", Some(new)) => {
                if json {
                    return output::line(answer.text());
                }
                let (old, until) = (rotation.old_version, rotation.retire_at.unwrap_or_default());
                output::line(format!(
                    "version {new} is written; version {old} is kept for those who still use it, until {until} at most"
                ))?;
                return output::line(format!("see who: llm-config change wait {} --in-use", rotation.id));
            }
            ("failed", _) => return Err(Failure::failed(rotation.why.unwrap_or_default())),
            _ if Instant::now() < until => tokio::time::sleep(ASK_EVERY).await,
            _ => {
                let why = rotation.why.map_or_else(String::new, |why| format!(": {why}"));
                let message = format!(
                    "nothing is written yet{why}; the hub goes on trying, see `llm-config secrets rotations`"
                );
                return Err(Failure::new(Exit::Stale, message));
            }
        }
    }
}

async fn planned(connection: &Connection, json: bool) -> Result<(), Failure> {
    #[derive(Deserialize)]
    struct Planned {
        environment: String,
        namespace: String,
        key: String,
        due_at: Option<String>,
        last: Option<Rotation>,
    }
    let answer = connection.ask(Method::GET, &Address::new(&["secrets", "rotations"]), None).await?;
    if json {
        return output::line(answer.text());
    }
    let rows = answer.parsed::<Vec<Planned>>()?.into_iter().map(|secret| {
        let entry = format!("{} {}", secret.namespace, secret.key);
        let due = secret.due_at.unwrap_or_else(|| "when asked for".to_owned());
        let (step, began) = secret.last.map(|last| (last.step, last.began_at)).unwrap_or_default();
        vec![due, entry, secret.environment, step, began]
    });
    output::table(&["due", "entry", "environment", "last rotation", "began"], rows)
}

async fn rotations(connection: &Connection, place: &Place, json: bool) -> Result<(), Failure> {
    let answer = connection.ask(Method::GET, &address(place, "rotation"), None).await?;
    if json {
        return output::line(answer.text());
    }
    let state: State = answer.parsed()?;
    match &state.plan {
        Some(plan) => output::hint(format!("plan: {plan}")),
        None => output::hint("there is no plan; say one with `llm-config secrets plan`"),
    }
    let rows = state.rotations.into_iter().map(|rotation| {
        let new = rotation.new_version.map_or_else(|| "–".to_owned(), |version| version.to_string());
        vec![
            rotation.id,
            rotation.step,
            rotation.old_version.to_string(),
            new,
            rotation.began_at,
            rotation.by,
            rotation.why.unwrap_or_default(),
        ]
    });
    output::table(&["rotation", "step", "old", "new", "began", "by", "why"], rows)
}
