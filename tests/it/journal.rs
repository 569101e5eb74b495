//! One suite that every journal passes, and every registry: SQLite and PostgreSQL give the same answers, and so does the
//! journal that the simulated worlds run on.

use std::sync::Arc;

use llm_config_hub::journal::{PostgresJournal, SqliteJournal};
use llm_config_simulations::journal::SimJournal;

mod backup;
mod book;
mod decisions;
mod feeds;
mod fleet;
mod head;
mod keys;
mod listing;
mod past;
mod processes;
mod purge;
mod refusals;
mod registry;
mod secrets;
mod storage;
mod uses;

/// An empty journal on a SQLite file that goes with it.
struct OnSqlite {
    journal: Arc<SqliteJournal>,
    _folder: tempfile::TempDir,
}

async fn on_sqlite() -> OnSqlite {
    let folder = tempfile::tempdir().unwrap();
    let journal = SqliteJournal::open(&folder.path().join("hub.sqlite")).await.unwrap();
    journal.migrate().await.unwrap();
    OnSqlite { journal: Arc::new(journal), _folder: folder }
}

/// An empty journal in a PostgreSQL database of its own.
async fn on_postgres() -> Arc<PostgresJournal> {
    let url = tokio::task::spawn_blocking(llm_config_tests::postgres::database).await.unwrap();
    let journal = PostgresJournal::open(url.as_str()).await.unwrap();
    journal.migrate().await.unwrap();
    Arc::new(journal)
}

/// Each case takes an empty journal. Those of `databases` need a registry as well, and ask for it in their bounds.
macro_rules! suite {
    (
        journals { $($module:ident { $($case:ident),* $(,)? })* }
        databases { $($more:ident { $($other:ident),* $(,)? })* }
    ) => {
        suite! { @databases $($module { $($case),* })* $($more { $($other),* })* }

        mod simulated {
            $($(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    super::$module::$case(&std::sync::Arc::new(super::SimJournal::new())).await;
                }
            )*)*
        }
    };
    (@databases $($module:ident { $($case:ident),* })*) => {
        mod sqlite {
            $($(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    let on = super::on_sqlite().await;
                    super::$module::$case(&on.journal).await;
                }
            )*)*
        }

        mod postgres {
            $($(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    let journal = super::on_postgres().await;
                    super::$module::$case(&journal).await;
                    journal.close().await;
                }
            )*)*
        }
    };
}

suite! {
    journals {
        head {
            each_leadership_appends_an_epoch,
            two_that_create_the_shard_agree,
            commits_move_the_head_without_gaps,
            one_of_two_commits_at_the_same_place_is_fenced,
            frontiers_and_answers_are_kept,
            planning_finds_what_there_is,
        }
        refusals {
            a_leader_of_an_earlier_epoch_is_fenced,
            a_database_that_was_set_back_is_noticed,
            a_write_id_is_taken_once,
            places_are_dense,
            a_count_that_differs_from_the_plan_aborts,
        }
        feeds {
            any_position_gives_the_latest_of_each_key,
            feeds_end_at_the_borders_of_segments,
            quiet_scopes_are_not_read,
            a_snapshot_holds_whole_commits_only,
            a_large_commit_is_one,
        }
        listing {
            entries_come_back_in_the_order_asked,
            lists_are_in_the_order_of_bytes,
            pages_join_without_gap_or_repetition,
            prefixes_are_taken_literally,
            what_was_deleted_is_not_listed,
        }
        past {
            history_is_paged_newest_first,
            a_version_is_found_once_admitted,
            a_write_that_lost_later_says_so,
            changes_hold_their_writes,
            what_was_brought_back_is_found_in_its_own_change_and_in_that_of_the_loss,
            conflicts_and_held_writes_are_of_their_tenant,
            events_follow_the_order_of_commits,
        }
        purge {
            old_deletions_become_stubs_and_raise_the_horizon,
            the_oldest_are_purged_first_and_so_many,
            who_does_not_lead_purges_nothing,
            below_the_horizon_a_feed_is_read_whole,
            stubs_are_raised_and_replaced,
            a_change_of_a_stub_that_is_not_there_aborts,
        }
        decisions {
            conflicts_are_found_by_id_and_state,
            a_decision_is_taken_once,
            held_writes_are_found_by_their_id,
            conflicts_are_followed_in_order,
            planning_finds_what_is_decided_about,
        }
    }
    databases {
        uses {
            what_a_file_says_counts_unless_the_edge_was_heard_later,
        }
        registry {
            tenants_are_created_once,
            environments_refuse_a_circle,
            policies_are_of_their_tenant_and_inherited,
            tokens_are_found_by_their_hash,
            edges_are_listed_removed_and_touched,
            wrapped_keys_and_roots_stay_what_they_were_first,
            grants_are_recorded_once,
            what_was_the_same_on_both_sides_is_kept_for_each_source,
        }
        keys {
            a_join_token_is_used_once,
            the_same_key_is_answered_again,
            a_token_that_ran_out_is_refused,
            names_of_edges_are_not_shared,
            a_token_of_many_uses_numbers_its_edges,
            one_use_is_not_taken_twice_at_once,
        }
        processes {
            only_the_newest_leadership_says_where_it_is,
            each_hears_of_the_edges_of_others_that_spoke_lately,
        }
        backup {
            what_was_backed_up_comes_back_on_either_database,
            a_damaged_backup_changes_nothing,
            the_recovery_key_is_shown_once,
        }
        fleet {
            another_region_ends_with_the_same,
            an_older_copy_revives_nothing,
            of_two_edges_of_one_name_the_later_homes_has_it,
            a_row_that_is_none_is_refused,
        }
        secrets {
            a_secret_opens_after_a_restart,
            an_edge_opens_what_it_was_granted_and_nothing_else,
            a_new_key_epoch_shuts_old_keys_out,
            keys_that_are_old_are_replaced_once,
            a_database_knows_its_keyring,
        }
    }
}
