//! Secrets lock in time whatever the clocks do, and open at the hub's next word alone.

use std::sync::atomic::{AtomicU64, Ordering};

use llm_config_shared::limits::OFFLINE_LIMIT_MS;
use llm_config_shared::name::Subtree;
use llm_config_shared::offline::{BootId, LimitStatement, OfflineLimits};
use llm_config_shared::secret::{SealedLimitKeys, seal_limit_keys, sealing_keypair};
use llm_config_shared::time::UnixMillis;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use uuid::Uuid;

use super::*;

const NOW: u64 = 1_795_000_000_000;
const EDGE: ActorId = ActorId(Uuid::from_u128(7));

/// Clocks that a test sets: start of the machine, time since then, wall clock.
#[derive(Default)]
struct Dials([AtomicU64; 3]);

impl Dials {
    fn set(&self, boot: u64, since_boot_ms: u64, wall: u64) {
        for (dial, value) in self.0.iter().zip([boot, since_boot_ms, wall]) {
            dial.store(value, Ordering::SeqCst);
        }
    }

    fn read(&self) -> Clocks {
        let [boot, up, wall] = [0, 1, 2].map(|at: usize| self.0[at].load(Ordering::SeqCst));
        let mut id = [0; 16];
        id[..8].copy_from_slice(&boot.to_be_bytes());
        Clocks { boot: BootId(id), since_boot_ms: up, wall: UnixMillis(wall) }
    }
}

struct Hub(Ed25519KeyPair);

impl Hub {
    fn new() -> Self {
        Self(Ed25519KeyPair::from_seed_unchecked(&[5; 32]).unwrap())
    }

    fn keys(&self) -> VerificationKeys {
        VerificationKeys::new([(7, self.0.public_key().as_ref().try_into().unwrap())])
    }

    fn says(&self, issued_at: u64, session: u64, limits: &[(&str, u64)]) -> Bytes {
        self.states(issued_at, Some(mark(session)), limits)
    }

    fn states(&self, issued_at: u64, session: Option<SessionMark>, limits: &[(&str, u64)]) -> Bytes {
        let mut set = OfflineLimits::default();
        limits.iter().for_each(|(path, ms)| set.set(Subtree::parse(path).unwrap(), *ms));
        let statement = LimitStatement {
            tenant: Tenant::parse("t").unwrap(),
            edge: EDGE,
            issued_at: UnixMillis(issued_at),
            not_after: UnixMillis(issued_at + OFFLINE_LIMIT_MS),
            session,
            limits: set,
            subtrees: vec![Subtree::parse("app").unwrap()],
            keys: limit_keys(1),
        };
        let draft = statement.draft(7);
        let signature = self.0.sign(&draft.message()).as_ref().try_into().unwrap();
        draft.signed(&signature)
    }
}

fn limit_keys(count: usize) -> SealedLimitKeys {
    let (_, public) = sealing_keypair(&[9; 32]);
    let tenant = Tenant::parse("t").unwrap();
    let keys = vec![SealKey::new([4; 32]); count];
    seal_limit_keys(&keys, &tenant, &EDGE.0.to_string(), &public, &mut rand::rng()).unwrap()
}

fn mark(session: u64) -> SessionMark {
    SessionMark { incarnation: 1, session }
}

fn offline(directory: &tempfile::TempDir, restart: OfflineRestart, dials: &Arc<Dials>) -> Arc<Offline> {
    let sealing = Arc::new(SealingKeys::from_seed([9; 32]));
    let receiver = Receiver { tenant: Tenant::parse("t").unwrap(), edge: EDGE, sealing };
    let dials = Arc::clone(dials);
    let clocks = Box::new(move || dials.read());
    let (key, signers) = (SealKey::new([1; 32]), Hub::new().keys());
    Offline::with_clocks(directory.path().to_owned(), receiver, key, None, restart, &signers, clocks)
}

fn by(offline: &Offline, namespace: &str) -> Option<LockedBy> {
    offline.check(&Namespace::parse(namespace).unwrap()).err().map(|lock| lock.by)
}

