//! Segments and checkpoints: what comes back as it went, and everything that is refused.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use ring::signature::{Ed25519KeyPair, KeyPair};
use uuid::Uuid;

use super::*;
use crate::digest::FeedDigest;
use crate::entry::{ChangeId, Content, Metadata, Row};
use crate::feed::Feed;
use crate::name::{EntryKey, Environment, Key, Namespace, Scope, Subtree, Tenant};
use crate::seal::Suite;
use crate::secret::{About, SealedSecret, SecretType, Told};
use crate::stamp::{ActorId, Hlc, Stamp, WriteId};
use crate::time::UnixMillis;
use crate::value::Value;
use crate::vector::{Dot, Position, ShardId};

const SHARD: ShardId = ShardId(Uuid::from_u128(7));

fn feed(secrets: bool) -> Feed {
    Feed {
        tenant: Tenant::parse("t").unwrap(),
        environment: Environment::base(),
        subtree: Subtree::parse("app").unwrap(),
        secrets,
    }
}

fn row(n: u64, content: Content) -> Row {
    let scope = Scope {
        tenant: Tenant::parse("t").unwrap(),
        environment: Environment::base(),
        namespace: Namespace::parse(if n.is_multiple_of(2) { "app" } else { "app/llm" }).unwrap(),
    };
    let id = WriteId { actor: ActorId(Uuid::from_u128(9)), incarnation: 3, counter: n };
    Row {
        at: EntryKey { scope, key: Key::parse(&format!("model/{n:04}")).unwrap() },
        dot: Dot { shard: SHARD, position: Position { epoch: 5, seq: n + 1 } },
        stamp: Stamp { hlc: Hlc(n << 20), id },
        version: n % 3 + 1,
        content,
        metadata: Metadata {
            created_at: UnixMillis(1_000 + n),
            created_by: "token:admin".into(),
            updated_at: UnixMillis(2_000 + n),
            updated_by: Arc::from(format!("token:{}", n % 2)),
            tags: if n.is_multiple_of(5) { vec!["hot".into()] } else { Vec::new() },
            description: n.is_multiple_of(7).then(|| "seventh".into()),
        },
        change: ChangeId(Uuid::from_u128(u128::from(n / 10))),
    }
}

fn rows(count: u64) -> Vec<Row> {
    let expires_at = Some(UnixMillis(1 << 41));
    let told = About { told: Told { secret_type: SecretType::ApiKey, expires_at }, suite: Suite::Aes256Gcm };
    let mut rows: Vec<Row> = (0..count)
        .map(|n| {
            let content = match n % 10 {
                8 => Content::Deleted,
                9 => Content::Secret(SealedSecret {
                    key_epoch: 4,
                    version: n,
                    about: if n % 20 == 9 { About::default() } else { told },
                    body: Bytes::from(vec![n as u8; 60]),
                    wrap: Bytes::from(vec![1; 72]),
                }),
                _ => Content::Plain(Value::parse(&format!("{{\"limit\":{n},\"mode\":\"chat\"}}")).unwrap()),
            };
            row(n, content)
        })
        .collect();
    rows.sort_by(|a, b| a.at.cmp(&b.at));
    rows
}

/// What every patched row was before.
fn base() -> Value {
    Value::parse(r#"{"limit":-1,"mode":"chat"}"#).unwrap()
}

/// Every third plain row travels as a patch.
fn patch_of(row: &Row) -> Option<Patch> {
    let Content::Plain(value) = &row.content else { return None };
    let value = crate::patch::diff(&base(), value)?;
    let seq = row.dot.position.seq;
    seq.is_multiple_of(3).then_some(Patch { base: seq - 1, value })
}

fn key() -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[1; 32]).unwrap()
}

fn keys() -> VerificationKeys {
    VerificationKeys::new([(11, key().public_key().as_ref().try_into().unwrap())])
}

fn sign(message: &[u8]) -> [u8; SIGNATURE_BYTES] {
    key().sign(message).as_ref().try_into().unwrap()
}

fn segment(rows: &[Row], secrets: bool) -> Bytes {
    let part = SegmentPart {
        kind: Kind::Delta,
        feed: feed(secrets),
        from: Vector::EMPTY,
        to: Vector::at(SHARD, Position { epoch: 5, seq: 1_000 }),
        continues: Vec::new(),
        chunk: 0,
        chunks: 1,
        issued_at: UnixMillis(5),
        key_id: 11,
    };
    let rows: Vec<Outgoing<'_>> =
        rows.iter().map(|row| Outgoing { row: Cow::Borrowed(row), patch: patch_of(row) }).collect();
    let draft = draft(part, &rows, Effort::Live);
    let signature = sign(&draft.message());
    draft.signed(&signature)
}

#[test]
fn rows_come_back_as_they_went() {
    for count in [0, 1, 2, 50, 400] {
        let rows = rows(count);
        let verified = verify(&segment(&rows, true), &keys()).unwrap();
        assert_eq!(verified.header().chunks, 1);
        let opened = verified.open().unwrap();
        assert_eq!(opened.patches(), rows.iter().filter(|row| patch_of(row).is_some()).count());
        let base = base();
        assert_eq!(opened.resolve(|_, _| Some(Held::Base(&base))).unwrap(), rows, "{count} rows");
    }
}

