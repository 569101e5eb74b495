//! Three writers on one key who cannot see each other, and what becomes of their writes.

use std::time::{Duration, Instant};

use anyhow::bail;
use serde_json::{Value as Json, json};

use super::{ENVIRONMENT, Stage};
use crate::api::{self, Api, Reply, WAIT_MAX};
use crate::measure::{milliseconds, size};
use crate::process::LOOK_AGAIN;
use crate::report::Report;

/// The folder of the routes.
pub const ROUTES: &str = "llm/routes";
/// The key that everybody writes.
pub const BOOSTED: &str = "default";

/// Between two writes, so that everybody can tell which was later.
const A_MOMENT: Duration = Duration::from_millis(50);

/// What was written while the network was cut, in the order of time.
pub(super) struct Written {
    /// Who wrote, and which model.
    writers: Vec<(String, String)>,
}

/// The model that a writer wants.
pub(super) fn model_of(writer: &str) -> String {
    format!("model-of-{writer}")
}

pub(super) async fn writes_apart(stage: &Stage, report: &mut Report) -> anyhow::Result<Written> {
    report.step("While cut off, both edges and the hub write the same key, and each edge a key of its own");
    let mut writers = Vec::new();
    let mut last = &stage.hub.api;
    for site in &stage.sites {
        let (name, api) = (site.edge.name.as_str(), &site.edge.api);
        for key in [BOOSTED, name] {
            let reply = put(api, key, &model_of(name)).await?;
            let told = reply.json();
            let queued = reply.status() == 202 && told["pending"] == true;
            report.check(
                format!("{name} keeps its write of {ROUTES} {key} and says that it waits (202)"),
                queued,
            );
        }
        let own = api.call("GET", &read(BOOSTED), None).await?;
        let pending = own.header("x-config-source") == Some("pending");
        let label = format!("{name} reads its own write at once, marked as pending");
        report.check(label, own.json()["value"]["model"] == model_of(name) && pending);
        writers.push((name.to_owned(), model_of(name)));
        last = api;
        tokio::time::sleep(A_MOMENT).await;
        if writers.len() == 1 {
            let reply = put(&stage.hub.api, BOOSTED, &model_of("hub")).await?;
            report.check("the hub, which hears nothing of all this, admits its own", reply.status() == 200);
            writers.push(("hub".to_owned(), model_of("hub")));
            tokio::time::sleep(A_MOMENT).await;
        }
    }
    let seen = last.value(ROUTES, BOOSTED, ENVIRONMENT).await?;
    report.figure(format!(
        "in this order: {}",
        writers.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ")
    ));
    report.check("nobody sees the others' writes yet", seen["model"] == writers[writers.len() - 1].1);
    Ok(Written { writers })
}

async fn put(api: &Api, key: &str, model: &str) -> anyhow::Result<Reply> {
    let body = json!({"value": {"model": model}, "env": ENVIRONMENT});
    api.call("PUT", &api::entry(ROUTES, key, ""), Some(&body)).await
}

fn read(key: &str) -> String {
    api::entry(ROUTES, key, &format!("?env={ENVIRONMENT}"))
}

pub(super) async fn comes_together(
    stage: &Stage,
    report: &mut Report,
    written: &Written,
) -> anyhow::Result<()> {
    report.step("The network comes back");
    let traffic = stage.traffic();
    stage.sites.iter().for_each(|site| site.proxy.mend());
    let begun = Instant::now();
    let agreed = agreement(stage).await?;
    report.figure(format!(
        "hub and edges agree {} later (edges wait a random moment before they try again)",
        milliseconds(begun.elapsed())
    ));
    for (site, earlier) in stage.sites.iter().zip(traffic) {
        let moved = site.proxy.traffic().since(earlier);
        report.figure(format!("{}: {} up, {} down", site.edge.name, size(moved.up), size(moved.down)));
    }
    let Some((winner, model)) = written.writers.last() else { bail!("somebody wrote") };
    report.check(format!("the last writer, {winner}, won everywhere"), agreed["model"] == **model);
    for site in &stage.sites {
        let arrived = stage.hub.api.value(ROUTES, &site.edge.name, ENVIRONMENT).await?;
        let label = format!("the key that only {} wrote arrived at the hub", site.edge.name);
        report.check(label, arrived["model"] == model_of(&site.edge.name));
    }
    nothing_is_lost(stage, report, written).await
}

/// What everybody reads once all read the same and nobody's write waits any more.
async fn agreement(stage: &Stage) -> anyhow::Result<Json> {
    let begun = Instant::now();
    loop {
        let mut values = Vec::new();
        for site in &stage.sites {
            for key in [BOOSTED, site.edge.name.as_str()] {
                let reply = site.edge.api.call("GET", &read(key), None).await?;
                let settled = reply.header("x-config-source") == Some("replica");
                if key == BOOSTED {
                    values.push(if settled { reply.json()["value"].clone() } else { Json::Null });
                } else if !settled {
                    values.push(Json::Null);
                }
            }
        }
        let hub = stage.hub.api.value(ROUTES, BOOSTED, ENVIRONMENT).await?;
        if values.iter().all(|value| *value == hub) {
            return Ok(hub);
        }
        if begun.elapsed() > WAIT_MAX {
            bail!("hub and edges do not agree after {WAIT_MAX:?}: {values:?} at the edges, {hub} at the hub");
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

async fn nothing_is_lost(stage: &Stage, report: &mut Report, written: &Written) -> anyhow::Result<()> {
    let history = stage
        .hub
        .api
        .expect("GET", &api::entry(ROUTES, BOOSTED, &format!("/history?env={ENVIRONMENT}")), None)
        .await?;
    let history = history.json();
    let versions: Vec<&Json> = history.as_array().map(|writes| writes.iter().collect()).unwrap_or_default();
    for write in &versions {
        report.figure(format!(
            "version {}: {} by {} ({})",
            write["version"],
            write["value"]["model"].as_str().unwrap_or("?"),
            write["created_by"].as_str().unwrap_or("?"),
            write["status"].as_str().unwrap_or("?")
        ));
    }
    for (writer, model) in &written.writers {
        let kept = versions.iter().any(|write| write["value"]["model"] == **model);
        report.check(format!("the write of {writer} is in the history"), kept);
    }
    let conflicts = stage.hub.api.expect("GET", "/api/v1/conflicts", None).await?.json();
    let losers: Vec<&str> = conflicts
        .as_array()
        .map(|all| all.iter().filter_map(|conflict| conflict["loser"]["value"]["model"].as_str()).collect())
        .unwrap_or_default();
    let lost = &written.writers[..written.writers.len() - 1];
    for (writer, model) in lost {
        report.check(
            format!("GET /conflicts shows what {writer} wrote and lost"),
            losers.contains(&model.as_str()),
        );
    }
    Ok(())
}
