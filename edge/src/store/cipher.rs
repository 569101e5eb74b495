//! How records are hidden: a keyed hash for the place, XChaCha20-Poly1305 for everything else.
//!
//! What a thief of the disk learns is how many records of each kind there are and about how long they are: no name, no
//! order, no tree of namespaces. The sealed bytes are bound to the format, the identity of the edge and their place, so
//! that nothing can be moved to another entry, another edge or another version of this format.

use ring::hkdf::{HKDF_SHA256, KeyType, Prk};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};

use llm_config_shared::feed::Feed;
use llm_config_shared::name::{EntryKey, Tenant};
use llm_config_shared::seal::{CannotOpen, NONCE_BYTES, SealKey, open, seal};
use llm_config_shared::store::replica::Slot;
use uuid::Uuid;
use zeroize::Zeroizing;

/// Bytes of a hidden place: the kind of record and a keyed hash.
pub(crate) const PLACE_BYTES: usize = 1 + HASH_BYTES;

const HASH_BYTES: usize = 16;
const FORMAT: &[u8] = b"llm-config replica 1";

/// Where a record lies in the store.
pub(crate) type Place = [u8; PLACE_BYTES];

/// The first byte of every place.
pub(crate) mod space {
    /// Rows that readers see.
    pub(crate) const ROW: u8 = b'r';
    /// Rows of a transfer under way.
    pub(crate) const STAGED: u8 = b's';
    /// How much of it has come, of each feed.
    pub(crate) const STAGE: u8 = b't';
    /// The bookkeeping of feeds.
    pub(crate) const FEED: u8 = b'f';
    /// Writes that wait for the hub.
    pub(crate) const PENDING: u8 = b'p';
    /// Writes that the hub has admitted.
    pub(crate) const KEPT: u8 = b'k';
    /// Keys of subtrees.
    pub(crate) const GRANT: u8 = b'g';
    /// Everything of which there is one.
    pub(crate) const STATE: u8 = b'm';
    /// What says whose replica this is.
    pub(crate) const OWNER: u8 = b'o';
}

/// Whose replica it is: sealed bytes open only under the same identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    pub tenant: Tenant,
    pub edge: Uuid,
}

/// The keys of one replica, derived from the replica key, and the identity that everything is bound to.
pub(crate) struct RecordCipher {
    index: hmac::Key,
    data: SealKey,
    bound_to: Vec<u8>,
    random: SystemRandom,
}

/// The operating system gave no random bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gave no random bytes")]
pub(crate) struct NoRandomness;

struct Length32;

impl KeyType for Length32 {
    fn len(&self) -> usize {
        32
    }
}

impl RecordCipher {
    /// Separate keys for places and contents, both from `replica_key`.
    pub(crate) fn new(replica_key: &SealKey, owner: &Owner) -> Self {
        let derive = |label: &[u8]| {
            let mut derived = Zeroizing::new([0; 32]);
            Prk::new_less_safe(HKDF_SHA256, replica_key.expose())
                .expand(&[label], Length32)
                .and_then(|okm| okm.fill(derived.as_mut()))
                .expect("32 bytes are within HKDF's limit");
            derived
        };
        let mut bound_to = FORMAT.to_vec();
        push_part(&mut bound_to, owner.tenant.as_str().as_bytes());
        push_part(&mut bound_to, owner.edge.as_bytes());
        Self {
            index: hmac::Key::new(hmac::HMAC_SHA256, derive(b"llm-config replica index").as_ref()),
            data: SealKey::new(*derive(b"llm-config replica data")),
            bound_to,
            random: SystemRandom::new(),
        }
    }

    /// Where the slot's record lies.
    pub(crate) fn place(&self, slot: &Slot) -> Place {
        match slot {
            Slot::Row(at) => self.entry_place(space::ROW, at),
            Slot::Staged(at) => self.entry_place(space::STAGED, at),
            Slot::Stage(feed) => self.feed_place(space::STAGE, feed),
            Slot::Feed(feed) => self.feed_place(space::FEED, feed),
            Slot::Pending(counter) => self.chain(space::PENDING, [counter.to_be_bytes().as_slice()]),
            Slot::Kept(id) => self.chain(
                space::KEPT,
                [id.actor.0.as_bytes().as_slice(), &id.incarnation.to_be_bytes(), &id.counter.to_be_bytes()],
            ),
            Slot::Grant(environment, subtree, epoch) => self.chain(
                space::GRANT,
                [environment.as_str().as_bytes(), subtree.as_str().as_bytes(), &epoch.to_be_bytes()],
            ),
            Slot::State => self.chain(space::STATE, []),
        }
    }

    /// Where the statement of ownership lies.
    pub(crate) fn owner_place(&self) -> Place {
        self.chain(space::OWNER, [])
    }

    fn entry_place(&self, space: u8, at: &EntryKey) -> Place {
        let scope = &at.scope;
        let names = [scope.tenant.as_str(), scope.environment.as_str()].into_iter();
        // The key is told from a last segment by where it stands: a chain ends with it, behind an empty link.
        let links = names.chain(scope.namespace.segments()).chain(["", at.key.as_str()]);
        self.chain(space, links.map(str::as_bytes))
    }

