//! What the hub seals keys of subtrees to. HPKE's base mode has no forward secrecy, so the key is replaced every 30 days: who
//! recorded the traffic inside TLS before and steals the edge later opens no more than what was sent since. An older key stays
//! for as long as something that lies here opens with it alone.

use std::sync::{PoisonError, RwLock};

use llm_config_shared::seal::{CannotOpen, SealKey};
use llm_config_shared::secret::sealing_keypair;
use llm_config_shared::time::UnixMillis;
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use super::KeyError;

/// How old the newest key may become, in milliseconds.
const AGE_MS_MAX: u64 = 30 * 24 * 3_600_000;
/// More than this many are never kept: beyond it the oldest goes, whatever still needs it.
pub(super) const KEPT_MAX: usize = 8;

/// The public half of one.
pub type PublicHalf = [u8; 32];

/// Newest first; there is always one.
pub struct SealingKeys(RwLock<Vec<SealingKey>>);

#[derive(Clone)]
pub(super) struct SealingKey {
    /// 32 random bytes that the X25519 pair derives from.
    pub(super) seed: Zeroizing<[u8; 32]>,
    pub(super) made_at: UnixMillis,
    private: SealKey,
    public: PublicHalf,
}

impl SealingKey {
    pub(super) fn new(seed: Zeroizing<[u8; 32]>, made_at: UnixMillis) -> Self {
        let (private, public) = sealing_keypair(&seed);
        Self { seed, made_at, private, public }
    }

    fn generate(now: UnixMillis) -> Result<Self, KeyError> {
        let mut seed = Zeroizing::new([0; 32]);
        SystemRandom::new().fill(seed.as_mut()).map_err(|_| KeyError::NoRandomness)?;
        Ok(Self::new(seed, now))
    }
}

impl SealingKeys {
    /// A first one.
    ///
    /// # Errors
    /// When the operating system gives no random bytes.
    pub fn generate(now: UnixMillis) -> Result<Self, KeyError> {
        Ok(Self(RwLock::new(vec![SealingKey::generate(now)?])))
    }

    /// One of these bytes.
    #[cfg(test)]
    pub(crate) fn from_seed(seed: [u8; 32]) -> Self {
        Self(RwLock::new(vec![SealingKey::new(Zeroizing::new(seed), UnixMillis(0))]))
    }

    /// As they lay on the disk; none when there are none.
    pub(super) fn of(keys: Vec<SealingKey>) -> Option<Self> {
        (!keys.is_empty()).then(|| Self(RwLock::new(keys)))
    }

    pub(super) fn all(&self) -> Vec<SealingKey> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What the hub seals to by now: (private, public).
    pub fn newest(&self) -> (SealKey, PublicHalf) {
        let keys = self.0.read().unwrap_or_else(PoisonError::into_inner);
        (keys[0].private.clone(), keys[0].public)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Opens with whichever key fits, and says with which.
    ///
    /// # Errors
    /// When none does.
    pub fn open<T>(
        &self,
        open: impl Fn(&SealKey) -> Result<T, CannotOpen>,
    ) -> Result<(T, PublicHalf), CannotOpen> {
        let keys = self.0.read().unwrap_or_else(PoisonError::into_inner);
        keys.iter().find_map(|key| Some((open(&key.private).ok()?, key.public))).ok_or(CannotOpen)
    }

    /// How old the newest is, in milliseconds. One that was made in the future, by a clock that is wrong now or was then, is as
    /// old as it is away.
    pub fn age_ms(&self, now: UnixMillis) -> u64 {
        let keys = self.0.read().unwrap_or_else(PoisonError::into_inner);
        now.0.abs_diff(keys[0].made_at.0)
    }

    /// How long until a new one is due, in milliseconds.
    pub fn due_in_ms(&self, now: UnixMillis) -> u64 {
        AGE_MS_MAX.saturating_sub(self.age_ms(now))
    }

    /// A new one goes before the others.
    ///
    /// # Errors
    /// When the operating system gives no random bytes.
    pub fn begin(&self, now: UnixMillis) -> Result<(), KeyError> {
        let fresh = SealingKey::generate(now)?;
        let mut keys = self.0.write().unwrap_or_else(PoisonError::into_inner);
        keys.truncate(KEPT_MAX - 1);
        keys.insert(0, fresh);
        Ok(())
    }

    /// Undoes [`begin`](Self::begin), where the new one could not be made durable.
    pub fn take_back(&self) {
        let mut keys = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if keys.len() > 1 {
            keys.remove(0);
        }
    }

    /// Forgets those that nothing needs any more, the newest never. Says whether there were any.
    pub fn retain(&self, needed: impl Fn(&PublicHalf) -> bool) -> bool {
        // Asked without the lock: who answers may just be opening something with these keys.
        let older: Vec<PublicHalf> = self.all().iter().skip(1).map(|key| key.public).collect();
        let needless: Vec<PublicHalf> = older.into_iter().filter(|public| !needed(public)).collect();
        let mut keys = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let before = keys.len();
        keys.retain(|key| !needless.contains(&key.public));
        keys.len() < before
    }
}

impl std::fmt::Debug for SealingKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SealingKeys({})", self.count())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::*;

