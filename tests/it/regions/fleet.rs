//! Regions are one fleet: tenants, tokens, edges, environments and policies that are made in one are there in the other.

use llm_config_tests::edge::try_join;
use llm_config_tests::process::run;
use llm_config_tests::wait::eventually;

use super::*;

const POLICY: &str = "/api/v1/namespaces/app/policy";
const LIMIT: &str = "/api/v1/namespaces/app/offline-limit";

/// An API token with an administrator's rights: its id, and a client that shows it.
struct Made {
    id: String,
    token: String,
}

impl Made {
    async fn by(client: &Client, name: &str) -> Self {
        let made = client.post("/api/v1/tokens", json!({"name": name, "role": "admin"})).await.expect(200);
        let text = |field: &str| made[field].as_str().unwrap().to_owned();
        Self { id: text("id"), token: text("token") }
    }

    fn at(&self, hub: &Hub) -> Client {
        hub.anonymous().with_token(&self.token)
    }

    async fn is_good_at(&self, hub: &Hub) {
        self.at(hub).until("/api/v1/tokens", |answer| answer.status == 200).await;
    }

    async fn is_refused_at(&self, hub: &Hub) {
        self.at(hub).until("/api/v1/tokens", |answer| answer.status == 401).await;
    }

    async fn remove(&self, client: &Client) {
        client.delete(&format!("/api/v1/tokens/{}", self.id)).await.expect(204);
    }
}

async fn begin(test: &str, databases: [String; 2]) -> Regions {
    let regions = Regions::begin(test, databases, async |_, _| {}).await;
    // The second has found the first.
    let [_, second] = regions.clients();
    second.until("/api/v1/regions", |answer| answer.json()["home"]["heard_at"].is_string()).await;
    regions
}

/// Joins at that region, whatever the token names, and does not run yet.
async fn join_at(regions: &Regions, hub: &Hub, name: &str, token: &str) -> llm_config_tests::process::Said {
    let address = format!("https://{}", hub.sync);
    try_join(&regions.scratch, name, token, &["--hub", &address]).await
}

async fn is_connected(client: &Client, edge: &str) {
    let connected = |answer: &Answer| answer.status == 200 && answer.json()["connected"] == true;
    client.until(&format!("/api/v1/edges/{edge}"), connected).await;
}

async fn is_removed(client: &Client, edge: &str) {
    let removed = |answer: &Answer| {
        let edge = answer.json();
        answer.status == 200 && edge["removed_at"].is_string() && edge["connected"] == false
    };
    client.until(&format!("/api/v1/edges/{edge}"), removed).await;
}

async fn home_is_here(client: &Client, here: bool) {
    client.until("/api/v1/regions", |answer| answer.json()["home"]["here"] == here).await;
}

