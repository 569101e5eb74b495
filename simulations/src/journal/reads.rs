//! What is read of the database, as of one version.

use llm_config_shared::digest::ScopeDigest;
use llm_config_shared::entry::{ChangeId, Content, HistoryRow, HubRow, Status};
use llm_config_shared::feed::Feed;
use llm_config_shared::name::{EntryKey, Tenant};
use llm_config_shared::settled::{ConflictState, held_id};
use llm_config_shared::stamp::{ActorId, WriteId};
use llm_config_shared::store::{
    Base, ChangeRow, Conflict, Event, FeedRows, FeedSnapshot, Head, JournalError, Listing, Page, Paged,
    Planning, PlanningRequest,
};
use llm_config_shared::vector::{Dot, EpochTable, Position, Vector};
use uuid::Uuid;

use super::state::{State, StoredConflict};

impl State {
    pub(super) fn head(&self, version: usize) -> Result<Head, JournalError> {
        let unavailable = || JournalError::Unavailable("no hub has been started on it yet".into());
        let mark = self.mark(version).ok_or_else(unavailable)?;
        let shard = self.shard.ok_or_else(unavailable)?;
        let own = EpochTable::new(self.epochs[..mark.epochs].to_vec());
        let epochs = mark.following.epochs.clone().with(shard, own);
        let regions = mark.following.regions.clone();
        Ok(Head { shard, position: mark.position, hlc: mark.hlc, horizon: mark.horizon, epochs, regions })
    }

    pub(super) fn row(&self, at: &EntryKey, version: usize) -> Option<&HubRow> {
        let row = self.row_or_purged(at, version)?;
        let purged = self.stub(at, version).is_some_and(|stub| stub.dot == row.row.dot);
        (!purged).then_some(row)
    }

    pub(super) fn row_or_purged(&self, at: &EntryKey, version: usize) -> Option<&HubRow> {
        self.rows.get(at)?.at(version)
    }

