//! What the hub of one region reads of another's history, as protobuf and back.

use llm_config_shared::entry::{Author, ChangeId, ChangeType, Content, HistoryRow, Metadata, Status};
use llm_config_shared::limits::{REGION_PAGE_WRITES_MAX, SHARDS_MAX, TAG_BYTES_MAX, TAGS_MAX};
use llm_config_shared::secret::SealedSecret;
use llm_config_shared::stamp::Hlc;
use llm_config_shared::store::region::{Bookmark, RegionAsk, RegionPage, RegionWrite};
use llm_config_shared::time::UnixMillis;
use llm_config_shared::value::Value;
use llm_config_shared::vector::{Epochs, ShardId};

use super::entry::{
    InvalidMessage, Parsed, about, at_most, base, base_change, epochs_from_wire, epochs_to_wire, list,
    number, optional_text, required, text, uuid, uuid_bytes, vector,
};
use super::wire;

/// Most leaderships that are kept beyond their end, in a message.
const KEPT_MAX: usize = 10_000;

/// Tables of all shards, and what is kept of them.
pub(super) fn shards_to_wire(epochs: &Epochs) -> (Vec<wire::ShardEpochs>, Vec<wire::Position>) {
    let shard = |(shard, table): (ShardId, &_)| wire::ShardEpochs {
        shard: uuid_bytes(shard.0),
        epochs: epochs_to_wire(table),
    };
    (epochs.iter().map(shard).collect(), epochs.kept().map(Into::into).collect())
}

pub(super) fn shards_from_wire(shards: Vec<wire::ShardEpochs>, kept: Vec<wire::Position>) -> Parsed<Epochs> {
    let tables = list("shards", SHARDS_MAX, shards, |part| {
        Ok((ShardId(uuid("shard", &part.shard)?), epochs_from_wire(part.epochs)?))
    })?;
    Ok(Epochs::from_parts(tables, list("kept", KEPT_MAX, kept, TryInto::try_into)?))
}

impl From<&Epochs> for wire::Epochs {
    fn from(epochs: &Epochs) -> Self {
        let (shards, kept) = shards_to_wire(epochs);
        Self { shards, kept }
    }
}

impl TryFrom<wire::Epochs> for Epochs {
    type Error = InvalidMessage;

    fn try_from(part: wire::Epochs) -> Parsed<Self> {
        shards_from_wire(part.shards, part.kept)
    }
}

impl From<Bookmark> for wire::Bookmark {
    fn from(bookmark: Bookmark) -> Self {
        // The shard is known from what the bookmark is of.
        let position = (ShardId(uuid::Uuid::nil()), bookmark.position).into();
        Self { position: Some(position), number: bookmark.number, epoch: bookmark.epoch }
    }
}

impl TryFrom<wire::Bookmark> for Bookmark {
    type Error = InvalidMessage;

    fn try_from(part: wire::Bookmark) -> Parsed<Self> {
        let (_, position) = required("position", part.position)?.try_into()?;
        Ok(Self { position, number: number("number", part.number)?, epoch: number("epoch", part.epoch)? })
    }
}

impl From<&RegionAsk> for wire::FollowRequest {
    fn from(ask: &RegionAsk) -> Self {
        let read = ask.read.map(Into::into);
        Self { read, have: Some((&ask.have).into()), epochs: Some((&ask.epochs).into()) }
    }
}

impl TryFrom<wire::FollowRequest> for RegionAsk {
    type Error = InvalidMessage;

    fn try_from(part: wire::FollowRequest) -> Parsed<Self> {
        Ok(Self {
            read: part.read.map(TryInto::try_into).transpose()?,
            have: vector(part.have)?,
            epochs: required("epochs", part.epochs)?.try_into()?,
        })
    }
}

impl From<RegionPage> for wire::FollowReply {
    fn from(page: RegionPage) -> Self {
        let regions = page.regions.map(|(vector, epochs)| wire::Regions {
            vector: Some((&vector).into()),
            epochs: Some((&epochs).into()),
        });
        Self {
            shard: uuid_bytes(page.shard.0),
            writes: page.writes.into_iter().map(Into::into).collect(),
            read: Some(page.read.into()),
            epochs: epochs_to_wire(&page.epochs),
            regions,
        }
    }
}

/// What was answered to somebody who had read up to `after`.
pub(super) fn page(part: wire::FollowReply, after: Option<Bookmark>) -> Parsed<RegionPage> {
    let regions = part.regions.map(|regions| -> Parsed<_> {
        Ok((vector(regions.vector)?, required("epochs", regions.epochs)?.try_into()?))
    });
    Ok(RegionPage {
        shard: ShardId(uuid("shard", &part.shard)?),
        after,
        writes: list("writes", REGION_PAGE_WRITES_MAX, part.writes, TryInto::try_into)?,
        read: required("bookmark", part.read)?.try_into()?,
        epochs: epochs_from_wire(part.epochs)?,
        regions: regions.transpose()?,
    })
}

fn returned_in(bytes: &[u8]) -> Parsed<Option<ChangeId>> {
    (!bytes.is_empty()).then(|| uuid("change of a loss", bytes).map(ChangeId)).transpose()
}

