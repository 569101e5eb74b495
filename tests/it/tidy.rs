//! The house rules that a machine can check. Each check is itself tested on a sample that breaks it.

mod lock;
mod scan;
mod size;
mod walls;
mod words;

use std::fs;
use std::path::{Path, PathBuf};

use scan::Layers;

/// One Rust file of the repository, split into what is code, comment and text.
struct Source {
    /// Relative to the root, with `/`.
    path: String,
    raw: String,
    layers: Layers,
}

impl Source {
    fn new(path: &str, raw: &str) -> Self {
        Self { path: path.to_owned(), raw: raw.to_owned(), layers: scan::layers(raw) }
    }

    /// Whether the file lies in the folder, or is the face of it: `hub/src/journal` has `hub/src/journal.rs` too.
    fn within(&self, folder: &str) -> bool {
        self.path
            .strip_prefix(folder)
            .is_some_and(|rest| rest.starts_with('/') || rest == ".rs" || folder.ends_with('/'))
    }
}

/// The root of the repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this package lies in the repository").to_owned()
}

/// Every Rust file that is part of the product or of its tests, sorted by path.
fn sources() -> Vec<Source> {
    let root = root();
    let mut files = Vec::new();
    for part in ["shared", "proto", "keychain", "hub", "edge", "simulations", "tests"] {
        collect(&root.join(part), &mut files);
    }
    files.sort();
    assert!(files.len() > 30, "only {} files were found under {}", files.len(), root.display());
    files
        .iter()
        .map(|file| {
            let path = file.strip_prefix(&root).expect("found below the root");
            Source::new(&path.to_string_lossy(), &fs::read_to_string(file).expect("a readable file of UTF-8"))
        })
        .collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for item in fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
        let path = item.expect("a readable folder").path();
        if path.is_dir() {
            if !path.ends_with("target") {
                collect(&path, files);
            }
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
}

fn read(path: &str) -> String {
    let file = root().join(path);
    fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
}

/// Fails with every problem at once.
fn pass(problems: &[String]) {
    assert!(
        problems.is_empty(),
        "{} against the rules of the house:\n  {}",
        problems.len(),
        problems.join("\n  ")
    );
}

/// Runs a check over every source.
fn check(rule: impl Fn(&Source) -> Vec<String>) {
    pass(&sources().iter().flat_map(rule).collect::<Vec<_>>());
}

/// The only problem that a rule finds in a sample.
#[track_caller]
fn only(problems: &[String]) -> &str {
    assert_eq!(problems.len(), 1, "{problems:?}");
    &problems[0]
}
