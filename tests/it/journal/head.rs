//! Leadership, the head, and what is planned upon.

use std::sync::Arc;

use llm_config_shared::entry::ChangeId;
use llm_config_shared::stamp::ActorId;
use llm_config_shared::store::{Frontier, Journal, JournalError, PlanningRequest, Repeat};
use llm_config_shared::vector::{Epoch, Position, ShardId};
use uuid::Uuid;

use super::book::{Book, EPOCH, at, plain, scope, secret, tenant};

pub(super) async fn each_leadership_appends_an_epoch(journal: &Arc<impl Journal>) {
    assert!(matches!(journal.head().await, Err(JournalError::Unavailable(_))), "nobody has led it yet");
    let mut book = Book::begin(&**journal).await;
    assert_eq!(book.position, Position { epoch: EPOCH, seq: 0 });
    book.put(&at("app", "a"), plain("1"));
    book.put(&at("app", "b"), plain("2"));
    book.commit(&**journal).await;
    book.lead_again(&**journal, 5).await;
    book.put(&at("app", "a"), plain("3"));
    book.commit(&**journal).await;
    book.lead_again(&**journal, 6).await;

    let head = journal.head().await.unwrap();
    assert_eq!((head.shard, head.position, head.hlc), (book.shard, Position { epoch: 6, seq: 3 }, book.hlc));
    let epoch = |ordinal, epoch, start_seq| Epoch { ordinal, epoch, start_seq };
    assert_eq!(head.own_epochs().epochs(), [epoch(1, EPOCH, 0), epoch(2, 5, 2), epoch(3, 6, 3)]);
}

pub(super) async fn two_that_create_the_shard_agree(journal: &Arc<impl Journal>) {
    let lead = |epoch: u64| {
        let journal = Arc::clone(journal);
        tokio::spawn(
            async move { journal.lead(epoch, ShardId(Uuid::from_u128(epoch.into()))).await.unwrap() },
        )
    };
    let (one, other) = (lead(1), lead(2));
    let (one, other) = (one.await.unwrap(), other.await.unwrap());
    assert_eq!(one.shard, other.shard);
    let head = journal.head().await.unwrap();
    assert_eq!(head.own_epochs().epochs().len(), 2);
    assert_eq!(head.own_epochs().newest().unwrap().epoch, head.position.epoch);
}

pub(super) async fn commits_move_the_head_without_gaps(journal: &Arc<impl Journal>) {
    let mut book = Book::begin(&**journal).await;
    for round in 0..5_u64 {
        for key in 0..=round {
            book.put(&at("app", &format!("k{key}")), plain(&round.to_string()));
        }
        book.commit(&**journal).await;
        let head = journal.head().await.unwrap();
        assert_eq!((head.position, head.hlc), (book.position, book.hlc));
    }
    // A commit in which nothing wins leaves the place and moves the clock.
    book.lose(&at("app", "k0"), plain("0"));
    book.commit(&**journal).await;
    let head = journal.head().await.unwrap();
    assert_eq!((head.position.seq, head.hlc), (15, book.hlc));
}

pub(super) async fn one_of_two_commits_at_the_same_place_is_fenced(journal: &Arc<impl Journal>) {
    let mut book = Book::begin(&**journal).await;
    book.put(&at("app", "a"), plain("1"));
    let first = book.close();
    // The same place again, as a second process would plan it that believes to lead in the same epoch.
    book.position = first.fence.position;
    book.put(&at("app", "b"), plain("2"));
    let second = book.close();
    let (one, other) = tokio::join!(journal.append(&first), journal.append(&second));
    let fenced = [&one, &other].into_iter().filter(|done| **done == Err(JournalError::Fenced)).count();
    assert_eq!(fenced, 1, "{one:?} {other:?}");
    assert!(one.is_ok() || other.is_ok());
    assert_eq!(journal.head().await.unwrap().position.seq, 1);
}

pub(super) async fn frontiers_and_answers_are_kept(journal: &Arc<impl Journal>) {
    let mut book = Book::begin(&**journal).await;
    let frontier = |edge, incarnation, last_counter, session| Frontier {
        edge: ActorId(Uuid::from_u128(edge)),
        incarnation,
        last_counter,
        session,
    };
    book.frontier(frontier(1, 1, 4, 2));
    book.frontier(frontier(1, 1, 9, 2));
    book.frontier(frontier(1, 2, 3, 7));
    let mut commit = book.close();
    let repeat = Repeat {
        tenant: tenant("acme"),
        change: ChangeId(Uuid::from_u128(8)),
        batch: 3,
        request_hash: [9; 32],
        answer: "{\"ok\":\"ja\"}".into(),
    };
    commit.repeats.push(repeat.clone());
    journal.append(&commit).await.unwrap();
    // Sent again, and late.
    book.frontier(frontier(1, 1, 9, 2));
    book.frontier(frontier(1, 2, 1, 3));
    book.commit(&**journal).await;

    let edge = ActorId(Uuid::from_u128(1));
    let request = PlanningRequest {
        frontiers: vec![(edge, 1), (edge, 2), (edge, 3), (ActorId(Uuid::from_u128(2)), 1)],
        repeats: vec![
            (tenant("acme"), repeat.change, 3),
            (tenant("acme"), repeat.change, 4),
            (tenant("other"), repeat.change, 3),
        ],
        ..PlanningRequest::default()
    };
    let mut found = journal.planning(&request).await.unwrap();
    found.frontiers.sort_by_key(|row| row.incarnation);
    assert_eq!(found.frontiers, [frontier(1, 1, 9, 2), frontier(1, 2, 3, 7)]);
    assert_eq!(found.repeats, [repeat]);
}

pub(super) async fn planning_finds_what_there_is(journal: &Arc<impl Journal>) {
    let mut book = Book::begin(&**journal).await;
    let (a, b, c) = (at("app", "a"), at("app/llm", "b"), at("app", "c"));
    let first = book.put(&a, plain("{\"x\":[1,null]}"));
    let (edge, incarnation) = (first.actor, first.incarnation);
    book.frontier(Frontier { edge, incarnation, last_counter: 3, session: 1 });
    book.put(&b, secret("s3cret"));
    book.put(&c, plain("true"));
    book.put(&c, llm_config_shared::entry::Content::Deleted);
    book.commit(&**journal).await;

    let request = PlanningRequest {
        keys: vec![c.clone(), at("app", "nowhere"), at("nowhere", "a"), a.clone(), b.clone(), a.clone()],
        writes: vec![(edge, first.counter), (edge, 77), (ActorId(Uuid::from_u128(1)), first.counter)],
        ..PlanningRequest::default()
    };
    let mut found = journal.planning(&request).await.unwrap();
    found.rows.sort_by(|x, y| x.row.at.cmp(&y.row.at));
    let expected: Vec<_> = book.rows.values().cloned().collect();
    assert_eq!(found.rows, expected, "each once, as it was written");
    found.digests.sort_by(|x, y| x.0.cmp(&y.0));
    let scopes = [scope("acme", "base", "app"), scope("acme", "base", "app/llm")];
    let digests = scopes.map(|scope| (scope.clone(), book.digests[&scope]));
    assert_eq!(found.digests, digests);
    assert_eq!(found.known_writes, [(first, book.history[0].content_hash)]);
}
