//! Import: the members of a file's top object become entries, as one change.
//!
//! Only what differs is sent, in batches that are admitted whole or not at all. The change's id comes from the file and
//! where it goes, the batch's number from what it does: an import that was cut off can be given again, also while its
//! last batch is still on the way, and nothing happens twice. A file that was imported before, and whose entries were
//! changed since, is a new change: a generation counter goes into its id.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use http::Method;
use llm_config_shared::limits::BULK_OPERATIONS_MAX;
use llm_config_shared::name::Key;
use llm_config_shared::value::Value;
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::address::Address;
use super::connection::{Answer, Connection};
use super::document::{self, Format};
use super::entries;
use super::exit::{Exit, Failure};
use super::output;

/// Most bytes of values in one batch. A single larger value travels alone.
const BATCH_BYTES_MAX: usize = 512 << 10;
/// Pauses before a batch is sent again, when the hub could not be reached.
const PAUSES: [Duration; 5] = [
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
];
/// The UUID namespace of the ids of imports.
const IMPORT_IDS: Uuid = uuid::uuid!("0f5a6f6e-53a5-5c34-8c6e-2d9f1f0b7a42");

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ImportArgs {
    /// File whose top object's members become entries
    file: PathBuf,
    /// Folder path that the entries go to, as app/llm
    #[arg(long, short, value_name = "NAMESPACE", value_parser = entries::namespace)]
    namespace: String,
    /// Environment that they go to
    #[arg(long, short, value_name = "ENV", value_parser = entries::environment)]
    env: String,
    /// How the file is written; its name tells if left out
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Delete entries of this folder and environment that the file does not have
    #[arg(long)]
    prune: bool,
    /// Say what would happen, change nothing
    #[arg(long)]
    dry_run: bool,
    /// Why, for the history
    #[arg(long, short, value_name = "TEXT")]
    message: Option<String>,
}

/// What an import does to one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Set(Key, Value),
    Delete(String),
}

impl Step {
    fn key(&self) -> &str {
        match self {
            Self::Set(key, _) => key.as_str(),
            Self::Delete(key) => key,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Set(_, value) => value.as_str().len(),
            Self::Delete(_) => 0,
        }
    }
}

/// Everything that an import does, and what it can leave as it is.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    steps: Vec<Step>,
    created: usize,
    changed: usize,
    deleted: usize,
    unchanged: usize,
}

impl Plan {
    /// Compares the file with what is there; `current` has canonical texts, none for what is not to be seen.
    fn new(file: &[(Key, Value)], current: &BTreeMap<String, Option<Value>>, prune: bool) -> Self {
        let mut plan = Self::default();
        for (key, value) in file {
            match current.get(key.as_str()) {
                Some(Some(there)) if there == value => {
                    plan.unchanged += 1;
                    continue;
                }
                Some(_) => plan.changed += 1,
                None => plan.created += 1,
            }
            plan.steps.push(Step::Set(key.clone(), value.clone()));
        }
        if prune {
            let kept: BTreeSet<&str> = file.iter().map(|(key, _)| key.as_str()).collect();
            let gone = current.keys().filter(|key| !kept.contains(key.as_str()));
            plan.steps.extend(gone.cloned().map(Step::Delete));
            plan.deleted = plan.steps.iter().filter(|step| matches!(step, Step::Delete(_))).count();
        }
        plan
    }

    /// The steps in order, cut into batches within the limits.
    fn batches(&self) -> Vec<&[Step]> {
        let mut batches = Vec::new();
        let mut from = 0;
        let mut bytes = 0;
        for (at, step) in self.steps.iter().enumerate() {
            let full =
                at - from == BULK_OPERATIONS_MAX || (at > from && bytes + step.bytes() > BATCH_BYTES_MAX);
            if full {
                batches.push(&self.steps[from..at]);
                (from, bytes) = (at, 0);
            }
            bytes += step.bytes();
        }
        if from < self.steps.len() {
            batches.push(&self.steps[from..]);
        }
        batches
    }
}

