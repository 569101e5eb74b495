//! What an edge goes through before its power is cut.

use std::fs;
use std::path::Path;

use llm_config_tests::edge::Edge;
use llm_config_tests::http::entry;
use llm_config_tests::hub::Hub;
use llm_config_tests::powercut::calls::WATCHED;
use llm_config_tests::scratch::Scratch;
use llm_config_tests::strace::Injection;
use serde_json::json;

/// Entries that the hub changes in every round, with values of about this many bytes: some rounds fill a segment.
pub(super) const ENTRIES: usize = 60;
const VALUE_BYTES: usize = 2_000;

/// Of the edge's own write of this number: of many sizes.
pub(super) fn own_value(number: usize) -> String {
    "w".repeat(10 << (number % 12))
}

/// A hub and an edge of which every write is recorded.
pub(super) struct Driver {
    hub: Hub,
    token: String,
    pub(super) edge: Edge,
    pub(super) rounds: usize,
    pub(super) writes: usize,
}

impl Driver {
    pub(super) async fn start(scratch: &Scratch) -> Self {
        let hub = Hub::dev(scratch).await;
        let token = scratch.file("e1.join", &hub.open_token("e1").await).display().to_string();
        let mut edge = Edge::at(scratch, "e1");
        edge.injection = Some(Injection::record(WATCHED));
        Self { hub, token, edge, rounds: 0, writes: 0 }
    }

    /// The hub changes everything, and the edge is asked until it shows that.
    async fn round(&mut self) {
        self.rounds += 1;
        let text = format!("round-{:04}", self.rounds);
        let set = |n: usize| {
            let value = json!({"round": text, "text": format!("{n:02}").repeat(VALUE_BYTES / 2)});
            json!({"op": "set", "namespace": "app/hub", "key": format!("h{n:02}"), "env": "development", "value": value})
        };
        let operations: Vec<_> = (0..ENTRIES).map(set).collect();
        self.hub.client().post("/api/v1/configs/bulk", json!({"operations": operations})).await.expect(200);
        let path = entry("app/hub", "h00") + "?env=development";
        let shown = move |value: &serde_json::Value| value["value"]["round"] == text.as_str();
        self.edge.client().until(&path, |answer| answer.status == 200 && shown(&answer.json())).await;
    }

    async fn write(&mut self) {
        self.writes += 1;
        let key = format!("own-{:04}", self.writes);
        let body = json!({"value": own_value(self.writes), "env": "development"});
        let answer = self.edge.client().put(&entry("app", &key), body).await;
        assert!(matches!(answer.status, 200 | 202), "{}", answer.text());
    }

    async fn connected(&self, wanted: bool) {
        self.edge.client().until("/api/v1/edge/status", |answer| answer.json()["connected"] == wanted).await;
    }

    /// One life of the edge, connected for most of it, which it begins by joining if it has not; it ends by a kill.
    pub(super) async fn life(&mut self, size: usize, log: &Path) {
        self.edge.launch(&["--join-token-file", &self.token]);
        self.edge.client().until("/health/ready", |answer| answer.status == 200).await;
        for _ in 0..size {
            self.round().await;
            self.write().await;
        }
        self.hub.kill();
        self.connected(false).await;
        for _ in 0..2 * size {
            self.write().await;
        }
        self.edge.kill();
        self.hub.start().await;
        fs::copy(self.edge.trace_path(), log).unwrap();
    }
}
