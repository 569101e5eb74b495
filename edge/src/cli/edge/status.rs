//! An edge's status, for a person.

use serde::Deserialize;

use crate::cli::connection::Answer;
use crate::cli::exit::Failure;
use crate::cli::output;

/// The status document of an edge, as far as a person is told.
#[derive(Debug, Deserialize)]
struct Status {
    name: String,
    hub: String,
    connected: bool,
    entries: u64,
    age_ms: Option<u64>,
    behind: Option<u64>,
    pending: u64,
    held: u64,
    denied: u64,
    #[serde(default)]
    lost: u64,
    default_environment: String,
    subscriptions: Vec<Subscription>,
    secrets: Option<Secrets>,
    keys_kept_by: Option<String>,
    #[serde(default)]
    memory_locked: bool,
    certificate_expires_at: String,
    warnings: Vec<String>,
}

/// How its secrets are.
#[derive(Debug, Deserialize)]
pub(super) struct Secrets {
    open: bool,
    locks_in_ms: Option<u64>,
    locked_since: Option<String>,
    locked_by: Option<String>,
}

impl Secrets {
    pub(super) fn told(&self) -> String {
        if self.open {
            let left = self.locks_in_ms.map_or_else(|| "an unknown time".to_owned(), output::age);
            return format!("secrets are open; without the hub they lock in {left}");
        }
        let since = self.locked_since.as_deref().unwrap_or("a time unknown");
        let by = self.locked_by.as_deref().unwrap_or("unknown").replace('_', " ");
        format!("secrets are locked since {since} ({by}); they open when the hub is reached")
    }
}

#[derive(Debug, Deserialize)]
struct Subscription {
    environment: String,
    namespace: String,
    secrets: bool,
}

/// An edge's status for a person.
pub(crate) fn tell(answer: &Answer) -> Result<(), Failure> {
    lines(&answer.parsed()?).into_iter().try_for_each(output::line)
}

fn lines(status: &Status) -> Vec<String> {
    let reach = if status.connected { "connected to" } else { "cut off from" };
    let age = status
        .age_ms
        .map_or_else(|| "never confirmed".to_owned(), |ms| format!("confirmed {} ago", output::age(ms)));
    let behind = match status.behind {
        Some(1) => ", 1 change on its way".to_owned(),
        Some(behind) if behind > 1 => format!(", {} changes on their way", output::count(behind)),
        _ => String::new(),
    };
    let mut lines = vec![
        format!("{}: {reach} {}", status.name, status.hub),
        format!("  holds {}, {age}{behind}", output::counted(status.entries, "entry", "entries")),
    ];
    if status.pending + status.held + status.denied > 0 {
        let (pending, held, denied) = (status.pending, status.held, status.denied);
        lines.push(format!(
            "  own writes: {pending} waiting for the hub, {held} held for a person, {denied} not admitted"
        ));
    }
    if status.lost > 0 {
        let lost = output::count(status.lost);
        lines.push(format!(
            "  {lost} own writes lost to others made at the same time; the hub's history has them"
        ));
    }
    for subscription in &status.subscriptions {
        let namespace =
            if subscription.namespace.is_empty() { "everything" } else { &subscription.namespace };
        let default = if subscription.environment == status.default_environment { " (default)" } else { "" };
        let secrets = if subscription.secrets { "" } else { ", without secrets" };
        lines.push(format!("  receives {namespace} in {}{default}{secrets}", subscription.environment));
    }
    if status.subscriptions.iter().any(|subscription| subscription.secrets)
        && let Some(secrets) = &status.secrets
    {
        lines.push(format!("  {}", secrets.told()));
    }
    lines.push(format!("  certificate until {}", status.certificate_expires_at));
    let locked = if status.memory_locked { ", its memory out of swap" } else { "" };
    lines
        .extend(status.keys_kept_by.iter().map(|keeper| format!("  its keys are kept by: {keeper}{locked}")));
    lines.extend(status.warnings.iter().map(|warning| format!("  look: {warning}")));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_says_what_a_person_wants_to_know() {
        let text = r#"{"name":"kiosk","id":"i","tenant":"t","hub":"https://h:1","connected":false,"has_data":true,
            "entries":2708,"age_ms":65000,"behind":null,"pending":2,"held":0,"denied":1,
            "default_environment":"production","certificate_expires_at":"tomorrow","certificate_expires_in_ms":1,
            "subscriptions":[{"environment":"production","namespace":"","secrets":true},
                {"environment":"staging","namespace":"app","secrets":false}],
            "replica_bytes":1,"uptime_ms":1,"version":"0","warnings":["the disk is nearly full"]}"#;
        let told = lines(&serde_json::from_str(text).unwrap());
        assert_eq!(told[0], "kiosk: cut off from https://h:1");
        assert_eq!(told[1], "  holds 2,708 entries, confirmed 65 s ago");
        assert_eq!(told[2], "  own writes: 2 waiting for the hub, 0 held for a person, 1 not admitted");
        assert_eq!(told[3], "  receives everything in production (default)");
        assert_eq!(told[4], "  receives app in staging, without secrets");
        assert_eq!(told[6], "  look: the disk is nearly full");
        let text = text.replace("\"denied\":1", "\"denied\":1,\"lost\":3");
        let told = lines(&serde_json::from_str(&text).unwrap());
        assert_eq!(
            told[3],
            "  3 own writes lost to others made at the same time; the hub's history has them"
        );
    }
}
