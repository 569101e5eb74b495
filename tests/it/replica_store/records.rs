//! Records of every kind, with contents from a seed.

use std::sync::Arc;

use bytes::Bytes;
use llm_config_shared::entry::{Author, ChangeId, Content, Metadata, Row};
use llm_config_shared::feed::{Environments, Feed};
use llm_config_shared::held::{Held, Span};
use llm_config_shared::name::{EntryKey, Environment, Key, Namespace, Scope, Subtree, Tenant};
use llm_config_shared::secret::{About, KeyGrant, SealedSecret, SecretType, Told};
use llm_config_shared::stamp::{ActorId, Hlc, Stamp, WriteId};
use llm_config_shared::store::replica::{
    FeedRecord, HandedIn, KeptRecord, PendingRecord, Record, StageRecord, StateRecord,
};
use llm_config_shared::time::UnixMillis;
use llm_config_shared::value::Value;
use llm_config_shared::vector::{Dot, Position, ShardId, Vector};
use llm_config_shared::write::{Action, Base, Write};
use uuid::Uuid;

/// SplitMix64: the same numbers for the same seed, everywhere.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn text(&mut self, length: usize) -> String {
        (0..length).map(|_| char::from(b'a' + self.below(26) as u8)).collect()
    }
}

fn tenant() -> Tenant {
    Tenant::parse("t").unwrap()
}

fn entry(name: &str) -> EntryKey {
    let scope = Scope {
        tenant: tenant(),
        environment: Environment::base(),
        namespace: Namespace::parse("app/llm").unwrap(),
    };
    EntryKey { scope, key: Key::parse(name).unwrap() }
}

fn position(seq: u64) -> Vector {
    Vector::at(ShardId(Uuid::from_u128(3)), Position { epoch: 11, seq })
}

fn write_id(counter: u64) -> WriteId {
    WriteId { actor: ActorId(Uuid::from_u128(5)), incarnation: i64::MAX as u64, counter }
}

fn a_row(name: &str, version: u64, size: usize, random: &mut Random) -> Arc<Row> {
    let content = if version % 3 == 1 {
        let body = Bytes::from(random.text(size).into_bytes());
        // Every other one is as it was before anything was told of secrets.
        let told = Told { secret_type: SecretType::OauthToken, expires_at: Some(UnixMillis(1 << 41)) };
        let about = About { told: if version % 6 == 1 { told } else { Told::default() }, ..About::default() };
        let wrap = Bytes::from_static(b"wrapped");
        Content::Secret(SealedSecret { key_epoch: 2, version, about, body, wrap })
    } else {
        Content::Plain(Value::string(&random.text(size)).unwrap())
    };
    Arc::new(Row {
        at: entry(name),
        dot: Dot { shard: ShardId(Uuid::from_u128(3)), position: Position { epoch: 11, seq: version } },
        stamp: Stamp { hlc: Hlc(i64::MAX as u64 - version), id: write_id(version) },
        version,
        content,
        metadata: Metadata {
            created_at: UnixMillis(1),
            created_by: "token:admin".into(),
            updated_at: UnixMillis(random.next() >> 8),
            updated_by: "edge:kiosk/uid:0".into(),
            tags: (0..version % 4).map(|n| format!("tag-{n}").into()).collect(),
            description: version.is_multiple_of(2).then(|| random.text(40).into()),
        },
        change: ChangeId(Uuid::from_u128(u128::from(random.next()))),
    })
}

pub(super) fn row(name: &str, version: u64, size: usize, random: &mut Random) -> Record {
    Record::Row(a_row(name, version, size, random))
}

pub(super) fn staged(name: &str, version: u64, size: usize, random: &mut Random) -> Record {
    Record::Staged(a_row(name, version, size, random))
}

