//! Files that are carried to edges that cannot reach the hub.

use std::path::PathBuf;

use http::Method;
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
