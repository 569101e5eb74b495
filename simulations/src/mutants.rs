//! Every rule switched off, one after the other: a rule whose absence nobody notices is no rule.

use llm_config_shared::offline::GateRules;
use llm_config_shared::replication::rules::Rules;

use crate::secrets::SecretRules;
use crate::world::Setup;

/// One rule, and the product without it.
#[derive(Clone, Copy, Debug)]
pub struct Mutant {
    pub name: &'static str,
    /// Where PROTOCOL's text has the rule.
    pub rule: &'static str,
    pub setup: Setup,
}

/// Within so many seeds each must be noticed.
pub const SEEDS_MAX: u64 = 5_000;

/// A disk that rots would show the lack of rules that are about something else.
const fn without(rules: Rules) -> Setup {
    Setup { rules, rot: !rules.digest, ..Setup::REAL }
}

const ALL: Rules = Rules::ALL;

/// As [`without`], of the world of secrets.
const fn unguarded(secrets: SecretRules) -> Setup {
    Setup { secrets, ..Setup::REAL }
}

const SECRETS: SecretRules = SecretRules::ALL;
const GATE: GateRules = GateRules::ALL;

/// The table.
pub const MUTANTS: &[Mutant] = &[
    Mutant { name: "dominance", rule: "2.7 1", setup: without(Rules { dominance: false, ..ALL }) },
    Mutant { name: "floor", rule: "2.7 2", setup: without(Rules { floor: false, ..ALL }) },
    Mutant { name: "one snapshot", rule: "2.7 3", setup: Setup { one_snapshot: false, ..Setup::REAL } },
    Mutant { name: "horizon", rule: "2.7 3", setup: Setup { horizon: false, ..Setup::REAL } },
    Mutant {
        name: "horizon of what is held",
        rule: "2.7 3",
        setup: Setup { held_horizon: false, ..Setup::REAL },
    },
    Mutant {
        name: "returned change",
        rule: "2.7 5",
        setup: without(Rules { returned_change: false, ..ALL }),
    },
    Mutant { name: "held fits", rule: "2.12", setup: without(Rules { held_fits: false, ..ALL }) },
    Mutant { name: "held last", rule: "2.12", setup: without(Rules { held_last: false, ..ALL }) },
    Mutant { name: "stubs", rule: "2.8", setup: Setup { stubs: false, ..Setup::REAL } },
    Mutant {
        name: "apply: continuity",
        rule: "2.7 4",
        setup: without(Rules { continuity: false, skip_covered: false, ..ALL }),
    },
    Mutant { name: "apply: vector last", rule: "2.7 4", setup: without(Rules { vector_last: false, ..ALL }) },
    Mutant {
        name: "outbox: hide by row",
        rule: "2.7 5",
        setup: without(Rules { hide_by_row: false, ..ALL }),
    },
    Mutant {
        name: "counter ceiling",
        rule: "2.7 6",
        setup: without(Rules { counter_ceiling: false, ..ALL }),
    },
    Mutant { name: "clones", rule: "2.7 7", setup: without(Rules { clones: false, ..ALL }) },
    Mutant { name: "durable first", rule: "2.7 8", setup: without(Rules { durable_first: false, ..ALL }) },
    Mutant { name: "clock receives", rule: "2.2", setup: without(Rules { clock_receive: false, ..ALL }) },
    Mutant { name: "hybrid restamp", rule: "2.2", setup: without(Rules { restamp_hybrid: false, ..ALL }) },
    Mutant { name: "fence", rule: "2.4", setup: Setup { fence: false, ..Setup::REAL } },
    Mutant { name: "vector per feed", rule: "2.1", setup: without(Rules { vector_per_feed: false, ..ALL }) },
    Mutant { name: "digest", rule: "2.11", setup: without(Rules { digest: false, ..ALL }) },
    Mutant { name: "lost history", rule: "2.4", setup: without(Rules { lost_history: false, ..ALL }) },
    Mutant { name: "patch base", rule: "2.5", setup: without(Rules { patch_base: false, ..ALL }) },
    Mutant { name: "restamp winner", rule: "2.13", setup: without(Rules { restamp_winner: false, ..ALL }) },
    Mutant { name: "restamp loser", rule: "2.14", setup: without(Rules { restamp_loser: false, ..ALL }) },
    Mutant { name: "own by counter", rule: "2.13", setup: without(Rules { own_by_counter: false, ..ALL }) },
    Mutant { name: "regions judge", rule: "2.14", setup: without(Rules { judge_regions: false, ..ALL }) },
    Mutant { name: "base by change", rule: "2.13", setup: without(Rules { base_change: false, ..ALL }) },
    Mutant { name: "region copies", rule: "2.14", setup: without(Rules { region_copies: false, ..ALL }) },
    Mutant { name: "region ties", rule: "2.14", setup: without(Rules { region_ties: false, ..ALL }) },
    Mutant { name: "region times", rule: "2.14", setup: without(Rules { region_times: false, ..ALL }) },
    Mutant { name: "region versions", rule: "2.14", setup: without(Rules { region_versions: false, ..ALL }) },
    Mutant { name: "region epochs", rule: "2.14", setup: without(Rules { region_epochs: false, ..ALL }) },
    Mutant { name: "bookmarks", rule: "2.14", setup: Setup { bookmarks: false, ..Setup::REAL } },
    Mutant { name: "age of files", rule: "2.7 1", setup: without(Rules { carried_age: false, ..ALL }) },
    Mutant { name: "gaps before files", rule: "2.7 4", setup: without(Rules { carried_gap: false, ..ALL }) },
    Mutant { name: "grace", rule: "2.7 5", setup: without(Rules { grace: false, ..ALL }) },
    Mutant {
        name: "limit: session",
        rule: "2.10",
        setup: unguarded(SecretRules { gate: GateRules { session: false, ..GATE }, ..SECRETS }),
    },
    Mutant {
        name: "limit: reboots",
        rule: "2.10",
        setup: unguarded(SecretRules { gate: GateRules { reboots: false, ..GATE }, ..SECRETS }),
    },
    Mutant {
        name: "limit: tightest",
        rule: "2.10",
        setup: unguarded(SecretRules { gate: GateRules { tightest: false, ..GATE }, ..SECRETS }),
    },
    Mutant {
        name: "limit: boot clock",
        rule: "2.10",
        setup: unguarded(SecretRules { boot_clock: false, ..SECRETS }),
    },
    Mutant { name: "limit: kept", rule: "2.10", setup: unguarded(SecretRules { kept: false, ..SECRETS }) },
    Mutant {
        name: "limit: forgotten",
        rule: "2.10",
        setup: unguarded(SecretRules { forgotten: false, ..SECRETS }),
    },
    Mutant {
        name: "removed: wiped",
        rule: "2.10",
        setup: unguarded(SecretRules { wiped: false, ..SECRETS }),
    },
    Mutant {
        name: "lost: new keys",
        rule: "2.10",
        setup: unguarded(SecretRules { new_keys: false, ..SECRETS }),
    },
    Mutant {
        name: "ledger first",
        rule: "2.10",
        setup: unguarded(SecretRules { ledger_first: false, ..SECRETS }),
    },
    Mutant {
        name: "rotation: once",
        rule: "2.10",
        setup: unguarded(SecretRules { written_once: false, ..SECRETS }),
    },
    Mutant {
        name: "rotation: overtaken",
        rule: "2.10",
        setup: unguarded(SecretRules { overtaken: false, ..SECRETS }),
    },
    Mutant {
        name: "in use: lost edges",
        rule: "2.10",
        setup: unguarded(SecretRules { lost_leave: false, ..SECRETS }),
    },
    Mutant {
        name: "in use: gathering",
        rule: "2.10",
        setup: unguarded(SecretRules { gathering: false, ..SECRETS }),
    },
    Mutant {
        name: "in use: files",
        rule: "2.10",
        setup: unguarded(SecretRules { file_order: false, ..SECRETS }),
    },
    Mutant { name: "continuity only", rule: "2.7 4", setup: without(Rules { continuity: false, ..ALL }) },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::run;

    #[test]
    fn rules_that_are_missed_at_once_are_missed() {
        for name in [
            "one snapshot",
            "apply: vector last",
            "outbox: hide by row",
            "counter ceiling",
            "digest",
            "clones",
            "horizon",
            "horizon of what is held",
            "held fits",
            "held last",
            "stubs",
            "durable first",
        ] {
            let mutant = MUTANTS.iter().find(|mutant| mutant.name == name).unwrap();
            let caught = (0..40).any(|seed| run(seed, mutant.setup, false).violation.is_some());
            assert!(caught, "{name}");
        }
    }

    #[test]
    fn every_rule_has_its_own_switch() {
        for (n, mutant) in MUTANTS.iter().enumerate() {
            assert_ne!(mutant.setup, Setup::REAL, "{}", mutant.name);
            assert!(MUTANTS[..n].iter().all(|other| other.setup != mutant.setup), "{}", mutant.name);
        }
    }
}
