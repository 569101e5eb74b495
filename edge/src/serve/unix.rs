//! The Unix socket: where it lies, that only one daemon serves it, and whom the kernel says is on the other end.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use tokio::net::{UnixListener, UnixStream};

/// The kernel's room for a socket's path, in bytes.
pub const SOCKET_PATH_BYTES_MAX: usize = 107;
/// Owner and group may connect; what they may do is decided by user id, request by request.
const SOCKET_MODE: u32 = 0o660;
const LOCK_MODE: u32 = 0o600;

/// Why the socket cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    #[error(
        "the socket's path {} has {length} bytes; the system allows at most {SOCKET_PATH_BYTES_MAX}: \
         give a shorter one with --socket",
        path.display()
    )]
    TooLong { path: PathBuf, length: usize },
    #[error("another edge already serves {}", .0.display())]
    Served(PathBuf),
    #[error("{} is there and is not a socket", .0.display())]
    NotASocket(PathBuf),
    #[error("another edge already runs on {}", .0.display())]
    Running(PathBuf),
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

/// Who is on the other end, as the kernel recorded it when they connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// None when the kernel would not say; such a peer may nothing.
    pub uid: Option<u32>,
}

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        Self { uid: stream.io().peer_cred().ok().map(|credentials| credentials.uid()) }
    }
}

/// The user that this process runs as, asked of the kernel over a pair of sockets.
///
/// # Errors
/// When the system gives no sockets.
pub fn own_uid() -> io::Result<u32> {
    let (one, _other) = UnixStream::pair()?;
    Ok(one.peer_cred()?.uid())
}

/// Held by the one daemon of a directory for as long as it lives; the kernel releases it with the process.
#[derive(Debug)]
pub struct DirectoryLock {
    _file: File,
}

impl DirectoryLock {
    /// Takes `DIR/lock`.
    ///
    /// # Errors
    /// When another process holds it.
    pub fn take(directory: &Path) -> Result<Self, SocketError> {
        let path = directory.join("lock");
        let io = |source| SocketError::Io { path: path.clone(), source };
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(LOCK_MODE)
            .open(&path)
            .map_err(io)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(SocketError::Running(directory.to_owned())),
            Err(TryLockError::Error(error)) => Err(io(error)),
        }
    }
}

/// # Errors
/// When the path does not fit into the kernel's address of a socket.
pub fn check_length(path: &Path) -> Result<(), SocketError> {
    let length = path.as_os_str().as_bytes().len();
    if length > SOCKET_PATH_BYTES_MAX {
        return Err(SocketError::TooLong { path: path.to_owned(), length });
    }
    Ok(())
}

/// Listens at `path`. A socket file outlives its process: one that nobody answers on is removed.
///
/// # Errors
/// When the path is too long, somebody answers, or something else lies there.
pub async fn bind(path: &Path) -> Result<UnixListener, SocketError> {
    check_length(path)?;
    let io = |source| SocketError::Io { path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Ok(found) if !std::os::unix::fs::FileTypeExt::is_socket(&found.file_type()) => {
            return Err(SocketError::NotASocket(path.to_owned()));
        }
        Ok(_) => {
            if UnixStream::connect(path).await.is_ok() {
                return Err(SocketError::Served(path.to_owned()));
            }
            fs::remove_file(path).map_err(io)?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(io(error)),
    }
    let listener = UnixListener::bind(path).map_err(io)?;
    fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE)).map_err(io)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_served_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        drop(bind(&path).await.unwrap());
        assert!(path.exists(), "the file outlives the listener");
        let _serving = bind(&path).await.unwrap();
        assert!(matches!(bind(&path).await, Err(SocketError::Served(_))));
    }

    #[tokio::test]
    async fn what_is_no_socket_is_left_alone_and_long_paths_are_refused_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("precious");
        fs::write(&path, "data").unwrap();
        assert!(matches!(bind(&path).await, Err(SocketError::NotASocket(_))));
        assert_eq!(fs::read(&path).unwrap(), b"data");
        let refused = bind(&directory.path().join("x".repeat(108))).await.unwrap_err();
        assert!(refused.to_string().contains("at most 107"), "{refused}");
    }

    #[test]
    fn one_daemon_has_the_directory() {
        let directory = tempfile::tempdir().unwrap();
        let held = DirectoryLock::take(directory.path()).unwrap();
        assert!(matches!(DirectoryLock::take(directory.path()), Err(SocketError::Running(_))));
        drop(held);
        DirectoryLock::take(directory.path()).unwrap();
    }

    #[tokio::test]
    async fn the_own_user_is_known() {
        use std::os::unix::fs::MetadataExt;
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(own_uid().unwrap(), file.as_file().metadata().unwrap().uid());
    }
}
