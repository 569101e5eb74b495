//! Bytes on the wire: everything for the first time, what was missed while away, a real change of a real catalogue.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use llm_config_shared::value::Value;
use serde_json::json;

use super::{Bench, ENVIRONMENT, FOLDER, Figure, rows};
use crate::catalogue::{self, VERSIONS};
use crate::measure::{gzip_bytes, resident_bytes};

const ENTRIES: usize = 10_000;
const CHANGED: usize = 1_000;
const WRITES: usize = 1_900;

/// The first fetch of 10,000 entries, what the daemon then holds in memory, and how fast it is back without a network.
///
/// # Errors
/// When a program does not do its part.
pub async fn bootstrap(below: &Path) -> anyhow::Result<Vec<Figure>> {
    let bench = Bench::start(below).await?;
    bench.bulk(&(0..ENTRIES).map(|number| rows::set(number, 0)).collect::<Vec<_>>()).await?;
    let expected = rows::entries(0..ENTRIES, 0);
    let floor = gzip_bytes(catalogue::object(&expected).as_bytes(), 6) as f64;
    let position = bench.hub.api.position(FOLDER).await?;
    let begun = Instant::now();
    let (mut edge, network) = bench.edge("new").await?;
    let joined = begun.elapsed();
    edge.ready().await?;
    edge.api.reaches(FOLDER, &position).await?;
    let took = begun.elapsed().saturating_sub(joined).as_secs_f64();
    let down = network.traffic().down as f64;
    anyhow::ensure!(edge.api.all(FOLDER, ENVIRONMENT).await? == expected, "the edge serves something else");
    let memory = resident_bytes(edge.process()).unwrap_or_default() as f64 / f64::from(1 << 20);

    network.cut();
    let begun = Instant::now();
    edge.kill_and_restart().await?;
    edge.api.value(FOLDER, &rows::key(7), ENVIRONMENT).await?;
    let back = begun.elapsed().as_secs_f64() * 1e3;
    Ok(vec![
        Figure::plain("bootstrap of 10,000 entries, from the start of the daemon", took, "s")
            .bound("≤ 0.5 s", took <= 0.5),
        Figure::plain("bootstrap of 10,000 entries, down", down, "B")
            .over(floor, "one gzip stream of the rows")
            .bound("≤ 1.06 × one gzip stream", down <= floor * 1.06),
        Figure::plain("edge daemon with 10,000 entries, resident", memory, "MiB")
            .bound("≤ 20 MiB", memory <= 20.0),
        Figure::plain("offline start to first read", back, "ms").bound("≤ 200 ms", back <= 200.0),
    ])
}

/// 1,900 writes to 1,000 of 10,000 keys while the edge is away.
///
/// # Errors
/// When a program does not do its part.
pub async fn catch_up(below: &Path) -> anyhow::Result<Vec<Figure>> {
    let bench = Bench::start(below).await?;
    bench.bulk(&(0..ENTRIES).map(|number| rows::set(number, 0)).collect::<Vec<_>>()).await?;
    let (mut edge, network) = bench.edge("away").await?;
    edge.ready().await?;
    edge.api.reaches(FOLDER, &bench.hub.api.position(FOLDER).await?).await?;
    network.cut();
    // Spread over the keys, as changes are; the first 900 of them are written twice.
    let number = |n: usize| (n % CHANGED) * (ENTRIES / CHANGED);
    let writes: Vec<String> = (0..WRITES).map(|n| rows::set(number(n), 1 + (n / CHANGED) as u64)).collect();
    bench.bulk(&writes).await?;
    let twice = WRITES - CHANGED;
    let mut last: BTreeMap<String, Value> = rows::entries((0..twice).map(number), 2);
    last.extend(rows::entries((twice..CHANGED).map(number), 1));
    let floor = gzip_bytes(catalogue::object(&last).as_bytes(), 6) as f64;
    let (earlier, position) = (network.traffic(), bench.hub.api.position(FOLDER).await?);
    network.mend();
    edge.api.reaches(FOLDER, &position).await?;
    let down = network.traffic().since(earlier).down as f64;
    let all = edge.api.all(FOLDER, ENVIRONMENT).await?;
    anyhow::ensure!(
        last.iter().all(|(key, value)| all.get(key) == Some(value)),
        "the edge serves something else"
    );
    Ok(vec![
        Figure::plain("catch-up, 1,000 of 10,000 keys, 1,900 writes, down", down, "B")
            .over(floor, "one gzip stream of the final rows")
            .bound("≤ 1.04 × one gzip stream", down <= floor * 1.04),
    ])
}

/// The two real changes of the shipped catalogue.
///
/// # Errors
/// When a program does not do its part.
pub async fn catalogue_change(below: &Path) -> anyhow::Result<Vec<Figure>> {
    let bench = Bench::start(below).await?;
    let mut states = Vec::new();
    for version in VERSIONS {
        states.push(catalogue::entries(version)?);
    }
    bench
        .bulk(&states[0].iter().map(|(key, value)| rows::set_to(key, value.as_str())).collect::<Vec<_>>())
        .await?;
    let (mut edge, network) = bench.edge("catalogue").await?;
    edge.ready().await?;
    edge.api.reaches(FOLDER, &bench.hub.api.position(FOLDER).await?).await?;
    let names = [
        [
            "catalogue 1.85.0 → 1.90.0, down, beside whole values",
            "catalogue 1.85.0 → 1.90.0, down, beside patches",
        ],
        [
            "catalogue 1.90.0 → 1.95.1, down, beside whole values",
            "catalogue 1.90.0 → 1.95.1, down, beside patches",
        ],
    ];
    let mut figures = Vec::new();
    for (pair, names) in states.windows(2).zip(names) {
        let difference = catalogue::difference(&pair[0], &pair[1]);
        let mut operations: Vec<String> =
            difference.changed.iter().map(|(key, value)| rows::set_to(key, value.as_str())).collect();
        let delete = |key: &String| {
            json!({"op": "delete", "namespace": FOLDER, "env": ENVIRONMENT, "key": key}).to_string()
        };
        operations.extend(difference.removed.iter().map(delete));
        let earlier = network.traffic();
        bench.bulk(&operations).await?;
        // Waited for by looking, not by asking the hub, whose answer would be counted with the change.
        edge.api.shows(FOLDER, ENVIRONMENT, &pair[1]).await?;
        let down = network.traffic().since(earlier).down as f64;
        let whole = gzip_bytes(catalogue::object(&difference.changed).as_bytes(), 9) as f64;
        let patches = gzip_bytes(catalogue::patches(&pair[0], &difference).as_bytes(), 9) as f64;
        figures.push(Figure::plain(names[0], down, "B").over(whole, "gzip -9 of the changed values"));
        figures.push(
            Figure::plain(names[1], down, "B")
                .over(patches, "gzip -9 of JSON merge patches")
                .bound("≤ 1.2 × gzip -9 of merge patches", down <= patches * 1.2),
        );
    }
    Ok(figures)
}
