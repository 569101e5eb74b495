//! What is stated about a lost edge: every version of a secret that it could read, and with whom it shared it.

use std::collections::BTreeMap;

use llm_config_proto::rest::error::ApiError;
use llm_config_shared::exposure::{KeysGiven, SecretVersion};
use llm_config_shared::stamp::ActorId;
use llm_config_shared::time::UnixMillis;
use serde_json::{Value as Json, json};

use crate::registry::{Edge, GrantRow, Loss, Registry};

/// The statement, and what in it is still in use.
pub(super) struct Stated {
    pub(super) receipt: Json,
    pub(super) to_rotate: Vec<SecretVersion>,
}

/// What the ledger's lines of one edge open.
pub(super) fn keys_given(grants: &[GrantRow]) -> KeysGiven {
    let mut given = KeysGiven::default();
    for grant in grants {
        given.add(grant.environment.clone(), grant.key_epoch, grant.subtree.clone());
    }
    given
}

/// Everything that the edge could read, as of now.
pub(super) async fn state<S: Registry>(
    store: &S,
    edge: &Edge,
    lost_at: UnixMillis,
) -> Result<Stated, ApiError> {
    let ledger = store.all_grants(&edge.tenant).await?;
    let mut by_edge: BTreeMap<ActorId, Vec<GrantRow>> = BTreeMap::new();
    for grant in ledger {
        by_edge.entry(grant.edge).or_default().push(grant);
    }
    let grants = by_edge.remove(&edge.id).unwrap_or_default();
    let given = keys_given(&grants);
    let others: Vec<KeysGiven> = by_edge.values().map(|grants| keys_given(grants)).collect();
    let (mut exposed, mut to_rotate) = (Vec::new(), Vec::new());
    for kept in store.secret_versions(&edge.tenant).await? {
        let version = kept.version;
        if !given.exposes(&version) {
            continue;
        }
        let shared_with = others.iter().filter(|other| other.exposes(&version)).count();
        exposed.push(json!({
            "environment": version.at.scope.environment.as_str(),
            "namespace": version.at.scope.namespace.as_str(),
            "key": version.at.key.as_str(),
            "version": version.version,
            "key_generation": version.key_epoch,
            "current": kept.current,
            "shared_with": shared_with,
        }));
        if kept.current {
            to_rotate.push(version);
        }
    }
    let receipt = json!({
        "format": 1,
        "tenant": edge.tenant.as_str(),
        "edge": edge.name.as_str(),
        "edge_id": edge.id.0.to_string(),
        "lost_at": lost_at.to_rfc3339(),
        "given": grants.iter().map(given_line).collect::<Vec<_>>(),
        "exposed": exposed,
        "to_rotate": to_rotate.len(),
    });
    Ok(Stated { receipt, to_rotate })
}

fn given_line(grant: &GrantRow) -> Json {
    json!({
        "environment": grant.environment.as_str(),
        "namespace": grant.subtree.as_str(),
        "key_generation": grant.key_epoch,
        "given_at": grant.granted_at.to_rfc3339(),
    })
}

/// A receipt as it was kept.
pub(super) fn read(loss: &Loss) -> Result<Json, ApiError> {
    serde_json::from_slice(&loss.receipt).map_err(|_| {
        tracing::error!(edge = %loss.name, "a receipt in the database cannot be read");
        ApiError::internal("the receipt in the database is damaged")
    })
}
