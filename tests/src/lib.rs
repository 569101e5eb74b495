//! What black-box tests need: the real programs as processes, a plain HTTP client, and waiting for conditions.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

pub mod bao;
pub mod edge;
pub mod history;
pub mod http;
pub mod hub;
pub mod keychain;
#[cfg(feature = "kms")]
pub mod kms;
pub mod machine;
pub mod postgres;
pub mod powercut;
pub mod process;
pub mod proxy;
pub mod scratch;
mod server;
pub mod strace;
pub mod thief;
pub mod wait;
pub mod webhook;
pub mod workload;

/// How much the tests do, from `LLM_CONFIG_TEST_SIZE`: `tests/run` sets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Size {
    Fast,
    Ci,
    Long,
}

impl Size {
    /// The size of this run; fast when nothing is said.
    ///
    /// # Panics
    /// On a word that is no size.
    pub fn of_run() -> Self {
        match std::env::var("LLM_CONFIG_TEST_SIZE").as_deref() {
            Ok("fast") | Err(_) => Self::Fast,
            Ok("ci") => Self::Ci,
            Ok("long") => Self::Long,
            Ok(other) => panic!("LLM_CONFIG_TEST_SIZE={other}: fast, ci or long"),
        }
    }

    /// One of three numbers.
    pub fn pick<T>(self, fast: T, ci: T, long: T) -> T {
        match self {
            Self::Fast => fast,
            Self::Ci => ci,
            Self::Long => long,
        }
    }
}
