//! A secret reaches the edges sealed, and is in clear nowhere but in the answer to somebody who may ask.

use serde_json::json;

use super::{ENVIRONMENT, ROOT, Stage, holds};
use crate::api;
use crate::report::Report;

/// Where the secret goes.
pub(super) const KEYS: &str = "llm/keys";
pub(super) const PROVIDER: &str = "openai";

pub(super) async fn travels_sealed(stage: &Stage, report: &mut Report) -> anyhow::Result<()> {
    report.step("A secret reaches both edges, sealed all the way and on every disk");
    // Different in each run, so that nothing found is left from another.
    let secret = format!("sk-quickstart-{}", uuid::Uuid::new_v4().simple());
    let target = api::entry(KEYS, PROVIDER, "");
    let body = json!({"value": secret, "env": ENVIRONMENT, "secret": true});
    let written = stage.hub.api.expect("PUT", &target, Some(&body)).await?;
    for site in &stage.sites {
        site.edge.api.reaches(ROOT, &written.position()?).await?;
        let masked = site.edge.api.value(KEYS, PROVIDER, ENVIRONMENT).await?;
        let revealed = site.edge.api.revealed(KEYS, PROVIDER, ENVIRONMENT).await?;
        let label = format!("{} masks it, and reveals it to the daemon's own user", site.edge.name);
        report.check(label, masked == json!("<encrypted>") && revealed == json!(secret));
    }
    let found = holds(&stage.data, secret.as_bytes())?;
    report.check(
        "searching every file of the hub and the edges, logs included, finds it nowhere in clear",
        !found,
    );
    Ok(())
}
