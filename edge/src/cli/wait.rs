//! Wait: who has a change, and who uses it, until all do or the time is over.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use http::Method;
use serde::Deserialize;

use super::address::Address;
use super::connection::{Answer, Connection};
use super::exit::{Exit, Failure};
use super::output;
use super::pace::length;

/// Edges confirm what they have every few seconds; asking more often tells nothing new.
const ASK_EVERY: Duration = Duration::from_millis(500);

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct WaitArgs {
    /// Its id, as `changes` and every write print it
    id: uuid::Uuid,
    /// Until everything that uses its entries uses what it wrote, and not only until every edge has it
    #[arg(long)]
    in_use: bool,
    /// How long at most; then the exit code is 5 and what is missing is listed
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = length)]
    timeout: Duration,
}

/// Who has a change, as the REST API gives it.
#[derive(Debug, Deserialize)]
pub(crate) struct Receipts {
    delivered: bool,
    in_use: bool,
    edges: Vec<EdgeReceipt>,
}

#[derive(Debug, Deserialize)]
struct EdgeReceipt {
    edge: String,
    connected: bool,
    last_seen_at: Option<String>,
    delivered: bool,
    in_use: bool,
    consumers: Vec<Consumer>,
}

#[derive(Debug, Deserialize)]
struct Consumer {
    consumer: String,
    in_use: bool,
    namespace: String,
    key: String,
    uses_version: u64,
}

impl EdgeReceipt {
    /// How it stands there, in words; the same for as long as nothing happens.
    fn state(&self) -> String {
        let away = match (&self.last_seen_at, self.connected) {
            (_, true) => String::new(),
            (Some(at), false) => format!(", offline since {at}"),
            (None, false) => ", was never connected".to_owned(),
        };
        let behind = self.consumers.iter().find(|consumer| !consumer.in_use);
        match (self.delivered, behind) {
            (false, _) => format!("has not got it{away}"),
            (true, Some(Consumer { consumer, namespace, key, uses_version, .. })) => {
                format!("has it; {consumer} still uses version {uses_version} of {namespace} {key}{away}")
            }
            (true, None) if self.consumers.is_empty() => {
                "has it; nothing there says that it uses it".to_owned()
            }
            (true, None) => {
                let names: Vec<_> =
                    self.consumers.iter().map(|consumer| consumer.consumer.as_str()).collect();
                format!("has it, in use by {}", names.join(", "))
            }
        }
    }
}

impl Receipts {
    fn reached(&self, in_use: bool) -> bool {
        if in_use { self.in_use } else { self.delivered }
    }

    /// One line for each edge that is waited for.
    fn missing(&self, in_use: bool) -> Vec<String> {
        let owes = |edge: &&EdgeReceipt| if in_use { !edge.in_use } else { !edge.delivered };
        let mut missing: Vec<_> =
            self.edges.iter().filter(owes).map(|edge| format!("{}: {}", edge.edge, edge.state())).collect();
        if in_use && missing.is_empty() && !self.in_use {
            missing.push("nothing at any edge says that it uses the change".to_owned());
        }
        missing
    }

    /// For a look at a change: how many have it, and what is missing.
    pub(crate) fn summary(&self) -> Vec<String> {
        if self.edges.is_empty() {
            return vec!["no edge receives anything of it".to_owned()];
        }
        let have = self.edges.iter().filter(|edge| edge.delivered).count();
        let states = self.edges.iter().map(|edge| format!("{}: {}", edge.edge, edge.state()));
        let head = format!("{have} of {} edges have it", self.edges.len());
        std::iter::once(head).chain(states).collect()
    }
}

pub(crate) async fn receipts(connection: &Connection, id: &uuid::Uuid) -> Result<Answer, Failure> {
    connection.ask(Method::GET, &Address::new(&["changes", &id.to_string(), "receipts"]), None).await
}

/// Waits, and tells what happens meanwhile.
///
/// # Errors
/// When the time is over: exit code 5, with what is missing.
pub(crate) async fn wait(connection: &Connection, args: &WaitArgs, json: bool) -> Result<(), Failure> {
    let until = Instant::now() + args.timeout;
    let mut told: BTreeMap<String, String> = BTreeMap::new();
    loop {
        let answer = receipts(connection, &args.id).await?;
        let receipts: Receipts = answer.parsed()?;
        if !json {
            for edge in &receipts.edges {
                let state = edge.state();
                if told.get(&edge.edge) != Some(&state) {
                    output::line(format!("{}: {state}", edge.edge))?;
                    told.insert(edge.edge.clone(), state);
                }
            }
        }
        let reached = receipts.reached(args.in_use);
        if !reached && Instant::now() < until {
            tokio::time::sleep(ASK_EVERY.min(until - Instant::now())).await;
            continue;
        }
        if json {
            output::line(answer.text())?;
        } else if receipts.edges.is_empty() {
            output::line("no edge receives anything of it")?;
        }
        let missing = receipts.missing(args.in_use);
        return if reached { Ok(()) } else { Err(Failure::new(Exit::Stale, late(args, &missing))) };
    }
}

fn late(args: &WaitArgs, missing: &[String]) -> String {
    let what = if args.in_use { "in use everywhere" } else { "delivered everywhere" };
    format!("not {what} after {} s; missing: {}", args.timeout.as_secs_f64(), missing.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receipts(json: &str) -> Receipts {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn what_is_missing_is_told_with_its_reason() {
        let told = receipts(
            r#"{"change":"c","delivered":false,"in_use":false,"edges":[
            {"edge":"a","connected":true,"last_seen_at":"t","delivered":true,"in_use":false,"consumers":[
                {"consumer":"exec server","in_use":false,"namespace":"app","key":"k","environment":"base","version":2,
                 "uses_version":1}]},
            {"edge":"b","connected":false,"last_seen_at":"2026-11-27T03:00:00.000Z","delivered":false,"in_use":false,
             "consumers":[]},
            {"edge":"c","connected":true,"last_seen_at":"t","delivered":true,"in_use":true,"consumers":[]}]}"#,
        );
        assert_eq!(told.missing(false), ["b: has not got it, offline since 2026-11-27T03:00:00.000Z"]);
        assert_eq!(told.missing(true).len(), 2);
        assert_eq!(told.missing(true)[0], "a: has it; exec server still uses version 1 of app k");
        assert!(!told.reached(false) && !told.reached(true));
        assert_eq!(told.summary()[0], "2 of 3 edges have it");
    }

    #[test]
    fn nothing_is_proved_where_nobody_uses_it() {
        let told = receipts(
            r#"{"change":"c","delivered":true,"in_use":false,"edges":[
            {"edge":"c","connected":true,"last_seen_at":"t","delivered":true,"in_use":true,"consumers":[]}]}"#,
        );
        assert!(told.reached(false) && !told.reached(true));
        assert_eq!(told.missing(true), ["nothing at any edge says that it uses the change"]);
    }
}
