//! Files that are carried to and from edges that cannot reach the hub.

use std::path::{Path, PathBuf};

use http::Method;
use serde::Deserialize;
use serde_json::json;

use super::super::address::Address;
use super::super::connection::Connection;
use super::super::exit::Failure;
use super::super::output;
use super::{edge_name, write_new};

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct CarryArgs {
    /// Its name
    #[arg(value_parser = edge_name)]
    name: String,
    /// The file to write; it opens nothing without the edge's own keys
    #[arg(long, short, value_name = "FILE")]
    out: PathBuf,
    /// Everything, not only what the edge lacks as far as the hub knows
    #[arg(long)]
    full: bool,
    /// How long the edge will take the file [default: 7d]
    #[arg(long, value_name = "DURATION")]
    good_for: Option<String>,
}

/// Writes the file that is carried to an edge.
pub(super) async fn carry(connection: &Connection, args: &CarryArgs, json: bool) -> Result<(), Failure> {
    let address = Address::new(&["edges", &args.name, "carry"])
        .with_flag("full", args.full)
        .with_some("good_for", args.good_for.as_deref());
    let answer = connection.ask(Method::GET, &address, None).await?;
    write_new(&args.out, answer.bytes())?;
    let until = answer.header("x-config-good-until").unwrap_or("its end").to_owned();
    if json {
        let bytes = answer.bytes().len();
        let told = json!({"edge": args.name, "file": args.out, "bytes": bytes, "good_until": until});
        return output::line(told.to_string());
    }
    output::line(format!("good until {until}; at the edge: llm-config edge apply {}", args.out.display()))
}

/// What became of an edge's writes.
#[derive(Deserialize)]
struct TakenIn {
    edge: String,
    accepted: u64,
    known: u64,
    conflicts: u64,
    held: u64,
    denied: u64,
    left: u64,
    /// Who uses what there was told, and noted.
    #[serde(default)]
    uses: bool,
}

/// Brings what waits at an edge.
pub(super) async fn apply(connection: &Connection, file: &Path, json: bool) -> Result<(), Failure> {
    let bytes =
        std::fs::read(file).map_err(|error| Failure::usage(format!("{}: {error}", file.display())))?;
    let address = Address::new(&["fleet", "carried"]);
    let answer = connection.ask_with(Method::POST, &address, Some(bytes.into())).await?;
    if json {
        return output::line(answer.text());
    }
    let TakenIn { edge, accepted, known, conflicts, held, denied, left, uses } = answer.parsed()?;
    let counts = [
        (accepted, "accepted"),
        (known, "known already"),
        (conflicts, "lost to a value written meanwhile"),
        (held, "held for a person"),
        (denied, "denied"),
        (left, "left to the edge, which has been connected since"),
    ];
    let told = counts.iter().filter(|(count, what)| *count > 0 || *what == "accepted");
    let told: Vec<String> = told.map(|(count, what)| format!("{} {what}", output::count(*count))).collect();
    let noted = if uses { "; noted what is in use there" } else { "" };
    output::line(format!("{edge}: {}{noted}", told.join(", ")))?;
    output::hint(format!("the edge hears of it with the next file: llm-config fleet carry {edge} -o FILE"));
    Ok(())
}
