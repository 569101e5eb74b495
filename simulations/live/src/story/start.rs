//! The start: a hub, a catalogue in it, two edges that fetch everything.

use std::path::Path;
use std::time::Instant;

use anyhow::Context as _;
use serde_json::{Value as Json, json};

use super::{ENVIRONMENT, MODELS, ROOT, Site, Stage};
use crate::api::Api;
use crate::catalogue::{self, VERSIONS};
use crate::measure::{gzip_bytes, milliseconds, resident_bytes, size};
use crate::process::{Edge, EdgeOptions, Hub};
use crate::proxy::Proxy;
use crate::report::{Report, count};

/// The two edges, far from each other.
pub(super) const NAMES: [&str; 2] = ["berlin", "tokyo"];

/// Starts everything. `data` is empty, `sockets` is a short path.
///
/// # Errors
/// When a program does not start or an edge cannot join.
pub async fn start(data: &Path, sockets: &Path, report: &mut Report) -> anyhow::Result<Stage> {
    let logs = data.join("logs");
    std::fs::create_dir_all(&logs)?;
    report.step("A hub on its embedded defaults: SQLite, a local keyring, its own certificate authority");
    let begun = Instant::now();
    let hub = Hub::start(&data.join("hub"), &logs).await?;
    let memory = resident_bytes(hub.process()).unwrap_or_default();
    report.figure(format!("answers after {}, {} resident", milliseconds(begun.elapsed()), size(memory)));
    let mut stage = Stage { hub, sites: Vec::new(), data: data.to_owned() };
    import(&stage, report).await?;
    join(&mut stage, data, sockets, report).await?;
    Ok(stage)
}

async fn import(stage: &Stage, report: &mut Report) -> anyhow::Result<()> {
    let version = VERSIONS[0];
    let entries = catalogue::entries(version)?;
    report.step(&format!(
        "Import the model catalogue {version}: one change of {} entries",
        count(entries.len())
    ));
    let begun = Instant::now();
    let told = run_import(stage, version, false).await?;
    report.figure(format!("llm-config import: {}", milliseconds(begun.elapsed())));
    report
        .check(format!("{} entries are new", count(entries.len())), told["created"] == json!(entries.len()));
    report.check(
        "the hub gives back exactly what the file says",
        stage.hub.api.all(MODELS, ENVIRONMENT).await? == entries,
    );
    Ok(())
}

/// Imports one state of the catalogue with the command line; what it told about it.
pub(super) async fn run_import(stage: &Stage, version: &str, prune: bool) -> anyhow::Result<Json> {
    let file = catalogue::path(version);
    let file = file.to_str().context("the repository's path is not UTF-8")?;
    let mut arguments = vec!["import", file, "--namespace", MODELS, "--env", ENVIRONMENT, "--json"];
    if prune {
        arguments.push("--prune");
    }
    Ok(serde_json::from_str(&stage.llm_config(&arguments).await?)?)
}

async fn join(stage: &mut Stage, data: &Path, sockets: &Path, report: &mut Report) -> anyhow::Result<()> {
    report.step("Two edges join over TLS 1.3 with one-use tokens and fetch everything");
    for name in NAMES {
        let proxy = Proxy::start(stage.hub.sync_address()).await?;
        let token = join_token(&stage.hub.api, name).await?;
        let options = EdgeOptions {
            name,
            data: &data.join(name),
            logs: &data.join("logs"),
            sockets,
            hub: proxy.address(),
            ca: &stage.hub.ca_file(),
            join_token: &token,
        };
        let edge = Edge::join(options).await?;
        stage.sites.push(Site { edge, proxy });
    }
    let entries = catalogue::entries(VERSIONS[0])?;
    let plain = catalogue::object(&entries);
    let position = stage.hub.api.position(ROOT).await?;
    for site in &mut stage.sites {
        let begun = Instant::now();
        site.edge.ready().await?;
        site.edge.api.reaches(ROOT, &position).await?;
        let (took, traffic) = (begun.elapsed(), site.proxy.traffic());
        let memory = resident_bytes(site.edge.process()).unwrap_or_default();
        report.figure(format!(
            "{}: {} down, {} up, handshakes included; ready after {}; {} resident",
            site.edge.name,
            size(traffic.down),
            size(traffic.up),
            milliseconds(took),
            size(memory)
        ));
        let same = site.edge.api.all(MODELS, ENVIRONMENT).await? == entries;
        report.check(
            format!("{} serves all {} entries, equal to the file", site.edge.name, count(entries.len())),
            same,
        );
    }
    report.figure(format!(
        "for comparison: the file is {}, one gzip stream of it {}",
        size(plain.len() as u64),
        size(gzip_bytes(plain.as_bytes(), 6))
    ));
    Ok(())
}

async fn join_token(hub: &Api, name: &str) -> anyhow::Result<String> {
    let body = json!({"name": name, "namespaces": [ROOT], "environments": [ENVIRONMENT], "write": [ROOT]});
    let reply = hub.expect("POST", "/api/v1/join-tokens", Some(&body)).await?;
    Ok(reply.json()["token"].as_str().context("the hub gave no join token")?.to_owned())
}
