//! Power cuts: an edge joins, takes changes from its hub and writes of its own while every byte that it writes is recorded, and
//! its replica is opened with its keys as a cut at any moment may have left them ([`llm_config_tests::powercut`]). What
//! had been answered to a client by then is there.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use llm_config_edge::identity::EdgeIdentity;
use llm_config_edge::keys::EdgeKeys;
use llm_config_edge::store::{self, Opened, Owner, Recovery, StoreOptions};
use llm_config_shared::entry::Content;
use llm_config_shared::store::replica::{Batch, Record, ReplicaStore as _, StateRecord};
use llm_config_shared::write::Action;
use llm_config_tests::Size;
use llm_config_tests::edge::Edge;
use llm_config_tests::http::entry;
use llm_config_tests::hub::Hub;
use llm_config_tests::powercut::calls::{Calls, Moment, WATCHED, What};
use llm_config_tests::powercut::disk::{Disk, Fate, Image};
use llm_config_tests::scratch::Scratch;
use llm_config_tests::strace::Injection;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;

use super::world::{Replay, base_seed};

/// Entries that the hub changes in every round, with values of about this many bytes: some rounds fill a segment.
const ENTRIES: usize = 60;
const VALUE_BYTES: usize = 2_000;
/// Images of one cut.
const IMAGES_PER_CUT: usize = 4;
/// Moments of joining and of making files: a quarter of the cuts.
const BEGINNING: usize = 100;
/// So often an image that was opened is written to and opened again.
const GOES_ON_EVERY: usize = 5;

/// What clients had been answered, and so what has to be there.
#[derive(Clone, Debug, Default)]
struct Told {
    /// Own writes, by key.
    writes: Vec<String>,
    /// The newest round of the hub that was read.
    round: usize,
}

impl Told {
    fn nothing(&self) -> bool {
        self.writes.is_empty() && self.round == 0
    }

    /// The edge answers: with the key of a write, or with a value of a round.
    fn hear(&mut self, answer: &[u8]) {
        let text = String::from_utf8_lossy(answer);
        let number = |mark: &str| {
            let rest = text.split_once(mark)?.1;
            rest.get(..4)?.parse::<usize>().ok()
        };
        if let Some(write) = number("own-") {
            self.writes.push(format!("own-{write:04}"));
        }
        self.round = self.round.max(number("round-").unwrap_or(0));
    }
}

struct Driver {
    hub: Hub,
    token: String,
    edge: Edge,
    rounds: usize,
    writes: usize,
}

impl Driver {
    async fn start(scratch: &Scratch) -> Self {
        let hub = Hub::dev(scratch).await;
        let token = scratch.file("e1.join", &hub.open_token("e1").await).display().to_string();
        let mut edge = Edge::at(scratch, "e1");
        edge.injection = Some(Injection::record(WATCHED));
        Self { hub, token, edge, rounds: 0, writes: 0 }
    }

    /// The hub changes everything, and the edge is asked until it shows that.
    async fn round(&mut self) {
        self.rounds += 1;
        let text = format!("round-{:04}", self.rounds);
        let set = |n: usize| {
            let value = json!({"round": text, "text": format!("{n:02}").repeat(VALUE_BYTES / 2)});
            json!({"op": "set", "namespace": "app/hub", "key": format!("h{n:02}"), "env": "development", "value": value})
        };
        let operations: Vec<_> = (0..ENTRIES).map(set).collect();
        self.hub.client().post("/api/v1/configs/bulk", json!({"operations": operations})).await.expect(200);
        let path = entry("app/hub", "h00") + "?env=development";
        let shown = move |value: &serde_json::Value| value["value"]["round"] == text.as_str();
        self.edge.client().until(&path, |answer| answer.status == 200 && shown(&answer.json())).await;
    }

    async fn write(&mut self) {
        self.writes += 1;
        let (key, size) = (format!("own-{:04}", self.writes), 10 << (self.writes % 12));
        let body = json!({"value": "w".repeat(size), "env": "development"});
        let answer = self.edge.client().put(&entry("app", &key), body).await;
        assert!(matches!(answer.status, 200 | 202), "{}", answer.text());
    }

    async fn connected(&self, wanted: bool) {
        self.edge.client().until("/api/v1/edge/status", |answer| answer.json()["connected"] == wanted).await;
    }

