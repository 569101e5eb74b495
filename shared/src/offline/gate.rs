//! Whether secrets may be opened now: what the hub's words, the clocks and the keys at hand come to.
//!
//! Pure: whoever owns a gate reads the clocks, keeps on the disk what has to outlive a restart, and asks before each secret.

use std::collections::BTreeMap;

use super::{Clocks, Contact, LimitStatement, OfflineLimits, SessionMark};
use crate::name::{Namespace, Subtree, Tenant};
use crate::seal::{CannotOpen, SealKey};
use crate::secret::SealedLimitKeys;
use crate::segment::Rejected;
use crate::stamp::ActorId;
use crate::time::UnixMillis;

/// One for each subtree whose secrets an edge receives.
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

/// Which of the gate's rules hold, so that a simulation can show that each is missed. Programs have all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GateRules {
    /// Only a word that answers the session which is open counts as contact.
    pub session: bool,
    /// After too many starts of the machine nothing opens: how long it was off is not known.
    pub reboots: bool,
    /// Each secret is asked for under its own namespace's limit, not under the longest.
    pub tightest: bool,
}

impl GateRules {
    /// What programs run with.
    pub const ALL: Self = Self { session: true, reboots: true, tightest: true };
}

/// The gate of one edge.
#[derive(Debug)]
pub struct Gate {
    tenant: Tenant,
    edge: ActorId,
    rules: GateRules,
    started_at: UnixMillis,
    contact: Option<Contact>,
    limits: OfflineLimits,
    /// Without its subtree's no key of secrets opens.
    keys: LimitKeys,
    /// The session that was begun last, and the boot-time clock then.
    asked: Option<(SessionMark, u64)>,
    /// Whether the hub has answered it.
    answered: bool,
}

impl Gate {
    /// As it was left: the last contact with what the hub said then, and the keys that were kept. A start of the machine
    /// counts from now on, however soon the next one comes.
    pub fn resume(
        (tenant, edge): (Tenant, ActorId),
        kept: Option<(Contact, OfflineLimits)>,
        keys: LimitKeys,
        now: Clocks,
    ) -> Self {
        let (contact, limits) =
            kept.map_or_else(Default::default, |(contact, limits)| (Some(contact), limits));
        let (asked, answered, rules) = (None, false, GateRules::ALL);
        let mut gate =
            Self { tenant, edge, rules, started_at: now.wall, contact, limits, keys, asked, answered };
        gate.silent_ms(now);
        gate
    }

    /// The same under other rules.
    pub fn with_rules(self, rules: GateRules) -> Self {
        Self { rules, ..self }
    }

    /// The last contact.
    pub fn contact(&self) -> Option<&Contact> {
        self.contact.as_ref()
    }

    /// What the hub said last.
    pub fn limits(&self) -> &OfflineLimits {
        &self.limits
    }

    /// The keys that are at hand.
    pub fn keys(&self) -> &LimitKeys {
        &self.keys
    }

    /// A session begins: only a word that names it counts as contact.
    pub fn asked(&mut self, mark: SessionMark, now: Clocks) {
        self.asked = Some((mark, now.since_boot_ms));
        self.answered = false;
    }

    /// The hub has said, under a signature that was checked, that it is there; `open` opens what is sealed to this edge.
    ///
    /// # Errors
    /// When it did not mean this edge and session. Nothing is changed then.
    pub fn heard(
        &mut self,
        statement: LimitStatement,
        open: impl FnOnce(&SealedLimitKeys) -> Result<Vec<SealKey>, CannotOpen>,
        now: Clocks,
    ) -> Result<(), Rejected> {
        let Some((mark, asked_ms)) = self.asked else { return Err(Rejected::Order) };
        if !self.is_mine(&statement) || (self.rules.session && statement.session != Some(mark)) {
            return Err(Rejected::Order);
        }
        let keys = open(&statement.keys).map_err(|_| Rejected::Hash)?;
        if keys.len() != statement.subtrees.len() {
            return Err(Rejected::Hash);
        }
        match &mut self.contact {
            Some(contact) if self.answered => contact.heard_again(statement.issued_at, now),
            contact => {
                let delay_ms = now.since_boot_ms.saturating_sub(asked_ms);
                // A file that came while this word was on its way may have said something later, and is no news a second time.
                let said_before = contact.as_ref().map_or(UnixMillis(0), Contact::issued_at);
                let issued_at = statement.issued_at.max(said_before);
                *contact = Some(Contact::heard(issued_at, delay_ms, now));
            }
        }
        self.answered = true;
        self.take(statement, keys);
        Ok(())
    }

