//! `cargo quickstart`: the product's main job with real programs on this machine, every step checked and measured.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, bail};
use clap::Parser;
use llm_config_live::measure::milliseconds;
use llm_config_live::process;
use llm_config_live::report::{Report, say};
use llm_config_live::story::{self, BOOSTED, ENVIRONMENT, MODELS, ROUTES, Stage};

/// Builds the programs, starts a hub and two edges, and walks through the main job: fetching, changing, cutting the
/// network, writing on both sides, coming back together.
#[derive(Debug, Parser)]
#[command(name = "quickstart")]
struct Arguments {
    /// End after the story; exit code 0 only if every check passed
    #[arg(long)]
    once: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        say("somebody else chose the cryptography of this process");
        return ExitCode::FAILURE;
    }
    let interrupted = async {
        let ended = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate());
        match ended {
            Ok(mut ended) => tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = ended.recv() => {}
            },
            Err(_) => std::future::pending().await,
        }
    };
    // Whatever ends first: dropping the stage ends every program that was started.
    let outcome = tokio::select! {
        outcome = run(&arguments) => outcome,
        () = interrupted => {
            say("\nEnded. The data is in target/quickstart until the next run.");
            return if arguments.once { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(format!("\nThe quickstart could not go on: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// The folder of the sockets, gone with the run.
struct Sockets(PathBuf);

impl Sockets {
    fn new() -> anyhow::Result<Self> {
        let folder = std::env::temp_dir().join(format!("llmc-{}", std::process::id()));
        std::fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Self(folder))
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

async fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    let begun = Instant::now();
    say("Building the hub and the edge (cargo build --workspace --bins) …");
    process::build().await?;
    say(format!("Built in {}.", milliseconds(begun.elapsed())));

    let target = process::workspace().join("target");
    let data = target.join("quickstart");
    // Not there yet where cargo builds elsewhere.
    std::fs::create_dir_all(&target).with_context(|| format!("cannot make {}", target.display()))?;
    let _lock = lock(&target.join("quickstart.lock"))?;
    if data.exists() {
        std::fs::remove_dir_all(&data).with_context(|| format!("cannot clear {}", data.display()))?;
    }
    std::fs::create_dir_all(&data)?;
    let sockets = Sockets::new()?;

    let mut report = Report::default();
    let told = Instant::now();
    let mut stage = story::start(&data, &sockets.0, &mut report).await?;
    story::tell(&mut stage, &mut report).await?;
    if arguments.once {
        report.step("Everything is asked to end");
        let ended = stage.stop().await?;
        report.check("all three programs end by themselves, in good order", ended);
        return Ok(sum_up(&report, told));
    }
    sum_up(&report, told);
    invite(&stage);
    std::future::pending().await
}

fn lock(path: &Path) -> anyhow::Result<File> {
    let file = File::create(path).with_context(|| format!("cannot open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => bail!("another quickstart is running; end it first"),
        Err(std::fs::TryLockError::Error(error)) => bail!("cannot lock {}: {error}", path.display()),
    }
}

fn sum_up(report: &Report, begun: Instant) -> bool {
    let (checked, failed) = report.outcome();
    if failed.is_empty() {
        say(format!("\nAll {checked} checks passed in {}.", milliseconds(begun.elapsed())));
        return true;
    }
    say(format!("\n{} of {checked} checks did NOT pass:", failed.len()));
    failed.iter().for_each(|fact| say(format!("  ✗ {fact}")));
    false
}

/// What to try next, ready to paste.
fn invite(stage: &Stage) {
    let program = process::programs().unwrap_or_default().join("llm-config");
    let program = program.display();
    let (url, token, ca) = (stage.hub.url(), stage.hub.token_file(), stage.hub.ca_file());
    say("\nEverything stays up until Ctrl-C. In another terminal:\n");
    say(format!("  export LLM_CONFIG_HUB={url} LLM_CONFIG_TOKEN=$(cat {})", token.display()));
    say(format!("  {program} fleet ls"));
    say(format!("  {program} history {ROUTES} {BOOSTED} --env {ENVIRONMENT}"));
    say(format!("  {program} conflicts"));
    say(format!("  {program} set {ROUTES} {BOOSTED} '{{\"model\":\"mine\"}}' --env {ENVIRONMENT}"));
    for site in &stage.sites {
        let socket = site.edge.socket().display();
        say(format!("  {program} get {ROUTES} {BOOSTED} --socket {socket}"));
    }
    if let Some(site) = stage.sites.first() {
        let socket = site.edge.socket().display();
        let models = MODELS.replace('/', "%2F");
        say(format!("  {program} list {MODELS} --socket {socket} | head"));
        say(format!("  curl --unix-socket {socket} http://edge/api/v1/configs/{models}/gpt-4o"));
    }
    say(format!("\n  hub: {url}/api/v1/openapi.json, {url}/metrics"));
    say(format!("  edges connect to https://{}, authority {}", stage.hub.sync_address(), ca.display()));
    say(format!("  data and logs: {}", stage.data.display()));
}
