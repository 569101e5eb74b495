//! The compact form of what a column holds whole: vectors, metadata, secrets, bindings.
//!
//! Each begins with the version of its form. Numbers are in base 128, low group first; texts and bytes stand behind
//! their length. What does not decode is damage, never a panic.

use std::collections::BTreeMap;
use std::sync::Arc;

use llm_config_shared::entry::{ChangeId, Content, Metadata};
use llm_config_shared::feed::Binding;
use llm_config_shared::name::{Environment, Subtree};
use llm_config_shared::seal::Suite;
use llm_config_shared::secret::{About, SealedSecret, SecretType, Told};
use llm_config_shared::stamp::{ActorId, Hlc, Stamp, WriteId};
use llm_config_shared::store::JournalError;
use llm_config_shared::store::region::{Bookmark, Following};
use llm_config_shared::time::UnixMillis;
use llm_config_shared::value::Value;
use llm_config_shared::vector::{Dot, Epoch, EpochTable, Epochs, Position, ShardId, Vector};
use llm_config_shared::write::Base;
use uuid::Uuid;

use super::dialect::Answer;
use super::failure::corrupt;

const VERSION: u8 = 1;

#[derive(Default)]
struct Out(Vec<u8>);

impl Out {
    fn begin() -> Self {
        Self(vec![VERSION])
    }

    fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push((number & 0x7f) as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    fn uuid(&mut self, id: Uuid) {
        self.0.extend_from_slice(id.as_bytes());
    }
}

struct In<'a> {
    what: &'static str,
    rest: &'a [u8],
}

impl<'a> In<'a> {
    fn begin(what: &'static str, bytes: &'a [u8]) -> Answer<Self> {
        match bytes.split_first() {
            Some((&VERSION, rest)) => Ok(Self { what, rest }),
            Some((version, _)) => {
                Err(corrupt(format!("{what} in form {version}, which this program does not know")))
            }
            None => Err(corrupt(format!("{what} without content"))),
        }
    }

    fn damaged(&self) -> JournalError {
        corrupt(format!("{} that does not decode", self.what))
    }

    fn take(&mut self, count: usize) -> Answer<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or_else(|| self.damaged())?;
        self.rest = rest;
        Ok(taken)
    }

    fn number(&mut self) -> Answer<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(self.damaged())
    }

    fn bytes(&mut self) -> Answer<&'a [u8]> {
        let length = self.number()?;
        self.take(usize::try_from(length).map_err(|_| self.damaged())?)
    }

    fn text(&mut self) -> Answer<&'a str> {
        let bytes = self.bytes()?;
        std::str::from_utf8(bytes).map_err(|_| self.damaged())
    }

    fn uuid(&mut self) -> Answer<Uuid> {
        let bytes = self.take(16)?;
        Uuid::from_slice(bytes).map_err(|_| self.damaged())
    }

    /// `count` times `one`, without trusting the count for an allocation.
    fn many<T>(&mut self, mut one: impl FnMut(&mut Self) -> Answer<T>) -> Answer<Vec<T>> {
        let count = self.number()?;
        let mut all = Vec::new();
        for _ in 0..count {
            all.push(one(self)?);
        }
        Ok(all)
    }

    fn end(self) -> Answer<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.damaged()) }
    }
}

pub(super) fn vector(vector: &Vector) -> Vec<u8> {
    let mut out = Out::begin();
    out.number(vector.iter().count() as u64);
    for (shard, position) in vector.iter() {
        out.uuid(shard.0);
        out.number(position.epoch);
        out.number(position.seq);
    }
    out.0
}

pub(super) fn to_vector(bytes: &[u8]) -> Answer<Vector> {
    let mut from = In::begin("a version vector", bytes)?;
    let positions = from
        .many(|from| Ok((ShardId(from.uuid()?), Position { epoch: from.number()?, seq: from.number()? })))?;
    let vector = Vector::from_positions(positions).map_err(|error| corrupt(error.to_string()))?;
    from.end()?;
    Ok(vector)
}

impl Out {
    fn position(&mut self, position: Position) {
        self.number(position.epoch);
        self.number(position.seq);
    }

