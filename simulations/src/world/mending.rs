//! A hub process helps an edge to put a feed right: the product's own comparison, over the simulator's database.

use llm_config_shared::feed::Feed;
use llm_config_shared::replication::hub::Input;
use llm_config_shared::replication::repair::{Job, Outcome, compare, draft_rows};
use llm_config_shared::replication::transfer::Issue;
use llm_config_shared::store::{FeedRows, Head, Journal};
use llm_config_shared::vector::Vector;

use super::World;
use super::publisher::KEY_ID;
use crate::invariants::{Check, Violation, encodings};
use crate::journal::{SimJournal, ready};
use crate::network::StreamId;

impl World {
    pub(super) fn repair_read(&mut self, hub: usize, life: u32, stream: StreamId, job: Job) -> Check {
        if self.hubs[hub].life != life {
            return Ok(());
        }
        let Some(host) = self.hubs[hub].sessions.get(&stream) else { return Ok(()) };
        let (Job::Compare { feed, .. } | Job::Rows { feed, .. }) = &job;
        if !host.feeds.contains(feed) {
            return Err(Violation::new("outside", format!("{feed:?} is not received, but compared")));
        }
        let journal = self.journal_of(hub);
        let outcome = match job {
            Job::Compare { feed, at, sums } => {
                let (head, rows) = read_feed(&journal, feed, Vector::EMPTY);
                compare(&rows, &head, &at, &sums).map_or_else(Outcome::Not, Outcome::Listed)
            }
            Job::Rows { feed, at, keys } => {
                let (head, rows) = read_feed(&journal, feed.clone(), at.clone());
                let found =
                    ready(journal.entries(&keys)).expect("the database was led before it is read").value;
                let issue = Issue { at: self.hub_wall(hub), key_id: KEY_ID };
                match draft_rows(&rows, &head, &at, &found, issue) {
                    Ok(draft) => {
                        let signature = self.signer.sign(&draft.message());
                        let bytes = draft.signed(&signature);
                        let opened = encodings::open(std::slice::from_ref(&bytes), &self.signer.keys())?;
                        encodings::told(&feed, &opened, &self.truth)?;
                        Outcome::Rows(bytes)
                    }
                    Err(why) => Outcome::Not(why),
                }
            }
        };
        self.hub_input(hub, stream, Input::Repair(outcome))
    }
}

fn read_feed(journal: &SimJournal, feed: Feed, from: Vector) -> (Head, FeedRows) {
    let mut snapshot =
        ready(journal.read_feeds(&[(feed, from)])).expect("the database was led before it is read");
    (snapshot.head, snapshot.feeds.remove(0))
}
