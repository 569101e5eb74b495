//! The offline limit at this edge: whether its secrets may be opened now, and the key that opens them.
//!
//! What the clocks mean is decided in `shared::offline`; here they are read, the hub's words are checked and kept, and the
//! key is forgotten when the time has come. Whoever opens a secret asks here first, so a lock needs no timer to hold.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use llm_config_shared::name::{Namespace, Subtree, Tenant};
use llm_config_shared::offline::{Clocks, Gate, SessionMark, verify_limit};
use llm_config_shared::seal::{CannotOpen, SealKey};
use llm_config_shared::secret::{SealedLimitKeys, open_limit_keys};
use llm_config_shared::segment::{Rejected, VerificationKeys};
use llm_config_shared::stamp::ActorId;

use crate::keys::SealingKeys;

mod clocks;
mod disk;
mod limit_secret;
mod report;
mod restart;
mod watch;

use disk::{Disk, Kept};

pub use disk::{CONTACT, HUB_KEY, LIMIT_KEYS, destroy};
pub use limit_secret::{LIMIT_SECRET, limit_secret};
pub use llm_config_shared::offline::{LimitKeys, Lock, LockedBy, NotCarried};
pub use report::SecretsStatus;
pub use restart::{FILE as RESTART_FILE, InvalidOfflineRestart, NeedsTpm, OfflineRestart};
pub(crate) use watch::watch;

/// While the hub is silent, how long already is written down so often, in milliseconds.
const KEEP_EVERY_MS: u64 = 60_000;

/// The limit keys as they lie in an edge's directory, for whoever has what they lie under: the replica's key or the limit secret.
pub fn limit_keys_on_disk(directory: &std::path::Path, under: &SealKey) -> LimitKeys {
    Disk::new(directory.to_owned(), under.clone(), None).limit_keys()
}

/// What is to be done after the clocks were looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Due {
    Nothing,
    /// Half of the time until the first secrets lock has passed.
    Warn {
        left_ms: u64,
    },
    /// The keys of these subtrees are to be forgotten now.
    Lock(Lock, Vec<Subtree>),
}

/// Who this edge is, and its half of what the hub seals to it.
#[derive(Clone)]
pub struct Receiver {
    pub tenant: Tenant,
    pub edge: ActorId,
    pub sealing: Arc<SealingKeys>,
}

impl Receiver {
    fn open(&self, sealed: &SealedLimitKeys) -> Result<Vec<SealKey>, CannotOpen> {
        let name = self.edge.0.to_string();
        let opened = self.sealing.open(|private| open_limit_keys(sealed, &self.tenant, &name, private));
        opened.map(|(keys, _)| keys)
    }
}

/// Whether secrets may be opened, shared by all who do.
pub struct Offline {
    receiver: Receiver,
    restart: OfflineRestart,
    clocks: Box<dyn Fn() -> Clocks + Send + Sync>,
    disk: Disk,
    state: Mutex<State>,
}

struct State {
    gate: Gate,
    /// The hub's words that the limits are from.
    statement: Bytes,
    warned: bool,
    kept_at_ms: u64,
}

impl Offline {
    /// As the daemon before this one left it. `under` is what the limit keys lie under, if not the replica's key. `keys` are those that the hub signs with, as this edge knows them.
    pub fn open(
        directory: PathBuf,
        receiver: Receiver,
        replica_key: SealKey,
        under: Option<SealKey>,
        restart: OfflineRestart,
        keys: &VerificationKeys,
    ) -> Arc<Self> {
        let boot = clocks::boot_id();
        Self::with_clocks(
            directory,
            receiver,
            replica_key,
            under,
            restart,
            keys,
            Box::new(move || clocks::now(boot)),
        )
    }

    fn with_clocks(
        directory: PathBuf,
        receiver: Receiver,
        replica_key: SealKey,
        under: Option<SealKey>,
        restart: OfflineRestart,
        keys: &VerificationKeys,
        clocks: Box<dyn Fn() -> Clocks + Send + Sync>,
    ) -> Arc<Self> {
        let disk = Disk::new(directory, replica_key, under);
        let now = clocks();
        let mut statement = Bytes::new();
        // What cannot be checked any more was said by nobody.
        let kept = disk.contact().and_then(|kept| {
            let said = verify_limit(&kept.statement, keys).ok()?;
            statement = kept.statement;
            Some((kept.contact, said.limits))
        });
        let limit_keys = match restart {
            OfflineRestart::File | OfflineRestart::Tpm => disk.limit_keys(),
            OfflineRestart::Never => LimitKeys::new(),
        };
        // Also those that lie under what is not used any more.
        if limit_keys.is_empty()
            && let Err(error) = disk.destroy_limit_keys()
        {
            tracing::error!(%error, "a key from before, when it was kept in a file, cannot be removed");
        }
        let gate = Gate::resume((receiver.tenant.clone(), receiver.edge), kept, limit_keys, now);
        let mut state = State { gate, statement, warned: false, kept_at_ms: 0 };
        keep(&disk, restart, &mut state, now);
        Arc::new(Self { receiver, restart, clocks, disk, state: Mutex::new(state) })
    }

