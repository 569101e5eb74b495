//! Two of one replica: told apart, both served, and no number taken for another write.

use super::*;

#[tokio::test]
async fn two_of_one_replica_are_told_apart_and_then_both_served() {
    let hub = Hub::start().await;
    let edge = hub.edge(binding(&["app"])).await;
    let (mut first, welcome, _) = edge.follow(1).await;
    assert!(!welcome.copied);
    let (mut second, welcome, _) = edge.follow(1).await;
    assert!(welcome.copied, "the number is taken");
    let renamed = Hello { protocol: PROTOCOL, incarnation: 2, session: 2, floor: Vector::EMPTY, pending: 0 };
    let mut third = edge.connect().await.unwrap();
    third.say(EdgeFrame::Hello(renamed)).await;
    let frame = third.hear().await;
    assert!(matches!(&frame, HubFrame::Welcome(welcome) if !welcome.copied), "{frame:?}");
    hub.set("app", "k", plain("1")).await;
    assert_eq!(names(&first.transfer().await.rows), ["k"]);
    assert_eq!(names(&second.transfer().await.rows), ["k"]);
    assert_eq!(hub.parts.roster.connected(), 1, "one edge, however often");

    let (_newest, welcome, _) = edge.follow(2).await;
    assert!(!welcome.copied);
    assert_eq!(first.refused().await, Refusal::Replaced, "half-open");
    assert_eq!(second.refused().await, Refusal::Replaced);
}

#[tokio::test]
async fn a_number_that_was_used_is_not_taken_for_another_write() {
    let hub = Hub::start().await;
    let edge = hub.edge(binding(&["app"])).await;
    let (mut talk, welcome, _) = edge.follow(1).await;
    let write = |counter: u64, value: &str, incarnation: u64| Write {
        id: WriteId { actor: edge.reply.edge, incarnation, counter },
        hlc: Hlc(welcome.hlc.0 + counter),
        claimed_hlc: None,
        at: entry("edges/kiosk", value),
        action: Action::Set { value: Value::parse("true").unwrap(), tags: None, description: None },
        author: Author { name: "uid:0".into(), claimed: None },
        made_at: welcome.physical,
        message: None,
        change: ChangeId(Uuid::from_u128(u128::from(counter))),
        context: Vector::EMPTY,
        without_secrets: false,
        base: None,
    };
    let admitted = [Verdict::Admitted { version: 1 }];
    assert_eq!(talk.upload(vec![write(1, "a", 1)]).await, admitted);
    drop(talk);
    let (mut copy, _, _) = edge.follow(1).await;
    let found = copy.upload(vec![write(1, "a", 1), write(2, "b", 1)]).await;
    assert_eq!(found, [Verdict::Duplicate, Verdict::Reidentify]);
    assert_eq!(copy.upload(vec![write(2, "b", 2)]).await, admitted);
}
