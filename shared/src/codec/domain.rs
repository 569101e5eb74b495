//! Bytes of domain values, for segments and for the disks that hold them.

use bytes::Bytes;
use uuid::Uuid;

use super::{DecodeError, Reader, Writer};
use crate::entry::{Author, ChangeId, Content, Metadata};
use crate::feed::Feed;
use crate::held::{Span, are_in_order};
use crate::limits::{
    NAME_BYTES_MAX, NAMESPACE_BYTES_MAX, SHARDS_MAX, SPANS_MAX, TAG_BYTES_MAX, TAGS_MAX, TEXT_BYTES_MAX,
    VALUE_BYTES_MAX,
};
use crate::name::{EntryKey, Environment, Key, Namespace, Scope, Subtree, Tenant};
use crate::seal::Suite;
use crate::secret::{About, SealedSecret, SecretType, Told};
use crate::stamp::{ActorId, Hlc, Stamp, WriteId};
use crate::time::UnixMillis;
use crate::value::Value;
use crate::vector::{Dot, Position, ShardId, Vector};

type Decoded<T> = Result<T, DecodeError>;

/// Longest text that tells who made a write.
pub const AUTHOR_BYTES_MAX: usize = 512;

fn invalid<E>(what: &'static str) -> impl FnOnce(E) -> DecodeError {
    move |_| DecodeError::Invalid(what)
}

impl Writer {
    /// Sixteen bytes.
    pub fn uuid(&mut self, id: Uuid) {
        self.raw(id.as_bytes());
    }

    /// Shard and position.
    pub fn dot(&mut self, dot: Dot) {
        self.uuid(dot.shard.0);
        self.uint(dot.position.epoch);
        self.uint(dot.position.seq);
    }

    /// Shards in the order of their ids.
    pub fn vector(&mut self, vector: &Vector) {
        self.uint(vector.iter().count() as u64);
        for (shard, position) in vector.iter() {
            self.dot(Dot { shard, position });
        }
    }

    /// Who gave it, and which of theirs.
    pub fn write_id(&mut self, id: WriteId) {
        self.uuid(id.actor.0);
        self.uint(id.incarnation);
        self.uint(id.counter);
    }

    /// Time and write.
    pub fn stamp(&mut self, stamp: Stamp) {
        self.uint(stamp.hlc.0);
        self.write_id(stamp.id);
    }

    /// The four names.
    pub fn entry_key(&mut self, at: &EntryKey) {
        self.str(at.scope.tenant.as_str());
        self.str(at.scope.environment.as_str());
        self.str(at.scope.namespace.as_str());
        self.str(at.key.as_str());
    }

    /// Runs of keys and as of where they are held.
    pub fn spans(&mut self, spans: &[Span]) {
        self.uint(spans.len() as u64);
        for span in spans {
            self.option(span.through.as_ref(), Self::entry_key);
            self.vector(&span.to);
        }
    }

    /// Names and whether secrets are in it.
    pub fn feed(&mut self, feed: &Feed) {
        self.str(feed.tenant.as_str());
        self.str(feed.environment.as_str());
        self.str(feed.subtree.as_str());
        self.u8(u8::from(feed.secrets));
    }

    /// Ciphertext, wrap and what they are bound to.
    pub fn sealed(&mut self, sealed: &SealedSecret) {
        self.uint(sealed.key_epoch);
        self.uint(sealed.version);
        self.bytes(&sealed.wrap);
        self.bytes(&sealed.body);
    }

    /// What is told of a secret. It stands before the secret, and only where the kind of what follows says so: where
    /// there is nothing to tell, bytes are as they were before there was.
    pub fn about(&mut self, about: &About) {
        self.u8(about.told.secret_type.number());
        self.u8(about.suite.number());
        self.option(about.told.expires_at, |writer, at| writer.uint(at.0));
    }

