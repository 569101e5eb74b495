//! Makes commits by hand and remembers what a journal must say about them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use llm_config_shared::digest::ScopeDigest;
use llm_config_shared::entry::{
    Author, ChangeId, ChangeType, Content, HistoryRow, HubRow, Metadata, Row, Status,
};
use llm_config_shared::feed::Feed;
use llm_config_shared::name::{EntryKey, Environment, Key, Namespace, Scope, Subtree, Tenant};
use llm_config_shared::secret::SealedSecret;
use llm_config_shared::settled::{Settled, Settlement, Waited};
use llm_config_shared::stamp::{ActorId, Hlc, Stamp, WriteId};
use llm_config_shared::store::{Base, ChangeRow, Commit, Conflict, Fence, Frontier, Journal, JournalError};
use llm_config_shared::time::UnixMillis;
use llm_config_shared::value::Value;
use llm_config_shared::vector::{Dot, Position, ShardId, Vector};
use uuid::Uuid;

pub(super) fn tenant(name: &str) -> Tenant {
    Tenant::parse(name).unwrap()
}

pub(super) fn scope(tenant_name: &str, environment: &str, namespace: &str) -> Scope {
    Scope {
        tenant: tenant(tenant_name),
        environment: Environment::parse(environment).unwrap(),
        namespace: Namespace::parse(namespace).unwrap(),
    }
}

/// In tenant `acme`, environment `base`.
pub(super) fn at(namespace: &str, key: &str) -> EntryKey {
    EntryKey { scope: scope("acme", "base", namespace), key: Key::parse(key).unwrap() }
}

/// In tenant `acme`, environment `base`, with secrets.
pub(super) fn feed(subtree: &str) -> Feed {
    Feed {
        tenant: tenant("acme"),
        environment: Environment::base(),
        subtree: Subtree::parse(subtree).unwrap(),
        secrets: true,
    }
}

pub(super) fn plain(json: &str) -> Content {
    Content::Plain(Value::parse(json).unwrap())
}

pub(super) fn secret(text: &str) -> Content {
    let (body, wrap) = (text.as_bytes().to_vec().into(), vec![0, 255, 7].into());
    Content::Secret(SealedSecret { key_epoch: 3, version: 1, about: Default::default(), body, wrap })
}

/// The first epoch that [`Book::begin`] leads under.
pub(super) const EPOCH: u64 = (1 << 62) + 17;
pub(super) const NOW: UnixMillis = UnixMillis(1_795_413_843_007);

/// A leader that plans its commits by hand, and all that was committed.
pub(super) struct Book {
    pub(super) shard: ShardId,
    pub(super) position: Position,
    pub(super) hlc: Hlc,
    pub(super) rows: BTreeMap<EntryKey, HubRow>,
    pub(super) digests: BTreeMap<Scope, ScopeDigest>,
    /// In the order that it was decided.
    pub(super) history: Vec<HistoryRow>,
    pub(super) conflicts: Vec<Conflict>,
    counter: u64,
    open: Open,
}

/// What is not committed yet.
#[derive(Default)]
struct Open {
    won: BTreeSet<EntryKey>,
    raised: BTreeSet<EntryKey>,
    touched: BTreeSet<Scope>,
    history: Vec<HistoryRow>,
    superseded: Vec<WriteId>,
    conflicts: Vec<Conflict>,
    settled: Vec<Settlement>,
    frontiers: Vec<Frontier>,
    fence: Option<Position>,
}

impl Book {
    /// Takes the lead of an empty journal.
    pub(super) async fn begin(journal: &impl Journal) -> Self {
        let lead = journal.lead(EPOCH, ShardId(Uuid::from_u128(0xabc))).await.unwrap();
        Self {
            shard: lead.shard,
            position: lead.position,
            hlc: lead.hlc.max(Hlc::from_physical(NOW)),
            rows: BTreeMap::new(),
            digests: BTreeMap::new(),
            history: Vec::new(),
            conflicts: Vec::new(),
            counter: 0,
            open: Open::default(),
        }
    }

    /// Takes the lead again, under another epoch.
    pub(super) async fn lead_again(&mut self, journal: &impl Journal, epoch: u64) {
        let lead = journal.lead(epoch, ShardId(Uuid::from_u128(0xdef))).await.unwrap();
        assert_eq!(lead.shard, self.shard, "the shard is created once");
        assert_eq!(lead.position, Position { epoch, seq: self.position.seq });
        self.position = lead.position;
    }

    fn write_id(&mut self) -> WriteId {
        self.counter += 1;
        WriteId { actor: ActorId(self.shard.0), incarnation: EPOCH, counter: self.counter }
    }

