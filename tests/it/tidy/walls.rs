//! The walls between the rooms: which package may name which, and what the pure parts must not name at all.

use super::{Source, check, only, pass, read, scan};

/// What the core may depend on. A new line is a decision about the architecture: its own commit, with its reason.
const SHARED_MAY_USE: &[&str] = &[
    "bytes",
    "chacha20poly1305",
    "flate2",
    "hpke",
    "libdeflater",
    "ring",
    "serde_json",
    "thiserror",
    "uuid",
    "zeroize",
];
/// What the simulation may depend on: no runtime, so that a seed decides everything.
const SIMULATIONS_MAY_USE: &[&str] =
    &["bytes", "clap", "flate2", "llm-config-shared", "rand", "ring", "serde_json", "uuid"];
/// The packages of this workspace that each package may depend on.
const ARROWS: &[(&str, &[&str])] = &[
    ("shared", &[]),
    ("simulations", &["shared"]),
    ("proto", &["shared"]),
    ("shared/keychain", &["shared"]),
    ("hub", &["keychain", "proto", "shared"]),
    ("edge", &["keychain", "proto", "shared"]),
    ("simulations/live", &["proto", "shared"]),
    ("tests", &["edge", "hub", "keychain", "proto", "shared", "simulations"]),
];
/// A crate, and the only places that may name it. Tests see everything.
const ONLY_IN: &[(&str, &[&str])] = &[
    ("sqlx", &["hub/src/journal"]),
    ("sled", &["edge/src/store"]),
    ("prost", &["proto/src"]),
    ("prost_types", &["proto/src"]),
    ("tonic_prost", &["proto/src"]),
    ("utoipa", &["proto/src"]),
    ("secret_service", &["shared/keychain/src"]),
    ("zbus", &["shared/keychain/src"]),
    ("vaultrs", &["hub/src/secrets/vault"]),
    ("rustify", &["hub/src/secrets/vault"]),
    ("reqwest", &["hub/src/rotation", "hub/src/secrets/cloud"]),
    ("aws_config", &["hub/src/secrets/cloud"]),
    ("aws_runtime", &["hub/src/secrets/cloud"]),
    ("aws_sdk_kms", &["hub/src/secrets/cloud"]),
    ("aws_smithy_http_client", &["hub/src/secrets/cloud"]),
    ("azure_core", &["hub/src/secrets/cloud"]),
    ("azure_identity", &["hub/src/secrets/cloud"]),
    ("azure_security_keyvault_keys", &["hub/src/secrets/cloud"]),
];
/// What reads a clock, a random source, a file, a socket or a runtime.
const IMPURE: &[&str] = &[
    "std::env",
    "std::fs",
    "std::net",
    "std::process",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
    "SystemTime",
    "Instant::now",
    "SystemRandom",
    "OsRng",
    "ThreadRng",
    "rand::rng",
    "rand::random",
    "getrandom",
    "new_v4",
    "now_v7",
    "tokio",
    "futures",
    // Their order differs from run to run.
    "HashMap",
    "HashSet",
];

/// The names under `[dependencies]` of a manifest.
fn dependencies(manifest: &str) -> Vec<String> {
    let manifest: toml::Table = manifest.parse().expect("a manifest is TOML");
    let table = manifest.get("dependencies").and_then(toml::Value::as_table);
    table.map(|table| table.keys().cloned().collect()).unwrap_or_default()
}

fn uses_only(package: &str, manifest: &str, allowed: &[&str]) -> Vec<String> {
    let foreign = |name: &String| !allowed.contains(&name.as_str());
    let tell = |name: String| format!("{package} may not depend on {name}: it is not on its list");
    dependencies(manifest).into_iter().filter(foreign).map(tell).collect()
}

fn arrows_run_down(package: &str, manifest: &str, below: &[&str]) -> Vec<String> {
    let up = |name: &String| name.strip_prefix("llm-config-").is_some_and(|own| !below.contains(&own));
    let tell = |name: String| format!("{package} may not name {name}");
    dependencies(manifest).into_iter().filter(up).map(tell).collect()
}

