//! `llm-config-hub`: the hub as a program.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use llm_config_hub::backup::{self, RecoveryKey};
use llm_config_hub::config::{Config, Database as DatabaseSetting, Mode};
use llm_config_hub::data_directory::{self, DataDirectory};
use llm_config_hub::home_command;
use llm_config_hub::hygiene;
use llm_config_hub::journal::dialect::Dialect;
use llm_config_hub::journal::whole::FilledAs;
use llm_config_hub::journal::{Database, PostgresJournal, SqliteJournal};
use llm_config_hub::key_commands::{self, KeyCommand};
use llm_config_hub::server::{self, FirstStart, Listeners};
use llm_config_hub::telemetry::{Metrics, start_logging};
use llm_config_shared::name::Tenant;
use llm_config_shared::newer::Newer;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

/// Configuration and secrets for fleets that are not always online: the hub.
#[derive(Parser)]
#[command(name = "llm-config-hub", version, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run on embedded defaults, everything in one directory
    Dev {
        /// Where database, keys and tokens lie
        #[arg(long, default_value = "llm-config-data")]
        data: PathBuf,
        /// Address of the REST API
        #[arg(long, default_value = "127.0.0.1:8080")]
        listen: SocketAddr,
        /// Address for edges
        #[arg(long, default_value = "127.0.0.1:8443")]
        sync_listen: SocketAddr,
    },
    /// Run on hub.toml
    Serve(Settings),
    /// Make the first tenant, the hub's keys and the first administrator's token
    Init {
        #[command(flatten)]
        settings: Settings,
        /// The first tenant
        #[arg(long, default_value = "default")]
        tenant: String,
    },
    /// Bring the database's tables up to date
    Migrate {
        #[command(flatten)]
        settings: Settings,
        /// Only say what would be done; exit 1 when there is something
        #[arg(long)]
        check: bool,
    },
    /// Write everything that the hub keeps into one sealed file; the hub may be running
    Backup {
        /// Replaced once the new backup is whole
        file: PathBuf,
        #[command(flatten)]
        of: Of,
        /// Make and show another key for opening backups from now on
        #[arg(long)]
        new_recovery_key: bool,
    },
    /// Put a backup into an empty database
    Restore {
        file: PathBuf,
        #[command(flatten)]
        of: Of,
        /// File with the recovery key that the first backup showed
        #[arg(long)]
        recovery_key_file: PathBuf,
        /// What becomes of writes that the backup lacks and edges still have
        #[arg(long, value_name = "WHAT", default_value = "discard")]
        newer: NewerWrites,
        /// Begin another region with it: a hub of its own, that goes on beside the one of the backup
        #[arg(long, conflicts_with = "newer")]
        as_region: bool,
    },
    /// Look after the key that all other keys in the database lie under
    Keys {
        /// What to do
        command: KeyCommand,
        #[command(flatten)]
        of: Of,
    },
    /// Say which region decides about tokens, edges, environments and policies of all; hubs may be running
    Home {
        #[command(flatten)]
        of: Of,
        /// Make it this one: where the region that was it is gone for good
        #[arg(long)]
        take: bool,
    },
    /// Print the version
    Version,
}

/// Which hub.
#[derive(clap::Args)]
struct Of {
    /// The folder of `dev`, instead of settings
    #[arg(long)]
    data: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

impl Of {
    fn read(&self) -> anyhow::Result<Config> {
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        match &self.data {
            Some(data) => Ok(Config::dev(data, nowhere, nowhere)?),
            None => self.settings.read(),
        }
    }

    /// Of a hub that was started before.
    fn existing(&self) -> anyhow::Result<Config> {
        let config = self.read()?;
        if let DatabaseSetting::Sqlite(path) = &config.database
            && !path.exists()
        {
            anyhow::bail!("{} does not exist", path.display());
        }
        Ok(config)
    }
}

/// `--newer`
#[derive(Clone, Copy, clap::ValueEnum)]
enum NewerWrites {
    /// They wait for a person, as one change
    Hold,
    /// They are admitted by their own times, as one change; what an edge may not write itself waits for a person
    Accept,
    /// They are counted and dropped
    Discard,
}

impl From<NewerWrites> for Newer {
    fn from(said: NewerWrites) -> Self {
        match said {
            NewerWrites::Hold => Self::Hold,
            NewerWrites::Accept => Self::Accept,
            NewerWrites::Discard => Self::Discard,
        }
    }
}

#[derive(clap::Args)]
struct Settings {
    /// The settings; every key can also be set as LLM_CONFIG_HUB_SECTION__KEY
    #[arg(long, default_value = "hub.toml", env = "LLM_CONFIG_HUB_CONFIG")]
    config: PathBuf,
}

impl Settings {
    /// Without the default file, the variables alone may be enough.
    fn read(&self) -> anyhow::Result<Config> {
        let text = match std::fs::read_to_string(&self.config) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.config == Path::new("hub.toml") => {
                String::new()
            }
            Err(error) => {
                return Err(error).with_context(|| format!("{} cannot be read", self.config.display()));
            }
        };
        let directory = self.config.parent().unwrap_or_else(|| Path::new(""));
        let variables: BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Ok(Config::parse(&text, directory, &variables)?)
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        return failed(&anyhow::anyhow!("another TLS provider is installed"));
    }
    match run(arguments.command).await {
        Ok(code) => code,
        Err(error) => failed(&error),
    }
}

