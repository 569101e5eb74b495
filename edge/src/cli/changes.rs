//! What happened: changes, and one change with its writes.

use http::Method;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::address::Address;
use super::connection::Connection;
use super::exit::Failure;
use super::output;
use super::versions::{PAST_HEAD, Past};
use super::wait::{Receipts, WaitArgs, receipts, wait};

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ChangesArgs {
    /// How many, newest first
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: usize,
}

#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum ChangeCommand {
    /// One change with everything that it wrote
    Show {
        /// Its id, as `changes` and every write print it
        id: uuid::Uuid,
    },
    /// Wait until every edge has it, or until everything that uses its entries uses what it wrote
    Wait(WaitArgs),
    /// Bring back the values that its entries had before, as another change; none, where one has another value since
    Undo {
        /// Its id, as `changes` and every write print it
        id: uuid::Uuid,
        /// Only show what would be written
        #[arg(long)]
        dry_run: bool,
        /// Why, for the history
        #[arg(long, short, value_name = "TEXT")]
        message: Option<String>,
    },
    /// Write all that is held in it, each write where its own time puts it
    Release {
        /// Its id, as `changes` prints it
        id: uuid::Uuid,
        /// Also where an entry holds a secret, which is plain afterwards
        #[arg(long)]
        over_secret: bool,
        /// Why, for the history
        #[arg(long, short, value_name = "TEXT")]
        message: Option<String>,
    },
    /// Close all that is held in it; nothing is written
    Drop {
        /// Its id, as `changes` prints it
        id: uuid::Uuid,
    },
}

/// A change as the REST API gives it.
#[derive(Debug, Deserialize)]
struct Change {
    id: String,
    created_at: String,
    created_by: String,
    change_description: Option<String>,
    writes: u64,
}

pub(crate) async fn changes(connection: &Connection, args: &ChangesArgs, json: bool) -> Result<(), Failure> {
    let address = Address::new(&["changes"]).with("limit", &args.limit.to_string());
    let answer = connection.ask(Method::GET, &address, None).await?;
    if json {
        return output::line(answer.text());
    }
    let rows = answer.parsed::<Vec<Change>>()?.into_iter().map(|change| {
        vec![
            change.id,
            change.created_at,
            change.created_by,
            output::count(change.writes),
            change.change_description.unwrap_or_default(),
        ]
    });
    output::table(&["change", "when", "by", "writes", "message"], rows)
}

/// The entry that a write was of.
#[derive(Debug, Deserialize)]
struct Of {
    namespace: String,
    key: String,
    environment: String,
}

/// A write with the entry that it was of. Read twice, for a value's own text survives no flattening.
fn row(write: &RawValue) -> Result<Vec<String>, Failure> {
    let unexpected = |error| Failure::failed(format!("unexpected answer: {error}"));
    let of: Of = serde_json::from_str(write.get()).map_err(unexpected)?;
    let past: Past = serde_json::from_str(write.get()).map_err(unexpected)?;
    Ok([vec![format!("{} {}", of.namespace, of.key), of.environment], past.row()].concat())
}

pub(crate) async fn change(
    connection: &Connection,
    command: &ChangeCommand,
    json: bool,
) -> Result<(), Failure> {
    let id = match command {
        ChangeCommand::Show { id } => id,
        ChangeCommand::Wait(args) => return wait(connection, args, json).await,
        ChangeCommand::Release { id, over_secret, message } => {
            let body = release_body(*over_secret, message.as_deref());
            return decide(connection, id, "release", Some(body), json).await;
        }
        ChangeCommand::Undo { id, dry_run, message } => {
            return undo(connection, id, *dry_run, message.as_deref(), json).await;
        }
        ChangeCommand::Drop { id } => return decide(connection, id, "drop", None, json).await,
    };
    let answer = connection.ask(Method::GET, &Address::new(&["changes", &id.to_string()]), None).await?;
    if json {
        return output::line(answer.text());
    }
    #[derive(Deserialize)]
    struct Shown {
        entries: Vec<Box<RawValue>>,
    }
    let shown: Shown = answer.parsed()?;
    let head: Vec<&str> = ["entry", "environment"].into_iter().chain(PAST_HEAD).collect();
    output::table(&head, shown.entries.iter().map(|write| row(write)).collect::<Result<Vec<_>, _>>()?)?;
    // A hub of before does not know; nor may everybody see all edges.
    if let Ok(answer) = receipts(connection, id).await {
        answer.parsed::<Receipts>()?.summary().iter().try_for_each(output::line)?;
    }
    Ok(())
}

