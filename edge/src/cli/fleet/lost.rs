//! Lost edges: shutting them out, what they could read, and whether they are known to have destroyed their data.

use std::path::PathBuf;

use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::address::Address;
use super::super::connection::Connection;
use super::super::exit::Failure;
use super::super::output;
use super::{edge_name, write_own};

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct LostArgs {
    /// Its name
    #[arg(value_parser = edge_name)]
    name: String,
    /// Only show what it could read, and how many other edges share each secret
    #[arg(long)]
    dry_run: bool,
    /// Write the signed receipt to this file
    #[arg(long, short, value_name = "FILE", conflicts_with = "dry_run")]
    out: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
struct Document {
    receipt: Receipt,
}

#[derive(Debug, Deserialize)]
struct Receipt {
    exposed: Vec<Exposed>,
    to_rotate: u64,
}

#[derive(Debug, Deserialize)]
struct Exposed {
    environment: String,
    namespace: String,
    key: String,
    version: u64,
    current: bool,
    shared_with: u64,
}

impl Exposed {
    fn row(self) -> Vec<String> {
        let current = if self.current { "replace it" } else { "replaced or gone" };
        let shared = format!("{} other edges", self.shared_with);
        let entry = format!("{}/{}", self.namespace, self.key);
        vec![entry, self.environment, self.version.to_string(), current.into(), shared]
    }
}

/// Reports an edge lost, or shows what that would say.
pub(super) async fn lost(connection: &Connection, args: &LostArgs, json: bool) -> Result<(), Failure> {
    let address = Address::new(&["edges", &args.name, "lost"]);
    let body = json!({ "dry_run": args.dry_run }).to_string();
    let answer = connection.ask(Method::POST, &address, Some(body)).await?;
    if let Some(path) = &args.out {
        write_own(path, answer.text().trim_end())?;
    }
    if json {
        return output::line(answer.text());
    }
    let Receipt { exposed, to_rotate } = answer.parsed::<Document>()?.receipt;
    let count = output::count(exposed.len() as u64);
    output::table(
        &["secret", "environment", "version", "state", "shared with"],
        exposed.into_iter().map(Exposed::row),
    )?;
    let done = if args.dry_run { "would be shut out" } else { "is shut out" };
    output::line(format!(
        "{} {done}; it could read {count} versions of secrets, of which {to_rotate} are in use and should be replaced",
        args.name
    ))?;
    if !args.dry_run && to_rotate > 0 {
        output::hint("those that have a plan are replaced now; what is left: llm-config fleet exposed");
    }
    if args.out.is_none() && !args.dry_run {
        output::hint(format!("the signed receipt: llm-config fleet lost {} -o FILE", args.name));
    }
    Ok(())
}

/// Secrets that lost edges could read.
pub(super) async fn exposed(connection: &Connection, json: bool) -> Result<(), Failure> {
    let answer = connection.ask(Method::GET, &Address::new(&["exposed-secrets"]), None).await?;
    if json {
        return output::line(answer.text());
    }
    #[derive(Deserialize)]
    struct Line {
        environment: String,
        namespace: String,
        key: String,
        version: u64,
        edge: String,
        lost_at: String,
        rotated: bool,
        planned: bool,
    }
    let row = |line: Line| {
        let state = match (line.rotated, line.planned) {
            (true, _) => "replaced or gone",
            (false, true) => "its plan replaces it",
            (false, false) => "replace it",
        };
        let entry = format!("{}/{}", line.namespace, line.key);
        vec![entry, line.environment, line.version.to_string(), state.into(), line.edge, line.lost_at]
    };
    let lines: Vec<Line> = answer.parsed()?;
    output::table(
        &["secret", "environment", "version", "state", "lost edge", "lost"],
        lines.into_iter().map(row),
    )
}

/// Removed edges, and whether each has destroyed its data.
pub(super) async fn removed(connection: &Connection, json: bool) -> Result<(), Failure> {
    let answer = connection.ask(Method::GET, &Address::new(&["edges"]), None).await?;
    let edges: Vec<Value> = answer.parsed()?;
    let removed: Vec<Value> = edges.into_iter().filter(|edge| edge["removed_at"].is_string()).collect();
    if json {
        return output::line(Value::from(removed).to_string());
    }
    let text = |edge: &Value, name: &str| edge[name].as_str().unwrap_or("").to_owned();
    let rows = removed.iter().map(|edge| {
        vec![text(edge, "name"), text(edge, "removed_at"), text(edge, "wipe"), text(edge, "wiped_at")]
    });
    output::table(&["edge", "removed", "data destroyed", "when"], rows)
}
