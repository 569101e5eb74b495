//! Conflicts, held writes and policies, over a real journal and writer.

use llm_config_proto::rest::conflicts::{ConflictService as _, DecideOptions, HadSeen, Site};
use llm_config_proto::rest::error::ErrorKind;
use llm_config_shared::entry::Author;
use llm_config_shared::feed::{Environments, Feed};
use llm_config_shared::policy::ConflictPolicy;
use llm_config_shared::replication::admit::Upload;
use llm_config_shared::settled::ConflictState;
use llm_config_shared::stamp::{ActorId, Hlc, WriteId};
use llm_config_shared::write::{Action, Verdict, Write};

use super::*;
use crate::clock;

const EDGE: ActorId = ActorId(Uuid::from_u128(77));
const ALL: Page = Page { before: None, limit: 100 };

/// A write of an edge that has seen nothing.
fn blind(counter: u64, key: &str, action: Action, hlc: Hlc) -> Write {
    Write {
        id: WriteId { actor: EDGE, incarnation: 4, counter },
        hlc,
        claimed_hlc: None,
        at: target(key, "production").at(&tenant(), &Environment::parse("production").unwrap()),
        action,
        author: Author { name: "edge:kiosk/uid:0".into(), claimed: None },
        made_at: UnixMillis(1_000),
        message: Some("made on site".into()),
        change: ChangeId(Uuid::from_u128(60 + u128::from(counter))),
        context: Vector::EMPTY,
        without_secrets: false,
        base: None,
    }
}

fn of_edge(text: &str) -> Action {
    Action::Set { value: Value::parse(text).unwrap(), tags: None, description: None }
}

fn ahead() -> Hlc {
    Hlc::from_physical(UnixMillis(clock::now().0 + 86_400_000))
}

impl Hub {
    async fn upload(&self, write: Write) -> Verdict {
        let upload = Upload {
            edge: EDGE,
            tenant: tenant(),
            write: vec![Subtree::ALL],
            feeds: vec![Feed {
                tenant: tenant(),
                environment: write.at.scope.environment.clone(),
                subtree: Subtree::ALL,
                secrets: true,
            }],
            environments: Environments::standard(),
            session: 1,
            first: false,
            writes: vec![write],
        };
        self.api.parts.writer.upload(upload).await.unwrap().remove(0).verdict
    }

    /// An entry with value 1, and what an edge wrote that lost to it.
    async fn lost(&self, action: Action) -> Uuid {
        self.set(target("k", "production"), plain("1"), None).await.unwrap();
        assert_eq!(self.upload(blind(1, "k", action, Hlc(5))).await, Verdict::Lost { version: 2, to: 1 });
        let found = self.api.conflicts(&writer_call().caller, Some(ConflictState::Open), ALL).await.unwrap();
        found.rows[0].id
    }

    async fn held_id(&self, write: Write) -> Uuid {
        assert!(matches!(self.upload(write).await, Verdict::Held(_)));
        self.api.held(&writer_call().caller, ALL).await.unwrap().rows[0].id
    }

    async fn value(&self, key: &str) -> (Shown, u64) {
        let entry = self.get(&writer_call(), target(key, "production"), false, false).await.unwrap();
        (entry.value, entry.version)
    }
}

fn shown(text: &str) -> Shown {
    Shown::Plain(Value::parse(text).unwrap())
}

