//! 5: no live row that an admitted delete of its key had seen.

use llm_config_shared::name::EntryKey;
use llm_config_shared::stamp::WriteId;

use super::{Check, Violation};
use crate::truth::Truth;

/// # Errors
/// When a live winner is one that a delete had seen.
pub fn winner(truth: &Truth, at: &EntryKey, id: WriteId) -> Check {
    let deletes = truth.deletes.get(at).map_or(&[][..], Vec::as_slice);
    match deletes
        .iter()
        .find(|delete| truth.is_past(id, **delete) || truth.is_past(truth.released(id), **delete))
    {
        Some(delete) => {
            Err(Violation::new("zombies", format!("{id:?} is back at {} after {delete:?}", at.key)))
        }
        None => Ok(()),
    }
}