async fn what_is_made_in_one_is_in_the_other(test: &str, databases: [String; 2]) {
    let regions = begin(test, databases).await;
    let [first, second] = regions.clients();
    home_is_here(&first, true).await;
    home_is_here(&second, false).await;

    // Whoever makes it reads it in the region where they made it, at once.
    let there = Made::by(&second, "of-second").await;
    there.at(&regions.second).get("/api/v1/tokens").await.expect(200);
    there.at(&regions.first).get("/api/v1/tokens").await.expect(200);
    Made::by(&first, "of-first").await.is_good_at(&regions.second).await;
    second.post("/api/v1/tenants", json!({"name": "acme"})).await.expect(200);
    second.put("/api/v1/environments/canary", json!({"parent": "production"})).await.expect(200);
    second.put(POLICY, json!({"conflicts": "hub_wins"})).await.expect(200);
    second.put(LIMIT, json!({"limit": "30m"})).await.expect(200);
    for client in [&first, &second] {
        let tenants = client.get("/api/v1/tenants").await.expect(200);
        assert!(tenants.as_array().unwrap().iter().any(|tenant| tenant["name"] == "acme"), "{tenants}");
        assert_eq!(client.get("/api/v1/environments/canary").await.expect(200)["parent"], "production");
        assert_eq!(client.get(POLICY).await.expect(200)["conflicts"], "hub_wins");
        assert_eq!(client.get(LIMIT).await.expect(200)["limit_seconds"], 1800.0);
    }
    first.delete(POLICY).await.expect(200);
    second.until(POLICY, |answer| answer.json()["conflicts"] == "last_write_wins").await;
    second.post("/api/v1/tenants", json!({"name": "acme"})).await.refusal(409);
    Client::tcp(regions.second.api)
        .post("/api/v1/tokens", json!({"name": "x", "role": "admin"}))
        .await
        .refusal(401);

    // One use is one use, wherever it is asked for.
    let token = regions.second.open_token("e1").await;
    try_join(&regions.scratch, "e1", &token, &[]).await.done();
    for (name, hub) in [("copy-1", &regions.first), ("copy-2", &regions.second)] {
        let said = join_at(&regions, hub, name, &token).await;
        assert!(said.code != 0 && said.err.contains("used"), "{}", said.err);
    }
    let mut edge = Edge::at(&regions.scratch, "e1");
    edge.start().await;
    set(&second, "k", 1).await.expect(200);
    edge.client().until_value(&path("k"), 1).await;
    // It came to the region that made its token, and the other knows that it is there and what it has.
    is_connected(&second, "e1").await;
    is_connected(&first, "e1").await;
    let change = set(&first, "k", 2).await;
    let change = change.header("x-config-change").unwrap().to_owned();
    first
        .until(&format!("/api/v1/changes/{change}/receipts"), |answer| {
            answer.json()["edges"]
                .as_array()
                .is_some_and(|edges| edges.iter().any(|edge| edge["delivered"] == true))
        })
        .await;

    // Removed in one region, it is cut off in the other.
    first.delete("/api/v1/edges/e1").await.expect(204);
    is_removed(&second, "e1").await;
    edge.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_made_in_one_region_is_in_the_other_on_sqlite() {
    what_is_made_in_one_is_in_the_other("fleet-sqlite", [sqlite("hub"), sqlite("second")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_made_in_one_region_is_in_the_other_on_postgresql_and_sqlite() {
    let database = format!("[database]\nurl = \"{}\"", postgres::database());
    what_is_made_in_one_is_in_the_other("fleet-postgres", [sqlite("hub"), database]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_link_is_cut_what_was_copied_goes_on_and_what_ends_ends_for_good() {
    let regions = begin("fleet-cut", [sqlite("hub"), sqlite("second")]).await;
    let [first, second] = regions.clients();
    let (kept, here, there) =
        (Made::by(&first, "kept").await, Made::by(&first, "here").await, Made::by(&first, "there").await);
    let edges = ["e1", "e2"].map(async |name| {
        let token = regions.first.open_token(name).await;
        join_at(&regions, &regions.second, name, &token).await.done();
        let mut edge = Edge::at(&regions.scratch, name);
        edge.start().await;
        is_connected(&second, name).await;
        edge
    });
    let [e1, e2] = edges;
    let (mut e1, mut e2) = (e1.await, e2.await);
    let late = regions.first.open_token("late").await;

    regions.cut();
    let refused = second.post("/api/v1/tokens", json!({"name": "new", "role": "reader"})).await.refusal(503);
    assert!(refused.contains("home region") && refused.contains("nothing was changed"), "{refused}");
    second.put(POLICY, json!({"conflicts": "reject"})).await.refusal(503);
    let said = join_at(&regions, &regions.second, "late", &late).await;
    assert!(said.code != 0 && said.err.contains("home region"), "{}", said.err);
    // What was copied is good here, and an edge comes back here.
    kept.is_good_at(&regions.second).await;
    e1.kill();
    e1.start().await;
    is_connected(&second, "e1").await;
    // What ends here ends here, though not there yet; and the other way round.
    here.remove(&second).await;
    here.is_refused_at(&regions.second).await;
    there.remove(&first).await;
    first.delete("/api/v1/edges/e1").await.expect(204);
    second.delete("/api/v1/edges/e2").await.expect(204);
    is_removed(&second, "e2").await;
    here.is_good_at(&regions.first).await;
    there.is_good_at(&regions.second).await;
    is_connected(&second, "e1").await;

    regions.heal();
    here.is_refused_at(&regions.first).await;
    there.is_refused_at(&regions.second).await;
    for edge in ["e1", "e2"] {
        is_removed(&first, edge).await;
        is_removed(&second, edge).await;
    }
    kept.is_good_at(&regions.second).await;
    eventually("the edge joins where the home is reached again", async || {
        let said = join_at(&regions, &regions.second, "late", &late).await;
        if said.code == 0 { Ok(()) } else { Err(said.err) }
    })
    .await;
    e1.kill();
    e2.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_home_that_is_gone_is_replaced_and_follows_when_it_comes_back() {
    let mut regions = begin("fleet-replaced", [sqlite("hub"), sqlite("second")]).await;
    let [first, second] = regions.clients();
    let kept = Made::by(&first, "kept").await;
    kept.is_good_at(&regions.second).await;
    regions.cut();
    regions.first.kill();
    second.put(LIMIT, json!({"limit": "30m"})).await.refusal(503);

    let config = regions.scratch.path("second.toml");
    let take = ["home".as_ref(), "--take".as_ref(), "--config".as_ref(), config.as_os_str()];
    let said = run("llm-config-hub", take).await.done();
    assert!(said.contains("home: this region"), "{said}");
    home_is_here(&second, true).await;
    let new = Made::by(&second, "new").await;
    second.put(LIMIT, json!({"limit": "30m"})).await.expect(200);
    kept.remove(&second).await;

    // The old home comes back and does not know of it: what it decides ends where the new one decided otherwise.
    regions.first.start().await;
    home_is_here(&first, true).await;
    let own = Made::by(&first, "own").await;
    first.put(LIMIT, json!({"limit": "40m"})).await.expect(200);
    kept.is_good_at(&regions.first).await;
    regions.heal();
    home_is_here(&first, false).await;
    assert!(regions.first.log().contains("another region decides"), "it says so");
    kept.is_refused_at(&regions.first).await;
    new.is_good_at(&regions.first).await;
    own.is_good_at(&regions.second).await;
    for client in [&first, &second] {
        client.until(LIMIT, |answer| answer.json()["limit_seconds"] == 1800.0).await;
    }
    // Changes go to the new home now.
    Made::by(&first, "by-first").await.at(&regions.second).get("/api/v1/tokens").await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_that_were_made_the_home_at_once_copy_nothing_until_one_is_chosen() {
    let regions = begin("fleet-two-homes", [sqlite("hub"), sqlite("second")]).await;
    let [first, second] = regions.clients();
    regions.cut();
    let take = async |config: &str| {
        let config = regions.scratch.path(config);
        let take = ["home".as_ref(), "--take".as_ref(), "--config".as_ref(), config.as_os_str()];
        run("llm-config-hub", take).await.done()
    };
    take("second.toml").await;
    take("hub.toml").await;
    let (of_first, of_second) = (Made::by(&first, "first").await, Made::by(&second, "second").await);
    regions.heal();
    for hub in [&regions.first, &regions.second] {
        eventually("it says that somebody has to choose", async || {
            if hub.log().contains("two regions are not one fleet") { Ok(()) } else { Err(()) }
        })
        .await;
    }
    assert_eq!(of_first.at(&regions.second).get("/api/v1/tokens").await.status, 401);

    take("hub.toml").await;
    home_is_here(&second, false).await;
    of_first.is_good_at(&regions.second).await;
    of_second.is_good_at(&regions.first).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_home_that_was_set_back_gets_back_what_it_lost_and_revives_nothing() {
    let mut regions = begin("fleet-restored", [sqlite("hub"), sqlite("second")]).await;
    let [first, second] = regions.clients();
    let old = Made::by(&first, "old").await;
    let token = regions.first.open_token("e1").await;
    join_at(&regions, &regions.first, "e1", &token).await.done();
    regions.first.stop();
    let database = regions.first.data().join("hub.sqlite");
    let kept = regions.scratch.path("old.sqlite");
    std::fs::copy(&database, &kept).unwrap();
    regions.first.start().await;

    old.remove(&first).await;
    first.delete("/api/v1/edges/e1").await.expect(204);
    let new = Made::by(&first, "new").await;
    new.is_good_at(&regions.second).await;
    is_removed(&second, "e1").await;

    regions.first.stop();
    for end in ["", "-wal", "-shm"] {
        let mut file = database.clone().into_os_string();
        file.push(end);
        drop(std::fs::remove_file(file));
    }
    std::fs::copy(&kept, &database).unwrap();
    regions.first.start().await;
    new.is_good_at(&regions.first).await;
    old.is_refused_at(&regions.first).await;
    is_removed(&first, "e1").await;
    old.is_refused_at(&regions.second).await;
    let said = join_at(&regions, &regions.first, "copy", &token).await;
    assert!(said.code != 0 && said.err.contains("used"), "{}", said.err);
    let after = Made::by(&second, "after").await;
    after.is_good_at(&regions.first).await;
    after.is_good_at(&regions.second).await;
}