#[derive(Serialize)]
struct Bulk<'a> {
    operations: Vec<Operation<'a>>,
    atomic: bool,
    change: String,
    batch: u64,
    change_description: &'a str,
}

#[derive(Serialize)]
struct Operation<'a> {
    op: &'static str,
    namespace: &'a str,
    env: &'a str,
    key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Box<RawValue>>,
}

fn operation<'a>(args: &'a ImportArgs, step: &'a Step) -> Result<Operation<'a>, Failure> {
    let value = match step {
        Step::Set(_, value) => Some(
            RawValue::from_string(value.as_str().to_owned())
                .map_err(|error| Failure::failed(error.to_string()))?,
        ),
        Step::Delete(_) => None,
    };
    let op = if value.is_some() { "set" } else { "delete" };
    Ok(Operation { op, namespace: &args.namespace, env: &args.env, key: step.key(), value })
}

/// Runs the import.
///
/// # Errors
/// When the file is refused, the target is, or it cannot be reached for a while; the message says how far it came.
pub(crate) async fn import(connection: &Connection, args: &ImportArgs, json: bool) -> Result<(), Failure> {
    let format = args.format.or_else(|| Format::of_name(&args.file)).ok_or_else(|| {
        Failure::usage(format!(
            "cannot tell the format of {} by its name; give --format",
            args.file.display()
        ))
    })?;
    let text = document::read(&args.file)?;
    let file = document::parse(&text, format)?;
    // Asked before the entries: a batch that arrives between the two questions is then in the entries, not missed.
    let generations =
        if args.dry_run { Generations::default() } else { generations(connection, args, &text).await? };
    let plan = Plan::new(&file, &current(connection, args).await?, args.prune);
    let change = generations.choose(&plan);
    if args.dry_run || plan.steps.is_empty() {
        return told(args, &plan, None, json);
    }
    let bar = output::progress(plan.steps.len() as u64, "importing");
    let mut done = 0;
    for batch in plan.batches() {
        send(connection, args, change, batch).await.map_err(|failure| {
            bar.abandon();
            let (all, message) = (plan.steps.len(), &failure.message);
            let so_far =
                format!("{message}; {done} of {all} entries are in: give the same command again to go on");
            Failure::new(failure.exit, if done > 0 { so_far } else { message.clone() })
        })?;
        done += batch.len();
        bar.inc(batch.len() as u64);
    }
    bar.finish_and_clear();
    told(args, &plan, Some(change), json)
}

fn told(args: &ImportArgs, plan: &Plan, change: Option<Uuid>, json: bool) -> Result<(), Failure> {
    if json {
        let told = json!({
            "created": plan.created, "changed": plan.changed, "deleted": plan.deleted, "unchanged": plan.unchanged,
            "dry_run": args.dry_run, "change": change.map(|id| id.to_string()),
        });
        return output::line(told.to_string());
    }
    let count = |number: usize| output::count(number as u64);
    let verb = if args.dry_run { "would import into" } else { "imported into" };
    output::line(format!(
        "{verb} {} {}: {} new, {} changed, {} deleted, {} unchanged",
        args.namespace,
        args.env,
        count(plan.created),
        count(plan.changed),
        count(plan.deleted),
        count(plan.unchanged)
    ))?;
    if let Some(change) = change {
        output::hint(format!("change {change}; see it with `llm-config change show {change}`"));
    }
    Ok(())
}

/// What is there now, of this environment itself.
async fn current(
    connection: &Connection,
    args: &ImportArgs,
) -> Result<BTreeMap<String, Option<Value>>, Failure> {
    let address = Address::new(&["configs", &args.namespace]).with("env", &args.env).with("resolve", "false");
    let raw = match entries::all(connection, &address).await {
        Err(failure) if failure.exit == Exit::NotFound => Vec::new(),
        other => other?,
    };
    let seen = |entry: entries::Entry| {
        let value = if entry.secret { None } else { Value::parse(entry.value.get()).ok() };
        (entry.key, value)
    };
    Ok(entries::parsed(&raw)?.into_iter().map(seen).collect())
}

