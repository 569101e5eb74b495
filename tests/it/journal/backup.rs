//! Backup and restore: the same database comes back, on either kind.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use llm_config_hub::backup::{BackupError, RecoveryKey, back_up, check, restore};
use llm_config_hub::config::Secrets;
use llm_config_hub::journal::Database;
use llm_config_hub::journal::dialect::Dialect;
use llm_config_hub::journal::whole::FilledAs;
use llm_config_hub::registry::Registry as _;
use llm_config_hub::secrets::keyring_of;
use llm_config_shared::entry::Content;
use llm_config_shared::newer::{Newer, Taken, Tally};
use llm_config_shared::stamp::ActorId;
use llm_config_shared::store::purge::Purge;
use llm_config_shared::store::{
    ChangeRow, Commit, FeedRows, FeedSnapshot, Fence, Journal as _, Loss, Page, PlanningRequest, Retold,
};
use llm_config_shared::time::UnixMillis;
use llm_config_shared::vector::Vector;
use uuid::Uuid;

use super::book::{Book, EPOCH, NOW, at, feed, plain, secret, tenant};
use super::{on_postgres, on_sqlite};

const PAGE: Page = Page { before: None, limit: 100 };

/// A database with something of everything, and its backup.
struct Backed {
    folder: tempfile::TempDir,
    file: PathBuf,
    key: RecoveryKey,
    book: Book,
}

