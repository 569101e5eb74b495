//! Taking one use of a join token and storing the edge.

use llm_config_shared::limits::NAME_BYTES_MAX;
use llm_config_shared::name::EdgeName;
use llm_config_shared::stamp::ActorId;
use llm_config_shared::time::UnixMillis;

use super::{edges, tokens};
use crate::journal::dialect::{Answer, Transact};
use crate::registry::{Edge, EdgeKeys, JoinOutcome, JoinRefusal, JoinToken, TokenHash};

/// The token is locked throughout: two edges never take the same use.
pub(super) async fn join<T: Transact>(
    tx: &mut T,
    hash: &TokenHash,
    keys: &EdgeKeys,
    requested: Option<&EdgeName>,
    id: ActorId,
    now: UnixMillis,
) -> Answer<JoinOutcome> {
    let Some(token) = tokens::lock_join(tx, hash).await? else {
        return Ok(JoinOutcome::Refused(JoinRefusal::Unknown));
    };
    // An edge whose answer got lost asks again, perhaps when the token has run out.
    if let Some(known) = edges::by_token(tx, token.id, &keys.public_key).await? {
        return again(tx, known, keys).await;
    }
    if token.uses >= token.max_uses {
        return Ok(JoinOutcome::Refused(JoinRefusal::Used));
    }
    if now >= token.expires_at {
        return Ok(JoinOutcome::Refused(JoinRefusal::Expired));
    }
    let Some(name) = free_name(tx, &token, requested).await? else {
        return Ok(JoinOutcome::Refused(JoinRefusal::NameTaken));
    };
    let edge = Edge {
        id,
        tenant: token.tenant.clone(),
        binding: token.binding.clone().of_edge(&name),
        name,
        labels: token.labels.clone(),
        public_key: keys.public_key.clone(),
        sealing_key: keys.sealing_key.clone(),
        joined_at: now,
        removed_at: None,
        last_seen_at: None,
        acked_seq: 0,
    };
    // Another token's edge may have taken the name since it was looked for.
    if !edges::add(tx, &edge, token.id).await? {
        return Ok(JoinOutcome::Refused(JoinRefusal::NameTaken));
    }
    tokens::use_join(tx, token.id).await?;
    Ok(JoinOutcome::Joined(edge))
}

/// A removed edge stays out: its token was used. The sealing key may be new, if the edge lost the answer and made
/// another; whoever holds the enrolled key may say so.
async fn again<T: Transact>(tx: &mut T, mut known: Edge, keys: &EdgeKeys) -> Answer<JoinOutcome> {
    if known.removed_at.is_some() {
        return Ok(JoinOutcome::Refused(JoinRefusal::Used));
    }
    if known.sealing_key != keys.sealing_key {
        edges::set_sealing_key(tx, known.id, &keys.sealing_key).await?;
        known.sealing_key.clone_from(&keys.sealing_key);
    }
    Ok(JoinOutcome::Again(known))
}

/// None when the only name that the edge may have is taken.
async fn free_name<T: Transact>(
    tx: &mut T,
    token: &JoinToken,
    requested: Option<&EdgeName>,
) -> Answer<Option<EdgeName>> {
    let wanted = match requested {
        _ if token.max_uses == 1 => Some(&token.name),
        Some(requested) if requested.as_str().starts_with(token.name.as_str()) => Some(requested),
        _ => None,
    };
    if let Some(name) = wanted {
        let taken = edges::by_name(tx, &token.tenant, name).await?.is_some();
        return Ok((!taken).then(|| name.clone()));
    }
    // As many names are tried as the token has uses, and one more than edges can have them by this token.
    for number in token.uses + 1..=token.uses + token.max_uses {
        let Some(name) = numbered(&token.name, number) else {
            return Ok(None);
        };
        if edges::by_name(tx, &token.tenant, &name).await?.is_none() {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// NAME-N, shortened in front of the number where it would be too long.
fn numbered(name: &EdgeName, number: u32) -> Option<EdgeName> {
    let suffix = format!("-{number}");
    let room = NAME_BYTES_MAX - suffix.len();
    let front = name.as_str().get(..room).unwrap_or(name.as_str());
    EdgeName::parse(&format!("{front}{suffix}")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_numbered_name_fits_the_limit() {
        let name = |text: &str| EdgeName::parse(text).unwrap();
        assert_eq!(numbered(&name("store"), 12), Some(name("store-12")));
        let long = "x".repeat(NAME_BYTES_MAX);
        assert_eq!(numbered(&name(&long), 12).unwrap().as_str().len(), NAME_BYTES_MAX);
    }
}
