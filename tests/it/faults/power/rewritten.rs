//! Power cuts while a replica whose files have grown is written anew: a cut at any moment leaves one whole replica.

use std::fs;
use std::path::{Path, PathBuf};

use llm_config_edge::store::{self, Opened, Owner, Recovery, StoreOptions};
use llm_config_shared::name::Tenant;
use llm_config_shared::seal::SealKey;
use llm_config_shared::store::replica::{Batch, Record, ReplicaStore as _, StateRecord};
use llm_config_tests::Size;
use llm_config_tests::powercut::calls::{Calls, Moment, WATCHED, What};
use llm_config_tests::powercut::disk::{Disk, Fate, Image};
use llm_config_tests::scratch::Scratch;
use llm_config_tests::strace::Injection;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use uuid::Uuid;

use super::super::world::{Replay, base_seed};
use super::lay_out;

/// Where the process under `strace` has its replica.
const FOLDER: &str = "LLM_CONFIG_TEST_REWRITTEN";
/// How often it wrote its one record by then.
const SESSIONS: u64 = 400;
const IMAGES_PER_CUT: usize = 3;

fn open(replica: &Path, compact_from: Option<u64>) -> Opened {
    let owner = Owner { tenant: Tenant::parse("t").unwrap(), edge: Uuid::from_u128(1) };
    let options = StoreOptions { compact_from, ..StoreOptions::default() };
    store::open(replica, &SealKey::new([7; 32]), &owner, options).expect("a replica opens after a cut")
}

fn session(opened: &Opened) -> Option<u64> {
    opened.records.iter().find_map(|record| match record {
        Record::State(state) => Some(state.session),
        _ => None,
    })
}

#[test]
#[ignore = "the process that the test below records"]
fn a_replica_is_filled_and_written_anew() {
    let folder = PathBuf::from(std::env::var_os(FOLDER).expect("it is started by the test below"));
    let mut opened = open(&folder.join("replica"), None);
    for session in 1..=SESSIONS {
        let state = StateRecord { session, ..StateRecord::default() };
        opened.store.commit(&Batch { put: vec![Record::State(state)], remove: Vec::new() }).unwrap();
    }
    drop(opened);
    fs::create_dir(folder.join("filled")).unwrap();
    drop(open(&folder.join("replica"), Some(0)));
}

/// All that the process did to the disk.
fn recorded(scratch: &Scratch) -> Calls {
    let (folder, log) = (scratch.path("edge"), scratch.path("calls"));
    fs::create_dir(&folder).unwrap();
    let mut command = Injection::record(WATCHED).command(&std::env::current_exe().unwrap(), &log);
    let name = "faults::power::rewritten::a_replica_is_filled_and_written_anew";
    let said = command.args(["--exact", name, "--include-ignored"]).env(FOLDER, &folder).output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stdout));
    let mut calls = Calls::below(&folder);
    calls.add(&log);
    calls
}

/// From the moment on at which all was in the old files.
fn rewriting(calls: &Calls) -> Vec<usize> {
    let filled = |moment: &Moment| {
        let (Moment::Begins(call) | Moment::Ends(call)) = moment;
        matches!(&calls.all[*call], What::Folder(folder) if folder.ends_with("filled"))
    };
    let begins = calls.moments.iter().position(filled).expect("it was filled");
    let changes = |at: &usize| {
        let (Moment::Begins(call) | Moment::Ends(call)) = calls.moments[*at];
        !matches!(calls.all[call], What::Said(_) | What::Nothing)
    };
    (begins..calls.moments.len()).filter(changes).collect()
}

/// What is wrong with what a cut left.
fn wrong(image: &Image, folder: &Path) -> Option<String> {
    lay_out(image, folder);
    let opened = open(&folder.join("replica"), Some(0));
    let whole = matches!(opened.recovery, None | Some(Recovery::IndexRebuilt));
    if !whole || session(&opened) != Some(SESSIONS) {
        return Some(format!("{:?}, session {:?}", opened.recovery, session(&opened)));
    }
    drop(opened);
    let left: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    let beside = left.iter().any(|name| name.to_string_lossy().starts_with("replica."));
    beside.then(|| format!("it lies beside another: {left:?}"))
}

#[test]
#[allow(clippy::print_stderr, reason = "how much was checked is a figure")]
fn a_power_cut_while_files_are_written_anew_leaves_one_whole_replica() {
    let scratch = Scratch::new("power-rewritten");
    let calls = recorded(&scratch);
    let moments = rewriting(&calls);
    let renames =
        calls.all.iter().filter(|what| matches!(what, What::Rename(from, _) if from.ends_with("replica")));
    assert_eq!(renames.count(), 1, "the files were written anew");

    let mut random = StdRng::seed_from_u64(base_seed());
    let share = Size::of_run().pick(0.3, 0.5, 1.0);
    let (mut disk, mut passed, mut images) = (Disk::new(&calls), 0, 0);
    let cuts: Vec<usize> = moments.into_iter().filter(|_| random.random_bool(share)).collect();
    for cut in cuts {
        calls.moments[passed..=cut].iter().for_each(|moment| disk.pass(*moment));
        passed = cut + 1;
        for number in 0..IMAGES_PER_CUT {
            let fate = match number {
                0 => Fate::Nothing,
                1 => Fate::Everything,
                _ => Fate::torn(&mut random),
            };
            let what = format!("cut at {cut} of {}, {fate:?}", calls.moments.len());
            let _replay = Replay(what.clone());
            images += 1;
            let found = wrong(&disk.image(fate, &mut random), &scratch.path("image"));
            assert_eq!(found, None, "{what}");
        }
    }
    eprintln!("power was cut {images} times while files were written anew");
    assert!(images > 50, "only {images}");
}
