//! A link that breaks more often than a snapshot takes: what has come stays, so the edge gets there all the same, and not much
//! comes twice. Who dies in between makes no difference.

use llm_config_shared::limits::CHUNK_PLAIN_BYTES_CUT;
use llm_config_tests::edge::{Edge, try_join};
use llm_config_tests::hub::Hub;
use llm_config_tests::proxy::{Fault, Proxy};
use llm_config_tests::scratch::Scratch;
use llm_config_tests::wait::eventually;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};

/// Entries of so many characters that hardly shrink: a catalogue of 4 MB.
const ENTRIES: usize = 10_000;
const VALUE_CHARS: usize = 400;
const BATCH: usize = 500;
/// A connection through which so many bytes went is reset.
const RESET_AFTER: u64 = 900_000;
/// What of it may have to come again: a part that was not whole yet, and the handshake.
const LOST_MAX: u64 = CHUNK_PLAIN_BYTES_CUT as u64 + (16 << 10);

/// How often so much breaks off where each connection loses all that it may: the last one does not.
fn breaks(whole: u64) -> u64 {
    whole.div_ceil(RESET_AFTER - LOST_MAX) - 1
}

async fn fill(hub: &Hub) {
    let mut random = StdRng::seed_from_u64(11);
    let mut text =
        || (0..VALUE_CHARS).map(|_| char::from(random.random_range(b'0'..=b'z'))).collect::<String>();
    for batch in 0..ENTRIES / BATCH {
        let operation = |n: usize| {
            let key = format!("k{:05}", batch * BATCH + n);
            json!({"op": "set", "namespace": "models", "key": key, "env": "production", "value": text()})
        };
        let operations: Vec<Value> = (0..BATCH).map(operation).collect();
        hub.client().post("/api/v1/configs/bulk", json!({"operations": operations})).await.expect(200);
    }
}

/// Joined through a proxy of its own, and not started.
async fn joined(scratch: &Scratch, hub: &Hub, name: &str) -> (Edge, Proxy) {
    let proxy = Proxy::start(hub.sync, 1).await;
    let address = format!("https://{}", proxy.address());
    try_join(scratch, name, &hub.open_token(name).await, &["--hub", &address]).await.done();
    (Edge::at(scratch, name), proxy)
}

async fn is_ready(edge: &Edge) {
    edge.client().until("/health/ready", |answer| answer.status == 200).await;
}

async fn brought(proxy: &Proxy, bytes: u64) {
    eventually("so much has come", async || {
        let so_far = proxy.brought();
        if so_far >= bytes { Ok(()) } else { Err(so_far) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[allow(clippy::print_stderr, reason = "how much comes twice is a figure")]
async fn a_snapshot_larger_than_any_connection_lasts_comes_in_parts() {
    let scratch = Scratch::new("breaks");
    let mut hub = Hub::dev(&scratch).await;
    fill(&hub).await;
    let (mut edge, proxy) = joined(&scratch, &hub, "e1").await;
    let enrolled = proxy.brought();
    edge.start().await;
    is_ready(&edge).await;
    let whole = proxy.brought() - enrolled;
    assert!(whole > 3 * RESET_AFTER, "{whole} bytes are no several connections");

    let (mut edge, proxy) = joined(&scratch, &hub, "e3").await;
    let enrolled = proxy.brought();
    proxy.suffer(Fault::Reset { after: RESET_AFTER });
    edge.start().await;
    is_ready(&edge).await;
    let broken = proxy.brought() - enrolled;
    eprintln!("{whole} bytes in one piece, {broken} in pieces of {RESET_AFTER}");
    let bound = whole + breaks(whole) * LOST_MAX;
    assert!(broken <= bound, "{broken} bytes where {whole} do without breaks, and {bound} with them");

    let (mut edge, proxy) = joined(&scratch, &hub, "e2").await;
    let enrolled = proxy.brought();
    proxy.suffer(Fault::Reset { after: RESET_AFTER });
    edge.start().await;
    brought(&proxy, enrolled + whole * 3 / 10).await;
    edge.kill();
    edge.start().await;
    brought(&proxy, enrolled + whole * 6 / 10).await;
    hub.kill();
    hub.start().await;
    is_ready(&edge).await;
    let with_deaths = proxy.brought() - enrolled;
    // Who dies has not made durable, or not read, what one connection brought at most.
    let bound = bound + 2 * RESET_AFTER;
    assert!(
        with_deaths <= bound,
        "{with_deaths} bytes where {whole} do without breaks, and {bound} with them"
    );

    let both = (
        edge.client().everything("models", "production").await,
        hub.client().everything("models", "production").await,
    );
    assert_eq!((both.0.len(), both.0 == both.1), (ENTRIES, true));
}
