//! A region: its database and the hub that leads it.

use std::collections::{BTreeMap, BTreeSet};

use llm_config_shared::entry::{ChangeId, Status};
use llm_config_shared::name::EntryKey;
use llm_config_shared::newer::{Newer, Taken};
use llm_config_shared::policy::Policies;
use llm_config_shared::replication::admit::{
    ApiSubmission, HandIn, Leader, OpAction, Operation, Planner, SealUnavailable, Sealer, SetValue, Upload,
};
use llm_config_shared::secret::SealedSecret;
use llm_config_shared::stamp::WriteId;
use llm_config_shared::store::purge::Purge;
use llm_config_shared::store::region::{RegionAsk, RegionPage};
use llm_config_shared::store::{Commit, Journal, Planning, PlanningRequest};
use llm_config_shared::time::UnixMillis;
use llm_config_shared::vector::ShardId;
use llm_config_shared::write::Answer;
use rand::RngExt;
use rand::rngs::ChaCha8Rng;
use uuid::Uuid;

use super::past::{Current, From};
use super::places::{self, tenant};
use super::{Regions, author};
use crate::invariants::{Check, Violation};
use crate::journal::{Backup, SimJournal, ready};
use crate::world::Setup;

/// How far a hub's clock may be from true time: within what the others take.
const SKEW_MS: i64 = 200;
/// Deletions are kept for so long.
const RETENTION_MS: u64 = 4_000;

/// One region.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) shard: ShardId,
    pub(super) journal: SimJournal,
    pub(super) leader: Leader,
    skew_ms: i64,
    kept: Option<Kept>,
}

#[derive(Debug)]
struct Kept {
    backup: Backup,
    current: BTreeMap<EntryKey, Current>,
}

/// Makes ciphertext that nobody can open, under the region's own key epoch.
struct FakeSealer {
    key_epoch: u64,
}

impl Sealer for FakeSealer {
    fn seal(&mut self, _: &EntryKey, version: u64, text: &[u8]) -> Result<SealedSecret, SealUnavailable> {
        let body = bytes::Bytes::copy_from_slice(text);
        let (key_epoch, wrap) = (self.key_epoch, bytes::Bytes::from_static(b"wrap"));
        Ok(SealedSecret { key_epoch, version, about: Default::default(), wrap, body })
    }

    fn reseal(
        &mut self,
        at: &EntryKey,
        sealed: &SealedSecret,
        version: u64,
    ) -> Result<SealedSecret, SealUnavailable> {
        self.seal(at, version, &sealed.body)
    }
}

impl Site {
    pub(super) fn new(n: usize, policies: &Policies, setup: Setup, rng: &mut ChaCha8Rng) -> Self {
        let shard = ShardId(Uuid::from_u128(0x5a50 + n as u128));
        let journal = setup.database();
        journal.set_policies(policies.clone());
        let leadership = ready(journal.lead(rng.random_range(1..1 << 62), shard)).expect("an empty database");
        let skew_ms = rng.random_range(-SKEW_MS..=SKEW_MS);
        Self { shard, journal, leader: Leader::new(&leadership), skew_ms, kept: None }
    }
}

impl Regions {
    pub(super) fn site_wall(&self, site: usize) -> UnixMillis {
        UnixMillis(self.wall().0.saturating_add_signed(self.sites[site].skew_ms))
    }

    fn planner(&self, site: usize, request: &PlanningRequest) -> Planner {
        let Site { journal, leader, .. } = &self.sites[site];
        let planning: Planning = ready(journal.planning(request)).expect("the database is there");
        Planner::new(leader, planning, self.site_wall(site)).with_rules(self.setup.rules)
    }

    fn commit(&mut self, site: usize, from: From, planner: Planner) -> Check {
        let Some((commit, leader)) = planner.finish() else { return Ok(()) };
        self.note(site, &commit);
        if let Err(error) = ready(self.sites[site].journal.append(&commit)) {
            return Err(Violation::new("order", format!("region {site}: {error}")));
        }
        self.sites[site].leader = leader;
        let actor = self.sites[site].shard.0;
        self.past.committed((site, actor), from, &commit, &mut self.stats)
    }

    fn note(&mut self, site: usize, commit: &Commit) {
        self.trace.write(self.now, format_args!("region {site} commits to {}", commit.seq));
        for row in &commit.history {
            let WriteId { actor, counter, .. } = row.stamp.id;
            let (who, key, namespace) = (actor.0.as_u128() & 0xffff, &row.at.key, &row.at.scope.namespace);
            let what = (row.status, row.seq, row.version);
            self.trace.write(self.now, format_args!("  {who:x}:{counter} {namespace}/{key} {what:?}"));
        }
    }

    pub(super) fn api_writes(&mut self, site: usize) -> Check {
        let submissions: Vec<_> = (0..self.rng.random_range(1..3)).map(|_| self.submission()).collect();
        let mut request = PlanningRequest::default();
        submissions.iter().for_each(|submission| submission.needs(&mut request));
        let mut planner = self.planner(site, &request);
        let mut sealer = self.sealer(site);
        for submission in submissions {
            drop(planner.api(submission, &mut sealer));
        }
        self.commit(site, From::Api, planner)
    }

    fn sealer(&self, site: usize) -> FakeSealer {
        FakeSealer { key_epoch: site as u64 + 1 }
    }

