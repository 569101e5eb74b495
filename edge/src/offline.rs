//! The offline limit at this edge: whether its secrets may be opened now, and the key that opens them.
//!
//! What the clocks mean is decided in `shared::offline`; here they are read, the hub's words are checked and kept, and the
//! key is forgotten when the time has come. Whoever opens a secret asks here first, so a lock needs no timer to hold.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use llm_config_shared::name::{Namespace, Subtree, Tenant};
use llm_config_shared::offline::{Clocks, Contact, OfflineLimits, SessionMark, verify_limit};
use llm_config_shared::seal::{CannotOpen, SealKey};
use llm_config_shared::secret::{SealedLimitKeys, open_limit_keys};
use llm_config_shared::segment::{Rejected, VerificationKeys};
use llm_config_shared::stamp::ActorId;
use llm_config_shared::time::UnixMillis;

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
pub use report::SecretsStatus;
pub use restart::{FILE as RESTART_FILE, InvalidOfflineRestart, NeedsTpm, OfflineRestart};
pub(crate) use watch::watch;

/// While the hub is silent, how long already is written down so often, in milliseconds.
const KEEP_EVERY_MS: u64 = 60_000;

/// One for each subtree whose secrets this edge receives.
pub type LimitKeys = BTreeMap<Subtree, SealKey>;

/// Why secrets are locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LockedBy {
    #[error("the hub was not reached within the offline limit")]
    Limit,
    #[error("this edge was started without its hub, which has the key (offline_restart = never)")]
    Restart,
    #[error("the machine was started several times without its hub, and how long it was off is not known")]
    Reboots,
    #[error("the hub was never reached")]
    NeverReached,
}

impl LockedBy {
    /// For programs.
    pub fn code(self) -> &'static str {
        match self {
            Self::Limit => "offline_limit",
            Self::Restart => "offline_restart",
            Self::Reboots => "offline_reboots",
            Self::NeverReached => "never_reached",
        }
    }
}

/// A lock and since when it holds: by the hub's clock for a limit that has passed, else by this machine's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("secrets are locked since {}: {by}; they open when the hub is reached", since.to_rfc3339())]
pub struct Lock {
    pub by: LockedBy,
    pub since: UnixMillis,
}

/// The limit keys as they lie in an edge's directory, for whoever has what they lie under: the replica's key or the limit secret.
pub fn limit_keys_on_disk(directory: &std::path::Path, under: &SealKey) -> LimitKeys {
    Disk::new(directory.to_owned(), under.clone(), None).limit_keys()
}

