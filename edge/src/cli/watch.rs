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
    match serde_json::from_str::<Told>(&event.data) {
        Ok(told) => output::line(told.line()),
        Err(_) => {
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
        let told: Told = serde_json::from_str(data).unwrap();
        assert_eq!(told.line(), "base app/llm model: update, version 3 by token:admin");
    }
}
