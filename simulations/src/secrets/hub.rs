//! The hub's half: roots of keys, limits, the ledger, and what it says to edges.

use bytes::Bytes;
use llm_config_shared::exposure::{KeysGiven, SecretVersion};
use llm_config_shared::feed::Feed;
use llm_config_shared::name::{EntryKey, Environment, Key, Namespace, Scope, Subtree};
use llm_config_shared::offline::{LimitStatement, OfflineLimits, SessionMark};
use llm_config_shared::removal::Removal;
use llm_config_shared::seal::SealKey;
use llm_config_shared::secret::{
    About, FreshSeal, KeyGrant, SealedSecret, SubtreeKey, limit_key, open_secret, seal_limit_keys,
    seal_limited_grant, seal_secret,
};
use llm_config_shared::segment::{VerificationKeys, tag};
use llm_config_shared::signed::StatementDraft;
use llm_config_shared::stamp::ActorId;
use llm_config_shared::time::UnixMillis;
use rand::RngExt;
use rand::rngs::ChaCha8Rng;

use super::machine::Machine;
use super::{EDGES, MINUTE, WALL_AT_START_MS, subtrees, tenant};

const KEY_ID: u64 = 3;
const KEY: [u8; 32] = [3; 32];

/// What the hub knows of an edge, and what is true of it.
pub(super) struct HubEdge {
    actor: ActorId,
    public: [u8; 32],
    /// The ledger.
    pub(super) given: KeysGiven,
    /// Every key that really left the hub for it.
    left: Vec<SubtreeKey>,
    /// How many versions there were when it was lost.
    pub(super) lost_at: Option<usize>,
}

impl HubEdge {
    /// Whether one of the keys that left opens it.
    pub(super) fn opens(&self, at: &EntryKey, sealed: &SealedSecret) -> bool {
        self.left.iter().any(|key| open_secret(key, at, sealed).is_ok())
    }
}

pub(super) struct Hub {
    pub(super) limits: OfflineLimits,
    limit_root: SealKey,
    epoch: u64,
    pub(super) edges: Vec<HubEdge>,
    /// Every version that was ever sealed.
    pub(super) sealed: Vec<(SecretVersion, SealedSecret)>,
    /// What was ever said, for those who deliver it again.
    pub(super) letters: Vec<Letter>,
    pub(super) removals: Vec<Bytes>,
}

/// A word about limits on its way, and what is true of it.
#[derive(Clone)]
pub(super) struct Letter {
    pub(super) edge: usize,
    /// None where it is carried by hand.
    pub(super) mark: Option<SessionMark>,
    pub(super) issued: u64,
    pub(super) limits: OfflineLimits,
    pub(super) bytes: Bytes,
}

fn root(epoch: u64) -> SubtreeKey {
    let mut seed = [7; 32];
    seed[..8].copy_from_slice(&epoch.to_be_bytes());
    SubtreeKey::root(SealKey::new(seed))
}

fn plaintext_of(version: u64) -> Vec<u8> {
    format!("secret {version}").into_bytes()
}

fn signed(draft: StatementDraft) -> Bytes {
    let signature = tag(&KEY, &draft.message());
    draft.signed(&signature)
}

pub(super) fn keys() -> VerificationKeys {
    VerificationKeys::tags([(KEY_ID, KEY)])
}

impl Hub {
    pub(super) fn new(machines: &[Machine], rng: &mut ChaCha8Rng) -> Self {
        let edge = |machine: &Machine| HubEdge {
            actor: machine.actor,
            public: machine.public,
            given: KeysGiven::default(),
            left: Vec::new(),
            lost_at: None,
        };
        let mut limits = OfflineLimits::default();
        limits.set(Subtree::ALL, rng.random_range(20..90) * MINUTE);
        Self {
            limits,
            limit_root: SealKey::new([5; 32]),
            epoch: 1,
            edges: machines.iter().take(EDGES).map(edge).collect(),
            sealed: Vec::new(),
            letters: Vec::new(),
            removals: Vec::new(),
        }
    }

    pub(super) fn begin_keys(&mut self) {
        self.epoch += 1;
    }

    pub(super) fn lose(&mut self, edge: usize, new_keys: bool) {
        self.edges[edge].lost_at = Some(self.sealed.len());
        if new_keys {
            self.begin_keys();
        }
    }

    /// The secret of a namespace.
    pub(super) fn entry(&self, namespace: &Namespace) -> EntryKey {
        let scope =
            Scope { tenant: tenant(), environment: Environment::base(), namespace: namespace.clone() };
        EntryKey { scope, key: Key::parse("password").expect("a literal name") }
    }

    /// Its version as of a place in the hub's order.
    pub(super) fn version(&self, at: &EntryKey, seq: usize) -> Option<u64> {
        let until = &self.sealed[..seq.min(self.sealed.len())];
        let versions = until.iter().filter(|(known, _)| known.at == *at).count() as u64;
        (versions > 0).then_some(versions)
    }