#[tokio::test]
async fn a_conflict_tells_both_sides_and_its_loser_comes_back_once() {
    let hub = hub().await;
    let caller = writer_call().caller;
    let id = hub.lost(of_edge("\"edge\"")).await;
    let detail = hub.api.conflict(&caller, id, false).await.unwrap();
    assert_eq!((detail.winner.site, detail.loser.site), (Site::Hub, Site::Edge("kiosk".into())));
    assert_eq!((detail.winner.had_seen, detail.loser.had_seen), (HadSeen::Nothing, HadSeen::Nothing));
    assert_eq!(detail.loser.past.value, Some(shown("\"edge\"")));
    assert_eq!(detail.loser.past.message.as_deref(), Some("made on site"));
    assert_eq!((detail.current_version, detail.settled), (Some(1), None));

    let options = DecideOptions::default;
    let restored = hub.api.restore_conflict(&caller, id, options()).await.unwrap();
    assert_eq!(hub.value("k").await, (shown("\"edge\""), 3));
    let (change, version) = restored.value.settled.as_ref().unwrap().wrote.unwrap();
    assert_eq!((version, restored.change), (3, Some(change)));
    let again = hub.api.restore_conflict(&caller, id, options()).await.unwrap();
    assert_eq!((again.value.settled, hub.value("k").await.1), (restored.value.settled, 3));

    let request = GetHistory { target: target("k", "production"), reveal: false, page: ALL };
    let history = here(hub.api.history(&writer_call(), request).await).unwrap().value.rows;
    let statuses: Vec<_> = history.iter().map(|past| (past.version, past.status)).collect();
    assert_eq!(statuses, [(3, Status::Applied), (2, Status::SupersededConcurrent), (1, Status::Applied)]);
    assert_eq!((&*history[0].author.name, history[0].change), ("token:writer", change));
    let message = history[0].message.as_deref().unwrap();
    assert!(message.contains("restores version 2 by edge:kiosk/uid:0"), "{message}");
    let listed = hub.api.conflicts(&caller, None, ALL).await.unwrap().rows;
    assert_eq!(ConflictState::of(listed[0].settled.as_ref()), ConflictState::Restored);
    assert!(hub.api.conflicts(&caller, Some(ConflictState::Open), ALL).await.unwrap().rows.is_empty());
}

#[tokio::test]
async fn who_restores_must_know_what_is_replaced_and_may_write() {
    let hub = hub().await;
    let caller = writer_call().caller;
    let id = hub.lost(of_edge("\"edge\"")).await;
    hub.set(target("k", "production"), plain("7"), None).await.unwrap();
    let refused = hub.api.restore_conflict(&caller, id, DecideOptions::default()).await.unwrap_err();
    assert_eq!((refused.kind, &refused.details["current_version"]), (ErrorKind::Conflict, &3.into()));
    assert!(refused.message.contains("if_version 3"), "{refused}");
    let reader = call(Role::Reader).caller;
    for (caller, id, kind) in
        [(&reader, id, ErrorKind::Forbidden), (&caller, Uuid::from_u128(9), ErrorKind::NotFound)]
    {
        let refused = hub.api.restore_conflict(caller, id, DecideOptions::default()).await.unwrap_err();
        assert_eq!(refused.kind, kind);
        assert_eq!(hub.api.dismiss_conflict(caller, id).await.unwrap_err().kind, kind);
    }
    let foreign = Caller { tenant: Tenant::parse("other").unwrap(), ..caller.clone() };
    assert_eq!(hub.api.conflict(&foreign, id, false).await.unwrap_err().kind, ErrorKind::NotFound);

    let dismissed = hub.api.dismiss_conflict(&caller, id).await.unwrap();
    assert_eq!(ConflictState::of(dismissed.settled.as_ref()), ConflictState::Dismissed);
    let options = DecideOptions { if_version: Some(3), ..DecideOptions::default() };
    hub.api.restore_conflict(&caller, id, options).await.unwrap();
    assert_eq!(hub.value("k").await, (shown("\"edge\""), 4));
    assert_eq!(hub.api.dismiss_conflict(&caller, id).await.unwrap_err().kind, ErrorKind::Conflict);
}

#[tokio::test]
async fn a_restored_deletion_deletes() {
    let hub = hub().await;
    let id = hub.lost(Action::Delete).await;
    let restored = hub.api.restore_conflict(&writer_call().caller, id, DecideOptions::default()).await;
    assert_eq!(restored.unwrap().value.current_version, None);
    let gone = hub.get(&writer_call(), target("k", "production"), false, false).await;
    assert_eq!(gone.unwrap_err().kind, ErrorKind::NotFound);
}

#[tokio::test]
async fn a_held_write_is_released_or_dropped_once() {
    let hub = hub().await;
    let caller = writer_call().caller;
    let first = hub.held_id(blind(1, "a", of_edge("1"), ahead())).await;
    let waiting = hub.api.held_write(&caller, first, false).await.unwrap();
    assert_eq!((waiting.write.past.status, waiting.current_version), (Status::Held, None));
    assert!(waiting.write.past.reason.unwrap().contains("ahead of the hub's clock"));
    let released = hub.api.release_held(&caller, first, DecideOptions::default()).await.unwrap();
    assert_eq!(released.value.write.past.status, Status::Released);
    assert_eq!(hub.value("a").await, (shown("1"), 1));
    let again = hub.api.release_held(&caller, first, DecideOptions::default()).await.unwrap();
    assert_eq!(again.value.write.past.settled, released.value.write.past.settled);
    assert_eq!(hub.value("a").await.1, 1, "once");
    assert_eq!(hub.api.drop_held(&caller, first).await.unwrap_err().kind, ErrorKind::Conflict);

    let second = hub.held_id(blind(2, "a", of_edge("2"), ahead())).await;
    let dropped = hub.api.drop_held(&caller, second).await.unwrap();
    assert_eq!(dropped.write.past.status, Status::Dropped);
    assert_eq!(&*dropped.write.past.settled.unwrap().by, "token:writer");
    let refused = hub.api.release_held(&caller, second, DecideOptions::default()).await.unwrap_err();
    assert_eq!((refused.kind, &refused.details["status"]), (ErrorKind::Conflict, &"dropped".into()));
    assert!(hub.api.held(&caller, ALL).await.unwrap().rows.is_empty());
    assert_eq!(hub.value("a").await, (shown("1"), 1));
}