    fn record(&mut self, at: &EntryKey, version: u64, content: Content, status: Status) -> HistoryRow {
        let id = self.write_id();
        self.hlc = self.hlc.next();
        let kind = match &content {
            Content::Deleted => ChangeType::Delete,
            _ if version == 1 => ChangeType::Create,
            Content::Plain(_) | Content::Secret(_) => ChangeType::Update,
        };
        let odd = self.counter % 2 == 1;
        let row = HistoryRow {
            at: at.clone(),
            version,
            stamp: Stamp { hlc: self.hlc, id },
            claimed_hlc: odd.then_some(Hlc(5)),
            content_hash: content.hash(),
            content,
            author: Author { name: "token:ops".into(), claimed: odd.then(|| "zoë\0".into()) },
            created_at: NOW,
            message: odd.then(|| "why\0 not".into()),
            change_type: kind,
            change: ChangeId(Uuid::from_u128(1_000 + u128::from(self.position.seq / 3))),
            returned_in: odd.then(|| ChangeId(Uuid::from_u128(2_000))),
            status,
            reason: None,
            seq: None,
            context: Vector::at(self.shard, self.position),
            base: self.rows.get(at).map(|row| row.row.as_base()),
            settled: None,
            origin: None,
        };
        self.open.fence.get_or_insert(self.position);
        row
    }

    /// Makes `content` the entry's current version.
    pub(super) fn put(&mut self, at: &EntryKey, content: Content) -> WriteId {
        let before = self.rows.get(at).cloned();
        let version = before.as_ref().map_or(0, |row| row.top_version) + 1;
        let mut write = self.record(at, version, content.clone(), Status::Applied);
        self.position.seq += 1;
        write.seq = Some(self.position.seq);
        let plain_seq = match &content {
            Content::Plain(_) => self.position.seq,
            Content::Secret(_) | Content::Deleted => before.as_ref().map_or(0, |row| row.plain_seq),
        };
        let row = HubRow {
            row: Row {
                at: at.clone(),
                dot: Dot { shard: self.shard, position: self.position },
                stamp: write.stamp,
                version,
                content,
                metadata: Metadata {
                    created_at: before.as_ref().map_or(NOW, |row| row.row.metadata.created_at),
                    created_by: "token:ops".into(),
                    updated_at: UnixMillis(NOW.0 + self.position.seq),
                    updated_by: "edge:kiosk/uid:0".into(),
                    tags: vec!["a".into(), "b c".into()],
                    description: (version % 2 == 0).then(|| Arc::from("what it is")),
                },
                change: write.change,
            },
            top_version: version,
            plain_seq,
            context: write.context.clone(),
            base: write.base,
            origin: None,
        };
        let digest = self.digests.entry(at.scope.clone()).or_default();
        if let Some(before) = &before {
            digest.remove(&before.row);
        }
        digest.add(&row.row);
        digest.last_seq = self.position.seq;
        if plain_seq > 0 {
            digest.plain_last_seq = self.position.seq;
        }
        self.rows.insert(at.clone(), row);
        self.open.won.insert(at.clone());
        self.open.touched.insert(at.scope.clone());
        let id = write.stamp.id;
        self.history.push(write.clone());
        self.open.history.push(write);
        id
    }

    /// A concurrent write that loses: a version, a place in the history, a conflict.
    pub(super) fn lose(&mut self, at: &EntryKey, content: Content) -> WriteId {
        let current = self.rows.get_mut(at).unwrap();
        current.top_version += 1;
        let (version, winner, winner_version) =
            (current.top_version, current.row.stamp.id, current.row.version);
        let write = self.record(at, version, content, Status::SupersededConcurrent);
        self.open.raised.insert(at.clone());
        let loser = write.stamp.id;
        let conflict = Conflict {
            id: Uuid::from_u128(u128::from(self.counter)),
            at: at.clone(),
            winner,
            loser,
            winner_version,
            loser_version: version,
            detected_at: NOW,
            settled: None,
        };
        self.conflicts.push(conflict.clone());
        self.open.conflicts.push(conflict);
        self.history.push(write.clone());
        self.open.history.push(write);
        loser
    }

    /// A write that waits, or was not allowed.
    pub(super) fn set_aside(
        &mut self,
        at: &EntryKey,
        content: Content,
        status: Status,
        reason: &str,
    ) -> WriteId {
        let mut write = self.record(at, 0, content, status);
        write.reason = Some(reason.into());
        let id = write.stamp.id;
        self.history.push(write.clone());
        self.open.history.push(write);
        id
    }

    /// The write that was applied has lost to one that follows.
    pub(super) fn supersede(&mut self, id: WriteId) {
        for write in self.history.iter_mut().filter(|write| write.stamp.id == id) {
            write.status = Status::SupersededConcurrent;
        }
        self.open.superseded.push(id);
    }