impl From<RegionWrite> for wire::RegionWrite {
    fn from(write: RegionWrite) -> Self {
        let RegionWrite { row, origin, metadata } = write;
        let content = match row.content {
            Content::Plain(value) => wire::region_write::Content::Plain(value.as_str().to_owned()),
            Content::Secret(sealed) => wire::region_write::Content::Sealed(wire::Sealed {
                key_epoch: sealed.key_epoch,
                version: sealed.version,
                body: sealed.body,
                wrap: sealed.wrap,
                secret_type: sealed.about.told.secret_type.number().into(),
                suite: sealed.about.suite.number().into(),
                expires_at_ms: sealed.about.told.expires_at.map(|at| at.0),
            }),
            Content::Deleted => wire::region_write::Content::Deleted(wire::Delete {}),
        };
        Self {
            at: Some((&row.at).into()),
            version: row.version,
            stamp: Some(row.stamp.into()),
            claimed_hlc: row.claimed_hlc.map(|hlc| hlc.0),
            content: Some(content),
            content_hash: bytes::Bytes::copy_from_slice(&row.content_hash),
            author: row.author.name.to_string(),
            claimed_author: row.author.claimed.as_deref().map(str::to_owned),
            created_at_ms: row.created_at.0,
            message: row.message.as_deref().map(str::to_owned),
            change_type: row.change_type.as_str().to_owned(),
            change: uuid_bytes(row.change.0),
            returned_in: row.returned_in.map_or_else(bytes::Bytes::new, |change| uuid_bytes(change.0)),
            context: Some((&row.context).into()),
            base: row.base.map(|base| base.stamp.into()),
            base_change: base_change(row.base),
            origin: origin.map(Into::into),
            metadata: metadata.map(Into::into),
        }
    }
}

impl TryFrom<wire::RegionWrite> for RegionWrite {
    type Error = InvalidMessage;

    fn try_from(part: wire::RegionWrite) -> Parsed<Self> {
        let content = match required("content", part.content)? {
            wire::region_write::Content::Plain(text) => Content::Plain(Value::parse(&text)?),
            wire::region_write::Content::Sealed(sealed) => Content::Secret(SealedSecret {
                key_epoch: number("key epoch", sealed.key_epoch)?,
                version: number("version", sealed.version)?,
                about: about(sealed.secret_type, sealed.suite, sealed.expires_at_ms)?,
                body: sealed.body,
                wrap: sealed.wrap,
            }),
            wire::region_write::Content::Deleted(wire::Delete {}) => Content::Deleted,
        };
        let length = part.content_hash.len();
        let hash = <[u8; 32]>::try_from(part.content_hash.as_ref());
        let hash = hash.map_err(|_| InvalidMessage::Length { field: "hash", length, expected: 32 })?;
        let row = HistoryRow {
            at: required("entry", part.at)?.try_into()?,
            version: number("version", part.version)?,
            stamp: required("stamp", part.stamp)?.try_into()?,
            claimed_hlc: part.claimed_hlc.map(|hlc| number("hlc", hlc).map(Hlc)).transpose()?,
            content,
            content_hash: hash,
            author: Author {
                name: text("author", part.author)?,
                claimed: optional_text("claimed author", part.claimed_author)?,
            },
            created_at: UnixMillis(number("time", part.created_at_ms)?),
            message: optional_text("message", part.message)?,
            change_type: required("sort of change", ChangeType::parse(&part.change_type))?,
            change: ChangeId(uuid("change", &part.change)?),
            returned_in: returned_in(&part.returned_in)?,
            // What became of it is judged anew where it is read.
            status: Status::Applied,
            reason: None,
            seq: None,
            context: vector(part.context)?,
            base: base(part.base, &part.base_change)?,
            settled: None,
            origin: None,
        };
        let origin = part.origin.map(TryInto::try_into).transpose()?;
        Ok(Self { row, origin, metadata: part.metadata.map(TryInto::try_into).transpose()? })
    }
}

impl From<Metadata> for wire::EntryMetadata {
    fn from(metadata: Metadata) -> Self {
        Self {
            created_at_ms: metadata.created_at.0,
            created_by: metadata.created_by.to_string(),
            updated_at_ms: metadata.updated_at.0,
            updated_by: metadata.updated_by.to_string(),
            tags: metadata.tags.iter().map(ToString::to_string).collect(),
            description: metadata.description.as_deref().map(str::to_owned),
        }
    }
}

impl TryFrom<wire::EntryMetadata> for Metadata {
    type Error = InvalidMessage;

    fn try_from(part: wire::EntryMetadata) -> Parsed<Self> {
        Ok(Self {
            created_at: UnixMillis(number("time", part.created_at_ms)?),
            created_by: text("author", part.created_by)?,
            updated_at: UnixMillis(number("time", part.updated_at_ms)?),
            updated_by: text("author", part.updated_by)?,
            tags: list("tags", TAGS_MAX, part.tags, |tag| {
                at_most("tag bytes", tag.len(), TAG_BYTES_MAX)?;
                Ok(tag.into())
            })?,
            description: optional_text("description", part.description)?,
        })
    }
}
