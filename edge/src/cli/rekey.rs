//! `edge rekey`: the keys of an edge that has joined go to another keeper.

use llm_config_edge::keeper::KeyChoice;
use llm_config_edge::rekey;
use serde_json::json;

use super::edge::{DataArgs, not_joined};
use super::exit::Failure;
use super::output;

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct RekeyArgs {
    /// Who shall keep them: auto, tpm, systemd-creds, keychain, vault or file
    #[arg(long, value_name = "WHERE", value_parser = |text: &str| text.parse::<KeyChoice>())]
    key: KeyChoice,
    #[command(flatten)]
    data: DataArgs,
}

pub(super) fn rekey(args: &RekeyArgs, json: bool) -> Result<(), Failure> {
    let rekeyed = rekey::rekey(&args.data.folder(), args.key).map_err(|error| not_joined(&error))?;
    let (before, now) = (rekeyed.before.as_str(), rekeyed.now.as_str());
    if rekeyed.restart_ended {
        output::note("note: offline_restart was tpm and is never from now on");
    }
    output::note(format!("note: {}", rekeyed.now.explained()));
    if json {
        let restart_ended = rekeyed.restart_ended;
        return output::line(
            json!({"before": before, "now": now, "offline_restart_ended": restart_ended}).to_string(),
        );
    }
    output::line(format!("the edge's keys were kept by {before} and are kept by {now}"))
}
