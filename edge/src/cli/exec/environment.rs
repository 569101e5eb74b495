//! Environment: the values that a process gets, read whole, and compared with what it already has.

use std::collections::{BTreeMap, BTreeSet};

use zeroize::Zeroizing;

use super::super::exit::{Exit, Failure};
use super::super::reading::{Held, Reader, Used};
use super::variables::{self, Named};

/// Variables with their values, wiped when they are no longer needed. `Debug` and errors show names alone.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Environment {
    values: BTreeMap<String, Variable>,
    /// Variables whose entry is gone, and that keep their last value.
    lost: BTreeSet<String>,
}

#[derive(Clone, PartialEq, Eq)]
struct Variable {
    text: Zeroizing<String>,
    /// The entry, for people.
    from: String,
    used: Option<Used>,
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}

impl Environment {
    /// Each variable with its value.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().map(|(name, variable)| (name.as_str(), variable.text.as_str()))
    }

    /// Which versions the values are of.
    pub(super) fn used(&self) -> Vec<Used> {
        self.values.values().filter_map(|variable| variable.used.clone()).collect()
    }

    /// Whether a process would see the same.
    pub(super) fn equals(&self, other: &Self) -> bool {
        self.values.len() == other.values.len()
            && self.iter().zip(other.iter()).all(|(mine, theirs)| mine == theirs)
    }

    /// The names of variables that differ, for people.
    pub(super) fn differing(&self, other: &Self) -> Vec<String> {
        let names: BTreeSet<&String> = self.values.keys().chain(other.values.keys()).collect();
        let text = |environment: &Self, name: &String| environment.values.get(name).map(|v| v.text.clone());
        names.into_iter().filter(|name| text(self, name) != text(other, name)).cloned().collect()
    }

    /// What is gone here and was there before, each once: the entries of variables that keep their last value.
    pub(super) fn newly_lost(&self, before: &Self) -> Vec<String> {
        let entry = |name: &String| self.values.get(name).map(|variable| variable.from.clone());
        self.lost.difference(&before.lost).filter_map(entry).collect()
    }

    fn put(&mut self, name: &str, from: String, held: &Held) -> Result<(), Failure> {
        let Some(text) = held.text() else { return Ok(()) };
        if text.contains('\0') {
            return Err(Failure::failed(format!("{from} holds a zero byte, which no variable can")));
        }
        self.values.insert(name.to_owned(), Variable { text, from, used: held.used.clone() });
        Ok(())
    }

    /// Keeps what `before` had under a name; says whether there was something.
    fn keep(&mut self, name: &str, before: &Self) -> bool {
        let Some(variable) = before.values.get(name) else { return false };
        self.values.insert(name.to_owned(), variable.clone());
        self.lost.insert(name.to_owned());
        true
    }
}

/// Which entries become variables.
#[derive(Clone, Debug)]
pub(super) enum Wanted {
    /// Every entry of a namespace, under its own name.
    Namespace(String),
    Named(Vec<Named>),
}

impl Wanted {
    /// The namespaces that are read.
    pub(super) fn namespaces(&self) -> BTreeSet<String> {
        match self {
            Self::Namespace(namespace) => BTreeSet::from([namespace.clone()]),
            Self::Named(named) => named.iter().map(|named| named.place.namespace.clone()).collect(),
        }
    }

    /// Reads all of it. An entry that is gone keeps the value that it had `before`.
    ///
    /// # Errors
    /// When something cannot be read, or is missing and always was.
    pub(super) async fn read(
        &self,
        reader: &Reader,
        before: Option<&Environment>,
    ) -> Result<Environment, Failure> {
        match self {
            Self::Namespace(namespace) => whole(reader, namespace, before).await,
            Self::Named(named) => by_name(reader, named, before).await,
        }
    }
}

async fn whole(
    reader: &Reader,
    namespace: &str,
    before: Option<&Environment>,
) -> Result<Environment, Failure> {
    let entries = reader.all(namespace).await?;
    if entries.is_empty() && before.is_none() {
        return Err(missing(&format!("{namespace} has no entries"), reader));
    }
    let names = variables::of_keys(entries.iter().map(|held| held.key.as_str()))?;
    let by_key: BTreeMap<&str, &Held> = entries.iter().map(|held| (held.key.as_str(), held)).collect();
    let mut found = Environment::default();
    for (name, key) in &names {
        found.put(name, format!("{namespace} {key}"), by_key[key.as_str()])?;
    }
    if let Some(before) = before {
        for name in before.values.keys().filter(|name| !names.contains_key(*name)) {
            found.keep(name, before);
        }
    }
    Ok(found)
}

async fn by_name(
    reader: &Reader,
    named: &[Named],
    before: Option<&Environment>,
) -> Result<Environment, Failure> {
    let mut found = Environment::default();
    let mut absent = Vec::new();
    for Named { variable, place, optional } in named {
        match reader.one(&place.namespace, &place.key).await? {
            Some(held) => found.put(variable, place.to_string(), &held)?,
            None if *optional => {}
            None if before.is_some_and(|before| found.keep(variable, before)) => {}
            // It held null when the process started, and is gone now: the variable was and stays unset.
            None if before.is_some() => {}
            None => absent.push(place.to_string()),
        }
    }
    match absent.as_slice() {
        [] => Ok(found),
        absent => Err(missing(&format!("{} not found", absent.join(", ")), reader)),
    }
}

fn missing(what: &str, reader: &Reader) -> Failure {
    Failure::new(Exit::NotFound, format!("{what}{}; nothing was started", reader.for_environment()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(values: &[(&str, &str)]) -> Environment {
        let variable = |(name, text): &(&str, &str)| {
            let text = Zeroizing::new((*text).to_owned());
            ((*name).to_owned(), Variable { text, from: format!("app {name}"), used: None })
        };
        Environment { values: values.iter().map(variable).collect(), lost: BTreeSet::new() }
    }

    #[test]
    fn what_is_gone_keeps_its_value_and_is_told_once() {
        let before = environment(&[("A", "1"), ("B", "2")]);
        let mut after = environment(&[("A", "1")]);
        assert!(after.keep("B", &before));
        assert!(!after.keep("C", &before));
        assert!(after.equals(&before), "the process sees no difference");
        assert_eq!(after.newly_lost(&before), ["app B"]);
        assert!(after.clone().newly_lost(&after).is_empty());
    }

    #[test]
    fn environments_differ_by_their_values_and_names() {
        let one = environment(&[("A", "1"), ("B", "2")]);
        assert!(one.equals(&environment(&[("B", "2"), ("A", "1")])));
        assert!(!one.equals(&environment(&[("A", "1")])));
        assert_eq!(one.differing(&environment(&[("A", "1"), ("B", "3"), ("C", "")])), ["B", "C"]);
    }

    #[test]
    fn names_are_shown_and_values_never() {
        let shown = format!("{:?}", environment(&[("KEY", "sk-canary")]));
        assert!(shown.contains("KEY") && !shown.contains("canary"), "{shown}");
    }
}
