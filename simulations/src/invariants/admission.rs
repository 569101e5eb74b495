//! 7, 9 and the order of writes: every commit is judged again with what the simulator knows.
//!
//! Seqs are dense, unique and in commit order. Of two writes of a key the later in causality wins. A conflict is
//! reported if and only if neither author had seen the other's write. Versions of an entry follow one another. A change is in one commit only, however often it
//! was asked for.

use std::collections::BTreeMap;

use llm_config_shared::entry::{ChangeId, HistoryRow, Status};
use llm_config_shared::name::EntryKey;
use llm_config_shared::policy::ConflictPolicy;
use llm_config_shared::stamp::{Stamp, WriteId};
use llm_config_shared::store::Commit;
use llm_config_shared::time::UnixMillis;

use super::{Check, Violation, stamps, zombies};
use crate::stats::Stats;
use crate::truth::{Atomic, Current, Made, Truth, Winner};

/// A commit has become durable.
///
/// # Errors
/// When it is not what it should be.
pub fn committed(truth: &mut Truth, stats: &mut Stats, commit: &Commit, wall: UnixMillis) -> Check {
    let before = truth.winners.len() as u64;
    if commit.fence.position.seq != before {
        let detail = format!("a commit after {} where the head is {before}", commit.fence.position.seq);
        return Err(Violation::new("order", detail));
    }
    truth.commits += 1;
    let mut whole: BTreeMap<ChangeId, Vec<(u64, EntryKey)>> = BTreeMap::new();
    for row in &commit.history {
        decided(truth, stats, commit, row, wall)?;
        if row.returned_in.is_some() {
            // Edges bring back what they have, one by one.
            continue;
        }
        let other = truth.commit_of.insert(row.change, truth.commits);
        let again = truth.copied.contains(&row.stamp.id.actor);
        if other.is_some_and(|other| other != truth.commits && !again) {
            return Err(Violation::new("order", format!("change {:?} was made twice", row.change)));
        }
        if let (true, Some(seq)) = (truth.atomic_changes.contains(&row.change), row.seq) {
            whole.entry(row.change).or_default().push((seq, row.at.clone()));
        }
    }
    if truth.winners.len() as u64 != commit.seq {
        let detail = format!("{} winners come to seq {}", truth.winners.len(), commit.seq);
        return Err(Violation::new("order", detail));
    }
    truth.atomic.extend(whole.into_values().map(|parts| Atomic { parts }));
    Ok(())
}

fn decided(
    truth: &mut Truth,
    stats: &mut Stats,
    commit: &Commit,
    row: &HistoryRow,
    wall: UnixMillis,
) -> Check {
    let id = truth.identity(row.stamp.id, row.change);
    let current = truth.current.get(&row.at).copied();
    let by_hub = id.actor.0 == commit.fence.shard.0;
    let back = row.returned_in.is_some();
    if by_hub && !back {
        // Who released it where its own time puts it has not looked at what is there.
        let seen = truth.released.get(&id).map(|(of, _)| *of).or_else(|| current.map(|current| current.id));
        let past = seen.map(|seen| truth.closure(seen)).unwrap_or_default();
        let made = Made {
            at: row.at.clone(),
            past,
            delete: !row.content.is_live(),
            content: row.content.hash(),
            acknowledged: false,
            status: None,
            once_set_aside: false,
            context: None,
            decided: None,
        };
        truth.writes.insert(id, made);
    }
    let Some(made) = truth.writes.get_mut(&id) else {
        return Err(Violation::new("order", format!("{id:?} was never made")));
    };
    let waited = back && made.status.replace(row.status) == Some(Status::Held);
    made.status = Some(row.status);
    if made.decided.replace(row.stamp.id).is_some() && !waited {
        return Err(Violation::new("order", format!("{id:?} was decided twice")));
    }
    if made.content != row.content.hash() || made.at != row.at {
        return Err(Violation::new("acknowledged", format!("{id:?} is not what its author wrote")));
    }
    match row.status {
        Status::Held => stats.count("held by the hub"),
        Status::Released | Status::Dropped => {
            return Err(Violation::new("order", format!("{id:?} was settled before it was decided")));
        }
        Status::Denied => stats.count("denied by the hub"),
        Status::Applied | Status::SupersededConcurrent => {
            stamps::admitted(truth, row, wall)?;
            conflict(truth, stats, commit, (row, id), current)?;
            next_version(truth, row)?;
        }
    }
    if row.status == Status::Applied { wins(truth, row, id) } else { Ok(()) }
}

/// Every admitted write takes its entry's next version, whatever was purged in between.
fn next_version(truth: &mut Truth, row: &HistoryRow) -> Check {
    let last = truth.versions.entry(row.at.clone()).or_default();
    *last += 1;
    if row.version == *last {
        return Ok(());
    }
    let detail =
        format!("{:?} takes version {} of {} instead of {last}", row.stamp.id, row.version, row.at.key);
    Err(Violation::new("versions", detail))
}

/// Whether a concurrent write that was admitted, and won or did not, is what the policy allows.
fn follows(policy: ConflictPolicy, won: bool) -> bool {
    match policy {
        ConflictPolicy::LastWriteWins => true,
        ConflictPolicy::HubWins => !won,
        ConflictPolicy::EdgeWins => won,
        ConflictPolicy::Reject | ConflictPolicy::Manual => false,
    }
}

