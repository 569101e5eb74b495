//! Receipts of lost edges, checked without a hub.

use std::fs;
use std::path::{Path, PathBuf};

use llm_config_proto::receipt;
use serde_json::Value;

use super::exit::Failure;
use super::output;

#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum ReceiptCommand {
    /// Check that a receipt is the hub's and was not changed; needs no network
    Verify {
        /// The receipt
        file: PathBuf,
        /// The certificate of the hub's certificate authority
        #[arg(long, value_name = "FILE")]
        ca: PathBuf,
    },
}

/// Runs a command about receipts.
pub(crate) fn run(command: &ReceiptCommand, json: bool) -> Result<(), Failure> {
    let ReceiptCommand::Verify { file, ca } = command;
    let document: Value = serde_json::from_str(&read(file)?)
        .map_err(|error| Failure::failed(format!("{} is no receipt: {error}", file.display())))?;
    let receipt = receipt::verify(&document, &read(ca)?)
        .map_err(|error| Failure::failed(format!("{}: {error}", file.display())))?;
    if json {
        return output::line(receipt.to_string());
    }
    let text = |name: &str| receipt[name].as_str().unwrap_or("unknown").to_owned();
    let count = receipt["exposed"].as_array().map_or(0, Vec::len);
    output::line(format!(
        "the receipt is genuine: edge {} ({}) of {}, lost {}, could read {count} versions of secrets, of which {} were in use",
        text("edge"),
        text("edge_id"),
        text("tenant"),
        text("lost_at"),
        receipt["to_rotate"]
    ))
}

fn read(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(|error| Failure::usage(format!("{}: {error}", path.display())))
}