/// The changes that this file made here before, with the keys that each wrote.
#[derive(Debug)]
struct Generations {
    earlier: Vec<(Uuid, BTreeSet<String>)>,
    next: Uuid,
}

impl Default for Generations {
    fn default() -> Self {
        Self { earlier: Vec::new(), next: Uuid::new_v4() }
    }
}

impl Generations {
    /// The last one goes on if it has not yet written anything of what is left to do; else a new one begins.
    fn choose(&self, plan: &Plan) -> Uuid {
        match self.earlier.last() {
            Some((id, written)) if !plan.steps.iter().any(|step| written.contains(step.key())) => *id,
            _ => self.next,
        }
    }
}

fn change_id(args: &ImportArgs, text: &str, generation: usize) -> Uuid {
    let digest = ring_digest(&[text.as_bytes()]);
    let generation = generation.to_string();
    let mut name = Vec::new();
    for part in [args.namespace.as_str(), args.env.as_str(), &digest, &generation] {
        name.extend_from_slice(&(part.len() as u32).to_be_bytes());
        name.extend_from_slice(part.as_bytes());
    }
    Uuid::new_v5(&IMPORT_IDS, &name)
}

fn ring_digest(parts: &[&[u8]]) -> String {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    parts.iter().for_each(|part| context.update(part));
    context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn generations(connection: &Connection, args: &ImportArgs, text: &str) -> Result<Generations, Failure> {
    #[derive(Deserialize)]
    struct Change {
        entries: Vec<Write>,
    }
    #[derive(Deserialize)]
    struct Write {
        key: String,
    }
    let mut earlier = Vec::new();
    loop {
        let id = change_id(args, text, earlier.len());
        match connection.ask(Method::GET, &Address::new(&["changes", &id.to_string()]), None).await {
            Ok(answer) => {
                let change: Change = answer.parsed()?;
                earlier.push((id, change.entries.into_iter().map(|write| write.key).collect()));
            }
            Err(failure) if failure.exit == Exit::NotFound => return Ok(Generations { earlier, next: id }),
            // Who may write but not look at changes still imports; only a cut-off import is then two changes.
            Err(failure) if failure.exit == Exit::Denied => return Ok(Generations::default()),
            Err(failure) => return Err(failure),
        }
    }
}

/// Tells what the hub thinks of values that were taken.
fn warn(args: &ImportArgs, answer: &Answer) {
    #[derive(Deserialize)]
    struct Results {
        results: Vec<Item>,
    }
    #[derive(Deserialize)]
    struct Item {
        key: String,
        #[serde(default)]
        warnings: Vec<String>,
    }
    let Ok(Results { results }) = answer.parsed() else { return };
    for Item { key, warnings } in results {
        for warning in warnings {
            output::note(format!("llm-config: {} {key}: {warning}", args.namespace));
        }
    }
}

/// Sends a batch, again and again for a while when nobody answers. The numbers make that harmless.
async fn send(
    connection: &Connection,
    args: &ImportArgs,
    change: Uuid,
    batch: &[Step],
) -> Result<(), Failure> {
    let operations = batch.iter().map(|step| operation(args, step)).collect::<Result<Vec<_>, _>>()?;
    let unwritten = |error: serde_json::Error| Failure::failed(error.to_string());
    let digest = ring_digest(&[serde_json::to_string(&operations).map_err(unwritten)?.as_bytes()]);
    let number =
        u64::from_str_radix(&digest[..12], 16).map_err(|error| Failure::failed(error.to_string()))?;
    let file = args.file.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let message = args.message.clone().unwrap_or_else(|| format!("import of {file}"));
    let bulk = Bulk {
        operations,
        atomic: true,
        change: change.to_string(),
        batch: number,
        change_description: &message,
    };
    let body = serde_json::to_string(&bulk).map_err(unwritten)?;
    let address = Address::new(&["configs", "bulk"]);
    let mut pauses = PAUSES.iter();
    loop {
        match connection.ask(Method::POST, &address, Some(body.clone())).await {
            Ok(answer) => {
                warn(args, &answer);
                return Ok(());
            }
            Err(failure) if failure.exit != Exit::Unreachable => return Err(failure),
            Err(failure) => match pauses.next() {
                Some(pause) => tokio::time::sleep(*pause).await,
                None => return Err(failure),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(members: &[(&str, &str)]) -> Vec<(Key, Value)> {
        let entry = |(key, value): &(&str, &str)| (Key::parse(key).unwrap(), Value::parse(value).unwrap());
        members.iter().map(entry).collect()
    }

    fn there(members: &[(&str, &str)]) -> BTreeMap<String, Option<Value>> {
        members.iter().map(|(key, value)| ((*key).to_owned(), Some(Value::parse(value).unwrap()))).collect()
    }

    fn args() -> ImportArgs {
        ImportArgs {
            file: "models.json".into(),
            namespace: "app".into(),
            env: "base".into(),
            format: None,
            prune: false,
            dry_run: false,
            message: None,
        }
    }

    #[test]
    fn only_what_differs_is_sent_and_pruning_takes_what_the_file_has_not() {
        let file = file(&[("same", r#"{"b":1,"a":2}"#), ("new", "1"), ("other", "2"), ("secret", "\"x\"")]);
        let mut current = there(&[("same", r#"{"a":2,"b":1}"#), ("other", "1"), ("extra", "1")]);
        current.insert("secret".into(), None);
        let plan = Plan::new(&file, &current, false);
        assert_eq!((plan.created, plan.changed, plan.deleted, plan.unchanged), (1, 2, 0, 1));
        let pruned = Plan::new(&file, &current, true);
        assert_eq!(pruned.steps.last(), Some(&Step::Delete("extra".into())));
        assert_eq!(pruned.deleted, 1);
    }

    #[test]
    fn batches_keep_the_order_and_the_limits() {
        let value = |bytes: usize| Value::string(&"x".repeat(bytes)).unwrap();
        let step = |n: usize, bytes| Step::Set(Key::parse(&format!("k{n}")).unwrap(), value(bytes));
        let many = Plan { steps: (0..1_201).map(|n| step(n, 1)).collect(), ..Plan::default() };
        assert_eq!(many.batches().iter().map(|batch| batch.len()).collect::<Vec<_>>(), [500, 500, 201]);
        let large = [1 << 10, BATCH_BYTES_MAX + 1, 1 << 10, BATCH_BYTES_MAX / 2, BATCH_BYTES_MAX / 2];
        let large =
            Plan { steps: large.iter().enumerate().map(|(n, b)| step(n, *b)).collect(), ..Plan::default() };
        assert_eq!(large.batches().iter().map(|batch| batch.len()).collect::<Vec<_>>(), [1, 1, 2, 1]);
        assert!(Plan::default().batches().is_empty());
    }

    #[test]
    fn a_cut_off_import_goes_on_and_a_repeated_one_begins_anew() {
        let plan = |keys: &[&str]| Plan {
            steps: keys.iter().map(|key| Step::Delete((*key).to_owned())).collect(),
            ..Plan::default()
        };
        let (first, second) = (change_id(&args(), "{}", 0), change_id(&args(), "{}", 1));
        assert_ne!(first, second);
        assert_ne!(first, change_id(&ImportArgs { env: "production".into(), ..args() }, "{}", 0));
        let written = BTreeSet::from(["a".to_owned()]);
        let generations = Generations { earlier: vec![(first, written)], next: second };
        assert_eq!(generations.choose(&plan(&["b", "c"])), first, "what is left was not written yet");
        assert_eq!(generations.choose(&plan(&["a"])), second, "somebody changed what the first run wrote");
        assert_eq!(Generations { earlier: Vec::new(), next: first }.choose(&plan(&["a"])), first);
    }
}