    /// Rows of the feed's part of the tenant with a seq above `after`.
    pub(super) fn feed_rows<'a>(
        &'a self,
        feed: &'a Feed,
        after: u64,
        version: usize,
    ) -> impl Iterator<Item = &'a HubRow> {
        let keys = self.rows.keys().filter(|at| feed.contains(at));
        let rows = keys.filter_map(move |at| self.row(at, version));
        rows.filter(move |row| row.row.dot.position.seq > after)
    }

    /// The plain value that the entry had at a place in the order, also in the midst of a commit.
    fn base(&self, at: &EntryKey, place: u64) -> Option<(EntryKey, Base)> {
        let winners = self.history.iter().rev().filter_map(|stored| Some((stored.row.seq?, &stored.row)));
        let (seq, row) = winners.filter(|(_, row)| row.at == *at).find(|(seq, _)| *seq <= place)?;
        match &row.content {
            Content::Plain(value) => Some((at.clone(), Base { seq, value: value.clone() })),
            Content::Secret(_) | Content::Deleted => None,
        }
    }

    pub(super) fn read_feeds(&self, feeds: &[(Feed, Vector)], head: Head, version: usize) -> FeedSnapshot {
        let read = |(feed, from): &(Feed, Vector)| {
            let mut digest = ScopeDigest::default();
            let scopes = self.digests.iter().filter(|(scope, _)| {
                scope.tenant == feed.tenant
                    && scope.environment == feed.environment
                    && feed.subtree.contains(&scope.namespace)
            });
            for scope in scopes.filter_map(|(_, cell)| cell.at(version)) {
                digest.merge(scope);
            }
            let from = head.served_from(from);
            let after = from.seq(head.shard);
            let rows: Vec<HubRow> = self.feed_rows(feed, after, version).cloned().collect();
            let worth = rows.iter().filter(|row| Base::is_worth(row, &from));
            let bases = worth.filter_map(|row| self.base(&row.row.at, after)).collect();
            FeedRows { feed: feed.clone(), rows, bases, digest }
        };
        let feeds = feeds.iter().map(read).collect();
        FeedSnapshot { head, feeds }
    }

    pub(super) fn planning(&self, request: &PlanningRequest, version: usize) -> Planning {
        let mut keys: Vec<&EntryKey> = request.keys.iter().collect();
        keys.sort();
        keys.dedup();
        let mut scopes: Vec<_> = keys.iter().map(|at| &at.scope).collect();
        scopes.dedup();
        let digest = |scope| Some((Clone::clone(scope), *self.digests.get(scope)?.at(version)?));
        let wanted = |repeat: &llm_config_shared::store::Repeat| {
            request.repeats.iter().any(|(tenant, change, batch)| {
                *tenant == repeat.tenant && *change == repeat.change && *batch == repeat.batch
            })
        };
        let repeats = self.repeats.iter().filter(|(since, repeat)| *since <= version && wanted(repeat));
        let known = |(actor, counter): &(ActorId, u64)| {
            let (actor, counter) = (*actor, *counter);
            let lives = self.frontiers.range((actor, 0)..=(actor, u64::MAX));
            lives.filter_map(move |((_, incarnation), _)| {
                let id = WriteId { actor, incarnation: *incarnation, counter };
                let stored = &self.history[*self.by_write.get(&id)?];
                (stored.since <= version).then_some((id, stored.row.content_hash))
            })
        };
        Planning {
            rows: keys.iter().filter_map(|at| self.row(at, version).cloned()).collect(),
            stubs: keys
                .iter()
                .filter(|at| self.row(at, version).is_none())
                .filter_map(|at| self.stub(at, version).cloned())
                .collect(),
            digests: scopes.into_iter().filter_map(digest).collect(),
            frontiers: request
                .frontiers
                .iter()
                .filter_map(|edge| self.frontiers.get(edge)?.at(version).copied())
                .collect(),
            repeats: repeats.map(|(_, repeat)| repeat.clone()).collect(),
            known_writes: request.writes.iter().flat_map(known).collect(),
            policies: self.policies.clone(),
            conflicts: {
                let asked = |known: &&StoredConflict| request.conflicts.contains(&known.row.id);
                let seen = self.conflicts.iter().filter(|known| known.since <= version);
                seen.filter(asked).map(|known| known.at(version)).collect()
            },
            past: self.writes(&request.past, version),
            restored: {
                let asked = request.restored.iter();
                asked
                    .filter_map(|(tenant, after)| Some((tenant.clone(), self.restored(tenant, *after)?)))
                    .collect()
            },
        }
    }

    pub(super) fn list(&self, listing: &Listing, version: usize) -> Vec<HubRow> {
        let wanted = |at: &EntryKey| {
            let scope = &at.scope;
            let inside = match (listing.recursive, listing.subtree.top()) {
                (true, _) => listing.subtree.contains(&scope.namespace),
                (false, top) => top == Some(&scope.namespace),
            };
            let begins = listing.key_prefix.as_ref().is_none_or(|prefix| at.key.as_str().starts_with(prefix));
            let after =
                listing.after.as_ref().is_none_or(|(ns, key)| (&scope.namespace, &at.key) > (ns, key));
            scope.tenant == listing.tenant
                && scope.environment == listing.environment
                && inside
                && begins
                && after
        };
        let mut rows: Vec<HubRow> = (self.rows.iter().filter(|(at, _)| wanted(at)))
            .filter_map(|(_, cell)| cell.at(version))
            .filter(|row| row.row.content.is_live())
            .cloned()
            .collect();
        rows.sort_by(|a, b| {
            (&a.row.at.scope.namespace, &a.row.at.key).cmp(&(&b.row.at.scope.namespace, &b.row.at.key))
        });
        rows.truncate(listing.limit);
        rows
    }

    pub(super) fn whole_history(&self, version: usize) -> Vec<HistoryRow> {
        self.history.iter().filter_map(|stored| stored.at(version)).collect()
    }

    pub(super) fn history_page(
        &self,
        page: Page,
        version: usize,
        wanted: impl Fn(&HistoryRow) -> bool,
    ) -> Paged<HistoryRow> {
        let rows = self.history.iter().enumerate().rev();
        let rows = rows.filter_map(|(n, stored)| Some((n as u64 + 1, stored.at(version)?)));
        paged(rows.filter(|(_, row)| wanted(row)), page)
    }

    pub(super) fn held_page(&self, tenant: &Tenant, page: Page, version: usize) -> Paged<HistoryRow> {
        self.history_page(page, version, |row| row.at.scope.tenant == *tenant && row.status == Status::Held)
    }

    pub(super) fn held_after(
        &self,
        tenant: &Tenant,
        after: u64,
        limit: usize,
        version: usize,
    ) -> Vec<(u64, HistoryRow)> {
        let rows = (1..).zip(self.whole_history(version));
        let waits = |row: &HistoryRow| row.at.scope.tenant == *tenant && row.status == Status::Held;
        rows.filter(|(number, row)| *number > after && waits(row)).take(limit).collect()
    }

    pub(super) fn entry_version(&self, at: &EntryKey, number: u64, version: usize) -> Option<HistoryRow> {
        let rows = self.history.iter().filter_map(|stored| stored.at(version));
        rows.filter(|row| row.at == *at && row.version == number)
            .filter(|row| matches!(row.status, Status::Applied | Status::SupersededConcurrent))
            .min_by_key(|row| (row.status, std::cmp::Reverse(row.stamp)))
    }

    pub(super) fn change_page(&self, tenant: &Tenant, page: Page, version: usize) -> Paged<ChangeRow> {
        let changes = self.changes.iter().enumerate().rev();
        let rows = changes.filter_map(|(n, stored)| {
            let writes = *stored.writes.at(version)?;
            Some((n as u64 + 1, ChangeRow { writes, ..stored.row.clone() }))
        });
        paged(rows.filter(|(_, row)| row.tenant == *tenant), page)
    }

    pub(super) fn change_with_writes(
        &self,
        tenant: &Tenant,
        change: ChangeId,
        version: usize,
    ) -> Option<(ChangeRow, Vec<HistoryRow>)> {
        let found = |row: &HistoryRow| row.change == change || row.returned_in == Some(change);
        let mine = |row: &HistoryRow| found(row) && row.at.scope.tenant == *tenant;
        let rows: Vec<HistoryRow> = self.whole_history(version).into_iter().filter(mine).collect();
        let stored = self.by_change.get(&(tenant.clone(), change)).map(|number| &self.changes[*number]);
        let known = stored.and_then(|stored| {
            stored.writes.at(version).map(|writes| ChangeRow { writes: *writes, ..stored.row.clone() })
        });
        Some((known.or_else(|| ChangeRow::of_writes(change, &rows))?, rows))
    }

    /// Conflicts of a tenant, oldest first, with their numbers.
    fn tenants_conflicts(
        &self,
        tenant: &Tenant,
        version: usize,
    ) -> impl DoubleEndedIterator<Item = (u64, Conflict)> {
        let seen = self.conflicts.iter().enumerate();
        let mine =
            seen.filter(move |(_, known)| known.since <= version && known.row.at.scope.tenant == *tenant);
        mine.map(move |(n, known)| (n as u64 + 1, known.at(version)))
    }

    pub(super) fn conflict_page(
        &self,
        tenant: &Tenant,
        wanted: Option<ConflictState>,
        page: Page,
        version: usize,
    ) -> Paged<Conflict> {
        let matches = |known: &Conflict| {
            wanted.is_none_or(|wanted| ConflictState::of(known.settled.as_ref()) == wanted)
        };
        paged(self.tenants_conflicts(tenant, version).rev().filter(|(_, known)| matches(known)), page)
    }

    pub(super) fn conflict(&self, tenant: &Tenant, id: Uuid, version: usize) -> Option<Conflict> {
        self.tenants_conflicts(tenant, version).map(|(_, known)| known).find(|known| known.id == id)
    }

    pub(super) fn conflict_mark(&self, tenant: &Tenant, seq: Option<u64>, version: usize) -> u64 {
        let before = |number: &u64| seq.is_none_or(|seq| self.conflicts[*number as usize - 1].seq < seq);
        let numbers = self.tenants_conflicts(tenant, version).map(|(number, _)| number);
        numbers.filter(before).max().unwrap_or(0)
    }

    pub(super) fn conflicts_after(
        &self,
        tenant: &Tenant,
        after: u64,
        limit: usize,
        version: usize,
    ) -> Vec<(u64, Conflict)> {
        self.tenants_conflicts(tenant, version).filter(|(number, _)| *number > after).take(limit).collect()
    }

    pub(super) fn writes(&self, ids: &[WriteId], version: usize) -> Vec<HistoryRow> {
        let stored = ids.iter().filter_map(|id| self.by_write.get(id));
        stored.filter_map(|at| self.history[*at].at(version)).collect()
    }

    pub(super) fn held_write(&self, tenant: &Tenant, id: Uuid, version: usize) -> Option<HistoryRow> {
        let waited = |row: &HistoryRow| {
            let withdrawn =
                self.history.iter().any(|known| known.withdrawn && known.row.stamp.id == row.stamp.id);
            withdrawn || matches!(row.status, Status::Held | Status::Released | Status::Dropped)
        };
        let rows = self.history.iter().filter_map(|stored| stored.at(version));
        let mut named = rows.filter(|row| row.at.scope.tenant == *tenant && held_id(row.stamp.id) == id);
        named.find(waited)
    }

    pub(super) fn events_after(
        &self,
        tenant: &Tenant,
        after: u64,
        limit: usize,
        version: usize,
    ) -> Vec<Event> {
        let Some(shard) = self.shard else { return Vec::new() };
        let mut events: Vec<Event> = (self.history.iter())
            .filter(|stored| stored.since <= version && stored.row.at.scope.tenant == *tenant)
            .filter_map(|stored| {
                let row = &stored.row;
                let seq = row.seq.filter(|seq| *seq > after)?;
                let epoch = self.mark(stored.since)?.position.epoch;
                Some(Event {
                    at: row.at.clone(),
                    dot: Dot { shard, position: Position { epoch, seq } },
                    version: row.version,
                    change: row.change,
                    change_type: row.change_type,
                    secret: matches!(row.content, Content::Secret(_)),
                    author: row.author.name.clone(),
                    created_at: row.created_at,
                })
            })
            .collect();
        events.sort_by_key(|event| event.dot.position.seq);
        events.truncate(limit);
        events
    }
}

/// One page of rows that come newest first, each with its number.
fn paged<T>(rows: impl Iterator<Item = (u64, T)>, page: Page) -> Paged<T> {
    let below = rows.filter(|(number, _)| page.before.is_none_or(|before| *number < before));
    let mut found: Vec<(u64, T)> = below.take(page.limit.saturating_add(1)).collect();
    let more = found.len() > page.limit;
    found.truncate(page.limit);
    let next = if more { found.last().map(|(number, _)| *number) } else { None };
    Paged { rows: found.into_iter().map(|(_, row)| row).collect(), next }
}
