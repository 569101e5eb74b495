//! How a session begins, and with whom it does not.

use uuid::Uuid;

use super::*;
use crate::vector::{Epoch, EpochTable, Position, ShardId};

const SHARD: ShardId = ShardId(Uuid::from_u128(1));
const LOSS: Loss = Loss { shard: SHARD, epoch: 11, cut: 40, new_epoch: 22 };

fn at(epoch: u64, seq: u64) -> Vector {
    Vector::at(SHARD, Position { epoch, seq })
}

/// What a hub that went back from 50 to 40 and has come to 60 since says to an edge that was told of `floor`.
fn greet(floor: Vector, leads: bool, lost: Vec<(Loss, Bytes)>) -> (HubSession, HubFrame) {
    let profile = Profile {
        feeds: Vec::new(),
        environments: Environments::standard(),
        default_environment: Environment::base(),
        write: Vec::new(),
    };
    let mut session = HubSession::new(profile, Rules::ALL, Instant(0));
    let hello = Hello { protocol: PROTOCOL, incarnation: 1, session: 1, floor, pending: 0 };
    session.handle(Input::Frame(EdgeFrame::Hello(hello)), Instant(0));
    assert_eq!(session.poll_output(), Some(Output::ReadHead));
    let epoch = |ordinal, epoch, start_seq| Epoch { ordinal, epoch, start_seq };
    let epochs = Epochs::of(SHARD, EpochTable::new(vec![epoch(1, 11, 0), epoch(2, 22, 40)]));
    let position = Position { epoch: 22, seq: 60 };
    let head = Head { shard: SHARD, position, hlc: Hlc(0), horizon: 0, epochs, regions: Vector::EMPTY };
    let report = HeadReport {
        head,
        physical: UnixMillis(0),
        hlc: Hlc(0),
        epsilon_ms: 500,
        leads,
        copied: false,
        lost,
    };
    session.handle(Input::Head(report), Instant(0));
    match session.poll_output() {
        Some(Output::Send(frame)) => (session, frame),
        other => panic!("nothing is said, but {other:?}"),
    }
}

fn refusal(frame: &HubFrame) -> Option<Refusal> {
    let HubFrame::Refused { refusal, .. } = frame else { return None };
    Some(refusal.clone())
}

#[test]
fn an_edge_that_saw_what_was_lost_is_served_only_with_the_statement_of_it() {
    let lost = || vec![(LOSS, Bytes::from_static(b"statement"))];
    let (_, frame) = greet(at(11, 50), true, lost());
    let HubFrame::Welcome(welcome) = frame else { panic!("{frame:?}") };
    assert_eq!(welcome.lost_history, Some(Bytes::from_static(b"statement")));

    assert_eq!(refusal(&greet(at(11, 50), true, Vec::new()).1), Some(Refusal::Ahead));
    assert_eq!(refusal(&greet(at(11, 50), false, lost()).1), Some(Refusal::Behind));
    assert_eq!(refusal(&greet(at(22, 61), true, lost()).1), Some(Refusal::Ahead), "lost without a word");
    let (_, frame) = greet(at(11, 40), true, lost());
    assert!(matches!(frame, HubFrame::Welcome(Welcome { lost_history: None, .. })), "it saw nothing of it");
}

#[test]
fn only_who_was_told_of_a_loss_hands_something_in_and_only_before_it_subscribes() {
    let hand_in = || EdgeFrame::HandIn { batch: 3, writes: Vec::new() };
    let lost = || vec![(LOSS, Bytes::from_static(b"statement"))];
    let (mut session, frame) = greet(at(11, 50), true, lost());
    assert!(matches!(frame, HubFrame::Welcome(Welcome { takes_newer: true, .. })));
    session.handle(Input::Frame(hand_in()), Instant(0));
    let wanted = Output::TakeIn { batch: 3, loss: LOSS, writes: Vec::new() };
    assert_eq!(session.poll_output(), Some(wanted));
    let taken = Taken { left_out: 2, ..Taken::default() };
    session.handle(Input::Taken { batch: 3, taken }, Instant(0));
    assert_eq!(session.poll_output(), Some(Output::Send(HubFrame::Taken { batch: 3, taken })));

    session.handle(Input::Frame(EdgeFrame::Subscribe { feeds: Vec::new(), held: Vec::new() }), Instant(0));
    while session.poll_output().is_some() {}
    let (told_nothing, frame) = greet(at(11, 40), true, lost());
    assert!(matches!(frame, HubFrame::Welcome(Welcome { takes_newer: false, .. })));
    for mut session in [session, told_nothing] {
        session.handle(Input::Frame(hand_in()), Instant(0));
        let Some(Output::Send(frame)) = session.poll_output() else { panic!("it is refused") };
        assert!(matches!(refusal(&frame), Some(Refusal::Protocol(_))));
    }
}

#[test]
fn what_an_author_saw_of_the_lost_part_counts_as_seen_up_to_the_cut() {
    let (session, _) = greet(at(11, 40), true, Vec::new());
    assert_eq!(session.as_far_as_known(&at(11, 30)), at(11, 30));
    assert_eq!(session.as_far_as_known(&at(11, 50)), at(11, 40));
    assert_eq!(session.as_far_as_known(&at(22, 55)), at(22, 55));
    assert_eq!(session.as_far_as_known(&at(33, 45)), Vector::EMPTY, "nobody knows how far that was");
}
