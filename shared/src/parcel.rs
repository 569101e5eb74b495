//! A file that is carried by hand between a hub and one edge: a cover that says for whom and until when, and pieces sealed one
//! by one, so that neither side holds the whole.
//!
//! The cover bears the file's key, sealed to its receiver; the sender signs it. Under that key every piece has its number as
//! nonce, and the last one says so (as in STREAM, Hoang et al. 2015): none can be changed, left out, moved, or cut off at the
//! end. A key seals one file, so that numbers are nonces enough.

use std::io::{self, Read};

use ring::digest::{SHA256, digest};
use zeroize::Zeroizing;

use crate::codec::{DecodeError, Reader, Writer};
use crate::limits::FRAME_BYTES_MAX;
use crate::name::Tenant;
use crate::seal::{NONCE_BYTES, OVERHEAD_BYTES, SealKey, open, seal};
use crate::secret::SealedFileKey;
use crate::signed::StatementDraft;
use crate::stamp::ActorId;
use crate::time::UnixMillis;

/// What a file begins with.
const MAGIC: &[u8; 8] = b"llmcfg1\n";
/// What a hub signs its covers under.
pub const HUB_DOMAIN: &[u8] = b"llm-config carried to an edge\0";
const COVER_BYTES_MAX: usize = 4 << 10;
/// A frame with what tells its kind.
const PIECE_BYTES_MAX: usize = FRAME_BYTES_MAX + 16;

/// For whom a file is, and until when it counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    pub tenant: Tenant,
    pub edge: ActorId,
    pub issued_at: UnixMillis,
    pub not_after: UnixMillis,
}

impl Label {
    /// What the file's key is bound to.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = Writer::default();
        self.encode(&mut out);
        out.finish()
    }

    fn encode(&self, out: &mut Writer) {
        out.str(self.tenant.as_str());
        out.uuid(self.edge.0);
        out.uint(self.issued_at.0);
        out.uint(self.not_after.0);
    }
}

/// A label with the file's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cover {
    pub label: Label,
    pub key: SealedFileKey,
}

impl Cover {
    /// Ready to be signed by a hub.
    pub fn draft(&self, key_id: u64) -> StatementDraft {
        StatementDraft::new(HUB_DOMAIN, key_id, &self.body())
    }

    fn body(&self) -> Vec<u8> {
        let mut out = Writer::default();
        self.label.encode(&mut out);
        out.bytes(&self.key.encapsulated);
        out.bytes(&self.key.ciphertext);
        out.finish()
    }

    /// What an edge signs, with its signature behind it.
    pub fn signed_by_edge<E>(&self, sign: impl FnOnce(&[u8]) -> Result<Vec<u8>, E>) -> Result<Vec<u8>, E> {
        let body = self.body();
        let signature = sign(&body)?;
        let mut out = Writer::default();
        out.bytes(&body);
        out.bytes(&signature);
        Ok(out.finish())
    }

    /// The inverse: the cover, what was signed, and the signature, which was not looked at.
    ///
    /// # Errors
    /// Says what did not fit.
    pub fn of_edge(signed: &[u8]) -> Result<(Self, Vec<u8>, Vec<u8>), DecodeError> {
        let mut reader = Reader::new(signed);
        let body = reader.bytes(COVER_BYTES_MAX, "cover")?.to_vec();
        let signature = reader.bytes(COVER_BYTES_MAX, "signature")?.to_vec();
        reader.finish()?;
        Ok((Self::decode(&body)?, body, signature))
    }

