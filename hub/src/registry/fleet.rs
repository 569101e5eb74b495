//! The tables that all regions keep, as they are copied from one to another.

use std::future::Future;

use llm_config_shared::store::JournalError;
use llm_config_shared::store::fleet::{FleetPage, Home};
use llm_config_shared::time::UnixMillis;
use llm_config_shared::vector::ShardId;

type Answer<T> = Result<T, JournalError>;

/// Who decides about the tables of the fleet, as far as this region knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HomeKnown {
    /// This region.
    pub region: ShardId,
    pub home: Home,
    /// Where the home was reached last: `https://HOST:PORT` of its sync port.
    pub address: Option<String>,
    /// When it was last heard that all that the home has is here.
    pub heard_at: Option<UnixMillis>,
}

impl HomeKnown {
    /// Whether this region decides.
    pub fn is_here(&self) -> bool {
        self.home.region == self.region
    }
}

/// What came of taking rows over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TakenOver {
    /// How many rows are not what they were.
    pub changed: u64,
    /// Edges that joined in two regions under one name: these ones have to join again.
    pub dropped: Vec<String>,
}

/// What regions read from one another beside entries. Every method is one transaction.
pub trait Fleet {
    /// Who decides.
    fn home(&self) -> impl Future<Output = Answer<HomeKnown>> + Send;
    /// Makes this region the home, from now on.
    fn take_home(&self) -> impl Future<Output = Answer<HomeKnown>> + Send;
    /// Another region is the home, of a later term than was known; whether that was news. Tokens that this region had made
    /// before there was a home of all, and kept to itself, end.
    fn follow_home(&self, home: Home) -> impl Future<Output = Answer<bool>> + Send;
    /// Everything that the home has is here.
    fn heard_home(&self, address: &str, now: UnixMillis) -> impl Future<Output = Answer<()>> + Send;
    /// The next rows of this region's order behind `after`.
    fn fleet_page(&self, after: u64) -> impl Future<Output = Answer<FleetPage>> + Send;
    /// Takes rows of another region over, where they count.
    fn take_over_rows(&self, page: FleetPage) -> impl Future<Output = Answer<TakenOver>> + Send;
}