/// An edge that heard its hub a moment ago: `app` may stay open for 10 s, `app/pay` for 4 s.
fn heard(directory: &tempfile::TempDir, restart: OfflineRestart) -> (Arc<Dials>, Arc<Offline>) {
    let dials = Arc::new(Dials::default());
    dials.set(1, 100_000, NOW);
    let offline = offline(directory, restart, &dials);
    assert_eq!(by(&offline, "app"), Some(LockedBy::NeverReached));
    offline.asked(mark(3));
    let said = Hub::new().says(NOW, 3, &[("app", 10_000), ("app/pay", 4_000)]);
    offline.heard(&said, &Hub::new().keys()).unwrap();
    assert_eq!(by(&offline, "app"), None);
    (dials, offline)
}

#[test]
fn each_namespace_locks_at_its_own_limit_and_all_keys_go_at_the_last() {
    let directory = tempfile::tempdir().unwrap();
    let (dials, offline) = heard(&directory, OfflineRestart::Never);
    dials.set(1, 102_000, NOW + 2_000);
    assert_eq!(offline.look(), Due::Warn { left_ms: 2_000 });
    dials.set(1, 103_999, NOW + 3_999);
    assert_eq!((by(&offline, "app/pay"), offline.look()), (None, Due::Nothing), "told once");
    dials.set(1, 104_000, NOW + 4_000);
    assert_eq!((by(&offline, "app/pay/eu"), by(&offline, "app")), (Some(LockedBy::Limit), None));
    assert_eq!(offline.report().locks_in_ms, Some(6_000));
    dials.set(1, 110_000, NOW + 10_000);
    assert_eq!(by(&offline, "app"), Some(LockedBy::Limit), "also before anybody looked");
    let lock = Lock { by: LockedBy::Limit, since: UnixMillis(NOW + 10_000) };
    let app = Subtree::parse("app").unwrap();
    assert_eq!((offline.look(), offline.keys()), (Due::Lock(lock, vec![app]), LimitKeys::new()));
    dials.set(1, 110_000, 0);
    assert_eq!(by(&offline, "app"), Some(LockedBy::Limit), "a lock holds until the hub is heard");
    offline.asked(mark(4));
    offline.heard(&Hub::new().says(NOW + 10_000, 4, &[("app", 10_000)]), &Hub::new().keys()).unwrap();
    assert_eq!((by(&offline, "app"), offline.report().locks_in_ms), (None, Some(10_000)));
}

#[test]
fn no_wall_clock_opens_anything_or_keeps_it_open() {
    for wall in
        [0, NOW - 86_400_000, NOW - 600_000, NOW - 5_000, NOW + 5_000, NOW + 86_400_000, 4_294_967_296_000]
    {
        let directory = tempfile::tempdir().unwrap();
        let (dials, offline) = heard(&directory, OfflineRestart::Never);
        dials.set(1, 109_999, wall);
        assert_eq!(by(&offline, "app").is_some(), wall >= NOW + 10_000, "only earlier: {wall}");
        dials.set(1, 110_000, wall);
        assert_eq!(by(&offline, "app"), Some(LockedBy::Limit), "{wall}");
        offline.look();
        offline.asked(mark(4));
        offline.heard(&Hub::new().says(NOW + 10_000, 4, &[("app", 10_000)]), &Hub::new().keys()).unwrap();
        assert_eq!(by(&offline, "app"), None, "nobody is stranded: {wall}");
    }
}

#[test]
fn words_of_another_session_edge_or_hub_are_no_contact() {
    let directory = tempfile::tempdir().unwrap();
    let (dials, offline) = heard(&directory, OfflineRestart::Never);
    let old = Hub::new().says(NOW, 3, &[("app", 10_000)]);
    offline.asked(mark(4));
    assert!(offline.heard(&old, &Hub::new().keys()).is_err(), "recorded in another session");
    assert!(offline.heard(&Hub::new().says(NOW, 4, &[]), &VerificationKeys::default()).is_err());
    dials.set(1, 110_000, NOW);
    assert_eq!(by(&offline, "app"), Some(LockedBy::Limit));
}