    /// Kind and value.
    pub fn content(&mut self, content: &Content) {
        match content {
            Content::Deleted => self.u8(0),
            Content::Plain(value) => {
                self.u8(1);
                self.str(value.as_str());
            }
            Content::Secret(sealed) if sealed.about.is_default() => {
                self.u8(2);
                self.sealed(sealed);
            }
            Content::Secret(sealed) => {
                self.u8(3);
                self.about(&sealed.about);
                self.sealed(sealed);
            }
        }
    }

    /// Times, authors, tags, description.
    pub fn metadata(&mut self, metadata: &Metadata) {
        self.uint(metadata.created_at.0);
        self.str(&metadata.created_by);
        self.uint(metadata.updated_at.0);
        self.str(&metadata.updated_by);
        self.uint(metadata.tags.len() as u64);
        for tag in &metadata.tags {
            self.str(tag);
        }
        self.option(metadata.description.as_deref(), Self::str);
    }

    /// Authenticated and claimed.
    pub fn author(&mut self, author: &Author) {
        self.str(&author.name);
        self.option(author.claimed.as_deref(), Self::str);
    }
}

impl Reader<'_> {
    /// Sixteen bytes.
    pub fn uuid(&mut self, what: &'static str) -> Decoded<Uuid> {
        self.array(what).map(Uuid::from_bytes)
    }

    /// An id below 2^63, as databases hold it.
    pub fn id63(&mut self, what: &'static str) -> Decoded<u64> {
        let id = self.uint(what)?;
        if id > i64::MAX as u64 { Err(DecodeError::Invalid(what)) } else { Ok(id) }
    }

    /// Shard and position.
    pub fn dot(&mut self) -> Decoded<Dot> {
        let shard = ShardId(self.uuid("shard")?);
        Ok(Dot { shard, position: Position { epoch: self.id63("epoch")?, seq: self.id63("seq")? } })
    }

    /// At most [`SHARDS_MAX`] shards.
    pub fn vector(&mut self) -> Decoded<Vector> {
        let count = self.count(SHARDS_MAX, "vector")?;
        let mut positions = Vec::with_capacity(count);
        for _ in 0..count {
            let dot = self.dot()?;
            positions.push((dot.shard, dot.position));
        }
        Vector::from_positions(positions).map_err(invalid("vector"))
    }

    /// Who gave it, and which of theirs.
    pub fn write_id(&mut self) -> Decoded<WriteId> {
        let actor = ActorId(self.uuid("actor")?);
        Ok(WriteId { actor, incarnation: self.id63("incarnation")?, counter: self.id63("counter")? })
    }

    /// Time and write.
    pub fn stamp(&mut self) -> Decoded<Stamp> {
        Ok(Stamp { hlc: Hlc(self.id63("time")?), id: self.write_id()? })
    }

    /// The four names, parsed.
    pub fn entry_key(&mut self) -> Decoded<EntryKey> {
        let tenant = Tenant::parse(self.str(NAME_BYTES_MAX, "tenant")?).map_err(invalid("tenant"))?;
        let environment = self.environment()?;
        let namespace = self.str(NAMESPACE_BYTES_MAX, "namespace")?;
        let namespace = Namespace::parse(namespace).map_err(invalid("namespace"))?;
        let key = Key::parse(self.str(crate::limits::KEY_BYTES_MAX, "key")?).map_err(invalid("key"))?;
        Ok(EntryKey { scope: Scope { tenant, environment, namespace }, key })
    }

    /// Runs of keys, in their order.
    pub fn spans(&mut self) -> Decoded<Vec<Span>> {
        let count = self.count(SPANS_MAX, "spans")?;
        let span = |reader: &mut Self| {
            let through = reader.option("key", Self::entry_key)?;
            Ok(Span { through, to: reader.vector()? })
        };
        let spans = (0..count).map(|_| span(self)).collect::<Decoded<Vec<_>>>()?;
        if are_in_order(&spans) { Ok(spans) } else { Err(DecodeError::Invalid("spans")) }
    }

    /// One name.
    pub fn environment(&mut self) -> Decoded<Environment> {
        Environment::parse(self.str(NAME_BYTES_MAX, "environment")?).map_err(invalid("environment"))
    }

    /// A path, empty for everything.
    pub fn subtree(&mut self) -> Decoded<Subtree> {
        Subtree::parse(self.str(NAMESPACE_BYTES_MAX, "namespace")?).map_err(invalid("namespace"))
    }

    /// Names and whether secrets are in it.
    pub fn feed(&mut self) -> Decoded<Feed> {
        Ok(Feed {
            tenant: Tenant::parse(self.str(NAME_BYTES_MAX, "tenant")?).map_err(invalid("tenant"))?,
            environment: self.environment()?,
            subtree: self.subtree()?,
            secrets: self.bool("secrets")?,
        })
    }

    /// 0 or 1.
    pub fn bool(&mut self, what: &'static str) -> Decoded<bool> {
        match self.u8(what)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::Invalid(what)),
        }
    }

    /// What is told of a secret.
    pub fn about(&mut self) -> Decoded<About> {
        let secret_type = SecretType::from_number(self.u8("type of a secret")?.into());
        let suite = Suite::from_number(self.u8("cipher of a secret")?.into());
        let expires_at = self.option("expiry", |reader| reader.id63("expiry").map(UnixMillis))?;
        Ok(About {
            told: Told {
                secret_type: secret_type.ok_or(DecodeError::Invalid("type of a secret"))?,
                expires_at,
            },
            suite: suite.ok_or(DecodeError::Invalid("cipher of a secret"))?,
        })
    }

    /// Ciphertext, wrap and what they are bound to, where nothing is told of it.
    pub fn sealed(&mut self) -> Decoded<SealedSecret> {
        self.sealed_of(About::default())
    }

    /// The same with what was told before it.
    pub fn sealed_of(&mut self, about: About) -> Decoded<SealedSecret> {
        Ok(SealedSecret {
            key_epoch: self.id63("key epoch")?,
            version: self.id63("version")?,
            about,
            wrap: Bytes::copy_from_slice(self.bytes(256, "wrapped key")?),
            body: Bytes::copy_from_slice(self.bytes(VALUE_BYTES_MAX + 256, "secret")?),
        })
    }

    /// Kind and value. The value is read anew: what is not canonical is refused.
    pub fn content(&mut self) -> Decoded<Content> {
        match self.u8("kind")? {
            0 => Ok(Content::Deleted),
            1 => {
                let text = self.str(VALUE_BYTES_MAX, "value")?;
                let value = Value::parse(text).map_err(invalid("value"))?;
                if value.as_str() != text {
                    return Err(DecodeError::Invalid("value"));
                }
                Ok(Content::Plain(value))
            }
            2 => Ok(Content::Secret(self.sealed()?)),
            3 => {
                let about = self.about()?;
                Ok(Content::Secret(self.sealed_of(about)?))
            }
            _ => Err(DecodeError::Invalid("kind")),
        }
    }

    /// Times, authors, tags, description.
    pub fn metadata(&mut self) -> Decoded<Metadata> {
        let created_at = UnixMillis(self.uint("created_at")?);
        let created_by = self.arc_str(AUTHOR_BYTES_MAX, "created_by")?;
        let updated_at = UnixMillis(self.uint("updated_at")?);
        let updated_by = self.arc_str(AUTHOR_BYTES_MAX, "updated_by")?;
        let count = self.count(TAGS_MAX, "tags")?;
        let tags = (0..count).map(|_| self.arc_str(TAG_BYTES_MAX, "tag")).collect::<Decoded<_>>()?;
        let description = self.option("description", |r| r.arc_str(TEXT_BYTES_MAX, "description"))?;
        Ok(Metadata { created_at, created_by, updated_at, updated_by, tags, description })
    }

    /// Authenticated and claimed.
    pub fn author(&mut self) -> Decoded<Author> {
        Ok(Author {
            name: self.arc_str(AUTHOR_BYTES_MAX, "author")?,
            claimed: self.option("claimed author", |r| r.arc_str(AUTHOR_BYTES_MAX, "claimed author"))?,
        })
    }

    /// Sixteen bytes.
    pub fn change(&mut self) -> Decoded<ChangeId> {
        self.uuid("change").map(ChangeId)
    }
}
