//! A backup's file: a line that says what it is, its key sealed to the recovery key, and the records, compressed and
//! then sealed.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;
use llm_config_shared::seal::SealKey;
use ring::rand::{SecureRandom as _, SystemRandom};

use super::record::{self, Origin, Record, RecordError};
use super::recovery_key::{RecoveryKey, RecoveryPublicKey, WRAPPED_BYTES};
use super::sealed::{OpeningReader, SealingWriter};
use super::{BackupError, Counts};
use crate::journal::whole::Dumped;

const FRONT: &[u8] = b"llm-config backup 1\n";
const COMPRESSION: u32 = 6;

/// What a record goes through: compressed, then sealed, then written.
type Layers = GzEncoder<SealingWriter<BufWriter<File>>>;

/// A backup on its way to the disk. It has its name only once it is whole; dropped before, nothing is left of it.
pub(super) struct BackupWriter {
    path: PathBuf,
    draft: Draft,
    out: Layers,
    counts: Counts,
}

/// A file that goes unless it was given its name.
struct Draft {
    path: PathBuf,
    kept: bool,
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.kept {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl BackupWriter {
    pub(super) fn create(path: &Path, key: &RecoveryPublicKey) -> Result<Self, BackupError> {
        let mut random = [0; 32];
        SystemRandom::new().fill(&mut random).map_err(|_| BackupError::NoRandomness)?;
        let file_key = SealKey::new(random);
        let wrapped = key.wrap(FRONT, &file_key)?;
        let mut name = OsString::from(path.file_name().ok_or_else(|| BackupError::NoFile(path.to_owned()))?);
        name.push(format!(".{}.new", std::process::id()));
        let draft = path.with_file_name(name);
        let failed = |error| BackupError::Io { path: path.to_owned(), error };
        let file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft).map_err(failed)?;
        let draft = Draft { path: draft, kept: false };
        let mut file = BufWriter::new(file);
        file.write_all(FRONT).and_then(|()| file.write_all(&wrapped)).map_err(failed)?;
        let out = GzEncoder::new(SealingWriter::new(file, file_key), Compression::new(COMPRESSION));
        Ok(Self { path: path.to_owned(), draft, out, counts: Counts::default() })
    }

    pub(super) fn begin(&mut self, origin: Origin) -> Result<(), BackupError> {
        record::write(&mut self.out, &Record::Origin(origin)).map_err(|error| self.failed(error))
    }

    pub(super) fn put(&mut self, dumped: Dumped) -> Result<(), BackupError> {
        self.counts.count(&dumped);
        record::write(&mut self.out, &Record::Dumped(dumped)).map_err(|error| self.failed(error))
    }

    /// Durable under its name when it returns.
    pub(super) fn finish(mut self) -> Result<Counts, BackupError> {
        let Counts { tables, rows } = self.counts;
        let end = record::write(&mut self.out, &Record::End { tables, rows });
        end.map_err(|error| self.failed(error))?;
        let Self { path, draft, out, counts } = self;
        name(draft, &path, out).map_err(|error| BackupError::Io { path, error })?;
        Ok(counts)
    }

    fn failed(&self, error: RecordError) -> BackupError {
        match error {
            RecordError::Io(error) => BackupError::Io { path: self.path.clone(), error },
            error @ (RecordError::Decode(_) | RecordError::TooLong(_)) => {
                BackupError::Damaged { path: self.path.clone(), what: error.to_string() }
            }
        }
    }
}

/// Ends the file and gives it its name.
fn name(mut draft: Draft, path: &Path, out: Layers) -> io::Result<()> {
    let file = out.finish()?.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    fs::rename(&draft.path, path)?;
    draft.kept = true;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or_else(|| Path::new(".")))?.sync_all()
}

/// A backup that is being read. What it gives is the hub's own word; that it is whole is known at its end.
pub(super) struct BackupReader {
    path: PathBuf,
    from: GzDecoder<BufReader<OpeningReader<BufReader<File>>>>,
    counts: Counts,
}

impl BackupReader {
    /// Opens the file and reads where it comes from.
    pub(super) fn open(path: &Path, key: &RecoveryKey) -> Result<(Self, Origin), BackupError> {
        let failed = |error| BackupError::Io { path: path.to_owned(), error };
        let mut file = BufReader::new(File::open(path).map_err(failed)?);
        let mut front = [0; FRONT.len()];
        let mut wrapped = [0; WRAPPED_BYTES];
        let begun = file.read_exact(&mut front).and_then(|()| file.read_exact(&mut wrapped));
        match begun {
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => return Err(failed(error)),
            Ok(()) if front == FRONT => {}
            Ok(()) | Err(_) => return Err(BackupError::NoBackup(path.to_owned())),
        }
        let file_key = key.unwrap(FRONT, &wrapped)?;
        let from = GzDecoder::new(BufReader::new(OpeningReader::new(file, file_key)));
        let mut reader = Self { path: path.to_owned(), from, counts: Counts::default() };
        match record::read(&mut reader.from).map_err(|error| reader.failed(error))? {
            Record::Origin(origin) => Ok((reader, origin)),
            Record::Dumped(_) | Record::End { .. } => {
                Err(reader.damaged("it does not say where it comes from"))
            }
        }
    }

    /// The next table or row; none at the end, once all of the file has been found right.
    pub(super) fn next(&mut self) -> Result<Option<Dumped>, BackupError> {
        match record::read(&mut self.from).map_err(|error| self.failed(error))? {
            Record::Dumped(dumped) => {
                self.counts.count(&dumped);
                Ok(Some(dumped))
            }
            Record::End { tables, rows } => {
                if (Counts { tables, rows }) != self.counts {
                    return Err(self.damaged("it says that it has more, or less, in it"));
                }
                self.ends_here()?;
                Ok(None)
            }
            Record::Origin(_) => Err(self.damaged("it says twice where it comes from")),
        }
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    /// Reads on to the last piece, of which the end of the compressed stream may know nothing.
    fn ends_here(&mut self) -> Result<(), BackupError> {
        let mut rest = [0; 1];
        let more = self.from.read(&mut rest).and_then(|more| Ok(more + self.from.get_mut().read(&mut rest)?));
        match more.map_err(|error| self.failed(error.into()))? {
            0 => Ok(()),
            _ => Err(self.damaged("something follows after its end")),
        }
    }

    fn damaged(&self, what: &str) -> BackupError {
        BackupError::Damaged { path: self.path.clone(), what: what.to_owned() }
    }

    fn failed(&self, error: RecordError) -> BackupError {
        match error {
            RecordError::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                self.damaged("it was cut: its end is missing")
            }
            RecordError::Io(error) => self.damaged(&error.to_string()),
            error @ (RecordError::Decode(_) | RecordError::TooLong(_)) => self.damaged(&error.to_string()),
        }
    }
}
