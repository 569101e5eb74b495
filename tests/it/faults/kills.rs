//! Hub and edge are killed at the calls by which they write, while everybody writes and reads: what was acknowledged is
//! there, and nothing is there twice.

use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use llm_config_tests::Size;
use llm_config_tests::proxy::Fault;
use llm_config_tests::strace::Injection;
use llm_config_tests::wait::eventually;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use super::world::{CONVERGED_WITHIN, Hubs, Replay, Victim, World, base_seed};

/// Points in one world: a long history makes the check slow.
const POINTS_PER_WORLD: usize = 25;
/// Worlds at once, for each victim, where there are that many.
const WORLDS_AT_ONCE: usize = 3;
/// Writes that the victim answers before its kill is given up and it is killed between calls.
const WRITES_MAX: usize = 150;

/// An edge that found no hub for half a minute, as on a busy machine, may wait so long before it tries again.
const PAUSE_MAX: Duration = Duration::from_secs(64);

/// Calls, and how often a thread makes them while the workload goes on for some seconds, its start included.
const OF_THE_EDGE: &[(&str, RangeInclusive<u16>)] = &[
    ("pwrite64", 1..=120),
    ("fdatasync", 1..=60),
    ("sync_file_range", 1..=120),
    ("write,writev,fsync,rename,unlink,ftruncate", 1..=60),
];
const OF_THE_HUB: &[(&str, RangeInclusive<u16>)] =
    &[("pwrite64", 1..=800), ("fsync,fdatasync", 1..=60), ("write,writev,rename,unlink,ftruncate", 1..=80)];
/// What a hub on PostgreSQL writes goes into sockets.
const TO_POSTGRESQL: &[(&str, RangeInclusive<u16>)] = &[("write,writev,sendto,sendmsg", 1..=300)];

/// The n-th point of a seed.
fn point(hubs: Hubs, victim: Victim, seed: u64, number: usize) -> (&'static str, u16) {
    let mut random = StdRng::seed_from_u64(seed ^ (number as u64) << 20);
    let calls = match (victim, hubs) {
        (Victim::Hub, Hubs::One | Hubs::Regions) => OF_THE_HUB,
        (Victim::Hub, Hubs::Processes) => TO_POSTGRESQL,
        (Victim::Edge, _) => OF_THE_EDGE,
    };
    let (calls, times) = calls.choose(&mut random).expect("there are some");
    (calls, random.random_range(times.clone()))
}

/// Most of the time a world waits for somebody to try again, so several go on at once.
#[allow(clippy::print_stderr, reason = "how many points came is a figure")]
async fn killed_at_write_calls(hubs: Hubs, victim: Victim) {
    let seed = base_seed();
    let points = match hubs {
        Hubs::One => Size::of_run().pick(3, 6, 600),
        Hubs::Processes | Hubs::Regions => Size::of_run().pick(1, 3, 200),
    };
    let worlds = async |first: usize| {
        let mut killed = 0;
        for first in (0..points).step_by(POINTS_PER_WORLD).skip(first).step_by(WORLDS_AT_ONCE) {
            let numbers = first..points.min(first + POINTS_PER_WORLD);
            let of_world = killed_in_a_world(hubs, victim, seed, numbers.clone()).await;
            eprintln!("{victim:?}, {hubs:?}, points {numbers:?}: {of_world} came, nothing was lost");
            killed += of_world;
        }
        killed
    };
    let (a, b, c) = tokio::join!(worlds(0), worlds(1), worlds(2));
    let killed = a + b + c;
    eprintln!("{victim:?}, {hubs:?}: of {points} points {killed} came, nothing was lost");
    assert!(killed * 2 >= points || points < 3, "of {points} points {killed} came");
}

/// How many of its points came.
async fn killed_in_a_world(hubs: Hubs, victim: Victim, seed: u64, numbers: Range<usize>) -> usize {
    let mut world = World::with(hubs, &format!("kill-calls-{hubs:?}-{victim:?}"), seed).await;
    let mut killed = 0;
    for number in numbers {
        let (calls, nth) = point(hubs, victim, seed, number);
        let _replay =
            Replay(format!("seed {seed}, point {number}: {victim:?} killed at {calls} number {nth}"));
        // Cut off, an edge answers for itself alone.
        world.suffer(if number % 2 == 0 { Fault::Cut } else { Fault::None });
        killed += usize::from(kill_at(&mut world, victim, Injection::kill(calls, nth)).await);
    }
    killed
}

/// False when the call never came, and the victim was killed without it.
async fn kill_at(world: &mut World, victim: Victim, injection: Injection) -> bool {
    let workload = world.workload();
    world.kill(victim);
    world.launch(victim, Some(injection));
    let name = victim.name();
    let goal = world.recorder.taken(name) + WRITES_MAX;
    let recorder = world.recorder.clone();
    let process = world.process(victim);
    let ended = eventually("the victim ends, or has written enough", async || match process.ended() {
        Some(_) => Ok(true),
        None if recorder.taken(name) >= goal => Ok(false),
        None => Err(recorder.taken(name)),
    })
    .await;
    world.kill(victim);
    world.start(victim).await;
    world.suffer(Fault::None);
    workload.goes_on_everywhere(3).await;
    workload.stop().await;
    world.is_whole_again(CONVERGED_WITHIN + PAUSE_MAX).await;
    ended
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_killed_at_its_write_calls_loses_nothing() {
    killed_at_write_calls(Hubs::One, Victim::Edge).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_killed_at_its_write_calls_loses_nothing() {
    killed_at_write_calls(Hubs::One, Victim::Hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_of_two_processes_killed_at_its_write_calls_loses_nothing() {
    killed_at_write_calls(Hubs::Processes, Victim::Edge).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_of_a_hub_killed_at_its_write_calls_loses_nothing() {
    killed_at_write_calls(Hubs::Processes, Victim::Hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_of_two_regions_killed_at_its_write_calls_loses_nothing() {
    killed_at_write_calls(Hubs::Regions, Victim::Edge).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_killed_at_its_write_calls_loses_nothing() {
    killed_at_write_calls(Hubs::Regions, Victim::Hub).await;
}

#[test]
fn a_seed_and_a_number_decide_the_point() {
    let points = |seed| (0..20).map(|number| point(Hubs::One, Victim::Hub, seed, number)).collect::<Vec<_>>();
    assert_eq!(points(7), points(7));
    assert_ne!(points(7), points(8));
}
