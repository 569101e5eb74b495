//! Finding an entry: exactly where it was asked for, or along the chain of environments, the edge's own values first.

use std::collections::BTreeSet;
use std::sync::Arc;

use llm_config_proto::rest::error::ApiError;
use llm_config_proto::rest::service::{Answered, Entry, EntryPage, Shown, Source};
use llm_config_shared::entry::{Content, Metadata, Row};
use llm_config_shared::name::{EntryKey, Environment, Key, Namespace, Scope, Subtree, Tenant};
use llm_config_shared::resolve::{Candidate, candidates, first, layers};
use llm_config_shared::value::Value;
use llm_config_shared::write::{Action, Write};

use super::secrets::Locked;
use super::{State, View, lowest};

/// Values of one page of a list, in bytes; a page may hold fewer entries than asked for.
const PAGE_BYTES_MAX: usize = 4 << 20;

/// One entry, as a reader asks for it.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    pub environment: &'a Environment,
    pub namespace: &'a Namespace,
    pub key: &'a Key,
    /// Along the chain of environments.
    pub resolve: bool,
    pub reveal: bool,
}

/// Entries of a namespace, as a reader asks for them.
#[derive(Clone, Copy, Debug)]
pub struct WantedList<'a> {
    pub environment: &'a Environment,
    pub namespace: &'a Namespace,
    pub recursive: bool,
    pub prefix: Option<&'a str>,
    pub tag: Option<&'a str>,
    pub resolve: bool,
    pub reveal: bool,
    pub limit: usize,
    pub after: Option<&'a (Namespace, Key)>,
}

/// Why there is nothing to show.
#[derive(Clone, Debug, PartialEq)]
pub enum Missing {
    /// Nothing has come from the hub yet.
    NotFilled,
    /// This edge does not receive that part of the tenant.
    NotReceived,
    /// There is none; where it was not asked to be followed, an inherited one may be here.
    NoEntry { inherited: Option<Scope> },
    /// A part of the replica was damaged: there may be something that counts more than what was found, if anything was.
    Damaged { age_ms: Option<u64> },
    /// There is a secret, and it stays closed.
    Locked(Locked),
}

/// What stands under one key.
pub(super) enum Standing<'a> {
    Row(&'a Arc<Row>),
    Pending { write: &'a Write, set: NewContent<'a>, under: Option<&'a Arc<Row>> },
}

/// What a pending write sets.
pub(super) struct NewContent<'a> {
    value: &'a Value,
    tags: Option<&'a Vec<Arc<str>>>,
    description: Option<&'a Arc<str>>,
}

impl View {
    /// One entry with how fresh it is.
    ///
    /// # Errors
    /// Says why there is nothing to show.
    pub fn get(&self, wanted: &Wanted<'_>) -> Result<Answered<Entry>, Missing> {
        let state = self.read();
        let asked = self.place(wanted.environment, wanted.namespace, wanted.key);
        let found = self.find(&state, &asked, wanted.resolve);
        if self.is_in_doubt(&state, &asked, wanted.resolve, found.as_ref().map(|(at, _)| at)) {
            return Err(self.damaged(&state));
        }
        let position = lowest(state.consulted(wanted.environment, wanted.namespace));
        let Some((at, standing)) = found else {
            return Err(self.missing(&state, &asked, wanted.resolve));
        };
        let origin = wanted.resolve.then(|| at.scope.clone());
        let entry = state.entry(&asked, origin, &at, &standing, wanted.reveal).map_err(Missing::Locked)?;
        let source = if entry.pending { Source::Pending } else { Source::Replica };
        let mut answered = Answered::new(entry).at(position);
        answered.freshness = state.freshness(self.clock.wall(), source);
        Ok(answered)
    }

    /// A page of entries with how fresh they are, in the order of (namespace, key).
    ///
    /// # Errors
    /// When this edge holds nothing of that part of the tenant.
    pub fn list(&self, wanted: &WantedList<'_>) -> Result<Answered<EntryPage>, Missing> {
        let state = self.read();
        if state.feeds.is_empty() {
            return Err(Missing::NotFilled);
        }
        if state.consulted(wanted.environment, wanted.namespace).next().is_none() {
            return Err(Missing::NotReceived);
        }
        let chain = state.environments.chain(wanted.environment);
        if state.doubted.iter().any(|feed| chain.contains(&feed.environment)) {
            return Err(self.damaged(&state));
        }
        let names = self.names(&state, wanted);
        let (mut entries, mut bytes, mut next, mut pending) = (Vec::new(), 0, None, false);
        for (namespace, key) in names {
            if entries.len() == wanted.limit || bytes > PAGE_BYTES_MAX {
                next = entries
                    .last()
                    .map(|entry: &Entry| (entry.at.scope.namespace.clone(), entry.at.key.clone()));
                break;
            }
            let asked = self.place(wanted.environment, &namespace, &key);
            let found = self.find(&state, &asked, wanted.resolve);
            let Some((at, standing)) = found else { continue };
            let origin = wanted.resolve.then(|| at.scope.clone());
            let entry =
                state.entry(&asked, origin, &at, &standing, wanted.reveal).map_err(Missing::Locked)?;
            if wanted.tag.is_some_and(|tag| !entry.metadata.tags.iter().any(|have| &**have == tag)) {
                continue;
            }
            bytes += standing.bytes();
            pending |= entry.pending;
            entries.push(entry);
        }
        let position = lowest(state.consulted(wanted.environment, wanted.namespace));
        let mut answered = Answered::new(EntryPage { entries, next }).at(position);
        let source = if pending { Source::Pending } else { Source::Replica };
        answered.freshness = state.freshness(self.clock.wall(), source);
        Ok(answered)
    }

