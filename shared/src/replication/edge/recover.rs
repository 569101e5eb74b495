//! When the hub says that it lost a part of what this edge has seen: everything is fetched anew, and only once that is
//! durable is the old place forgotten. Whatever ends the session before that changes nothing.

use super::incoming::Incoming;
use super::{Alert, EdgeReplica, FeedState, HandingIn, Output};
use crate::feed::Feed;
use crate::replication::frame::Welcome;
use crate::segment::{Checkpoint, Rejected, verify_lost_history};
use crate::store::replica::{FeedRecord, Record};
use crate::time::UnixMillis;
use crate::vector::Vector;

impl EdgeReplica {
    /// Takes the hub's statement, if there is one, and only if it is the hub's, explains what this edge has seen, and is
    /// newer than anything that a hub has signed for it before.
    pub(super) fn check_lost_history(&mut self, welcome: &Welcome) -> Result<(), Rejected> {
        self.recovering = None;
        let Some(bytes) = &welcome.lost_history else { return Ok(()) };
        let statement = verify_lost_history(bytes, &self.identity.keys)?;
        let newest = self.feeds.values().map(|state| state.record.checkpoint_issued_at).max();
        let explains = statement.loss.explains(&self.floor(), &welcome.epochs, &welcome.head, welcome.shard);
        if !explains || statement.issued_at <= UnixMillis(newest.unwrap_or(0)) {
            return Err(Rejected::LostHistory);
        }
        self.recovering = Some(welcome.head.clone());
        if welcome.takes_newer {
            let leads = welcome.head.get(welcome.shard).map(|head| head.epoch);
            self.handing_in = HandingIn::Due { leadership: leads.unwrap_or(statement.loss.new_epoch) };
        }
        self.outputs.push_back(Output::Alert(Alert::LostHistory));
        Ok(())
    }

    /// Writes that the hub had admitted in what it lost wait for it again, also where this edge heard of nothing else that
    /// is lost. One that a late hub does not know of yet is sent once more, and answered as a repetition.
    pub(super) fn take_up_again(&mut self) -> Vec<Record> {
        if !self.rules.lost_history {
            return Vec::new();
        }
        // One that lost names what it lost to, which may be from before the cut; that it was decided is lost all the same.
        let taken = self.outbox.take_up_again(|dot| {
            self.recovering.is_none() && self.epochs.contains(dot.shard, dot.position, u64::MAX)
        });
        taken.into_iter().map(Record::Pending).collect()
    }

    /// Whether a place is of the history that the hub described at the handshake: not of a leadership that is unknown, nor
    /// beyond the end of one. What it follows of other regions is its own affair, and goes on while the session lasts.
    pub(super) fn is_in_history(&self, to: &Vector) -> bool {
        // Only the hub knows how far the newest leadership has come.
        let own = to.iter().filter(|(shard, _)| self.shard == Some(*shard));
        own.into_iter().all(|(shard, position)| self.epochs.contains(shard, position, u64::MAX))
    }

    /// Whether what this edge holds of the feed is no ground to go on from.
    pub(super) fn begins_anew(&self, state: &FeedState) -> bool {
        !state.record.ready || state.refetch || self.recovering.is_some()
    }

    /// Whether something that has come to `to` is older than what a hub has told of this feed.
    pub(super) fn is_below_floor(&self, feed: &Feed, to: &Vector) -> bool {
        let floor = self.recovering.as_ref().unwrap_or_else(|| &self.feeds[feed].record.floor);
        !self.reaches(to, floor)
    }

    /// Whether `at` is as far as `other` in the order of the hub that this session is with. What that hub has of other
    /// regions follows from its own order; that it has enough of them it made sure of when it welcomed this edge.
    pub(super) fn reaches(&self, at: &Vector, other: &Vector) -> bool {
        self.shard.map_or_else(|| at.covers(other), |shard| at.seq(shard) >= other.seq(shard))
    }

    /// How far the hub of a page had come. While everything is fetched anew only this session remembers it: a place of the
    /// new history beside those of the old one would hide them.
    pub(super) fn remember_told(&mut self, feed: &Feed, to: &Vector) {
        match (&mut self.recovering, self.feeds.get_mut(feed)) {
            (Some(told), _) => told.join(to),
            (None, Some(state)) => state.record.floor.join(to),
            (None, None) => {}
        }
    }

    /// A feed's record once a transfer that ended with this checkpoint is durable.
    pub(super) fn moved(&self, before: &FeedRecord, checkpoint: &Checkpoint) -> FeedRecord {
        let mut record = before.clone();
        if let Some(head) = &self.recovering {
            record.vector = checkpoint.vector.clone();
            record.floor = checkpoint.vector.clone();
            record.floor.join(head);
            record.checkpoint_issued_at = checkpoint.issued_at.0;
        } else {
            record.vector.join(&checkpoint.vector);
            record.checkpoint_issued_at = record.checkpoint_issued_at.max(checkpoint.issued_at.0);
        }
        record.ready = true;
        record
    }