    /// One write, and so one change.
    fn submission(&mut self) -> ApiSubmission {
        let at = places::random_key(&mut self.rng);
        let action = match self.rng.random_range(0..100) {
            0..25 => OpAction::Delete,
            25..40 => {
                self.last_value += 1;
                let text = format!("secret {}", self.last_value);
                let value = SetValue::Secret(text.into_bytes().into());
                OpAction::Set { value, tags: None, description: None }
            }
            _ => {
                let over_secret = self.rng.random_range(0..2) == 0;
                let value = SetValue::Plain { value: self.random_value(), over_secret };
                OpAction::Set { value, tags: None, description: None }
            }
        };
        ApiSubmission {
            tenant: tenant(),
            author: author(),
            change: Some(self.change()),
            message: None,
            operations: vec![Operation { at, action, if_version: None }],
            atomic: false,
            dry_run: false,
            repeat: None,
        }
    }

    pub(super) fn upload(&mut self, site: usize, upload: &Upload) -> Result<Vec<Answer>, Violation> {
        let mut request = PlanningRequest::default();
        upload.needs(&mut request);
        let mut planner = self.planner(site, &request);
        let answers = planner.upload(upload);
        self.commit(site, From::Edge, planner)?;
        Ok(answers)
    }

    /// What an edge knows of what this region has lost.
    pub(super) fn take_in(&mut self, site: usize, hand_in: &HandIn) -> Result<Taken, Violation> {
        let mut request = PlanningRequest::default();
        hand_in.needs(&mut request);
        let mut planner = self.planner(site, &request);
        let taken = planner.hand_in(hand_in, &mut self.sealer(site));
        self.commit(site, From::Edge, planner)?;
        Ok(taken)
    }

    /// Reads a page of another region. Gives whether there was anything to take or more to come.
    pub(super) fn follow(&mut self, reader: usize, read: usize, limit: usize) -> Result<bool, Violation> {
        let Site { leader, shard, .. } = &self.sites[reader];
        let before = leader.following().clone();
        let ask = RegionAsk {
            read: before.bookmark(self.sites[read].shard),
            have: leader.vector(),
            epochs: leader.epochs(),
        };
        let own = *shard;
        let page: RegionPage = ready(self.sites[read].journal.region_page(&ask, limit)).expect("it was led");
        let (more, count) = (page.regions.is_none(), page.writes.len());
        let mut request = PlanningRequest::default();
        page.needs(&mut request);
        let mut planner = self.planner(reader, &request);
        let back = page.writes.iter().filter(|write| write.origin.is_some_and(|origin| origin.shard == own));
        self.stats.add("writes that came back from another region", back.count() as u64);
        if planner.follow_region(page).is_err() {
            self.stats.count("pages put off");
            return Ok(true);
        }
        self.stats.add("writes of other regions", count as u64);
        self.trace.write(self.now, format_args!("region {reader} reads {count} of {read}"));
        if planner.clone().finish().is_some_and(|(commit, _)| {
            commit.history.is_empty() && commit.following.as_ref() == Some(&before)
        }) {
            return Ok(false);
        }
        self.commit(reader, From::Region, planner)?;
        Ok(more || count > 0 || self.sites[reader].leader.following() != &before)
    }

    pub(super) fn leader_changes(&mut self, site: usize) -> Check {
        let epoch = self.rng.random_range(1..1 << 62);
        let Site { journal, shard, .. } = &self.sites[site];
        let leadership = ready(journal.lead(epoch, *shard)).expect("the database is there");
        self.sites[site].leader = Leader::new(&leadership);
        self.trace.write(self.now, format_args!("region {site} is led from {}", leadership.position.seq));
        Ok(())
    }

    pub(super) fn backed_up_or_restored(&mut self, site: usize) -> Check {
        let Some(kept) = self.sites[site].kept.take() else {
            let current = self.past.of_site(site);
            let backup = self.sites[site].journal.back_up();
            self.sites[site].kept = Some(Kept { backup, current });
            return Ok(());
        };
        self.stats.count("regions restored");
        let before = self.sites[site].journal.whole_history();
        self.sites[site].journal.restore(&kept.backup, Newer::Discard);
        let Kept { current, .. } = kept;
        self.past.goes_back(site, current, &self.sites[site].journal.whole_history());
        let histories = self.sites.iter().flat_map(|site| site.journal.whole_history());
        // Where it was only set aside, it was never admitted.
        let admitted =
            histories.filter(|row| matches!(row.status, Status::Applied | Status::SupersededConcurrent));
        let left: BTreeSet<ChangeId> = admitted.map(|row| row.change).collect();
        for lost in before.iter().filter(|row| !left.contains(&row.change)) {
            self.past.admitted.remove(&lost.change);
        }
        self.trace.write(self.now, format_args!("region {site} goes back"));
        self.leader_changes(site)
    }

    pub(super) fn purge(&mut self, site: usize) -> Check {
        let admitted_by = UnixMillis(self.site_wall(site).0.saturating_sub(RETENTION_MS));
        let Site { journal, leader, .. } = &self.sites[site];
        let purge = Purge { fence: leader.fence(), admitted_by, limit: 10 };
        let purged = ready(journal.purge(&purge)).expect("it leads");
        self.stats.add("deletions purged by regions", purged.count as u64);
        Ok(())
    }
}