    pub(super) fn place(&self, environment: &Environment, namespace: &Namespace, key: &Key) -> EntryKey {
        let scope = Scope {
            tenant: self.tenant.clone(),
            environment: environment.clone(),
            namespace: namespace.clone(),
        };
        EntryKey { scope, key: key.clone() }
    }

    /// What a reader sees of a key, and where it is.
    fn find<'a>(
        &self,
        state: &'a State,
        asked: &EntryKey,
        resolve: bool,
    ) -> Option<(EntryKey, Standing<'a>)> {
        if !resolve {
            return state.standing(asked).map(|standing| (asked.clone(), standing));
        }
        let candidates = self.candidates(state, asked);
        let found = first(&candidates, |at| {
            let standing = state.standing(at)?;
            let secret = standing.is_secret();
            Some((standing, secret))
        });
        found.map(|(at, standing)| (at.clone(), standing))
    }

    pub(super) fn candidates(&self, state: &State, asked: &EntryKey) -> Vec<Candidate> {
        let scope = &asked.scope;
        let layers = layers(&scope.environment, &state.environments);
        candidates(&scope.tenant, &scope.namespace, &asked.key, &layers, Some(&self.edge))
    }

    /// Whether something may have been lost in a place that a reader looks at before what was found.
    fn is_in_doubt(&self, state: &State, asked: &EntryKey, resolve: bool, found: Option<&EntryKey>) -> bool {
        if state.doubted.is_empty() {
            return false;
        }
        if !resolve {
            return found.is_none() && state.may_have_lost(asked);
        }
        let places = self.candidates(state, asked);
        let before = places.iter().map(|place| &place.at).take_while(|at| Some(*at) != found);
        before.into_iter().any(|at| state.may_have_lost(at))
    }

    pub(super) fn damaged(&self, state: &State) -> Missing {
        Missing::Damaged { age_ms: state.age_ms(self.clock.wall()) }
    }

    fn missing(&self, state: &State, asked: &EntryKey, resolved: bool) -> Missing {
        if state.feeds.is_empty() {
            return Missing::NotFilled;
        }
        if state.consulted(&asked.scope.environment, &asked.scope.namespace).next().is_none() {
            return Missing::NotReceived;
        }
        let inherited = if resolved { None } else { self.find(state, asked, true) };
        Missing::NoEntry { inherited: inherited.map(|(at, _)| at.scope) }
    }

    /// Names that a list may hold, each once, in order.
    fn names(&self, state: &State, wanted: &WantedList<'_>) -> BTreeSet<(Namespace, Key)> {
        let chain = state.environments.chain(wanted.environment);
        let environments = if wanted.resolve { chain.as_slice() } else { &chain[..1] };
        let own = Namespace::of_edge(&self.edge);
        let own_asked = wanted.namespace.below(&own).ok().filter(|_| wanted.resolve);
        let mut names = BTreeSet::new();
        let mut take = |namespace: Namespace, key: &Key| {
            let name = (namespace, key.clone());
            let fits = wanted.prefix.is_none_or(|prefix| name.1.as_str().starts_with(prefix))
                && wanted.after.is_none_or(|after| name > *after);
            if fits {
                names.insert(name);
            }
        };
        for environment in environments {
            for at in state.below(&self.tenant, environment, wanted.namespace, wanted.recursive) {
                take(at.scope.namespace.clone(), &at.key);
            }
            let Some(own_asked) = &own_asked else { continue };
            for at in state.below(&self.tenant, environment, own_asked, wanted.recursive) {
                if let Some(namespace) = without(&at.scope.namespace, &own) {
                    take(namespace, &at.key);
                }
            }
        }
        names
    }
}

/// `edges/NAME/app` without `edges/NAME` is `app`.
fn without(namespace: &Namespace, top: &Namespace) -> Option<Namespace> {
    let rest = namespace.as_str().strip_prefix(top.as_str())?.strip_prefix('/')?;
    Namespace::parse(rest).ok()
}

impl State {
    /// Whether there is nothing in this place, and may have been something before the replica was damaged.
    pub(super) fn may_have_lost(&self, at: &EntryKey) -> bool {
        !self.rows.contains_key(at)
            && !self.pending.contains_key(at)
            && self.doubted.iter().any(|feed| feed.contains(at))
    }

