//! Exec: a process with its configuration and secrets in its environment, kept up to date, and nothing of it in a file.

mod child;
mod drive;
mod environment;
mod ready;
mod signals;
mod step;
mod supervisor;
mod variables;

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::connection::Connection;
use super::entries;
use super::exit::Failure;
use super::follow::Follower;
use super::hygiene;
use super::output;
use super::pace::{PaceArgs, length};
use super::reading::{Reader, patiently};
use super::receipt::Receipt;
use child::{Ports, Program};
use drive::Drive;
use environment::Wanted;
use ready::Ready;
use signals::Signals;
pub(crate) use step::{StepArgs, run as step};
use supervisor::{OnChange, Restart, Settings, Supervisor};
use variables::VarArg;

#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Without --var every entry of the namespace becomes a variable: its key in upper case, with _ for -, . and \
                  /. Strings are given plain, everything else as JSON; null leaves the variable unset. An entry that is \
                  deleted while the process runs keeps its last value.\n\nThe exit code is that of the command, 128 and the \
                  number for a signal, 127 if there is no such program, 126 if it cannot be run."
)]
pub(crate) struct ExecArgs {
    /// Folder path, as app/llm
    #[arg(long, short, value_name = "NAMESPACE", value_parser = entries::namespace)]
    namespace: Option<String>,
    /// Environment; without it, the default of what is asked
    #[arg(long, short, value_name = "ENV", value_parser = entries::environment)]
    env: Option<String>,
    /// One variable, as VAR=KEY or VAR=NAMESPACE//KEY; VAR?=KEY if it may be missing. Repeat it; there are no others then
    #[arg(long = "var", value_name = "VAR=KEY")]
    variables: Vec<VarArg>,
    /// Wait this long at the start for an edge that does not answer or has no data yet
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = length)]
    wait: Duration,
    /// What to do when a value changes that the command uses: restart, signal:NAME (it keeps its environment), or none
    #[arg(long, value_name = "WHAT", default_value = "restart", value_parser = on_change)]
    on_change: OnChange,
    /// Whether to start the command again when it ends by itself
    #[arg(long, value_enum, default_value_t = Restart::Never)]
    restart: Restart,
    /// Pause before a command that ended is started again; it doubles up to a minute while it keeps ending
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = length)]
    backoff: Duration,
    /// Kill what has not ended this long after it was asked to
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = length)]
    kill_after: Duration,
    /// Start the new process beside the old one, which ends when the new one is ready. They have to share their port
    /// (SO_REUSEPORT), need none, or take it from --port-var
    #[arg(long, requires = "ready")]
    overlap: bool,
    /// When the new process is ready: a URL of this machine that answers 2xx, or a command that exits with 0. {port} is its
    /// port
    #[arg(long, value_name = "URL|COMMAND", requires = "overlap")]
    ready: Option<Ready>,
    /// How long the new process may take to get ready; then it is ended, and the old one goes on
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = length)]
    ready_within: Duration,
    /// A variable with a port that no two processes have at once, as PORT=8081,8082. Repeat it for several
    #[arg(long = "port-var", value_name = "VAR=PORT,PORT")]
    ports: Vec<Ports>,
    #[command(flatten)]
    pace: PaceArgs,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// What the edge calls this command: its program, and a number that no two commands have at once.
fn consumer(program: &str) -> String {
    let name = program.rsplit('/').next().unwrap_or(program);
    let plain: String = name.chars().filter(|c| !c.is_control()).take(40).collect();
    format!("exec {plain} {}", std::process::id())
}

fn on_change(text: &str) -> Result<OnChange, String> {
    match text {
        "restart" => Ok(OnChange::Restart),
        "none" => Ok(OnChange::Nothing),
        _ => match text.strip_prefix("signal:") {
            Some(name) => signals::by_name(name).map(OnChange::Signal),
            None => Err("say restart, signal:HUP or another signal, or none".into()),
        },
    }
}

impl ExecArgs {
    fn wanted(&self) -> Result<Wanted, Failure> {
        if !self.variables.is_empty() {
            return variables::named(&self.variables, self.namespace.as_deref()).map(Wanted::Named);
        }
        let namespace = self.namespace.clone();
        namespace.map(Wanted::Namespace).ok_or_else(|| {
            Failure::usage("which values? give --namespace NAMESPACE, or --var VAR=NAMESPACE//KEY")
        })
    }

    fn settings(&self) -> Settings {
        Settings {
            pace: self.pace.clone(),
            on_change: self.on_change,
            restart: self.restart,
            kill_after: self.kill_after,
            crash_pause: self.backoff,
            overlap: self.overlap.then_some(self.ready_within),
        }
    }
}

/// Runs the command until it is over, and gives its exit code.
///
/// # Errors
/// When the values cannot be read at the start: then nothing was started.
pub(crate) async fn exec(connection: Connection, args: &ExecArgs) -> Result<ExitCode, Failure> {
    hygiene::leave_no_traces()?;
    let connection = Arc::new(connection);
    let wanted = args.wanted()?;
    let reader = Reader::new(Arc::clone(&connection), args.env.clone());
    let values = patiently(args.wait, async || wanted.read(&reader, None).await).await?;
    output::hint(format!("{} variables", values.iter().count()));
    let signals = Signals::take()?;
    let follows = args.on_change != OnChange::Nothing;
    let follower = follows.then(|| Follower::start(Arc::clone(&connection), wanted.namespaces()));
    let program = Program { command: args.command.clone(), ports: args.ports.clone() };
    let receipt = Receipt::start(&connection, consumer(&program.name()));
    let supervisor = Supervisor::new(args.settings(), rand::random, Instant::now());
    let drive = Drive::new(program, wanted, reader, args.ready.clone(), supervisor, values, receipt);
    Ok(drive.run(signals, follower).await)
}