    /// Whom the hub seals to.
    pub fn receiver(&self) -> &Receiver {
        &self.receiver
    }

    /// The key that files to the hub are sealed to, as the hub has just said it.
    pub(crate) fn keep_hub_key(&self, key: Option<&[u8; 32]>) {
        let Some(key) = key else { return };
        if self.hub_key().as_deref() != Some(&key[..])
            && let Err(error) = self.disk.store_hub_key(key)
        {
            tracing::warn!(%error, "the key that files to the hub are sealed to cannot be kept");
        }
    }

    /// That key; none before a hub has said it.
    pub(crate) fn hub_key(&self) -> Option<Vec<u8>> {
        self.disk.hub_key()
    }

    /// A session begins: only a word that names it counts as contact.
    pub fn asked(&self, mark: SessionMark) {
        let now = (self.clocks)();
        self.state().gate.asked(mark, now);
    }

    /// The hub has said that it is there.
    ///
    /// # Errors
    /// When it was not this edge's hub, or did not mean this edge and session. Nothing is changed then.
    pub fn heard(&self, bytes: &Bytes, keys: &VerificationKeys) -> Result<(), Rejected> {
        let statement = verify_limit(bytes, keys)?;
        let now = (self.clocks)();
        let mut state = self.state();
        state.gate.heard(statement, |sealed| self.receiver.open(sealed), now)?;
        self.has_heard(&mut state, bytes, now);
        Ok(())
    }

    /// The hub's word has come by another way than its stream: in a file that somebody carried here.
    ///
    /// # Errors
    /// When it is another's, not newer than what was heard before, or too old by now. Nothing is changed then.
    pub fn carried(&self, bytes: &Bytes, keys: &VerificationKeys) -> Result<(), NotCarried> {
        let statement = verify_limit(bytes, keys)?;
        let now = (self.clocks)();
        let mut state = self.state();
        state.gate.carried(statement, |sealed| self.receiver.open(sealed), now)?;
        self.has_heard(&mut state, bytes, now);
        Ok(())
    }

    fn has_heard(&self, state: &mut State, bytes: &Bytes, now: Clocks) {
        state.statement = bytes.clone();
        state.warned = false;
        keep(&self.disk, self.restart, state, now);
    }

    /// Looks at the clocks and at what has to be done.
    pub fn look(&self) -> Due {
        let now = (self.clocks)();
        let mut state = self.state();
        let Some(silent_ms) = state.gate.silent_ms(now).filter(|_| !state.gate.keys().is_empty()) else {
            return Due::Nothing;
        };
        if let Some((lock, subtrees)) = state.gate.forget_over(silent_ms) {
            keep(&self.disk, self.restart, &mut state, now);
            return Due::Lock(lock, subtrees);
        }
        if now.since_boot_ms.saturating_sub(state.kept_at_ms) >= KEEP_EVERY_MS {
            keep(&self.disk, self.restart, &mut state, now);
        }
        let (_, shortest_ms) = state.gate.limits().extremes();
        if silent_ms >= shortest_ms / 2 && !std::mem::replace(&mut state.warned, true) {
            return Due::Warn { left_ms: shortest_ms.saturating_sub(silent_ms) };
        }
        Due::Nothing
    }

    /// Whether secrets of a namespace may be opened now.
    ///
    /// # Errors
    /// The lock that holds.
    pub fn check(&self, namespace: &Namespace) -> Result<(), Lock> {
        let now = (self.clocks)();
        self.state().gate.check(namespace, now)
    }

    /// The keys that what the replica holds of secret keys opens with, by subtree.
    pub(crate) fn keys(&self) -> LimitKeys {
        self.state().gate.keys().clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whoever panicked under the lock left assignments that are whole one by one; the worst of them locks.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A limit that is kept is only as good as the last time that it was written down.
fn keep(disk: &Disk, restart: OfflineRestart, state: &mut State, now: Clocks) {
    let Some(contact) = state.gate.contact().cloned() else { return };
    state.kept_at_ms = now.since_boot_ms;
    let kept = Kept { contact, statement: state.statement.clone() };
    let written = disk.put_contact(&kept).and_then(|()| match restart {
        OfflineRestart::File | OfflineRestart::Tpm => disk.put_limit_keys(state.gate.keys()),
        OfflineRestart::Never => Ok(()),
    });
    if let Err(error) = written {
        tracing::warn!(%error, "when the hub was last reached cannot be written down");
    }
}

#[cfg(test)]
mod tests;
