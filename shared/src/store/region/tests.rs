//! Where a history is read on, and what of it goes into a page.

use uuid::Uuid;

use super::*;
use crate::entry::{Author, ChangeId, ChangeType};
use crate::name::{EntryKey, Key, Namespace, Scope};
use crate::secret::{About, SealedSecret};
use crate::stamp::{ActorId, Hlc, Stamp, WriteId};
use crate::time::UnixMillis;
use crate::value::Value;
use crate::vector::Epoch;

/// Whose history is read.
const SHARD: ShardId = ShardId(Uuid::from_u128(1));
/// Another that is followed there.
const THIRD: ShardId = ShardId(Uuid::from_u128(3));

fn at(epoch: u64, seq: u64) -> Position {
    Position { epoch, seq }
}

fn table(epochs: &[(u64, u64)]) -> EpochTable {
    let epoch = |(ordinal, (epoch, start_seq)): (u32, &(u64, u64))| Epoch {
        ordinal,
        epoch: *epoch,
        start_seq: *start_seq,
    };
    EpochTable::new((1..).zip(epochs).map(epoch).collect())
}

fn head() -> Head {
    Head {
        shard: SHARD,
        position: at(22, 60),
        hlc: Hlc(0),
        horizon: 0,
        epochs: Epochs::of(SHARD, table(&[(11, 0), (22, 40)])).with(THIRD, table(&[(5, 0)])),
        regions: Vector::at(THIRD, at(5, 9)),
    }
}

fn ask(read: Option<Bookmark>, have: Vector) -> RegionAsk {
    RegionAsk { read, have, epochs: head().epochs }
}

fn row(status: Status, value: &str) -> HistoryRow {
    let scope = Scope {
        tenant: Tenant::parse("t").unwrap(),
        environment: Environment::base(),
        namespace: Namespace::parse("app").unwrap(),
    };
    let id = WriteId { actor: ActorId(Uuid::nil()), incarnation: 1, counter: 1 };
    HistoryRow {
        at: EntryKey { scope, key: Key::parse("k").unwrap() },
        version: 1,
        stamp: Stamp { hlc: Hlc(1), id },
        claimed_hlc: None,
        content: Content::Plain(Value::parse(&format!("\"{value}\"")).unwrap()),
        content_hash: [0; 32],
        author: Author { name: "a".into(), claimed: None },
        created_at: UnixMillis(0),
        message: None,
        change_type: ChangeType::Create,
        change: ChangeId(Uuid::nil()),
        returned_in: None,
        status,
        reason: None,
        seq: None,
        context: Vector::EMPTY,
        base: None,
        settled: None,
        origin: None,
    }
}

fn won(seq: u64, value: &str) -> (Option<Position>, RegionWrite) {
    let place = at(22, seq);
    let here = Dot { shard: SHARD, position: place };
    (Some(place), RegionWrite::of(row(Status::Applied, value), Some(here), None))
}

#[test]
fn a_history_is_read_on_at_the_bookmark_as_long_as_its_newest_leadership_is_the_same() {
    let (own, read) = (head().own_epochs(), Bookmark { position: at(22, 50), number: 70, epoch: 22 });
    let begin = |read, newest| ask(read, Vector::EMPTY).begin(&own, newest);
    assert_eq!(begin(None, 22), Begin::At(Bookmark::start(22)));
    assert_eq!(begin(Some(read), 22), Begin::At(read));
}

#[test]
fn under_another_leadership_a_history_is_read_on_behind_what_both_have() {
    let own = head().own_epochs();
    let begin =
        |position, epoch| ask(Some(Bookmark { position, number: 70, epoch }), Vector::EMPTY).begin(&own, 22);
    assert_eq!(begin(at(11, 30), 11), Begin::Behind(at(11, 30)), "numbers may have been given again");
    assert_eq!(begin(at(11, 50), 11), Begin::Behind(at(11, 40)), "what lay beyond is lost there");
    assert_eq!(begin(at(11, 0), 11), Begin::At(Bookmark::start(22)), "nothing was read");
    assert_eq!(begin(at(13, 50), 13), Begin::At(Bookmark::start(22)), "nobody knows of that leadership");
}

#[test]
fn a_place_that_is_not_there_begins_the_history_anew() {
    let found = Bookmark::behind(at(11, 30), Some(44), 22);
    assert_eq!((found.position, found.number, found.epoch), (at(11, 30), 44, 22));
    assert_eq!(Bookmark::behind(at(11, 30), None, 22), Bookmark::start(22));
}

#[test]
fn a_page_leaves_out_what_the_asker_has_and_what_was_never_admitted() {
    let ask = ask(None, Vector::at(THIRD, at(5, 4)));
    let mut page = Layout::new(&ask, Bookmark::start(22));
    let third = |seq| Some(Dot { shard: THIRD, position: at(5, seq) });
    let of_third =
        |seq| RegionWrite::of(HistoryRow { origin: third(seq), ..row(Status::Applied, "c") }, None, None);
    let (place, first) = won(41, "a");
    assert!(page.add(1, place, first.clone()));
    assert!(page.add(2, None, RegionWrite::of(row(Status::Held, "b"), None, None)));
    assert!(page.add(3, Some(at(22, 42)), of_third(4)), "it has that");
    assert!(page.add(4, Some(at(22, 43)), of_third(5)), "and not that");
    let lost = RegionWrite::of(row(Status::SupersededConcurrent, "d"), None, None);
    assert!(page.add(5, None, lost.clone()));
    let page = page.finish(&head(), false);
    assert_eq!(page.writes, [first, of_third(5), lost]);
    assert_eq!(page.read, Bookmark { position: at(22, 43), number: 5, epoch: 22 }, "a loser has no place");
    assert_eq!((page.shard, page.after, page.regions), (SHARD, None, None));
    assert_eq!(page.epochs, head().own_epochs());
}

#[test]
fn a_page_is_full_before_it_is_too_large_but_never_empty() {
    let ask = ask(None, Vector::EMPTY);
    let (place, mut huge) = won(41, "");
    huge.row.content = Content::Secret(SealedSecret {
        key_epoch: 1,
        version: 1,
        about: About::default(),
        body: vec![0; REGION_PAGE_BYTES_MAX].into(),
        wrap: vec![0; 1].into(),
    });
    let mut page = Layout::new(&ask, Bookmark::start(22));
    assert!(page.add(1, place, huge), "one has to go on");
    let (place, write) = won(42, "small");
    assert!(!page.add(2, place, write));
    let page = page.finish(&head(), false);
    assert_eq!((page.writes.len(), page.read.number, page.read.position), (1, 1, at(22, 41)));
}

#[test]
fn the_last_page_leads_to_the_head_and_says_what_that_hub_has_of_others() {
    let read = Bookmark { position: at(22, 50), number: 70, epoch: 22 };
    let ask = ask(Some(read), Vector::EMPTY);
    let page = Layout::new(&ask, read).finish(&head(), true);
    assert_eq!(page.after, Some(read));
    assert_eq!(page.read, Bookmark { position: at(22, 60), ..read });
    assert_eq!(page.regions, Some((head().regions, head().epochs)));
}

#[test]
fn keys_of_secrets_are_ordered_as_they_are_paged() {
    let name = |environment: &str, key_epoch| KeyName {
        tenant: Tenant::parse("t").unwrap(),
        environment: Environment::parse(environment).unwrap(),
        key_epoch,
    };
    let mut names = [name("production", 1), name("base", 11), name("base", 2)];
    names.sort();
    assert_eq!(names, [name("base", 2), name("base", 11), name("production", 1)]);
}
