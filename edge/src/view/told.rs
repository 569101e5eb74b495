//! What followers hear of a switch.

use std::collections::BTreeMap;
use std::sync::Arc;

use llm_config_proto::rest::service::Told;
use llm_config_shared::entry::{ChangeType, Row};
use llm_config_shared::name::EntryKey;
use llm_config_shared::replication::edge::Published;
use llm_config_shared::store::Event;

/// More changes than this are told as one: read anew.
const EVENTS_MAX: usize = 1_000;

/// One event for each row that differs from what is there, in the hub's order. A row that went without a successor is
/// told with what was last known of it.
pub(super) fn events(rows: &BTreeMap<EntryKey, Arc<Row>>, published: &Published) -> Vec<Told> {
    if published.rows.len() > EVENTS_MAX {
        let position = published.feeds.iter().find_map(|(_, vector)| vector.clone()).unwrap_or_default();
        return vec![Told::Reset(position)];
    }
    let mut events: Vec<Event> = published
        .rows
        .iter()
        .filter_map(|(at, row)| {
            let before = rows.get(at);
            match row {
                Some(row) if row.content.is_live() => match before {
                    Some(before) if before.stamp == row.stamp => None,
                    Some(_) => Some(event(row, ChangeType::Update)),
                    None => Some(event(row, ChangeType::Create)),
                },
                Some(row) => before.map(|_| event(row, ChangeType::Delete)),
                None => before.map(|before| event(before, ChangeType::Delete)),
            }
        })
        .collect();
    events.sort_by_key(|event| (event.dot.shard, event.dot.position.seq));
    events.into_iter().map(Told::Change).collect()
}

fn event(row: &Row, change_type: ChangeType) -> Event {
    Event {
        at: row.at.clone(),
        dot: row.dot,
        version: row.version,
        change: row.change,
        change_type,
        secret: row.content.is_secret(),
        author: row.metadata.updated_by.clone(),
        created_at: row.metadata.updated_at,
    }
}
