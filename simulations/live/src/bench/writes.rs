//! How much the hub takes in, and what a connected edge costs it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use super::{Bench, ENVIRONMENT, FOLDER, Figure, rows};
use crate::api::{self, Api};
use crate::measure::resident_bytes;

const WRITERS: usize = 32;
const MEASURED: Duration = Duration::from_secs(4);
const BULK: usize = 500;
const EDGES: usize = 20;

/// Single writes of many callers at once, and bulk requests of 500.
///
/// # Errors
/// When a program does not do its part.
pub async fn figures(below: &Path) -> anyhow::Result<Vec<Figure>> {
    let bench = Bench::start(below).await?;
    let token = std::fs::read_to_string(bench.hub.token_file())?;
    let done = Arc::new(AtomicUsize::new(0));
    let begun = Instant::now();
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let api = Api::hub(&bench.hub.url(), Some(&token))?;
        let done = done.clone();
        writers.spawn(async move {
            for round in 0.. {
                let number = writer * 1_000 + round % 1_000;
                let target = api::entry(FOLDER, &rows::key(number), "");
                let body = json!({"value": rows::value(number, round as u64), "env": ENVIRONMENT});
                api.expect("PUT", &target, Some(&body)).await?;
                if begun.elapsed() > MEASURED {
                    break;
                }
                done.fetch_add(1, Ordering::Relaxed);
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = writers.join_next().await {
        ended??;
    }
    let single = done.load(Ordering::Relaxed) as f64 / MEASURED.as_secs_f64();

    let requests: Vec<Vec<_>> =
        (0..20).map(|n| (0..BULK).map(|k| rows::set(n * BULK + k, n as u64 + 1_000)).collect()).collect();
    let begun = Instant::now();
    for request in &requests {
        bench.bulk(request).await?;
    }
    let bulk = (requests.len() * BULK) as f64 / begun.elapsed().as_secs_f64();
    Ok(vec![
        Figure::plain("hub writes, single, 32 callers, SQLite", single, "writes/s"),
        Figure::plain("hub writes, in bulk requests of 500, SQLite", bulk, "writes/s"),
    ])
}

/// What each connected, idle edge adds to the hub's memory.
///
/// # Errors
/// When a program does not do its part.
pub async fn connected(below: &Path) -> anyhow::Result<Vec<Figure>> {
    let bench = Bench::start(below).await?;
    let position = {
        bench.bulk(&[rows::set(0, 0)]).await?;
        bench.hub.api.position(FOLDER).await?
    };
    // The first one warms up what all of them share.
    let mut edges = Vec::new();
    let mut before = 0;
    for number in 0..=EDGES {
        let (mut edge, network) = bench.edge(&format!("idle-{number}")).await?;
        edge.ready().await?;
        edge.api.reaches(FOLDER, &position).await?;
        edges.push((edge, network));
        if number == 0 {
            before = resident_bytes(bench.hub.process()).unwrap_or_default();
        }
    }
    let after = resident_bytes(bench.hub.process()).unwrap_or_default();
    let each = after.saturating_sub(before) as f64 / 1024.0 / EDGES as f64;
    Ok(vec![Figure::plain("hub memory per connected edge (20 of them)", each, "KiB")])
}
