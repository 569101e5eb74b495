//! Rotations of secrets' values: how far one has come, and what is to be done next.
//!
//! Steps are written down one after the other, and each may be done again: who goes on after a crash asks here with what it
//! finds. While a rotation is [`Step::Written`] its old version is still needed.

use std::sync::Arc;

use uuid::Uuid;

use crate::entry::ChangeId;
use crate::name::EntryKey;
use crate::time::UnixMillis;

/// From one attempt that failed to the next.
const AGAIN_MS: u64 = 60_000;

/// How far a rotation has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It has a name; nothing was written.
    Begun,
    /// The new version is the entry's; the old one may still be used.
    Written,
    /// Nobody needs the old version any more.
    Retired,
    /// Given up; nothing was written.
    Failed,
}

impl Step {
    /// As people and programs see it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Begun => "begun",
            Self::Written => "written",
            Self::Retired => "retired",
            Self::Failed => "failed",
        }
    }

    /// The inverse of [`Step::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Begun, Self::Written, Self::Retired, Self::Failed]
            .into_iter()
            .find(|step| step.as_str() == text)
    }
}

/// One rotation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// The change that it writes, so that it can write only once.
    pub id: Uuid,
    pub at: EntryKey,
    pub step: Step,
    pub by: Arc<str>,
    pub old_version: u64,
    pub new_version: Option<u64>,
    pub began_at: UnixMillis,
    pub written_at: Option<UnixMillis>,
    /// When the old version is not needed any more, whoever still uses it.
    pub retire_at: Option<UnixMillis>,
    pub retired_at: Option<UnixMillis>,
    /// Why it retired or failed, or what went wrong last.
    pub why: Option<Arc<str>>,
    /// It is not tried again before.
    pub again_at: UnixMillis,
}

/// What is there when a rotation that has begun is to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// What it has written already, where the step after that was not written down.
    pub wrote: Option<u64>,
    /// Somebody still says how the secret is rotated.
    pub planned: bool,
    /// The secret's version now; none where it is no secret any more.
    pub current: Option<u64>,
}

/// What a rotation that has begun does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It has written this version: that is all that is left to note.
    Note(u64),
    /// A new value is made, and written over the old version alone.
    Write,
    GiveUp(&'static str),
}

impl Rotation {
    /// Of this entry, from this version on.
    pub fn begun(id: Uuid, at: EntryKey, by: Arc<str>, old_version: u64, now: UnixMillis) -> Self {
        Self {
            id,
            at,
            step: Step::Begun,
            by,
            old_version,
            new_version: None,
            began_at: now,
            written_at: None,
            retire_at: None,
            retired_at: None,
            why: None,
            again_at: now,
        }
    }

    /// The change that it writes.
    pub fn change(&self) -> ChangeId {
        ChangeId(self.id)
    }

    /// What it does next, being begun. A version of its own counts whatever happened since.
    pub fn next(&self, found: Found) -> Next {
        match found {
            Found { wrote: Some(version), .. } => Next::Note(version),
            Found { planned: false, .. } => Next::GiveUp("there is no policy any more"),
            Found { current, .. } if current != Some(self.old_version) => Next::GiveUp(Self::OVERTAKEN),
            Found { .. } => Next::Write,
        }
    }

    /// Why nothing is written where the secret has another version than the one that was to be replaced.
    pub const OVERTAKEN: &'static str = "somebody changed the secret meanwhile";

    /// With its new version. The old one is needed for so long from `now` on at most.
    #[must_use]
    pub fn written(&self, version: u64, grace_ms: u64, now: UnixMillis) -> Self {
        Self {
            step: Step::Written,
            new_version: Some(version),
            written_at: Some(now),
            retire_at: Some(UnixMillis(now.0.saturating_add(grace_ms))),
            why: None,
            ..self.clone()
        }
    }

