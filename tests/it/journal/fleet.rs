//! The tables that all regions keep, read from one database and taken over by another.

use std::sync::Arc;

use llm_config_hub::journal::dialect::Dialect;
use llm_config_hub::journal::whole::{Dumped, FilledAs};
use llm_config_hub::journal::{Database, PostgresJournal, SqliteJournal};
use llm_config_hub::registry::{ApiToken, Fleet, GrantRow, HomeKnown, Losses, Registry, TakenOver};
use llm_config_shared::access::Role;
use llm_config_shared::feed::Binding;
use llm_config_shared::name::{Namespace, Subtree};
use llm_config_shared::newer::Newer;
use llm_config_shared::policy::ConflictPolicy;
use llm_config_shared::stamp::ActorId;
use llm_config_shared::store::fleet::{FleetPage, Home, Kind};
use llm_config_shared::store::{Journal, JournalError};
use llm_config_shared::time::UnixMillis;
use llm_config_shared::vector::ShardId;
use uuid::Uuid;

use super::book::{NOW, tenant};
use super::registry::{edge_keys, edge_name, environment, join_token, joined};
use super::{OnSqlite, on_sqlite};

/// Makes it the database of a region.
async fn region(journal: &impl Journal, number: u128) {
    journal.lead(1, ShardId(Uuid::from_u128(number))).await.unwrap();
}

async fn another(number: u128) -> OnSqlite {
    let other = on_sqlite().await;
    region(&*other.journal, number).await;
    other
}

fn token(number: u8) -> ApiToken {
    ApiToken {
        id: Uuid::from_u128(number.into()),
        tenant: tenant("acme"),
        name: format!("token-{number}"),
        hash: [number; 32],
        role: Role::Reader,
        created_at: NOW,
        created_by: "test".into(),
        expires_at: number.is_multiple_of(2).then_some(UnixMillis(99)),
    }
}

/// Reads all that there is behind `read`.
async fn copy(from: &impl Fleet, to: &impl Fleet, read: &mut u64) -> TakenOver {
    let mut all = TakenOver::default();
    loop {
        let page = from.fleet_page(*read).await.unwrap();
        assert!(page.read >= *read);
        let more = page.more;
        *read = page.read;
        let taken = to.take_over_rows(page).await.unwrap();
        all.changed += taken.changed;
        all.dropped.extend(taken.dropped);
        if !more {
            return all;
        }
    }
}

async fn all_of(from: &impl Fleet) -> FleetPage {
    let page = from.fleet_page(0).await.unwrap();
    assert!(!page.more);
    page
}

