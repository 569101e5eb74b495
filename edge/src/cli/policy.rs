//! What a folder does with concurrent writes: shown and set at the hub.

use llm_config_shared::policy::ConflictPolicy;
use serde::Deserialize;
use serde_json::json;

use super::connection::Connection;
use super::entries;
use super::exit::Failure;
use super::inherited::{self, source};
use super::output;

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct PolicyArgs {
    /// Folder path; what is set holds for everything below it as well
    #[arg(value_parser = entries::namespace)]
    namespace: String,
    /// What to do with concurrent writes from now on: last_write_wins, hub_wins, edge_wins, reject or manual
    #[arg(long, value_name = "POLICY", value_parser = policy_name)]
    conflicts: Option<String>,
    /// Let what holds above the folder hold here again
    #[arg(long, conflicts_with = "conflicts")]
    inherit: bool,
}

fn policy_name(text: &str) -> Result<String, String> {
    let known = ConflictPolicy::parse(&text.replace('-', "_")).map(|policy| policy.as_str().to_owned());
    known.ok_or_else(|| "write last_write_wins, hub_wins, edge_wins, reject or manual".into())
}

/// Shows or sets it.
pub(crate) async fn policy(connection: &Connection, args: &PolicyArgs, json: bool) -> Result<(), Failure> {
    let set = args.conflicts.as_ref().map(|policy| json!({ "conflicts": policy }));
    let answer = inherited::ask(connection, &args.namespace, "policy", set, args.inherit).await?;
    if json {
        return output::line(answer.text());
    }
    #[derive(Deserialize)]
    struct Policy {
        conflicts: String,
        set_in: Option<String>,
    }
    let Policy { conflicts, set_in } = answer.parsed()?;
    output::line(format!("{}: {conflicts}{}", args.namespace, source(set_in.as_deref(), &args.namespace)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_written_either_way() {
        assert_eq!(policy_name("hub-wins"), Ok("hub_wins".into()));
        assert!(policy_name("newest").is_err());
    }
}
