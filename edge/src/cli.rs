//! The command line: `edge …` is about this machine, `fleet …` about the hub's edges, everything else about values.

mod address;
mod changes;
mod conflicts;
mod connection;
mod doctor;
mod document;
mod dotenv;
mod edge;
mod entries;
mod exec;
mod exit;
mod explain;
mod export;
mod exposure;
mod fleet;
mod follow;
mod hygiene;
mod import;
mod inherited;
mod login;
mod offline_limit;
mod output;
mod pace;
mod policy;
mod reading;
mod receipt;
mod rekey;
mod render;
mod secrets;
mod target;
mod typed;
mod versions;
mod wait;
mod watch;
mod whole_file;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};
use clap_complete::Shell;

use connection::Connection;
use exit::Failure;
use target::{Surroundings, TargetArgs};

#[derive(Debug, clap::Parser)]
#[command(
    name = "llm-config",
    version,
    about = "Configuration and secrets that are there when the network is not"
)]
#[command(
    after_help = "Exit codes: 0 done, 1 failed, 2 used wrongly, 3 not found, 4 denied, 5 stale, locked or \
                        incomplete, 6 unreachable"
)]
struct Cli {
    /// For programs: JSON on stdout
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    target: TargetArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Read a value, inherited ones included
    Get(entries::GetArgs),
    /// Write a value
    Set(entries::SetArgs),
    /// Entries of a folder
    #[command(visible_alias = "ls")]
    List(entries::ListArgs),
    /// Delete an entry; its history stays
    Delete(entries::DeleteArgs),
    /// Every write of an entry, losers of conflicts included
    History(versions::HistoryArgs),
    /// Bring an old value back, as a new version
    Rollback(versions::RollbackArgs),
    /// What differs between two versions
    Diff(versions::DiffArgs),
    /// Why a value is what it is: every place that a reader looks in
    Explain(explain::ExplainArgs),
    /// Changes as they happen
    Watch(watch::WatchArgs),
    /// Entries from a JSON, YAML, TOML or dotenv file, as one change
    Import(import::ImportArgs),
    /// Entries into a JSON, YAML, TOML or dotenv file
    Export(export::ExportArgs),
    /// Run a command with values as its environment, and restart it when they change
    Exec(exec::ExecArgs),
    /// Files from templates, written again when values change
    Render(render::RenderArgs),
    #[command(hide = true)]
    ExecStep(exec::StepArgs),
    /// What happened, newest first
    Changes(changes::ChangesArgs),
    /// One change
    #[command(subcommand)]
    Change(changes::ChangeCommand),
    /// Concurrent writes: which there are, both sides, and the loser back by one command
    Conflicts(conflicts::ConflictsArgs),
    /// Writes that wait for a person: which there are, to be released or dropped
    Held(conflicts::HeldArgs),
    /// What a folder does with concurrent writes
    Policy(policy::PolicyArgs),
    /// The life of secrets: which expire, and how they are rotated
    #[command(subcommand)]
    Secrets(secrets::SecretsCommand),
    /// How long an edge may open secrets of a folder without its hub
    OfflineLimit(offline_limit::OfflineLimitArgs),
    /// The hub's edges
    #[command(subcommand)]
    Fleet(fleet::FleetCommand),
    /// What a lost edge could read, as its hub stated it
    #[command(subcommand)]
    Receipt(exposure::ReceiptCommand),
    /// The edge on this machine
    #[command(subcommand)]
    Edge(edge::EdgeCommand),
    /// What a shell needs to complete commands: eval "$(llm-config completions bash)"
    Completions { shell: Shell },
    /// Remember a hub and an API token, for commands that name nothing while no edge runs here
    Login(login::LoginArgs),
    /// Forget them
    Logout,
    /// How what you talk to is doing
    Status,
    /// What is wrong, and what to do about it
    Doctor,
}

/// Runs the command line of this process.
pub(crate) fn main() -> ExitCode {
    // Only fails when somebody was first; then there is a provider.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cli = Cli::parse();
    match run(&cli) {
        Ok(code) => code,
        Err(failure) => {
            output::note(format!("llm-config: {failure}"));
            failure.code()
        }
    }
}

