//! Render: files from templates, whole or not at all, kept up to date, and a command that is told of it.

mod command;
mod filters;
mod source;
mod template;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::connection::Connection;
use super::entries;
use super::exit::Failure;
use super::follow::Follower;
use super::hygiene;
use super::output;
use super::pace::{PaceArgs, Settling, length};
use super::reading::{Reader, patiently};
use super::{receipt, whole_file};
use template::{Read, Rendering};

/// Pause before what went wrong is tried again without anything having changed.
const PAUSE: Duration = Duration::from_secs(30);
/// As much of a path as names what is rendered: at most four bytes each, within what an edge takes for a name.
const CONSUMER_CHARS_MAX: usize = 48;

#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "In templates (Jinja): config(\"KEY\"), config(\"NAMESPACE\", \"KEY\"), secret(…) the same for secrets, both \
                  with default=…; all(\"NAMESPACE\") gives every entry by its key, secrets only with secrets=true; edge.name. \
                  Filters: tojson, toyaml, quote for a shell, dotenv for a file of variables. What is missing is an error; \
                  then the file stays as it is."
)]
pub(crate) struct RenderArgs {
    /// Template, with --out; or several as TEMPLATE=FILE
    #[arg(required = true, value_name = "TEMPLATE")]
    templates: Vec<String>,
    /// File to write
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Default namespace of config and secret
    #[arg(long, short, value_name = "NAMESPACE", value_parser = entries::namespace)]
    namespace: Option<String>,
    /// Environment; without it, the default of what is asked
    #[arg(long, short, value_name = "ENV", value_parser = entries::environment)]
    env: Option<String>,
    /// Who may read the file, in octal
    #[arg(long, value_name = "MODE", default_value = "0600", value_parser = whole_file::mode)]
    mode: u32,
    /// Wait this long at the start for an edge that does not answer or has no data yet
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = length)]
    wait: Duration,
    /// Go on, and write again when something changes
    #[arg(long)]
    watch: bool,
    /// Run this in a shell after a file has changed, as "systemctl reload nginx"
    #[arg(long, value_name = "COMMAND")]
    command: Option<String>,
    /// End the command when it takes longer
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = length)]
    command_timeout: Duration,
    #[command(flatten)]
    pace: PaceArgs,
}

/// A template and the file that becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pair {
    template: PathBuf,
    out: PathBuf,
}

fn pairs(args: &RenderArgs) -> Result<Vec<Pair>, Failure> {
    match (args.templates.as_slice(), &args.out) {
        ([template], Some(out)) => Ok(vec![Pair { template: template.into(), out: out.clone() }]),
        (_, Some(_)) => Err(Failure::usage("--out is for one template; give several as TEMPLATE=FILE")),
        (templates, None) => templates.iter().map(|text| pair(text)).collect(),
    }
}

fn pair(text: &str) -> Result<Pair, Failure> {
    match text.split_once('=') {
        Some((template, out)) if !template.is_empty() && !out.is_empty() => {
            Ok(Pair { template: template.into(), out: out.into() })
        }
        _ => Err(Failure::usage(format!("into which file? give --out FILE, or {text}=FILE"))),
    }
}

/// What one round over all templates came to.
#[derive(Default)]
struct Round {
    changed: bool,
    failures: Vec<Failure>,
    read: Read,
}

/// Renders once, or until it is interrupted.
///
/// # Errors
/// When a template cannot be rendered, or its file not written: then the file is as it was.
pub(crate) async fn render(connection: Connection, args: &RenderArgs) -> Result<ExitCode, Failure> {
    hygiene::leave_no_traces()?;
    let connection = Arc::new(connection);
    let work = Work {
        pairs: pairs(args)?,
        rendering: Rendering::new(
            Arc::clone(&connection),
            Reader::new(Arc::clone(&connection), args.env.clone()),
            args.namespace.clone(),
        ),
        connection: Arc::clone(&connection),
        args,
    };
    let mut owed = false;
    let first = async || {
        let mut round = work.round().await;
        owed |= round.changed;
        let last = round.failures.pop();
        tell_all(&round.failures, &[]);
        last.map_or_else(|| Ok(round.read), Err)
    };
    let read = patiently(args.wait, first).await?;
    match work.tell(&mut owed).await {
        Err(failure) if !args.watch => return Err(failure),
        Err(_) => {}
        Ok(()) => work.told_in_use(&read).await,
    }
    if args.watch {
        work.watch(connection, read, owed).await;
    }
    Ok(ExitCode::SUCCESS)
}

