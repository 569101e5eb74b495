//! `cargo figures`: the figures that the product is held to, measured on the real programs, each beside a floor of the same
//! run.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, ValueEnum};
use llm_config_live::bench::{Figure, delivery, floor, reads, sizes, writes};
use llm_config_live::measure::milliseconds;
use llm_config_live::process;
use llm_config_live::report::say;
use serde_json::json;

/// Measures the programs on this machine and prints each figure with its floor and what the design asks for.
#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Arguments {
    /// What to measure; everything if left out
    #[arg(value_enum)]
    names: Vec<Name>,
    /// For programs: one JSON object
    #[arg(long)]
    json: bool,
    /// Where the data of a run goes: a folder on a real disk
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    #[arg(long, hide = true)]
    serve_floor: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Name {
    /// Hub write to local read
    Propagation,
    /// First fetch of 10,000 entries, memory, start without a network
    Bootstrap,
    /// What was missed while away
    Catchup,
    /// Real changes of a real catalogue
    Catalogue,
    /// Reads on the local socket
    Reads,
    /// Writes at the hub
    Writes,
    /// The hub's memory per connected edge
    Connected,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(socket) = &arguments.serve_floor {
        return match floor::serve(socket).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        };
    }
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        say("somebody else chose the cryptography of this process");
        return ExitCode::FAILURE;
    }
    match run(&arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(format!("the benchmark could not go on: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let tell = |text: String| {
        if !arguments.json {
            say(text);
        }
    };
    let release = !cfg!(debug_assertions);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let build = if release { "release build" } else { "NOT a release build: these figures say little" };
    tell(format!("{build}, {cores} cores. Building the programs …"));
    process::build().await?;
    let below = arguments.data.clone().unwrap_or_else(|| process::workspace().join("target/bench"));
    let names = if arguments.names.is_empty() { Name::value_variants() } else { &arguments.names };
    let mut all = Vec::new();
    for name in names {
        let begun = Instant::now();
        let figures = match name {
            Name::Propagation => delivery::figures(&below).await?,
            Name::Bootstrap => sizes::bootstrap(&below).await?,
            Name::Catchup => sizes::catch_up(&below).await?,
            Name::Catalogue => sizes::catalogue_change(&below).await?,
            Name::Reads => reads::figures(&below).await?,
            Name::Writes => writes::figures(&below).await?,
            Name::Connected => writes::connected(&below).await?,
        };
        tell(format!("\n{name:?} ({})", milliseconds(begun.elapsed())));
        figures.iter().for_each(|figure| tell(line(figure)));
        all.extend(figures);
    }
    if arguments.json {
        let figures: Vec<_> = all.iter().map(as_json).collect();
        say(json!({"release": release, "cores": cores, "figures": figures}).to_string());
    }
    Ok(())
}

fn number(value: f64) -> String {
    match value.abs() {
        ..10.0 => format!("{value:.3}"),
        ..1_000.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

fn line(figure: &Figure) -> String {
    let floor = match (figure.floor, figure.ratio()) {
        (Some((floor, what)), Some(ratio)) => {
            format!(" = {ratio:.2} × {} {} ({what})", number(floor), figure.unit)
        }
        _ => String::new(),
    };
    let bound = match figure.holds {
        Some(true) => format!("; {}: yes", figure.bound),
        Some(false) => format!("; {}: MISSED", figure.bound),
        None => String::new(),
    };
    format!("  {}: {} {}{floor}{bound}", figure.name, number(figure.value), figure.unit)
}

fn as_json(figure: &Figure) -> serde_json::Value {
    json!({
        "name": figure.name,
        "value": figure.value,
        "unit": figure.unit,
        "floor": figure.floor.map(|(floor, _)| floor),
        "floor_of": figure.floor.map(|(_, what)| what),
        "ratio": figure.ratio(),
        "bound": figure.bound,
        "holds": figure.holds,
    })
}
