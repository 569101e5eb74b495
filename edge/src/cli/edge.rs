//! The edge on this machine: join, run, status, files, leave.

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use http::Method;
use llm_config_edge::clock::Clock;
use llm_config_edge::identity::EdgeIdentity;
use llm_config_edge::join::{self, JoinError, JoinOptions, REPLICA};
use llm_config_edge::keeper::KeyChoice;
use llm_config_edge::keys::EdgeKeys;
use llm_config_edge::memory::{self, LockMemory};
use llm_config_edge::offline::OfflineRestart;
use llm_config_edge::run::{self, RunError, RunOptions, SOCKET};
use llm_config_edge::serve::unix::DirectoryLock;
use llm_config_edge::store::{self, Owner, StoreOptions};
use llm_config_edge::telemetry;
use llm_config_edge::wipe;
use llm_config_shared::name::{EdgeName, Subtree};
use llm_config_shared::store::replica::Record;
use serde_json::json;

use super::address::Address;
use super::connection::Connection;
use super::exit::{Exit, Failure};
use super::hygiene;
use super::output;
use super::rekey::{RekeyArgs, rekey};
use super::target::{self, Surroundings, Target, TargetArgs};

mod carried;
mod status;

use carried::{apply, carry};
pub(crate) use status::tell;

#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum EdgeCommand {
    /// Join a hub with a token; done once
    Join(JoinArgs),
    /// Serve this machine from the replica, with or without a network
    Run(RunArgs),
    /// What the edge holds, how old it is, what waits to be sent
    Status(StatusArgs),
    /// Leave the hub and delete the replica
    Leave(LeaveArgs),
    /// Into a file the writes that wait for the hub: llm-config fleet apply FILE there
    Carry(CarryArgs),
    /// Take in a file of `fleet carry`, without the hub: entries, keys and the offline limit
    Apply(ApplyArgs),
    /// Give the keys of an edge that has joined to another keeper, while it is stopped
    Rekey(RekeyArgs),
    /// Destroy keys and replica at once, whatever still waits, and tell the hub
    Wipe(WipeArgs),
}

/// Where the edge keeps its data.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct DataArgs {
    /// Folder of the edge's data [default: the system's state folder for root, yours for others]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

