//! What regions say to one another, in full.

use super::*;

pub(super) fn a_key() -> RegionKey {
    let (tenant, environment) = (Tenant::parse("t").unwrap(), Environment::base());
    let name = KeyName { tenant, environment, key_epoch: 7 << 24 };
    RegionKey { name, key: SealKey::new([5; 32]) }
}

fn a_bookmark() -> Bookmark {
    Bookmark { position: position(), number: 12, epoch: 1 << 62 }
}

pub(super) fn an_ask() -> RegionAsk {
    let shard = ShardId(Uuid::from_u128(10));
    let table = EpochTable::new(vec![Epoch { ordinal: 1, epoch: 1 << 62, start_seq: 3 }]);
    let epochs = Epochs::from_parts([(shard, table)], [Dot { shard, position: position() }]);
    RegionAsk { read: Some(a_bookmark()), have: Vector::at(shard, position()), epochs }
}

/// A secret that is the entry's value, and a deletion that lost.
pub(super) fn a_page() -> RegionPage {
    let upload = an_upload();
    let RegionAsk { have, epochs, .. } = an_ask();
    let row = |write: &Write, content: Content, change_type: ChangeType| HistoryRow {
        at: write.at.clone(),
        version: 7,
        stamp: write.stamp(),
        claimed_hlc: write.claimed_hlc,
        content_hash: content.hash(),
        content,
        author: write.author.clone(),
        created_at: write.made_at,
        message: write.message.clone(),
        change_type,
        change: write.change,
        returned_in: (change_type == ChangeType::Delete).then(|| ChangeId(Uuid::from_u128(77))),
        status: Status::Applied,
        reason: None,
        seq: None,
        context: write.context.clone(),
        base: write.base,
        settled: None,
        origin: None,
    };
    let write = &upload.writes[0];
    let sealed = SealedSecret {
        key_epoch: 3,
        version: 7,
        about: about(),
        body: Bytes::from_static(b"body"),
        wrap: Bytes::from_static(b"wrap"),
    };
    let metadata = Metadata {
        created_at: UnixMillis(1),
        created_by: "token:a".into(),
        updated_at: UnixMillis(2),
        updated_by: "token:b".into(),
        tags: vec!["x".into()],
        description: Some("why".into()),
    };
    let origin = Some(Dot { shard: ShardId(Uuid::from_u128(10)), position: position() });
    let secret = row(write, Content::Secret(sealed), ChangeType::Update);
    let gone = row(write, Content::Deleted, ChangeType::Delete);
    RegionPage {
        shard: ShardId(Uuid::from_u128(10)),
        after: Some(a_bookmark()),
        writes: vec![
            RegionWrite { row: secret, origin, metadata: Some(metadata) },
            RegionWrite { row: gone, origin: None, metadata: None },
        ],
        read: a_bookmark(),
        epochs: epochs.get(ShardId(Uuid::from_u128(10))).unwrap().clone(),
        regions: Some((have, epochs)),
    }
}
