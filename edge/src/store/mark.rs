//! How far the replica's log went, beside it: a damaged byte in the log passes for its end, and sled then opens at the state
//! before it, with nothing to show that more was there.
//!
//! Every batch has the next number, in a record of the batch itself. The number is written here when the batch is durable,
//! and is not synced: after a power cut it may be an older one, never a newer. So a log whose newest batch has a lower
//! number has lost its end.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use ring::digest::{SHA256, digest};

const NAME: &str = "mark";
const NUMBER_BYTES: usize = 8;
const MARK_BYTES: usize = 2 * NUMBER_BYTES;

/// The file with the number of the newest durable batch.
pub(super) struct Mark(File);

impl Mark {
    /// Of the replica in `directory`.
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(directory.join(NAME))?;
        Ok(Self(file))
    }

    /// What was written last; 0 where nothing was, or where that is damaged itself: the log is believed then.
    pub(super) fn read(&self) -> io::Result<u64> {
        let mut bytes = [0; MARK_BYTES];
        match self.0.read_exact_at(&mut bytes, 0) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
            Err(error) => return Err(error),
        }
        let (number, _) = bytes.split_first_chunk::<NUMBER_BYTES>().expect("it is longer");
        let number = u64::from_be_bytes(*number);
        Ok(if bytes == encoded(number) { number } else { 0 })
    }

    /// Whether any batch was ever durable, whatever became of its number.
    pub(super) fn is_written(&self) -> io::Result<bool> {
        Ok(self.0.metadata()?.len() > 0)
    }

    /// The batch of this number is durable.
    pub(super) fn write(&self, number: u64) -> io::Result<()> {
        self.0.write_all_at(&encoded(number), 0)
    }
}

fn encoded(number: u64) -> [u8; MARK_BYTES] {
    let mut bytes = [0; MARK_BYTES];
    let (start, check) = bytes.split_at_mut(NUMBER_BYTES);
    start.copy_from_slice(&number.to_be_bytes());
    check.copy_from_slice(&digest(&SHA256, start).as_ref()[..NUMBER_BYTES]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_that_is_damaged_says_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let mark = Mark::open(directory.path()).unwrap();
        assert_eq!((mark.read().unwrap(), mark.is_written().unwrap()), (0, false));
        mark.write(7).unwrap();
        mark.write(8).unwrap();
        assert_eq!(Mark::open(directory.path()).unwrap().read().unwrap(), 8);
        for at in 0..MARK_BYTES {
            let mut bytes = encoded(8);
            bytes[at] ^= 0x10;
            mark.0.write_all_at(&bytes, 0).unwrap();
            assert_eq!((mark.read().unwrap(), mark.is_written().unwrap()), (0, true), "byte {at}");
        }
    }
}
