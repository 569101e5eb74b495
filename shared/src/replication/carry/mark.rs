//! How an answer in a file says which writes it is to.
//!
//! On a stream it is to the upload that is under way. A file may come to an edge whose disk was put back meanwhile, and which has
//! given the same numbers to other writes: for those it would pass.

use ring::digest::{Context, SHA256};

use crate::write::Write;

/// Of the writes themselves, in their order: names, changes and contents.
pub(crate) fn mark<'a>(writes: impl Iterator<Item = &'a Write>) -> u64 {
    let mut context = Context::new(&SHA256);
    for write in writes {
        context.update(write.id.actor.0.as_bytes());
        context.update(&write.id.incarnation.to_be_bytes());
        context.update(&write.id.counter.to_be_bytes());
        context.update(write.at.id().as_bytes());
        context.update(write.change.0.as_bytes());
        context.update(&write.action.content().hash());
    }
    let digest = context.finish();
    let first = digest.as_ref().first_chunk().expect("SHA-256 has 32 bytes");
    u64::from_be_bytes(*first)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::entry::{Author, ChangeId};
    use crate::name::{EntryKey, Environment, Key, Namespace, Scope, Tenant};
    use crate::stamp::{ActorId, Hlc, WriteId};
    use crate::time::UnixMillis;
    use crate::vector::Vector;
    use crate::write::Action;

    fn write(counter: u64, change: u128) -> Write {
        let scope = Scope {
            tenant: Tenant::parse("t").unwrap(),
            environment: Environment::base(),
            namespace: Namespace::parse("app").unwrap(),
        };
        Write {
            id: WriteId { actor: ActorId(Uuid::from_u128(9)), incarnation: 1, counter },
            hlc: Hlc(counter),
            claimed_hlc: None,
            at: EntryKey { scope, key: Key::parse("k").unwrap() },
            action: Action::Delete,
            author: Author { name: "uid:0".into(), claimed: None },
            made_at: UnixMillis(1),
            message: None,
            change: ChangeId(Uuid::from_u128(change)),
            context: Vector::EMPTY,
            without_secrets: false,
            base: None,
        }
    }

    fn of(writes: &[Write]) -> u64 {
        mark(writes.iter())
    }

    #[test]
    fn the_same_number_given_again_is_another_write() {
        assert_eq!(of(&[write(1, 7), write(2, 8)]), of(&[write(1, 7), write(2, 8)]));
        assert_ne!(of(&[write(1, 7)]), of(&[write(1, 8)]), "another change");
        assert_ne!(of(&[write(1, 7), write(2, 8)]), of(&[write(1, 7)]), "one of them is missing");
        let moved = Write { hlc: Hlc(99), ..write(1, 7) };
        assert_eq!(of(&[write(1, 7)]), of(&[moved]), "a time that was put right");
    }
}
