//! Taking the lead of the shard: at the start, after it was lost, and when another process has given it up.

use std::time::Duration;

use llm_config_shared::replication::admit::Leader;
use llm_config_shared::store::{Head, Journal, JournalError};
use llm_config_shared::vector::ShardId;
use tokio::time::Instant;
use uuid::Uuid;

use crate::clock;
use crate::processes::{Hold, ProcessAt, Processes, Role};

/// Pauses between attempts: long enough to leave a database that starts alone, short enough for callers that wait.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// How long a process that follows waits, at most, before it sees whether the lead is to be had.
const WATCH_MAX: Duration = Duration::from_millis(1_000);
const WATCH_MIN: Duration = Duration::from_millis(200);
/// How long a process that starts waits to lead, or to know who does.
const SETTLE_MAX: Duration = Duration::from_secs(10);
const SETTLE_PAUSE: Duration = Duration::from_millis(50);

/// A leadership that has begun, with the lock that keeps other processes from beginning theirs.
pub(super) struct Lead {
    pub(super) leader: Leader,
    pub(super) hold: Hold,
}

/// What came of standing for the lead.
pub(super) enum Stood {
    Leads(Box<(Lead, Head)>),
    /// Another process does.
    Follows(Option<ProcessAt>),
}

/// Takes the lead, unless another process has it.
pub(super) async fn stand<J: Journal, P: Processes>(
    journal: &J,
    processes: &P,
    me: &ProcessAt,
) -> Result<Stood, JournalError> {
    let Some(hold) = processes.stand().await? else {
        // The lock may still be this process's own, which is being given up.
        let leader = processes.leader().await?.filter(|at| at.process != me.process);
        return Ok(Stood::Follows(leader));
    };
    let leadership = journal.lead(random_epoch(), ShardId(Uuid::new_v4())).await?;
    let head = journal.head().await?;
    processes.announce(me, leadership.position.epoch).await?;
    tracing::info!(shard = %leadership.shard.0, seq = leadership.position.seq, "took the lead in writing");
    Ok(Stood::Leads(Box::new((Lead { leader: Leader::new(&leadership), hold }, head))))
}

/// What a process begins with.
pub(super) struct Settled {
    pub(super) lead: Option<Lead>,
    pub(super) role: Role,
    pub(super) head: Head,
}

/// Takes the lead, or finds out who has it: a process that is ready can do something with a write.
pub(super) async fn settle<J: Journal, P: Processes>(
    journal: &J,
    processes: &P,
    me: &ProcessAt,
) -> Result<Settled, JournalError> {
    let began = Instant::now();
    loop {
        let role = match stand(journal, processes, me).await? {
            Stood::Leads(led) => {
                let (lead, head) = *led;
                return Ok(Settled { lead: Some(lead), role: Role::Leading, head });
            }
            Stood::Follows(leader) => Role::Following(leader),
        };
        // The same address is an earlier run's, whose session the database has not yet seen end.
        let known = role.leader().is_some_and(|at| at.address != me.address);
        let late = began.elapsed() > SETTLE_MAX;
        if known || late {
            match journal.head().await {
                Ok(head) => {
                    told_to_follow(&role, me);
                    return Ok(Settled { lead: None, role, head });
                }
                Err(error) if late => return Err(error),
                Err(_) => {}
            }
        }
        tokio::time::sleep(SETTLE_PAUSE).await;
    }
}

fn told_to_follow(role: &Role, me: &ProcessAt) {
    match role.leader() {
        Some(at) if at.address == me.address => tracing::warn!(
            address = at.address,
            "another process of this hub leads from the same address as this one: set listen.peer to an address of \
             this process alone, or writes cannot be passed on"
        ),
        Some(at) => tracing::info!(leader = at.address, "another process of this hub leads; writes go there"),
        None => tracing::warn!("another process of this hub leads, and does not say where"),
    }
}

/// Below 2^63, because databases compare epochs as signed integers; never 0, which stands for none.
fn random_epoch() -> u64 {
    (rand::random::<u64>() >> 1).max(1)
}

/// How long to wait before the next attempt after a failure.
pub(super) fn pause(attempt: u32) -> Duration {
    clock::backoff(attempt, PAUSE_MIN, PAUSE_MAX)
}

/// When to see again whether the lead is to be had: not at the same time as the others.
pub(super) fn watch() -> Duration {
    WATCH_MIN + (WATCH_MAX - WATCH_MIN).mul_f64(rand::random())
}
