//! 12: nothing of a scope outside the feeds reaches an edge, and no secret where the feed has none.

use llm_config_shared::feed::Feed;
use llm_config_shared::replication::hub::Part;

use super::{Check, Violation};

/// # Errors
/// When a session is given a part of a feed that its edge does not receive.
pub fn parts(feeds: &[Feed], parts: &[Part]) -> Check {
    match parts.iter().find(|part| !feeds.contains(&part.feed)) {
        Some(part) => Err(Violation::new("outside", format!("{:?} is not received", part.feed))),
        None => Ok(()),
    }
}
