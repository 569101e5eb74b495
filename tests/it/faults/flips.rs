//! Bytes that changed on the disk, in every file of an edge's replica. The edge serves what is right, or less and says
//! so; it never serves what never was, nor what is no longer.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use llm_config_tests::Size;
use llm_config_tests::edge::Edge;
use llm_config_tests::http::{Rows, entry};
use llm_config_tests::proxy::Fault;
use llm_config_tests::scratch::{copy_folder, files_below};
use llm_config_tests::wait::eventually;
use llm_config_tests::workload::converge;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;

use super::world::{CONVERGED_WITHIN, Replay, World, base_seed};

const ENTRIES: usize = 40;
const ROUNDS: u64 = 3;
/// An edge that was cut off at its start tries again later each time.
const PAUSE_MAX: Duration = Duration::from_secs(8);

/// What an edge made of its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    /// Everything is served.
    Whole,
    /// Some of it, and that is told.
    Part,
    /// Nothing, and that is told.
    Nothing,
    /// The program does not start, and says why.
    Refused,
}

/// Fills the edge: values of several sizes and ages, deletions, and writes that wait for the hub.
async fn fill(world: &World) -> Rows {
    let (hub, edge) = (world.hub.client(), world.edges[0].client());
    for round in 0..ROUNDS {
        let set = |n: usize| {
            json!({"op": "set", "namespace": "app", "key": format!("f{n:02}"), "env": "development",
            "value": {"n": n, "round": round, "text": "x".repeat(n * 20)}})
        };
        let operations: Vec<_> = (0..ENTRIES).map(set).collect();
        hub.post("/api/v1/configs/bulk", json!({"operations": operations})).await.expect(200);
    }
    hub.delete(&(entry("app", "f00") + "?env=development")).await.expect(204);
    let truth = hub.everything("app", "development").await;
    eventually("the edge has everything", async || {
        let rows = edge.everything("app", "development").await;
        if rows == truth { Ok(()) } else { Err(rows.len()) }
    })
    .await;
    world.suffer(Fault::Cut);
    edge.until("/api/v1/edge/status", |answer| answer.json()["connected"] == false).await;
    for n in [1, 2, ENTRIES] {
        let body = json!({"value": format!("waits-{n}"), "env": "development"});
        edge.put(&entry("app", &format!("f{n:02}")), body).await.expect(202);
    }
    edge.everything("app", "development").await
}

/// Starts the edge on what lies there. A panic is no way to say anything.
async fn outcome(edge: &mut Edge, right: &Rows, what: &str) -> Outcome {
    let before = edge.log().len();
    edge.launch(&[]);
    let client = edge.client();
    let process = edge.process();
    let started = eventually("the edge answers or ends", async || match process.ended() {
        Some(_) => Ok(false),
        None => client.try_send("GET", "/health/live", None).await.map(|_| true),
    })
    .await;
    let log = |edge: &Edge| edge.log()[before..].to_owned();
    if !started {
        assert!(!log(edge).trim().is_empty(), "{what}: it ended without a word");
        return Outcome::Refused;
    }
    let path = "/api/v1/configs/app?env=development&limit=100";
    let listed = client.get(path).await;
    let served =
        if listed.status == 200 { client.everything("app", "development").await } else { Rows::new() };
    if served == *right {
        return Outcome::Whole;
    }
    for (key, row) in &served {
        assert_eq!(right.get(key), Some(row), "{what}: {key}\n{}", log(edge));
    }
    let status = client.get("/api/v1/edge/status").await.json();
    let told = status["warnings"].to_string().contains("the replica");
    assert!(told, "{what}: something is missing, and nothing is told: {status}\n{}", log(edge));
    if served.is_empty() { Outcome::Nothing } else { Outcome::Part }
}

/// A place where something is written: most of a file may be empty.
fn somewhere(bytes: &[u8], random: &mut StdRng) -> usize {
    let written: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
    written[random.random_range(0..written.len())]
}

fn put_back(image: &Path, data: &Path) {
    fs::remove_dir_all(data).unwrap();
    copy_folder(image, data);
}

#[tokio::test(flavor = "multi_thread")]
#[allow(clippy::print_stderr, reason = "how much a flip costs is a figure")]
async fn a_flipped_bit_never_changes_what_is_served() {
    let seed = base_seed();
    let mut world = World::new("flips", seed).await;
    let right = fill(&world).await;
    world.edges[0].kill();
    let data = world.edges[0].data().to_owned();
    let image = world.scratch.path("image");
    copy_folder(&data, &image);
    let mut random = StdRng::seed_from_u64(seed);
    let mut outcomes: Vec<(PathBuf, Outcome)> = Vec::new();
    for (file, bytes) in files_below(&image.join("replica")) {
        let name = file.strip_prefix(&image).expect("below it").to_owned();
        for _ in 0..if bytes.is_empty() { 0 } else { Size::of_run().pick(3, 8, 400) } {
            let (at, bit) = (somewhere(&bytes, &mut random), random.random_range(0..8));
            let what = format!("seed {seed}: bit {bit} of byte {at} in {}", name.display());
            let _replay = Replay(what.clone());
            put_back(&image, &data);
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << bit;
            fs::write(data.join(&name), flipped).unwrap();
            let outcome = outcome(&mut world.edges[0], &right, &what).await;
            world.edges[0].kill();
            outcomes.push((name.clone(), outcome));
        }
    }
    let count = |wanted| outcomes.iter().filter(|(_, outcome)| *outcome == wanted).count();
    eprintln!(
        "of {} flips {} changed nothing, {} cost a part, {} the whole replica, {} the start",
        outcomes.len(),
        count(Outcome::Whole),
        count(Outcome::Part),
        count(Outcome::Nothing),
        count(Outcome::Refused)
    );
    assert!(outcomes.len() > count(Outcome::Whole), "some flip is noticed");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_flipped_bit_cost_comes_back_from_the_hub() {
    let mut world = World::new("flips-healed", base_seed()).await;
    let right = fill(&world).await;
    let data = world.edges[0].data().to_owned();
    world.edges[0].kill();
    let image = world.scratch.path("image");
    copy_folder(&data, &image);
    let db = image.join("replica/db");
    let bytes = fs::read(&db).unwrap();
    let mut random = StdRng::seed_from_u64(base_seed());
    // Until one costs something: in old segments a flip may do nothing.
    for _ in 0..200 {
        let mut flipped = bytes.clone();
        flipped[somewhere(&bytes, &mut random)] ^= 1;
        put_back(&image, &data);
        fs::write(data.join("replica/db"), flipped).unwrap();
        let outcome = outcome(&mut world.edges[0], &right, "to be healed").await;
        if matches!(outcome, Outcome::Part | Outcome::Nothing) {
            world.suffer(Fault::None);
            let listed = "/api/v1/configs/app?env=development";
            world.edges[0].client().until(listed, |answer| answer.status == 200).await;
            converge(&world.hub, &world.edges, CONVERGED_WITHIN + PAUSE_MAX).await;
            return;
        }
        world.edges[0].kill();
    }
    panic!("no flip is ever noticed");
}
