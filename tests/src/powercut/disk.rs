//! A disk that lived through the calls of a program, up to any moment, and the images that a cut then leaves.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use rand::RngExt as _;
use rand::rngs::StdRng;

use super::blocks::{after, change, torn};
use super::calls::{Calls, Moment, What};

/// What happens to all that was not synced.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fate {
    /// None of it is there.
    Nothing,
    /// All of it is there.
    Everything,
    /// Of the blocks of this size, this share is as it was last; of every other one any earlier state.
    Torn { block: usize, share: f64 },
}

impl Fate {
    /// Any but the first two.
    pub fn torn(random: &mut StdRng) -> Self {
        let block = if random.random_bool(0.5) { 512 } else { 4_096 };
        let share = [0.02, 0.3, 0.7, 0.95][random.random_range(0..4)];
        Self::Torn { block, share }
    }
}

/// Files by what a cut leaves of them.
pub type Image = BTreeMap<PathBuf, Vec<u8>>;

#[derive(Debug, Default)]
struct File {
    durable: Vec<u8>,
    /// Writes and lengths since, by number of the call; whether it has ended.
    later: Vec<(usize, bool)>,
}

#[derive(Clone, Debug)]
enum Naming {
    Put(PathBuf, Node),
    Remove(PathBuf),
    /// A folder and all that lies in it.
    Move(PathBuf, PathBuf),
}

impl Naming {
    /// Whose sync makes it durable: a folder is moved within one.
    fn folder(&self) -> Option<&Path> {
        let (Self::Put(name, _) | Self::Remove(name) | Self::Move(name, _)) = self;
        name.parent()
    }

