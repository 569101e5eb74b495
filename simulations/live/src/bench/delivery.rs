//! From a write at the hub to a read at a connected edge, beside what the two durable commits cost alone.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::bail;
use serde_json::json;

use super::{Bench, ENVIRONMENT, FOLDER, Figure};
use crate::api::{self, Api, WAIT_MAX};
use crate::measure::Samples;

const ROUNDS: usize = 300;
const WARM_UP: usize = 20;

/// Measures the way of single writes, one after the other, at an idle hub.
///
/// # Errors
/// When a program does not do its part.
pub async fn figures(below: &Path) -> anyhow::Result<Vec<Figure>> {
    let bench = Bench::start(below).await?;
    // Alone: nobody listens to the hub, then the edge cannot reach it. Each write costs its durable commit and a round
    // trip; a read of the same server costs the round trip, so the difference is the commit.
    let commit = alone(&bench.hub.api, "alone-hub").await?;
    let (mut edge, network) = bench.edge("near").await?;
    edge.ready().await?;
    edge.api.reaches(FOLDER, &bench.hub.api.position(FOLDER).await?).await?;
    let mut samples = Vec::with_capacity(ROUNDS);
    for round in 0..ROUNDS + WARM_UP {
        let took = one(&bench.hub.api, &edge.api, round).await?;
        if round >= WARM_UP {
            samples.push(took);
        }
    }
    network.cut();
    let batch = alone(&edge.api, "alone-edge").await?;
    let samples = Samples::new(samples);
    let floor = commit + batch;
    let (p50, p99) = (ms(samples.at(0.5)), ms(samples.at(0.99)));
    Ok(vec![
        Figure::plain("hub write → local read, p50", p50, "ms")
            .over(floor, "a durable hub commit + a durable edge write, alone")
            .bound("≤ 1.5 × the floor + 0.5 ms", p50 <= 1.5 * floor + 0.5),
        Figure::plain("hub write → local read, p99", p99, "ms")
            .over(p50, "p50")
            .bound("≤ 5 × p50", p99 <= 5.0 * p50),
        Figure::plain("one durable hub commit, alone", commit, "ms"),
        Figure::plain("one durable edge write, alone", batch, "ms"),
    ])
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// One write at the hub, until a read at the edge sees it. The read is repeated while the write is under way.
async fn one(hub: &Api, edge: &Api, round: usize) -> anyhow::Result<Duration> {
    let target = api::entry(FOLDER, "propagation", "");
    let body = json!({"value": {"round": round, "model": "gpt-4o", "weight": 0.5}, "env": ENVIRONMENT});
    let read = format!("{target}?env={ENVIRONMENT}");
    let begun = Instant::now();
    let arrives = async {
        loop {
            let reply = edge.call("GET", &read, None).await?;
            if reply.json()["value"]["round"] == round {
                return Ok(begun.elapsed());
            }
            if begun.elapsed() > WAIT_MAX {
                bail!("a write has not arrived after {WAIT_MAX:?}");
            }
        }
    };
    let (written, arrived) = tokio::join!(hub.expect("PUT", &target, Some(&body)), arrives);
    written?;
    arrived
}

/// The median cost of a durable write in milliseconds, without the round trip that a read costs as well.
async fn alone(api: &Api, key: &str) -> anyhow::Result<f64> {
    let target = api::entry(FOLDER, key, "");
    let read = format!("{target}?env={ENVIRONMENT}");
    let (mut writes, mut reads) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let body = json!({"value": {"round": round, "model": "gpt-4o", "weight": 0.5}, "env": ENVIRONMENT});
        let begun = Instant::now();
        api.expect("PUT", &target, Some(&body)).await?;
        writes.push(begun.elapsed());
        let begun = Instant::now();
        api.expect("GET", &read, None).await?;
        reads.push(begun.elapsed());
    }
    let (write, read) = (Samples::new(writes).at(0.5), Samples::new(reads).at(0.5));
    Ok(ms(write.saturating_sub(read)))
}
