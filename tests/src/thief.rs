//! Whoever took the disk of an edge that was switched off, and tries everything on it with the product's own code. The thief's
//! machine is the one that this runs on: it has neither the edge's TPM nor the key of its host, nor a token.

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use llm_config_edge::identity::EdgeIdentity;
use llm_config_edge::keys::EdgeKeys;
use llm_config_edge::offline::{LIMIT_SECRET, limit_keys_on_disk};
use llm_config_edge::store::{self, Owner, StoreOptions};
use llm_config_shared::entry::Content;
use llm_config_shared::seal::SealKey;
use llm_config_shared::secret::{SubtreeKey, open_grant, open_limited_grant, open_secret};
use llm_config_shared::store::replica::Record;
use serde_json::Value;

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Loot {
    /// Values of configuration, as they are read.
    pub values: Vec<String>,
    /// Secrets in clear.
    pub secrets: Vec<String>,
}

/// What lies in the image alone.
pub fn steal(image: &Path) -> Loot {
    match keys(image) {
        Some(keys) => steal_with(image, &keys),
        None => Loot::default(),
    }
}

/// The edge's keys: opened here, or lying in their envelope as they are.
fn keys(image: &Path) -> Option<EdgeKeys> {
    if let Ok(keys) = EdgeKeys::load(image) {
        return Some(keys);
    }
    let envelope: Value = serde_json::from_slice(&fs::read(image.join("keys")).ok()?).ok()?;
    let blob = BASE64.decode(envelope["wrapped"].as_str()?).ok()?;
    let aside = tempfile::tempdir().unwrap();
    llm_config_edge::keys::write_private(&aside.path().join("keys"), &blob).unwrap();
    EdgeKeys::load(aside.path()).ok()
}

/// With keys that came from elsewhere, as from an older copy of the disk.
///
/// # Panics
/// When the image is none of an edge.
pub fn steal_with(image: &Path, keys: &EdgeKeys) -> Loot {
    let identity = EdgeIdentity::load(image).unwrap();
    let owner = Owner { tenant: identity.tenant.clone(), edge: identity.edge.0 };
    let Ok(opened) = store::open(&image.join("replica"), &keys.replica, &owner, StoreOptions::default())
    else {
        return Loot::default();
    };
    let grants = subtree_keys(image, keys, &identity, &opened.records);
    let mut loot = Loot::default();
    for record in &opened.records {
        let (Record::Row(row) | Record::Staged(row)) = record else { continue };
        match &row.content {
            Content::Secret(sealed) => {
                let plain = grants.iter().find_map(|key| open_secret(key, &row.at, sealed).ok());
                loot.secrets.extend(plain.map(|plain| String::from_utf8(plain.to_vec()).unwrap()));
            }
            Content::Plain(value) => loot.values.push(value.as_str().to_owned()),
            Content::Deleted => {}
        }
    }
    loot
}

/// All that any key on the disk opens.
fn subtree_keys(
    image: &Path,
    keys: &EdgeKeys,
    identity: &EdgeIdentity,
    records: &[Record],
) -> Vec<SubtreeKey> {
    let (private, _) = keys.sealing_pair();
    let mut limit_keys = limit_keys_on_disk(image, &keys.replica);
    // A limit secret that nobody wrapped is a key as it is.
    let in_clear = fs::read(image.join(LIMIT_SECRET)).ok().and_then(|bytes| SealKey::from_slice(&bytes).ok());
    limit_keys.extend(in_clear.into_iter().flat_map(|under| limit_keys_on_disk(image, &under)));
    let (tenant, name) = (&identity.tenant, identity.edge.0.to_string());
    let mut found = Vec::new();
    for record in records {
        let Record::Grant(grant) = record else { continue };
        found.extend(open_grant(grant, tenant, &name, &private));
        if let Some(limit_key) = limit_keys.get(&grant.subtree) {
            found.extend(open_limited_grant(grant, tenant, &name, &private, limit_key));
        }
    }
    found
}