#[test]
fn a_patch_is_taken_only_onto_the_value_that_it_belongs_to() {
    let rows = rows(50);
    let open = || verify(&segment(&rows, true), &keys()).unwrap().open().unwrap();
    assert!(open().patches() > 3);
    let named = std::cell::Cell::new(0);
    let right = base();
    let resolved = open().resolve(|row, seq| {
        assert_eq!(seq, row.dot.position.seq - 1, "the base is named");
        named.set(named.get() + 1);
        Some(Held::Base(&right))
    });
    assert_eq!((resolved.as_ref(), named.get()), (Ok(&rows), open().patches()));
    // Another object, something that is no object, and nothing.
    let other = Value::parse(r#"{"mode":"chat","unknown":1}"#).unwrap();
    let text = Value::parse("1").unwrap();
    for held in [Some(&other), Some(&text), None] {
        assert_eq!(open().resolve(|_, _| held.map(Held::Base)), Err(Rejected::Base));
    }
    // Who has the row already needs no base.
    let had = |row: &Row, _| {
        let same = rows.iter().find(|known| known.dot == row.dot)?;
        let Content::Plain(value) = &same.content else { return None };
        Some(Held::Result(value))
    };
    assert_eq!(open().resolve(had).as_ref(), Ok(&rows));
}

#[test]
fn ciphertext_stays_out_of_the_compressed_section() {
    let segment = segment(&rows(400), true);
    let body = vec![39u8; 60];
    assert!(segment.windows(60).any(|window| window == body), "the body travels as it is");
}

#[test]
fn any_flipped_byte_is_noticed() {
    let bytes = segment(&rows(40), true);
    for at in 0..bytes.len() {
        let mut changed = bytes.to_vec();
        changed[at] ^= 1;
        let result = verify(&Bytes::from(changed), &keys()).and_then(Verified::open);
        assert!(result.is_err(), "byte {at} of {}", bytes.len());
    }
    for length in 0..bytes.len() {
        let result = verify(&bytes.slice(..length), &keys()).and_then(Verified::open);
        assert!(result.is_err(), "cut to {length}");
    }
}

#[test]
fn a_signature_of_an_unknown_key_or_another_kind_of_message_is_refused() {
    let bytes = segment(&rows(3), true);
    let other = VerificationKeys::new([(12, [3; 32])]);
    assert_eq!(verify(&bytes, &other).unwrap_err(), Rejected::UnknownKey);
    assert!(verify_checkpoint(&bytes, &keys()).is_err());
}

#[test]
fn more_than_was_signed_is_never_inflated() {
    let plain = vec![b'x'; 1 << 20];
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut gzip, &plain).unwrap();
    let bomb = gzip.finish().unwrap();
    for claimed in [100, 1 << 20, 30 << 20] {
        let hash = ring::digest::digest(&ring::digest::SHA256, &bomb);
        let header = SegmentHeader {
            kind: Kind::Delta,
            feed: feed(true),
            from: Vector::EMPTY,
            to: Vector::EMPTY,
            continues: Vec::new(),
            chunk: 0,
            chunks: 1,
            key_epochs: Vec::new(),
            issued_at: UnixMillis(1),
            key_id: 11,
            sections: vec![header::Section {
                codec: SectionCodec::Gzip,
                wire_length: bomb.len(),
                plain_length: claimed,
                sha256: hash.as_ref().try_into().unwrap(),
            }],
        };
        let encoded = header.encode();
        let signature = sign(&build::signed_message(&encoded));
        let mut bytes = vec![FORMAT];
        bytes.extend_from_slice(&(encoded.len() as u32).to_be_bytes());
        bytes.extend_from_slice(&encoded);
        bytes.extend_from_slice(&signature);
        bytes.extend_from_slice(&bomb);
        let refused = verify(&Bytes::from(bytes), &keys()).unwrap().open().unwrap_err();
        let expected = if claimed == 1 << 20 {
            matches!(refused, Rejected::Decode(_))
        } else {
            refused == Rejected::Inflate
        };
        assert!(expected, "{claimed}: {refused:?}");
    }
}

#[test]
fn a_feed_without_secrets_takes_none_even_when_they_are_signed() {
    assert_eq!(
        verify(&segment(&rows(20), false), &keys()).unwrap().open().unwrap_err(),
        Rejected::ForeignRow
    );
}

#[test]
fn a_row_of_another_subtree_is_refused() {
    let mut rows = rows(4);
    rows[0].at.scope.namespace = Namespace::parse("aaa").unwrap();
    assert!(verify(&segment(&rows, true), &keys()).unwrap().open().is_err());
}

#[test]
fn a_checkpoint_comes_back_and_any_flipped_byte_is_noticed() {
    let checkpoint = Checkpoint {
        feed: feed(false),
        vector: Vector::at(SHARD, Position { epoch: 5, seq: 9 }),
        changed: Vector::at(SHARD, Position { epoch: 5, seq: 7 }),
        digest: FeedDigest { sum: 1 << 100, live: 3 },
        hlc: Hlc(7 << 16),
        issued_at: UnixMillis(5),
        not_after: UnixMillis(6),
        key_id: 11,
    };
    let draft = checkpoint.draft();
    let signature = sign(&draft.message());
    let bytes = draft.signed(&signature);
    assert_eq!(verify_checkpoint(&bytes, &keys()).unwrap(), checkpoint);
    for at in 0..bytes.len() {
        let mut changed = bytes.to_vec();
        changed[at] ^= 1;
        assert!(verify_checkpoint(&Bytes::from(changed), &keys()).is_err(), "byte {at}");
    }
}