    /// Somebody decides about a conflict or a held write.
    pub(super) fn settle(&mut self, what: Waited, wrote: Option<(ChangeId, u64)>) -> Settled {
        let settled = Settled { by: "token:zoë\0".into(), at: NOW, wrote };
        match what {
            Waited::Conflict(id) => {
                for known in self.conflicts.iter_mut().filter(|known| known.id == id) {
                    known.settled = Some(settled.clone());
                }
            }
            Waited::Held(id) => {
                for write in self.history.iter_mut().filter(|write| write.stamp.id == id) {
                    write.status = if wrote.is_some() { Status::Released } else { Status::Dropped };
                    write.settled = Some(settled.clone());
                }
            }
        }
        self.open.fence.get_or_insert(self.position);
        self.open.settled.push(Settlement { what, settled: settled.clone() });
        settled
    }

    pub(super) fn frontier(&mut self, frontier: Frontier) {
        self.open.fence.get_or_insert(self.position);
        self.open.frontiers.push(frontier);
    }

    /// Everything since the last commit, as one.
    pub(super) fn close(&mut self) -> Commit {
        let open = std::mem::take(&mut self.open);
        let mut changes: BTreeMap<(Tenant, ChangeId), ChangeRow> = BTreeMap::new();
        for write in &open.history {
            let tenant = write.at.scope.tenant.clone();
            let row = changes.entry((tenant.clone(), write.change)).or_insert_with(|| ChangeRow {
                id: write.change,
                tenant,
                created_at: write.created_at,
                author: write.author.name.clone(),
                message: write.message.clone(),
                writes: 0,
            });
            row.writes += 1;
        }
        let raised = open.raised.iter().filter(|at| !open.won.contains(*at));
        Commit {
            fence: Fence { shard: self.shard, position: open.fence.unwrap_or(self.position) },
            seq: self.position.seq,
            hlc: self.hlc,
            admitted_at: NOW,
            rows: open.won.iter().map(|at| self.rows[at].clone()).collect(),
            raised: raised.map(|at| (at.clone(), self.rows[at].top_version)).collect(),
            stubs: Vec::new(),
            history: open.history,
            superseded: open.superseded,
            conflicts: open.conflicts,
            settled: open.settled,
            frontiers: open.frontiers,
            digests: open.touched.iter().map(|scope| (scope.clone(), self.digests[scope])).collect(),
            changes: changes.into_values().collect(),
            retold: Vec::new(),
            repeats: Vec::new(),
            withdrawn: Vec::new(),
            following: None,
            tallies: Vec::new(),
        }
    }

    /// Commits everything since the last commit.
    pub(super) async fn commit(&mut self, journal: &impl Journal) {
        let commit = self.close();
        journal.append(&commit).await.unwrap();
    }

    /// What a feed must hold from a position on, in the order of keys.
    pub(super) fn rows_of(&self, feed: &Feed, from: u64) -> Vec<HubRow> {
        let rows = self.rows.values().filter(|row| feed.contains(&row.row.at));
        rows.filter(|row| row.row.dot.position.seq > from).cloned().collect()
    }

    /// The digest of a feed, from its rows alone.
    /// What entries held at a position that have changed since and are worth a patch.
    pub(super) fn bases_of(&self, feed: &Feed, from: &Vector) -> BTreeMap<EntryKey, Base> {
        let after = from.seq(self.shard);
        let rows = self.rows_of(feed, after).into_iter().filter(|row| Base::is_worth(row, from));
        let base = |row: HubRow| {
            let before =
                |write: &&HistoryRow| write.at == row.row.at && write.seq.is_some_and(|seq| seq <= after);
            let write = self.history.iter().rev().find(before)?;
            let Content::Plain(value) = &write.content else { return None };
            Some((write.at.clone(), Base { seq: write.seq?, value: value.clone() }))
        };
        rows.filter_map(base).collect()
    }

    pub(super) fn digest_of(&self, feed: &Feed) -> ScopeDigest {
        let mut digest = ScopeDigest::default();
        for row in self.rows_of(feed, 0) {
            digest.add(&row.row);
            let seq = row.row.dot.position.seq;
            digest.last_seq = digest.last_seq.max(seq);
            if row.plain_seq > 0 {
                digest.plain_last_seq = digest.plain_last_seq.max(seq);
            }
        }
        digest
    }

    /// The history of one entry, newest first.
    pub(super) fn history_of(&self, at: &EntryKey) -> Vec<HistoryRow> {
        self.history.iter().rev().filter(|write| write.at == *at).cloned().collect()
    }
}

/// The refusal of a commit that must change nothing, and the proof that it did not.
pub(super) async fn refused(journal: &impl Journal, commit: &Commit) -> JournalError {
    let whole = [(feed(""), Vector::EMPTY)];
    let before = journal.read_feeds(&whole).await.unwrap();
    let error = journal.append(commit).await.unwrap_err();
    assert_eq!(journal.read_feeds(&whole).await.unwrap(), before, "a refused commit changes nothing");
    for write in &commit.history {
        let page = llm_config_shared::store::Page { before: None, limit: 1_000 };
        let history = journal.history(&write.at, page).await.unwrap().value.rows;
        assert!(!history.iter().any(|row| row.stamp == write.stamp), "nothing of it is in the history");
    }
    error
}
