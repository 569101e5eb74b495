//! Listing entries, page by page, with or without what is inherited.

use std::collections::BTreeMap;

use llm_config_proto::rest::error::ApiError;
use llm_config_proto::rest::service::{Answered, Caller, Entry, EntryPage, ListEntries};
use llm_config_shared::entry::{Content, HubRow};
use llm_config_shared::name::{EntryKey, Environment, Key, Namespace, Scope, Subtree};
use llm_config_shared::resolve::{Layer, layers};
use llm_config_shared::store::{Journal, Listing};
use llm_config_shared::vector::Vector;

use super::{Api, at_position};
use crate::guard;
use crate::registry::Registry;

/// A page is cut behind the entry that makes it larger than this.
const PAGE_BYTES_CUT: usize = 4 << 20;
/// Most entries of one environment in memory at once.
const SLICE_ROWS_MAX: usize = 500;
/// Most entries looked at for one page; a rare tag is then found on a later one.
const LOOKED_AT_MAX: usize = 20_000;
/// How often environments are read anew because a commit came between them.
const TORN_MAX: usize = 3;

type Place = (Namespace, Key);

/// Rows in order, and where to go on.
struct Slice {
    head: Vector,
    rows: Vec<HubRow>,
    /// Everything up to here is in `rows`; none when that is all there is.
    up_to: Option<Place>,
}

impl<S: Journal + Registry> Api<S> {
    pub(super) async fn read_many(
        &self,
        caller: &Caller,
        request: ListEntries,
    ) -> Result<Answered<EntryPage>, ApiError> {
        let (environments, environment) = self.environment(caller, request.environment.as_ref()).await?;
        guard::may(caller, llm_config_shared::access::Permission::Read)?;
        self.come_to(&request.demand).await?;
        let mut chain = layers(&environment, &environments);
        chain.truncate(if request.resolve { chain.len() } else { 1 });
        let mut page = EntryPage { entries: Vec::new(), next: None };
        let (mut after, mut head, mut looked_at, mut bytes) = (request.after.clone(), None, 0, 0);
        loop {
            let slice = self.slice(caller, &request, &chain, after.as_ref()).await?;
            head.get_or_insert(slice.head);
            looked_at += slice.rows.len();
            for row in slice.rows {
                let place = place(&row);
                if page.entries.len() == request.limit || bytes > PAGE_BYTES_CUT {
                    page.next = page.entries.last().map(|entry| place_of(&entry.at));
                    break;
                }
                if !wanted(caller, &request, &row) {
                    continue;
                }
                bytes += size(&row);
                page.entries.push(self.listed(caller, &request, &environment, row, place).await?);
            }
            after = slice.up_to;
            if after.is_none() || page.next.is_some() {
                break;
            }
            if looked_at >= LOOKED_AT_MAX {
                page.next = after;
                break;
            }
        }
        Ok(at_position(page, head.expect("at least one slice was read")))
    }

    async fn listed(
        &self,
        caller: &Caller,
        request: &ListEntries,
        environment: &Environment,
        row: HubRow,
        (namespace, key): Place,
    ) -> Result<Entry, ApiError> {
        let row = row.row;
        let value = self.shown(caller, &row.at, &row.content, request.reveal).await?;
        let scope = Scope { tenant: caller.tenant.clone(), environment: environment.clone(), namespace };
        Ok(Entry {
            at: EntryKey { scope, key },
            origin: request.resolve.then_some(row.at.scope),
            value: value.expect("only live rows are listed"),
            version: row.version,
            metadata: row.metadata,
            told: row.content.told(),
            pending: false,
        })
    }

    /// The next rows along the chain, all of one moment if the hub is not too busy for it.
    async fn slice(
        &self,
        caller: &Caller,
        request: &ListEntries,
        chain: &[Layer],
        after: Option<&Place>,
    ) -> Result<Slice, ApiError> {
        let limit = (request.limit + 1).min(SLICE_ROWS_MAX);
        let mut torn = 0;
        loop {
            let mut read = Vec::with_capacity(chain.len());
            for layer in chain {
                let listing = Listing {
                    tenant: caller.tenant.clone(),
                    environment: layer.environment.clone(),
                    subtree: Subtree::of(request.namespace.clone()),
                    recursive: request.recursive,
                    key_prefix: request.prefix.clone(),
                    after: after.cloned(),
                    limit,
                };
                read.push(self.parts.store.list(&listing).await?);
            }
            let head = read[0].head.clone();
            if torn < TORN_MAX && read.iter().any(|of_environment| of_environment.head != head) {
                torn += 1;
                continue;
            }
            let rows = read.into_iter().map(|of_environment| of_environment.value);
            return Ok(merge(head, chain.iter().zip(rows), limit));
        }
    }
}

/// Rows of the environments of a chain, nearest first, as a reader of the first one sees them.
fn merge<'a>(
    head: Vector,
    environments: impl Iterator<Item = (&'a Layer, Vec<HubRow>)>,
    limit: usize,
) -> Slice {
    let mut nearest: BTreeMap<Place, HubRow> = BTreeMap::new();
    let mut up_to: Option<Place> = None;
    for (layer, rows) in environments {
        if rows.len() >= limit
            && let Some(last) = rows.last().map(place)
        {
            up_to = Some(match up_to {
                Some(before) => before.min(last),
                None => last,
            });
        }
        for row in rows {
            if layer.secrets || !row.row.content.is_secret() {
                nearest.entry(place(&row)).or_insert(row);
            }
        }
    }
    // Beyond the end of the shortest list, a nearer environment may hold what was not read.
    if let Some(bound) = &up_to {
        nearest.retain(|place, _| place <= bound);
    }
    Slice { head, rows: nearest.into_values().collect(), up_to }
}

fn place(row: &HubRow) -> Place {
    place_of(&row.row.at)
}

fn place_of(at: &EntryKey) -> Place {
    (at.scope.namespace.clone(), at.key.clone())
}

fn wanted(caller: &Caller, request: &ListEntries, row: &HubRow) -> bool {
    let tagged =
        request.tag.as_deref().is_none_or(|tag| row.row.metadata.tags.iter().any(|has| &**has == tag));
    tagged && guard::may_read(caller, &row.row.at).is_ok()
}

fn size(row: &HubRow) -> usize {
    match &row.row.content {
        Content::Plain(value) => value.as_str().len(),
        Content::Secret(sealed) => sealed.body.len(),
        Content::Deleted => 0,
    }
}
