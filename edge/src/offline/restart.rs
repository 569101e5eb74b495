//! What becomes of secrets when the daemon starts and the hub is not there: chosen when the edge joins, kept beside its keys.

use std::io;
use std::path::Path;

use crate::keeper::Keeper;
use crate::keys::{KeyError, read_private, write_private};

/// The file's name in the edge's directory.
pub const FILE: &str = "offline-restart";

/// Where the key is kept without which the replica's secrets stay shut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OfflineRestart {
    /// In memory alone: after a start secrets stay locked until the hub was reached. A stolen disk opens none.
    #[default]
    Never,
    /// In a file: secrets open at a start without the hub, within the offline limit. So they do for whoever has the disk.
    File,
    /// In a file that only this machine's TPM opens: they open here, and nowhere else.
    Tpm,
}

/// An `--offline-restart` that cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidOfflineRestart {
    #[error("unknown choice: {0}; write never, file or tpm")]
    Unknown(String),
}

/// `tpm`, and the edge's keys are elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "offline_restart = tpm needs the edge's keys in the TPM, and they are kept by {kept_by}; join with --key tpm, or run: \
     llm-config edge rekey --key tpm; without a TPM choose never (secrets wait for the hub after a start) or file (they lie \
     on the disk)"
)]
pub struct NeedsTpm {
    kept_by: &'static str,
}

impl std::str::FromStr for OfflineRestart {
    type Err = InvalidOfflineRestart;

    fn from_str(text: &str) -> Result<Self, InvalidOfflineRestart> {
        match text {
            "never" => Ok(Self::Never),
            "file" => Ok(Self::File),
            "tpm" => Ok(Self::Tpm),
            other => Err(InvalidOfflineRestart::Unknown(other.to_owned())),
        }
    }
}

impl OfflineRestart {
    /// As people write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::File => "file",
            Self::Tpm => "tpm",
        }
    }

    /// Whether it can be kept where the edge's keys are.
    ///
    /// # Errors
    /// When it cannot.
    pub fn check(self, keeper: &Keeper) -> Result<(), NeedsTpm> {
        match (self, keeper) {
            (Self::Never | Self::File, _) | (Self::Tpm, Keeper::Tpm) => Ok(()),
            (Self::Tpm, other) => Err(NeedsTpm { kept_by: other.as_str() }),
        }
    }

    /// What a person has to know who chose it, or let it be chosen.
    pub fn explained(self) -> &'static str {
        match self {
            Self::Never => {
                "offline_restart = never: after a start without the hub, secrets stay locked until it is reached; \
                 --offline-restart file or tpm changes that"
            }
            Self::File => {
                "offline_restart = file: secrets open after a start without the hub, within their offline limit, also for \
                 whoever has a copy of the disk"
            }
            Self::Tpm => {
                "offline_restart = tpm: secrets open after a start of this machine without the hub, within their offline limit; \
                 a copy of the disk opens none"
            }
        }
    }

    /// As it was chosen for the edge in `directory`; `never` where nobody chose.
    ///
    /// # Errors
    /// When the file cannot be read, or says what is not known.
    pub fn load(directory: &Path) -> Result<Self, KeyError> {
        let path = directory.join(FILE);
        let text = match read_private(&path) {
            Ok(text) => text,
            Err(KeyError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            Err(error) => return Err(error),
        };
        let parsed = std::str::from_utf8(&text).ok().and_then(|text| text.trim().parse().ok());
        parsed.ok_or(KeyError::Damaged { path, what: "neither never, file nor tpm" })
    }

    /// Keeps the choice.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn store(self, directory: &Path) -> Result<(), KeyError> {
        write_private(&directory.join(FILE), format!("{}\n", self.as_str()).as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_choice_is_kept_and_what_cannot_be_done_here_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(OfflineRestart::load(directory.path()).unwrap(), OfflineRestart::Never);
        OfflineRestart::File.store(directory.path()).unwrap();
        assert_eq!(OfflineRestart::load(directory.path()).unwrap(), OfflineRestart::File);
        assert_eq!(OfflineRestart::Tpm.check(&Keeper::Tpm), Ok(()));
        let refused = OfflineRestart::Tpm.check(&Keeper::File).unwrap_err().to_string();
        assert!(refused.contains("kept by file") && refused.contains("rekey"), "{refused}");
        write_private(&directory.path().join(FILE), b"sometimes").unwrap();
        assert!(OfflineRestart::load(directory.path()).is_err(), "an unknown choice is not guessed at");
    }
}
