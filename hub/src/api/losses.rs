//! For the day that an edge is lost: how long its secrets stay open without contact.

use llm_config_proto::rest::error::ApiError;
use llm_config_proto::rest::losses::{Answer, LossService, OfflineLimitInfo};
use llm_config_proto::rest::service::Caller;
use llm_config_shared::access::Permission;
use llm_config_shared::limits::{OFFLINE_LIMIT_MS_MAX, OFFLINE_LIMIT_MS_MIN, OFFLINE_LIMITS_MAX};
use llm_config_shared::name::Namespace;
use llm_config_shared::offline::OfflineLimits;
use llm_config_shared::store::Journal;

use super::Api;
use crate::guard;
use crate::registry::{Registry, SetPolicyError};

fn info(namespace: Namespace, limits: &OfflineLimits) -> OfflineLimitInfo {
    let limit_ms = limits.of(&namespace);
    let set_in = limits.source(&namespace).map(|(subtree, _)| subtree.clone());
    OfflineLimitInfo { namespace, limit_ms, set_in }
}

impl<S: Journal + Registry> LossService for Api<S> {
    async fn offline_limit(&self, caller: &Caller, namespace: Namespace) -> Answer<OfflineLimitInfo> {
        guard::may_read_all(caller)?;
        Ok(info(namespace, &self.parts.store.offline_limits(&caller.tenant).await?))
    }

    async fn set_offline_limit(
        &self,
        caller: &Caller,
        namespace: Namespace,
        limit_ms: Option<u64>,
    ) -> Answer<OfflineLimitInfo> {
        guard::may(caller, Permission::Administer)?;
        let range = OFFLINE_LIMIT_MS_MIN..=OFFLINE_LIMIT_MS_MAX;
        if limit_ms.is_some_and(|limit_ms| !range.contains(&limit_ms)) {
            let message = "limit must be from one second to 30 days";
            return Err(ApiError::unprocessable(message).detail("field", "limit"));
        }
        let set = self.parts.store.set_offline_limit(&caller.tenant, &namespace, limit_ms).await;
        let limits = set.map_err(|error| match error {
            SetPolicyError::TooMany => ApiError::unprocessable(format!(
                "{OFFLINE_LIMITS_MAX} namespaces have an offline limit of their own already, and no more are taken"
            ))
            .detail("limit", OFFLINE_LIMITS_MAX as u64),
            SetPolicyError::Journal(error) => error.into(),
        })?;
        tracing::info!(caller = %caller.name, tenant = %caller.tenant, %namespace, limit_ms, "an offline limit was set");
        self.parts.roster.recheck();
        Ok(info(namespace, &limits))
    }
}
