//! A stream in sealed pieces: each says which it is and whether it is the last, so that nobody can take one out, put
//! one in, change their order, or cut the end off.
//!
//! A piece is a byte (1 for the last), its length as four bytes, big-endian, and the ciphertext: XChaCha20-Poly1305 with
//! a random nonce, bound to the piece's number and whether it is the last. The key is of this one stream.

use std::io::{self, Read, Write};

use llm_config_shared::seal::{NONCE_BYTES, OVERHEAD_BYTES, SealKey, open, seal};
use zeroize::Zeroizing;

/// Plain bytes of a piece that is not the last.
const PIECE_BYTES: usize = 64 << 10;

fn context(number: u64, last: bool) -> Vec<u8> {
    let mut context = b"llm-config backup piece 1".to_vec();
    context.extend_from_slice(&number.to_be_bytes());
    context.push(u8::from(last));
    context
}

/// Seals what is written. Without [`finish`](Self::finish) the stream has no end and will not be read.
pub(super) struct SealingWriter<W> {
    to: W,
    key: SealKey,
    number: u64,
    piece: Zeroizing<Vec<u8>>,
}

impl<W: Write> SealingWriter<W> {
    pub(super) fn new(to: W, key: SealKey) -> Self {
        Self { to, key, number: 0, piece: Zeroizing::new(Vec::with_capacity(PIECE_BYTES)) }
    }

    /// Writes the last piece.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.put(true)?;
        Ok(self.to)
    }

    fn put(&mut self, last: bool) -> io::Result<()> {
        let nonce: [u8; NONCE_BYTES] = rand::random();
        let sealed = seal(&self.key, nonce, &context(self.number, last), &self.piece);
        self.to.write_all(&[u8::from(last)])?;
        self.to.write_all(&(sealed.len() as u32).to_be_bytes())?;
        self.to.write_all(&sealed)?;
        self.number += 1;
        self.piece.clear();
        Ok(())
    }
}

impl<W: Write> Write for SealingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.piece.len() == PIECE_BYTES {
            self.put(false)?;
        }
        let taken = bytes.len().min(PIECE_BYTES - self.piece.len());
        self.piece.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    /// A piece that is not full stays until more comes, or the end.
    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Opens what [`SealingWriter`] wrote. It ends where that ended, or fails.
pub(super) struct OpeningReader<R> {
    from: R,
    key: SealKey,
    number: u64,
    piece: Zeroizing<Vec<u8>>,
    at: usize,
    ended: bool,
}

fn damaged(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// A stream that ends within a piece was cut.
fn cut(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        damaged("it was cut: its end is missing")
    } else {
        error
    }
}

impl<R: Read> OpeningReader<R> {
    pub(super) fn new(from: R, key: SealKey) -> Self {
        Self { from, key, number: 0, piece: Zeroizing::default(), at: 0, ended: false }
    }

    fn next_piece(&mut self) -> io::Result<()> {
        let mut front = [0; 5];
        self.from.read_exact(&mut front).map_err(cut)?;
        let [last, length @ ..] = front;
        let length = u32::from_be_bytes(length) as usize;
        if last > 1 || length > PIECE_BYTES + OVERHEAD_BYTES {
            return Err(damaged("a part of it was changed"));
        }
        let mut sealed = vec![0; length];
        self.from.read_exact(&mut sealed).map_err(cut)?;
        let last = last == 1;
        let opened = open(&self.key, &context(self.number, last), &sealed);
        self.piece = opened.map_err(|_| damaged("a part of it was changed"))?;
        self.at = 0;
        self.number += 1;
        self.ended = last;
        if last && self.from.read(&mut [0])? > 0 {
            return Err(damaged("something follows after its end"));
        }
        Ok(())
    }
}

impl<R: Read> Read for OpeningReader<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() {
            if self.ended {
                return Ok(0);
            }
            self.next_piece()?;
        }
        let taken = bytes.len().min(self.piece.len() - self.at);
        bytes[..taken].copy_from_slice(&self.piece[self.at..self.at + taken]);
        self.at += taken;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SealKey {
        SealKey::new([3; 32])
    }

    fn sealed(plain: &[u8]) -> Vec<u8> {
        let mut writer = SealingWriter::new(Vec::new(), key());
        writer.write_all(plain).unwrap();
        writer.finish().unwrap()
    }

    fn opened(sealed: &[u8]) -> io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        OpeningReader::new(sealed, key()).read_to_end(&mut plain).map(|_| plain)
    }

    /// Where each piece begins, and where the last ends.
    fn borders(sealed: &[u8]) -> Vec<usize> {
        let mut borders = vec![0];
        while let Some(front) = sealed.get(borders[borders.len() - 1]..).filter(|rest| rest.len() >= 5) {
            let length = u32::from_be_bytes(front[1..5].try_into().unwrap()) as usize;
            borders.push(borders[borders.len() - 1] + 5 + length);
        }
        borders
    }

    #[test]
    fn any_length_comes_back() {
        for length in [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES] {
            let plain: Vec<u8> = (0..length).map(|n| n as u8).collect();
            assert_eq!(opened(&sealed(&plain)).unwrap(), plain, "{length}");
        }
        assert_eq!(borders(&sealed(&[0; 3 * PIECE_BYTES])).len(), 4, "three pieces");
    }

    #[test]
    fn a_stream_that_was_cut_anywhere_is_refused() {
        let whole = sealed(&[7; 2 * PIECE_BYTES + 10]);
        let borders = borders(&whole);
        assert_eq!(borders.last(), Some(&whole.len()));
        for at in borders.iter().flat_map(|at| [*at, at + 3, at + 20]).filter(|at| *at < whole.len()) {
            assert!(opened(&whole[..at]).unwrap_err().to_string().contains("cut"), "at {at}");
        }
    }

    #[test]
    fn pieces_out_of_their_order_are_refused() {
        let whole = sealed(&[7; 2 * PIECE_BYTES + 10]);
        let borders = borders(&whole);
        let piece = |n: usize| &whole[borders[n]..borders[n + 1]];
        for order in [vec![1, 0, 2], vec![0, 2], vec![0, 0, 2], vec![2]] {
            let mixed: Vec<u8> = order.iter().flat_map(|n| piece(*n).to_vec()).collect();
            assert!(opened(&mixed).is_err(), "{order:?}");
        }
        let mut ended = piece(0).to_vec();
        ended[0] = 1;
        assert!(opened(&ended).is_err(), "a piece cannot be made the last");
        assert!(opened(&[whole.as_slice(), b"x"].concat()).is_err(), "nor can anything follow");
    }

    #[test]
    fn a_flipped_bit_anywhere_is_noticed() {
        let whole = sealed(b"some text");
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            assert!(opened(&changed).is_err(), "byte {at}");
        }
        let mut plain = Vec::new();
        let other = OpeningReader::new(whole.as_slice(), SealKey::new([4; 32])).read_to_end(&mut plain);
        assert!(other.is_err() && plain.is_empty());
    }
}
