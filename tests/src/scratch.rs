//! A folder for one test on the real disk, and a short one for its sockets.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{fs, process, thread};

static FOLDERS: AtomicU32 = AtomicU32::new(0);

/// Lives as long as the test; stays on the disk, with its path on stderr, when the test fails.
#[derive(Debug)]
pub struct Scratch {
    folder: PathBuf,
    /// Sockets have paths of at most 107 bytes, which a folder below `target` may exceed.
    sockets: tempfile::TempDir,
}

impl Scratch {
    /// A folder of its own under `target/it`.
    ///
    /// # Panics
    /// When the disk refuses it.
    pub fn new(test: &str) -> Self {
        let number = FOLDERS.fetch_add(1, Ordering::Relaxed);
        let folder = crate::process::programs()
            .parent()
            .expect("programs lie below target")
            .join(format!("it/{test}-{}-{number}", process::id()));
        fs::create_dir_all(&folder).unwrap();
        let sockets = tempfile::Builder::new().prefix("lcm").tempdir().unwrap();
        Self { folder, sockets }
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A short path for a socket.
    pub fn socket(&self, name: &str) -> PathBuf {
        self.sockets.path().join(name)
    }

    /// Writes a file, readable by its owner alone, and gives its path.
    ///
    /// # Panics
    /// When the disk refuses it.
    pub fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        restrict(&path);
        path
    }
}

fn restrict(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

impl Drop for Scratch {
    #[allow(clippy::print_stderr, reason = "the harness reports to whoever reads the test's output")]
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("the test's files are kept in {}", self.folder.display());
        } else {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

/// Every file below a folder, with its bytes.
///
/// # Panics
/// When one can't be read.
pub fn files_below(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for item in fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
        let path = item.unwrap().path();
        let kind = fs::symlink_metadata(&path).unwrap().file_type();
        if kind.is_dir() {
            found.extend(files_below(&path));
        } else if kind.is_file() {
            let bytes = fs::read(&path).unwrap();
            found.push((path, bytes));
        }
    }
    found
}

/// The files below a folder that hold some text anywhere.
pub fn files_with(folder: &Path, text: &str) -> Vec<PathBuf> {
    let holds = |bytes: &[u8]| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    files_below(folder).into_iter().filter(|(_, bytes)| holds(bytes)).map(|(path, _)| path).collect()
}

/// Copies a folder with all that is in it.
///
/// # Panics
/// When the disk refuses it.
pub fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for (path, _) in files_below(from) {
        let target = to.join(path.strip_prefix(from).expect("found below it"));
        fs::create_dir_all(target.parent().expect("below a folder")).unwrap();
        fs::copy(&path, &target).unwrap();
    }
}
