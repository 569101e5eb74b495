//! Watch: changes as they happen, as server-sent events from an edge or a hub.

use std::time::Duration;

use llm_config_proto::rest::ServerEvent;
use serde::Deserialize;

use super::address::Address;
use super::connection::Connection;
use super::entries;
use super::exit::{Exit, Failure};
use super::output;

/// Pause before the stream is opened again after it broke.
const PAUSE: Duration = Duration::from_secs(1);
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct WatchArgs {
    /// Folder path with everything below it; everything that you may see if left out
    #[arg(value_parser = entries::namespace)]
    namespace: Option<String>,
    /// Environment
    #[arg(long, short, value_name = "ENV", value_parser = entries::environment)]
    env: Option<String>,
}

/// A change as the stream tells it.
#[derive(Debug, Deserialize)]
struct Told {
    namespace: String,
    key: String,
    environment: String,
    version: u64,
    change_type: String,
    author: String,
}

impl Told {
    fn line(&self) -> String {
        let Self { namespace, key, environment, version, change_type, author } = self;
        format!("{environment} {namespace} {key}: {change_type}, version {version} by {author}")
    }
}

/// Two writes that met, as the stream tells it.
#[derive(Debug, Deserialize)]
struct Clash {
    conflict: Option<String>,
    namespace: String,
    key: String,
    environment: String,
    winner_version: Option<u64>,
    loser_version: u64,
}

impl Clash {
    fn line(&self) -> String {
        let Self { conflict, namespace, key, environment, winner_version, loser_version } = self;
        let winner = winner_version.map_or_else(String::new, |version| format!(" to version {version}"));
        let id = conflict.as_ref().map_or_else(String::new, |id| format!(" (conflict {id})"));
        format!("{environment} {namespace} {key}: conflict, version {loser_version} lost{winner}{id}")
    }
}

/// A write that waits for a person, as the stream tells it.
#[derive(Debug, Deserialize)]
struct Held {
    namespace: String,
    key: String,
    environment: String,
    reason: String,
}

impl Held {
    fn line(&self) -> String {
        let Self { namespace, key, environment, reason } = self;
        format!("{environment} {namespace} {key}: held for a person: {reason}")
    }
}

/// A secret that expires soon or has expired, as the stream tells it.
#[derive(Debug, Deserialize)]
struct Expiry {
    namespace: String,
    key: String,
    environment: String,
    version: u64,
    expires_at: String,
    days: u64,
}

impl Expiry {
    fn line(&self) -> String {
        let Self { namespace, key, environment, version, expires_at, days } = self;
        let when = if *days == 0 { "has expired".to_owned() } else { format!("expires within {days} days") };
        format!("{environment} {namespace} {key}: version {version} of this secret {when} ({expires_at})")
    }
}

/// What is told of an event; none for one that cannot be told on its own.
fn line_of(event: &ServerEvent) -> Option<String> {
    let data = &event.data;
    match event.event.as_str() {
        "conflict" => serde_json::from_str(data).ok().map(|told: Clash| told.line()),
        "held" => serde_json::from_str(data).ok().map(|told: Held| told.line()),
        "expiry" => serde_json::from_str(data).ok().map(|told: Expiry| told.line()),
        _ => serde_json::from_str(data).ok().map(|told: Told| told.line()),
    }
}

/// Runs until it is interrupted; when the stream breaks, it is opened again where it was.
pub(crate) async fn watch(connection: &Connection, args: &WatchArgs, json: bool) -> Result<(), Failure> {
    let address = Address::new(&["events"])
        .with_some("namespace", args.namespace.as_deref())
        .with_some("env", args.env.as_deref());
    let mut last: Option<String> = None;
    let mut opened = false;
    loop {
        match connection.events(&address, last.as_deref()).await {
            Ok(mut events) => {
                opened = true;
                while let Ok(Some(event)) = events.next().await {
                    tell(&event, json)?;
                    last = Some(event.id).filter(|id| !id.is_empty()).or(last);
                }
                output::hint("the stream broke; opening it again");
            }
            Err(failure) if opened && failure.exit == Exit::Unreachable => {}
            Err(failure) => return Err(failure),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn tell(event: &ServerEvent, json: bool) -> Result<(), Failure> {
    if json {
        return output::line(&event.data);
    }
    match line_of(event) {
        Some(line) => output::line(line),
        None => {
            output::note("some changes cannot be told one by one: read again what matters to you");
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_one_line() {
        let data = r#"{"id":"i","namespace":"app/llm","key":"model","environment":"base","version":3,"change":"c",
            "change_type":"update","secret":false,"author":"token:admin","at":"t","position":"p"}"#;
        let line = |event: &str, data: &str| {
            line_of(&ServerEvent { event: event.into(), data: data.into(), ..ServerEvent::default() })
        };
        let told = line("change", data).unwrap();
        assert_eq!(told, "base app/llm model: update, version 3 by token:admin");
        let clash = r#"{"conflict":"c","id":"i","namespace":"app","key":"k","environment":"base","winner_version":4,
            "loser_version":3}"#;
        let told = line("conflict", clash).unwrap();
        assert_eq!(told, "base app k: conflict, version 3 lost to version 4 (conflict c)");
        let held = r#"{"id":"i","namespace":"app","key":"k","environment":"base","reason":"it is ahead"}"#;
        assert_eq!(line("held", held).unwrap(), "base app k: held for a person: it is ahead");
        let expiry = r#"{"namespace":"app","key":"k","environment":"base","version":2,"secret_type":"generic",
            "expires_at":"2027-01-31T00:00:00.000Z","days":7}"#;
        let told = "base app k: version 2 of this secret expires within 7 days (2027-01-31T00:00:00.000Z)";
        assert_eq!(line("expiry", expiry).unwrap(), told);
        assert_eq!(line("reset", r#"{"position":"p"}"#), None);
    }
}
