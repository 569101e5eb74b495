//! The whole system: on real sockets, real processes, real databases and real disks. One binary, so that it links once.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]
#![allow(clippy::wildcard_enum_match_arm, reason = "a test wants one answer among many")]

/// Runs each test on a hub of either database: they give the same answers.
macro_rules! on_both_databases {
    ($($test:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test(llm_config_tests::hub::Database::Sqlite).await;
            })+
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test(llm_config_tests::hub::Database::Postgres).await;
            })+
        }
    };
}

mod agent;
mod bad_input;
mod canaries;
mod carry;
mod clones;
mod confidentiality;
mod conflicts;
mod enrolment;
mod exec;
mod explain;
mod faults;
mod hostile_edge;
mod hubs;
mod journal;
mod keeper;
#[cfg(feature = "keychain")]
mod keychain;
mod kills;
#[cfg(feature = "kms")]
mod kms;
mod login;
mod long_absence;
mod lost;
mod memory;
mod newer;
mod offline_limit;
mod outage;
mod published_api;
mod published_bugs;
mod receipts;
mod regions;
mod render;
mod repair;
mod replica_store;
mod restore;
mod rotation;
mod sealing;
mod secrets;
mod space;
mod subscriptions;
mod theft;
mod tidy;
mod undo;
mod vault;
mod wiping;
