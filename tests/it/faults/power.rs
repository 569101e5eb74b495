//! Power cuts: an edge joins, takes changes from its hub and writes of its own while every byte that it writes is recorded, and
//! its replica is opened with its keys as a cut at any moment may have left them ([`llm_config_tests::powercut`]). What
//! had been answered to a client by then is there.

mod driver;
mod left;
mod rewritten;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use llm_config_edge::store::{Opened, Recovery};
use llm_config_shared::store::replica::{Batch, Record, ReplicaStore as _, StateRecord};
use llm_config_tests::Size;
use llm_config_tests::powercut::calls::{Calls, Moment, What};
use llm_config_tests::powercut::disk::{Disk, Fate, Image};
use llm_config_tests::scratch::Scratch;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use self::driver::Driver;
use self::left::{Left, Told, state, wrong};
use super::world::{Replay, base_seed};

/// Images of one cut.
const IMAGES_PER_CUT: usize = 4;
/// Moments of joining and of making files: a quarter of the cuts.
const BEGINNING: usize = 100;
/// So often an image that was opened is written to and opened again.
const GOES_ON_EVERY: usize = 5;

fn lay_out(image: &Image, directory: &Path) {
    let _ = fs::remove_dir_all(directory);
    fs::create_dir_all(directory).unwrap();
    for (name, bytes) in image {
        let path = directory.join(name);
        fs::create_dir_all(path.parent().expect("below the directory")).unwrap();
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }
}

/// A store that recovered takes a batch, and keeps it.
fn goes_on(left: &Left, mut opened: Opened) {
    let session = state(&opened).session + 1;
    let next = StateRecord { session, ..state(&opened) };
    opened.store.commit(&Batch { put: vec![Record::State(next)], remove: Vec::new() }).unwrap();
    let count = opened.records.len();
    drop(opened);
    let again = left.open();
    assert_eq!((again.recovery.as_ref(), state(&again).session), (None, session));
    assert!(again.records.len() >= count, "nothing is lost by going on");
}

/// Moments at which something happens to the disk: between them cuts leave nothing new.
fn cuts(calls: &Calls, count: usize, random: &mut StdRng) -> Vec<usize> {
    let changes = |moment: &Moment| {
        let (Moment::Begins(call) | Moment::Ends(call)) = moment;
        !matches!(calls.all[*call], What::Said(_) | What::Nothing)
    };
    let moments: Vec<usize> = (0..calls.moments.len()).filter(|at| changes(&calls.moments[*at])).collect();
    assert!(moments.len() > BEGINNING + count / 2, "only {} moments to cut at", moments.len());
    let within = |number: usize| if number.is_multiple_of(4) { BEGINNING } else { moments.len() };
    let mut cuts: Vec<usize> =
        (0..count).map(|number| moments[random.random_range(0..within(number))]).collect();
    cuts.sort_unstable();
    cuts
}

fn told_at_end(calls: &Calls) -> Told {
    let mut told = Told::default();
    calls.moments.iter().for_each(|moment| told.listen(calls, *moment));
    told
}

struct Checked {
    images: usize,
    /// Before the edge knew who it is, and had answered anything.
    unjoined: usize,
    rebuilt: usize,
    findings: Vec<String>,
}

impl Checked {
    fn look_at(&mut self, left: &Left, told: &Told, floor: &mut StateRecord, fate: Fate, what: &str) {
        let opened = left.open();
        let wrong = wrong(&opened, told, floor);
        self.rebuilt += usize::from(opened.recovery == Some(Recovery::IndexRebuilt));
        if !wrong.is_empty() {
            return self.findings.push(format!("{what}: {}", wrong.join("; ")));
        }
        if fate == Fate::Nothing {
            *floor = state(&opened);
        }
        if self.images.is_multiple_of(GOES_ON_EVERY) {
            goes_on(left, opened);
        }
    }
}

fn check(calls: &Calls, folder: &Path, images: usize, seed: u64) -> Checked {
    let mut random = StdRng::seed_from_u64(seed);
    let cuts = cuts(calls, images.div_ceil(IMAGES_PER_CUT), &mut random);
    let (mut disk, mut passed, mut told) = (Disk::new(calls), 0, Told::default());
    let mut floor = StateRecord::default();
    let mut checked = Checked { images: 0, unjoined: 0, rebuilt: 0, findings: Vec::new() };
    for cut in cuts {
        for moment in &calls.moments[passed..=cut] {
            disk.pass(*moment);
            told.listen(calls, *moment);
        }
        passed = passed.max(cut + 1);
        for number in 0..IMAGES_PER_CUT {
            let fate = match number {
                0 => Fate::Nothing,
                1 => Fate::Everything,
                _ => Fate::torn(&mut random),
            };
            let what =
                format!("seed {seed}, cut at {cut} of {}, image {number}, {fate:?}", calls.moments.len());
            let _replay = Replay(what.clone());
            let directory = folder.join("image");
            lay_out(&disk.image(fate, &mut random), &directory);
            checked.images += 1;
            match Left::read(&directory) {
                Some(left) => checked.look_at(&left, &told, &mut floor, fate, &what),
                None if told.nothing() => checked.unjoined += 1,
                None => checked.findings.push(format!("{what}: who it is")),
            }
            fs::remove_dir_all(&directory).unwrap();
        }
    }
    checked
}

#[tokio::test(flavor = "multi_thread")]
#[allow(clippy::print_stderr, reason = "how much was checked is a figure")]
async fn what_was_acknowledged_survives_a_power_cut_at_any_moment() {
    let scratch = Scratch::new("power");
    let mut driver = Driver::start(&scratch).await;
    let mut calls = Calls::below(driver.edge.data());
    for life in 0..3 {
        let log = scratch.path(&format!("calls-{life}"));
        driver.life(Size::of_run().pick(6, 10, 25), &log).await;
        calls.add(&log);
        fs::remove_file(&log).unwrap();
    }
    let heard = told_at_end(&calls);
    assert_eq!(
        (heard.writes.len(), heard.round),
        (driver.writes, driver.rounds),
        "every answer was recorded"
    );
    let folder = scratch.path("images");
    let images = Size::of_run().pick(200, 400, 2_000);
    let checked =
        tokio::task::spawn_blocking(move || check(&calls, &folder, images, base_seed())).await.unwrap();
    eprintln!(
        "power was cut {} times, {} of them before the edge had joined; {} times the index was rebuilt",
        checked.images, checked.unjoined, checked.rebuilt
    );
    let shown = checked.findings.len().min(20);
    assert!(
        checked.findings.is_empty(),
        "{} findings: {:#?}",
        checked.findings.len(),
        &checked.findings[..shown]
    );
}
