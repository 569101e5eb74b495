//! Files that somebody carries between this edge and its hub.

use http::Method;
use serde::Deserialize;
use serde_json::json;

use super::status::Secrets;
use super::{ApplyArgs, CarryArgs, this_edge};
use crate::cli::address::Address;
use crate::cli::exit::Failure;
use crate::cli::target::TargetArgs;
use crate::cli::{fleet, output};

/// Brings what the hub has made for it.
pub(super) async fn apply(args: &ApplyArgs, target: &TargetArgs, json: bool) -> Result<(), Failure> {
    let connection = this_edge(&args.data, target)?;
    let carried = std::fs::read(&args.file)
        .map_err(|error| Failure::usage(format!("{}: {error}", args.file.display())))?;
    let address = Address::new(&["edge", "apply"]);
    let answer = connection.ask_with(Method::POST, &address, Some(carried.into())).await?;
    if json {
        return output::line(answer.text());
    }
    answer.parsed::<Applied>()?.lines().into_iter().try_for_each(output::line)
}

/// Writes down what waits here.
pub(super) async fn carry(args: &CarryArgs, target: &TargetArgs, json: bool) -> Result<(), Failure> {
    let connection = this_edge(&args.data, target)?;
    let answer = connection.ask(Method::POST, &Address::new(&["edge", "carry"]), None).await?;
    fleet::write_new(&args.out, answer.bytes())?;
    let count = |name| answer.header(name).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    let (writes, left) = (count("x-config-writes"), count("x-config-writes-left"));
    if json {
        return output::line(json!({"file": args.out, "writes": writes, "left": left}).to_string());
    }
    let more = if left > 0 { format!(", {} more with the next", output::count(left)) } else { String::new() };
    let file = args.out.display();
    let writes = output::counted(writes, "write", "writes");
    output::line(format!("{writes}{more}; at the hub: llm-config fleet apply {file}"))
}

/// What came of a file.
#[derive(Deserialize)]
struct Applied {
    #[serde(default)]
    removed: bool,
    #[serde(default)]
    entries: u64,
    as_of: Option<String>,
    offline_limit: Option<String>,
    #[serde(default)]
    pending: u64,
    secrets: Option<Secrets>,
}

impl Applied {
    fn lines(self) -> Vec<String> {
        if self.removed {
            return vec!["the hub has removed this edge; its data is destroyed".to_owned()];
        }
        let now = self.as_of.map_or_else(String::new, |at| format!("; now as of {at}"));
        let limit = self.offline_limit.as_deref();
        let mut lines = vec![match self.entries {
            0 if limit != Some("taken") => format!("nothing in the file is new{now}"),
            entries => format!("{} changed{now}", output::counted(entries, "entry", "entries")),
        }];
        lines.extend(
            limit.filter(|limit| *limit != "taken").map(|why| format!("offline limit not extended: {why}")),
        );
        lines.extend(self.secrets.map(|secrets| secrets.told()));
        if self.pending > 0 {
            lines
                .push(format!("{} for the hub", output::counted(self.pending, "write waits", "writes wait")));
        }
        lines
    }
}