    fn dot(&mut self, dot: Dot) {
        self.uuid(dot.shard.0);
        self.position(dot.position);
    }
}

impl In<'_> {
    fn position(&mut self) -> Answer<Position> {
        Ok(Position { epoch: self.number()?, seq: self.number()? })
    }

    fn dot(&mut self) -> Answer<Dot> {
        Ok(Dot { shard: ShardId(self.uuid()?), position: self.position()? })
    }
}

/// 32 bytes, the numbers big-endian: a statement makes the same of a row's place.
pub(super) fn dot(dot: Dot) -> Vec<u8> {
    let Position { epoch, seq } = dot.position;
    [dot.shard.0.as_bytes().as_slice(), &epoch.to_be_bytes(), &seq.to_be_bytes()].concat()
}

pub(super) fn to_dot(bytes: &[u8]) -> Answer<Dot> {
    let damaged = || corrupt("an origin that has not 32 bytes");
    let (shard, numbers) = bytes.split_first_chunk::<16>().ok_or_else(damaged)?;
    let (epoch, seq) = numbers.split_first_chunk::<8>().ok_or_else(damaged)?;
    let seq = u64::from_be_bytes(seq.try_into().map_err(|_| damaged())?);
    let position = Position { epoch: u64::from_be_bytes(*epoch), seq };
    Ok(Dot { shard: ShardId(Uuid::from_bytes(*shard)), position })
}

pub(super) fn following(following: &Following) -> Vec<u8> {
    let mut out = Out::begin();
    out.number(following.read.len() as u64);
    for (shard, bookmark) in &following.read {
        out.dot(Dot { shard: *shard, position: bookmark.position });
        out.number(bookmark.number);
        out.number(bookmark.epoch);
    }
    out.number(following.regions.iter().count() as u64);
    for (shard, position) in following.regions.iter() {
        out.dot(Dot { shard, position });
    }
    out.number(following.epochs.iter().count() as u64);
    for (shard, table) in following.epochs.iter() {
        out.uuid(shard.0);
        out.number(table.epochs().len() as u64);
        for epoch in table.epochs() {
            out.number(u64::from(epoch.ordinal));
            out.position(Position { epoch: epoch.epoch, seq: epoch.start_seq });
        }
    }
    out.number(following.epochs.kept().count() as u64);
    following.epochs.kept().for_each(|dot| out.dot(dot));
    out.0
}

pub(super) fn to_following(bytes: &[u8]) -> Answer<Following> {
    let mut from = In::begin("the state of other regions", bytes)?;
    let read = from.many(|from| {
        let Dot { shard, position } = from.dot()?;
        Ok((shard, Bookmark { position, number: from.number()?, epoch: from.number()? }))
    })?;
    let regions = from.many(|from| from.dot().map(|dot| (dot.shard, dot.position)))?;
    let tables = from.many(|from| {
        let shard = ShardId(from.uuid()?);
        let epochs = from.many(|from| {
            let ordinal = u32::try_from(from.number()?).map_err(|_| from.damaged())?;
            let Position { epoch, seq } = from.position()?;
            Ok(Epoch { ordinal, epoch, start_seq: seq })
        })?;
        Ok((shard, EpochTable::new(epochs)))
    })?;
    let kept = from.many(In::dot)?;
    from.end()?;
    let regions = Vector::from_positions(regions).map_err(|error| corrupt(error.to_string()))?;
    Ok(Following { read: read.into_iter().collect(), regions, epochs: Epochs::from_parts(tables, kept) })
}

pub(super) fn base(base: &Base) -> Vec<u8> {
    let mut out = Out::begin();
    out.number(base.stamp.hlc.0);
    out.uuid(base.stamp.id.actor.0);
    out.number(base.stamp.id.incarnation);
    out.number(base.stamp.id.counter);
    out.uuid(base.change.0);
    out.0
}

