//! What stands beside the first hub: nothing, another process of it, or another region.

use std::time::Duration;

use llm_config_tests::edge::Edge;
use llm_config_tests::history::{Event, What};
use llm_config_tests::hub::Hub;
use llm_config_tests::postgres;
use llm_config_tests::proxy::Proxy;
use llm_config_tests::scratch::Scratch;
use llm_config_tests::workload::{converge, same_values};

/// How many hubs there are, and what they are to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Hubs {
    /// One, on its embedded database.
    One,
    /// Two processes over one PostgreSQL.
    Processes,
    /// Two regions on databases of their own, with a network between them that is as bad as the edges'.
    Regions,
}

pub(super) enum Second {
    None,
    Process(Hub),
    Region { hub: Hub, between: [Proxy; 2] },
}

fn peer(proxy: &Proxy) -> String {
    format!("[regions]\npeers = \"https://{}\"", proxy.address())
}

impl Hubs {
    pub(super) async fn begin(self, scratch: &Scratch, seed: u64) -> (Hub, Second) {
        match self {
            Self::One => (Hub::dev(scratch).await, Second::None),
            Self::Processes => {
                let database = format!("[database]\nurl = \"{}\"", postgres::database());
                let first = Hub::serve(scratch, &database).await;
                let other = first.beside(scratch, "other").await;
                (first, Second::Process(other))
            }
            Self::Regions => {
                let mut first = Hub::serve(scratch, "[database]\nurl = \"sqlite:hub/hub.sqlite\"").await;
                let second = "[database]\nurl = \"sqlite:second/hub.sqlite\"";
                let mut second = first.region(scratch, "second", second).await;
                let to_first = Proxy::start(first.sync, seed ^ 1).await;
                let to_second = Proxy::start(second.sync, seed ^ 2).await;
                second.configure(&peer(&to_first));
                second.start().await;
                first.stop();
                first.configure(&peer(&to_second));
                first.start().await;
                (first, Second::Region { hub: second, between: [to_first, to_second] })
            }
        }
    }
}

impl Second {
    pub(super) fn hub(&self) -> Option<&Hub> {
        match self {
            Self::None => None,
            Self::Process(hub) | Self::Region { hub, .. } => Some(hub),
        }
    }

    pub(super) fn hub_mut(&mut self) -> Option<&mut Hub> {
        match self {
            Self::None => None,
            Self::Process(hub) | Self::Region { hub, .. } => Some(hub),
        }
    }

    pub(super) fn between(&self) -> &[Proxy] {
        match self {
            Self::None | Self::Process(_) => &[],
            Self::Region { between, .. } => between,
        }
    }

    /// The hubs whose order of writes counts, with the edges that read in it, once they hold the same.
    pub(super) async fn views<'a>(
        &'a self,
        first: &'a Hub,
        edges: &'a [Edge],
        within: Duration,
    ) -> Vec<(&'a Hub, &'a [Edge])> {
        match self {
            Self::None => vec![(first, edges)],
            Self::Process(other) => {
                converge(other, edges, within).await;
                vec![(first, edges)]
            }
            Self::Region { hub, .. } => {
                let views = vec![(first, &edges[..1]), (hub, &edges[1..])];
                for (hub, edges) in &views {
                    converge(hub, edges, within).await;
                }
                same_values(first, hub, within).await;
                views
            }
        }
    }
}

/// All that was written, wherever, and what was read at these edges: versions are counted by each region.
pub(super) fn known_at(edges: &[Edge], events: &[Event]) -> Vec<Event> {
    let here = |event: &&Event| {
        !matches!(event.what, What::Read(_)) || edges.iter().any(|edge| edge.name == event.place)
    };
    events.iter().filter(here).cloned().collect()
}
