//! Which region decides about the tables that all regions keep.

use llm_config_proto::rest::admin::RegionsInfo;
use llm_config_proto::rest::error::ApiError;
use llm_config_proto::rest::service::Caller;
use llm_config_shared::access::Permission;
use llm_config_shared::store::Journal;

use super::Api;
use crate::registry::Registry;
use crate::{clock, guard};

impl<S: Journal + Registry> Api<S> {
    pub(super) async fn who_decides(&self, caller: &Caller) -> Result<RegionsInfo, ApiError> {
        guard::may(caller, Permission::Administer)?;
        let known = self.parts.store.home().await?;
        let heard_at = known.heard_at.filter(|_| !known.is_here());
        Ok(RegionsInfo {
            region: known.region.0,
            home: known.home.region.0,
            term: known.home.term,
            heard_at,
            age_ms: heard_at.map(|at| clock::now().0.saturating_sub(at.0)),
            address: known.address,
        })
    }
}