pub(super) fn to_base(bytes: &[u8]) -> Answer<Base> {
    let mut from = In::begin("a base", bytes)?;
    let hlc = Hlc(from.number()?);
    let id = WriteId { actor: ActorId(from.uuid()?), incarnation: from.number()?, counter: from.number()? };
    // Without its change it was written by an earlier version of the program.
    let change = if from.rest.is_empty() { ChangeId::UNKNOWN } else { ChangeId(from.uuid()?) };
    from.end()?;
    Ok(Base { stamp: Stamp { hlc, id }, change })
}

pub(super) fn metadata(metadata: &Metadata) -> Vec<u8> {
    let mut out = Out::begin();
    out.number(metadata.created_at.0);
    out.text(&metadata.created_by);
    out.number(metadata.updated_at.0);
    out.text(&metadata.updated_by);
    out.number(metadata.tags.len() as u64);
    for tag in &metadata.tags {
        out.text(tag);
    }
    out.number(u64::from(metadata.description.is_some()));
    if let Some(description) = &metadata.description {
        out.text(description);
    }
    out.0
}

pub(super) fn to_metadata(bytes: &[u8]) -> Answer<Metadata> {
    let mut from = In::begin("metadata", bytes)?;
    let metadata = Metadata {
        created_at: UnixMillis(from.number()?),
        created_by: from.text()?.into(),
        updated_at: UnixMillis(from.number()?),
        updated_by: from.text()?.into(),
        tags: from.many(|from| Ok(Arc::from(from.text()?)))?,
        description: from.many(|from| Ok(Arc::from(from.text()?)))?.pop(),
    };
    from.end()?;
    Ok(metadata)
}

/// Kind and value as they stand in a row: 0 nothing, 1 the canonical text, 2 a sealed secret.
pub(super) fn content(content: &Content) -> (u64, Option<std::borrow::Cow<'_, [u8]>>) {
    match content {
        Content::Deleted => (0, None),
        Content::Plain(value) => (1, Some(value.as_str().as_bytes().into())),
        Content::Secret(sealed) => {
            let mut out = Out::begin();
            out.number(sealed.key_epoch);
            out.number(sealed.version);
            out.bytes(&sealed.body);
            out.bytes(&sealed.wrap);
            if !sealed.about.is_default() {
                about(&mut out, &sealed.about);
            }
            (2, Some(out.0.into()))
        }
    }
}

fn about(out: &mut Out, about: &About) {
    out.number(about.told.secret_type.number().into());
    out.number(about.suite.number().into());
    out.number(about.told.expires_at.is_some().into());
    about.told.expires_at.iter().for_each(|at| out.number(at.0));
}

fn to_about(from: &mut In<'_>) -> Answer<About> {
    let secret_type = SecretType::from_number(from.number()?).ok_or_else(|| from.damaged())?;
    let suite = Suite::from_number(from.number()?).ok_or_else(|| from.damaged())?;
    let expires_at = from.many(In::number)?.pop().map(UnixMillis);
    Ok(About { told: Told { secret_type, expires_at }, suite })
}

pub(super) fn to_content(kind: u64, bytes: Option<&[u8]>) -> Answer<Content> {
    match (kind, bytes) {
        (0, None) => Ok(Content::Deleted),
        (1, Some(bytes)) => {
            let text = std::str::from_utf8(bytes).map_err(|_| corrupt("a value that is not text"))?;
            let value = Value::parse(text).map_err(|_| corrupt("a value that is not canonical JSON"))?;
            Ok(Content::Plain(value))
        }
        (2, Some(bytes)) => {
            let mut from = In::begin("a sealed secret", bytes)?;
            let mut sealed = SealedSecret {
                key_epoch: from.number()?,
                version: from.number()?,
                about: About::default(),
                body: from.bytes()?.to_vec().into(),
                wrap: from.bytes()?.to_vec().into(),
            };
            // Where nothing is told of it, nothing follows.
            if !from.rest.is_empty() {
                sealed.about = to_about(&mut from)?;
            }
            from.end()?;
            Ok(Content::Secret(sealed))
        }
        (kind, _) => Err(corrupt(format!("an entry of kind {kind} that does not fit its value"))),
    }
}

