//! What a reader sees of a key: the most specific value along the chain of environments.

use crate::feed::Environments;
use crate::name::{EdgeName, EntryKey, Environment, Key, Namespace, Scope, Tenant};

/// An environment in which a reader looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    pub environment: Environment,
    /// Secrets are taken from the environment asked for and from `base` only.
    pub secrets: bool,
}

/// The environments in which a reader of `environment` looks, the most specific first.
pub fn layers(environment: &Environment, environments: &Environments) -> Vec<Layer> {
    let chain = environments.chain(environment);
    let layer = |at: Environment| Layer { secrets: at == *environment || at.is_base(), environment: at };
    chain.into_iter().map(layer).collect()
}

/// A place where a reader looks for a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub at: EntryKey,
    /// Whether a secret found there counts.
    pub secrets: bool,
}

/// The places where a reader looks for a key, the most specific first. On an edge, its own subtree
/// `edges/NAME/NAMESPACE` comes before the namespace itself, whatever the environment.
pub fn candidates(
    tenant: &Tenant,
    namespace: &Namespace,
    key: &Key,
    layers: &[Layer],
    edge: Option<&EdgeName>,
) -> Vec<Candidate> {
    // A namespace so long that it fits below no edge has no value of the edge's own.
    let own = edge.and_then(|edge| namespace.below(&Namespace::of_edge(edge)).ok());
    let mut candidates = Vec::with_capacity(2 * layers.len());
    for namespace in own.iter().chain([namespace]) {
        candidates.extend(layers.iter().map(|layer| Candidate {
            at: EntryKey {
                scope: Scope {
                    tenant: tenant.clone(),
                    environment: layer.environment.clone(),
                    namespace: namespace.clone(),
                },
                key: key.clone(),
            },
            secrets: layer.secrets,
        }));
    }
    candidates
}

/// The first candidate that holds something, and what it holds. `found` gives what is held, and whether it is a secret.
pub fn first<T>(
    candidates: &[Candidate],
    mut found: impl FnMut(&EntryKey) -> Option<(T, bool)>,
) -> Option<(&EntryKey, T)> {
    candidates.iter().find_map(|candidate| {
        let (held, secret) = found(&candidate.at)?;
        (candidate.secrets || !secret).then_some((&candidate.at, held))
    })
}

/// What became of a place where a reader looked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Looked {
    /// Its value is what the reader gets.
    Used,
    /// It has a value, and a more specific place has one too.
    Covered,
    /// It has a secret, which readers of this environment do not get from there.
    SecretOfAnother,
    Empty,
}

/// What became of each place, in order, with what it holds. `found` as for [`first`].
pub fn explain<T>(
    candidates: &[Candidate],
    mut found: impl FnMut(&EntryKey) -> Option<(T, bool)>,
) -> Vec<(Looked, Option<T>)> {
    let mut used = false;
    let look = |candidate: &Candidate| {
        let Some((held, secret)) = found(&candidate.at) else { return (Looked::Empty, None) };
        let looked = match (secret && !candidate.secrets, used) {
            (true, _) => Looked::SecretOfAnother,
            (false, true) => Looked::Covered,
            (false, false) => Looked::Used,
        };
        used |= looked == Looked::Used;
        (looked, Some(held))
    };
    candidates.iter().map(look).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(edge: Option<&str>) -> Vec<String> {
        let environment = Environment::parse("staging").unwrap();
        let edge = edge.map(|name| EdgeName::parse(name).unwrap());
        let found = candidates(
            &Tenant::parse("t").unwrap(),
            &Namespace::parse("app").unwrap(),
            &Key::parse("k").unwrap(),
            &layers(&environment, &Environments::standard()),
            edge.as_ref(),
        );
        found
            .iter()
            .map(|c| format!("{} {} {}", c.at.scope.namespace, c.at.scope.environment, c.secrets))
            .collect()
    }

    #[test]
    fn the_most_specific_environment_comes_first_and_secrets_skip_the_middle() {
        assert_eq!(order(None), ["app staging true", "app development false", "app base true"]);
    }

    #[test]
    fn an_edges_own_value_comes_before_everything() {
        let order = order(Some("kiosk"));
        assert_eq!(order[0], "edges/kiosk/app staging true");
        assert_eq!(order[3], "app staging true");
    }

    #[test]
    fn a_secret_in_an_environment_between_is_passed_over() {
        let environment = Environment::parse("staging").unwrap();
        let found = candidates(
            &Tenant::parse("t").unwrap(),
            &Namespace::parse("app").unwrap(),
            &Key::parse("k").unwrap(),
            &layers(&environment, &Environments::standard()),
            None,
        );
        let lookup = |at: &EntryKey| match at.scope.environment.as_str() {
            "development" => Some(("middle", true)),
            "base" => Some(("base", true)),
            _ => None,
        };
        assert_eq!(first(&found, lookup).map(|(_, held)| held), Some("base"));
    }

    #[test]
    fn what_is_explained_as_used_is_what_a_reader_gets() {
        let places = candidates(
            &Tenant::parse("t").unwrap(),
            &Namespace::parse("app").unwrap(),
            &Key::parse("k").unwrap(),
            &layers(&Environment::parse("production").unwrap(), &Environments::standard()),
            None,
        );
        // For each place: nothing, a value, or a secret.
        for held in 0..3_usize.pow(places.len() as u32) {
            let found = |at: &EntryKey| {
                let place = places.iter().position(|candidate| candidate.at == *at)?;
                let holds = held / 3_usize.pow(place as u32) % 3;
                (holds > 0).then_some((place, holds == 2))
            };
            let explained = explain(&places, found);
            let used: Vec<_> = explained
                .iter()
                .filter(|(looked, _)| *looked == Looked::Used)
                .map(|(_, held)| *held)
                .collect();
            assert_eq!(
                used,
                first(&places, found).map(|(_, place)| Some(place)).into_iter().collect::<Vec<_>>()
            );
            let empty = explained.iter().filter(|(looked, _)| *looked == Looked::Empty);
            assert!(empty.into_iter().all(|(_, held)| held.is_none()));
        }
    }
}
