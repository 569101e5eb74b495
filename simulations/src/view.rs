//! What readers at an edge see: rows, and own pending writes over them. Moves only when the replica publishes.

use std::collections::BTreeMap;
use std::sync::Arc;

use llm_config_shared::entry::Row;
use llm_config_shared::feed::Feed;
use llm_config_shared::name::EntryKey;
use llm_config_shared::replication::edge::Published;
use llm_config_shared::vector::Vector;
use llm_config_shared::write::Write;

/// An edge's view as its daemon would keep it.
#[derive(Clone, Debug, Default)]
pub struct View {
    pub rows: BTreeMap<EntryKey, Arc<Row>>,
    pub pending: BTreeMap<EntryKey, Write>,
    pub feeds: BTreeMap<Feed, Vector>,
}

impl View {
    /// Takes what the replica published, all at once.
    pub fn apply(&mut self, published: &Published) {
        for (at, row) in &published.rows {
            match row {
                Some(row) => drop(self.rows.insert(at.clone(), row.clone())),
                None => drop(self.rows.remove(at)),
            }
        }
        for (at, write) in &published.pending {
            match write {
                Some(write) => drop(self.pending.insert(at.clone(), write.clone())),
                None => drop(self.pending.remove(at)),
            }
        }
        for (feed, vector) in &published.feeds {
            match vector {
                Some(vector) => drop(self.feeds.insert(feed.clone(), vector.clone())),
                None => drop(self.feeds.remove(feed)),
            }
        }
    }

    /// The feed that brings this entry, and how far it has come.
    pub fn feed_of(&self, at: &EntryKey) -> Option<(&Feed, &Vector)> {
        self.feeds.iter().find(|(feed, _)| feed.contains(at))
    }
}
