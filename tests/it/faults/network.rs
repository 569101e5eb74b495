//! Each fault of the network, while everybody writes and reads: nothing is lost, nobody reads backwards, and once the
//! network is whole everything is one again within a time that is promised.

use std::time::Duration;

use llm_config_tests::Size;
use llm_config_tests::proxy::{Fault, Side};

use super::world::{CONVERGED_WITHIN, Hubs, World};

/// An edge whose connection ended tries again later each time, at random below a bound that doubles from a second on;
/// a fault of some seconds brings that to sixteen, hardly ever to thirty-two.
const PAUSE_MAX: Duration = Duration::from_secs(32);

async fn under(hubs: Hubs, name: &str, fault: Fault, whole_within: Duration) {
    for seed in 0..Size::of_run().pick(1, 1, 5) {
        let world = World::with(hubs, &format!("network-{hubs:?}-{name}"), seed).await;
        let workload = world.workload();
        workload.goes_on_everywhere(5).await;
        world.suffer(fault);
        // Whatever the network does, nobody waits for it without end.
        workload.goes_on_everywhere(1).await;
        workload.lasts(Duration::from_millis(Size::of_run().pick(300, 500, 5_000))).await;
        world.suffer(Fault::None);
        workload.goes_on_everywhere(5).await;
        workload.stop().await;
        world.is_whole_again(whole_within).await;
    }
}

/// One test for each fault and kind of hub.
macro_rules! faults {
    ($($test:ident: $fault:expr, $within:expr;)+) => {
        faults! { @ one Hubs::One; $($test: $fault, $within;)+ }
        faults! { @ two_processes Hubs::Processes; $($test: $fault, $within;)+ }
        faults! { @ two_regions Hubs::Regions; $($test: $fault, $within;)+ }
    };
    (@ $module:ident $hubs:expr; $($test:ident: $fault:expr, $within:expr;)+) => {
        mod $module {
            use super::*;

            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                under($hubs, stringify!($test), $fault, $within).await;
            })+
        }
    };
}

faults! {
    no_fault: Fault::None, CONVERGED_WITHIN;
    pieces_that_are_sent_again: Fault::Lossy { percent: 30 }, CONVERGED_WITHIN;
    half_a_second_each_way: Fault::Late(Duration::from_millis(500)), CONVERGED_WITHIN;
    one_kilobyte_per_second: Fault::Slow { bytes_per_s: 1_000 }, CONVERGED_WITHIN;
    resets_in_the_middle_of_a_frame: Fault::Reset { after: 20_000 }, CONVERGED_WITHIN + PAUSE_MAX;
    cut: Fault::Cut, CONVERGED_WITHIN + PAUSE_MAX;
    half_open_at_the_edge: Fault::HalfOpen { kept: Side::Edge }, CONVERGED_WITHIN;
    half_open_at_the_hub: Fault::HalfOpen { kept: Side::Hub }, CONVERGED_WITHIN;
    nothing_reaches_the_hub: Fault::Deaf { to: Side::Hub }, CONVERGED_WITHIN;
    nothing_reaches_the_edges: Fault::Deaf { to: Side::Edge }, CONVERGED_WITHIN;
}
