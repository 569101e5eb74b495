//! Versions of an entry: history, rollback, diff.

use http::Method;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::connection::Connection;
use super::entries::{Entry, Place, about, shown, told_write};
use super::exit::{Exit, Failure};
use super::output;

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct HistoryArgs {
    #[command(flatten)]
    place: Place,
    /// Show the plaintext of secrets
    #[arg(long)]
    reveal: bool,
    /// How many writes, newest first
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: usize,
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct RollbackArgs {
    #[command(flatten)]
    place: Place,
    /// The version whose value comes back, as a new version
    version: u64,
    /// Why, for the history
    #[arg(long, short, value_name = "TEXT")]
    message: Option<String>,
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct DiffArgs {
    #[command(flatten)]
    place: Place,
    /// The older version; the one before --to if left out
    #[arg(long, value_name = "N")]
    from: Option<u64>,
    /// The newer version; the current one if left out
    #[arg(long, value_name = "N")]
    to: Option<u64>,
}

/// One write in the history of an entry.
#[derive(Debug, Deserialize)]
pub(crate) struct Past {
    pub(crate) version: u64,
    pub(crate) value: Option<Box<RawValue>>,
    pub(crate) created_at: String,
    pub(crate) created_by: String,
    pub(crate) change_description: Option<String>,
    pub(crate) change_type: String,
    pub(crate) status: String,
    #[serde(default)]
    secret_type: Option<String>,
    #[serde(default)]
    expires_at: Option<String>,
    #[serde(default)]
    purged: bool,
}

impl Past {
    pub(crate) fn row(&self) -> Vec<String> {
        vec![
            self.version.to_string(),
            self.value.as_deref().map_or_else(|| "–".to_owned(), shown),
            self.change_type.clone(),
            self.status.clone(),
            self.created_at.clone(),
            self.created_by.clone(),
            self.change_description.clone().unwrap_or_default(),
            if self.purged {
                "purged".to_owned()
            } else {
                about(self.secret_type.as_deref(), self.expires_at.as_deref())
            },
        ]
    }
}

pub(crate) const PAST_HEAD: [&str; 8] =
    ["version", "value", "what", "status", "when", "by", "message", "secret"];

pub(crate) async fn history(connection: &Connection, args: &HistoryArgs, json: bool) -> Result<(), Failure> {
    let address = args
        .place
        .address(&["history"])
        .with("limit", &args.limit.to_string())
        .with_flag("reveal", args.reveal);
    let answer = connection.ask(Method::GET, &address, None).await?;
    if json {
        return output::line(answer.text());
    }
    let writes: Vec<Past> = answer.parsed()?;
    output::table(&PAST_HEAD, writes.iter().map(Past::row))
}

pub(crate) async fn rollback(
    connection: &Connection,
    args: &RollbackArgs,
    json: bool,
) -> Result<(), Failure> {
    let part = ["rollback", &args.version.to_string()];
    let address = args.place.address(&part).with_some("change_description", args.message.as_deref());
    let answer = connection.ask(Method::POST, &address, None).await?;
    told_write(&answer, &args.place, json, "rolled back")
}

pub(crate) async fn diff(connection: &Connection, args: &DiffArgs, json: bool) -> Result<(), Failure> {
    let to = match args.to {
        Some(to) => to,
        None => {
            let current = args.place.address(&[]).with("resolve", "false");
            connection.ask(Method::GET, &current, None).await?.parsed::<Entry>()?.version
        }
    };
    let from = args.from.unwrap_or_else(|| to.saturating_sub(1));
    if from == 0 {
        return Err(Failure::new(Exit::NotFound, "there is no version before 1 to compare with"));
    }
    let address = args.place.address(&["diff"]).with("from", &from.to_string()).with("to", &to.to_string());
    let answer = connection.ask(Method::GET, &address, None).await?;
    if json {
        return output::line(answer.text());
    }
    #[derive(Deserialize)]
    struct Step {
        op: String,
        path: String,
        value: Option<Box<RawValue>>,
    }
    let steps: Vec<Step> = answer.parsed()?;
    if steps.is_empty() {
        output::hint(format!("versions {from} and {to} are equal"));
    }
    for step in steps {
        let path = if step.path.is_empty() { "/" } else { &step.path };
        let value = step.value.map_or_else(String::new, |value| format!(" {}", value.get()));
        output::line(format!("{} {path}{value}", step.op))?;
    }
    Ok(())
}
