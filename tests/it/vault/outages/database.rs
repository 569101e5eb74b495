//! The database of a hub on Vault is away, alone or together with Vault.

use llm_config_tests::http::Answer;
use llm_config_tests::wait::eventually;
use sqlx::{Connection as _, PgConnection};

use super::super::{at, set_secret};
use super::{Reading, Stand};

/// The database takes nothing: writes are refused with when to come back, and edges go on.
async fn is_down(stand: &Stand) {
    stand.hub.anonymous().until("/health/ready", |answer| answer.status == 503).await;
    let refused = set_secret(&stand.hub.client(), "key", "development", "sk-2").await;
    refused.refusal(503);
    assert!(refused.header("retry-after").is_some(), "{}", refused.text());
}

/// It is back, and nothing else was needed.
async fn is_up(stand: &mut Stand) {
    stand.hub.anonymous().until("/health/ready", |answer| answer.status == 200).await;
    // Ready is who can read; the lead in writing is taken again a moment later.
    eventually("writes are taken again", async || {
        let answer = set_secret(&stand.hub.client(), "key", "development", "sk-1").await;
        if answer.status == 503 { Err(answer.text()) } else { Ok(answer.expect(200)) }
    })
    .await;
    assert_eq!(stand.hub.process().ended(), None, "one process all the time");
}

async fn reads_go_on(stand: &Stand, reading: &Reading) {
    let before = reading.so_far();
    stand.edge.client().until(&at("k", "development"), |_| reading.so_far() > before + 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn edges_notice_nothing_of_a_database_that_is_killed_or_paused() {
    let mut stand = Stand::up("postgres-away").await;
    let reading = Reading::begin(stand.edge.client());
    stand.cluster.stop();
    is_down(&stand).await;
    reads_go_on(&stand, &reading).await;
    stand.cluster.resume();
    is_up(&mut stand).await;
    stand.cluster.pause();
    is_down(&stand).await;
    reads_go_on(&stand, &reading).await;
    stand.cluster.unpause();
    is_up(&mut stand).await;
    reading.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn edges_notice_nothing_of_a_database_that_has_too_many_connections() {
    let (bao, cluster, scratch) = Stand::beneath("postgres-full").await;
    let settings = bao.tables(&scratch).await;
    let url = cluster.database().as_str().to_owned();
    let mut administrator = PgConnection::connect(&url).await.unwrap();
    let mut order = async |statement: &'static str| {
        sqlx::query(statement).execute(&mut administrator).await.unwrap();
    };
    // The limit is one of roles that are no superusers.
    order("CREATE ROLE hub LOGIN").await;
    order("GRANT ALL ON SCHEMA public TO hub").await;
    let own = url.replace("postgres://app@", "postgres://hub@");
    let mut stand = Stand::on(scratch, bao, cluster, &own, &settings).await;
    let reading = Reading::begin(stand.edge.client());
    order("ALTER ROLE hub CONNECTION LIMIT 0").await;
    order("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'hub'").await;
    is_down(&stand).await;
    reads_go_on(&stand, &reading).await;
    order("ALTER ROLE hub CONNECTION LIMIT -1").await;
    is_up(&mut stand).await;
    reading.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn edges_notice_nothing_of_a_vault_and_a_database_that_are_away_at_once() {
    let stand = Stand::up("both-away").await;
    let reading = Reading::begin(stand.edge.client());
    for way in ["stopped", "paused"] {
        stand.bao.seal().await;
        if way == "stopped" {
            stand.cluster.stop()
        } else {
            stand.cluster.pause()
        }
        let down = |answer: &Answer| answer.status == 503;
        stand.hub.anonymous().until("/health/ready", down).await;
        reads_go_on(&stand, &reading).await;
        if way == "stopped" {
            stand.cluster.resume()
        } else {
            stand.cluster.unpause()
        }
        let ready = |answer: &Answer| answer.status == 200;
        stand.hub.anonymous().until("/health/ready", ready).await;
        stand.holds("staging", "Vault is sealed").await;
        stand.bao.unseal().await;
        let healthy = |answer: &Answer| answer.status == 200 && answer.json()["status"] == "healthy";
        stand.hub.anonymous().until("/health", healthy).await;
    }
    reading.end().await;
}
