//! A file that is replaced as a whole: whoever reads it sees the old content or the new one, also after a power cut.

use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use super::exit::Failure;

/// `0600`
///
/// # Errors
/// When it is no mode of a file.
pub(crate) fn mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text.trim_start_matches("0o"), 8).ok();
    mode.filter(|mode| *mode <= 0o777).ok_or_else(|| "give a mode in octal, as 0600 or 0640".into())
}

/// Gives a file this content and mode; its owner stays. Says whether the content changed; an equal one is not written.
///
/// # Errors
/// When it cannot be written: then it is as it was.
pub(crate) fn replace(path: &Path, content: &str, mode: u32) -> Result<bool, Failure> {
    written(path, content, mode)
        .map_err(|error| Failure::failed(format!("cannot write {}: {error}", path.display())))
}

fn written(path: &Path, content: &str, mode: u32) -> io::Result<bool> {
    let before = match fs::metadata(path) {
        Ok(before) => Some(before),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    if let Some(before) = &before
        && before.len() == content.len() as u64
        && fs::read(path)? == content.as_bytes()
    {
        if before.mode() & 0o777 != mode {
            fs::set_permissions(path, Permissions::from_mode(mode))?;
        }
        return Ok(false);
    }
    let partial = partial(path)?;
    // One that was left by a crash.
    match fs::remove_file(&partial) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let done = fill(&partial, content, mode, before.as_ref()).and_then(|()| fs::rename(&partial, path));
    if let Err(error) = done {
        let _ = fs::remove_file(&partial);
        return Err(error);
    }
    File::open(folder(path))?.sync_all()?;
    Ok(true)
}

/// Readable by its owner alone until it has all that it needs.
fn fill(path: &Path, content: &str, mode: u32, before: Option<&Metadata>) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content.as_bytes())?;
    let made = file.metadata()?;
    if let Some(before) = before
        && (before.uid(), before.gid()) != (made.uid(), made.gid())
    {
        fchown(&file, Some(before.uid()), Some(before.gid()))?;
    }
    file.set_permissions(Permissions::from_mode(mode))?;
    file.sync_all()
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

/// Beside the file, for a file can only be renamed within its file system.
fn partial(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| io::Error::other("that is no name of a file"))?;
    Ok(folder(path).join(format!(".{}.llm-config", name.to_string_lossy())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_only_if_it_differs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.conf");
        assert_eq!(replace(&path, "one", 0o600), Ok(true));
        let first = fs::metadata(&path).unwrap();
        assert_eq!(first.mode() & 0o777, 0o600);
        assert_eq!(replace(&path, "one", 0o640), Ok(false));
        let same = fs::metadata(&path).unwrap();
        assert_eq!((same.ino(), same.mode() & 0o777), (first.ino(), 0o640), "its mode alone");
        fs::write(partial(&path).unwrap(), "left by a crash").unwrap();
        assert_eq!(replace(&path, "two", 0o600), Ok(true));
        assert_eq!(fs::read_to_string(&path).unwrap(), "two");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn what_cannot_be_written_leaves_everything_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("absent/app.conf");
        assert!(replace(&below, "x", 0o600).unwrap_err().message.contains("absent/app.conf"));
        let taken = folder.path().join("folder");
        fs::create_dir(&taken).unwrap();
        assert!(replace(&taken, "x", 0o600).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_mode_is_octal() {
        assert_eq!((mode("0600"), mode("640")), (Ok(0o600), Ok(0o640)));
        for bad in ["", "rw", "0800", "4755"] {
            assert!(mode(bad).is_err(), "{bad}");
        }
    }
}
