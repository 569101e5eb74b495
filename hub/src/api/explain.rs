//! Why a reader gets the value that they get, here or at an edge.

use std::collections::BTreeMap;

use llm_config_proto::rest::error::ApiError;
use llm_config_proto::rest::explain::{ExplainEntry, Explained, Found, Place};
use llm_config_proto::rest::service::{Answered, Caller, Entry};
use llm_config_shared::entry::HubRow;
use llm_config_shared::feed::Feed;
use llm_config_shared::name::{EdgeName, EntryKey};
use llm_config_shared::resolve::{Looked, candidates, explain, layers};
use llm_config_shared::store::Journal;

use super::{Api, at_position};
use crate::guard;
use crate::registry::{Edge, Registry};

/// Whom it is explained for.
struct Reader<'a> {
    caller: &'a Caller,
    /// What the edge is sent; none for a reader at the hub.
    feeds: Option<Vec<Feed>>,
}

impl Reader<'_> {
    /// What a reader is told of a place that they see nothing in; none where they do.
    fn hidden(&self, at: &EntryKey, row: Option<&HubRow>) -> Option<Found> {
        if guard::may_read(self.caller, at).is_err() {
            return Some(Found::Denied);
        }
        let feeds = self.feeds.as_ref()?;
        let received: Vec<&Feed> = feeds.iter().filter(|feed| feed.contains(at)).collect();
        let plain = row.is_some_and(|row| !row.row.content.is_secret());
        if received.is_empty() {
            return Some(Found::NotReceived);
        }
        let sees = plain || received.iter().any(|feed| feed.secrets);
        (!sees).then_some(Found::SecretsNotReceived)
    }
}

impl<S: Journal + Registry> Api<S> {
    pub(super) async fn explain_one(
        &self,
        caller: &Caller,
        request: ExplainEntry,
    ) -> Result<Answered<Explained>, ApiError> {
        // Of other edges' subscriptions an edge hears nothing.
        request.edge.as_ref().map_or(Ok(()), |_| guard::may_read_all(caller))?;
        let edge = match &request.edge {
            Some(name) => Some(self.reading_edge(caller, name).await?),
            None => None,
        };
        let edges_own = edge.as_ref().map(Edge::default_environment);
        let asked = request.target.environment.as_ref().or(edges_own.as_ref());
        let (environments, environment) = self.environment(caller, asked).await?;
        let at = request.target.at(&caller.tenant, &environment);
        guard::may_read(caller, &at)?;
        self.come_to(&request.demand).await?;
        let feeds = edge.as_ref().map(|edge| edge.binding.feeds(&edge.tenant, &edge.name, &environments));
        let reader = Reader { caller, feeds };
        let layers = layers(&environment, &environments);
        let places = candidates(&caller.tenant, &at.scope.namespace, &at.key, &layers, request.edge.as_ref());
        let keys: Vec<EntryKey> = places.iter().map(|place| place.at.clone()).collect();
        let read = self.parts.store.entries(&keys).await?;
        let live = read.value.into_iter().flatten().filter(|row| row.row.content.is_live());
        let live: BTreeMap<EntryKey, HubRow> = live.map(|row| (row.row.at.clone(), row)).collect();
        let visible = |at: &EntryKey| {
            let row = live.get(at).filter(|row| reader.hidden(at, Some(row)).is_none())?;
            Some((row, row.row.content.is_secret()))
        };
        let mut told = Vec::with_capacity(keys.len());
        for (at, (looked, row)) in keys.into_iter().zip(explain(&places, visible)) {
            let hidden = reader.hidden(&at, live.get(&at)).filter(|_| looked == Looked::Empty);
            let entry = match row {
                Some(row) => Some(self.masked(caller, row).await?),
                None => None,
            };
            told.push(Place { at, found: hidden.unwrap_or(Found::Looked(looked)), entry });
        }
        Ok(at_position(Explained { at, edge: request.edge, places: told }, read.head))
    }

    async fn reading_edge(&self, caller: &Caller, name: &EdgeName) -> Result<Edge, ApiError> {
        let found = self.parts.store.edge_named(&caller.tenant, name).await?;
        let there = found.filter(|edge| edge.removed_at.is_none());
        there.ok_or_else(|| ApiError::not_found(format!("there is no edge {name}")))
    }

    async fn masked(&self, caller: &Caller, row: &HubRow) -> Result<Entry, ApiError> {
        let value = self.shown(caller, &row.row.at, &row.row.content, false).await?;
        Ok(Entry {
            at: row.row.at.clone(),
            origin: None,
            value: value.expect("only live rows are shown"),
            version: row.row.version,
            metadata: row.row.metadata.clone(),
            told: row.row.content.told(),
            pending: false,
        })
    }
}
