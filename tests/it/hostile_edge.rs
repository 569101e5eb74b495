//! An edge that speaks the protocol but not the truth: it has a good certificate and claims what is not its own.

mod rogue;

use std::collections::BTreeSet;

use bytes::Bytes;
use llm_config_proto::join_token::JoinToken;
use llm_config_proto::possession;
use llm_config_proto::sync::{
    Asker, Client, Dial, HubsClient, PassedRequest, RefusalKind, RenewRequest, SyncError,
};
use llm_config_shared::entry::{Author, ChangeId};
use llm_config_shared::feed::{Environments, Feed};
use llm_config_shared::name::{EntryKey, Environment, Key, Namespace, Scope, Subtree, Tenant};
use llm_config_shared::newer::Taken;
use llm_config_shared::replication::admit::Upload;
use llm_config_shared::replication::frame::{EdgeFrame, Hello, HubFrame, PROTOCOL, Refusal, Request};
use llm_config_shared::segment;
use llm_config_shared::stamp::{ActorId, Hlc, WriteId};
use llm_config_shared::time::UnixMillis;
use llm_config_shared::value::Value;
use llm_config_shared::vector::{Position, Vector};
use llm_config_shared::write::{Action, Denial, HeldReason, Verdict, Write};
use llm_config_tests::http::entry;
use llm_config_tests::hub::Hub;
use llm_config_tests::scratch::Scratch;
use rogue::{Keys, Rogue, SEALING_KEY, join_request, stranger};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use uuid::Uuid;

const WORLD: &str = "app";

fn place(tenant: &str, environment: &str, namespace: &str, key: &str) -> EntryKey {
    EntryKey {
        scope: Scope {
            tenant: Tenant::parse(tenant).unwrap(),
            environment: Environment::parse(environment).unwrap(),
            namespace: Namespace::parse(namespace).unwrap(),
        },
        key: Key::parse(key).unwrap(),
    }
}

fn write(actor: ActorId, counter: u64, hlc: Hlc, at: EntryKey) -> Write {
    Write {
        id: WriteId { actor, incarnation: 1, counter },
        hlc,
        claimed_hlc: None,
        at,
        action: Action::Set { value: Value::parse("\"forged\"").unwrap(), tags: None, description: None },
        author: Author { name: "token:admin".into(), claimed: None },
        made_at: UnixMillis(0),
        message: None,
        change: ChangeId(Uuid::from_u128(u128::from(counter))),
        context: Vector::EMPTY,
        without_secrets: false,
        base: None,
    }
}

