//! Reading one entry: as it is, as it was, or as it is inherited.

use std::collections::BTreeMap;

use llm_config_proto::rest::error::ApiError;
use llm_config_proto::rest::service::{Answered, Caller, Entry, GetEntry};
use llm_config_shared::entry::{HistoryRow, HubRow, Metadata};
use llm_config_shared::feed::Environments;
use llm_config_shared::name::{EntryKey, Scope};
use llm_config_shared::resolve::{Layer, candidates, first, layers};
use llm_config_shared::store::{Journal, Read};

use super::{Api, at_position};
use crate::guard;
use crate::registry::Registry;

impl<S: Journal + Registry> Api<S> {
    pub(super) async fn read_one(
        &self,
        caller: &Caller,
        request: GetEntry,
    ) -> Result<Answered<Entry>, ApiError> {
        let asked = request.target.environment.as_ref();
        let (environments, environment) = self.environment(caller, asked).await?;
        let at = request.target.at(&caller.tenant, &environment);
        guard::may_read(caller, &at)?;
        self.come_to(&request.demand).await?;
        match request.version {
            Some(version) => self.read_version(caller, &at, version, request.reveal).await,
            None => self.read_current(caller, &at, &environments, &request).await,
        }
    }

    async fn read_current(
        &self,
        caller: &Caller,
        at: &EntryKey,
        environments: &Environments,
        request: &GetEntry,
    ) -> Result<Answered<Entry>, ApiError> {
        let all = layers(&at.scope.environment, environments);
        let layers = if request.resolve { &all } else { &all[..1] };
        let read = self.find(caller, at, layers).await?;
        let Some(row) = read.value else {
            return Err(self.missing(caller, at, environments, request.resolve).await?);
        };
        let value = self.shown(caller, &row.row.at, &row.row.content, request.reveal).await?;
        let entry = Entry {
            at: at.clone(),
            origin: request.resolve.then(|| row.row.at.scope.clone()),
            value: value.expect("only live rows are found"),
            version: row.row.version,
            metadata: row.row.metadata,
            told: row.row.content.told(),
            pending: false,
        };
        Ok(at_position(entry, read.head))
    }

    /// The first row along the chain that a reader of its first environment gets.
    async fn find(
        &self,
        caller: &Caller,
        at: &EntryKey,
        layers: &[Layer],
    ) -> Result<Read<Option<HubRow>>, ApiError> {
        let Scope { tenant, namespace, .. } = &at.scope;
        let mut candidates = candidates(tenant, namespace, &at.key, layers, None);
        candidates.retain(|candidate| guard::may_read(caller, &candidate.at).is_ok());
        if candidates.is_empty() {
            return Ok(Read { head: self.parts.tail.head().vector(), value: None });
        }
        let keys: Vec<EntryKey> = candidates.iter().map(|candidate| candidate.at.clone()).collect();
        let read = self.parts.store.entries(&keys).await?;
        let live: BTreeMap<EntryKey, HubRow> = read
            .value
            .into_iter()
            .flatten()
            .filter(|row| row.row.content.is_live())
            .map(|row| (row.row.at.clone(), row))
            .collect();
        let found =
            first(&candidates, |at| live.get(at).map(|row| (row.clone(), row.row.content.is_secret())));
        Ok(Read { head: read.head, value: found.map(|(_, row)| row) })
    }

    /// The 404 for an entry, which says where an inherited value would be found.
    async fn missing(
        &self,
        caller: &Caller,
        at: &EntryKey,
        environments: &Environments,
        resolved: bool,
    ) -> Result<ApiError, ApiError> {
        let scope = &at.scope;
        let place =
            format!("{} in namespace {} and environment {}", at.key, scope.namespace, scope.environment);
        if !resolved {
            let layers = layers(&scope.environment, environments);
            if let Some(row) = self.find(caller, at, &layers[1..]).await?.value {
                let from = row.row.at.scope.environment;
                let message =
                    format!("there is no {place}; a value is inherited from {from}: ask with resolve=true");
                return Ok(ApiError::not_found(message).detail("inherited_from", from.as_str()));
            }
        }
        Ok(ApiError::not_found(format!("there is no {place}")))
    }

    async fn read_version(
        &self,
        caller: &Caller,
        at: &EntryKey,
        version: u64,
        reveal: bool,
    ) -> Result<Answered<Entry>, ApiError> {
        let read = self.parts.store.entries(std::slice::from_ref(at)).await?;
        let current = read.value.into_iter().flatten().next();
        let past = self.past(at, version).await?;
        if past.content.is_purged() {
            return Err(purged(at, version));
        }
        let Some(value) = self.shown(caller, at, &past.content, reveal).await? else {
            return Err(ApiError::not_found(format!("version {version} of {} is a deletion", at.key)));
        };
        let metadata = metadata_of(&past, current.as_ref());
        let told = past.content.told();
        let entry = Entry { at: at.clone(), origin: None, value, version, metadata, told, pending: false };
        Ok(at_position(entry, read.head))
    }

    /// One version of an entry.
    pub(super) async fn past(&self, at: &EntryKey, version: u64) -> Result<HistoryRow, ApiError> {
        let past = self.parts.store.version(at, version).await?;
        past.ok_or_else(|| {
            ApiError::not_found(format!("{} has no version {version}", at.key)).detail("version", version)
        })
    }
}

/// What is known about an old version: tags and description are only kept of the current one.
fn metadata_of(past: &HistoryRow, current: Option<&HubRow>) -> Metadata {
    let created = current.filter(|row| row.row.content.is_live()).map(|row| &row.row.metadata);
    let is_current = current.is_some_and(|row| row.row.version == past.version);
    Metadata {
        created_at: created.map_or(past.created_at, |metadata| metadata.created_at),
        created_by: created.map_or_else(|| past.author.name.clone(), |metadata| metadata.created_by.clone()),
        updated_at: past.created_at,
        updated_by: past.author.name.clone(),
        tags: created.filter(|_| is_current).map_or_else(Vec::new, |metadata| metadata.tags.clone()),
        description: created.filter(|_| is_current).and_then(|metadata| metadata.description.clone()),
    }
}

/// Nobody gets it back.
pub(super) fn purged(at: &EntryKey, version: u64) -> ApiError {
    ApiError::not_found(format!("the value of version {version} of {} was purged", at.key))
        .detail("version", version)
}
