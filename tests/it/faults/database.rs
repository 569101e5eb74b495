//! PostgreSQL goes away and comes back, or hangs for a while, under two processes of a hub, while everybody writes and
//! reads.

use std::time::Duration;

use llm_config_tests::Size;
use llm_config_tests::hub::Hub;
use llm_config_tests::postgres::Cluster;
use llm_config_tests::process::Process;
use llm_config_tests::scratch::Scratch;

use super::world::{CONVERGED_WITHIN, Replay, World, base_seed};

/// An edge that the hub refuses for want of its database tries again later each time, like one whose connection ended.
const PAUSE_MAX: Duration = Duration::from_secs(16);

async fn database_suffers(name: &str, away: impl Fn(&Cluster), back: impl Fn(&Cluster)) {
    for seed in base_seed()..base_seed() + Size::of_run().pick(1, 1, 10) {
        let _replay = Replay(format!("seed {seed}"));
        let cluster = Cluster::start();
        let scratch = Scratch::new(name);
        let hub = Hub::serve(&scratch, &format!("[database]\nurl = \"{}\"", cluster.database())).await;
        let other = hub.beside(&scratch, "other").await;
        let mut world = World::of_two(scratch, hub, other, seed).await;
        let workload = world.workload();
        workload.goes_on_everywhere(5).await;
        for _ in 0..Size::of_run().pick(1, 2, 5) {
            away(&cluster);
            // Edges do not wait for it.
            workload.goes_on(&["e1", "e2"], 1).await;
            workload.lasts(Duration::from_millis(Size::of_run().pick(300, 500, 3_000))).await;
            back(&cluster);
            workload.goes_on_everywhere(5).await;
        }
        workload.stop().await;
        world.is_whole_again(CONVERGED_WITHIN + PAUSE_MAX).await;
        assert_eq!(
            world.processes().map(Process::ended).collect::<Vec<_>>(),
            [None, None],
            "none was replaced"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_restarts_in_the_middle_loses_nothing() {
    database_suffers("database-restarts", Cluster::stop, Cluster::resume).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_hangs_loses_nothing() {
    database_suffers("database-hangs", Cluster::pause, Cluster::unpause).await;
}