    /// The inverse, of what a signature was found to be good for.
    ///
    /// # Errors
    /// Says what did not fit.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let tenant = Tenant::parse(reader.str(COVER_BYTES_MAX, "tenant")?);
        let label = Label {
            tenant: tenant.map_err(|_| DecodeError::Invalid("tenant"))?,
            edge: ActorId(reader.uuid("edge")?),
            issued_at: UnixMillis(reader.uint("issued at")?),
            not_after: UnixMillis(reader.uint("not after")?),
        };
        let encapsulated = reader.bytes(COVER_BYTES_MAX, "encapsulated key")?.to_vec().into();
        let ciphertext = reader.bytes(COVER_BYTES_MAX, "sealed key")?.to_vec().into();
        reader.finish()?;
        Ok(Self { label, key: SealedFileKey { encapsulated, ciphertext } })
    }
}

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ParcelError {
    #[error("this is no file that was made to be carried between a hub and an edge")]
    NotAParcel,
    #[error("the file is cut off; copy it anew")]
    Truncated,
    #[error("the file is damaged; copy it anew, or have a new one made")]
    Damaged,
    #[error("the file cannot be read: {0}")]
    Io(io::Error),
}

impl From<io::Error> for ParcelError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::UnexpectedEof { Self::Truncated } else { Self::Io(error) }
    }
}

fn nonce(number: u64, last: bool) -> [u8; NONCE_BYTES] {
    let mut nonce = [0; NONCE_BYTES];
    nonce[..8].copy_from_slice(&number.to_be_bytes());
    nonce[NONCE_BYTES - 1] = u8::from(last);
    nonce
}

/// What every piece is bound to: this cover.
fn context(cover: &[u8]) -> Vec<u8> {
    digest(&SHA256, cover).as_ref().to_vec()
}

/// Makes a file, piece by piece.
pub struct Packer {
    key: SealKey,
    context: Vec<u8>,
    next: u64,
}

impl Packer {
    /// Begins one under a signed cover. What the file starts with comes with it.
    pub fn new(key: SealKey, cover: &[u8]) -> (Self, Vec<u8>) {
        let length = (cover.len() as u32).to_be_bytes();
        (Self { key, context: context(cover), next: 0 }, [&MAGIC[..], &length, cover].concat())
    }

    /// One piece, as it stands in the file.
    pub fn pack(&mut self, piece: &[u8]) -> Vec<u8> {
        let sealed = seal(&self.key, nonce(self.next, false), &self.context, piece);
        self.next += 1;
        with_length(&sealed)
    }

    /// The end of the file.
    pub fn end(self) -> Vec<u8> {
        with_length(&seal(&self.key, nonce(self.next, true), &self.context, b""))
    }
}

fn with_length(sealed: &[u8]) -> Vec<u8> {
    [&(sealed.len() as u32).to_be_bytes()[..], sealed].concat()
}

/// Reads the cover of a file, signature and all; the pieces follow in `file`.
///
/// # Errors
/// When it is none, or ends too early.
pub fn read_cover(file: &mut impl Read) -> Result<Vec<u8>, ParcelError> {
    let mut magic = [0; MAGIC.len()];
    file.read_exact(&mut magic).map_err(|error| match error.kind() == io::ErrorKind::UnexpectedEof {
        true => ParcelError::NotAParcel,
        false => ParcelError::Io(error),
    })?;
    if magic != *MAGIC {
        return Err(ParcelError::NotAParcel);
    }
    read_part(file, COVER_BYTES_MAX)
}

fn read_part(file: &mut impl Read, max: usize) -> Result<Vec<u8>, ParcelError> {
    let mut length = [0; 4];
    file.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > max {
        return Err(ParcelError::Damaged);
    }
    let mut part = vec![0; length];
    file.read_exact(&mut part)?;
    Ok(part)
}

/// Opens the pieces behind a cover, in their order.
pub struct Unpacker<F> {
    file: F,
    key: SealKey,
    context: Vec<u8>,
    next: u64,
}

impl<F: Read> Unpacker<F> {
    /// Of a file whose cover was read.
    pub fn new(file: F, key: SealKey, cover: &[u8]) -> Self {
        Self { file, key, context: context(cover), next: 0 }
    }