    const DAY_MS: u64 = 24 * 3_600_000;

    #[test]
    fn a_new_key_is_due_after_thirty_days_whichever_way_the_clock_went() {
        let keys = SealingKeys::generate(UnixMillis(100 * DAY_MS)).unwrap();
        assert_eq!(keys.due_in_ms(UnixMillis(101 * DAY_MS)), 29 * DAY_MS);
        assert_eq!(keys.due_in_ms(UnixMillis(130 * DAY_MS)), 0);
        assert_eq!(
            keys.due_in_ms(UnixMillis(0)),
            0,
            "a clock that was set back does not keep a key for years"
        );
        keys.begin(UnixMillis(130 * DAY_MS)).unwrap();
        assert_eq!(keys.due_in_ms(UnixMillis(131 * DAY_MS)), 29 * DAY_MS);
    }

    #[test]
    fn an_older_key_opens_until_nothing_needs_it() {
        let keys = SealingKeys::generate(UnixMillis(1)).unwrap();
        let (old_private, old) = keys.newest();
        keys.begin(UnixMillis(2)).unwrap();
        assert_ne!(keys.newest().1, old);
        let with =
            |wanted: SealKey| move |key: &SealKey| if *key == wanted { Ok(()) } else { Err(CannotOpen) };
        assert_eq!(keys.open(with(old_private.clone())), Ok(((), old)));
        assert!(!keys.retain(|public| *public == old));
        let newest = keys.newest();
        keys.begin(UnixMillis(3)).unwrap();
        keys.take_back();
        assert_eq!(keys.newest(), newest);
        assert!(keys.retain(|_| false) && keys.count() == 1);
        assert_eq!(keys.open(with(old_private)), Err(CannotOpen));
    }

    #[test]
    fn who_says_what_is_needed_may_open_something_meanwhile() {
        let keys = SealingKeys::generate(UnixMillis(1)).unwrap();
        keys.begin(UnixMillis(2)).unwrap();
        let (done, opened) = mpsc::channel();
        thread::scope(|scope| {
            let meanwhile = |_: &PublicHalf| {
                let (keys, done) = (&keys, done.clone());
                scope.spawn(move || {
                    let _ = keys.open(|_| Err::<(), _>(CannotOpen));
                    done.send(())
                });
                opened.recv_timeout(Duration::from_secs(10)).is_err()
            };
            assert!(keys.retain(meanwhile), "both wait for each other");
        });
    }

    #[test]
    fn there_are_never_more_than_a_few() {
        let keys = SealingKeys::generate(UnixMillis(1)).unwrap();
        (0..20).for_each(|at| keys.begin(UnixMillis(at)).unwrap());
        assert_eq!(keys.count(), KEPT_MAX);
    }
}
