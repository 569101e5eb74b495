//! `simulate run`: seeds through the real rules. `simulate replay`: one seed again, line by line. `simulate mutants`:
//! every rule off, one after the other, until somebody notices.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that reports to a terminal")]

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use clap::{Args, Parser, Subcommand};
use llm_config_simulations::mutants::{MUTANTS, Mutant, SEEDS_MAX};
use llm_config_simulations::stats::Stats;
use llm_config_simulations::world::{Outcome, Setup, run};
use serde_json::json;

#[derive(Parser)]
#[command(about = "Runs the replication core in a deterministic world")]
struct Arguments {
    /// One JSON object instead of text.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, Args)]
struct Seeds {
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Each so many-th alone: from 4 each fifth is of several regions.
    #[arg(long, default_value_t = 1)]
    every: u64,
}

#[derive(Subcommand)]
enum Command {
    /// Runs seeds; fails at the first violation.
    Run {
        #[command(flatten)]
        seeds: Seeds,
        /// Goes on after a violation, and lists them all.
        #[arg(long)]
        keep_going: bool,
    },
    /// Runs one seed again.
    Replay {
        #[arg(long)]
        seed: u64,
        /// Prints everything that happened.
        #[arg(long)]
        trace: bool,
        /// With this rule switched off.
        #[arg(long)]
        mutant: Option<String>,
    },
    /// Switches every rule off, one after the other; fails if one is not missed.
    Mutants {
        #[arg(long, default_value_t = SEEDS_MAX)]
        seeds: u64,
        /// Only this one.
        #[arg(long)]
        only: Option<String>,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let passed = match arguments.command {
        Command::Run { seeds, keep_going } => run_seeds(seeds, keep_going, arguments.json),
        Command::Replay { seed, trace, mutant } => replay(seed, trace, mutant.as_deref(), arguments.json),
        Command::Mutants { seeds, only } => mutants(seeds, only.as_deref(), arguments.json),
    };
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// All seeds on all cores; the lowest seed that failed, and the sum of what happened.
fn sweep(
    setup: Setup,
    Seeds { seeds, from, every }: Seeds,
    keep_going: bool,
) -> (Stats, u64, Option<Outcome>) {
    let next = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let sum = Mutex::new((Stats::default(), 0, None::<Outcome>));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let turn = next.fetch_add(1, Ordering::Relaxed);
                    if turn >= seeds {
                        return;
                    }
                    let seed = from + turn * every;
                    let outcome = run(seed, setup, false);
                    let mut sum = sum.lock().expect("no thread panics with the lock");
                    sum.0.merge(&outcome.stats);
                    sum.1 += 1;
                    if outcome.violation.is_some() {
                        stop.store(!keep_going, Ordering::Relaxed);
                        if keep_going {
                            print_failure(&outcome);
                        }
                        if sum.2.as_ref().is_none_or(|failed| seed < failed.seed) {
                            sum.2 = Some(outcome);
                        }
                    }
                }
            });
        }
    });
    sum.into_inner().expect("no thread panics with the lock")
}

fn run_seeds(seeds: Seeds, keep_going: bool, as_json: bool) -> bool {
    let begun = Instant::now();
    let repeats = same_seed_same_trace(seeds.from);
    let (stats, done, failed) = sweep(Setup::REAL, seeds, keep_going);
    let seconds = begun.elapsed().as_secs_f64();
    let few_false = 200 * stats.get("false conflicts") <= stats.get("conflicts");
    let passed = failed.is_none() && repeats && few_false;
    if as_json {
        let totals: serde_json::Map<_, _> =
            stats.iter().map(|(name, times)| (name.to_owned(), json!(times))).collect();
        let violation = failed.as_ref().map(describe);
        println!(
            "{}",
            json!({"seeds": done, "seconds": seconds, "totals": totals, "violation": violation, "deterministic": repeats, "passed": passed})
        );
        return passed;
    }
    for (name, times) in stats.iter() {
        println!("{times:>12}  {name}");
    }
    println!("{done} seeds in {seconds:.1} s");
    if !repeats {
        println!("FAILED: the same seed gave another trace");
    }
    if !few_false {
        println!("FAILED: more than 0.5 % of the conflicts were none");
    }
    if let Some(failed) = failed {
        print_failure(&failed);
    }
    passed
}

/// A seed that gives another trace the second time cannot be replayed.
fn same_seed_same_trace(seed: u64) -> bool {
    run(seed, Setup::REAL, false).hash == run(seed, Setup::REAL, true).hash
}

fn describe(outcome: &Outcome) -> serde_json::Value {
    let violation = outcome.violation.as_ref();
    json!({
        "seed": outcome.seed,
        "invariant": violation.map(|violation| violation.invariant),
        "detail": violation.map(|violation| violation.detail.clone()),
        "replay": format!("simulate replay --seed {}", outcome.seed),
    })
}

fn print_failure(failed: &Outcome) {
    if let Some(violation) = &failed.violation {
        println!("FAILED: seed {} breaks \"{}\": {}", failed.seed, violation.invariant, violation.detail);
        println!("simulate replay --seed {} --trace", failed.seed);
    }
}

fn replay(seed: u64, trace: bool, mutant: Option<&str>, as_json: bool) -> bool {
    let setup = match mutant {
        None => Setup::REAL,
        Some(name) => match MUTANTS.iter().find(|mutant| mutant.name == name) {
            Some(mutant) => mutant.setup,
            None => {
                eprintln!("no rule is called {name:?}");
                return false;
            }
        },
    };
    let outcome = run(seed, setup, trace);
    if as_json {
        let mut shown = describe(&outcome);
        shown["hash"] = json!(format!("{:016x}", outcome.hash));
        println!("{shown}");
        return outcome.violation.is_none();
    }
    for line in &outcome.lines {
        println!("{line}");
    }
    println!("seed {seed}: trace {:016x}", outcome.hash);
    print_failure(&outcome);
    outcome.violation.is_none()
}

fn mutants(seeds: u64, only: Option<&str>, as_json: bool) -> bool {
    let mut rows = Vec::new();
    let mut passed = true;
    for mutant in MUTANTS.iter().filter(|mutant| only.is_none_or(|only| only == mutant.name)) {
        let begun = Instant::now();
        let (_, done, failed) = sweep(mutant.setup, Seeds { seeds, from: 0, every: 1 }, false);
        passed &= failed.is_some();
        if !as_json {
            print_mutant(mutant, done, failed.as_ref(), begun.elapsed().as_secs_f64());
        }
        let caught = failed.as_ref().map(describe);
        rows.push(json!({"rule": mutant.rule, "name": mutant.name, "seeds": done, "caught": caught}));
    }
    if as_json {
        println!("{}", json!({"mutants": rows, "passed": passed}));
    }
    passed
}

fn print_mutant(mutant: &Mutant, done: u64, failed: Option<&Outcome>, seconds: f64) {
    let Mutant { name, rule, .. } = mutant;
    match failed.and_then(|failed| Some((failed.seed, failed.violation.as_ref()?))) {
        Some((seed, violation)) => println!(
            "{rule:>6} {name:<22} missed at seed {seed} after {done} seeds, {seconds:.1} s: {} ({})",
            violation.invariant, violation.detail
        ),
        None => println!("{rule:>6} {name:<22} NOT MISSED in {done} seeds, {seconds:.1} s"),
    }
}
