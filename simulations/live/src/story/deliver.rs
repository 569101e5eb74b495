//! Changes reach the edges: two real ones of the catalogue, and a single key.

use std::time::Instant;

use serde_json::json;

use super::start::run_import;
use super::{BOOSTED, ENVIRONMENT, MODELS, ROOT, ROUTES, Stage};
use crate::api;
use crate::catalogue::{self, VERSIONS};
use crate::measure::{gzip_bytes, milliseconds, size};
use crate::report::{Report, count};

pub(super) async fn changes(stage: &Stage, report: &mut Report) -> anyhow::Result<()> {
    for pair in VERSIONS.windows(2) {
        catalogue_change(stage, report, pair[0], pair[1]).await?;
    }
    one_key(stage, report).await
}

async fn catalogue_change(stage: &Stage, report: &mut Report, from: &str, to: &str) -> anyhow::Result<()> {
    let (before, after) = (catalogue::entries(from)?, catalogue::entries(to)?);
    let difference = catalogue::difference(&before, &after);
    let (changed, removed) = (difference.changed.len(), difference.removed.len());
    report
        .step(&format!("A real change: {from} → {to}, {changed} entries new or changed, {removed} removed"));
    let traffic = stage.traffic();
    let told = run_import(stage, to, true).await?;
    let admitted = Instant::now();
    let sent = told["created"].as_u64().unwrap_or(0) + told["changed"].as_u64().unwrap_or(0);
    report.check(
        format!("the import sends only these {}", changed + removed),
        sent == changed as u64 && told["deleted"] == json!(removed),
    );
    let position = stage.hub.api.position(ROOT).await?;
    for site in &stage.sites {
        site.edge.api.reaches(ROOT, &position).await?;
    }
    report.figure(format!("both edges have it {} after the hub said yes", milliseconds(admitted.elapsed())));
    let whole = catalogue::object(&difference.changed);
    let floor = gzip_bytes(whole.as_bytes(), 9);
    for (site, earlier) in stage.sites.iter().zip(traffic) {
        let down = site.proxy.traffic().since(earlier).down;
        report.figure(format!(
            "{}: {} down for {} of JSON; gzip -9 of these values alone: {} (× {:.2})",
            site.edge.name,
            size(down),
            size(whole.len() as u64),
            size(floor),
            down as f64 / floor as f64
        ));
        let now = site.edge.api.all(MODELS, ENVIRONMENT).await?;
        let label =
            format!("{} serves {} entries, equal to the new file", site.edge.name, count(after.len()));
        report.check(label, now == after);
    }
    Ok(())
}

async fn one_key(stage: &Stage, report: &mut Report) -> anyhow::Result<()> {
    report.step("One key, from a write at the hub to a read at both edges");
    let traffic = stage.traffic();
    let begun = Instant::now();
    let target = api::entry(ROUTES, BOOSTED, "");
    let body = json!({"value": {"model": "gpt-4o", "weight": 1}, "env": ENVIRONMENT});
    let written = stage.hub.api.expect("PUT", &target, Some(&body)).await?;
    let answered = begun.elapsed();
    for site in &stage.sites {
        site.edge.api.reaches(ROOT, &written.position()?).await?;
    }
    report.figure(format!(
        "the hub answers after {}, both edges have it after {}",
        milliseconds(answered),
        milliseconds(begun.elapsed())
    ));
    for (site, earlier) in stage.sites.iter().zip(traffic) {
        let value = site.edge.api.value(ROUTES, BOOSTED, ENVIRONMENT).await?;
        let down = size(site.proxy.traffic().since(earlier).down);
        report.check(
            format!("{} reads the new value ({down} on the wire)", site.edge.name),
            value == body["value"],
        );
    }
    Ok(())
}
