//! What the build is made of: bans and duplicate versions from Cargo.lock, licences from cargo, both against `.deny.toml`.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use super::{only, pass, read, root};

/// What `.deny.toml` says, as far as it is checked here.
struct Policy {
    licences: BTreeSet<String>,
    banned: BTreeSet<String>,
    /// Known duplicates, as `name@version`.
    known: BTreeSet<String>,
}

impl Policy {
    fn parse(text: &str) -> Self {
        let table: toml::Table = text.parse().expect(".deny.toml is TOML");
        let list = |section: &str, field: &str| {
            table[section][field].as_array().unwrap_or_else(|| panic!("{section}.{field} is a list")).clone()
        };
        let text = |value: &toml::Value| value.as_str().expect("a text").to_owned();
        Self {
            licences: list("licenses", "allow").iter().map(text).collect(),
            banned: list("bans", "deny").iter().map(|entry| text(&entry["name"])).collect(),
            known: list("bans", "skip").iter().map(|entry| text(&entry["crate"])).collect(),
        }
    }
}

/// The versions of each package in a lock file, oldest first.
fn versions(lock: &str) -> BTreeMap<String, Vec<String>> {
    let lock: toml::Table = lock.parse().expect("Cargo.lock is TOML");
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in lock["package"].as_array().expect("packages") {
        let field = |name: &str| package[name].as_str().expect("a text").to_owned();
        found.entry(field("name")).or_default().push(field("version"));
    }
    for versions in found.values_mut() {
        versions.sort_by_key(|version| numbers(version));
    }
    found
}

fn numbers(version: &str) -> Vec<u64> {
    version.split(['.', '-', '+']).map_while(|part| part.parse().ok()).collect()
}

fn banned(policy: &Policy, lock: &str) -> Vec<String> {
    let found = versions(lock);
    policy
        .banned
        .iter()
        .filter(|name| found.contains_key(*name))
        .map(|name| format!("{name} is banned"))
        .collect()
}

/// Duplicates that are new, and lines of the list that no duplicate needs any more: the list may only shrink.
fn duplicates(policy: &Policy, lock: &str) -> Vec<String> {
    let older = |(name, versions): (String, Vec<String>)| {
        let older = versions.len() - 1;
        versions.into_iter().take(older).map(move |version| format!("{name}@{version}"))
    };
    let found: BTreeSet<String> = versions(lock).into_iter().flat_map(older).collect();
    let new =
        found.difference(&policy.known).map(|name| format!("{name} is in the build beside a newer version"));
    let gone = policy
        .known
        .difference(&found)
        .map(|name| format!("{name} is no duplicate any more: take it off the list"));
    new.chain(gone).collect()
}

/// Whether an SPDX expression can be met with the allowed licences. `AND` binds closer than `OR`; `/` is the old `OR`.
fn licence_is_allowed(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let text = expression.replace('/', " OR ").replace(['(', ')'], " ");
    let one = |name: &str| allowed.contains(&name.split_whitespace().collect::<Vec<_>>().join(" "));
    if expression.contains('(') {
        // An expression with brackets passes only if every licence in it does: stricter than it says, never laxer.
        return text.replace(" OR ", " AND ").split(" AND ").all(one);
    }
    text.split(" OR ").any(|all| all.split(" AND ").all(one))
}

fn licences(policy: &Policy, packages: &[(String, Option<String>)]) -> Vec<String> {
    let refused = |(name, licence): &(String, Option<String>)| match licence {
        None => Some(format!("{name} names no licence")),
        Some(licence) if licence_is_allowed(licence, &policy.licences) => None,
        Some(licence) => Some(format!("{name} has the licence {licence}, which is not allowed")),
    };
    packages.iter().filter_map(refused).collect()
}

/// Every package of the build on this kind of machine, with its licence.
fn packages() -> Vec<(String, Option<String>)> {
    let rustc = Command::new("rustc").arg("-vV").output().expect("rustc runs");
    let about = String::from_utf8(rustc.stdout).expect("UTF-8");
    let host = about.lines().find_map(|line| line.strip_prefix("host: ")).expect("rustc names its host");
    let told = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--filter-platform", host])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(told.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&told.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&told.stdout).expect("cargo prints JSON");
    let used: BTreeSet<&str> = metadata["resolve"]["nodes"]
        .as_array()
        .expect("nodes")
        .iter()
        .filter_map(|node| node["id"].as_str())
        .collect();
    let packages = metadata["packages"].as_array().expect("packages").iter();
    packages
        .filter(|package| package["id"].as_str().is_some_and(|id| used.contains(id)))
        .map(|package| {
            let name = package["name"].as_str().expect("a name").to_owned();
            (name, package["license"].as_str().map(str::to_owned))
        })
        .collect()
}

#[test]
fn nothing_banned_is_in_the_build() {
    pass(&banned(&Policy::parse(&read(".deny.toml")), &read("Cargo.lock")));
}

#[test]
fn duplicate_versions_do_not_grow() {
    pass(&duplicates(&Policy::parse(&read(".deny.toml")), &read("Cargo.lock")));
}

#[test]
fn every_licence_is_on_the_list() {
    let packages = packages();
    assert!(packages.len() > 100, "only {} packages", packages.len());
    pass(&licences(&Policy::parse(&read(".deny.toml")), &packages));
}

const POLICY: &str = r#"
[licenses]
allow = ["MIT", "Apache-2.0", "ISC"]
[bans]
deny = [{ name = "openssl", reason = "r" }]
skip = [{ crate = "rand@0.9.5" }]
"#;

fn lock(packages: &[(&str, &str)]) -> String {
    packages
        .iter()
        .map(|(name, version)| format!("[[package]]\nname = \"{name}\"\nversion = \"{version}\"\n"))
        .collect()
}

#[test]
fn a_banned_package_is_found() {
    let policy = Policy::parse(POLICY);
    assert_eq!(
        only(&banned(&policy, &lock(&[("openssl", "0.10.1"), ("ring", "0.17.0")]))),
        "openssl is banned"
    );
}

#[test]
fn a_new_duplicate_and_a_stale_line_are_found() {
    let policy = Policy::parse(POLICY);
    let known = [("rand", "0.9.5"), ("rand", "0.10.4")];
    assert!(duplicates(&policy, &lock(&known)).is_empty());
    let new = [known[0], known[1], ("syn", "2.0.1"), ("syn", "3.0.0")];
    assert!(only(&duplicates(&policy, &lock(&new))).starts_with("syn@2.0.1"));
    assert!(only(&duplicates(&policy, &lock(&known[1..]))).contains("take it off"));
}

#[test]
fn a_licence_off_the_list_is_found() {
    let policy = Policy::parse(POLICY);
    for fine in
        ["MIT", "MIT/Apache-2.0", "GPL-3.0 OR MIT", "Apache-2.0 AND ISC", "(MIT OR Apache-2.0) AND ISC"]
    {
        assert!(licence_is_allowed(fine, &policy.licences), "{fine}");
    }
    for refused in ["GPL-3.0", "MIT AND GPL-3.0", "(MIT OR GPL-3.0) AND ISC", ""] {
        assert!(!licence_is_allowed(refused, &policy.licences), "{refused}");
    }
    let packages = [("a".to_owned(), Some("GPL-3.0".to_owned())), ("b".to_owned(), None)];
    assert_eq!(licences(&policy, &packages).len(), 2);
}