pub(super) async fn another_region_ends_with_the_same(journal: &Arc<impl Journal + Registry>) {
    region(&**journal, 1).await;
    let other = another(2).await;
    let (acme, app) = (tenant("acme"), Namespace::parse("app/llm").unwrap());
    journal.create_tenant(&acme, NOW).await.unwrap();
    journal.set_environment(&acme, &environment("canary"), Some(&environment("production"))).await.unwrap();
    journal.set_policy(&acme, &app, Some(ConflictPolicy::Manual)).await.unwrap();
    journal.set_offline_limit(&acme, &app, Some(60_000)).await.unwrap();
    // More than a page, and edges before the last word about the token that let them in.
    for number in 1..=200 {
        journal.add_token(&token(number)).await.unwrap();
    }
    let let_in = join_token(1, "kiosk", 100);
    journal.add_join_token(&let_in).await.unwrap();
    let mut edges = Vec::new();
    for number in 1..=90 {
        edges.push(joined(&**journal, &let_in, number).await);
    }
    journal.remove_token(&acme, Uuid::from_u128(7)).await.unwrap();
    journal.remove_edge(&acme, &edges[0].name, NOW).await.unwrap();
    journal.set_sealing_key(edges[1].id, &[9; 32]).await.unwrap();
    let bound = Binding { namespaces: vec![Subtree::ALL], ..edges[2].binding.clone() };
    journal.bind_edge(&acme, &edges[2].name, &bound).await.unwrap();
    let grant = GrantRow {
        edge: edges[1].id,
        tenant: acme.clone(),
        environment: environment("production"),
        subtree: Subtree::parse("app/llm").unwrap(),
        key_epoch: 3,
        granted_at: NOW,
    };
    journal.record_grants(std::slice::from_ref(&grant)).await.unwrap();
    journal.record_grants(std::slice::from_ref(&grant)).await.unwrap();
    // What an edge acknowledged says nothing in another region's order.
    journal.touch_edges(&[(edges[1].id, NOW, 77)]).await.unwrap();

    let (mut read, copied) = (0, &other.journal);
    assert!(journal.fleet_page(0).await.unwrap().more, "it takes several pages");
    assert!(copy(&**journal, &**copied, &mut read).await.changed > 300);
    assert_eq!(copied.tenants().await.unwrap(), journal.tenants().await.unwrap());
    assert_eq!(copied.environments(&acme).await.unwrap(), journal.environments(&acme).await.unwrap());
    assert_eq!(copied.policies(&acme).await.unwrap(), journal.policies(&acme).await.unwrap());
    assert_eq!(copied.offline_limits(&acme).await.unwrap(), journal.offline_limits(&acme).await.unwrap());
    assert_eq!(copied.tokens(&acme).await.unwrap(), journal.tokens(&acme).await.unwrap());
    assert_eq!(copied.all_grants(&acme).await.unwrap(), [grant]);
    let mut here = journal.edges(&acme).await.unwrap();
    for edge in &mut here {
        (edge.last_seen_at, edge.acked_seq) = (None, 0);
    }
    assert_eq!(copied.edges(&acme).await.unwrap(), here);

    // Again, and the other way round, it changes nothing.
    assert_eq!(copy(&**journal, &**copied, &mut 0).await.changed, 0);
    assert_eq!(copy(&**copied, &**journal, &mut 0).await.changed, 0);
    let beyond = journal.fleet_page(read + 100).await.unwrap();
    assert_eq!((beyond.read, beyond.rows.len()), (read, 0), "whoever read more than there is, begins anew");
    journal.set_policy(&acme, &app, None).await.unwrap();
    assert_eq!(copy(&**journal, &**copied, &mut read).await.changed, 1, "only what is new");
    assert!(copied.policies(&acme).await.unwrap().source(&acme, &app).is_none());
}

pub(super) async fn an_older_copy_revives_nothing(journal: &Arc<impl Journal + Registry>) {
    region(&**journal, 1).await;
    let other = another(2).await;
    let (acme, app) = (tenant("acme"), Namespace::parse("app").unwrap());
    journal.create_tenant(&acme, NOW).await.unwrap();
    journal.add_token(&token(1)).await.unwrap();
    let let_in = join_token(1, "kiosk", 1);
    journal.add_join_token(&let_in).await.unwrap();
    journal.set_policy(&acme, &app, Some(ConflictPolicy::Manual)).await.unwrap();
    let before = all_of(&**journal).await;
    let edge = joined(&**journal, &let_in, 1).await;
    let with_edge = all_of(&**journal).await;
    other.journal.take_over_rows(with_edge.clone()).await.unwrap();

    // Ended in the copy, where the older word is read again and again; then it ends at the first as well.
    let copied = &other.journal;
    assert!(copied.remove_token(&acme, token(1).id).await.unwrap());
    assert!(copied.remove_edge(&acme, &edge.name, NOW).await.unwrap());
    journal.set_policy(&acme, &app, Some(ConflictPolicy::Reject)).await.unwrap();
    copied.take_over_rows(all_of(&**journal).await).await.unwrap();
    for older in [before.clone(), with_edge] {
        assert_eq!(copied.take_over_rows(older).await.unwrap().changed, 0);
    }
    // Nor does whoever says it later, as a region that has not heard of the end.
    let mut said_later = before.clone();
    for row in said_later.rows.iter_mut().filter(|row| row.kind == Kind::Token) {
        row.said.term = 9;
    }
    assert_eq!(copied.take_over_rows(said_later).await.unwrap().changed, 0);
    assert!(copied.tokens(&acme).await.unwrap().is_empty());
    assert_eq!(copied.edge(edge.id).await.unwrap().unwrap().removed_at, Some(NOW));
    journal.take_over_rows(all_of(&**copied).await).await.unwrap();
    assert!(journal.tokens(&acme).await.unwrap().is_empty());
    assert!(journal.edge_named(&acme, &edge.name).await.unwrap().is_none());

    // As if it was set back to before the edge: its one use is used.
    let restored = another(3).await;
    restored.journal.take_over_rows(before).await.unwrap();
    assert!(restored.journal.edges(&acme).await.unwrap().is_empty());
    restored.journal.take_over_rows(all_of(&**copied).await).await.unwrap();
    let again = super::registry::join(&*restored.journal, &let_in, 2).await;
    assert!(matches!(again, llm_config_hub::registry::JoinOutcome::Refused(_)), "{again:?}");
    assert!(restored.journal.tokens(&acme).await.unwrap().is_empty());
    assert_eq!(restored.journal.policies(&acme).await.unwrap(), journal.policies(&acme).await.unwrap());
}

