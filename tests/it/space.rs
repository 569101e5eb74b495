//! Every key is rewritten a hundred times: an edge's files and memory stay bounded by what it holds, not by what it held.

use std::fs;
use std::path::Path;

use llm_config_tests::Size;
use llm_config_tests::edge::Edge;
use llm_config_tests::http::entry;
use llm_config_tests::hub::Hub;
use llm_config_tests::scratch::{Scratch, files_below};
use serde_json::json;

/// As many as one bulk request takes.
const BATCH: usize = 500;
const REWRITES: usize = 100;
const VALUE_BYTES: usize = 400;
/// The first fill is a log without anything overwritten; sled settles at some times that and never gives space back.
const DISK_GROWTH_MAX: f64 = 8.0;
const MEMORY_GROWTH_MAX: f64 = 2.0;

/// Writes all keys anew, and waits until the edge shows it: a write that is overtaken would not reach its disk.
async fn rewrite(hub: &Hub, edge: &Edge, keys: usize, round: usize) {
    for first in (0..keys).step_by(BATCH) {
        let set = |n: usize| {
            let value = json!({"round": round, "text": format!("{n:05}").repeat(VALUE_BYTES / 5)});
            json!({"op": "set", "namespace": "app", "key": format!("k{n:05}"), "env": "development", "value": value})
        };
        let operations: Vec<_> = (first..keys.min(first + BATCH)).map(set).collect();
        hub.client().post("/api/v1/configs/bulk", json!({"operations": operations})).await.expect(200);
    }
    let last = entry("app", &format!("k{:05}", keys - 1)) + "?env=development";
    let shown = |answer: &llm_config_tests::http::Answer| {
        answer.status == 200 && answer.json()["value"]["round"] == round
    };
    edge.client().until(&last, shown).await;
}

fn disk_bytes(replica: &Path) -> u64 {
    files_below(replica).iter().map(|(_, bytes)| bytes.len() as u64).sum()
}

fn resident_bytes(edge: &mut Edge) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", edge.process().id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("the kernel tells");
    line.trim().strip_suffix(" kB").expect("in kB").parse::<u64>().expect("a number") << 10
}

#[tokio::test(flavor = "multi_thread")]
#[allow(clippy::print_stderr, reason = "how much it grows is a figure")]
async fn what_an_edge_takes_is_bounded_however_often_its_entries_are_rewritten() {
    let scratch = Scratch::new("space");
    let hub = Hub::dev(&scratch).await;
    let mut edge = Edge::join(&scratch, "e1", &hub.open_token("e1").await).await;
    let keys = Size::of_run().pick(1_000, 1_000, 10_000);
    let replica = edge.data().join("replica");

    rewrite(&hub, &edge, keys, 0).await;
    let before = (disk_bytes(&replica), resident_bytes(&mut edge));
    for round in 1..=REWRITES {
        rewrite(&hub, &edge, keys, round).await;
    }
    let after = (disk_bytes(&replica), resident_bytes(&mut edge));
    edge.stop();
    edge.start().await;
    edge.client().until("/health/ready", |answer| answer.status == 200).await;
    let opened = (disk_bytes(&replica), resident_bytes(&mut edge));

    let times = |(disk, memory): (u64, u64)| (disk as f64 / before.0 as f64, memory as f64 / before.1 as f64);
    eprintln!(
        "{keys} keys: disk, memory {before:?}; {REWRITES} rewrites later {after:?}; opened anew {opened:?}"
    );
    for (disk, memory) in [times(after), times(opened)] {
        assert!(disk <= DISK_GROWTH_MAX, "the files have grown {disk:.1} times");
        assert!(memory <= MEMORY_GROWTH_MAX, "memory has grown {memory:.1} times");
    }
}
