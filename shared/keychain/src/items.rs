//! Which items of a keychain belong to a folder, kept in a file of it.
//!
//! An item is named in the file before it is made, and taken off only when it is deleted: killed at any moment, whatever
//! lies in the keychain is named here, and what nothing needs goes with the next [`Items::settle`]. A copy of the folder
//! deletes nothing: its file says of which folder it was.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use llm_config_shared::seal::SealKey;

use crate::{ItemName, Keychain, KeychainError, another, fresh_key, system};

const FORM: &str = "llm-config items in a keychain 1";

/// The items of one folder.
#[derive(Debug)]
pub struct Items {
    file: PathBuf,
    keychain: Keychain,
}

/// A folder as it is known again: by its place, or moved, by its number on the disk.
#[derive(Debug, PartialEq, Eq)]
struct Folder {
    number: String,
    place: String,
}

impl Folder {
    fn of(path: &Path) -> io::Result<Self> {
        let about = fs::metadata(path)?;
        let place = format!("{:?}", fs::canonicalize(path)?);
        Ok(Self { number: format!("{}:{}", about.dev(), about.ino()), place })
    }

    fn is(&self, other: &Self) -> bool {
        self.number == other.number || self.place == other.place
    }
}

impl Items {
    /// Listed in this file, whose folder they belong to.
    pub fn new(file: PathBuf, keychain: Keychain) -> Self {
        Self { file, keychain }
    }

    /// Makes, reads and deletes an item, to see whether the keychain works here. What is needed no more goes first.
    ///
    /// # Errors
    /// Says why it does not work.
    pub fn try_out(&self, used: Option<&ItemName>) -> Result<(), KeychainError> {
        self.settle(used)?;
        self.make("LLM Config: a trial, which may be deleted")?;
        self.settle(used)
    }

    /// A new item with a new key in it, which was read back once. `label` is what people see who look into the keychain.
    ///
    /// # Errors
    /// When the keychain or the disk refuses.
    pub fn make(&self, label: &str) -> Result<(ItemName, SealKey), KeychainError> {
        let (item, key) = (ItemName::fresh()?, fresh_key()?);
        // A list of another folder is that folder's business.
        let mut known = self.read()?.filter(|(ours, _)| *ours).map(|(_, items)| items).unwrap_or_default();
        known.push(item.clone());
        self.write(&known)?;
        system::put(&self.keychain, &item, label, key.expose())?;
        if self.keychain.key(&item)? == key { Ok((item, key)) } else { Err(another()) }
    }

    /// Deletes every item but the one that is in use.
    ///
    /// # Errors
    /// When the keychain or the disk refuses; what could not be deleted stays listed.
    pub fn settle(&self, used: Option<&ItemName>) -> Result<(), KeychainError> {
        // Of somebody who was killed while writing; what it was to say has not begun.
        let _ = fs::remove_file(self.draft());
        let Some((ours, mut known)) = self.read()? else { return Ok(()) };
        if !ours {
            return if used.is_some() { Ok(()) } else { self.write(&[]) };
        }
        let needless: Vec<ItemName> = known.iter().filter(|item| Some(*item) != used).cloned().collect();
        for item in needless {
            system::remove(&self.keychain, &item)?;
            known.retain(|left| *left != item);
            self.write(&known)?;
        }
        Ok(())
    }

    /// Whether nothing is listed that would have to go; the keychain is not asked.
    pub fn is_settled(&self, used: Option<&ItemName>) -> bool {
        match self.read() {
            Ok(None) => true,
            Ok(Some((ours, known))) => !ours || known.iter().all(|item| Some(item) == used),
            Err(_) => false,
        }
    }

    /// Whether the list is this folder's own, and what it names.
    fn read(&self) -> Result<Option<(bool, Vec<ItemName>)>, KeychainError> {
        let text = match fs::read_to_string(&self.file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text.map_err(|source| self.failed(source))?,
        };
        let damaged = || KeychainError::Damaged(self.file.clone());
        let mut lines = text.lines();
        if lines.next() != Some(FORM) {
            return Err(damaged());
        }
        let (number, place) = lines.next().and_then(|line| line.split_once(' ')).ok_or_else(damaged)?;
        let of = Folder { number: number.to_owned(), place: place.to_owned() };
        let items = lines.map(|line| ItemName::try_from(line.to_owned()).map_err(|_| damaged()));
        Ok(Some((of.is(&self.folder()?), items.collect::<Result<_, _>>()?)))
    }

    /// Whole or not at all, and durable.
    fn write(&self, items: &[ItemName]) -> Result<(), KeychainError> {
        let folder = self.folder()?;
        let mut text = format!("{FORM}\n{} {}\n", folder.number, folder.place);
        for item in items {
            text.push_str(item.as_str());
            text.push('\n');
        }
        let draft = self.draft();
        let written = || -> io::Result<()> {
            if items.is_empty() {
                fs::remove_file(&self.file)?;
            } else {
                let mut file =
                    OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&draft)?;
                file.write_all(text.as_bytes())?;
                file.sync_all()?;
                fs::rename(&draft, &self.file)?;
            }
            File::open(self.parent())?.sync_all()
        };
        written().map_err(|source| self.failed(source))
    }

    fn draft(&self) -> PathBuf {
        let mut draft = self.file.clone().into_os_string();
        draft.push(".new");
        draft.into()
    }

    fn parent(&self) -> &Path {
        let parent = self.file.parent().filter(|parent| !parent.as_os_str().is_empty());
        parent.unwrap_or_else(|| Path::new("."))
    }

    fn folder(&self) -> Result<Folder, KeychainError> {
        Folder::of(self.parent()).map_err(|source| self.failed(source))
    }

    fn failed(&self, source: io::Error) -> KeychainError {
        KeychainError::File { path: self.file.clone(), why: source.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(folder: &Path) -> Items {
        Items::new(folder.join("items"), Keychain::at("unix:path=/nowhere/at/all"))
    }

    #[test]
    fn an_item_is_listed_before_anybody_makes_it_and_stays_until_it_is_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let items = items(folder.path());
        items.settle(None).unwrap();
        items.make("a label").expect_err("there is no keychain");
        let (ours, named) = items.read().unwrap().unwrap();
        assert!(ours && named.len() == 1);
        items.settle(None).expect_err("it cannot be deleted");
        assert_eq!(items.read().unwrap().unwrap().1, named);
        items.settle(Some(&named[0])).unwrap();
        assert_eq!(items.read().unwrap().unwrap().1, named, "what is used stays");
    }

    #[test]
    fn a_copy_of_the_folder_deletes_nothing_and_a_moved_one_is_the_same() {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (moved, original) = (other.path().join("moved"), folder.path().join("original"));
        fs::create_dir(&original).unwrap();
        let item = ItemName::fresh().unwrap();
        items(&original).write(std::slice::from_ref(&item)).unwrap();
        let copy = tempfile::tempdir().unwrap();
        fs::copy(original.join("items"), copy.path().join("items")).unwrap();
        let copied = items(copy.path());
        assert_eq!(copied.read().unwrap(), Some((false, vec![item.clone()])));
        copied.settle(Some(&item)).unwrap();
        copied.settle(None).expect("nobody was asked");
        assert_eq!(copied.read().unwrap(), None);
        fs::rename(&original, &moved).unwrap();
        assert_eq!(items(&moved).read().unwrap(), Some((true, vec![item])));
    }

    #[test]
    fn another_file_is_not_taken_for_a_list() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("items"), "something else\n").unwrap();
        assert!(matches!(items(folder.path()).settle(None), Err(KeychainError::Damaged(_))));
    }
}