/// Compares what the hub found with who had seen what.
fn conflict(
    truth: &mut Truth,
    stats: &mut Stats,
    commit: &Commit,
    (row, id): (&HistoryRow, WriteId),
    current: Option<Current>,
) -> Check {
    let Some(current) = current else { return Ok(()) };
    let (mine, theirs) = (row.stamp, current.stamp);
    let seen = truth.is_past(current.id, id);
    let back = truth.came_back(row).is_some();
    if back && truth.is_past(truth.released(id), current.id) {
        return came_late(truth, stats, row, id);
    }
    let pair = |a: Stamp, b: Stamp| {
        commit.conflicts.iter().any(|conflict| conflict.winner == a.id && conflict.loser == b.id)
    };
    let won = row.status == Status::Applied;
    let (winner, loser) = if won { (mine, theirs) } else { (theirs, mine) };
    let reported = pair(winner, loser);
    let policy = truth.policy(&row.at);
    if comes_before(winner, loser) && policy != ConflictPolicy::HubWins {
        return Err(Violation::new("order", format!("{winner:?} won over {loser:?}")));
    }
    // A write that waited in a copy has another name than those that its author made before: under a policy that counts.
    let renamed = mine.id.actor == theirs.id.actor && mine.id.incarnation != theirs.id.incarnation;
    let before_cut = truth.came_back(row).is_some_and(|loss| truth.is_before_cut(loss, current.seq));
    // What had won over one of them, and what its author had seen instead, may be missing.
    let lacking = back && (truth.saw_what_is_missing(id) || truth.saw_what_is_missing(current.id));
    // What came between the two writes of one leadership met the earlier one then, and that was told.
    let decided = back && is_earlier(mine.id, theirs.id) && mine.id.actor.0 == commit.fence.shard.0;
    let excused = before_cut
        || lacking
        || decided
        || truth.writes.get(&id).is_some_and(|made| truth.saw_beyond(made, current.seq));
    if seen && !won && renamed && policy == ConflictPolicy::HubWins {
        stats.count("writes that had seen what the hub could not know");
    } else if seen && !won {
        let detail = format!("{:?} had seen {:?} and lost to it", mine, theirs);
        return Err(Violation::new("causality", detail));
    }
    let by_hub = mine.id.actor.0 == commit.fence.shard.0;
    let own = passes_for_own(truth, mine, theirs) || back && passes_for_own(truth, theirs, mine);
    // A replica that was set back has what its lost life was shown, and its readers here began anew.
    let set_back = truth.copied.contains(&mine.id.actor);
    if !seen && !by_hub && !own && !excused && !set_back && !follows(policy, won) {
        return Err(Violation::new("policy", format!("{:?} under {policy:?}: won is {won}", mine.id)));
    }
    if !seen && !reported && own {
        stats.count("writes of a copy that passed for one's own");
    } else if !seen && !reported && !excused {
        return Err(Violation::new("conflicts", format!("{:?} and {:?} met unnoticed", mine.id, theirs.id)));
    }
    if reported {
        stats.count("conflicts");
    }
    if seen && reported {
        // Of what an author saw in a leadership that is lost as a whole, the hub cannot know how much it still has.
        let lost = truth.writes.get(&id).is_some_and(|made| truth.saw_what_is_lost(made));
        stats.count(if lost { "conflicts with what was seen before a loss" } else { "false conflicts" });
    }
    if !won && !row.content.is_live() {
        truth.deletes.entry(row.at.clone()).or_default().push(id);
    }
    Ok(())
}

/// What an edge brought back met what had seen it: then it is only of the past.
fn came_late(truth: &mut Truth, stats: &mut Stats, row: &HistoryRow, id: WriteId) -> Check {
    if row.status == Status::Applied {
        return Err(Violation::new("causality", format!("{:?} is back over what had seen it", row.stamp.id)));
    }
    stats.count("brought back behind what had seen it");
    if !row.content.is_live() {
        truth.deletes.entry(row.at.clone()).or_default().push(id);
    }
    Ok(())
}

/// Until the hub knows that there are two of a replica, an earlier write of the one is known to the other.
fn passes_for_own(truth: &Truth, mine: Stamp, theirs: Stamp) -> bool {
    is_earlier(theirs.id, mine.id) && truth.copied.contains(&mine.id.actor)
}

/// Whether they have one author, by what the hub can see, who made the first before the second.
/// In the last-write-wins order, for which incarnations are no more than names.
fn comes_before(first: Stamp, second: Stamp) -> bool {
    let place = |Stamp { hlc, id }: Stamp| (hlc, id.actor, id.counter);
    place(first) < place(second)
}

fn is_earlier(first: WriteId, second: WriteId) -> bool {
    let same = first.actor == second.actor && first.incarnation == second.incarnation;
    same && first.counter < second.counter
}

fn wins(truth: &mut Truth, row: &HistoryRow, id: WriteId) -> Check {
    let seq = truth.winners.len() as u64 + 1;
    if row.seq != Some(seq) {
        return Err(Violation::new(
            "order",
            format!("{:?} took {:?} instead of {seq}", row.stamp.id, row.seq),
        ));
    }
    let live = row.content.is_live();
    if live {
        zombies::winner(truth, &row.at, id)?;
    } else {
        truth.deletes.entry(row.at.clone()).or_default().push(id);
    }
    let plain = live && !row.content.is_secret();
    let last = truth.winners.iter().rev().find(|winner| winner.at == row.at);
    let was_plain = last.is_some_and(|winner| winner.plain);
    truth.winners.push(Winner { at: row.at.clone(), live, plain, was_plain });
    truth.current.insert(row.at.clone(), Current { stamp: row.stamp, id, seq, live });
    Ok(())
}