    pub(super) fn standing(&self, at: &EntryKey) -> Option<Standing<'_>> {
        let under = self.rows.get(at);
        let Some(write) = self.pending.get(at) else { return under.map(Standing::Row) };
        match &write.action {
            Action::Delete => None,
            // Nobody writes one here.
            Action::Sealed(_) => under.map(Standing::Row),
            Action::Set { value, tags, description } => {
                let set = NewContent { value, tags: tags.as_ref(), description: description.as_ref() };
                Some(Standing::Pending { write, set, under })
            }
        }
    }

    /// Keys with something under them in one environment, at or below a namespace.
    fn below<'a>(
        &'a self,
        tenant: &Tenant,
        environment: &'a Environment,
        top: &Namespace,
        recursive: bool,
    ) -> impl Iterator<Item = &'a EntryKey> {
        let scope =
            Scope { tenant: tenant.clone(), environment: environment.clone(), namespace: top.clone() };
        // No key is smaller: `!` is the first printable character.
        let start = EntryKey { scope, key: Key::parse("!").expect("one printable character") };
        let rows = self.rows.range(start.clone()..).map(|(at, _)| at);
        let pending = self.pending.range(start..).map(|(at, _)| at);
        let (tenant, top) = (tenant.clone(), top.clone());
        let subtree = Subtree::of(top.clone());
        let within = move |at: &&EntryKey| {
            at.scope.tenant == tenant
                && at.scope.environment == *environment
                && at.scope.namespace.as_str().starts_with(top.as_str())
        };
        let wanted = move |at: &&EntryKey| {
            if recursive {
                subtree.contains(&at.scope.namespace)
            } else {
                subtree.top() == Some(&at.scope.namespace)
            }
        };
        let rows = rows.take_while(within.clone()).filter(wanted.clone());
        rows.chain(pending.take_while(within).filter(wanted))
    }

    pub(super) fn entry(
        &self,
        asked: &EntryKey,
        origin: Option<Scope>,
        at: &EntryKey,
        standing: &Standing<'_>,
        reveal: bool,
    ) -> Result<Entry, Locked> {
        let (value, version, metadata, pending) = match standing {
            Standing::Row(row) => {
                let value = match &row.content {
                    Content::Plain(value) => Shown::Plain(value.clone()),
                    Content::Secret(sealed) if reveal => Shown::Revealed(self.keyring.open(at, sealed)?),
                    Content::Secret(_) | Content::Deleted => Shown::Masked,
                };
                (value, row.version, row.metadata.clone(), false)
            }
            Standing::Pending { write, set, under } => {
                let version = under.map_or(0, |row| row.version);
                (Shown::Plain(set.value.clone()), version, pending_metadata(write, set, *under), true)
            }
        };
        let told = match standing {
            Standing::Row(row) => row.content.told(),
            Standing::Pending { .. } => None,
        };
        Ok(Entry { at: asked.clone(), origin, value, version, metadata, told, pending })
    }
}

/// What the entry will say once the write is admitted, as far as this edge can tell.
fn pending_metadata(write: &Write, set: &NewContent<'_>, under: Option<&Arc<Row>>) -> Metadata {
    let before = under.map(|row| &row.metadata);
    Metadata {
        created_at: before.map_or(write.made_at, |before| before.created_at),
        created_by: before.map_or_else(|| write.author.name.clone(), |before| before.created_by.clone()),
        updated_at: write.made_at,
        updated_by: write.author.name.clone(),
        tags: set.tags.or_else(|| before.map(|before| &before.tags)).cloned().unwrap_or_default(),
        description: set.description.or_else(|| before?.description.as_ref()).cloned(),
    }
}

impl Standing<'_> {
    pub(super) fn is_secret(&self) -> bool {
        match self {
            Self::Row(row) => row.content.is_secret(),
            Self::Pending { .. } => false,
        }
    }

    fn bytes(&self) -> usize {
        let content = match self {
            Self::Row(row) => match &row.content {
                Content::Plain(value) => value.as_str().len(),
                Content::Secret(sealed) => sealed.body.len(),
                Content::Deleted => 0,
            },
            Self::Pending { write, .. } => write.size(),
        };
        content + 512
    }
}

impl From<Missing> for ApiError {
    fn from(missing: Missing) -> Self {
        match missing {
            Missing::NotFilled => {
                Self::unavailable("nothing has come from the hub yet: this edge has not been filled", 5)
            }
            Missing::NotReceived => {
                Self::not_found("this edge does not receive that namespace or environment").detail("received", false)
            }
            Missing::NoEntry { inherited: None } => Self::not_found("there is no such entry"),
            Missing::NoEntry { inherited: Some(scope) } => Self::not_found(format!(
                "there is no such entry in this environment; an inherited value is in {} ({}): ask with resolve=true",
                scope.environment, scope.namespace
            ))
            .detail("inherited_from", scope.environment.as_str()),
            Missing::Damaged { age_ms } => Self::unavailable(
                "a part of this edge's replica was damaged; what is missing is fetched when the hub can be reached",
                5,
            )
            .detail("age_ms", age_ms),
            Missing::Locked(Locked::Offline(lock)) => Self::locked(lock.to_string())
                .detail("reason", lock.by.code())
                .detail("since", lock.since.to_rfc3339()),
            Missing::Locked(reason) => Self::locked(reason.to_string()),
        }
    }
}
