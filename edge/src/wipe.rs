//! Destroying what an edge holds: because its hub removed it, or by hand.
//!
//! First a file says that it was begun, and bears the edge's signed word that it is done: the key that signs it goes with
//! the rest. Then the keys are overwritten and removed, without which the replica is noise, then the replica. Killed at any
//! moment, the next start goes on. The file stays until the hub has taken the word.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use llm_config_proto::possession::wipe_message;
use llm_config_proto::sync::{Client, Dial, WipeReport};
use llm_config_proto::tls::Trust;
use llm_config_shared::stamp::ActorId;
use llm_config_shared::time::UnixMillis;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::identity::{self, EdgeIdentity};
use crate::join::{self, JoinError, REPLICA, address};
use crate::keeper::Keeper;
use crate::keys::{self, EdgeKeys, read_private, write_private};
use crate::offline::{CONTACT, HUB_KEY, LIMIT_KEYS, LIMIT_SECRET, RESTART_FILE, destroy};

/// The file that says that a wipe was begun.
pub const MARKER: &str = "wiped";
/// The hub is tried for so long; the next start tries again.
const REPORT_TIME_MAX: Duration = Duration::from_secs(10);

/// Overwritten and removed, in this order: what opens secrets first.
const DESTROYED: [&str; 7] =
    [LIMIT_KEYS, LIMIT_SECRET, keys::FILE, CONTACT, HUB_KEY, identity::FILE, RESTART_FILE];

/// What is left of an edge that was wiped: enough to say so, and no secret.
#[derive(Serialize, Deserialize)]
struct Farewell {
    name: String,
    edge: String,
    hub: String,
    ca_pem: String,
    wiped_at: u64,
    proof: String,
}

/// Whether a wipe was begun in this directory.
pub fn is_pending(directory: &Path) -> bool {
    directory.join(MARKER).exists()
}

/// Begins: from here on nothing in the directory is used as an edge's any more.
///
/// # Errors
/// When the file cannot be written; then nothing has begun.
pub fn begin(
    directory: &Path,
    identity: &EdgeIdentity,
    keys: &EdgeKeys,
    now: UnixMillis,
) -> Result<(), JoinError> {
    let proof = keys.sign(&wipe_message(identity.edge.0, now.0))?;
    let farewell = Farewell {
        name: identity.name.to_string(),
        edge: identity.edge.0.to_string(),
        hub: identity.hub.clone(),
        ca_pem: identity.credentials.ca_pem.clone(),
        wiped_at: now.0,
        proof: BASE64.encode(proof),
    };
    let text = serde_json::to_vec_pretty(&farewell).expect("strings and a number");
    Ok(write_private(&directory.join(MARKER), &text)?)
}

/// Destroys keys, then identity, then replica; done again it does nothing.
///
/// # Errors
/// When something cannot be removed: what comes after it is still there.
pub(crate) fn destroy_all(directory: &Path) -> Result<(), JoinError> {
    keys::settle(directory)?;
    // With each what was being written when a daemon was killed.
    for path in
        DESTROYED.iter().flat_map(|name| [directory.join(name), directory.join(format!("{name}.new"))])
    {
        destroy(&path).map_err(|source| join::file(&path, source))?;
    }
    let entries = fs::read_dir(directory).map_err(|source| join::file(directory, source))?;
    for entry in entries.flatten() {
        let ours = entry.file_name().to_string_lossy().starts_with(REPLICA);
        if ours && entry.path().is_dir() {
            join::gone(&entry.path(), fs::remove_dir_all(entry.path()))?;
        }
    }
    let synced = fs::File::open(directory).and_then(|opened| opened.sync_all());
    synced.map_err(|source| join::file(directory, source))?;
    // Last, for whoever has it may be away. What it opened is gone here, and copies of it elsewhere go with this.
    Keeper::settle(None, directory).map_err(|error| JoinError::Kept(Box::new(error.into())))
}

/// Removes the file that says that a wipe was begun.
///
/// # Errors
/// When it cannot be removed.
pub(crate) fn forget(directory: &Path) -> Result<(), JoinError> {
    let path = directory.join(MARKER);
    join::gone(&path, fs::remove_file(&path))
}

/// Goes on to the end, and tells the hub. That it cannot be told is no failure: it is tried again at the next start.
///
/// # Errors
/// When something cannot be destroyed.
pub async fn finish(directory: &Path) -> Result<(), JoinError> {
    destroy_all(directory)?;
    let reported = tokio::time::timeout(REPORT_TIME_MAX, report(directory)).await;
    let why = match reported {
        Ok(Ok(())) => {
            forget(directory)?;
            tracing::warn!("this edge's keys and data are destroyed, and its hub knows");
            return Ok(());
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => "the hub did not answer in time".to_owned(),
    };
    tracing::warn!(why, "this edge's keys and data are destroyed; its hub does not know yet: run this again");
    Ok(())
}

async fn report(directory: &Path) -> Result<(), JoinError> {
    let path = directory.join(MARKER);
    let text = read_private(&path)?;
    let damaged = || join::file(&path, io::ErrorKind::InvalidData.into());
    let farewell: Farewell = serde_json::from_slice(&text).map_err(|_| damaged())?;
    let dial =
        Dial { address: address(&farewell.hub)?, trust: Trust::Ca { pem: farewell.ca_pem }, identity: None };
    let report = WipeReport {
        edge: ActorId(Uuid::try_parse(&farewell.edge).map_err(|_| damaged())?),
        wiped_at: UnixMillis(farewell.wiped_at),
        proof: BASE64.decode(&farewell.proof).map_err(|_| damaged())?.into(),
    };
    Ok(Client::connect(&dial).await?.report_wipe(report).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_of_the_edge_goes_and_nothing_else_and_doing_it_again_is_done() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        EdgeKeys::load_or_generate(directory.path()).unwrap();
        for name in
            ["limit-keys.new", LIMIT_KEYS, LIMIT_SECRET, CONTACT, identity::FILE, RESTART_FILE, MARKER]
        {
            write_private(&path(name), b"something").unwrap();
        }
        fs::create_dir(path(REPLICA)).unwrap();
        fs::write(path(REPLICA).join("db"), b"noise").unwrap();
        fs::create_dir(path("kept")).unwrap();
        destroy_all(directory.path()).unwrap();
        destroy_all(directory.path()).unwrap();
        let left = fs::read_dir(directory.path()).unwrap();
        let mut left: Vec<_> = left.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        left.sort();
        assert_eq!(left, ["kept", MARKER]);
        assert!(is_pending(directory.path()));
    }
}