pub(super) fn stage(subtree: &str, seq: u64, through: Option<&str>, random: &mut Random) -> Record {
    let feed = Feed {
        tenant: tenant(),
        environment: Environment::base(),
        subtree: Subtree::parse(subtree).unwrap(),
        secrets: true,
    };
    let through = through.map(|name| a_row(name, 1, 1, random).at.clone());
    let whole = Span { through: None, to: position(1) };
    let mut spans = vec![Span { through: through.clone(), to: position(seq) }];
    spans.extend(through.map(|_| whole));
    let held = Held { from: position(random.below(3)), spans };
    Record::Stage(
        feed,
        StageRecord { shard: ShardId(Uuid::from_u128(3)), held, in_place: seq.is_multiple_of(2) },
    )
}

pub(super) fn feed(subtree: &str, seq: u64, ready: bool) -> Record {
    let feed = Feed {
        tenant: tenant(),
        environment: Environment::base(),
        subtree: Subtree::parse(subtree).unwrap(),
        secrets: ready,
    };
    let floor = position(seq + 1);
    Record::Feed(
        feed,
        FeedRecord { vector: position(seq), floor, ready, checkpoint_issued_at: seq, folding: !ready },
    )
}

pub(super) fn pending(counter: u64, size: usize, random: &mut Random) -> Record {
    let action = match counter % 3 {
        0 => Action::Delete,
        1 => Action::Set { value: Value::string(&random.text(size)).unwrap(), tags: None, description: None },
        _ => Action::Set {
            value: Value::parse("[1,-0.5,null]").unwrap(),
            tags: Some(vec!["a".into(), "b".into()]),
            description: Some(random.text(size.min(4_000)).into()),
        },
    };
    let even = counter.is_multiple_of(2);
    let dot = Dot { shard: ShardId(Uuid::from_u128(3)), position: Position { epoch: 11, seq: counter } };
    Record::Pending(PendingRecord {
        write: Write {
            id: write_id(counter),
            hlc: Hlc(counter),
            claimed_hlc: even.then_some(Hlc(counter + 9)),
            at: entry(&format!("p{counter}")),
            action,
            author: Author { name: "uid:0".into(), claimed: even.then(|| "somebody".into()) },
            made_at: UnixMillis(counter),
            message: even.then(|| "why".into()),
            change: ChangeId(Uuid::from_u128(8)),
            context: if even { position(counter) } else { Vector::EMPTY },
            without_secrets: true,
            base: even.then(|| Base {
                stamp: Stamp { hlc: Hlc(1), id: write_id(1) },
                change: ChangeId(Uuid::from_u128(7)),
            }),
        },
        sent: even,
        hidden: counter.is_multiple_of(5),
        decided: even.then_some(dot),
    })
}

pub(super) fn kept(counter: u64, size: usize, random: &mut Random) -> Record {
    let Record::Pending(PendingRecord { write, .. }) = pending(counter, size, random) else {
        panic!("just made");
    };
    Record::Kept(KeptRecord { write, kept_at: UnixMillis(counter) })
}

pub(super) fn grant(subtree: &str, key_epoch: u64) -> Record {
    Record::Grant(KeyGrant {
        environment: Environment::base(),
        subtree: Subtree::parse(subtree).unwrap(),
        key_epoch,
        encapsulated: Bytes::from_static(&[1; 32]),
        ciphertext: Bytes::from_static(&[2; 48]),
    })
}

pub(super) fn state(session: u64) -> Record {
    Record::State(StateRecord {
        decided_hlc: Hlc(99),
        incarnation: 77,
        counter_ceiling: 1_024,
        session,
        hlc: Hlc(i64::MAX as u64),
        clock_offset_ms: -5,
        confirmed_at: 1_795_000_000_000,
        environments: Environments::standard(),
        default_environment: Some(Environment::base()),
        write: vec![Subtree::ALL, Subtree::parse("edges/kiosk").unwrap()],
        handed_in: Some(HandedIn { leadership: 1 << 62, through: Stamp { hlc: Hlc(1), id: write_id(1) } }),
    })
}