    /// One life of the edge, connected for most of it, which it begins by joining if it has not; it ends by a kill.
    async fn life(&mut self, size: usize, log: &Path) {
        self.edge.launch(&["--join-token-file", &self.token]);
        self.edge.client().until("/health/ready", |answer| answer.status == 200).await;
        for _ in 0..size {
            self.round().await;
            self.write().await;
        }
        self.hub.kill();
        self.connected(false).await;
        for _ in 0..2 * size {
            self.write().await;
        }
        self.edge.kill();
        self.hub.start().await;
        fs::copy(self.edge.trace_path(), log).unwrap();
    }
}

/// An edge's folder after a cut.
struct Left {
    owner: Owner,
    keys: EdgeKeys,
    replica: PathBuf,
}

impl Left {
    /// None where it does not know yet who it is.
    fn read(directory: &Path) -> Option<Self> {
        if !EdgeIdentity::exists(directory) {
            return None;
        }
        let identity = EdgeIdentity::load(directory).expect("whole or not there");
        let keys = EdgeKeys::load(directory).expect("there before the identity");
        let owner = Owner { tenant: identity.tenant, edge: identity.edge.0 };
        Some(Self { owner, keys, replica: directory.join("replica") })
    }

    fn open(&self) -> Opened {
        let options = StoreOptions { compact: false, ..StoreOptions::default() };
        store::open(&self.replica, &self.keys.replica, &self.owner, options)
            .expect("a replica opens after a cut")
    }
}

fn state(opened: &Opened) -> StateRecord {
    let found = opened.records.iter().find_map(|record| match record {
        Record::State(state) => Some(state.clone()),
        _ => None,
    });
    found.unwrap_or_default()
}

/// Values by key: own writes from the queue or admitted, the hub's from its rows.
fn values(opened: &Opened) -> BTreeMap<String, String> {
    let mut values = BTreeMap::new();
    for record in &opened.records {
        match record {
            Record::Row(row) => {
                let Content::Plain(value) = &row.content else { panic!("only plain values were written") };
                values.insert(row.at.key.as_str().to_owned(), value.as_str().to_owned());
            }
            Record::Pending(pending) => {
                let Action::Set { value, .. } = &pending.write.action else { panic!("nothing was deleted") };
                values.insert(pending.write.at.key.as_str().to_owned(), value.as_str().to_owned());
            }
            Record::State(_) | Record::Staged(_) | Record::Feed(..) | Record::Grant(_) => {}
        }
    }
    values
}

/// What is wrong with a replica after a cut.
fn wrong(opened: &Opened, told: &Told, floor: &StateRecord) -> Vec<String> {
    let mut wrong = Vec::new();
    if let Some(recovery) = &opened.recovery {
        if !matches!(recovery, Recovery::IndexRebuilt) {
            wrong.push(format!("recovery: {recovery}"));
        }
    }
    let values = values(opened);
    let lost = told.writes.iter().filter(|key| !values.contains_key(*key)).count();
    if lost > 0 {
        wrong.push(format!("of {} acknowledged writes {lost} are lost", told.writes.len()));
    }
    for (key, value) in &values {
        if let Some(number) = key.strip_prefix("own-") {
            let size = 10 << (number.parse::<usize>().expect("a number") % 12);
            if *value != format!("\"{}\"", "w".repeat(size)) {
                wrong.push(format!("{key} has a value that nobody wrote"));
            }
        }
    }
    for n in 0..if told.round > 0 { ENTRIES } else { 0 } {
        let key = format!("h{n:02}");
        let value = values.get(&key).map_or("", String::as_str);
        let round = value.split_once("round-").and_then(|(_, rest)| rest.get(..4)?.parse::<usize>().ok());
        if round.is_none_or(|round| round < told.round) {
            wrong.push(format!("{key} is of round {round:?}, and {} had been read", told.round));
            break;
        }
    }
    let now = state(opened);
    if (now.session, now.counter_ceiling) < (floor.session, floor.counter_ceiling)
        || now.counter_ceiling < floor.counter_ceiling
        || floor.incarnation != 0 && now.incarnation != floor.incarnation
    {
        wrong.push(format!(
            "session, counters or incarnation went back: {:?} after {:?}",
            (now.session, now.counter_ceiling, now.incarnation),
            (floor.session, floor.counter_ceiling, floor.incarnation)
        ));
    }
    wrong
}

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
            if let Moment::Begins(call) = moment
                && let What::Said(answer) = &calls.all[*call]
            {
                told.hear(answer);
            }
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