impl Backed {
    async fn up(journal: &Database<impl Dialect>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        journal.create_tenant(&tenant("acme"), UnixMillis(5)).await.unwrap();
        keyring_of(journal, &folder.path().join("keyring")).await.unwrap();
        let mut book = Book::begin(journal).await;
        for n in 0..30 {
            book.put(&at("app", &format!("k{n}")), plain(&format!("{{\"n\":{n}}}")));
        }
        book.commit(journal).await;
        book.put(&at("app/llm", "key"), secret("s3cret"));
        book.put(&at("app", "k1"), Content::Deleted);
        book.commit(journal).await;
        let fence = Fence { shard: book.shard, position: book.position };
        let purge = Purge { fence, admitted_by: NOW, limit: 100 };
        assert_eq!(journal.purge(&purge).await.unwrap().count, 1);
        let file = folder.path().join("backup");
        let mut shown = String::new();
        let show = |key: &str| {
            shown = key.to_owned();
            Ok(())
        };
        back_up(journal, &Secrets::local(folder.path().join("keyring")), &file, false, show).await.unwrap();
        Self { folder, file, key: RecoveryKey::parse(&shown).unwrap(), book }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

fn sorted(mut snapshot: FeedSnapshot) -> FeedRows {
    let mut feed = snapshot.feeds.remove(0);
    feed.rows.sort_by(|x, y| x.row.at.cmp(&y.row.at));
    feed
}

/// What is in the one is in the other.
async fn are_equal(one: &Database<impl Dialect>, other: &Database<impl Dialect>) {
    assert_eq!(one.head().await.unwrap(), other.head().await.unwrap());
    let feeds = [(feed(""), Vector::EMPTY)];
    let (mine, theirs) = (one.read_feeds(&feeds).await.unwrap(), other.read_feeds(&feeds).await.unwrap());
    assert_eq!(sorted(mine), sorted(theirs));
    for key in [at("app", "k1"), at("app/llm", "key")] {
        assert_eq!(one.history(&key, PAGE).await.unwrap(), other.history(&key, PAGE).await.unwrap());
    }
    let request = PlanningRequest { keys: vec![at("app", "k1")], ..PlanningRequest::default() };
    let (mine, theirs) = (one.planning(&request).await.unwrap(), other.planning(&request).await.unwrap());
    assert_eq!((mine.stubs.len(), mine.stubs), (1, theirs.stubs));
    let (mine, theirs) =
        (one.changes(&tenant("acme"), PAGE).await, other.changes(&tenant("acme"), PAGE).await);
    assert_eq!(mine.unwrap(), theirs.unwrap());
    assert_eq!(one.tenants().await.unwrap(), other.tenants().await.unwrap());
    assert_eq!(one.wrapped_key("keyring").await.unwrap(), other.wrapped_key("keyring").await.unwrap());
}

async fn comes_back(
    source: &Database<impl Dialect>,
    target: &Database<impl Dialect>,
    backed: &Backed,
    name: &str,
) {
    let keyring = backed.path(name);
    restore(target, &keyring, &backed.file, &backed.key, FilledAs::Itself(Newer::Hold)).await.unwrap();
    are_equal(source, target).await;
    assert_eq!(fs::read(&keyring).unwrap(), fs::read(backed.path("keyring")).unwrap());
    let again = restore(target, &keyring, &backed.file, &backed.key, FilledAs::Itself(Newer::Accept)).await;
    assert!(matches!(again, Err(BackupError::InUse)), "{again:?}");
    assert_eq!(target.losses().await.unwrap(), [], "nobody has led it yet");
}

pub(super) async fn what_was_backed_up_comes_back_on_either_database(journal: &Arc<Database<impl Dialect>>) {
    let mut backed = Backed::up(journal).await;
    let (sqlite, postgres) = (on_sqlite().await, on_postgres().await);
    comes_back(journal, &sqlite.journal, &backed, "of-sqlite").await;
    comes_back(journal, &postgres, &backed, "of-postgres").await;

    what_edges_hand_in_is_counted(&sqlite.journal, &backed).await;

    // Where numbers are given out, they go on; and what was lost is known from the first leadership on.
    let cut = backed.book.position.seq;
    backed.book.lead_again(&*postgres, 9).await;
    backed.book.put(&at("app", "k2"), plain("2"));
    backed.book.commit(&*postgres).await;
    backed.book.lead_again(&*postgres, 10).await;
    let loss = Loss { shard: backed.book.shard, epoch: EPOCH, cut, new_epoch: 9 };
    assert_eq!(postgres.losses().await.unwrap(), [loss]);
    what_edges_hand_in_is_counted(&postgres, &backed).await;
    postgres.close().await;
}

/// How it was chosen that newer writes be taken is known once the hub is led, and so is how many were.
async fn what_edges_hand_in_is_counted(restored: &Database<impl Dialect>, backed: &Backed) {
    let lead = restored.lead(77, backed.book.shard).await.unwrap();
    let loss = restored.losses().await.unwrap()[0];
    let acme = || tenant("acme");
    let asked = PlanningRequest {
        restored: vec![(acme(), loss.new_epoch), (acme(), 404)],
        ..PlanningRequest::default()
    };
    let known = restored.planning(&asked).await.unwrap().restored;
    let [(of, found)] = known.as_slice() else { panic!("one loss is known: {known:?}") };
    assert_eq!((of, found.loss, found.newer, found.tallies.len()), (&acme(), loss, Newer::Hold, 0));
    assert!(found.restored_at.0 > 0 && found.epochs.newest().is_some_and(|newest| newest.epoch == 77));

    let tally = |held: u64| Tally {
        tenant: acme(),
        new_epoch: loss.new_epoch,
        edge: ActorId(Uuid::from_u128(7)),
        name: "e7".into(),
        taken: Taken { known: 1, admitted: 2, held, denied: 4, discarded: 5, refused: 6, left_out: 7 },
        bytes: 8,
    };
    let mut commit = Commit {
        fence: Fence { shard: lead.shard, position: lead.position },
        seq: lead.position.seq,
        hlc: lead.hlc,
        admitted_at: NOW,
        rows: vec![],
        raised: vec![],
        stubs: vec![],
        history: vec![],
        superseded: vec![],
        conflicts: vec![],
        settled: vec![],
        frontiers: vec![],
        digests: vec![],
        changes: vec![ChangeRow {
            id: loss.change(),
            tenant: acme(),
            created_at: NOW,
            author: "hub:restore".into(),
            message: Some("first".into()),
            writes: 1,
        }],
        retold: vec![Retold { tenant: acme(), change: loss.change(), message: "then".into() }],
        withdrawn: vec![],
        following: None,
        repeats: vec![],
        tallies: vec![tally(3)],
    };
    restored.append(&commit).await.unwrap();
    (commit.changes, commit.retold, commit.tallies) = (vec![], vec![], vec![tally(30)]);
    restored.append(&commit).await.unwrap();
    let known = restored.planning(&asked).await.unwrap().restored;
    assert_eq!(known[0].1.tallies, [tally(30)]);
    let changes = restored.changes(&acme(), PAGE).await.unwrap().rows;
    assert_eq!(changes[0].message.as_deref(), Some("then"));
}

async fn is_refused(file: &Path, key: &RecoveryKey, keyring: &Path) -> BackupError {
    let target = on_sqlite().await;
    let refused =
        restore(&target.journal, keyring, file, key, FilledAs::Itself(Newer::Discard)).await.unwrap_err();
    assert!(check(file, key).is_err(), "{refused}");
    assert!(target.journal.is_unused().await.unwrap() && !keyring.exists(), "{refused}");
    refused
}

pub(super) async fn a_damaged_backup_changes_nothing(journal: &Arc<Database<impl Dialect>>) {
    let backed = Backed::up(journal).await;
    let (bytes, keyring) = (fs::read(&backed.file).unwrap(), backed.path("restored"));
    let other = RecoveryKey::generate().unwrap().0;
    assert!(matches!(is_refused(&backed.file, &other, &keyring).await, BackupError::WrongKey(_)));
    let damaged = backed.path("damaged");
    for place in [0, 30, 80, 105, bytes.len() / 2, bytes.len() - 1] {
        let mut changed = bytes.clone();
        changed[place] ^= 1;
        fs::write(&damaged, changed).unwrap();
        is_refused(&damaged, &backed.key, &keyring).await;
    }
    for length in [0, 10, 100, 103, bytes.len() / 2, bytes.len() - 1] {
        fs::write(&damaged, &bytes[..length]).unwrap();
        is_refused(&damaged, &backed.key, &keyring).await;
    }
    fs::write(&damaged, [bytes.as_slice(), b"x"].concat()).unwrap();
    is_refused(&damaged, &backed.key, &keyring).await;
    let summary = check(&backed.file, &backed.key).unwrap();
    assert!(summary.counts.rows > 60 && summary.counts.tables > 15, "{summary:?}");
}

pub(super) async fn the_recovery_key_is_shown_once(journal: &Arc<Database<impl Dialect>>) {
    let backed = Backed::up(journal).await;
    let keyring = Secrets::local(backed.path("keyring"));
    let never = |_: &str| -> std::io::Result<()> { panic!("it was shown before") };
    back_up(journal, &keyring, &backed.file, false, never).await.unwrap();
    check(&backed.file, &backed.key).unwrap();
    let mut shown = String::new();
    let show = |key: &str| {
        shown = key.to_owned();
        Ok(())
    };
    back_up(journal, &keyring, &backed.file, true, show).await.unwrap();
    assert!(check(&backed.file, &backed.key).is_err(), "another key counts from now on");
    check(&backed.file, &RecoveryKey::parse(&shown).unwrap()).unwrap();
    let closed = |_: &str| Err(std::io::Error::other("closed"));
    let refused = back_up(journal, &keyring, &backed.path("never"), true, closed).await;
    assert!(matches!(refused, Err(BackupError::NotShown(_))) && !backed.path("never").exists());
}