#[expect(
    clippy::print_stderr,
    reason = "the last word of a program that cannot go on, perhaps before it logs"
)]
fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("llm-config-hub: {error:#}");
    ExitCode::FAILURE
}

async fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Dev { data, listen, sync_listen } => {
            with_database(Config::dev(&data, listen, sync_listen)?, Task::Serve).await
        }
        Command::Serve(settings) => with_database(settings.read()?, Task::Serve).await,
        Command::Init { settings, tenant } => {
            let tenant = Tenant::parse(&tenant)?;
            with_database(settings.read()?, Task::Init(tenant)).await
        }
        Command::Migrate { settings, check } => {
            with_database(settings.read()?, Task::Migrate { check }).await
        }
        Command::Backup { file, of, new_recovery_key } => {
            with_database(of.existing()?, Task::Backup { file, new_recovery_key }).await
        }
        Command::Restore { file, of, recovery_key_file, newer, as_region } => {
            let key = recovery_key(&recovery_key_file)?;
            let config = of.read()?;
            // Before anything is made: a file that is no good leaves no trace.
            backup::check(&file, &key)?;
            let filled_as = if as_region { FilledAs::Region } else { FilledAs::Itself(newer.into()) };
            with_database(config, Task::Restore { file, key, filled_as }).await
        }
        Command::Home { of, take } => with_database(of.existing()?, Task::Home { take }).await,
        Command::Keys { command, of } => with_database(of.existing()?, Task::Keys(command)).await,
        Command::Version => {
            say(&format!("llm-config-hub {}", env!("CARGO_PKG_VERSION")));
            Ok(ExitCode::SUCCESS)
        }
    }
}

enum Task {
    Serve,
    Init(Tenant),
    Migrate { check: bool },
    Backup { file: PathBuf, new_recovery_key: bool },
    Restore { file: PathBuf, key: RecoveryKey, filled_as: FilledAs },
    Keys(KeyCommand),
    Home { take: bool },
}

fn recovery_key(file: &Path) -> anyhow::Result<RecoveryKey> {
    let text = std::fs::read_to_string(file).map(Zeroizing::new);
    let text = text.with_context(|| format!("{} cannot be read", file.display()))?;
    RecoveryKey::parse(&text).with_context(|| file.display().to_string())
}

/// Opens what the settings name. An embedded database belongs to one process, so its directory is locked.
async fn with_database(config: Config, task: Task) -> anyhow::Result<ExitCode> {
    let rust_log = std::env::var("RUST_LOG").ok();
    if matches!(task, Task::Serve) {
        start_logging(&config.telemetry, rust_log.as_deref()).map_err(anyhow::Error::from_boxed)?;
        hygiene::leave_no_traces();
    }
    match &config.database {
        DatabaseSetting::Sqlite(path) => {
            let directory =
                path.parent().filter(|parent| *parent != Path::new("")).unwrap_or_else(|| Path::new("."));
            // These go beside a hub that runs: a backup only reads, wrapped keys are replaced one by one, the home is one row.
            let alone = !matches!(task, Task::Backup { .. } | Task::Keys(_) | Task::Home { .. });
            let _locked = alone.then(|| DataDirectory::lock(directory)).transpose()?;
            let database = SqliteJournal::open(path).await.with_context(|| path.display().to_string())?;
            perform(&config, database, task).await
        }
        DatabaseSetting::Postgres(url) => {
            let database = PostgresJournal::open(url).await.context("database.url")?;
            perform(&config, database, task).await
        }
    }
}

async fn perform<D: Dialect>(config: &Config, database: Database<D>, task: Task) -> anyhow::Result<ExitCode> {
    let database = Arc::new(database);
    let done = match task {
        Task::Serve => serve(config, &database).await.map(|()| ExitCode::SUCCESS),
        Task::Init(tenant) => init(config, &database, &tenant).await,
        Task::Migrate { check } => migrate(&database, check).await,
        Task::Backup { file, new_recovery_key } => back_up(config, &database, &file, new_recovery_key).await,
        Task::Restore { file, key, filled_as } => restore(config, &database, &file, &key, filled_as).await,
        Task::Home { take } => {
            let done = home_command::perform(&database, take, say).await;
            done.map(|()| ExitCode::SUCCESS).map_err(anyhow::Error::from)
        }
        Task::Keys(command) => {
            let done = key_commands::perform(config, &database, command, say).await;
            done.map(|()| ExitCode::SUCCESS).map_err(anyhow::Error::from)
        }
    };
    database.close().await;
    done
}

async fn migrate<D: Dialect>(database: &Database<D>, check: bool) -> anyhow::Result<ExitCode> {
    let pending = database.pending_migrations().await?;
    for step in &pending {
        say(&format!("{} {step}", if check { "to do:" } else { "doing:" }));
    }
    if check && !pending.is_empty() {
        return Ok(ExitCode::FAILURE);
    }
    if !check {
        database.migrate().await?;
    }
    say("the database is up to date");
    Ok(ExitCode::SUCCESS)
}