pub(super) async fn of_two_edges_of_one_name_the_later_homes_has_it(journal: &Arc<impl Journal + Registry>) {
    region(&**journal, 1).await;
    let other = another(2).await;
    let acme = tenant("acme");
    journal.create_tenant(&acme, NOW).await.unwrap();
    let tokens = [join_token(1, "kiosk", 1), join_token(2, "kiosk", 1)];
    for token in &tokens {
        journal.add_join_token(token).await.unwrap();
    }
    copy(&**journal, &*other.journal, &mut 0).await;
    // Both are homes for a while, and the other one by a later choice.
    let mut home = other.journal.take_home().await.unwrap();
    assert!(home.is_here() && home.home.term == 2);
    let of_other = joined(&*other.journal, &tokens[1], 2).await;
    let of_first = joined(&**journal, &tokens[0], 1).await;
    assert_eq!(of_first.name, of_other.name);

    let taken = copy(&*other.journal, &**journal, &mut 0).await;
    assert_eq!(taken.dropped, ["kiosk"]);
    assert_eq!(copy(&**journal, &*other.journal, &mut 0).await.dropped, Vec::<String>::new());
    for edges in [journal.edges(&acme).await.unwrap(), other.journal.edges(&acme).await.unwrap()] {
        let ids: Vec<ActorId> = edges.iter().map(|edge| edge.id).collect();
        assert_eq!(ids, [of_other.id], "and nobody is told to destroy anything");
    }
    assert_eq!(edge_keys(2).public_key, of_other.public_key);
    assert_eq!(of_other.name, edge_name("kiosk"));

    assert!(journal.follow_home(home.home).await.unwrap());
    home = journal.home().await.unwrap();
    assert!(!home.is_here() && home.heard_at.is_none());
    journal.heard_home("https://10.0.0.1:8443", NOW).await.unwrap();
    let HomeKnown { address, heard_at, .. } = journal.home().await.unwrap();
    assert_eq!((address.as_deref(), heard_at), (Some("https://10.0.0.1:8443"), Some(NOW)));
}

pub(super) async fn a_row_that_is_none_is_refused(journal: &Arc<impl Journal + Registry>) {
    region(&**journal, 1).await;
    journal.create_tenant(&tenant("acme"), NOW).await.unwrap();
    journal.add_token(&token(1)).await.unwrap();
    let good = all_of(&**journal).await;
    let on = another(2).await;
    let other: &SqliteJournal = &on.journal;
    let broken = |change: fn(&mut llm_config_shared::store::fleet::FleetRow)| {
        let mut page = good.clone();
        change(page.rows.iter_mut().find(|row| row.kind == Kind::Token).unwrap());
        page
    };
    let pages = [
        broken(|row| row.id = hex(2)),
        broken(|row| drop(row.cells.as_mut().unwrap().pop())),
        broken(|row| row.cells.as_mut().unwrap().reverse()),
        broken(|row| row.kind = Kind::Tenant),
    ];
    for page in pages {
        assert!(other.take_over_rows(page).await.is_err());
    }
    assert!(other.tenants().await.unwrap().is_empty(), "nothing of such a page is taken");
    let nobody = Home { region: ShardId(Uuid::from_u128(9)), term: 1 };
    assert!(!other.follow_home(nobody).await.unwrap(), "of the same term as its own");
}

