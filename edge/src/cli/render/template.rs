//! Template: text with gaps, filled from a source. What it cannot fill is an error, and no error tells a value.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use http::Method;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Value};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State, UndefinedBehavior};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::super::address::Address;
use super::super::connection::Connection;
use super::super::exit::Failure;
use super::super::reading::{Reader, Used};
use super::super::target::Target;
use super::filters;
use super::source::{Kind, Source};

/// A template longer than this is none.
const TEMPLATE_BYTES_MAX: u64 = 1 << 20;
/// Steps and bytes that a template may cost; one that never ends is stopped.
const FUEL: u64 = 20_000_000;
/// What asking for one value costs of it.
const FUEL_OF_VALUE: u64 = 200;

/// The status of an edge, as far as templates see it.
#[derive(Debug, Deserialize)]
struct Edge {
    name: String,
}

/// What templates read.
#[derive(Clone, Default)]
pub(super) struct Read {
    pub(super) namespaces: BTreeSet<String>,
    pub(super) used: BTreeSet<Used>,
}

/// Renders templates with values of one edge or hub.
pub(super) struct Rendering {
    connection: Arc<Connection>,
    reader: Reader,
    namespace: Option<String>,
}

impl Rendering {
    /// `namespace` is the default one.
    pub(super) fn new(connection: Arc<Connection>, reader: Reader, namespace: Option<String>) -> Self {
        Self { connection, reader, namespace }
    }

    /// The text that a template becomes. What it read is added to `seen`, also when it fails.
    ///
    /// # Errors
    /// When the template is wrong, or asks for what is not there.
    pub(super) async fn render(&self, path: &Path, seen: &mut Read) -> Result<Zeroizing<String>, Failure> {
        let text = read(path)?;
        let edge = self.edge().await?;
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        let source = Arc::new(Source::new(self.reader.clone(), self.namespace.clone(), text));
        let filling = Arc::clone(&source);
        // Functions of a template wait for their answers, which the runtime's own thread must not do.
        let filled = tokio::task::spawn_blocking(move || fill(&name, &filling, edge)).await;
        seen.namespaces.extend(source.namespaces());
        seen.used.extend(source.used());
        filled.map_err(|_| Failure::failed(format!("{} cannot be rendered", path.display())))?
    }

    /// The edge's name, when it is an edge that is asked.
    async fn edge(&self) -> Result<Option<String>, Failure> {
        let Target::Edge { .. } = self.connection.target() else { return Ok(None) };
        let answer = self.connection.ask(Method::GET, &Address::new(&["edge", "status"]), None).await?;
        answer.parsed().map(|edge: Edge| Some(edge.name))
    }
}

fn read(path: &Path) -> Result<String, Failure> {
    let cannot = |why: &str| Failure::usage(format!("cannot read the template {}: {why}", path.display()));
    let length = std::fs::metadata(path).map_err(|error| cannot(&error.to_string()))?.len();
    if length > TEMPLATE_BYTES_MAX {
        return Err(cannot("it is longer than 1 MiB"));
    }
    std::fs::read_to_string(path).map_err(|error| cannot(&error.to_string()))
}

/// Fills a template; waits for answers, so not on a thread of the runtime.
fn fill(name: &str, source: &Arc<Source>, edge: Option<String>) -> Result<Zeroizing<String>, Failure> {
    let engine = engine(source);
    let wrong = |error: &Error| Failure::usage(format!("{name} is no template: {error}"));
    // Nothing was read yet, so that the message cannot tell a value.
    let template = engine.template_from_named_str(name, source.template()).map_err(|error| wrong(&error))?;
    let mut context = BTreeMap::new();
    if let Some(edge) = edge {
        context.insert("edge", Value::from(BTreeMap::from([("name", edge)])));
    }
    let rendered = template.render(context).map(Zeroizing::new);
    rendered.map_err(|error| {
        let place = format!("line {} of {name}", error.line().unwrap_or(0));
        match source.failure() {
            Some(failure) => Failure::new(failure.exit, format!("{} ({place})", failure.message)),
            None => Failure::failed(format!("{} ({place})", without_values(&error))),
        }
    })
}

fn engine(source: &Arc<Source>) -> Environment<'static> {
    let mut engine = Environment::new();
    engine.set_undefined_behavior(UndefinedBehavior::Strict);
    engine.set_auto_escape_callback(|_| AutoEscape::None);
    let lines =
        SyntaxConfig::builder().keep_trailing_newline(true).trim_blocks(true).lstrip_blocks(true).build();
    engine.set_syntax(lines.expect("the usual delimiters"));
    // It would print everything that was read.
    engine.remove_global("debug");
    engine.set_fuel(Some(FUEL));
    filters::add(&mut engine);
    for (function, kind) in [("config", Kind::Config), ("secret", Kind::Secret)] {
        let source = Arc::clone(source);
        let ask = move |state: &State<'_, '_>, first: String, second: Option<String>, options: Kwargs| {
            state.consume_fuel(FUEL_OF_VALUE)?;
            source.one(kind, &first, second.as_deref(), &options)
        };
        engine.add_function(function, ask);
    }
    let source = Arc::clone(source);
    engine.add_function("all", move |state: &State<'_, '_>, namespace: String, options: Kwargs| {
        state.consume_fuel(FUEL_OF_VALUE)?;
        source.all(&namespace, &options)
    });
    engine
}

/// What went wrong. Only messages about the template's own text are told whole: others may tell what a value is.
fn without_values(error: &Error) -> String {
    let kind = error.kind();
    let about_names =
        matches!(kind, ErrorKind::UnknownFilter | ErrorKind::UnknownFunction | ErrorKind::UnknownTest);
    match error.detail().filter(|_| about_names) {
        Some(detail) => format!("{kind}: {detail}"),
        None => kind.to_string(),
    }
}
