//! `llm-config-hub home`: which region decides about tokens, edges, environments and policies, and making this one decide.

use llm_config_shared::store::JournalError;

use crate::clock;
use crate::journal::Database;
use crate::journal::dialect::Dialect;
use crate::registry::{Fleet as _, HomeKnown};

/// Says who the home is; with `take`, makes this region the home first. Hubs may be running.
///
/// # Errors
/// When the database cannot be used.
pub async fn perform<D: Dialect>(
    database: &Database<D>,
    take: bool,
    say: impl Fn(&str),
) -> Result<(), JournalError> {
    let before = database.home().await?;
    if take && !before.is_here() {
        say(&told(&database.take_home().await?));
        say(&format!(
            "the region {} hears of it when it is reached again; until then it goes on deciding for itself: end it, if it still \
             runs",
            before.home.region.0
        ));
        return Ok(());
    }
    // Where two were made the home at once, taking it again decides between them.
    let known = if take { database.take_home().await? } else { before };
    say(&told(&known));
    Ok(())
}

fn told(known: &HomeKnown) -> String {
    let HomeKnown { region, home, address, heard_at } = known;
    if known.is_here() {
        return format!("home: this region ({}), chosen {} time(s)", region.0, home.term);
    }
    let address = address.as_deref().unwrap_or("never reached from here");
    let age = heard_at.map_or_else(
        || "nothing was copied from it yet".to_owned(),
        |at| format!("copied {} s ago", clock::now().0.saturating_sub(at.0) / 1_000),
    );
    format!("home: region {} ({address}), chosen {} time(s); {age}", home.region.0, home.term)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use llm_config_shared::store::Journal as _;
    use llm_config_shared::store::fleet::Home;
    use llm_config_shared::vector::ShardId;
    use uuid::Uuid;

    use super::*;
    use crate::journal::SqliteJournal;

    #[tokio::test]
    async fn the_home_is_told_and_taken() {
        let folder = tempfile::tempdir().unwrap();
        let database = SqliteJournal::open(&folder.path().join("hub.sqlite")).await.unwrap();
        database.migrate().await.unwrap();
        database.lead(1, ShardId(Uuid::from_u128(1))).await.unwrap();
        let said = RefCell::new(Vec::new());
        let say = |line: &str| said.borrow_mut().push(line.to_owned());
        perform(&database, false, say).await.unwrap();
        assert!(said.borrow()[0].starts_with("home: this region"), "{said:?}");

        let other = Home { region: ShardId(Uuid::from_u128(2)), term: 5 };
        assert!(database.follow_home(other).await.unwrap());
        assert!(!database.follow_home(Home { term: 4, ..other }).await.unwrap(), "an older one");
        perform(&database, false, say).await.unwrap();
        assert!(said.borrow()[1].contains("never reached from here"), "{said:?}");
        perform(&database, true, say).await.unwrap();
        assert!(said.borrow()[2].contains("this region") && said.borrow()[2].contains("6 time"), "{said:?}");
    }
}