async fn init<D: Dialect>(
    config: &Config,
    database: &Database<D>,
    tenant: &Tenant,
) -> anyhow::Result<ExitCode> {
    database.migrate().await?;
    let keys = server::open_keys(database, config, true).await?;
    let ca = server::publish_ca(config, &keys.identity)?;
    let made = server::first_start(database, config, tenant, false).await?;
    if made.made_token {
        say(&format!("tenant: {tenant}"));
        say(&format!("admin token: {}", absolute(&made.token_file).display()));
    } else {
        say("there is a tenant with a token already; nothing was made");
    }
    say(&format!("CA certificate: {}", absolute(&ca).display()));
    Ok(ExitCode::SUCCESS)
}

async fn back_up<D: Dialect>(
    config: &Config,
    database: &Database<D>,
    file: &Path,
    new_recovery_key: bool,
) -> anyhow::Result<ExitCode> {
    let show = |key: &str| {
        let mut out = io::stdout();
        writeln!(out, "recovery key: {key}")?;
        writeln!(
            out,
            "Write it down and keep it elsewhere: it is shown only now, and only it opens this hub's backups."
        )?;
        out.flush()
    };
    let counts = backup::back_up(database, &config.secrets, file, new_recovery_key, show).await?;
    say(&format!("backup: {} ({} rows)", absolute(file).display(), counts.rows));
    Ok(ExitCode::SUCCESS)
}

async fn restore<D: Dialect>(
    config: &Config,
    database: &Database<D>,
    file: &Path,
    key: &RecoveryKey,
    filled_as: FilledAs,
) -> anyhow::Result<ExitCode> {
    if let Some(folder) = config.secrets.keyring.parent() {
        data_directory::create(folder)?;
    }
    let restored = backup::restore(database, &config.secrets.keyring, file, key, filled_as).await?;
    let made_at = restored.made_at.to_rfc3339();
    say(&format!("restored: the hub as of {made_at} ({} rows)", restored.counts.rows));
    say(match filled_as {
        FilledAs::Region => {
            "it is the hub of another region now; name each region's sync port in the other's regions.peers and start it"
        }
        FilledAs::Itself(Newer::Discard) => {
            "start the hub; edges that have seen more than the backup holds come back to what it holds"
        }
        FilledAs::Itself(Newer::Hold) => {
            "start the hub; what edges have beyond the backup is held, as one change: see `llm-config held` and \
             `llm-config changes`"
        }
        FilledAs::Itself(Newer::Accept) => {
            "start the hub; what edges have beyond the backup is admitted, as one change, where they may write: see \
             `llm-config changes`, and `llm-config held` for the rest"
        }
    });
    Ok(ExitCode::SUCCESS)
}

async fn serve<D: Dialect>(config: &Config, database: &Arc<Database<D>>) -> anyhow::Result<()> {
    database.migrate().await?;
    let metrics = Metrics::start()?;
    let listeners = Listeners::bind(config).await?;
    let stop = stop_on_signals()?;
    let Some(keys) = server::keys_once_there(&**database, config, &listeners, &stop).await? else {
        return Ok(());
    };
    let ca = server::publish_ca(config, &keys.identity)?;
    if config.mode == Mode::Dev {
        let tenant = Tenant::parse("default")?;
        let made = server::first_start(&**database, config, &tenant, true).await?;
        tell_how_to_begin(config, &made, &ca);
    } else {
        server::warn_if_empty(&**database, config.mode).await?;
        tracing::info!(api = %config.listen.api, sync = %config.listen.sync, "the hub is up");
    }
    server::run(config, Arc::clone(database), keys, listeners, metrics, stop).await?;
    tracing::info!("stopped");
    Ok(())
}

fn stop_on_signals() -> anyhow::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stopping = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stopping.cancel();
    });
    Ok(stop)
}

/// For a person at a terminal as text, for a program in the log.
fn tell_how_to_begin(config: &Config, made: &FirstStart, ca: &Path) {
    let (token, ca, api) = (absolute(&made.token_file), absolute(ca), config.listen.api);
    let token = token.display();
    let join = format!(
        "llm-config fleet token --name edge-1 --out edge-1.token --hub http://{api} --token-file {token} && \
         llm-config edge join --token-file edge-1.token --data edge-1"
    );
    if io::stdout().is_terminal() {
        say(&format!("API          http://{api}/api/v1"));
        say(&format!("for edges    https://{}", config.listen.sync));
        say(&format!("admin token  {token}"));
        say(&format!("CA           {}", ca.display()));
        say(&format!("join an edge {join}"));
    } else {
        tracing::info!(
            api = %format!("http://{api}/api/v1"), sync = %format!("https://{}", config.listen.sync),
            admin_token = %token, ca = %ca.display(), join, "the hub is up"
        );
    }
}

/// As it can be pasted anywhere.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// A line for people; a closed pipe is no failure.
fn say(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}