fn run(cli: &Cli) -> Result<ExitCode, Failure> {
    if let Command::Completions { shell } = cli.command {
        return output::line(completions(shell)).map(|()| ExitCode::SUCCESS);
    }
    if let Command::ExecStep(args) = &cli.command {
        return Ok(exec::step(args));
    }
    if let Command::Receipt(command) = &cli.command {
        return exposure::run(command, cli.json).map(|()| ExitCode::SUCCESS);
    }
    if let Command::Edge(command) = &cli.command {
        return edge::run(command, &cli.target, cli.json).map(|()| ExitCode::SUCCESS);
    }
    if let Command::Logout = &cli.command {
        return login::logout(cli.json).map(|()| ExitCode::SUCCESS);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::failed(format!("cannot start: {error}")))?.block_on(ask(cli))
}

/// What a shell needs to complete commands.
fn completions(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "llm-config", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

async fn ask(cli: &Cli) -> Result<ExitCode, Failure> {
    if let Command::Doctor = &cli.command {
        return doctor::doctor(&cli.target, cli.json).await.map(|()| ExitCode::SUCCESS);
    }
    if let Command::Login(args) = &cli.command {
        return login::login(args, &cli.target, cli.json).await.map(|()| ExitCode::SUCCESS);
    }
    let target = target::resolve(&cli.target, &Surroundings::real())?;
    output::hint(format!("→ {target}"));
    let connection = Connection::open(target)?;
    if let Command::Exec(args) = &cli.command {
        return exec::exec(connection, args).await;
    }
    if let Command::Render(args) = &cli.command {
        return render::render(connection, args).await;
    }
    answer(&connection, &cli.command, cli.json).await.map(|()| ExitCode::SUCCESS)
}

/// The commands that are over with their answer.
async fn answer(connection: &Connection, command: &Command, json: bool) -> Result<(), Failure> {
    match command {
        Command::Get(args) => entries::get(connection, args, json).await,
        Command::Set(args) => entries::set(connection, args, json).await,
        Command::List(args) => entries::list(connection, args, json).await,
        Command::Delete(args) => entries::delete(connection, args, json).await,
        Command::History(args) => versions::history(connection, args, json).await,
        Command::Rollback(args) => versions::rollback(connection, args, json).await,
        Command::Diff(args) => versions::diff(connection, args, json).await,
        Command::Explain(args) => explain::explain(connection, args, json).await,
        Command::Watch(args) => watch::watch(connection, args, json).await,
        Command::Import(args) => import::import(connection, args, json).await,
        Command::Export(args) => export::export(connection, args).await,
        Command::Changes(args) => changes::changes(connection, args, json).await,
        Command::Change(command) => changes::change(connection, command, json).await,
        Command::Conflicts(args) => conflicts::conflicts(connection, args, json).await,
        Command::Held(args) => conflicts::held(connection, args, json).await,
        Command::Policy(args) => policy::policy(connection, args, json).await,
        Command::Secrets(command) => secrets::secrets(connection, command, json).await,
        Command::OfflineLimit(args) => offline_limit::offline_limit(connection, args, json).await,
        Command::Fleet(command) => fleet::fleet(connection, command, json).await,
        Command::Status => doctor::status(connection, json).await,
        Command::Edge(_)
        | Command::Receipt(_)
        | Command::Doctor
        | Command::Login(_)
        | Command::Logout
        | Command::Exec(_)
        | Command::ExecStep(_)
        | Command::Render(_)
        | Command::Completions { .. } => Ok(()), // Answered before.
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_commands_are_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn shells_complete_commands_and_their_flags() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = completions(shell);
            assert!(script.contains("render") && script.contains("kill-after"), "{shell}");
        }
    }

    #[test]
    fn documented_lines_are_understood() {
        for line in [
            "llm-config edge join --token-file t --data d",
            "llm-config edge join --hub https://h:8443 --ca c.pem --token-file t --data d --name n --namespaces a,b",
            "llm-config edge run --data d --join-token-file t --socket d/edge.sock --listen 127.0.0.1:7000 --token-file t",
            "llm-config edge join --token-file t --offline-restart file",
            "llm-config edge status --json",
            "llm-config edge leave --data d",
            "llm-config fleet ls --removed",
            "llm-config fleet lost kiosk-7 --dry-run",
            "llm-config fleet lost kiosk-7 -o receipt.json",
            "llm-config fleet exposed",
            "llm-config fleet carry kiosk-7 -o stick",
            "llm-config edge apply stick --data d",
            "llm-config receipt verify receipt.json --ca ca.pem",
            "llm-config edge wipe --data d --force",
            "llm-config fleet ls",
            "llm-config fleet token --name kiosk-7 --namespaces app,edges/kiosk-7 --environments prod --ttl 15m",
            "llm-config fleet remove kiosk-7 --hub https://h:8443 --token-file t",
            "llm-config get app/llm model --env prod --exact --reveal --max-staleness 30s --json",
            "llm-config get app/llm model --version 3 --socket s",
            "llm-config set app/llm temperature -0.5 --if-version 2 --message why",
            "llm-config set app/llm key - --secret",
            "llm-config set app/llm key - --secret --type api_key --expires 90d",
            "llm-config set app/llm key - --secret --expires 2027-01-31T00:00:00Z",
            "llm-config list app/llm --recursive --format yaml",
            "llm-config history app/llm model",
            "llm-config rollback app/llm model 3",
            "llm-config diff app/llm model --from 1 --to 2",
            "llm-config watch app --env prod",
            "llm-config explain app/llm model --env prod --edge kiosk-7 --max-staleness 30s",
            "llm-config import f.json --namespace app --env prod --prune --dry-run",
            "llm-config export --namespace app --env prod --format dotenv",
            "llm-config exec --namespace app --env prod -- env -i --json",
            "llm-config exec -e prod --var KEY=app//k --var T?=app//t --on-change signal:HUP --splay 0s -- server",
            "llm-config exec -n app --overlap --ready http://127.0.0.1:{port}/ --port-var PORT=1,2 -- server",
            "llm-config render a.tmpl --out a.conf -n app -e prod --mode 0640 --watch --command true --splay 1m",
            "llm-config render a.tmpl=a.conf b.tmpl=b.conf",
            "llm-config completions zsh",
            "llm-config login https://h:8443 --ca c.pem --token-file t",
            "llm-config logout --json",
            "llm-config changes",
            "llm-config change undo 0f5a6f6e-53a5-5c34-8c6e-2d9f1f0b7a42 --dry-run",
            "llm-config change show 0f5a6f6e-53a5-5c34-8c6e-2d9f1f0b7a42",
            "llm-config change wait 0f5a6f6e-53a5-5c34-8c6e-2d9f1f0b7a42 --in-use --timeout 5m",
            "llm-config secrets expiring --within 7d",
            "llm-config secrets plan app key --every 90 --grace 7d --length 40",
            "llm-config secrets plan app key --command openai --old-value",
            "llm-config secrets plan app key --remove",
            "llm-config secrets rotate app key --env prod",
            "llm-config secrets rotations app key",
            "llm-config secrets retire app key",
            "llm-config secrets purge app key --version 3",
            "llm-config secrets cipher aes256gcm",
            "llm-config conflicts",
            "llm-config conflicts --state open --limit 5 --json",
            "llm-config conflicts show 0f5a6f6e-53a5-5c34-8c6e-2d9f1f0b7a42 --reveal",
            "llm-config conflicts restore 0f5a6f6e-53a5-5c34-8c6e-2d9f1f0b7a42 --if-version 3 --message why",
            "llm-config conflicts dismiss 0f5a6f6e-53a5-5c34-8c6e-2d9f1f0b7a42",
            "llm-config held",
            "llm-config held release 0f5a6f6e-53a5-5c34-8c6e-2d9f1f0b7a42 --over-secret",
            "llm-config held drop 0f5a6f6e-53a5-5c34-8c6e-2d9f1f0b7a42 --json",
            "llm-config policy app/llm --conflicts hub_wins",
            "llm-config policy app/llm --inherit",
            "llm-config offline-limit app/llm --set 24h",
            "llm-config offline-limit app/llm --inherit --json",
            "llm-config --socket s status",
            "llm-config doctor --json",
        ] {
            if let Err(error) = parse(line) {
                panic!("{line}: {error}");
            }
        }
    }

    #[test]
    fn what_is_used_wrongly_exits_with_2() {
        for line in [
            "llm-config set a k v --type api_key",
            "llm-config set a k v --secret --type password",
            "llm-config",
            "llm-config get app",
            "llm-config get a//b k",
            "llm-config list a --env a/b",
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }
}
