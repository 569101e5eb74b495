//! How long edges may open the secrets of a folder without their hub: shown and set at the hub.

use serde::Deserialize;
use serde_json::json;

use super::connection::Connection;
use super::entries;
use super::exit::Failure;
use super::inherited::{self, source};
use super::output;
use super::pace::length;

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct OfflineLimitArgs {
    /// Folder path; what is set holds for everything below it as well, and of several the tightest counts
    #[arg(value_parser = entries::namespace)]
    namespace: String,
    /// How long its secrets may be opened without the hub, as 24h or 30m; at most 30d
    #[arg(long, value_name = "TIME", value_parser = time)]
    set: Option<String>,
    /// Let what holds above the folder hold here again
    #[arg(long, conflicts_with = "set")]
    inherit: bool,
}

fn time(text: &str) -> Result<String, String> {
    length(text).map(|_| text.to_owned())
}

/// Shows or sets the limit.
pub(crate) async fn offline_limit(
    connection: &Connection,
    args: &OfflineLimitArgs,
    json: bool,
) -> Result<(), Failure> {
    let set = args.set.as_ref().map(|limit| json!({ "limit": limit }));
    let answer = inherited::ask(connection, &args.namespace, "offline-limit", set, args.inherit).await?;
    if json {
        return output::line(answer.text());
    }
    #[derive(Deserialize)]
    struct Limit {
        limit_seconds: f64,
        set_in: Option<String>,
    }
    let limit: Limit = answer.parsed()?;
    let source = source(limit.set_in.as_deref(), &args.namespace);
    let told = output::age((limit.limit_seconds * 1_000.0) as u64);
    output::line(format!("{}: secrets lock after {told} without the hub{source}", args.namespace))
}