    /// Why the old version is not needed any more; none while it is. `in_use` says that everything which uses the secret
    /// uses the new version.
    pub fn over(&self, in_use: bool, now: UnixMillis) -> Option<&'static str> {
        match (in_use, self.retire_at) {
            (true, _) => Some("everything that uses the secret uses the new version"),
            (false, Some(at)) if at > now => None,
            (false, _) => Some("the grace period is over"),
        }
    }

    /// Without need of its old version.
    #[must_use]
    pub fn retired(&self, why: &str, now: UnixMillis) -> Self {
        Self { step: Step::Retired, retired_at: Some(now), why: Some(why.into()), ..self.clone() }
    }

    /// Given up.
    #[must_use]
    pub fn failed(&self, why: &str) -> Self {
        Self { step: Step::Failed, why: Some(why.into()), ..self.clone() }
    }

    /// At its step, to be tried again later, with what went wrong.
    #[must_use]
    pub fn put_off(self, why: &str, now: UnixMillis) -> Self {
        Self { why: Some(why.into()), again_at: UnixMillis(now.0.saturating_add(AGAIN_MS)), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::{Environment, Key, Namespace, Scope, Tenant};

    const NOW: UnixMillis = UnixMillis(1_000);

    fn begun() -> Rotation {
        let scope = Scope {
            tenant: Tenant::parse("t").unwrap(),
            environment: Environment::base(),
            namespace: Namespace::parse("app").unwrap(),
        };
        let at = EntryKey { scope, key: Key::parse("k").unwrap() };
        Rotation::begun(Uuid::from_u128(1), at, "schedule".into(), 3, NOW)
    }

    #[test]
    fn steps_are_read_as_they_were_written() {
        for step in [Step::Begun, Step::Written, Step::Retired, Step::Failed] {
            assert_eq!(Step::parse(step.as_str()), Some(step));
        }
        assert_eq!(Step::parse("gone"), None);
    }

    #[test]
    fn what_was_written_is_never_written_again_whatever_happened_since() {
        for (planned, current) in [(true, Some(3)), (true, Some(4)), (false, Some(9)), (false, None)] {
            let found = Found { wrote: Some(4), planned, current };
            assert_eq!(begun().next(found), Next::Note(4), "{found:?}");
        }
    }

    #[test]
    fn only_the_version_that_it_began_from_is_replaced() {
        let found = |planned, current| begun().next(Found { wrote: None, planned, current });
        assert_eq!(found(true, Some(3)), Next::Write);
        for current in [Some(2), Some(4), None] {
            assert_eq!(found(true, current), Next::GiveUp(Rotation::OVERTAKEN), "{current:?}");
        }
        assert!(matches!(found(false, Some(3)), Next::GiveUp(why) if why != Rotation::OVERTAKEN));
    }

    #[test]
    fn the_old_version_is_needed_until_everything_uses_the_new_one_or_its_time_is_over() {
        let written = begun().written(4, 500, NOW);
        assert_eq!((written.step, written.new_version), (Step::Written, Some(4)));
        assert_eq!(written.over(false, UnixMillis(1_499)), None);
        assert!(written.over(true, NOW).is_some_and(|why| why.contains("uses the new version")));
        assert!(written.over(false, UnixMillis(1_500)).is_some_and(|why| why.contains("grace")));
        let retired = written.retired("by hand", UnixMillis(1_200));
        assert_eq!((retired.step, retired.retired_at), (Step::Retired, Some(UnixMillis(1_200))));
        assert_eq!(retired.new_version, Some(4));
    }

    #[test]
    fn a_rotation_that_is_put_off_stays_at_its_step_for_a_while() {
        let later = begun().put_off("no room", NOW);
        assert_eq!((later.step, later.again_at), (Step::Begun, UnixMillis(NOW.0 + AGAIN_MS)));
        assert_eq!(later.written(4, 0, NOW).why, None, "what went wrong before is no news any more");
    }
}