    /// The hub's word has come by another way than its stream: in a file that somebody carried here.
    ///
    /// # Errors
    /// When it is another's, not newer than what was heard before, or too old by now. Nothing is changed then.
    pub fn carried(
        &mut self,
        statement: LimitStatement,
        open: impl FnOnce(&SealedLimitKeys) -> Result<Vec<SealKey>, CannotOpen>,
        now: Clocks,
    ) -> Result<(), NotCarried> {
        if !self.is_mine(&statement) || statement.session.is_some() {
            return Err(NotCarried::NotMine);
        }
        let mut contact = self.contact.clone().ok_or(NotCarried::NeverReached)?;
        if !contact.carried(statement.issued_at, now) {
            return Err(NotCarried::NotNewer);
        }
        if contact.silent_ms(now) >= statement.limits.extremes().0 {
            return Err(NotCarried::TooOld);
        }
        let keys = open(&statement.keys).map_err(|_| NotCarried::NotMine)?;
        if keys.len() != statement.subtrees.len() {
            return Err(NotCarried::NotMine);
        }
        self.contact = Some(contact);
        self.answered = false;
        self.take(statement, keys);
        Ok(())
    }

    fn is_mine(&self, statement: &LimitStatement) -> bool {
        statement.tenant == self.tenant && statement.edge == self.edge
    }

    fn take(&mut self, statement: LimitStatement, keys: Vec<SealKey>) {
        self.limits = statement.limits;
        self.keys = statement.subtrees.into_iter().zip(keys).collect();
    }

    /// How long the hub has been silent; none if it was never heard.
    pub fn silent_ms(&mut self, now: Clocks) -> Option<u64> {
        self.contact.as_mut().map(|contact| contact.silent_ms(now))
    }

    /// Whether secrets of a namespace may be opened now.
    ///
    /// # Errors
    /// The lock that holds.
    pub fn check(&mut self, namespace: &Namespace, now: Clocks) -> Result<(), Lock> {
        let silent_ms = self.silent_ms(now);
        let limit_ms = if self.rules.tightest { self.limits.of(namespace) } else { self.limits.extremes().0 };
        self.lock(silent_ms, limit_ms, Some(namespace)).map_or(Ok(()), Err)
    }

    /// The lock that holds where the limit is this. Without a namespace it is asked for any secret at all.
    pub fn lock(&self, silent_ms: Option<u64>, limit_ms: u64, namespace: Option<&Namespace>) -> Option<Lock> {
        let here = |by| Some(Lock { by, since: self.started_at });
        let Some(silent_ms) = silent_ms else { return here(LockedBy::NeverReached) };
        if silent_ms >= limit_ms {
            return Some(self.passed(limit_ms));
        }
        if self.too_many_reboots() {
            return here(LockedBy::Reboots);
        }
        let opens = |subtree: &Subtree| namespace.is_none_or(|namespace| subtree.contains(namespace));
        if self.keys.keys().any(opens) { None } else { here(LockedBy::Restart) }
    }

    /// Forgets the keys of which no secret may be opened any more; which those were, and why.
    pub fn forget_over(&mut self, silent_ms: u64) -> Option<(Lock, Vec<Subtree>)> {
        let (lock, subtrees) = self.over(silent_ms)?;
        self.keys.retain(|subtree, _| !subtrees.contains(subtree));
        Some((lock, subtrees))
    }

    fn over(&self, silent_ms: u64) -> Option<(Lock, Vec<Subtree>)> {
        if self.too_many_reboots() {
            let all = self.keys.keys().cloned().collect();
            return Some((Lock { by: LockedBy::Reboots, since: self.started_at }, all));
        }
        let over = |subtree: &&Subtree| silent_ms >= self.limits.within(subtree).0;
        let subtrees: Vec<Subtree> = self.keys.keys().filter(over).cloned().collect();
        let limit_ms = subtrees.iter().map(|subtree| self.limits.within(subtree).0).min()?;
        Some((self.passed(limit_ms), subtrees))
    }

    fn too_many_reboots(&self) -> bool {
        self.rules.reboots && self.contact.as_ref().is_some_and(Contact::too_many_reboots)
    }

    fn passed(&self, limit_ms: u64) -> Lock {
        let heard = self.contact.as_ref().map_or(self.started_at, Contact::issued_at);
        Lock { by: LockedBy::Limit, since: UnixMillis(heard.0.saturating_add(limit_ms)) }
    }
}