    /// The place of a version in the hub's order.
    pub(super) fn seq(&self, at: &EntryKey, version: u64) -> Option<usize> {
        let is_it = |(known, _): &(SecretVersion, SealedSecret)| known.at == *at && known.version == version;
        self.sealed.iter().position(is_it).map(|at| at + 1)
    }

    /// Whether the hub opens a version, and finds what was written as that.
    pub(super) fn opens(&self, at: &EntryKey, version: u64) -> bool {
        let Some((known, sealed)) = self.seq(at, version).map(|seq| &self.sealed[seq - 1]) else {
            return false;
        };
        let opened = open_secret(&root(known.key_epoch), at, sealed);
        opened.is_ok_and(|plaintext| *plaintext == *plaintext_of(version))
    }

    pub(super) fn write(&mut self, namespace: &Namespace, rng: &mut ChaCha8Rng) {
        let at = self.entry(namespace);
        let version = self.version(&at, usize::MAX).unwrap_or_default() + 1;
        let key_epoch = self.epoch;
        let fresh = FreshSeal { data_key: rng.random(), body_nonce: rng.random(), wrap_nonce: rng.random() };
        let told = About::default();
        let sealed =
            seal_secret(&root(key_epoch), key_epoch, &at, version, &plaintext_of(version), told, &fresh);
        let sealed = sealed.expect("the root opens every namespace");
        self.sealed.push((SecretVersion { at, version, key_epoch }, sealed));
    }

    fn limit_key(&self, edge: usize, subtree: &Subtree) -> SealKey {
        limit_key(&self.limit_root, &tenant(), &self.edges[edge].actor.0.to_string(), subtree)
    }

    /// So long may the edge's secrets stay open.
    pub(super) fn says(
        &mut self,
        edge: usize,
        mark: Option<SessionMark>,
        now: u64,
        rng: &mut ChaCha8Rng,
    ) -> Letter {
        let subtrees = subtrees(edge);
        let limit_keys: Vec<SealKey> = subtrees.iter().map(|subtree| self.limit_key(edge, subtree)).collect();
        let known = &self.edges[edge];
        let name = known.actor.0.to_string();
        let sealed = seal_limit_keys(&limit_keys, &tenant(), &name, &known.public, rng);
        let feed = |subtree: &Subtree| Feed {
            tenant: tenant(),
            environment: Environment::base(),
            subtree: subtree.clone(),
            secrets: true,
        };
        let feeds: Vec<Feed> = subtrees.iter().map(feed).collect();
        let statement = LimitStatement {
            tenant: tenant(),
            edge: known.actor,
            issued_at: UnixMillis(WALL_AT_START_MS + now),
            not_after: UnixMillis(u64::MAX >> 1),
            session: mark,
            limits: self.limits.for_feeds(&feeds),
            subtrees,
            keys: sealed.expect("a public key of the curve"),
        };
        let bytes = signed(statement.draft(KEY_ID));
        let letter = Letter { edge, mark, issued: now, limits: self.limits.clone(), bytes };
        self.letters.push(letter.clone());
        letter
    }

    /// The edge was removed: said in an exchange of this nonce.
    pub(super) fn removes(&mut self, edge: usize, now: u64, nonce: Bytes) -> Bytes {
        let removed_at = UnixMillis(WALL_AT_START_MS + now);
        let removal = Removal { tenant: tenant(), edge: self.edges[edge].actor, removed_at, nonce };
        let bytes = signed(removal.draft(KEY_ID));
        self.removals.push(bytes.clone());
        bytes
    }

    /// The keys of all epochs of which there is something in the edge's subtrees. `arrives` says whether each comes to it.
    pub(super) fn grants(
        &mut self,
        edge: usize,
        ledger_first: bool,
        rng: &mut ChaCha8Rng,
        mut arrives: impl FnMut(&mut ChaCha8Rng) -> bool,
    ) -> Vec<KeyGrant> {
        let mut came = Vec::new();
        for subtree in subtrees(edge) {
            let held =
                |(version, _): &&(SecretVersion, SealedSecret)| subtree.contains(&version.at.scope.namespace);
            let mut epochs: Vec<u64> =
                self.sealed.iter().filter(held).map(|(version, _)| version.key_epoch).collect();
            epochs.push(self.epoch);
            epochs.sort_unstable();
            epochs.dedup();
            for epoch in epochs {
                let key = root(epoch).descend(&subtree).expect("the root is above everything");
                if self.edges[edge].left.contains(&key) {
                    continue;
                }
                let limit_key = self.limit_key(edge, &subtree);
                let base = Environment::base();
                let known = &mut self.edges[edge];
                let name = known.actor.0.to_string();
                let grant =
                    seal_limited_grant(&key, epoch, &tenant(), &name, &base, &known.public, &limit_key, rng);
                known.left.push(key);
                let arrived = arrives(rng);
                if ledger_first || arrived {
                    known.given.add(base, epoch, subtree.clone());
                }
                if arrived {
                    came.push(grant.expect("a public key of the curve"));
                }
            }
        }
        came
    }
}
