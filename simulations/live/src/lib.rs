//! The product with real sockets and real processes: what the quickstart and the benchmarks are made of.

pub mod api;
pub mod bench;
pub mod catalogue;
pub mod measure;
pub mod process;
pub mod proxy;
pub mod report;
pub mod story;
