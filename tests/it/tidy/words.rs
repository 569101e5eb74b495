//! Names and words: drawers, unfinished work, files that do not say what they are, waiting for luck.

use super::{Source, check, only, read, root, scan};

const DRAWERS: &[&str] = &["common", "helper", "helpers", "manager", "misc", "mod", "util", "utils"];
/// In the core nothing is so general that it can only be called types.
const DRAWERS_OF_SHARED: &[&str] = &["types"];
const UNFINISHED: &[&str] = &["FIXME", "TODO", "XXX", "HACK"];
const UNFINISHED_CODE: &[&str] = &["dbg!", "todo!", "unimplemented!"];

fn names_say_something(source: &Source) -> Vec<String> {
    let core = source.within("shared/src");
    let drawer = |part: &&str| DRAWERS.contains(part) || core && DRAWERS_OF_SHARED.contains(part);
    let parts = source.path.trim_end_matches(".rs").split('/');
    parts.filter(drawer).map(|part| format!("{}: `{part}` is the name of a drawer", source.path)).collect()
}

fn work_is_finished(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    for (number, line) in source.layers.comments.lines().enumerate() {
        let left = UNFINISHED.iter().filter(|word| scan::has_word(line, word));
        found.extend(left.map(|word| format!("{}:{}: {word}", source.path, number + 1)));
    }
    for (number, line) in source.layers.code.lines().enumerate() {
        let left = UNFINISHED_CODE.iter().filter(|word| scan::has_word(line, word));
        found.extend(left.map(|word| format!("{}:{}: {word}", source.path, number + 1)));
    }
    found
}

fn file_says_what_it_is(source: &Source) -> Vec<String> {
    let first = source.raw.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let told = first.strip_prefix("//!").is_some_and(|rest| rest.trim().len() > 7);
    if told {
        Vec::new()
    } else {
        vec![format!("{}: the first line is no `//!` that says what it is", source.path)]
    }
}

fn tests_wait_for_conditions(source: &Source) -> Vec<String> {
    if !source.within("tests/it/") {
        return Vec::new();
    }
    let sleeps = |(_, line): &(usize, &str)| scan::has_word(line, "sleep");
    let tell = |(number, _)| format!("{}:{}: sleeps; wait with `eventually`", source.path, number + 1);
    source.layers.code.lines().enumerate().filter(sleeps).map(tell).collect()
}

/// The invariants of the simulation that its README does not list.
fn invariants_are_listed(sources: &[Source], readme: &str) -> Vec<String> {
    let name = |source: &Source| {
        let name = source.path.strip_prefix("simulations/src/invariants/")?.strip_suffix(".rs")?.to_owned();
        (!readme.contains(&format!("{name}.rs`")))
            .then(|| format!("simulations/README.md: the invariant `{name}` is not in the table"))
    };
    sources.iter().filter_map(name).collect()
}

#[test]
fn no_file_is_a_drawer() {
    check(names_say_something);
}

#[test]
fn nothing_is_left_unfinished() {
    check(work_is_finished);
}

#[test]
fn every_file_says_what_it_is() {
    check(file_says_what_it_is);
}

#[test]
fn no_test_sleeps_for_luck() {
    check(tests_wait_for_conditions);
}

#[test]
fn the_table_of_invariants_is_complete() {
    let sources = super::sources();
    let readme = if root().join("simulations/README.md").exists() {
        read("simulations/README.md")
    } else {
        String::new()
    };
    super::pass(&invariants_are_listed(&sources, &readme));
}

#[test]
fn drawers_are_found() {
    for path in ["hub/src/util.rs", "edge/src/helpers/time.rs", "hub/src/api/mod.rs", "shared/src/types.rs"] {
        assert!(only(&names_say_something(&Source::new(path, ""))).contains("drawer"));
    }
    assert!(names_say_something(&Source::new("proto/src/rest/types.rs", "")).is_empty());
}

#[test]
fn unfinished_work_is_found_in_comments_and_code_but_not_in_text() {
    assert_eq!(only(&work_is_finished(&Source::new("a.rs", "let a = 1;\n// TODO later\n"))), "a.rs:2: TODO");
    assert_eq!(only(&work_is_finished(&Source::new("a.rs", "fn a() { todo!() }"))), "a.rs:1: todo!");
    assert_eq!(only(&work_is_finished(&Source::new("a.rs", "dbg!(a);"))), "a.rs:1: dbg!");
    assert!(work_is_finished(&Source::new("a.rs", "let a = \"FIXME dbg!\";")).is_empty());
}

#[test]
fn a_file_without_a_word_about_itself_is_found() {
    for silent in ["use std::fs;\n//! late\n", "", "//! x\n"] {
        assert!(only(&file_says_what_it_is(&Source::new("a.rs", silent))).starts_with("a.rs"));
    }
    assert!(file_says_what_it_is(&Source::new("a.rs", "//! What this is about.\n")).is_empty());
}

#[test]
fn a_sleeping_test_is_found() {
    let sample = "fn a() { tokio::time::sleep(d).await }";
    assert!(only(&tests_wait_for_conditions(&Source::new("tests/it/a.rs", sample))).contains("sleeps"));
    assert!(tests_wait_for_conditions(&Source::new("edge/src/a.rs", sample)).is_empty());
}

#[test]
fn an_unlisted_invariant_is_found() {
    let sources = [Source::new("simulations/src/invariants/one_winner.rs", "")];
    assert!(only(&invariants_are_listed(&sources, "| `invariants/two_winners.rs` |")).contains("one_winner"));
    assert!(invariants_are_listed(&sources, "| `invariants/one_winner.rs` |").is_empty());
}