/// Why what was carried here opens nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotCarried {
    #[error("the file is not this edge's hub's: {0}")]
    Rejected(#[from] Rejected),
    #[error("the file was made for another edge")]
    NotMine,
    #[error("the file is not newer than what this edge has heard from its hub; make a new one")]
    NotNewer,
    #[error("the file is older than the offline limit; make a new one")]
    TooOld,
    #[error("this edge was never reached by its hub, and cannot tell how old the file is")]
    NeverReached,
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

#[derive(Default)]
struct State {
    contact: Option<Contact>,
    /// The hub's words that the limits are from.
    statement: Bytes,
    limits: OfflineLimits,
    /// Without its subtree's no key of secrets opens.
    keys: LimitKeys,
    started_at: UnixMillis,
    /// The session that was begun last, and the boot-time clock then.
    asked: Option<(SessionMark, u64)>,
    /// Whether the hub has answered it.
    answered: bool,
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
        let mut state = State { started_at: now.wall, ..State::default() };
        if let Some(kept) = disk.contact() {
            // What cannot be checked any more was said by nobody.
            if let Ok(statement) = verify_limit(&kept.statement, keys) {
                state.limits = statement.limits;
                state.statement = kept.statement;
                state.contact = Some(kept.contact);
            }
        }
        match restart {
            OfflineRestart::File | OfflineRestart::Tpm => state.keys = disk.limit_keys(),
            OfflineRestart::Never => {}
        }
        // Also those that lie under what is not used any more.
        if state.keys.is_empty()
            && let Err(error) = disk.destroy_limit_keys()
        {
            tracing::error!(%error, "a key from before, when it was kept in a file, cannot be removed");
        }
        // A start of the machine counts from now on, however soon the next one comes.
        state.silent_ms(now);
        let offline = Self { receiver, restart, clocks, disk, state: Mutex::default() };
        offline.keep(&mut state, now);
        *offline.state() = state;
        Arc::new(offline)
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
        let mut state = self.state();
        state.asked = Some((mark, now.since_boot_ms));
        state.answered = false;
    }

    /// The hub has said that it is there.
    ///
    /// # Errors
    /// When it was not this edge's hub, or did not mean this edge and session. Nothing is changed then.
    pub fn heard(&self, bytes: &Bytes, keys: &VerificationKeys) -> Result<(), Rejected> {
        let statement = verify_limit(bytes, keys)?;
        let now = (self.clocks)();
        let mut state = self.state();
        let Some((mark, asked_ms)) = state.asked else { return Err(Rejected::Order) };
        let mine = statement.tenant == self.receiver.tenant && statement.edge == self.receiver.edge;
        if !mine || statement.session != Some(mark) {
            return Err(Rejected::Order);
        }
        let keys = self.receiver.open(&statement.keys).map_err(|_| Rejected::Hash)?;
        if keys.len() != statement.subtrees.len() {
            return Err(Rejected::Hash);
        }
        let contact = match state.contact.take() {
            Some(mut contact) if state.answered => {
                contact.heard_again(statement.issued_at, now);
                contact
            }
            _ => {
                let delay_ms = now.since_boot_ms.saturating_sub(asked_ms);
                Contact::heard(statement.issued_at, delay_ms, now)
            }
        };
        state.contact = Some(contact);
        state.answered = true;
        state.limits = statement.limits;
        state.statement = bytes.clone();
        state.keys = statement.subtrees.into_iter().zip(keys).collect();
        state.warned = false;
        self.keep(&mut state, now);
        Ok(())
    }

    /// The hub's word has come by another way than its stream: in a file that somebody carried here.
    ///
    /// # Errors
    /// When it is another's, not newer than what was heard before, or too old by now. Nothing is changed then.
    pub fn carried(&self, bytes: &Bytes, keys: &VerificationKeys) -> Result<(), NotCarried> {
        let statement = verify_limit(bytes, keys)?;
        let mine = statement.tenant == self.receiver.tenant && statement.edge == self.receiver.edge;
        if !mine || statement.session.is_some() {
            return Err(NotCarried::NotMine);
        }
        let now = (self.clocks)();
        let mut state = self.state();
        let mut contact = state.contact.clone().ok_or(NotCarried::NeverReached)?;
        if !contact.carried(statement.issued_at, now) {
            return Err(NotCarried::NotNewer);
        }
        if contact.silent_ms(now) >= statement.limits.extremes().0 {
            return Err(NotCarried::TooOld);
        }
        let opened = self.receiver.open(&statement.keys).map_err(|_| NotCarried::NotMine)?;
        if opened.len() != statement.subtrees.len() {
            return Err(NotCarried::NotMine);
        }
        state.contact = Some(contact);
        state.answered = false;
        state.limits = statement.limits;
        state.statement = bytes.clone();
        state.keys = statement.subtrees.into_iter().zip(opened).collect();
        state.warned = false;
        self.keep(&mut state, now);
        Ok(())
    }

    /// Looks at the clocks and at what has to be done.
    pub fn look(&self) -> Due {
        let now = (self.clocks)();
        let mut state = self.state();
        let Some(silent_ms) = state.silent_ms(now).filter(|_| !state.keys.is_empty()) else {
            return Due::Nothing;
        };
        let (lock, subtrees) = state.over(silent_ms);
        if let Some(lock) = lock {
            state.keys.retain(|subtree, _| !subtrees.contains(subtree));
            self.keep(&mut state, now);
            return Due::Lock(lock, subtrees);
        }
        if now.since_boot_ms.saturating_sub(state.kept_at_ms) >= KEEP_EVERY_MS {
            self.keep(&mut state, now);
        }
        let (_, shortest_ms) = state.limits.extremes();
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
        let mut state = self.state();
        let silent_ms = state.silent_ms(now);
        match state.lock(silent_ms, state.limits.of(namespace), Some(namespace)) {
            Some(lock) => Err(lock),
            None => Ok(()),
        }
    }

    /// The keys that what the replica holds of secret keys opens with, by subtree.
    pub(crate) fn keys(&self) -> LimitKeys {
        self.state().keys.clone()
    }

    /// A limit that is kept is only as good as the last time that it was written down.
    fn keep(&self, state: &mut State, now: Clocks) {
        let Some(contact) = state.contact.clone() else { return };
        state.kept_at_ms = now.since_boot_ms;
        let kept = Kept { contact, statement: state.statement.clone() };
        let written = self.disk.put_contact(&kept).and_then(|()| match self.restart {
            OfflineRestart::File | OfflineRestart::Tpm => self.disk.put_limit_keys(&state.keys),
            OfflineRestart::Never => Ok(()),
        });
        if let Err(error) = written {
            tracing::warn!(%error, "when the hub was last reached cannot be written down");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whoever panicked under the lock left assignments that are whole one by one; the worst of them locks.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn silent_ms(&mut self, now: Clocks) -> Option<u64> {
        self.contact.as_mut().map(|contact| contact.silent_ms(now))
    }

    /// The lock that holds where the limit is this. Without a namespace it is asked for any secret at all.
    fn lock(&self, silent_ms: Option<u64>, limit_ms: u64, namespace: Option<&Namespace>) -> Option<Lock> {
        let here = |by| Some(Lock { by, since: self.started_at });
        let Some(silent_ms) = silent_ms else { return here(LockedBy::NeverReached) };
        if silent_ms >= limit_ms {
            return Some(self.passed(limit_ms));
        }
        if self.contact.as_ref().is_some_and(Contact::too_many_reboots) {
            return here(LockedBy::Reboots);
        }
        let opens = |subtree: &Subtree| namespace.is_none_or(|namespace| subtree.contains(namespace));
        if self.keys.keys().any(opens) { None } else { here(LockedBy::Restart) }
    }

    /// The subtrees of which no secret may be opened any more, and why.
    fn over(&self, silent_ms: u64) -> (Option<Lock>, Vec<Subtree>) {
        let all = || self.keys.keys().cloned().collect();
        if self.contact.as_ref().is_some_and(Contact::too_many_reboots) {
            return (Some(Lock { by: LockedBy::Reboots, since: self.started_at }), all());
        }
        let over = |subtree: &&Subtree| silent_ms >= self.limits.within(subtree).0;
        let subtrees: Vec<Subtree> = self.keys.keys().filter(over).cloned().collect();
        let limit_ms = subtrees.iter().map(|subtree| self.limits.within(subtree).0).min();
        (limit_ms.map(|limit_ms| self.passed(limit_ms)), subtrees)
    }

    fn passed(&self, limit_ms: u64) -> Lock {
        let heard = self.contact.as_ref().map_or(self.started_at, Contact::issued_at);
        Lock { by: LockedBy::Limit, since: UnixMillis(heard.0.saturating_add(limit_ms)) }
    }
}

#[cfg(test)]
mod tests;