impl DataArgs {
    pub(super) fn folder(&self) -> PathBuf {
        self.data.clone().unwrap_or_else(target::default_data)
    }
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct JoinArgs {
    /// Address of the hub's sync port; the token knows it
    #[arg(long, value_name = "URL")]
    hub: Option<String>,
    /// File with the hub's certificate authority; the token knows its fingerprint
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// File with the join token
    #[arg(long, value_name = "FILE")]
    token_file: PathBuf,
    #[command(flatten)]
    data: DataArgs,
    /// The edge's name, where the token leaves a choice
    #[arg(long, value_parser = |text: &str| EdgeName::parse(text))]
    name: Option<EdgeName>,
    /// What you expect to receive; joining fails where the token says otherwise
    #[arg(long, value_delimiter = ',', value_parser = |text: &str| Subtree::parse(text))]
    namespaces: Vec<Subtree>,
    /// Who keeps the edge's keys: auto, tpm, systemd-creds, keychain, vault or file
    #[arg(long, value_name = "WHERE", default_value = "auto", value_parser = |text: &str| text.parse::<KeyChoice>())]
    key: KeyChoice,
    /// What becomes of secrets when the edge starts without its hub: never (they stay locked until it is reached), tpm or file
    #[arg(long, value_name = "WHERE", default_value = "never", value_parser = |text: &str| text.parse::<OfflineRestart>())]
    offline_restart: OfflineRestart,
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    data: DataArgs,
    /// Join first with this token, if that was not done yet
    #[arg(long, value_name = "FILE")]
    join_token_file: Option<PathBuf>,
    /// Socket to serve on [default: DIR/edge.sock]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Also serve on a port of the loopback, to callers with the token of --token-file
    #[arg(long, value_name = "ADDRESS", requires = "token_file")]
    listen: Option<SocketAddr>,
    /// File with the token that callers on --listen need
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Choose anew what becomes of secrets at a start without the hub: never, tpm or file [default: as chosen at join]
    #[arg(long, value_name = "WHERE", value_parser = |text: &str| text.parse::<OfflineRestart>())]
    offline_restart: Option<OfflineRestart>,
    /// Keep all memory of the daemon out of swap: auto (where the system allows it), always or never
    #[arg(long, value_name = "WHEN", default_value = "auto", value_parser = |text: &str| text.parse::<LockMemory>())]
    lock_memory: LockMemory,
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    data: DataArgs,
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct LeaveArgs {
    #[command(flatten)]
    data: DataArgs,
    /// Also when writes are still waiting to be sent: they are lost
    #[arg(long)]
    force: bool,
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ApplyArgs {
    /// The file that was carried here
    file: PathBuf,
    #[command(flatten)]
    data: DataArgs,
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct CarryArgs {
    /// The file to write; only the hub can read it
    #[arg(long, short, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    data: DataArgs,
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct WipeArgs {
    #[command(flatten)]
    data: DataArgs,
    /// Yes, destroy it: nothing brings it back
    #[arg(long, required = true)]
    force: bool,
}

/// Runs a command about this machine's edge.
pub(crate) fn run(command: &EdgeCommand, target: &TargetArgs, json: bool) -> Result<(), Failure> {
    match command {
        EdgeCommand::Run(args) => serve(args),
        EdgeCommand::Join(args) => without_traces()?.block_on(join(args, json)),
        EdgeCommand::Status(args) => one_task()?.block_on(status(args, target, json)),
        EdgeCommand::Leave(args) => leave(args, json),
        EdgeCommand::Apply(args) => one_task()?.block_on(apply(args, target, json)),
        EdgeCommand::Rekey(args) => {
            hygiene::leave_no_traces()?;
            rekey(args, json)
        }
        EdgeCommand::Wipe(args) => without_traces()?.block_on(wipe(args, json)),
        EdgeCommand::Carry(args) => one_task()?.block_on(carry(args, target, json)),
    }
}

/// For a command that has the edge's keys in memory.
fn without_traces() -> Result<tokio::runtime::Runtime, Failure> {
    hygiene::leave_no_traces()?;
    one_task()
}

fn one_task() -> Result<tokio::runtime::Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::failed(format!("cannot start: {error}")))
}

async fn join(args: &JoinArgs, json: bool) -> Result<(), Failure> {
    let directory = args.data.folder();
    let options = JoinOptions {
        directory: directory.clone(),
        token_file: args.token_file.clone(),
        hub: args.hub.clone(),
        ca_file: args.ca.clone(),
        name: args.name.clone(),
        namespaces: args.namespaces.clone(),
        key: args.key,
        offline_restart: args.offline_restart,
    };
    let joined = join::join(&options).await.map_err(|error| not_joined(&error))?;
    joined.warnings.iter().for_each(|warning| output::note(format!("note: {warning}")));
    let identity = &joined.identity;
    if json {
        let told = json!({
            "name": identity.name.to_string(), "id": identity.edge.0.to_string(), "hub": identity.hub,
            "tenant": identity.tenant.to_string(), "data": directory, "warnings": joined.warnings,
        });
        return output::line(told.to_string());
    }
    output::line(format!("joined {} as {}; now run: {}", identity.hub, identity.name, run_line(&directory)))
}

fn run_line(directory: &Path) -> String {
    if directory == target::default_data() {
        return "llm-config edge run".to_owned();
    }
    format!("llm-config edge run --data {}", directory.display())
}

pub(super) fn not_joined(error: &JoinError) -> Failure {
    let exit = match error {
        JoinError::Token(_)
        | JoinError::Address(_)
        | JoinError::OtherCa(_)
        | JoinError::AlreadyJoined { .. }
        | JoinError::NeedsTpm(_)
        | JoinError::File { .. } => Exit::Usage,
        error if error.may_pass() => Exit::Unreachable,
        JoinError::Hub(_) => Exit::Denied,
        JoinError::Tls(_)
        | JoinError::Keys(_)
        | JoinError::Identity(_)
        | JoinError::Statement(_)
        | JoinError::OldStatement
        | JoinError::Removal(_)
        | JoinError::CaChanged
        | JoinError::Certificate(_)
        | JoinError::Kept(_)
        | JoinError::Wiped
        | JoinError::Running(_) => Exit::Failed,
    };
    Failure::new(exit, error.to_string())
}

fn serve(args: &RunArgs) -> Result<(), Failure> {
    telemetry::init_log();
    if let Err(failure) = hygiene::no_core() {
        tracing::warn!(%failure, "core dumps would hold keys");
    }
    memory::keep_out_of_swap(args.lock_memory)
        .map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let options = RunOptions {
        directory: args.data.folder(),
        join_token_file: args.join_token_file.clone(),
        socket: args.socket.clone(),
        listen: args.listen,
        token_file: args.token_file.clone(),
        offline_restart: args.offline_restart,
        store: StoreOptions::default(),
    };
    let runtime = runtime.map_err(|error| Failure::failed(format!("cannot start: {error}")))?;
    runtime.block_on(run::run(options)).map_err(|error| {
        if let RunError::Join(error) = &error {
            not_joined(error)
        } else {
            Failure::failed(error.to_string())
        }
    })
}

/// The edge of this machine, whichever way it was named.
fn this_edge(data: &DataArgs, target: &TargetArgs) -> Result<Connection, Failure> {
    let target = match &data.data {
        Some(data) if target.socket.is_none() => Target::Edge { socket: data.join(SOCKET) },
        _ => target::resolve(target, &Surroundings::real())?,
    };
    if let Target::Hub { url, .. } = &target {
        return Err(Failure::usage(format!("{url} is a hub; give the edge's --data DIR or --socket PATH")));
    }
    Connection::open(target)
}

async fn status(args: &StatusArgs, target: &TargetArgs, json: bool) -> Result<(), Failure> {
    let connection = this_edge(&args.data, target)?;
    let answer = connection.ask(Method::GET, &Address::new(&["edge", "status"]), None).await?;
    if json { output::line(answer.text()) } else { tell(&answer) }
}

fn leave(args: &LeaveArgs, json: bool) -> Result<(), Failure> {
    let directory = args.data.folder();
    if join::is_half_left(&directory) {
        join::leave(&directory).map_err(|error| Failure::failed(error.to_string()))?;
        let said =
            if json { json!({"left": null}).to_string() } else { "nothing is left of the edge".to_owned() };
        return output::line(said);
    }
    let name = EdgeIdentity::load(&directory).map_err(|error| Failure::usage(error.to_string()))?.name;
    if !args.force {
        match waiting(&directory) {
            Ok(0) => {}
            Ok(waiting) => {
                let message = format!(
                    "writes of {name} that have not reached the hub would be lost: {}; connect it first, or give --force",
                    output::count(waiting as u64)
                );
                return Err(Failure::failed(message));
            }
            Err(why) => return Err(Failure::failed(format!("{why}; --force leaves without looking"))),
        }
    }
    join::leave(&directory).map_err(|error| Failure::failed(error.to_string()))?;
    if json {
        return output::line(json!({"left": name.to_string()}).to_string());
    }
    if std::io::stderr().is_terminal() {
        output::note(format!("the hub still knows it; there: llm-config fleet remove {name}"));
    }
    output::line(format!("{name} has left; its replica and keys are gone"))
}

async fn wipe(args: &WipeArgs, json: bool) -> Result<(), Failure> {
    let directory = args.data.folder();
    let failed = |error: JoinError| Failure::failed(error.to_string());
    let _lock = DirectoryLock::take(&directory).map_err(|error| Failure::failed(error.to_string()))?;
    if !wipe::is_pending(&directory) {
        let identity = EdgeIdentity::load(&directory).map_err(|error| Failure::usage(error.to_string()))?;
        let keys = EdgeKeys::load(&directory).map_err(|error| Failure::failed(error.to_string()))?;
        wipe::begin(&directory, &identity, &keys, Clock::start().wall()).map_err(failed)?;
    }
    wipe::finish(&directory).await.map_err(failed)?;
    let confirmed = !wipe::is_pending(&directory);
    if json {
        return output::line(json!({"wiped": true, "confirmed": confirmed}).to_string());
    }
    output::line(if confirmed {
        "keys and replica are destroyed, and the hub knows"
    } else {
        "keys and replica are destroyed; the hub could not be told: run this again when it can be reached"
    })
}

/// How many writes of a stopped edge wait for the hub.
fn waiting(directory: &Path) -> Result<usize, String> {
    let replica = directory.join(REPLICA);
    if !replica.exists() {
        return Ok(0);
    }
    let identity = EdgeIdentity::load(directory).map_err(|error| error.to_string())?;
    let keys = EdgeKeys::load(directory).map_err(|error| error.to_string())?;
    let owner = Owner { tenant: identity.tenant, edge: identity.edge.0 };
    let options = StoreOptions { compact_from: None, ..StoreOptions::default() };
    let opened = store::open(&replica, &keys.replica, &owner, options).map_err(|error| error.to_string())?;
    Ok(opened.records.iter().filter(|record| matches!(record, Record::Pending(_))).count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_without_an_edge_cannot_be_left() {
        let folder = std::env::temp_dir().join("llm-config-no-edge-here");
        let args = LeaveArgs { data: DataArgs { data: Some(folder) }, force: true };
        assert_eq!(leave(&args, false).unwrap_err().exit, Exit::Usage);
    }
}
