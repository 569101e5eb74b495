//! What a session holds for its edge: as much as the edge receives feeds, whatever it has not heard of yet.

use super::HubSession;
use super::mending::Mending;
use crate::replication::footprint::Footprint;
use crate::replication::repair::Job;

impl HubSession {
    /// What this session holds, without what its edge may receive and the leaderships that the hub has had.
    pub fn footprint(&self) -> Footprint {
        // All of it is named, so that whatever is added has to be counted here, or said not to grow.
        let Self {
            sent,
            held,
            in_flight,
            mending,
            outputs,
            profile: _,
            epochs: _,
            floor: _,
            told_of: _,
            reading: _,
            rules: _,
            phase: _,
            session: _,
            uploaded: _,
            last_transfer: _,
            outdated: _,
            dirty: _,
            whole: _,
            asked: _,
            heartbeat_at: _,
            progress_by: _,
        } = self;
        let Mending { reading, next, listed, comparisons: _ } = mending;
        let jobs = [reading, next].into_iter().flatten().map(|(_, job)| match job {
            Job::Compare { .. } => 0,
            Job::Rows { keys, .. } => keys.len(),
        });
        let named = listed.as_ref().map_or(0, |(.., listed)| listed.keys.len() + listed.marks.len());
        Footprint {
            // Of each feed a few spans at most.
            feeds: sent.len().max(held.len()),
            waiting: outputs.len()
                + usize::from(in_flight.is_some())
                + usize::from(reading.is_some())
                + usize::from(next.is_some()),
            entries: jobs.sum::<usize>() + named,
        }
    }
}
