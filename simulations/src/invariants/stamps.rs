//! 8: a stamp is never further ahead of true time than twice the bound when it is admitted, and the stamps of one
//! incarnation strictly rise.

use llm_config_shared::entry::HistoryRow;
use llm_config_shared::limits::CLOCK_EPSILON_MS;
use llm_config_shared::policy::ConflictPolicy;
use llm_config_shared::stamp::Hlc;
use llm_config_shared::time::UnixMillis;

use super::{Check, Violation};
use crate::truth::Truth;
use crate::world::HUB_SKEW_MS;

/// # Errors
/// When an admitted write breaks one of the two.
pub fn admitted(truth: &mut Truth, row: &HistoryRow, wall: UnixMillis) -> Check {
    let id = row.stamp.id;
    // The hub's clock may be a little ahead of true time itself, and hands its own ticks out above what it received.
    let limit = UnixMillis(wall.0 + 2 * CLOCK_EPSILON_MS + HUB_SKEW_MS as u64 + 1);
    if row.stamp.hlc > Hlc::from_physical(limit) {
        let ahead = row.stamp.hlc.physical().0 - wall.0;
        return Err(Violation::new("stamps", format!("{id:?} is {ahead} ms ahead of true time")));
    }
    // The hub put it ahead of its author's later writes, of other keys as well, or behind earlier ones.
    let by_policy = matches!(truth.policy(&row.at), ConflictPolicy::EdgeWins | ConflictPolicy::HubWins);
    if row.claimed_hlc.is_some() && by_policy {
        return Ok(());
    }
    if truth.came_back(row).is_some() {
        // It comes behind writes that were made after it; a number of the hub's own is a new one all the same.
        let last = truth.last_admitted.get_mut(&(id.actor, id.incarnation));
        let Some((counter, _)) = last.filter(|_| row.returned_in.is_none()) else { return Ok(()) };
        if *counter >= id.counter {
            return Err(Violation::new(
                "stamps",
                format!("{id:?} was released under a number that {counter} follows"),
            ));
        }
        *counter = id.counter;
        return Ok(());
    }
    let last = truth.last_admitted.insert((id.actor, id.incarnation), (id.counter, row.stamp.hlc));
    // Two copies whose numbers do not meet have the hub believe that they are one, with two clocks.
    let copied = truth.copied.contains(&id.actor);
    match last {
        Some((counter, hlc)) if counter >= id.counter || (hlc > row.stamp.hlc && !copied) => {
            let detail = format!("{id:?} at {:?} follows {counter} at {hlc:?}", row.stamp.hlc);
            Err(Violation::new("stamps", detail))
        }
        Some(_) | None => Ok(()),
    }
}
