//! An edge's memory stays out of swap where the system lets it, and an edge that must have that does not start without.

use std::fs;
use std::process::Command;

use llm_config_tests::edge::Edge;
use llm_config_tests::hub::Hub;
use llm_config_tests::process::program;
use llm_config_tests::scratch::Scratch;

const CAP_SETPCAP: u32 = 8;
const CAP_IPC_LOCK: u32 = 14;

fn own_status(name: &str) -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("the kernel tells");
    line.trim().to_owned()
}

fn may(capability: u32) -> bool {
    u64::from_str_radix(&own_status("CapEff:"), 16).unwrap() & (1 << capability) != 0
}

/// Whether what this process starts may lock all of its memory.
fn may_lock_everything() -> bool {
    let limits = fs::read_to_string("/proc/self/limits").unwrap();
    let locked =
        limits.lines().find_map(|line| line.strip_prefix("Max locked memory")).expect("the kernel tells");
    may(CAP_IPC_LOCK) || locked.trim().starts_with("unlimited")
}

fn locked_kib(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmLck:")).expect("the kernel tells");
    line.trim().strip_suffix(" kB").expect("in kB").parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_locks_its_memory_where_it_may_and_says_so() {
    let scratch = Scratch::new("memory");
    let hub = Hub::dev(&scratch).await;
    let mut edge = Edge::join(&scratch, "e1", &hub.open_token("e1").await).await;
    let process = edge.process().id();
    let status = edge.client().get("/api/v1/edge/status").await.expect(200);
    assert_eq!(status["memory_locked"], may_lock_everything());
    assert_eq!(locked_kib(process) > 0, may_lock_everything());
    let told = edge.cli(&["edge", "status"]).await.out;
    assert_eq!(told.contains("its memory out of swap"), may_lock_everything(), "{told}");

    edge.kill();
    edge.launch(&["--lock-memory", "never"]);
    edge.client().until("/health/ready", |answer| answer.status == 200).await;
    assert_eq!(locked_kib(edge.process().id()), 0);
}

#[test]
fn an_edge_that_must_lock_its_memory_does_not_start_without() {
    let scratch = Scratch::new("memory-bounded");
    // Root may lock what it likes, until it cannot have that capability any more.
    let mut command = Command::new(if may(CAP_SETPCAP) { "setpriv" } else { "env" });
    if may(CAP_SETPCAP) {
        command.args(["--bounding-set", "-ipc_lock", "--inh-caps", "-ipc_lock"]);
    }
    command.args(["prlimit", "--memlock=65536:65536"]).arg(program("llm-config"));
    command.args(["edge", "run", "--lock-memory", "always", "--data"]).arg(scratch.path("edge"));
    let said = command.output().unwrap();
    let text = String::from_utf8_lossy(&said.stderr);
    assert_eq!(said.status.code(), Some(2), "{text}");
    assert!(
        text.contains("may lock only 64 KiB of memory") && text.contains("LimitMEMLOCK=infinity"),
        "{text}"
    );
}