    /// What it is once this folder has another name.
    fn moved(&mut self, from: &Path, to: &Path) {
        let (Self::Put(name, _) | Self::Remove(name) | Self::Move(name, _)) = self;
        if let Ok(below) = name.strip_prefix(from)
            && !below.as_os_str().is_empty()
        {
            *name = to.join(below);
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Node {
    File(usize),
    Folder,
}

type Names = BTreeMap<PathBuf, Node>;

/// The state of a disk at a moment of a [`Calls`].
#[derive(Debug)]
pub struct Disk<'a> {
    calls: &'a Calls,
    files: Vec<File>,
    /// As programs see them.
    names: Names,
    durable_names: Names,
    /// Since their directories were synced, in order, and numbered.
    renamed: Vec<(usize, Naming)>,
    namings: usize,
    /// What each sync under way has to make durable.
    syncs: BTreeMap<usize, Promise>,
}

#[derive(Debug)]
enum Promise {
    /// These changes of a file.
    File(usize, BTreeSet<usize>),
    /// Namings of a directory below this number.
    Names(PathBuf, usize),
}

impl<'a> Disk<'a> {
    /// Before everything: an empty directory.
    pub fn new(calls: &'a Calls) -> Self {
        Self {
            calls,
            files: Vec::new(),
            names: Names::new(),
            durable_names: Names::new(),
            renamed: Vec::new(),
            namings: 0,
            syncs: BTreeMap::new(),
        }
    }

    /// Lives through one moment more.
    ///
    /// # Panics
    /// When it concerns a file that was never created.
    pub fn pass(&mut self, moment: Moment) {
        match moment {
            Moment::Begins(call) => self.begin(call),
            Moment::Ends(call) => self.end(call),
        }
    }

    fn begin(&mut self, call: usize) {
        match &self.calls.all[call] {
            What::Write { file, .. } | What::Length { file, .. } => {
                let file = self.file(file).expect("it was created");
                self.files[file].later.push((call, false));
            }
            What::Sync(of) => {
                let promise = match self.names.get(of) {
                    Some(&Node::File(file)) => {
                        let ended = self.files[file].later.iter().filter(|(_, ended)| *ended);
                        Promise::File(file, ended.map(|(call, _)| *call).collect())
                    }
                    Some(Node::Folder) | None => Promise::Names(of.clone(), self.namings),
                };
                self.syncs.insert(call, promise);
            }
            What::Create { .. }
            | What::Folder(_)
            | What::Rename(..)
            | What::Remove(_)
            | What::Said(_)
            | What::Nothing => {}
        }
    }

    fn end(&mut self, call: usize) {
        match &self.calls.all[call] {
            What::Write { file, .. } | What::Length { file, .. } => {
                let Some(file) = self.file(file) else { return };
                self.files[file]
                    .later
                    .iter_mut()
                    .filter(|(number, _)| *number == call)
                    .for_each(|it| it.1 = true);
            }
            What::Create { file, empty } => match self.file(file) {
                Some(file) if *empty => self.files[file].later.push((call, true)),
                Some(_) => {}
                None => {
                    self.files.push(File::default());
                    self.name(Naming::Put(file.clone(), Node::File(self.files.len() - 1)));
                }
            },
            What::Folder(name) => self.name(Naming::Put(name.clone(), Node::Folder)),
            What::Rename(from, to) => {
                match self.names.get(from).copied().expect("what is renamed is there") {
                    Node::Folder => {
                        assert_eq!(from.parent(), to.parent(), "not modelled");
                        self.name(Naming::Move(from.clone(), to.clone()));
                    }
                    Node::File(file) => {
                        self.name(Naming::Put(to.clone(), Node::File(file)));
                        self.name(Naming::Remove(from.clone()));
                    }
                }
            }
            // Some are removed in case they are there.
            What::Remove(name) if self.names.contains_key(name) => self.name(Naming::Remove(name.clone())),
            What::Remove(_) => {}
            What::Sync(_) => self.synced(call),
            What::Said(_) | What::Nothing => {}
        }
    }

    fn file(&self, name: &Path) -> Option<usize> {
        match self.names.get(name) {
            Some(Node::File(file)) => Some(*file),
            Some(Node::Folder) | None => None,
        }
    }

    fn name(&mut self, naming: Naming) {
        rename(&mut self.names, &naming);
        self.renamed.push((self.namings, naming));
        self.namings += 1;
    }

    fn synced(&mut self, call: usize) {
        match self.syncs.remove(&call) {
            Some(Promise::File(file, promised)) => {
                let file = &mut self.files[file];
                for (number, _) in &file.later {
                    if promised.contains(number) {
                        change(&mut file.durable, &self.calls.all[*number]);
                    }
                }
                file.later.retain(|(number, _)| !promised.contains(number));
            }
            Some(Promise::Names(folder, below)) => {
                let promised =
                    |(number, naming): &(usize, Naming)| *number < below && naming.folder() == Some(&folder);
                let (kept, later) = std::mem::take(&mut self.renamed).into_iter().partition(promised);
                self.renamed = later;
                for (number, naming) in kept {
                    rename(&mut self.durable_names, &naming);
                    if let Naming::Move(from, to) = &naming {
                        let earlier = self.renamed.iter_mut().filter(|(other, _)| *other < number);
                        earlier.for_each(|(_, other)| other.moved(from, to));
                    }
                }
            }
            None => {}
        }
    }

    /// What lies below the root after a cut now, by path. Folders without files are left out.
    pub fn image(&self, fate: Fate, random: &mut StdRng) -> Image {
        let kept = match fate {
            Fate::Nothing => 0,
            Fate::Everything => self.renamed.len(),
            Fate::Torn { .. } => random.random_range(0..=self.renamed.len()),
        };
        let mut names = self.durable_names.clone();
        self.renamed[..kept].iter().for_each(|(_, naming)| rename(&mut names, naming));
        let mut image = Image::new();
        for (name, node) in &names {
            let below = name.strip_prefix(&self.calls.root).expect("only files below it");
            let mut folders = name.ancestors().skip(1).take_while(|folder| *folder != self.calls.root);
            if let Node::File(file) = node
                && folders.all(|folder| names.contains_key(folder))
            {
                image.insert(below.to_owned(), self.bytes(&self.files[*file], fate, random));
            }
        }
        image
    }

    fn bytes(&self, file: &File, fate: Fate, random: &mut StdRng) -> Vec<u8> {
        let changes: Vec<&What> = file.later.iter().map(|(call, _)| &self.calls.all[*call]).collect();
        match fate {
            Fate::Nothing => file.durable.clone(),
            Fate::Everything => after(&file.durable, &changes),
            Fate::Torn { block, share } => torn(&file.durable, &changes, block, share, random),
        }
    }
}

fn rename(names: &mut Names, naming: &Naming) {
    match naming {
        Naming::Put(name, file) => drop(names.insert(name.clone(), *file)),
        Naming::Remove(name) => drop(names.remove(name)),
        Naming::Move(from, to) => {
            let moved: Vec<PathBuf> = names.keys().filter(|name| name.starts_with(from)).cloned().collect();
            for name in moved {
                let node = names.remove(&name).expect("it was just found");
                let below = name.strip_prefix(from).expect("it is below it");
                // Joined with nothing, it would end in a slash.
                let name = if below.as_os_str().is_empty() { to.clone() } else { to.join(below) };
                names.insert(name, node);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    const FILE: &str = "/r/f";

    fn write(at: usize, byte: u8, length: usize) -> What {
        What::Write { file: FILE.into(), at, bytes: vec![byte; length] }
    }

    /// One call after the other.
    fn calls(all: Vec<What>) -> Calls {
        let mut calls = Calls::below(Path::new("/r"));
        for (number, what) in all.into_iter().enumerate() {
            calls.all.push(what);
            calls.moments.extend([Moment::Begins(number), Moment::Ends(number)]);
        }
        calls
    }

    fn named_and(mut more: Vec<What>) -> Calls {
        let mut all = vec![What::Create { file: FILE.into(), empty: false }, What::Sync("/r".into())];
        all.append(&mut more);
        calls(all)
    }

    fn images(calls: &Calls) -> BTreeSet<Option<Vec<u8>>> {
        let mut disk = Disk::new(calls);
        calls.moments.iter().for_each(|moment| disk.pass(*moment));
        let mut random = StdRng::seed_from_u64(1);
        let mut image = || {
            let fate = Fate::Torn { block: 512, share: 0.5 };
            disk.image(fate, &mut random).remove(Path::new("f"))
        };
        (0..200).map(|_| image()).collect()
    }

    #[test]
    fn what_was_synced_is_there_and_nothing_else_for_certain() {
        let synced = named_and(vec![write(0, 1, 1_024), What::Sync(FILE.into())]);
        assert_eq!(images(&synced), BTreeSet::from([Some(vec![1; 1_024])]));
        let later = named_and(vec![write(0, 1, 1_024), What::Sync(FILE.into()), write(0, 2, 1_024)]);
        let block = |byte| [byte; 512];
        let all = [(1, 1), (1, 2), (2, 1), (2, 2)].map(|(a, b)| Some([block(a), block(b)].concat()));
        assert_eq!(images(&later), BTreeSet::from(all), "a later block may be there without an earlier one");
    }

    #[test]
    fn a_sync_promises_nothing_about_what_is_written_while_it_runs() {
        let mut calls = named_and(vec![What::Sync(FILE.into()), write(0, 1, 512)]);
        let last = calls.moments.len() - 1;
        // Begins, then the write, and only then it ends.
        calls.moments.swap(last - 2, last);
        assert_eq!(calls.moments[last], Moment::Ends(2));
        calls.moments.swap(last - 2, last - 1);
        let all = [vec![], vec![0; 512], vec![1; 512]].map(Some);
        assert_eq!(images(&calls), BTreeSet::from(all));
    }

    #[test]
    fn a_name_is_there_for_certain_once_its_directory_was_synced() {
        let file_synced = calls(vec![
            What::Create { file: FILE.into(), empty: false },
            write(0, 1, 1),
            What::Sync(FILE.into()),
        ]);
        assert_eq!(images(&file_synced), BTreeSet::from([None, Some(vec![1])]));
        let gone = named_and(vec![What::Remove(FILE.into())]);
        assert_eq!(images(&gone), BTreeSet::from([None, Some(vec![])]));
    }

    #[test]
    fn a_file_in_a_folder_whose_name_was_lost_is_lost_with_it() {
        let inner = || What::Create { file: "/r/d/f".into(), empty: false };
        let synced = |of: &str| What::Sync(of.into());
        let paths = |calls: &Calls| -> BTreeSet<Vec<PathBuf>> {
            let mut disk = Disk::new(calls);
            calls.moments.iter().for_each(|moment| disk.pass(*moment));
            let mut random = StdRng::seed_from_u64(1);
            (0..50).map(|_| disk.image(Fate::torn(&mut random), &mut random).into_keys().collect()).collect()
        };
        let with = vec![PathBuf::from("d/f")];
        let lost = calls(vec![What::Folder("/r/d".into()), inner(), synced("/r/d")]);
        assert_eq!(paths(&lost), BTreeSet::from([vec![], with.clone()]));
        let kept = calls(vec![What::Folder("/r/d".into()), inner(), synced("/r/d"), synced("/r")]);
        assert_eq!(paths(&kept), BTreeSet::from([with]));
    }

    #[test]
    fn a_folder_that_is_renamed_takes_along_what_lies_in_it() {
        let renamed = |mut more: Vec<What>| {
            let mut all = vec![
                What::Folder("/r/d".into()),
                What::Create { file: "/r/d/f".into(), empty: false },
                What::Sync("/r".into()),
                What::Rename("/r/d".into(), "/r/e".into()),
            ];
            all.append(&mut more);
            calls(all)
        };
        let left = |calls: &Calls| {
            let mut disk = Disk::new(calls);
            calls.moments.iter().for_each(|moment| disk.pass(*moment));
            let mut random = StdRng::seed_from_u64(1);
            (0..50)
                .map(|_| disk.image(Fate::torn(&mut random), &mut random).into_keys().next())
                .collect::<BTreeSet<_>>()
        };
        let synced = |of: &str| What::Sync(of.into());
        let (old, new) = (Some(PathBuf::from("d/f")), Some(PathBuf::from("e/f")));
        assert_eq!(left(&renamed(vec![])), BTreeSet::from([None, old, new.clone()]));
        assert_eq!(left(&renamed(vec![synced("/r")])), BTreeSet::from([None, new.clone()]));
        assert_eq!(left(&renamed(vec![synced("/r"), synced("/r/e")])), BTreeSet::from([new]));
    }

    #[test]
    fn a_file_that_was_cut_and_grew_again_has_zeros_between() {
        let grown = named_and(vec![
            write(0, 1, 1_024),
            What::Sync(FILE.into()),
            What::Length { file: FILE.into(), length: 100 },
            write(600, 2, 424),
        ]);
        let mut disk = Disk::new(&grown);
        grown.moments.iter().for_each(|moment| disk.pass(*moment));
        let mut random = StdRng::seed_from_u64(1);
        let last = disk.image(Fate::Everything, &mut random);
        assert_eq!(last[Path::new("f")], [vec![1; 100], vec![0; 500], vec![2; 424]].concat());
        let all_there = Fate::Torn { block: 512, share: 1.0 };
        assert_eq!(disk.image(all_there, &mut random)[Path::new("f")], last[Path::new("f")]);
    }
}
