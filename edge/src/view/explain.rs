//! Why a reader at this edge gets the value that they get.

use llm_config_proto::rest::explain::{Explained, Found, Place};
use llm_config_proto::rest::service::{Answered, Source};
use llm_config_shared::feed::Feed;
use llm_config_shared::name::{EntryKey, Environment, Key, Namespace};
use llm_config_shared::resolve::{Candidate, Looked, explain};
use llm_config_shared::write::Action;

use super::read::Missing;
use super::{State, View, lowest};

impl View {
    /// Every place where a reader looks for a key, the edge's own first, with how fresh that is.
    ///
    /// # Errors
    /// When nothing has come from the hub yet, or it cannot be said what was there.
    pub fn explain(
        &self,
        environment: &Environment,
        namespace: &Namespace,
        key: &Key,
    ) -> Result<Answered<Explained>, Missing> {
        let state = self.read();
        let asked = self.place(environment, namespace, key);
        if state.feeds.is_empty() {
            return Err(Missing::NotFilled);
        }
        let places = self.candidates(&state, &asked);
        if places.iter().any(|place| state.may_have_lost(&place.at)) {
            return Err(self.damaged(&state));
        }
        let looked = explain(&places, |at| {
            let standing = state.standing(at)?;
            let secret = standing.is_secret();
            Some((standing, secret))
        });
        let mut told = Vec::with_capacity(places.len());
        let mut pending = false;
        for (Candidate { at, .. }, (looked, standing)) in places.into_iter().zip(looked) {
            let entry = match standing {
                Some(standing) => {
                    Some(state.entry(&at, None, &at, &standing, false).map_err(Missing::Locked)?)
                }
                None => None,
            };
            let found = state.found(&at, looked);
            // What waits here decides what is read: the value itself, or a deletion that lets another place through.
            let written_here = looked == Looked::Used && entry.as_ref().is_some_and(|entry| entry.pending);
            pending |= written_here || found == Found::DeletionWaits;
            told.push(Place { found, at, entry });
        }
        let position = lowest(state.consulted(environment, namespace));
        let explained = Explained { at: asked, edge: Some(self.edge.clone()), places: told };
        let mut answered = Answered::new(explained).at(position);
        let source = if pending { Source::Pending } else { Source::Replica };
        answered.freshness = state.freshness(self.clock.wall(), source);
        Ok(answered)
    }
}

impl State {
    fn found(&self, at: &EntryKey, looked: Looked) -> Found {
        if looked != Looked::Empty {
            return Found::Looked(looked);
        }
        if self.pending.get(at).is_some_and(|write| write.action == Action::Delete) {
            return Found::DeletionWaits;
        }
        let received: Vec<&Feed> = self.feeds.keys().filter(|feed| feed.contains(at)).collect();
        match received.iter().any(|feed| feed.secrets) {
            true => Found::Looked(looked),
            false if received.is_empty() => Found::NotReceived,
            false => Found::SecretsNotReceived,
        }
    }
}
