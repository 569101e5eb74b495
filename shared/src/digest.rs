//! A sum over live rows that two replicas compare to know that they hold the same.
//!
//! It finds bugs, not attackers; those meet signatures. Sums are modulo 2^128, so that a changed row is one subtraction
//! and one addition, and a feed's digest is the sum of its scopes'.

use crate::entry::{Content, Row};
use crate::name::EntryKey;

/// The digest of one scope, or of all scopes of a feed added up. Plain rows and secrets are summed apart, because a
/// feed may leave secrets out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScopeDigest {
    pub plain_sum: u128,
    pub plain_live: u64,
    pub secret_sum: u128,
    pub secret_live: u64,
    /// The last seq at which anything changed.
    pub last_seq: u64,
    /// The last seq at which something changed that a feed without secrets hears of.
    pub plain_last_seq: u64,
}

/// What a checkpoint states about a feed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FeedDigest {
    pub sum: u128,
    pub live: u64,
}

impl FeedDigest {
    /// Takes a row in.
    pub fn add(&mut self, row: &Row) {
        if row.content.is_live() {
            self.sum = self.sum.wrapping_add(row_hash(row));
            self.live += 1;
        }
    }

    /// Takes a row out that was taken in before.
    pub fn remove(&mut self, row: &Row) {
        if row.content.is_live() {
            self.sum = self.sum.wrapping_sub(row_hash(row));
            self.live -= 1;
        }
    }
}

impl ScopeDigest {
    /// Takes a row in.
    pub fn add(&mut self, row: &Row) {
        match row.content {
            Content::Plain(_) => {
                self.plain_sum = self.plain_sum.wrapping_add(row_hash(row));
                self.plain_live += 1;
            }
            Content::Secret(_) => {
                self.secret_sum = self.secret_sum.wrapping_add(row_hash(row));
                self.secret_live += 1;
            }
            Content::Deleted => {}
        }
    }

    /// Takes a row out that was taken in before.
    pub fn remove(&mut self, row: &Row) {
        match row.content {
            Content::Plain(_) => {
                self.plain_sum = self.plain_sum.wrapping_sub(row_hash(row));
                self.plain_live -= 1;
            }
            Content::Secret(_) => {
                self.secret_sum = self.secret_sum.wrapping_sub(row_hash(row));
                self.secret_live -= 1;
            }
            Content::Deleted => {}
        }
    }

    /// Adds up two scopes of one feed.
    pub fn merge(&mut self, other: &Self) {
        self.plain_sum = self.plain_sum.wrapping_add(other.plain_sum);
        self.plain_live += other.plain_live;
        self.secret_sum = self.secret_sum.wrapping_add(other.secret_sum);
        self.secret_live += other.secret_live;
        self.last_seq = self.last_seq.max(other.last_seq);
        self.plain_last_seq = self.plain_last_seq.max(other.plain_last_seq);
    }

    /// As an edge sees it that receives secrets, or does not.
    pub fn of_feed(&self, secrets: bool) -> FeedDigest {
        if secrets {
            FeedDigest {
                sum: self.plain_sum.wrapping_add(self.secret_sum),
                live: self.plain_live + self.secret_live,
            }
        } else {
            FeedDigest { sum: self.plain_sum, live: self.plain_live }
        }
    }

    /// The last seq that such a feed has to be sent up to.
    pub fn changed(&self, secrets: bool) -> u64 {
        if secrets { self.last_seq } else { self.plain_last_seq }
    }
}

/// HMAC-SHA256 over key, stamp and content, cut to 128 bits, under the tenant's public salt.
pub(crate) fn row_hash(row: &Row) -> u128 {
    let mut context = keyed(&row.at);
    context.update(&row.stamp.hlc.0.to_be_bytes());
    context.update(row.stamp.id.actor.0.as_bytes());
    context.update(&row.stamp.id.incarnation.to_be_bytes());
    context.update(&row.stamp.id.counter.to_be_bytes());
    context.update(&row.content.hash());
    let tag = context.sign();
    u128::from_be_bytes(tag.as_ref()[..16].try_into().expect("a tag has 32 bytes"))
}

/// The same over the key alone, cut to 64 bits.
pub(crate) fn key_hash(at: &EntryKey) -> u64 {
    let tag = keyed(at).sign();
    u64::from_be_bytes(tag.as_ref()[..8].try_into().expect("a tag has 32 bytes"))
}

fn keyed(at: &EntryKey) -> ring::hmac::Context {
    let scope = &at.scope;
    let salt = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, scope.tenant.as_str().as_bytes());
    let mut context = ring::hmac::Context::with_key(&salt);
    for part in [scope.environment.as_str(), scope.namespace.as_str(), at.key.as_str()] {
        context.update(&(part.len() as u32).to_be_bytes());
        context.update(part.as_bytes());
    }
    context
}