    /// While everything is fetched anew, a transfer of less than everything would leave places of two histories.
    pub(super) fn brings_enough(&self, incoming: &Incoming) -> bool {
        self.recovering.is_none() || self.granted.iter().all(|feed| incoming.parts.contains_key(feed))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use ring::signature::{Ed25519KeyPair, KeyPair as _};
    use uuid::Uuid;

    use super::super::{Identity, Input};
    use super::*;
    use crate::feed::Environments;
    use crate::name::{Environment, Subtree, Tenant};
    use crate::replication::frame::{EdgeFrame, HubFrame};
    use crate::replication::rules::Rules;
    use crate::segment::{LostHistory, VerificationKeys};
    use crate::stamp::{ActorId, Hlc};
    use crate::store::Loss;
    use crate::time::Instant;
    use crate::vector::{Epoch, EpochTable, Epochs, Position, ShardId};

    const SHARD: ShardId = ShardId(Uuid::from_u128(1));
    const LAST_HEARD: u64 = 2_000;

    fn at(epoch: u64, seq: u64) -> Vector {
        Vector::at(SHARD, Position { epoch, seq })
    }

    fn pair() -> Ed25519KeyPair {
        Ed25519KeyPair::from_seed_unchecked(&[5; 32]).unwrap()
    }

    fn feed() -> Feed {
        let tenant = Tenant::parse("t").unwrap();
        Feed { tenant, environment: Environment::base(), subtree: Subtree::ALL, secrets: false }
    }

    /// An edge that has come to 50, greeted by a hub that lost everything after 40.
    fn greeted(statement: Option<Bytes>) -> (EdgeReplica, Vec<Output>) {
        let public = pair().public_key().as_ref().try_into().unwrap();
        let keys = VerificationKeys::new([(7, public)]);
        let identity =
            Identity { edge: ActorId(Uuid::from_u128(9)), tenant: Tenant::parse("t").unwrap(), keys };
        let record = FeedRecord {
            vector: at(11, 50),
            floor: at(11, 50),
            ready: true,
            checkpoint_issued_at: LAST_HEARD,
            folding: false,
        };
        let records = vec![Record::Feed(feed(), record)];
        let now = Instant(0);
        let mut edge = EdgeReplica::new(identity, Rules::ALL, records, 1, UnixMillis(0), now);
        edge.handle_timeout(now);
        edge.handle(Input::Connected { spare: 2 }, now);
        edge.handle(Input::Committed, now);
        while edge.poll_output().is_some() {}
        let epoch = |ordinal, epoch, start_seq| Epoch { ordinal, epoch, start_seq };
        let welcome = Welcome {
            shard: SHARD,
            epochs: Epochs::of(SHARD, EpochTable::new(vec![epoch(1, 11, 0), epoch(2, 22, 40)])),
            head: at(22, 60),
            physical: UnixMillis(3_000),
            hlc: Hlc(0),
            epsilon_ms: 500,
            heartbeat_ms: 30_000,
            feeds: vec![feed()],
            environments: Environments::standard(),
            default_environment: Environment::base(),
            write: Vec::new(),
            takes_newer: false,
            lost_history: statement,
            copied: false,
            carry_key: None,
        };
        edge.handle(Input::Frame(HubFrame::Welcome(welcome)), now);
        let outputs = std::iter::from_fn(|| edge.poll_output()).collect();
        (edge, outputs)
    }

    fn said(cut: u64, issued_at: u64) -> Option<Bytes> {
        let loss = Loss { shard: SHARD, epoch: 11, cut, new_epoch: 22 };
        let draft = LostHistory { loss, issued_at: UnixMillis(issued_at), key_id: 7 }.draft();
        let signature = pair().sign(&draft.message()).as_ref().try_into().unwrap();
        Some(draft.signed(&signature))
    }

    #[test]
    fn with_the_hubs_word_everything_is_fetched_anew_and_the_place_kept_until_then() {
        let (edge, outputs) = greeted(said(40, LAST_HEARD + 1));
        assert!(outputs.contains(&Output::Alert(Alert::LostHistory)));
        assert!(
            outputs.contains(&Output::Send(EdgeFrame::Subscribe { feeds: Vec::new(), held: Vec::new() })),
            "{outputs:?}"
        );
        assert_eq!(edge.floor(), at(11, 50));
        let kept = outputs.iter().any(|output| {
            let Output::Commit(batch) = output else { return false };
            let floor =
                |record: &Record| matches!(record, Record::Feed(_, record) if record.floor == at(11, 50));
            batch.put.iter().any(floor)
        });
        assert!(kept, "{outputs:?}");
    }

    #[test]
    fn a_word_that_is_old_or_of_something_else_is_not_taken() {
        let mut forged = said(40, LAST_HEARD + 1).unwrap().to_vec();
        *forged.last_mut().unwrap() ^= 1;
        let cases = [
            (said(40, LAST_HEARD), Rejected::LostHistory),
            (said(50, LAST_HEARD + 1), Rejected::LostHistory),
            (Some(forged.into()), Rejected::Signature),
        ];
        for (statement, why) in cases {
            let (edge, outputs) = greeted(statement);
            assert!(outputs.contains(&Output::Alert(Alert::Rejected(why))), "{outputs:?}");
            assert!(outputs.contains(&Output::Disconnect) && edge.floor() == at(11, 50));
        }
    }

    #[test]
    fn what_lies_beyond_the_cut_is_of_no_history_any_more() {
        let (edge, _) = greeted(said(40, LAST_HEARD + 1));
        assert!(edge.is_in_history(&at(11, 40)) && edge.is_in_history(&at(22, 1_000)));
        assert!(!edge.is_in_history(&at(11, 41)) && !edge.is_in_history(&at(33, 1)));
        assert!(edge.is_below_floor(&feed(), &at(22, 59)) && !edge.is_below_floor(&feed(), &at(22, 60)));
    }
}