fn hex(number: u128) -> String {
    Uuid::from_u128(number).simple().to_string()
}

/// Fills `target` with everything of `journal` as it was before there was an order of the fleet's rows.
async fn as_before<D: Dialect, E: Dialect>(journal: &Database<D>, target: &Database<E>) {
    let mut all = Vec::new();
    let keep = |dumped| {
        all.push(dumped);
        Ok::<_, JournalError>(())
    };
    journal.snapshot().await.unwrap().read(keep).await.unwrap();
    let mut filling = target.begin_filling(23).await.unwrap();
    let (mut newer, mut later_column) = (false, None);
    for mut dumped in all {
        match &mut dumped {
            Dumped::Table(table) => {
                newer = table.name.starts_with("fleet_");
                later_column = table.columns.iter().position(|column| column.name == "returned_in");
                later_column.map(|at| table.columns.remove(at));
            }
            Dumped::Row(cells) => drop(later_column.map(|at| cells.remove(at))),
        }
        if !newer {
            filling.take(dumped).await.unwrap();
        }
    }
    filling.finish(NOW, FilledAs::Itself(Newer::Discard)).await.unwrap().commit().await.unwrap();
    target.migrate().await.unwrap();
}

async fn what_was_there_before_travels<D: Dialect>(target: &Database<D>) {
    let (on, acme, app) = (another(1).await, tenant("acme"), Namespace::parse("app/llm").unwrap());
    let journal = &on.journal;
    journal.create_tenant(&acme, NOW).await.unwrap();
    journal.set_policy(&acme, &app, Some(ConflictPolicy::Manual)).await.unwrap();
    journal.set_offline_limit(&acme, &app, Some(60_000)).await.unwrap();
    journal.add_token(&token(1)).await.unwrap();
    let let_in = join_token(1, "kiosk", 2);
    journal.add_join_token(&let_in).await.unwrap();
    let edges = [joined(&**journal, &let_in, 1).await, joined(&**journal, &let_in, 2).await];
    journal.remove_edge(&acme, &edges[0].name, NOW).await.unwrap();
    let grant = GrantRow {
        edge: edges[1].id,
        tenant: acme.clone(),
        environment: environment("production"),
        subtree: Subtree::ALL,
        key_epoch: 3,
        granted_at: NOW,
    };
    journal.record_grants(&[grant]).await.unwrap();

    as_before(journal, target).await;
    let rows = |page: FleetPage| {
        let mut rows: Vec<_> = page.rows.into_iter().map(|row| (row.kind, row.id, row.cells)).collect();
        rows.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
        rows.dedup();
        rows
    };
    let (before, after) = (rows(all_of(&**journal).await), rows(all_of(target).await));
    assert_eq!(before, after);
    // It goes on counting above them.
    let read = target.fleet_page(0).await.unwrap().read;
    target.add_token(&token(2)).await.unwrap();
    assert_eq!(
        target.fleet_page(read).await.unwrap().rows.iter().filter(|row| row.kind == Kind::Token).count(),
        1
    );
}

#[tokio::test]
async fn what_was_there_before_travels_from_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let target = SqliteJournal::open(&folder.path().join("hub.sqlite")).await.unwrap();
    what_was_there_before_travels(&target).await;
}

#[tokio::test]
async fn what_was_there_before_travels_from_postgresql() {
    let url = tokio::task::spawn_blocking(llm_config_tests::postgres::database).await.unwrap();
    let target = PostgresJournal::open(url.as_str()).await.unwrap();
    what_was_there_before_travels(&target).await;
    target.close().await;
}
