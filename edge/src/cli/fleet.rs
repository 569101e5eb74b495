//! The hub's edges: who there is, how they are doing, who may join, who is out.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use http::Method;
use llm_config_shared::name::{EdgeName, Subtree};
use serde::Deserialize;
use serde_json::json;

use super::address::Address;
use super::connection::Connection;
use super::entries;
use super::exit::Failure;
use super::output;

mod carry;
mod lost;

#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum FleetCommand {
    /// All edges, how far each is and when it was last seen
    #[command(visible_alias = "list")]
    Ls {
        /// Removed ones instead, and whether each has said that its data is destroyed
        #[arg(long)]
        removed: bool,
    },
    /// One edge
    Show {
        /// Its name
        #[arg(value_parser = edge_name)]
        name: String,
    },
    /// A token that lets an edge join, shown this once
    Token(TokenArgs),
    /// Change what an edge receives and where it may write; what is left out stays as it is
    Set(SetArgs),
    /// Shut an edge out; it destroys its data at its next contact, and its secrets lock at the offline limit without one
    Remove {
        /// Its name
        #[arg(value_parser = edge_name)]
        name: String,
    },
    /// An edge is lost: shut it out, and state every version of a secret that it could read
    Lost(lost::LostArgs),
    /// Into a file what an edge lacks that cannot reach the hub: llm-config edge apply FILE there
    Carry(carry::CarryArgs),
    /// Take in a file of `edge carry`: the writes that wait at an edge which cannot reach the hub
    Apply {
        /// The file that was carried here
        file: PathBuf,
    },
    /// Secrets that lost edges could read, those that wait to be replaced first
    Exposed,
}