    /// The next piece; none once the file has ended where its maker ended it.
    ///
    /// # Errors
    /// When anything in it is not as it was made. Nothing more may be asked for then.
    pub fn next_piece(&mut self) -> Result<Option<Zeroizing<Vec<u8>>>, ParcelError> {
        let sealed = read_part(&mut self.file, PIECE_BYTES_MAX + OVERHEAD_BYTES)?;
        let last = sealed.starts_with(&nonce(self.next, true));
        if !last && !sealed.starts_with(&nonce(self.next, false)) {
            return Err(ParcelError::Damaged);
        }
        let piece = open(&self.key, &self.context, &sealed).map_err(|_| ParcelError::Damaged)?;
        self.next += 1;
        if !last {
            return Ok(Some(piece));
        }
        let more = self.file.read(&mut [0])? > 0;
        if more || !piece.is_empty() { Err(ParcelError::Damaged) } else { Ok(None) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(pieces: &[&[u8]]) -> Vec<u8> {
        let (mut packer, mut file) = Packer::new(SealKey::new([3; 32]), b"cover");
        for piece in pieces {
            file.extend(packer.pack(piece));
        }
        file.extend(packer.end());
        file
    }

    fn read(file: &[u8]) -> Result<Vec<Vec<u8>>, ParcelError> {
        let mut rest = file;
        let cover = read_cover(&mut rest)?;
        let mut unpacker = Unpacker::new(rest, SealKey::new([3; 32]), &cover);
        let mut pieces = Vec::new();
        while let Some(piece) = unpacker.next_piece()? {
            pieces.push(piece.to_vec());
        }
        Ok(pieces)
    }

    #[test]
    fn a_file_is_read_whole_or_not_at_all() {
        let whole = file(&[b"one", b"", b"three"]);
        assert_eq!(read(&whole).unwrap(), [&b"one"[..], b"", b"three"]);
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            assert!(read(&changed).is_err(), "byte {at}");
            assert!(read(&whole[..at]).is_err(), "cut off at {at}");
        }
        assert!(read(&[&whole[..], b"x"].concat()).is_err(), "something follows the end");
    }

    #[test]
    fn pieces_stay_in_their_order_and_in_their_file() {
        let (mut packer, head) = Packer::new(SealKey::new([3; 32]), b"cover");
        let (one, two) = (packer.pack(b"one"), packer.pack(b"two"));
        let end = packer.end();
        let joined = |parts: &[&[u8]]| [&[&head[..]], parts].concat().concat();
        assert!(read(&joined(&[&one, &two, &end])).is_ok());
        assert!(read(&joined(&[&two, &one, &end])).is_err());
        assert!(read(&joined(&[&one, &end])).is_err());
        assert!(read(&joined(&[&one, &one, &two, &end])).is_err());
        let (mut other, _) = Packer::new(SealKey::new([3; 32]), b"another cover");
        let foreign = other.pack(b"one");
        assert!(read(&joined(&[&foreign, &two, &end])).is_err());
    }

    #[test]
    fn a_cover_says_again_what_was_signed() {
        let label = Label {
            tenant: Tenant::parse("t").unwrap(),
            edge: ActorId(uuid::Uuid::from_u128(4)),
            issued_at: UnixMillis(5),
            not_after: UnixMillis(6),
        };
        let key = SealedFileKey { encapsulated: vec![1; 32].into(), ciphertext: vec![2; 48].into() };
        let cover = Cover { label, key };
        let signed = cover.draft(9).signed(&[0; 64]);
        let keys = crate::segment::VerificationKeys::tags([(9, [1; 32])]);
        let good = cover.draft(9).signed(&crate::segment::tag(&[1; 32], &cover.draft(9).message()));
        let body = crate::signed::verify_statement(HUB_DOMAIN, &good, &keys).unwrap();
        assert_eq!(Cover::decode(&body).unwrap(), cover);
        assert!(crate::signed::verify_statement(HUB_DOMAIN, &signed, &keys).is_err());
    }
}