#[tokio::test]
async fn a_held_write_replaces_a_secret_only_when_that_is_said() {
    let hub = hub().await;
    let caller = writer_call().caller;
    hub.set(target("s", "production"), secret("sk-1"), None).await.unwrap();
    let id = hub.held_id(blind(1, "s", of_edge("1"), Hlc(5))).await;
    let refused = hub.api.release_held(&caller, id, DecideOptions::default()).await.unwrap_err();
    assert_eq!((refused.kind, &refused.details["field"]), (ErrorKind::Unprocessable, &"secret".into()));
    assert_eq!(hub.value("s").await, (Shown::Masked, 1));
    let options = DecideOptions { over_secret: true, ..DecideOptions::default() };
    hub.api.release_held(&caller, id, options).await.unwrap();
    assert_eq!(hub.value("s").await, (shown("1"), 2));
}

#[tokio::test]
async fn a_policy_is_set_by_administrators_and_holds_below() {
    let hub = hub().await;
    let app = || Namespace::parse("app").unwrap();
    let hub_wins = Some(ConflictPolicy::HubWins);
    let writer = writer_call().caller;
    let refused = hub.api.set_policy(&writer, app(), hub_wins).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Forbidden);
    hub.api.set_policy(&call(Role::Admin).caller, app(), hub_wins).await.unwrap();
    let below = hub.api.policy(&writer, Namespace::parse("app/llm").unwrap()).await.unwrap();
    assert_eq!((below.policy, below.set_in), (ConflictPolicy::HubWins, Some(app())));
    hub.set(target("k", "production"), plain("1"), None).await.unwrap();
    let late = Hlc::from_physical(UnixMillis(clock::now().0 + 100));
    let verdict = hub.upload(blind(1, "k", of_edge("2"), late)).await;
    assert_eq!(verdict, Verdict::Lost { version: 2, to: 1 });
    let unset = hub.api.set_policy(&call(Role::Admin).caller, app(), None).await.unwrap();
    assert_eq!((unset.policy, unset.set_in), (ConflictPolicy::LastWriteWins, None));
    let verdict = hub.upload(blind(2, "k", of_edge("3"), late)).await;
    assert_eq!(verdict, Verdict::Admitted { version: 3 });
}

#[tokio::test]
async fn followers_hear_of_held_writes_and_of_conflicts_also_again_after_a_lost_connection() {
    let hub = hub().await;
    let follow = async |after| {
        let request = Follow { subtree: None, environment: None, after };
        hub.api.events(&writer_call(), request).await.unwrap()
    };
    let mut live = follow(None).await;
    let id = hub.lost(of_edge("\"edge\"")).await;
    let Some(Told::Change(change)) = live.next().await else { panic!("a change") };
    let Some(Told::Conflict(clash)) = live.next().await else { panic!("a conflict") };
    assert_eq!((clash.conflict, clash.winner_version, clash.loser_version), (Some(id), Some(1), 2));
    assert_eq!(
        (clash.winner.as_deref(), clash.loser.as_deref()),
        (Some("token:writer"), Some("edge:kiosk/uid:0"))
    );
    hub.held_id(blind(8, "k", of_edge("2"), ahead())).await;
    let Some(Told::Held(held)) = live.next().await else { panic!("a held write") };
    assert!(held.at.key.as_str() == "k" && held.reason.contains("ahead"), "{held:?}");
    let told_until = Vector::at(change.dot.shard, change.dot.position);
    let mut resumed = follow(Some(told_until)).await;
    let Some(Told::Conflict(again)) = resumed.next().await else { panic!("the conflict again") };
    assert_eq!(again.conflict, Some(id));
}
