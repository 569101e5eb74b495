//! Source: what templates may ask for, read from the edge when they ask.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use minijinja::value::{Kwargs, Value};
use minijinja::{Error, ErrorKind};
use tokio::runtime::Handle;

use super::super::entries;
use super::super::exit::{Exit, Failure};
use super::super::reading::{self, Held, Reader, Used};

/// What one rendering of one template reads.
pub(super) struct Source {
    reader: Reader,
    runtime: Handle,
    namespace: Option<String>,
    /// The template itself: a name that is not written in it was computed, maybe from a secret, and is not told.
    template: String,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    entries: BTreeMap<(String, String), Option<Held>>,
    namespaces: BTreeSet<String>,
    /// Of `all`; those of single entries are in `entries`.
    used: BTreeSet<Used>,
    /// Why a function failed, in our own words.
    failure: Option<Failure>,
}

/// Whether a plain value or a secret is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Config,
    Secret,
}

impl Source {
    pub(super) fn new(reader: Reader, namespace: Option<String>, template: String) -> Self {
        let runtime = Handle::current();
        Self { reader, runtime, namespace, template, seen: Mutex::default() }
    }

    /// The text of the template.
    pub(super) fn template(&self) -> &str {
        &self.template
    }

    /// Why a function failed, if one did.
    pub(super) fn failure(&self) -> Option<Failure> {
        self.seen().failure.take()
    }

    /// The versions that were read.
    pub(super) fn used(&self) -> BTreeSet<Used> {
        let seen = self.seen();
        let single = seen.entries.values().flatten().filter_map(|held| held.used.clone());
        single.chain(seen.used.iter().cloned()).collect()
    }

    /// The namespaces that were read.
    pub(super) fn namespaces(&self) -> BTreeSet<String> {
        self.seen().namespaces.clone()
    }

    /// `config("KEY")`, `config("NAMESPACE", "KEY")` and the same for secrets. Waits for the answer, so not to be called
    /// on a thread of the runtime.
    pub(super) fn one(
        &self,
        kind: Kind,
        first: &str,
        second: Option<&str>,
        options: &Kwargs,
    ) -> Result<Value, Error> {
        let default = options.get::<Option<Value>>("default")?;
        options.assert_all_used()?;
        let (namespace, key) = match self.place(first, second) {
            Ok(place) => place,
            Err(why) => return Err(self.failed(Failure::usage(why))),
        };
        let name = self.told(&namespace, &key);
        let held = self.held(namespace, key).map_err(|failure| self.failed(hidden(failure, &name)))?;
        match (held, default, kind) {
            (Some(held), _, Kind::Config) if held.secret => Err(self
                .failed(Failure::usage(format!("{} is a secret; ask for it with secret(…)", shown(&name))))),
            (Some(held), ..) => self.value(&held),
            (None, Some(default), _) => Ok(default),
            (None, None, _) => {
                let message = format!("{} was not found{}", shown(&name), self.reader.for_environment());
                Err(self.failed(Failure::new(Exit::NotFound, message)))
            }
        }
    }

    /// `all("NAMESPACE")`: every entry by its key.
    pub(super) fn all(&self, namespace: &str, options: &Kwargs) -> Result<Value, Error> {
        let secrets = options.get::<Option<bool>>("secrets")?.unwrap_or(false);
        options.assert_all_used()?;
        let name = self.template.contains(namespace).then(|| namespace.to_owned());
        if entries::namespace(namespace).is_err() {
            return Err(self.failed(Failure::usage(format!("{} is no namespace", shown(&name)))));
        }
        self.seen().namespaces.insert(namespace.to_owned());
        let read = self.runtime.block_on(self.reader.all(namespace));
        let held = read.map_err(|failure| self.failed(hidden(failure, &name)))?;
        if held.is_empty() {
            let message = format!("{} has no entries{}", shown(&name), self.reader.for_environment());
            return Err(self.failed(Failure::new(Exit::NotFound, message)));
        }
        let wanted = held.iter().filter(|held| secrets || !held.secret);
        self.seen().used.extend(wanted.clone().filter_map(|held| held.used.clone()));
        let pairs = wanted.map(|held| Ok((held.key.clone(), self.value(held)?)));
        pairs.collect::<Result<BTreeMap<_, _>, Error>>().map(Value::from)
    }

    fn place(&self, first: &str, second: Option<&str>) -> Result<(String, String), String> {
        let place = match second {
            None => reading::place(first, self.namespace.as_deref()),
            Some(key) => entries::namespace(first).and_then(|namespace| Ok((namespace, entries::key(key)?))),
        };
        let written = [Some(first), second].into_iter().flatten().all(|name| self.template.contains(name));
        place.map_err(|why| if written { why } else { "a name that the template computes is none".into() })
    }

    fn held(&self, namespace: String, key: String) -> Result<Option<Held>, Failure> {
        let place = (namespace, key);
        if let Some(known) = self.seen().entries.get(&place) {
            return Ok(known.clone());
        }
        self.seen().namespaces.insert(place.0.clone());
        let held = self.runtime.block_on(self.reader.one(&place.0, &place.1))?;
        self.seen().entries.insert(place, held.clone());
        Ok(held)
    }

    fn value(&self, held: &Held) -> Result<Value, Error> {
        // The parser's message may tell what the value is.
        serde_json::from_str(held.json()).map_err(|_| self.failed(Failure::failed("an entry holds no JSON")))
    }

    /// A place for people, if all of it is written in the template or on the command line.
    fn told(&self, namespace: &str, key: &str) -> Option<String> {
        let default = self.namespace.as_deref() == Some(namespace);
        let known = (default || self.template.contains(namespace)) && self.template.contains(key);
        known.then(|| format!("{namespace} {key}"))
    }

    fn failed(&self, failure: Failure) -> Error {
        self.seen().failure.get_or_insert(failure);
        Error::new(ErrorKind::InvalidOperation, "told elsewhere")
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn shown(name: &Option<String>) -> &str {
    name.as_deref().unwrap_or("a name that the template computes")
}

/// What a server says of a name that may not be told is not told either.
fn hidden(failure: Failure, name: &Option<String>) -> Failure {
    match name {
        Some(_) => failure,
        None => Failure::new(failure.exit, format!("{} cannot be read", shown(name))),
    }
}
