//! The network is pulled out: reads go on, and even a crash of an edge changes nothing.

use std::time::Instant;

use super::{ENVIRONMENT, MODELS, Stage};
use crate::api::{self, WAIT_MAX};
use crate::catalogue::{self, VERSIONS};
use crate::measure::{Samples, milliseconds};
use crate::process::LOOK_AGAIN;
use crate::report::{Report, count};

const READS: usize = 500;

pub(super) async fn begins(stage: &Stage, report: &mut Report) -> anyhow::Result<()> {
    report.step("The network is cut between the hub and both edges; reads go on");
    stage.sites.iter().for_each(|site| site.proxy.cut());
    let entries = catalogue::entries(VERSIONS[2])?;
    for site in &stage.sites {
        let knows = knows_it_is_alone(site).await?;
        report.check(
            format!("{} says that it cannot reach the hub, and is still ready", site.edge.name),
            knows,
        );
        let mut samples = Vec::with_capacity(READS);
        let mut right = 0;
        for (key, value) in entries.iter().cycle().take(READS) {
            let begun = Instant::now();
            let target = api::entry(MODELS, key, &format!("?env={ENVIRONMENT}"));
            let reply = site.edge.api.call("GET", &target, None).await?;
            samples.push(begun.elapsed());
            right += usize::from(api::value_of(&reply).as_ref() == Some(value));
        }
        let samples = Samples::new(samples);
        report.figure(format!(
            "{}: {READS} reads one after the other, p50 {}, p99 {}",
            site.edge.name,
            milliseconds(samples.at(0.5)),
            milliseconds(samples.at(0.99))
        ));
        report.check(format!("{} of {} reads at {} are right", right, READS, site.edge.name), right == READS);
        let all = site.edge.api.all(MODELS, ENVIRONMENT).await? == entries;
        report.check(format!("{} still lists all {} entries", site.edge.name, count(entries.len())), all);
    }
    Ok(())
}

async fn knows_it_is_alone(site: &super::Site) -> anyhow::Result<bool> {
    let begun = Instant::now();
    while begun.elapsed() < WAIT_MAX {
        let health = site.edge.api.call("GET", "/health", None).await?;
        if health.json()["status"] == "degraded" {
            return Ok(site.edge.api.is_ready().await);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    Ok(false)
}

pub(super) async fn outlives_a_crash(stage: &mut Stage, report: &mut Report) -> anyhow::Result<()> {
    report.step("Still cut off, the first edge is killed without a warning and started again");
    let entries = catalogue::entries(VERSIONS[2])?;
    let site = &mut stage.sites[0];
    let begun = Instant::now();
    site.edge.kill_and_restart().await?;
    report.figure(format!("{} answers again after {}", site.edge.name, milliseconds(begun.elapsed())));
    let all = site.edge.api.all(MODELS, ENVIRONMENT).await? == entries;
    report.check(
        format!(
            "{} serves all {} entries without having heard from the hub",
            site.edge.name,
            count(entries.len())
        ),
        all,
    );
    let value = site.edge.api.value(super::ROUTES, super::BOOSTED, ENVIRONMENT).await?;
    report.check(
        "its own write is still there, waiting",
        value["model"] == super::conflict::model_of(&site.edge.name),
    );
    Ok(())
}
