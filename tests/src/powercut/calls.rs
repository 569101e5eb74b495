//! The log of `strace` as calls with their bytes, in the order in which they began and ended.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

/// All calls that change files or names, some that cannot be replayed and must not come, and those that answer clients.
pub const WATCHED: &str = "openat,mkdir,write,pwrite64,ftruncate,fsync,fdatasync,rename,unlink,writev,sendto,sendmsg,\
                           pwritev,truncate,fallocate,renameat,renameat2,link,linkat,unlinkat,copy_file_range,creat";

/// What a call did, or does once it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A file is there, under a name that it may have had before, and is emptied or not.
    Create {
        file: PathBuf,
        empty: bool,
    },
    Folder(PathBuf),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
    Write {
        file: PathBuf,
        at: usize,
        bytes: Vec<u8>,
    },
    Length {
        file: PathBuf,
        length: usize,
    },
    /// Of a file, or of a directory's names.
    Sync(PathBuf),
    /// The start of an answer to a client, as far as it was sent in one piece.
    Said(Vec<u8>),
    /// It failed.
    Nothing,
}

/// A call begins or ends; the number is its place in [`Calls::all`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    Begins(usize),
    Ends(usize),
}

/// What one program after another did to the files below a directory.
#[derive(Debug, Default)]
pub struct Calls {
    pub all: Vec<What>,
    pub moments: Vec<Moment>,
    /// Of which all is known.
    pub root: PathBuf,
    /// Where the next `write` goes.
    positions: HashMap<PathBuf, usize>,
}

impl Calls {
    /// Of nobody yet.
    pub fn below(root: &Path) -> Self {
        Self { root: root.to_owned(), ..Self::default() }
    }

    /// Adds what a program did that has ended by now, from its log. Its unfinished calls end with it.
    ///
    /// # Panics
    /// When the log holds something that cannot be replayed.
    pub fn add(&mut self, log: &Path) {
        let mut under_way: HashMap<String, (usize, String)> = HashMap::new();
        for line in BufReader::new(File::open(log).unwrap()).split(b'\n') {
            let line = String::from_utf8(line.unwrap()).expect("strace escapes everything");
            let Some((thread, call)) = line.split_once(' ') else { continue };
            let call = call.trim_start();
            if let Some(begun) = call.strip_suffix(" <unfinished ...>") {
                let number = self.begin(begun, None);
                under_way.insert(thread.to_owned(), (number, begun.to_owned()));
            } else if call.starts_with("<... ") {
                let Some((number, begun)) = under_way.remove(thread) else { continue };
                let rest = call.split_once("resumed>").expect("a call goes on").1;
                self.end(number, &format!("{begun}{rest}"));
            } else if call.contains('(') && !call.starts_with("---") {
                let number = self.begin(call, returned(call));
                self.moments.push(Moment::Ends(number));
            }
        }
        let mut left: Vec<usize> = under_way.into_values().map(|(number, _)| number).collect();
        left.sort_unstable();
        self.moments.extend(left.into_iter().map(Moment::Ends));
    }

    fn begin(&mut self, call: &str, returned: Option<i64>) -> usize {
        let what = self.read(call, returned);
        self.all.push(what);
        self.moments.push(Moment::Begins(self.all.len() - 1));
        self.all.len() - 1
    }

    /// Now it is known what came of it.
    fn end(&mut self, number: usize, call: &str) {
        if returned(call).is_some_and(|returned| returned < 0) {
            self.all[number] = What::Nothing;
        }
        self.moments.push(Moment::Ends(number));
    }

