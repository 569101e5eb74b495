//! What namespaces do with concurrent writes: read by everybody, set by administrators.

use llm_config_proto::rest::conflicts::PolicyInfo;
use llm_config_proto::rest::error::ApiError;
use llm_config_proto::rest::service::Caller;
use llm_config_shared::access::Permission;
use llm_config_shared::limits::POLICIES_MAX;
use llm_config_shared::name::Namespace;
use llm_config_shared::policy::{ConflictPolicy, Policies};
use llm_config_shared::store::Journal;

use super::Api;
use crate::guard;
use crate::registry::{Registry, SetPolicyError};

fn info(caller: &Caller, namespace: Namespace, policies: &Policies) -> PolicyInfo {
    let source = policies.source(&caller.tenant, &namespace);
    let policy = source.map_or_else(ConflictPolicy::default, |(_, policy)| policy);
    let set_in = source.map(|(top, _)| top.clone());
    PolicyInfo { namespace, policy, set_in }
}

impl<S: Journal + Registry> Api<S> {
    pub(super) async fn policy_of(
        &self,
        caller: &Caller,
        namespace: Namespace,
    ) -> Result<PolicyInfo, ApiError> {
        guard::may_read_all(caller)?;
        Ok(info(caller, namespace, &self.parts.store.policies(&caller.tenant).await?))
    }

    /// Writes that are decided from now on are decided so; what was decided stays.
    pub(super) async fn put_policy(
        &self,
        caller: &Caller,
        namespace: Namespace,
        policy: Option<ConflictPolicy>,
    ) -> Result<PolicyInfo, ApiError> {
        guard::may(caller, Permission::Administer)?;
        let set = self.parts.store.set_policy(&caller.tenant, &namespace, policy).await;
        let policies = set.map_err(|error| match error {
            SetPolicyError::TooMany => {
                ApiError::unprocessable(error.to_string()).detail("limit", POLICIES_MAX)
            }
            SetPolicyError::Journal(error) => error.into(),
        })?;
        let policy = policy.map(ConflictPolicy::as_str);
        tracing::info!(caller = %caller.name, tenant = %caller.tenant, %namespace, policy, "a policy was set");
        Ok(info(caller, namespace, &policies))
    }
}
