//! The hub's signed statement that a part of its history is gone, and that it goes on from before.
//!
//! It is the only thing that lets an edge forget how far a hub had come. It holds for one cut, and only for an edge whose
//! place lies beyond it; an edge takes it only if it is newer than everything that it ever heard from a hub, so that
//! nobody can bring an old one back.

use bytes::Bytes;

use super::open::{seal, split};
use super::{Rejected, SIGNATURE_BYTES, VerificationKeys};
use crate::codec::{DecodeError, Reader, Writer};
use crate::store::Loss;
use crate::time::UnixMillis;
use crate::vector::{Epochs, Position, ShardId, Vector};

const DOMAIN: &[u8] = b"llm-config lost history\0";

/// What was lost, who says so and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostHistory {
    pub loss: Loss,
    pub issued_at: UnixMillis,
    pub key_id: u64,
}

/// A statement that only lacks its signature.
#[derive(Clone, Debug)]
pub struct LostHistoryDraft {
    encoded: Vec<u8>,
}

impl Loss {
    /// Whether it is why `told` is not in the history that `epochs` describes and that ends at `head`: every place outside
    /// lies beyond the cut of the leadership that was cut, or in one that nobody knows any more. `own` is the shard of the hub
    /// that says so; another region's loss it knows from that region's leaderships.
    pub fn explains(&self, told: &Vector, epochs: &Epochs, head: &Vector, own: ShardId) -> bool {
        let Some(table) = epochs.get(self.shard) else { return false };
        // Of another region's leaderships the newest may not be known yet.
        let known = |epoch: u64| self.shard != own || table.ordinal(epoch).is_some();
        let explained = |(shard, position): (ShardId, Position)| {
            let lost = match position.epoch {
                epoch if epoch == self.epoch => position.seq > self.cut,
                epoch => !known(epoch),
            };
            let lost = if shard == self.shard { lost } else { epochs.is_cut(shard, position) };
            let holds = |position| epochs.holds(&Vector::at(shard, position), head);
            // Of another region's history this hub may also be late, before the cut.
            let reached = || shard == own || epochs.clamp(shard, position).is_some_and(holds);
            holds(position) || lost && reached()
        };
        let goes_on =
            table.epochs().iter().any(|epoch| epoch.epoch == self.new_epoch && epoch.start_seq == self.cut);
        goes_on && !epochs.holds(told, head) && told.iter().all(explained)
    }
}

impl LostHistory {
    /// Ready to be signed.
    pub fn draft(&self) -> LostHistoryDraft {
        let mut out = Writer::default();
        out.uuid(self.loss.shard.0);
        out.uint(self.loss.epoch);
        out.uint(self.loss.cut);
        out.uint(self.loss.new_epoch);
        out.uint(self.issued_at.0);
        out.raw(&self.key_id.to_be_bytes());
        LostHistoryDraft { encoded: out.finish() }
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let statement = Self {
            loss: Loss {
                shard: ShardId(reader.uuid("shard")?),
                epoch: reader.id63("epoch")?,
                cut: reader.id63("cut")?,
                new_epoch: reader.id63("epoch")?,
            },
            issued_at: UnixMillis(reader.uint("issued at")?),
            key_id: u64::from_be_bytes(reader.array("key id")?),
        };
        reader.finish()?;
        Ok(statement)
    }
}

impl LostHistoryDraft {
    /// What the hub's key signs.
    pub fn message(&self) -> Vec<u8> {
        [DOMAIN, &self.encoded].concat()
    }

    /// The finished statement.
    pub fn signed(self, signature: &[u8; SIGNATURE_BYTES]) -> Bytes {
        seal(&self.encoded, signature, &[])
    }
}

/// Checks size and signature and reads the statement.
///
/// # Errors
/// Says what did not fit.
pub fn verify_lost_history(bytes: &Bytes, keys: &VerificationKeys) -> Result<LostHistory, Rejected> {
    let (encoded, signature, rest) = split(bytes)?;
    if !rest.is_empty() {
        return Err(DecodeError::Trailing(rest.len()).into());
    }
    let statement = LostHistory::decode(&encoded)?;
    keys.check(statement.key_id, &[DOMAIN, encoded.as_ref()].concat(), &signature)?;
    Ok(statement)
}

#[cfg(test)]
mod tests {
    use ring::signature::{Ed25519KeyPair, KeyPair as _};
    use uuid::Uuid;

    use super::*;
    use crate::vector::{Epoch, EpochTable};

    const SHARD: ShardId = ShardId(Uuid::from_u128(1));
    const LOSS: Loss = Loss { shard: SHARD, epoch: 11, cut: 40, new_epoch: 22 };

    fn at(epoch: u64, seq: u64) -> Vector {
        Vector::at(SHARD, Position { epoch, seq })
    }

    fn table() -> Epochs {
        let epoch = |ordinal, epoch, start_seq| Epoch { ordinal, epoch, start_seq };
        let own = vec![epoch(1, 10, 0), epoch(2, 11, 30), epoch(3, 22, 40), epoch(4, 23, 60)];
        Epochs::of(SHARD, EpochTable::new(own))
    }

    #[test]
    fn it_explains_what_lies_beyond_the_cut_and_nothing_else() {
        let explains = |told: Vector| LOSS.explains(&told, &table(), &at(23, 70), SHARD);
        assert!(explains(at(11, 41)), "beyond the cut, though the hub has come further since");
        assert!(explains(at(11, 90)) && explains(at(99, 50)), "or in a leadership that is gone");
        assert!(
            !explains(at(11, 40)) && !explains(at(22, 55)) && !explains(Vector::EMPTY),
            "nothing is wrong"
        );
        assert!(!explains(at(10, 31)) && !explains(at(22, 61)), "beyond another leadership's end");
        assert!(!explains(at(23, 71)), "the hub went back once more, and says nothing of that");
        let elsewhere = Vector::at(ShardId(Uuid::from_u128(2)), Position { epoch: 99, seq: 50 });
        assert!(!explains(elsewhere));
        let other = Loss { new_epoch: 23, ..LOSS };
        assert!(
            !other.explains(&at(11, 41), &table(), &at(23, 70), SHARD),
            "the history does not go on as it says"
        );
    }

    #[test]
    fn only_the_hubs_own_word_is_taken() {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[5; 32]).unwrap();
        let public: [u8; 32] = pair.public_key().as_ref().try_into().unwrap();
        let keys = VerificationKeys::new([(7, public)]);
        let statement = LostHistory { loss: LOSS, issued_at: UnixMillis(1_000), key_id: 7 };
        let draft = statement.draft();
        let signature = pair.sign(&draft.message()).as_ref().try_into().unwrap();
        let bytes = draft.signed(&signature);
        assert_eq!(verify_lost_history(&bytes, &keys), Ok(statement));
        for place in 0..bytes.len() {
            let mut changed = bytes.to_vec();
            changed[place] ^= 1;
            assert!(verify_lost_history(&changed.into(), &keys).is_err(), "byte {place}");
        }
        let longer: Bytes = [bytes.as_ref(), b"x"].concat().into();
        assert!(verify_lost_history(&longer, &keys).is_err());
        assert_eq!(verify_lost_history(&bytes, &VerificationKeys::default()), Err(Rejected::UnknownKey));
    }
}