    fn read(&mut self, call: &str, returned: Option<i64>) -> What {
        if returned.is_some_and(|returned| returned < 0) {
            return What::Nothing;
        }
        let (name, arguments) = call.split_once('(').expect("a call has arguments");
        let arguments: Vec<&str> = arguments.split(", ").collect();
        let on = of_descriptor(arguments[0]);
        let done = |mut bytes: Vec<u8>| {
            bytes.truncate(returned.map_or(bytes.len(), |n| usize::try_from(n).unwrap_or(bytes.len())));
            bytes
        };
        let number = |argument: &str| -> usize {
            let digits: String = argument.chars().take_while(char::is_ascii_digit).collect();
            digits.parse().unwrap_or_else(|_| panic!("no number in {name}({argument}"))
        };
        let here = |path: &Path| path.starts_with(&self.root);
        match (name, on) {
            ("openat", _) => {
                let file = path(quoted(arguments[1]));
                let flags = arguments[2];
                if !here(&file) || !flags.contains("O_CREAT") {
                    return What::Nothing;
                }
                assert!(!flags.contains("O_APPEND"), "not modelled: {call}");
                self.positions.insert(file.clone(), 0);
                What::Create { file, empty: flags.contains("O_TRUNC") }
            }
            ("mkdir", _) if here(&path(quoted(arguments[0]))) => What::Folder(path(quoted(arguments[0]))),
            ("rename", _) if here(&path(quoted(arguments[0]))) => {
                What::Rename(path(quoted(arguments[0])), path(quoted(arguments[1])))
            }
            ("unlink", _) if here(&path(quoted(arguments[0]))) => What::Remove(path(quoted(arguments[0]))),
            ("unlinkat", Some(folder)) if here(&folder) => {
                What::Remove(folder.join(path(quoted(arguments[1]))))
            }
            // With the name of the working directory before it.
            ("unlinkat", None) if here(&path(quoted(arguments[1]))) => {
                What::Remove(path(quoted(arguments[1])))
            }
            ("pwrite64", Some(file)) if here(&file) => {
                What::Write { file, at: number(arguments[3]), bytes: done(quoted(arguments[1])) }
            }
            ("write", Some(file)) if here(&file) => {
                let bytes = done(quoted(arguments[1]));
                let position = self.positions.entry(file.clone()).or_default();
                let at = *position;
                *position += bytes.len();
                What::Write { file, at, bytes }
            }
            ("ftruncate", Some(file)) if here(&file) => What::Length { file, length: number(arguments[1]) },
            ("fsync" | "fdatasync", Some(of)) => What::Sync(of),
            ("write" | "writev" | "sendto" | "sendmsg", on) => {
                let bytes = all_quoted(call);
                let socket = on.is_none_or(|on| !on.starts_with("/"));
                if socket && bytes.starts_with(b"HTTP/1.1 2") { What::Said(bytes) } else { What::Nothing }
            }
            (_, on) => {
                let named =
                    arguments.iter().any(|argument| argument.contains('"') && here(&path(quoted(argument))));
                assert!(!named && !on.is_some_and(|on| here(&on)), "not modelled: {call}");
                What::Nothing
            }
        }
    }
}

/// The value behind the last `= `.
fn returned(call: &str) -> Option<i64> {
    let value = call.rsplit_once(") = ")?.1;
    value.split([' ', '<']).next()?.parse().ok()
}

/// The file of `5<...>`.
fn of_descriptor(argument: &str) -> Option<PathBuf> {
    let (digits, rest) = argument.split_once('<')?;
    digits.parse::<u32>().ok()?;
    Some(path(unescaped(rest.split('>').next()?)))
}

fn quoted(argument: &str) -> Vec<u8> {
    let inner = argument.split('"').nth(1).unwrap_or_default();
    assert!(!argument.contains("\"..."), "strace cut a string");
    unescaped(inner)
}

fn all_quoted(call: &str) -> Vec<u8> {
    call.split('"').skip(1).step_by(2).flat_map(unescaped).collect()
}

/// `\x2f\x74`.
fn unescaped(text: &str) -> Vec<u8> {
    text.as_bytes()
        .chunks_exact(4)
        .map(|chunk| {
            let digit =
                |at: usize| char::from(chunk[at]).to_digit(16).expect("strace was told to write hex") as u8;
            digit(2) << 4 | digit(3)
        })
        .collect()
}

fn path(bytes: Vec<u8>) -> PathBuf {
    OsString::from_vec(bytes).into()
}