    fn feed_place(&self, space: u8, feed: &Feed) -> Place {
        let names = [feed.tenant.as_str(), feed.environment.as_str(), feed.subtree.as_str()];
        let secrets = [u8::from(feed.secrets)];
        self.chain(space, names.iter().map(|name| name.as_bytes()).chain([secrets.as_slice()]))
    }

    /// h(i) = HMAC(h(i-1) ‖ link(i)). Only the last is stored: the shape of the tree stays hidden as well.
    fn chain<'a>(&self, space: u8, links: impl IntoIterator<Item = &'a [u8]>) -> Place {
        let mut last = hmac::sign(&self.index, &[space]);
        for link in links {
            let mut context = hmac::Context::with_key(&self.index);
            context.update(last.as_ref());
            context.update(link);
            last = context.sign();
        }
        let mut place = [0; PLACE_BYTES];
        place[0] = space;
        place[1..].copy_from_slice(&last.as_ref()[..HASH_BYTES]);
        place
    }

    /// Seals `plain` for `key` in the store. `follows` is the sealed first part of the same record, or empty.
    pub(crate) fn seal(&self, key: &[u8], follows: &[u8], plain: &[u8]) -> Result<Vec<u8>, NoRandomness> {
        let mut nonce = [0; NONCE_BYTES];
        self.random.fill(&mut nonce).map_err(|_| NoRandomness)?;
        Ok(seal(&self.data, nonce, &self.context(key, follows), plain))
    }

    /// The inverse of [`Self::seal`].
    pub(crate) fn open(
        &self,
        key: &[u8],
        follows: &[u8],
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, CannotOpen> {
        open(&self.data, &self.context(key, follows), sealed)
    }

    /// The nonce of a record's first part is in the context of the others, so that parts of two versions don't mix.
    fn context(&self, key: &[u8], follows: &[u8]) -> Vec<u8> {
        let mut context = Vec::with_capacity(self.bound_to.len() + key.len() + NONCE_BYTES + 8);
        context.extend_from_slice(&self.bound_to);
        push_part(&mut context, key);
        push_part(&mut context, &follows[..NONCE_BYTES.min(follows.len())]);
        context
    }
}

fn push_part(context: &mut Vec<u8>, part: &[u8]) {
    context.extend_from_slice(&(part.len() as u32).to_be_bytes());
    context.extend_from_slice(part);
}

#[cfg(test)]
mod tests {
    use llm_config_shared::name::{Environment, Key, Namespace, Scope};

    use super::*;

    fn owner(edge: u128) -> Owner {
        Owner { tenant: Tenant::parse("t").unwrap(), edge: Uuid::from_u128(edge) }
    }

    fn cipher(key: u8, edge: u128) -> RecordCipher {
        RecordCipher::new(&SealKey::new([key; 32]), &owner(edge))
    }

    fn row(namespace: &str, key: &str) -> Slot {
        let scope = Scope {
            tenant: Tenant::parse("t").unwrap(),
            environment: Environment::base(),
            namespace: Namespace::parse(namespace).unwrap(),
        };
        Slot::Row(EntryKey { scope, key: Key::parse(key).unwrap() })
    }

    #[test]
    fn a_boundary_moved_between_namespace_and_key_is_another_place() {
        let cipher = cipher(1, 1);
        assert_ne!(cipher.place(&row("prod/app", "db/host")), cipher.place(&row("prod/app/db", "host")));
        assert_ne!(cipher.place(&row("a/b", "c")), cipher.place(&row("a", "b")));
        assert_eq!(cipher.place(&row("a", "b")), cipher.place(&row("a", "b")));
    }

    #[test]
    fn places_depend_on_the_key_and_show_no_order() {
        let (one, other) = (cipher(1, 1), cipher(2, 1));
        assert_ne!(one.place(&row("a", "b")), other.place(&row("a", "b")));
        let places: Vec<_> = (0..64).map(|counter| one.place(&Slot::Pending(counter))).collect();
        assert!(!places.is_sorted());
    }

    #[test]
    fn sealed_bytes_open_only_in_their_place_for_their_owner_behind_their_first_part() {
        let cipher1 = cipher(1, 1);
        let sealed = cipher1.seal(b"place", b"", b"value").unwrap();
        assert_eq!(cipher1.open(b"place", b"", &sealed).unwrap().as_slice(), b"value");
        assert_eq!(cipher1.open(b"other", b"", &sealed), Err(CannotOpen));
        assert_eq!(cipher1.open(b"place", &[7; 30], &sealed), Err(CannotOpen));
        assert_eq!(cipher(1, 2).open(b"place", b"", &sealed), Err(CannotOpen));
        assert_eq!(cipher(2, 1).open(b"place", b"", &sealed), Err(CannotOpen));
        let mut changed = sealed;
        changed[NONCE_BYTES] ^= 1;
        assert_eq!(cipher1.open(b"place", b"", &changed), Err(CannotOpen));
    }
}