/// Undoes a change, or shows what that would write.
async fn undo(
    connection: &Connection,
    id: &uuid::Uuid,
    dry_run: bool,
    message: Option<&str>,
    json: bool,
) -> Result<(), Failure> {
    let mut body = serde_json::json!({ "dry_run": dry_run });
    if let Some(message) = message {
        body["change_description"] = message.into();
    }
    let address = Address::new(&["changes", &id.to_string(), "undo"]);
    let answer = connection.ask(Method::POST, &address, Some(body.to_string())).await?;
    if json {
        return output::line(answer.text());
    }
    #[derive(Deserialize)]
    struct Undone {
        wrote: String,
        entries: Vec<Back>,
    }
    #[derive(Deserialize)]
    struct Back {
        #[serde(flatten)]
        of: Of,
        version: Option<u64>,
        back_to: Option<u64>,
    }
    let Undone { wrote, entries } = answer.parsed()?;
    let count = output::counted(entries.len() as u64, "entry", "entries");
    let rows = entries.into_iter().map(|Back { of, version, back_to }| {
        let now = version.map_or_else(String::new, |version| version.to_string());
        let holds = back_to.map_or_else(|| "no entry".to_owned(), |back_to| format!("as version {back_to}"));
        vec![format!("{} {}", of.namespace, of.key), of.environment, now, holds]
    });
    output::table(&["entry", "environment", "version", "holds again"], rows)?;
    match dry_run {
        true => output::line(format!("would bring back {count}; nothing was written")),
        false => output::line(format!("brought back {count} (change {wrote})")),
    }
}

fn release_body(over_secret: bool, message: Option<&str>) -> String {
    let mut body = serde_json::json!({});
    if over_secret {
        body["secret"] = false.into();
    }
    if let Some(message) = message {
        body["change_description"] = message.into();
    }
    body.to_string()
}

/// Releases or drops all that is held in a change. Fails where some of it is still held afterwards.
async fn decide(
    connection: &Connection,
    id: &uuid::Uuid,
    how: &str,
    body: Option<String>,
    json: bool,
) -> Result<(), Failure> {
    let address = Address::new(&["changes", &id.to_string(), how]);
    let answer = connection.ask(Method::POST, &address, body).await?;
    #[derive(Deserialize)]
    struct Decided {
        decided: u64,
        undecided: Vec<Left>,
    }
    #[derive(Deserialize)]
    struct Left {
        #[serde(flatten)]
        of: Of,
        held_id: String,
        message: String,
    }
    if json {
        output::line(answer.text())?;
    }
    let Decided { decided, undecided } = answer.parsed()?;
    if !json {
        let done = if how == "drop" { "dropped" } else { "released" };
        output::line(format!("{done}: {}", output::counted(decided, "held write", "held writes")))?;
        let rows = undecided.iter().map(|Left { of, held_id, message }| {
            let entry = format!("{} {}", of.namespace, of.key);
            vec![held_id.clone(), entry, of.environment.clone(), message.clone()]
        });
        if !undecided.is_empty() {
            output::table(&["still held", "entry", "environment", "why"], rows)?;
        }
    }
    match undecided.len() {
        0 => Ok(()),
        1 => Err(Failure::failed("one write of the change is still held")),
        left => Err(Failure::failed(format!("{left} writes of the change are still held"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_is_told_with_its_entry_and_its_exact_value() {
        let text = r#"{"id":"i","namespace":"a/b","key":"k","environment":"base","version":3,"value":1.50,
            "created_at":"t","created_by":"token:admin","change_description":null,"change_type":"update",
            "change":"c","status":"superseded_concurrent"}"#;
        let row = row(&RawValue::from_string(text.into()).unwrap()).unwrap();
        assert_eq!(
            row,
            ["a/b k", "base", "3", "1.50", "update", "superseded_concurrent", "t", "token:admin", "", ""]
        );
    }
}
