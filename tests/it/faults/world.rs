//! A hub and two edges behind a bad network each, and the record of what everybody was told. The hub is one process, or
//! one of two that are one hub, or of one of two regions.

mod beside;

use std::sync::Arc;
use std::time::Duration;
use std::{env, thread};

use llm_config_tests::edge::Edge;
use llm_config_tests::history::Recorder;
use llm_config_tests::history::check::check;
use llm_config_tests::hub::Hub;
use llm_config_tests::process::Process;
use llm_config_tests::proxy::{Fault, Proxy};
use llm_config_tests::scratch::Scratch;
use llm_config_tests::strace::Injection;
use llm_config_tests::workload::{Place, Workload, at_end, converge};

/// How soon all is one again once nothing is wrong any more.
pub(super) const CONVERGED_WITHIN: Duration = Duration::from_secs(10);

/// Where random choices begin: `LLM_CONFIG_TEST_SEED`, to repeat what failed.
pub(super) fn base_seed() -> u64 {
    let told = env::var("LLM_CONFIG_TEST_SEED").ok();
    told.map_or(0, |seed| seed.parse().expect("LLM_CONFIG_TEST_SEED is a number"))
}

/// Says what repeats a failure, when there is one.
pub(super) struct Replay(pub(super) String);

impl Drop for Replay {
    #[allow(clippy::print_stderr, reason = "the harness reports to whoever reads the test's output")]
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("failed with LLM_CONFIG_TEST_SEED of {}", self.0);
        }
    }
}

/// To whom something happens. The edge is the first one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Victim {
    Hub,
    Edge,
}

impl Victim {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Hub => "hub",
            Self::Edge => "e1",
        }
    }
}

pub(super) use beside::Hubs;
use beside::Second;

pub(super) struct World {
    pub(super) scratch: Scratch,
    /// Where the first edge is; where there are two, the second edge is at the other.
    pub(super) hub: Hub,
    second: Second,
    pub(super) edges: Vec<Edge>,
    pub(super) proxies: Vec<Proxy>,
    pub(super) recorder: Arc<Recorder>,
    seed: u64,
}

impl World {
    /// On an embedded hub.
    pub(super) async fn new(name: &str, seed: u64) -> Self {
        Self::with(Hubs::One, name, seed).await
    }

    /// On hubs of this kind.
    pub(super) async fn with(hubs: Hubs, name: &str, seed: u64) -> Self {
        let scratch = Scratch::new(name);
        let (hub, second) = hubs.begin(&scratch, seed).await;
        Self::around(scratch, hub, second, seed).await
    }

    /// Around two processes of a hub that are there.
    pub(super) async fn of_two(scratch: Scratch, hub: Hub, other: Hub, seed: u64) -> Self {
        Self::around(scratch, hub, Second::Process(other), seed).await
    }

    async fn around(scratch: Scratch, hub: Hub, second: Second, seed: u64) -> Self {
        let (edges, proxies) = (Vec::new(), Vec::new());
        let mut world = Self { scratch, hub, second, edges, proxies, recorder: Arc::default(), seed };
        for name in ["e1", "e2"] {
            let hub = world.second.hub().filter(|_| name == "e2").unwrap_or(&world.hub);
            let proxy = Proxy::start(hub.sync, seed).await;
            let token = hub.open_token(name).await;
            let edge = Edge::join_through(&world.scratch, name, &token, &proxy).await;
            edge.client().until("/health/ready", |answer| answer.status == 200).await;
            world.edges.push(edge);
            world.proxies.push(proxy);
        }
        world
    }

    pub(super) fn places(&self) -> Vec<Place> {
        let mut places = vec![Place::hub(&self.hub)];
        places.extend(self.second.hub().map(|hub| Place { name: "hub2".into(), ..Place::hub(hub) }));
        places.extend(self.edges.iter().map(Place::edge));
        places
    }

    pub(super) fn workload(&self) -> Workload {
        Workload::start(&self.recorder, self.places(), self.seed)
    }

    pub(super) fn suffer(&self, fault: Fault) {
        self.proxies.iter().chain(self.second.between()).for_each(|proxy| proxy.suffer(fault));
    }

    /// Waits until all is one, and checks the whole record.
    pub(super) async fn is_whole_again(&self, within: Duration) {
        let events = self.recorder.events();
        for (hub, edges) in self.second.views(&self.hub, &self.edges, within).await {
            converge(hub, edges, within).await;
            let here = beside::known_at(edges, &events);
            let violations = check(&here, &at_end(hub, edges).await);
            assert!(violations.is_empty(), "seed {}: {violations:#?}", self.seed);
        }
    }

    /// Of the hubs.
    pub(super) fn processes(&mut self) -> impl Iterator<Item = &mut Process> {
        [Some(&mut self.hub), self.second.hub_mut()].into_iter().flatten().map(Hub::process)
    }

    pub(super) fn process(&mut self, victim: Victim) -> &mut Process {
        match victim {
            Victim::Hub => self.hub.process(),
            Victim::Edge => self.edges[0].process(),
        }
    }

    pub(super) fn kill(&mut self, victim: Victim) {
        match victim {
            Victim::Hub => self.hub.kill(),
            Victim::Edge => self.edges[0].kill(),
        }
    }

    /// Starts without waiting, with something wrong in its system calls.
    pub(super) fn launch(&mut self, victim: Victim, injection: Option<Injection>) {
        match victim {
            Victim::Hub => {
                self.hub.injection = injection;
                self.hub.launch();
            }
            Victim::Edge => {
                self.edges[0].injection = injection;
                self.edges[0].launch(&[]);
            }
        }
    }

    /// Starts with nothing wrong, and waits until it answers.
    pub(super) async fn start(&mut self, victim: Victim) {
        match victim {
            Victim::Hub => {
                self.hub.injection = None;
                self.hub.start().await;
            }
            Victim::Edge => {
                self.edges[0].injection = None;
                self.edges[0].start().await;
            }
        }
    }
}