/// Tells what went wrong, but not again what was told `before`.
fn tell_all(failures: &[Failure], before: &[Failure]) {
    for failure in failures.iter().filter(|failure| !before.contains(failure)) {
        output::note(format!("llm-config: {failure}"));
    }
}

struct Work<'a> {
    pairs: Vec<Pair>,
    rendering: Rendering,
    connection: Arc<Connection>,
    args: &'a RenderArgs,
}

impl Work<'_> {
    /// Renders every template. One that fails keeps its file and does not hold the others up.
    async fn round(&self) -> Round {
        let mut round = Round::default();
        for pair in &self.pairs {
            let rendered = self.rendering.render(&pair.template, &mut round.read).await;
            let written = rendered.and_then(|text| whole_file::replace(&pair.out, &text, self.args.mode));
            match written {
                Ok(true) => {
                    output::hint(format!("wrote {}", pair.out.display()));
                    round.changed = true;
                }
                Ok(false) => {}
                Err(Failure { exit, message }) => {
                    let message = format!("{} stays as it is: {message}", pair.out.display());
                    round.failures.push(Failure { exit, message });
                }
            }
        }
        round
    }

    /// Runs the command if it is owed.
    async fn tell(&self, owed: &mut bool) -> Result<(), Failure> {
        let (Some(line), true) = (&self.args.command, *owed) else { return Ok(()) };
        let ended = command::run(line, self.args.command_timeout).await;
        if let Err(failure) = &ended {
            output::note(format!("llm-config: {failure}"));
        }
        *owed = ended.is_err();
        ended
    }

    /// Tells the edge that whoever the command is for uses what was read. Without a command nobody knows that.
    async fn told_in_use(&self, read: &Read) {
        if self.args.command.is_some() {
            let used: Vec<_> = read.used.iter().cloned().collect();
            receipt::say(&self.connection, &self.consumer(), true, &used).await;
        }
    }

    /// What the edge calls these files.
    fn consumer(&self) -> String {
        let out = self.pairs.first().map_or_else(PathBuf::new, |pair| pair.out.clone());
        let path = std::path::absolute(&out).unwrap_or(out);
        let plain: String = path.to_string_lossy().chars().filter(|c| !c.is_control()).collect();
        // The end of a long path tells more than its beginning.
        let cut = plain.char_indices().rev().take(CONSUMER_CHARS_MAX).last().map_or(0, |(at, _)| at);
        format!("render {}", &plain[cut..])
    }

    /// Goes on for ever.
    async fn watch(&self, connection: Arc<Connection>, mut read: Read, mut owed: bool) {
        let follower = Follower::start(connection, read.namespaces.clone());
        let mut settling = Settling::new(&self.args.pace);
        let mut failures = Vec::new();
        loop {
            if owed || !failures.is_empty() {
                let _ = tokio::time::timeout(PAUSE, follower.changed()).await;
            } else {
                follower.changed().await;
            }
            settling.changed(Instant::now());
            while let Some(due) = settling.due() {
                tokio::select! {
                    () = follower.changed() => settling.changed(Instant::now()),
                    () = tokio::time::sleep_until(due.into()) => drop(settling.take(Instant::now())),
                }
            }
            tokio::time::sleep(self.args.pace.splay.mul_f64(rand::random())).await;
            let round = self.round().await;
            owed |= round.changed;
            tell_all(&round.failures, &failures);
            failures = round.failures;
            if !failures.is_empty() {
                // A template that failed may not have come to all that it reads.
                read.namespaces.extend(round.read.namespaces);
            } else {
                read = round.read;
            }
            follower.watch(read.namespaces.clone());
            // What failed was told; it stays owed and is tried again.
            if self.tell(&mut owed).await.is_ok() && failures.is_empty() {
                self.told_in_use(&read).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_names_its_file() {
        assert_eq!(pair("a.tmpl=b").unwrap(), Pair { template: "a.tmpl".into(), out: "b".into() });
        for text in ["a", "=b", "a="] {
            assert!(pair(text).unwrap_err().message.contains("--out"), "{text}");
        }
    }
}
