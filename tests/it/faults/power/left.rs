//! What is left of an edge after a cut, and what has to be there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use llm_config_edge::identity::EdgeIdentity;
use llm_config_edge::keys::EdgeKeys;
use llm_config_edge::store::{self, Opened, Owner, Recovery, StoreOptions};
use llm_config_shared::entry::Content;
use llm_config_shared::store::replica::{Record, StateRecord};
use llm_config_shared::write::Action;
use llm_config_tests::powercut::calls::{Calls, Moment, What};

use super::driver::{ENTRIES, own_value};

/// What clients had been answered, and so what has to be there.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    /// Own writes, by key.
    pub(super) writes: Vec<String>,
    /// The newest round of the hub that was read.
    pub(super) round: usize,
}

impl Told {
    /// Nobody was answered yet.
    pub(super) fn nothing(&self) -> bool {
        self.writes.is_empty() && self.round == 0
    }

    /// Whatever is answered is promised from the moment at which it is sent.
    pub(super) fn listen(&mut self, calls: &Calls, moment: Moment) {
        if let Moment::Begins(call) = moment
            && let What::Said(answer) = &calls.all[call]
        {
            self.hear(answer);
        }
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

/// An edge's folder after a cut.
pub(super) struct Left {
    owner: Owner,
    keys: EdgeKeys,
    replica: PathBuf,
}

impl Left {
    /// None where it does not know yet who it is.
    pub(super) fn read(directory: &Path) -> Option<Self> {
        if !EdgeIdentity::exists(directory) {
            return None;
        }
        let identity = EdgeIdentity::load(directory).expect("whole or not there");
        let keys = EdgeKeys::load(directory).expect("there before the identity");
        let owner = Owner { tenant: identity.tenant, edge: identity.edge.0 };
        Some(Self { owner, keys, replica: directory.join("replica") })
    }

    /// With whatever has to be done for it.
    pub(super) fn open(&self) -> Opened {
        let options = StoreOptions { compact_from: None, ..StoreOptions::default() };
        store::open(&self.replica, &self.keys.replica, &self.owner, options)
            .expect("a replica opens after a cut")
    }
}

/// Numbers that must never go back.
pub(super) fn state(opened: &Opened) -> StateRecord {
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
            Record::State(_)
            | Record::Staged(_)
            | Record::Stage(..)
            | Record::Feed(..)
            | Record::Grant(_)
            | Record::Kept(_) => {}
        }
    }
    values
}

/// What is wrong with a replica after a cut.
pub(super) fn wrong(opened: &Opened, told: &Told, floor: &StateRecord) -> Vec<String> {
    let mut wrong = Vec::new();
    if let Some(recovery) = &opened.recovery
        && *recovery != Recovery::IndexRebuilt
    {
        wrong.push(format!("recovery: {recovery}"));
    }
    let values = values(opened);
    let lost = told.writes.iter().filter(|key| !values.contains_key(*key)).count();
    if lost > 0 {
        wrong.push(format!("of {} acknowledged writes {lost} are lost", told.writes.len()));
    }
    for (key, value) in &values {
        if let Some(number) = key.strip_prefix("own-") {
            let number = number.parse().expect("a number");
            if *value != format!("\"{}\"", own_value(number)) {
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