fn crates_stay_in_their_room(source: &Source) -> Vec<String> {
    if source.within("tests/") || source.path == "proto/build.rs" {
        return Vec::new();
    }
    let stray = |(name, rooms): &&(&str, &[&str])| {
        scan::has_word(&source.layers.code, name) && !rooms.iter().any(|room| source.within(room))
    };
    let tell =
        |(name, rooms): &(&str, &[&str])| format!("{}: names {name}, which only {rooms:?} may", source.path);
    ONLY_IN.iter().filter(stray).map(tell).collect()
}

/// The core and the simulated world are pure. The programs of the simulation may measure and use threads.
fn pure_parts_are_pure(source: &Source) -> Vec<String> {
    let pure = source.within("shared/src")
        || source.within("simulations/src") && !source.within("simulations/src/bin");
    if !pure {
        return Vec::new();
    }
    let code = scan::without_tests(&source.layers.code);
    let tell = |word: &&str| format!("{}: names {word}; what it gives must be an argument", source.path);
    IMPURE.iter().filter(|word| scan::has_word(&code, word)).map(tell).collect()
}

#[test]
fn the_core_depends_only_on_what_is_listed() {
    pass(&uses_only("shared", &read("shared/Cargo.toml"), SHARED_MAY_USE));
    pass(&uses_only("simulations", &read("simulations/Cargo.toml"), SIMULATIONS_MAY_USE));
}

#[test]
fn no_arrow_between_packages_runs_up() {
    for (package, below) in ARROWS {
        pass(&arrows_run_down(package, &read(&format!("{package}/Cargo.toml")), below));
    }
}

#[test]
fn every_crate_stays_in_its_room() {
    check(crates_stay_in_their_room);
}

#[test]
fn the_core_and_the_simulated_world_are_pure() {
    check(pure_parts_are_pure);
}

#[test]
fn a_foreign_dependency_is_found() {
    let manifest = "[dependencies]\nbytes.workspace = true\ntokio = { version = \"1\" }\n[dev-dependencies]\nrand = \"1\"\n";
    assert!(only(&uses_only("shared", manifest, SHARED_MAY_USE)).contains("tokio"));
}

#[test]
fn hub_and_edge_naming_each_other_is_found() {
    let manifest =
        "[dependencies]\nllm-config-edge = { path = \"../edge\" }\nllm-config-proto.workspace = true\n";
    assert_eq!(
        only(&arrows_run_down("hub", manifest, &["proto", "shared"])),
        "hub may not name llm-config-edge"
    );
}

#[test]
fn a_crate_outside_its_room_is_found() {
    let sample = "use sqlx::Row;";
    assert!(only(&crates_stay_in_their_room(&Source::new("hub/src/api.rs", sample))).contains("sqlx"));
    for room in ["hub/src/journal.rs", "hub/src/journal/sqlite.rs", "tests/it/a.rs"] {
        assert!(crates_stay_in_their_room(&Source::new(room, sample)).is_empty());
    }
    assert!(only(&crates_stay_in_their_room(&Source::new("hub/src/journals.rs", sample))).contains("sqlx"));
    assert!(crates_stay_in_their_room(&Source::new("hub/src/api.rs", "// unlike sqlx\n")).is_empty());
}

#[test]
fn a_clock_in_the_core_is_found_but_not_in_its_tests() {
    let sample = "fn a() { let now = std::time::SystemTime::now(); }";
    assert_eq!(pure_parts_are_pure(&Source::new("shared/src/a.rs", sample)).len(), 2);
    assert!(
        only(&pure_parts_are_pure(&Source::new("simulations/src/a.rs", "use std::fs;"))).contains("std::fs")
    );
    let test = format!("#[cfg(test)]\nmod tests {{ {sample} }}");
    assert!(pure_parts_are_pure(&Source::new("shared/src/a.rs", &test)).is_empty());
    for elsewhere in ["hub/src/a.rs", "simulations/live/src/a.rs", "simulations/src/bin/simulate.rs"] {
        assert!(pure_parts_are_pure(&Source::new(elsewhere, sample)).is_empty());
    }
}
