//! What edges said that they use, in sessions and in files.

use std::sync::Arc;

use llm_config_hub::journal::Database;
use llm_config_hub::journal::dialect::Dialect;
use llm_config_hub::registry::{Consumer, Registry as _, Said, Uses as _};
use llm_config_shared::time::UnixMillis;

use super::book::{Book, NOW, at, plain, tenant};
use super::registry::{join_token, joined};

pub(super) async fn what_a_file_says_counts_unless_the_edge_was_heard_later(
    journal: &Arc<Database<impl Dialect>>,
) {
    let mut book = Book::begin(&**journal).await;
    book.put(&at("app", "k1"), plain("1"));
    book.commit(&**journal).await;
    journal.create_tenant(&tenant("acme"), NOW).await.unwrap();
    let token = join_token(1, "kiosk", 1);
    journal.add_join_token(&token).await.unwrap();
    let edge = joined(&**journal, &token, 1).await.id;
    let says = async |version: u64, said: Said| {
        let uses = vec![(at("app", "k1"), version)];
        let consumer = Consumer { name: "agent".into(), lasting: false, uses };
        journal.report_uses(edge, false, &[consumer], said).await.unwrap();
        let uses = journal.uses_of(&[at("app", "k1")]).await.unwrap();
        assert_eq!(uses.len(), 1, "{uses:?}");
        (uses[0].version, journal.edge(edge).await.unwrap().unwrap().last_seen_at)
    };
    let time = |ms: u64| UnixMillis(NOW.0 + ms);
    assert_eq!(says(1, Said::Carried(time(10))).await, (1, Some(time(10))));
    assert_eq!(says(2, Said::Now(time(20))).await, (2, Some(time(20))));
    assert_eq!(
        says(1, Said::Carried(time(19))).await,
        (2, Some(time(20))),
        "it was heard while the file was taken in"
    );
    journal.touch_edge_carried(edge, time(19), 7).await.unwrap();
    assert_eq!(journal.edge(edge).await.unwrap().unwrap().acked_seq, 0);
    journal.touch_edge_carried(edge, time(21), 7).await.unwrap();
    assert_eq!(journal.edge(edge).await.unwrap().unwrap().acked_seq, 7);
    assert_eq!(says(3, Said::Carried(time(21))).await, (3, Some(time(21))), "the same file");
    assert_eq!(says(4, Said::Now(time(5))).await, (4, Some(time(21))), "the hub's clock was set back");
}