pub(super) fn binding(binding: &Binding) -> Vec<u8> {
    let mut out = Out::begin();
    let subtrees = |out: &mut Out, subtrees: &[Subtree]| {
        out.number(subtrees.len() as u64);
        subtrees.iter().for_each(|subtree| out.text(subtree.as_str()));
    };
    subtrees(&mut out, &binding.namespaces);
    out.number(binding.environments.len() as u64);
    binding.environments.iter().for_each(|environment| out.text(environment.as_str()));
    subtrees(&mut out, &binding.write);
    out.0
}

pub(super) fn to_binding(bytes: &[u8]) -> Answer<Binding> {
    let mut from = In::begin("a binding", bytes)?;
    let subtree = |from: &mut In<'_>| Subtree::parse(from.text()?).map_err(|_| from.damaged());
    let binding = Binding {
        namespaces: from.many(subtree)?,
        environments: from.many(|from| Environment::parse(from.text()?).map_err(|_| from.damaged()))?,
        write: from.many(subtree)?,
    };
    from.end()?;
    Ok(binding)
}

pub(super) fn labels(labels: &BTreeMap<String, String>) -> Vec<u8> {
    let mut out = Out::begin();
    out.number(labels.len() as u64);
    for (name, value) in labels {
        out.text(name);
        out.text(value);
    }
    out.0
}

pub(super) fn to_labels(bytes: &[u8]) -> Answer<BTreeMap<String, String>> {
    let mut from = In::begin("labels", bytes)?;
    let labels = from.many(|from| Ok((from.text()?.to_owned(), from.text()?.to_owned())))?;
    from.end()?;
    Ok(labels.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_encoded_decodes_and_what_was_cut_is_damage() {
        let actor = ActorId(Uuid::from_u128(7));
        let stamp = Stamp { hlc: Hlc::MAX, id: WriteId { actor, incarnation: 1 << 62, counter: 300 } };
        let seen = Base { stamp, change: ChangeId(Uuid::from_u128(8)) };
        let bytes = base(&seen);
        assert_eq!(to_base(&bytes), Ok(seen));
        let earlier = bytes.len() - 16;
        assert_eq!(to_base(&bytes[..earlier]), Ok(Base { change: ChangeId::UNKNOWN, ..seen }));
        for cut in (0..bytes.len()).filter(|cut| *cut != earlier) {
            assert!(matches!(to_base(&bytes[..cut]), Err(JournalError::Corrupt(_))), "{cut} bytes");
        }

        let seen = Vector::at(ShardId(Uuid::from_u128(9)), Position { epoch: 5, seq: 128 });
        assert_eq!(to_vector(&vector(&seen)), Ok(seen));
        assert_eq!(to_vector(&vector(&Vector::EMPTY)), Ok(Vector::EMPTY));

        let about = Metadata {
            created_at: UnixMillis(1),
            created_by: "token:a".into(),
            updated_at: UnixMillis(2),
            updated_by: "edge:b/uid:0".into(),
            tags: vec!["x".into(), "\0".into()],
            description: Some("why".into()),
        };
        assert_eq!(to_metadata(&metadata(&about)), Ok(about));
    }

    #[test]
    fn a_secret_keeps_what_is_told_of_it() {
        let told = Told { secret_type: SecretType::OauthToken, expires_at: Some(UnixMillis(1 << 40)) };
        let abouts = [
            About::default(),
            About { told, suite: Suite::Aes256Gcm },
            About { told: Told { expires_at: None, ..told }, suite: Suite::XChaCha20Poly1305 },
        ];
        for about in abouts {
            let sealed = SealedSecret { key_epoch: 1, version: 2, about, body: "b".into(), wrap: "w".into() };
            let secret = Content::Secret(sealed);
            let (kind, bytes) = content(&secret);
            assert_eq!(to_content(kind, bytes.as_deref()), Ok(secret.clone()));
        }
    }

    #[test]
    fn an_unknown_form_and_a_huge_count_are_refused() {
        assert!(to_vector(&[2, 0]).is_err());
        assert!(to_labels(&[1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]).is_err());
        assert!(to_content(1, None).is_err() && to_content(9, Some(b"")).is_err());
    }
}
