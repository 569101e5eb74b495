//! In random histories the receipt is what really opens: every sealed version is tried with every key that an edge ever
//! got out of a grant.

use std::collections::BTreeSet;

use super::*;
use crate::name::{Key, Scope, Tenant};
use crate::seal::SealKey;
use crate::secret::{
    About, FreshSeal, SealedSecret, SubtreeKey, open_limited_grant, open_secret, seal_limited_grant,
    seal_secret, sealing_keypair,
};

const ENVIRONMENTS: [&str; 2] = ["base", "production"];
const NAMESPACES: [&str; 6] = ["a", "a/b", "a/b/c", "ab", "x", "x/y"];
const SUBTREES: [&str; 5] = ["", "a", "a/b", "ab", "x/y"];

struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }
}

#[derive(Default)]
struct Edge {
    subscribed: BTreeSet<(usize, &'static str)>,
    removed: bool,
    /// The ledger of the hub.
    given: KeysGiven,
    /// What it really got, and never forgets.
    got: BTreeSet<(usize, u64, &'static str)>,
    keys: Vec<SubtreeKey>,
}

/// A hub with all that it ever sealed, and edges that keep every key that they ever got.
struct World {
    numbers: Numbers,
    epochs: [u64; 2],
    sealed: Vec<(SecretVersion, SealedSecret)>,
    edges: Vec<Edge>,
    /// Whether keys go through HPKE, which takes most of the time.
    by_grant: bool,
}

fn tenant() -> Tenant {
    Tenant::parse("t").unwrap()
}

fn root(environment: usize, epoch: u64) -> SubtreeKey {
    let mut seed = [environment as u8 + 1; 32];
    seed[..8].copy_from_slice(&epoch.to_be_bytes());
    SubtreeKey::root(SealKey::new(seed))
}

impl World {
    fn new(seed: u64) -> Self {
        let edges = (0..3).map(|_| Edge::default()).collect();
        Self {
            numbers: Numbers(seed),
            epochs: [1, 1],
            sealed: Vec::new(),
            edges,
            by_grant: seed.is_multiple_of(20),
        }
    }

    fn step(&mut self) {
        let edge = self.numbers.below(3);
        match self.numbers.below(9) {
            0 | 1 => {
                let feed = (self.numbers.below(2), SUBTREES[self.numbers.below(SUBTREES.len())]);
                if !self.edges[edge].subscribed.remove(&feed) {
                    self.edges[edge].subscribed.insert(feed);
                }
            }
            2 | 3 => self.contact(edge),
            // A set, or a rotation where there is one.
            4..=6 => self.set(),
            7 => self.epochs[self.numbers.below(2)] += 1,
            _ => {
                self.edges[edge].removed = true;
                let environments: Vec<usize> =
                    self.edges[edge].got.iter().map(|(environment, ..)| *environment).collect();
                for environment in BTreeSet::from_iter(environments) {
                    self.epochs[environment] += 1;
                }
                // Its machine may come back as another edge.
                if self.numbers.below(2) == 0 {
                    self.edges[edge] = Edge::default();
                }
            }
        }
    }

    /// An edge is given the keys of its feeds, in every epoch there is.
    fn contact(&mut self, edge: usize) {
        if self.edges[edge].removed {
            return;
        }
        for (environment, path) in self.edges[edge].subscribed.clone() {
            for epoch in 1..=self.epochs[environment] {
                if self.edges[edge].got.insert((environment, epoch, path)) {
                    let subtree = Subtree::parse(path).unwrap();
                    let name = Environment::parse(ENVIRONMENTS[environment]).unwrap();
                    self.edges[edge].given.add(name.clone(), epoch, subtree.clone());
                    let key = root(environment, epoch).descend(&subtree).unwrap();
                    let key = if self.by_grant { granted(&key, epoch, &name) } else { key };
                    self.edges[edge].keys.push(key);
                }
            }
        }
    }

    fn set(&mut self) {
        let environment = self.numbers.below(2);
        let namespace = Namespace::parse(NAMESPACES[self.numbers.below(NAMESPACES.len())]).unwrap();
        let key = Key::parse(["k1", "k2"][self.numbers.below(2)]).unwrap();
        let name = Environment::parse(ENVIRONMENTS[environment]).unwrap();
        let at = EntryKey { scope: Scope { tenant: tenant(), environment: name, namespace }, key };
        let version = 1 + self.sealed.iter().filter(|(known, _)| known.at == at).count() as u64;
        let key_epoch = self.epochs[environment];
        let fresh = FreshSeal { data_key: [7; 32], body_nonce: [8; 24], wrap_nonce: [9; 24] };
        let sealed = seal_secret(
            &root(environment, key_epoch),
            key_epoch,
            &at,
            version,
            b"secret",
            About::default(),
            &fresh,
        )
        .unwrap();
        self.sealed.push((SecretVersion { at, version, key_epoch }, sealed));
    }
}

/// A key as an edge gets it.
fn granted(key: &SubtreeKey, epoch: u64, environment: &Environment) -> SubtreeKey {
    let (private, public) = sealing_keypair(&[9; 32]);
    let limit_key = SealKey::new([4; 32]);
    let mut rng = crate::secret::Counting(0);
    let grant =
        seal_limited_grant(key, epoch, &tenant(), "e", environment, &public, &limit_key, &mut rng).unwrap();
    open_limited_grant(&grant, &tenant(), "e", &private, &limit_key).unwrap()
}

#[test]
fn in_a_thousand_histories_the_receipt_is_exactly_what_opens() {
    let (mut exposed, mut safe) = (0, 0);
    for seed in 0..1_000 {
        let mut world = World::new(seed);
        for _ in 0..30 {
            world.step();
        }
        for edge in &world.edges {
            for (version, sealed) in &world.sealed {
                let opens = edge.keys.iter().any(|key| open_secret(key, &version.at, sealed).is_ok());
                assert_eq!(edge.given.exposes(version), opens, "seed {seed}: {version:?}");
                if opens { exposed += 1 } else { safe += 1 }
            }
        }
    }
    assert!(exposed > 1_000 && safe > 1_000, "both happen: {exposed}, {safe}");
}