#[derive(Clone, Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("changed").args(["namespaces", "environments", "write"]).multiple(true).required(true))]
pub(crate) struct SetArgs {
    /// Its name
    #[arg(value_parser = edge_name)]
    name: String,
    /// Folders that it receives
    #[arg(long, value_delimiter = ',', value_parser = subtree)]
    namespaces: Option<Vec<String>>,
    /// Environments that it receives, with their parents; the first is its default
    #[arg(long, value_delimiter = ',', value_parser = entries::environment)]
    environments: Option<Vec<String>>,
    /// Folders that it may write
    #[arg(long, value_delimiter = ',', value_parser = subtree)]
    write: Option<Vec<String>>,
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct TokenArgs {
    /// The name that the edge will have
    #[arg(long, value_parser = edge_name)]
    name: String,
    /// Folders that it receives; everything if left out (only where the hub runs as `dev`)
    #[arg(long, value_delimiter = ',', value_parser = subtree)]
    namespaces: Vec<String>,
    /// Environments that it receives, with their parents
    #[arg(long, value_delimiter = ',', value_parser = entries::environment)]
    environments: Vec<String>,
    /// Folders that it may write; edges/NAME if left out
    #[arg(long, value_delimiter = ',', value_parser = subtree)]
    write: Vec<String>,
    /// Labels, as site=berlin,role=kiosk
    #[arg(long, value_delimiter = ',', value_parser = label)]
    labels: Vec<(String, String)>,
    /// How long it can be used, as 15m or 24h
    #[arg(long, value_name = "TIME")]
    ttl: Option<String>,
    /// How often it can be used
    #[arg(long, value_name = "N")]
    max_uses: Option<u32>,
    /// Write it to this file, readable by you alone, instead of stdout
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(super) fn edge_name(text: &str) -> Result<String, String> {
    EdgeName::parse(text).map(|name| name.to_string()).map_err(|why| why.to_string())
}

fn subtree(text: &str) -> Result<String, String> {
    Subtree::parse(text).map(|tree| tree.as_str().to_owned()).map_err(|why| why.to_string())
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write a label as NAME=VALUE".into()),
    }
}

/// An edge as the REST API gives it.
#[derive(Debug, Deserialize)]
struct Edge {
    name: String,
    /// `current`, `behind`, `offline` or `removed`.
    status: String,
    behind: u64,
    namespaces: Vec<String>,
    environments: Vec<String>,
    last_seen_at: Option<String>,
}

impl Edge {
    fn row(self) -> Vec<String> {
        let all = |names: Vec<String>| {
            if names.iter().all(String::is_empty) { "all".to_owned() } else { names.join(", ") }
        };
        let seen = self.last_seen_at.unwrap_or_else(|| "never".into());
        let missing = output::count(self.behind);
        vec![self.name, self.status, missing, all(self.namespaces), all(self.environments), seen]
    }
}

/// Runs a command about the hub's edges.
pub(crate) async fn fleet(
    connection: &Connection,
    command: &FleetCommand,
    json: bool,
) -> Result<(), Failure> {
    match command {
        FleetCommand::Ls { removed: false } => ls(connection, json).await,
        FleetCommand::Ls { removed: true } => lost::removed(connection, json).await,
        FleetCommand::Apply { file } => carry::apply(connection, file, json).await,
        FleetCommand::Carry(args) => carry::carry(connection, args, json).await,
        FleetCommand::Lost(args) => lost::lost(connection, args, json).await,
        FleetCommand::Exposed => lost::exposed(connection, json).await,
        FleetCommand::Show { name } => {
            let answer = connection.ask(Method::GET, &Address::new(&["edges", name]), None).await?;
            if json { output::line(answer.text()) } else { output::line(answer.indented()?) }
        }
        FleetCommand::Token(args) => token(connection, args, json).await,
        FleetCommand::Set(args) => set(connection, args, json).await,
        FleetCommand::Remove { name } => {
            connection.ask(Method::DELETE, &Address::new(&["edges", name]), None).await?;
            if json {
                return output::line(json!({"removed": name}).to_string());
            }
            output::line(format!(
                "{name} is shut out: it gets nothing more from the hub, and destroys its data when it comes back"
            ))
        }
    }
}

async fn ls(connection: &Connection, json: bool) -> Result<(), Failure> {
    let answer = connection.ask(Method::GET, &Address::new(&["fleet"]), None).await?;
    if json {
        return output::line(answer.text());
    }
    #[derive(Deserialize)]
    struct Fleet {
        edges: Vec<Edge>,
    }
    let fleet: Fleet = answer.parsed()?;
    let head = ["edge", "state", "changes missing", "namespaces", "environments", "last seen"];
    output::table(&head, fleet.edges.into_iter().map(Edge::row))
}

async fn set(connection: &Connection, args: &SetArgs, json: bool) -> Result<(), Failure> {
    let said =
        [("namespaces", &args.namespaces), ("environments", &args.environments), ("write", &args.write)];
    let body: serde_json::Map<_, _> =
        said.into_iter().filter_map(|(name, list)| Some((name.to_owned(), json!(list.as_ref()?)))).collect();
    let address = Address::new(&["edges", &args.name]);
    let answer =
        connection.ask(Method::PATCH, &address, Some(serde_json::Value::Object(body).to_string())).await?;
    if json {
        return output::line(answer.text());
    }
    #[derive(Deserialize)]
    struct Bound {
        connected: bool,
    }
    let bound: Bound = answer.parsed()?;
    let when = if bound.connected { "now" } else { "when it comes back" };
    output::line(format!("{} receives this {when}", args.name))
}

async fn token(connection: &Connection, args: &TokenArgs, json: bool) -> Result<(), Failure> {
    let mut body = json!({"name": args.name});
    let mut put = |name: &str, given: bool, value: serde_json::Value| {
        if given {
            body[name] = value;
        }
    };
    put("namespaces", !args.namespaces.is_empty(), json!(args.namespaces));
    put("environments", !args.environments.is_empty(), json!(args.environments));
    put("write", !args.write.is_empty(), json!(args.write));
    let labels: BTreeMap<_, _> = args.labels.iter().cloned().collect();
    put("labels", !labels.is_empty(), json!(labels));
    put("ttl", args.ttl.is_some(), json!(args.ttl));
    put("max_uses", args.max_uses.is_some(), json!(args.max_uses));
    let answer =
        connection.ask(Method::POST, &Address::new(&["join-tokens"]), Some(body.to_string())).await?;
    #[derive(Deserialize)]
    struct Shown {
        token: String,
        expires_at: String,
    }
    let shown: Shown = answer.parsed()?;
    if let Some(path) = &args.out {
        write_own(path, &shown.token)?;
        if json {
            let told = json!({"name": args.name, "expires_at": shown.expires_at, "token_file": path});
            return output::line(told.to_string());
        }
        output::hint(format!("token for {} in {}, until {}", args.name, path.display(), shown.expires_at));
        return output::line(format!("llm-config edge run --join-token-file {}", path.display()));
    }
    if json {
        return output::line(answer.text());
    }
    output::hint(format!("token for {}, until {}; it is shown this once:", args.name, shown.expires_at));
    output::line(shown.token)
}

/// A new file that only its owner can read; an old one is never written over.
fn write_own(path: &Path, text: &str) -> Result<(), Failure> {
    write_new(path, format!("{text}\n").as_bytes())
}

/// The same of any bytes.
pub(super) fn write_new(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::failed(format!("cannot write {}: {error}", path.display()));
    let mut file =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    file.write_all(bytes).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_labels_are_checked_before_anything_is_sent() {
        assert!(edge_name("kiosk-7").is_ok() && edge_name("a/b").is_err());
        assert_eq!(label("site=berlin=mitte"), Ok(("site".into(), "berlin=mitte".into())));
        assert!(label("site").is_err() && label("=x").is_err());
    }

    #[test]
    fn an_edge_is_told_with_what_it_misses() {
        let text = r#"{"id":"i","name":"a","status":"offline","connected":false,"behind":1200,"namespaces":[""],
            "environments":["base"],"write":[],"labels":{},"joined_at":"t","last_seen_at":null,"removed_at":null}"#;
        let edge: Edge = serde_json::from_str(text).unwrap();
        assert_eq!(edge.row(), ["a", "offline", "1,200", "all", "base", "never"]);
    }
}