/// A hub with one entry in production of `app`, and another tenant with one too.
async fn hub_with_two_tenants(scratch: &Scratch) -> (Hub, llm_config_tests::http::Client) {
    let hub = Hub::dev(scratch).await;
    let admin = hub.client();
    admin.post("/api/v1/tenants", json!({"name": "rival"})).await.expect(200);
    let body = json!({"name": "rival", "role": "admin", "tenant": "rival"});
    let token = admin.post("/api/v1/tokens", body).await.expect(200)["token"].as_str().unwrap().to_owned();
    let rival = hub.anonymous().with_token(&token);
    for client in [&admin, &rival] {
        client.put(&entry(WORLD, "k"), json!({"value": "theirs", "env": "production"})).await.expect(200);
    }
    admin
        .put(&entry(WORLD, "dev"), json!({"value": "sk", "env": "development", "secret": true}))
        .await
        .expect(200);
    (hub, rival)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_is_what_the_hub_wrote_and_needs_the_keys_own_signature() {
    let scratch = Scratch::new("rogue-identity");
    let hub = Hub::dev(&scratch).await;
    let token = hub.open_token("rogue").await;
    let parsed = JoinToken::parse(&token).unwrap();
    let (keys, other) = (Keys::new(), Keys::new());
    let mut client = Client::connect(&stranger(&hub, &parsed)).await.unwrap();
    let refused = client.enroll(join_request(&parsed, &keys, &other, None)).await;
    assert!(matches!(refused, Err(SyncError::Refused(_))), "somebody else's key: {refused:?}");
    let rogue = Rogue::enrol(&hub, &token).await;
    assert_eq!(
        (rogue.reply.name.as_str(), rogue.reply.tenant.as_str()),
        ("rogue", "default"),
        "not what it asked for"
    );
    let mut anonymous = Client::connect(&stranger(&hub, &parsed)).await.unwrap();
    let (_send, frames) = mpsc::channel(1);
    let refused = anonymous.stream(ReceiverStream::new(frames)).await.err();
    let Some(SyncError::Refused(refusal)) = refused else {
        panic!("a stream without a certificate: {refused:?}")
    };
    assert_eq!(refusal.kind, RefusalKind::Unauthenticated);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_renewed_only_for_the_enrolled_key_and_a_nonce_is_good_once() {
    let scratch = Scratch::new("rogue-renew");
    let hub = Hub::dev(&scratch).await;
    let victim = Rogue::enrol(&hub, &hub.open_token("victim").await).await;
    let rogue = Rogue::enrol(&hub, &hub.open_token("rogue").await).await;
    let mut client = Client::connect(&Dial { identity: None, ..rogue.dial.clone() }).await.unwrap();
    let edge = victim.reply.edge;
    let nonce = client.challenge(edge).await.unwrap().nonce;
    let request = |keys: &Keys, nonce: &Bytes| RenewRequest {
        edge,
        nonce: nonce.clone(),
        sealing_key: SEALING_KEY.to_vec().into(),
        proof: keys.sign(&possession::renew_message(nonce, edge.0, &SEALING_KEY)),
    };
    let stolen = client.renew(request(&rogue.keys, &nonce)).await;
    assert!(matches!(stolen, Err(SyncError::Refused(_))), "with another key: {stolen:?}");
    let invented = Bytes::from(vec![7; nonce.len()]);
    let replay = client.renew(request(&victim.keys, &invented)).await;
    assert!(matches!(replay, Err(SyncError::Refused(_))), "with a nonce of its own: {replay:?}");
    let nonce = client.challenge(edge).await.unwrap().nonce;
    client.renew(request(&victim.keys, &nonce)).await.unwrap();
    let again = client.renew(request(&victim.keys, &nonce)).await;
    assert!(matches!(again, Err(SyncError::Refused(_))), "the same nonce again: {again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_edge_may_not_write_is_denied_and_changes_nothing() {
    let scratch = Scratch::new("rogue-write");
    let (mut hub, rival) = hub_with_two_tenants(&scratch).await;
    let rogue = Rogue::of_production(&hub).await;
    let mut session = rogue.session(Vector::EMPTY).await;
    let welcome = session.welcome().await;
    let own = rogue.reply.edge;
    let far = Hlc::from_physical(UnixMillis(welcome.physical.0 + 3_600_000));
    let writes = vec![
        write(own, 1, welcome.hlc, place("default", "production", WORLD, "k")),
        write(own, 2, welcome.hlc, place("rival", "production", "edges/rogue", "k")),
        write(own, 3, welcome.hlc, place("default", "nowhere", "edges/rogue", "k")),
        write(own, 4, far, place("default", "production", "edges/rogue", "far")),
        write(own, 5, welcome.hlc, place("default", "production", "edges/rogue", "good")),
    ];
    let answers = session.upload(1, writes).await;
    let verdicts: Vec<_> = answers.into_iter().map(|answer| answer.verdict).collect();
    assert!(matches!(verdicts[0], Verdict::Denied(Denial::Namespace)), "{verdicts:?}");
    assert!(matches!(verdicts[1], Verdict::Denied(_)), "{verdicts:?}");
    assert!(matches!(verdicts[2], Verdict::Denied(Denial::Environment)), "{verdicts:?}");
    assert!(matches!(verdicts[3], Verdict::Held(HeldReason::ClockAhead)), "{verdicts:?}");
    assert_eq!(verdicts[4], Verdict::Admitted { version: 1 });

    let value = |client: llm_config_tests::http::Client, path: String| async move { client.get(&path).await };
    let kept = value(hub.client(), entry(WORLD, "k") + "?env=production").await.expect(200);
    assert_eq!((&kept["value"], &kept["version"]), (&json!("theirs"), &json!(1)));
    value(rival.clone(), entry("edges/rogue", "k") + "?env=production").await.refusal(404);
    value(rival, entry("edges/rogue", "k") + "/history?env=production").await.refusal(404);
    let good = value(hub.client(), entry("edges/rogue", "good") + "?env=production").await.expect(200);
    let author = good["metadata"]["created_by"].as_str().unwrap();
    assert!(author.starts_with("edge:rogue"), "the hub names the author, not the edge: {author}");
    assert_eq!(hub.process().ended(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_cannot_write_in_the_name_of_another() {
    let scratch = Scratch::new("rogue-actor");
    let hub = Hub::dev(&scratch).await;
    let victim = Rogue::enrol(&hub, &hub.open_token("victim").await).await;
    let rogue = Rogue::enrol(&hub, &hub.open_token("rogue").await).await;
    let mut session = rogue.session(Vector::EMPTY).await;
    let welcome = session.welcome().await;
    let forged = write(victim.reply.edge, 1, welcome.hlc, place("default", "production", WORLD, "forged"));
    session.say(EdgeFrame::Upload { batch: 1, writes: vec![forged] }).await;
    let outcome = session
        .hear(|frame| match frame {
            HubFrame::UploadResult { answers, .. } => {
                Some(answers.iter().all(|a| matches!(a.verdict, Verdict::Denied(_))))
            }
            HubFrame::Refused { .. } => Some(true),
            _ => None,
        })
        .await;
    assert!(outcome, "it was taken");
    hub.client().get(&(entry(WORLD, "forged") + "?env=production")).await.refusal(404);
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_an_edge_subscribes_to_it_is_sent_its_own_feeds_alone() {
    let scratch = Scratch::new("rogue-feeds");
    let (hub, _rival) = hub_with_two_tenants(&scratch).await;
    let rogue = Rogue::of_production(&hub).await;
    let mut session = rogue.session(Vector::EMPTY).await;
    let welcome = session.welcome().await;
    let feed = |tenant: &str, environment: &str, subtree: &str| Feed {
        tenant: Tenant::parse(tenant).unwrap(),
        environment: Environment::parse(environment).unwrap(),
        subtree: Subtree::parse(subtree).unwrap(),
        secrets: true,
    };
    let greedy = [
        feed("rival", "production", WORLD),
        feed("default", "development", WORLD),
        feed("default", "production", ""),
    ];
    session
        .say(EdgeFrame::Subscribe {
            feeds: greedy.map(|feed| (feed, Vector::EMPTY)).to_vec(),
            held: Vec::new(),
        })
        .await;
    let keys = rogue.verification();
    let mut sent = BTreeSet::new();
    loop {
        let frame = session.frames.next().await.unwrap().unwrap();
        match frame {
            HubFrame::Segment { bytes, .. } => {
                let segment = segment::verify(&bytes, &keys).unwrap();
                sent.insert(segment.header().feed.clone());
            }
            HubFrame::End { .. } => break,
            HubFrame::Refused { refusal, .. } => panic!("{refusal}"),
            _ => {}
        }
    }
    assert!(!sent.is_empty());
    let own: BTreeSet<_> = welcome.feeds.iter().cloned().collect();
    assert!(sent.is_subset(&own), "{sent:?}");
    assert!(own.iter().all(|feed| feed.tenant.as_str() == "default"));
    let secrets: BTreeSet<_> =
        own.iter().filter(|feed| feed.secrets).map(|feed| feed.environment.to_string()).collect();
    assert_eq!(secrets, BTreeSet::from(["base".to_owned(), "production".to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vector_ahead_of_the_hub_is_refused_and_the_hub_goes_on() {
    let scratch = Scratch::new("rogue-ahead");
    let (mut hub, _rival) = hub_with_two_tenants(&scratch).await;
    let rogue = Rogue::of_production(&hub).await;
    let welcome = rogue.session(Vector::EMPTY).await.welcome().await;
    let head = welcome.head.get(welcome.shard).unwrap();
    let ahead = Position { epoch: head.epoch, seq: head.seq + 1_000_000 };
    let other_history = Position { epoch: head.epoch ^ 1, seq: 1 };
    for position in [ahead, other_history] {
        let mut session = rogue.session(Vector::at(welcome.shard, position)).await;
        let refusal = session.refusal().await;
        assert!(matches!(refusal, Refusal::Ahead | Refusal::Behind), "{refusal}");
    }
    rogue.session(welcome.head.clone()).await.welcome().await;
    assert_eq!(hub.process().ended(), None);
}

/// It says that it saw more than the backup holds, and makes up what that was.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_edge_makes_up_after_a_restore_is_nobodys_value_until_a_person_says_so() {
    let scratch = Scratch::new("rogue-restore");
    let hub = Hub::dev(&scratch).await;
    let rogue = Rogue::of_production(&hub).await;
    let place = |namespace: &str| place("default", "production", namespace, "k");
    hub.client().put(&entry("app", "k"), json!({"value": 1, "env": "production"})).await.expect(200);
    let (backup, key) = hub.back_up(&scratch).await;
    let old = rogue.session(Vector::EMPTY).await.welcome().await;
    let hub = hub.restored(&scratch, &backup, &key, "accept").await;

    let (shard, position) = old.head.iter().next().unwrap();
    let beyond = Position { seq: position.seq + 9, ..position };
    let mut session = rogue.session(Vector::at(shard, beyond)).await;
    let welcome = session.welcome().await;
    assert!(welcome.takes_newer && welcome.lost_history.is_some());
    let now = welcome.head.get(shard).unwrap().epoch;
    let by_hub = |epoch: u64, counter: u64, namespace: &str| {
        let id = WriteId { actor: ActorId(shard.0), incarnation: epoch, counter };
        Write { id, ..write(rogue.reply.edge, counter, welcome.hlc, place(namespace)) }
    };
    let writes = vec![
        by_hub(position.epoch, 5_001, "app"),
        by_hub(position.epoch, 5_002, "elsewhere"),
        by_hub(now, 1, "app"),
        write(rogue.reply.edge, 1, welcome.hlc, place("app")),
        write(rogue.reply.edge, 2, welcome.hlc, place("edges/rogue")),
    ];
    session.say(EdgeFrame::HandIn { batch: 1, writes }).await;
    let taken = session
        .hear(|frame| if let HubFrame::Taken { taken, .. } = frame { Some(*taken) } else { None })
        .await;
    assert_eq!(taken, Taken { held: 2, refused: 2, admitted: 1, ..Taken::default() });
    let shown = hub.client().get(&(entry("app", "k") + "?env=production")).await.expect(200);
    assert_eq!(shown["value"], 1, "it may not write there: {shown}");
    let held = hub.client().get("/api/v1/held").await.expect(200);
    for row in held.as_array().unwrap() {
        assert!(row["created_by"].as_str().unwrap().starts_with("edge:rogue"), "{row}");
    }
    // The name that was still to be given is given as if nothing had been.
    hub.client().put(&entry("app", "k"), json!({"value": 2, "env": "production"})).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_beyond_the_limits_or_out_of_order_end_the_session_only() {
    let scratch = Scratch::new("rogue-frames");
    let (mut hub, _rival) = hub_with_two_tenants(&scratch).await;
    let rogue = Rogue::of_production(&hub).await;
    let mut session = rogue.session(Vector::EMPTY).await;
    let welcome = session.welcome().await;
    let at = || place("default", "production", "edges/rogue", "k");
    let backwards =
        vec![write(rogue.reply.edge, 2, welcome.hlc, at()), write(rogue.reply.edge, 1, welcome.hlc, at())];
    session.say(EdgeFrame::Upload { batch: 1, writes: backwards }).await;
    assert!(matches!(session.refusal().await, Refusal::Protocol(_)));

    let mut session = rogue.session(Vector::EMPTY).await;
    session.welcome().await;
    session
        .say(EdgeFrame::Hello(Hello {
            protocol: PROTOCOL,
            incarnation: 1,
            session: 2,
            floor: Vector::EMPTY,
            pending: 0,
        }))
        .await;
    assert!(matches!(session.refusal().await, Refusal::Protocol(_)));

    let mut session = rogue.session(Vector::EMPTY).await;
    session.welcome().await;
    let request = Request {
        method: "POST".into(),
        target: "/api/v1/configs/bulk".into(),
        body: vec![b' '; 5 << 20].into(),
        caller: "uid:0".into(),
    };
    session.say(EdgeFrame::Call { id: 1, request }).await;
    let ended = loop {
        match session.frames.next().await {
            None | Some(Err(_) | Ok(HubFrame::Refused { .. })) => break true,
            Some(Ok(HubFrame::Reply { response, .. })) => break response.status == 413,
            Some(Ok(_)) => {}
        }
    };
    assert!(ended, "five megabytes in one message");
    rogue.session(Vector::EMPTY).await.welcome().await;
    assert_eq!(hub.process().ended(), None);
    assert!(!hub.log().contains("panicked"), "{}", hub.process().tail());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forwarded_request_may_no_more_than_its_edge() {
    let scratch = Scratch::new("rogue-call");
    let (hub, _rival) = hub_with_two_tenants(&scratch).await;
    let rogue = Rogue::of_production(&hub).await;
    let mut session = rogue.session(Vector::EMPTY).await;
    session.welcome().await;
    let calls = [
        ("GET", "/api/v1/configs/other/k?env=production"),
        ("GET", "/api/v1/configs/app/dev?env=development&reveal=true"),
        ("GET", "/api/v1/configs/app/dev/history?env=development&reveal=true"),
        ("PUT", "/api/v1/configs/app/k"),
        ("DELETE", "/api/v1/configs/app/k?env=production"),
        ("POST", "/api/v1/tokens"),
        ("POST", "/api/v1/join-tokens"),
        ("GET", "/api/v1/tokens"),
        ("DELETE", "/api/v1/edges/rogue"),
        ("GET", "/api/v1/tenants"),
    ];
    for (id, (method, target)) in (1..).zip(calls) {
        let body = match method {
            "PUT" => r#"{"value":1,"env":"production"}"#,
            "POST" if target.ends_with("join-tokens") => r#"{"name":"x"}"#,
            "POST" if target.ends_with("join-tokens") => {
                r#"{"name":"x","namespaces":["app"],"environments":["production"]}"#
            }
            "POST" => r#"{"name":"x","role":"admin"}"#,
            _ => "",
        };
        let request = Request {
            method: method.into(),
            target: target.into(),
            body: body.into(),
            caller: "uid:0".into(),
        };
        session.say(EdgeFrame::Call { id, request }).await;
        let response = session
            .hear(|frame| match frame {
                HubFrame::Reply { id: number, response } if *number == id => Some(response.clone()),
                _ => None,
            })
            .await;
        assert!(
            matches!(response.status, 403 | 404),
            "{method} {target}: {} {:?}",
            response.status,
            response.body
        );
    }
    let kept = hub.client().get(&(entry(WORLD, "k") + "?env=production")).await.expect(200);
    assert_eq!(kept["value"], "theirs");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_cannot_ask_what_only_the_hubs_own_processes_may() {
    let scratch = Scratch::new("edge-as-hub");
    let (hub, _rival) = hub_with_two_tenants(&scratch).await;
    let rogue = Rogue::of_production(&hub).await;
    // As an upload of whatever edge, with whatever rights; and as a request of another edge's caller.
    let upload = Upload {
        edge: rogue.reply.edge,
        tenant: Tenant::parse("rival").unwrap(),
        write: vec![Subtree::ALL],
        feeds: vec![],
        environments: Environments::standard(),
        session: 1,
        first: true,
        writes: vec![write(rogue.reply.edge, 1, Hlc(1), place("rival", "production", WORLD, "k"))],
    };
    let request = PassedRequest {
        method: "PUT".into(),
        target: entry(WORLD, "k").into(),
        body: json!({"value": "forged", "env": "production"}).to_string().into(),
        asker: Asker::Edge { edge: rogue.reply.edge, caller: "uid:0".into() },
        from_region: false,
    };
    let from_region = PassedRequest { from_region: true, ..request.clone() };
    for identity in [rogue.dial.identity.clone(), None] {
        let mut client = HubsClient::connect(&Dial { identity, ..rogue.dial.clone() }).await.unwrap();
        // Nor as a region that reads the tables of all tenants.
        let errors = [
            client.admit(&upload).await.err(),
            client.pass(request.clone()).await.err(),
            client.pass(from_region.clone()).await.err(),
            client.fleet(0).await.err(),
        ];
        for error in errors {
            let Some(SyncError::Refused(refusal)) = error else { panic!("{error:?}") };
            assert_eq!(refusal.kind, RefusalKind::Unauthenticated);
        }
    }
    let read = hub.client().get(&format!("{}?env=production", entry(WORLD, "k"))).await;
    assert_eq!(read.expect(200)["value"], "theirs");
}
