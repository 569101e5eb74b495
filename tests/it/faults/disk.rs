//! A disk that fails or is full, as the system calls tell: writes are refused clearly and reads go on, what had been
//! acknowledged is there after a restart, and then everything works again.

use std::path::PathBuf;
use std::time::Duration;

use llm_config_tests::Size;
use llm_config_tests::http::{Client, entry};
use llm_config_tests::strace::Injection;
use llm_config_tests::wait::{eventually, within};
use llm_config_tests::workload::converge;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;

use super::world::{CONVERGED_WITHIN, Replay, Victim, World, base_seed};

const OF_THE_EDGE: &[&str] = &["fdatasync", "pwrite64", "sync_file_range"];
const OF_THE_HUB: &[&str] = &["pwrite64", "fsync,fdatasync"];
const ERRORS: &[&str] = &["EIO", "ENOSPC"];
/// An edge whose disk failed tries again after ten seconds; and one whose hub refused it, later each time.
const GOES_ON_WITHIN: Duration = Duration::from_secs(40);

/// The files that hold what was acknowledged.
fn files(world: &World, victim: Victim) -> Vec<PathBuf> {
    match victim {
        Victim::Hub => ["hub.sqlite", "hub.sqlite-wal"].map(|name| world.hub.data().join(name)).into(),
        Victim::Edge => vec![world.edges[0].data().join("replica/db")],
    }
}

/// Writes an entry that nobody else touches, and waits until everybody has it.
async fn write_before(world: &World) {
    let body = json!({"value": "before", "env": "development", "change_description": "before"});
    world.hub.client().put(&entry("app", "before"), body).await.expect(200);
    for edge in &world.edges {
        edge.client().until_value(&(entry("app", "before") + "?env=development"), "before").await;
    }
}

fn client(world: &World, victim: Victim) -> Client {
    match victim {
        Victim::Hub => world.hub.client(),
        Victim::Edge => world.edges[0].client(),
    }
}

/// What `strace` saw, and what the program printed.
fn logs(world: &World, victim: Victim) -> (PathBuf, String) {
    match victim {
        Victim::Hub => (world.hub.trace_path(), world.hub.log()),
        Victim::Edge => (world.edges[0].trace_path(), world.edges[0].log()),
    }
}

/// How the fault ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    /// With the process.
    ByRestart,
    /// By itself: the same process has to go on.
    ByItself,
}

async fn failing(victim: Victim, ends: Ends, calls: &[&str], rounds: usize) {
    for round in 0..rounds {
        let seed = base_seed() + round as u64;
        let (error, calls) =
            (ERRORS[round % ERRORS.len()], calls[(round + round / calls.len()) % calls.len()]);
        let nth = StdRng::seed_from_u64(seed).random_range(10..40);
        let _replay =
            Replay(format!("seed {seed}: {victim:?}, {error} from {calls} number {nth} on, {ends:?}"));
        let mut world = World::new(&format!("disk-{victim:?}-{error}-{ends:?}"), seed).await;
        write_before(&world).await;
        let injection = Injection::fail(calls, error, nth).at(files(&world, victim));
        suffers(&mut world, victim, injection, ends).await;
    }
}

async fn suffers(world: &mut World, victim: Victim, injection: Injection, ends: Ends) {
    let workload = world.workload();
    world.kill(victim);
    world.launch(victim, Some(injection));
    is_refused_a_write(world, victim).await;
    let (trace, log) = logs(world, victim);
    assert!(Injection::happened(&trace), "the call failed");
    client(world, victim).get(&(entry("app", "before") + "?env=development")).await.expect(200);
    assert_eq!(world.process(victim).ended(), None, "it lives on: {log}");
    let other = if victim == Victim::Hub { Victim::Edge } else { Victim::Hub };
    workload.goes_on(&[other.name()], 3).await;
    match ends {
        Ends::ByRestart => {
            world.kill(victim);
            world.start(victim).await;
        }
        Ends::ByItself => Injection::end(world.process(victim).id()),
    }
    workload.goes_on_everywhere(3).await;
    workload.stop().await;
    world.is_whole_again(if ends == Ends::ByItself { GOES_ON_WITHIN } else { CONVERGED_WITHIN }).await;
}

/// Clearly: with a status and a reason.
async fn is_refused_a_write(world: &World, victim: Victim) {
    let client = client(world, victim);
    eventually("a write is refused", async || {
        let tag = format!("own-{}", world.recorder.tick());
        let body = json!({"value": tag, "env": "development", "change_description": tag});
        let told =
            client.try_send("PUT", &entry("app", "own"), Some(body)).await.map_err(|e| e.to_string())?;
        if matches!(told.status, 503 | 507) { Ok(told.refusal(told.status)) } else { Err(told.text()) }
    })
    .await;
}

/// Everything at once: most of the time one waits for the other side to try again.
#[tokio::test(flavor = "multi_thread")]
async fn an_edge_whose_disk_fails_or_is_full_loses_nothing_and_goes_on() {
    let (restarts, by_itself) = Size::of_run().pick((1, 1), (2, 1), (60, 12));
    let of = |call| async move { failing(Victim::Edge, Ends::ByItself, &[call], by_itself).await };
    tokio::join!(
        failing(Victim::Edge, Ends::ByRestart, OF_THE_EDGE, restarts),
        of(OF_THE_EDGE[0]),
        of(OF_THE_EDGE[1]),
        of(OF_THE_EDGE[2]),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_whose_disk_fails_or_is_full_loses_nothing_and_goes_on() {
    let (restarts, by_itself) = Size::of_run().pick((1, 1), (2, 1), (60, 40));
    tokio::join!(
        failing(Victim::Hub, Ends::ByRestart, OF_THE_HUB, restarts),
        failing(Victim::Hub, Ends::ByItself, OF_THE_HUB, by_itself),
    );
}

/// The engine writes a batch that goes over the end of a segment by two of its threads; when the first fails and the second
/// is done already, it tells nobody.
async fn fails_late_in_a_large_write(seed: u64) {
    let nth = StdRng::seed_from_u64(seed).random_range(3..12);
    let _replay = Replay(format!("seed {seed}: EIO from pwrite64 number {nth} on, late"));
    let mut world = World::new("disk-late", seed).await;
    write_before(&world).await;
    world.kill(Victim::Edge);
    let injection = Injection::fail("pwrite64", "EIO", nth).late(Duration::from_millis(300));
    world.launch(Victim::Edge, Some(injection.at(files(&world, Victim::Edge))));
    let client = world.edges[0].client();
    let large = json!({"value": "x".repeat(400_000), "env": "development"});
    let put = async || {
        let told = client.try_send("PUT", &entry("app", "large"), Some(large.clone())).await;
        told.map(|told| told.status).map_err(|error| error.to_string())
    };
    eventually("a write is refused", async || match put().await? {
        503 | 507 => Ok(()),
        other => Err(other.to_string()),
    })
    .await;
    assert!(Injection::happened(&world.edges[0].trace_path()), "the call failed");
    Injection::end(world.process(Victim::Edge).id());
    let taken = within(GOES_ON_WITHIN, "a write is taken", async || match put().await? {
        200 | 202 => Ok(()),
        other => Err(other.to_string()),
    });
    taken.await;
    converge(&world.hub, &world.edges, GOES_ON_WITHIN).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_whose_disk_fails_late_in_a_large_write_goes_on() {
    let rounds = Size::of_run().pick(2, 2, 20);
    for round in (0..rounds).step_by(2) {
        let seed = base_seed() + round;
        tokio::join!(fails_late_in_a_large_write(seed), fails_late_in_a_large_write(seed + 1));
    }
}