#[test]
fn after_a_start_without_the_hub_only_a_file_opens_secrets_and_only_within_the_limit() {
    let directory = tempfile::tempdir().unwrap();
    let (dials, before) = heard(&directory, OfflineRestart::Never);
    drop(before);
    let never = offline(&directory, OfflineRestart::Never, &dials);
    assert_eq!((by(&never, "app"), never.keys()), (Some(LockedBy::Restart), LimitKeys::new()));

    let directory = tempfile::tempdir().unwrap();
    let (dials, before) = heard(&directory, OfflineRestart::File);
    drop(before);
    dials.set(1, 105_000, NOW);
    let file = offline(&directory, OfflineRestart::File, &dials);
    assert_eq!(by(&file, "app"), None, "the machine was up: its clock went on");
    assert_eq!(by(&file, "app/pay"), Some(LockedBy::Limit));
    // The machine was off for a second, and is off again, with a clock that stands still.
    dials.set(2, 10, NOW + 1_000);
    let file = offline(&directory, OfflineRestart::File, &dials);
    assert_eq!(by(&file, "app"), None);
    file.look();
    dials.set(2, KEEP_EVERY_MS + 10, NOW);
    assert!(matches!(file.look(), Due::Lock(..)), "time goes on in the new start as well");
    assert!(!directory.path().join(LIMIT_KEYS).exists(), "a lock takes the key off the disk");
    let file = offline(&directory, OfflineRestart::File, &dials);
    assert!(by(&file, "app").is_some());
}

#[test]
fn a_second_start_of_the_machine_without_the_hub_locks_however_short_each_was() {
    let directory = tempfile::tempdir().unwrap();
    let (dials, first) = heard(&directory, OfflineRestart::File);
    first.asked(mark(4));
    first.heard(&Hub::new().says(NOW, 4, &[("app", 3_600_000)]), &Hub::new().keys()).unwrap();
    for (boot, expected) in [(2, None), (3, Some(LockedBy::Reboots)), (4, Some(LockedBy::Reboots))] {
        dials.set(boot, 5, NOW);
        assert_eq!(by(&offline(&directory, OfflineRestart::File, &dials), "app"), expected, "start {boot}");
    }
    let file = offline(&directory, OfflineRestart::File, &dials);
    file.asked(mark(5));
    file.heard(&Hub::new().says(NOW, 5, &[("app", 3_600_000)]), &Hub::new().keys()).unwrap();
    assert_eq!(by(&file, "app"), None);
}

#[test]
fn what_is_carried_opens_until_its_limit_and_not_twice() {
    let directory = tempfile::tempdir().unwrap();
    let (dials, offline) = heard(&directory, OfflineRestart::Never);
    let carried = |at: u64| Hub::new().states(at, None, &[("app", 10_000)]);
    dials.set(1, 115_000, NOW);
    offline.look();
    assert_eq!(by(&offline, "app"), Some(LockedBy::Limit));
    let keys = Hub::new().keys();
    assert_eq!(offline.carried(&carried(NOW), &keys), Err(NotCarried::NotNewer));
    assert_eq!(offline.carried(&carried(NOW + 5_000), &keys), Err(NotCarried::TooOld));
    let of_session = Hub::new().says(NOW + 12_000, 3, &[("app", 10_000)]);
    assert_eq!(offline.carried(&of_session, &keys), Err(NotCarried::NotMine));
    offline.carried(&carried(NOW + 12_000), &keys).unwrap();
    assert_eq!((by(&offline, "app"), offline.report().silent_ms), (None, Some(3_000)));
    assert_eq!(offline.carried(&carried(NOW + 12_000), &keys), Err(NotCarried::NotNewer));
    dials.set(1, 122_000, 0);
    assert_eq!(by(&offline, "app"), Some(LockedBy::Limit), "whatever the wall clock says");
}
