//! The directory with the hub's keyring, tokens and embedded database: private, and one process at a time.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Why the directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirectoryError {
    #[error("{path} is used by another running hub; stop it or use another directory")]
    InUse { path: PathBuf },
    #[error("{path}: {error}")]
    Io { path: PathBuf, error: io::Error },
}

/// Held for as long as the process uses the directory; the kernel lets go of it when the process ends, however it does.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    _lock: File,
}

impl DataDirectory {
    /// Creates the directory (0700) where it is missing, and locks it.
    ///
    /// # Errors
    /// When another process has it, or the file system refuses.
    pub fn lock(path: &Path) -> Result<Self, DataDirectoryError> {
        create(path)?;
        let file = path.join("lock");
        let io = |error| DataDirectoryError::Io { path: file.clone(), error };
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&file)
            .map_err(io)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(DataDirectoryError::InUse { path: path.to_owned() }),
            Err(TryLockError::Error(error)) => Err(io(error)),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Creates a private directory where there is none.
///
/// # Errors
/// When the file system refuses.
pub fn create(path: &Path) -> Result<(), DataDirectoryError> {
    let created = DirBuilder::new().recursive(true).mode(0o700).create(path);
    created.map_err(|error| DataDirectoryError::Io { path: path.to_owned(), error })
}

/// Writes a file that only the owner reads, whole or not at all, replacing one of that name.
///
/// # Errors
/// When the file system refuses.
pub fn write_private(path: &Path, content: &str) -> Result<(), DataDirectoryError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    let write = || -> io::Result<()> {
        // What a killed process left behind may have other rights.
        match std::fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&new)?;
        file.write_all(content.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&new, path)
    };
    write().map_err(|error| DataDirectoryError::Io { path: path.to_owned(), error })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn directory(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("hub-data-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        path
    }

    #[test]
    fn a_second_user_of_a_directory_is_told_so() {
        let path = directory("lock");
        let first = DataDirectory::lock(&path).unwrap();
        assert_eq!(std::fs::metadata(first.path()).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(matches!(DataDirectory::lock(&path), Err(DataDirectoryError::InUse { .. })));
        drop(first);
        DataDirectory::lock(&path).unwrap();
        std::fs::remove_dir_all(&path).unwrap();
    }

    #[test]
    fn a_private_file_is_private_also_when_it_replaces_another() {
        let path = directory("file");
        create(&path).unwrap();
        let file = path.join("admin.token");
        std::fs::write(&file, "old").unwrap();
        write_private(&file, "new\n").unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "new\n");
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::remove_dir_all(&path).unwrap();
    }
}
