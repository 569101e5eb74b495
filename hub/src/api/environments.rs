//! A tenant's environments: which there are, and which inherits from which.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use llm_config_proto::rest::error::ApiError;
use llm_config_proto::rest::service::Caller;
use llm_config_shared::access::Permission;
use llm_config_shared::feed::Environments;
use llm_config_shared::name::{Environment, Tenant};
use llm_config_shared::store::{Journal, JournalError};

use super::Api;
use crate::guard;
use crate::registry::{Registry, SetEnvironmentError};

/// Another process may have changed them: so long it is not noticed.
const BELIEVED: Duration = Duration::from_secs(1);

type Known = HashMap<Tenant, (Arc<Environments>, Instant)>;

/// Environments read lately, so that not every request asks the database.
#[derive(Default)]
pub(super) struct KnownEnvironments(Mutex<Known>);

impl KnownEnvironments {
    /// The tenant's environments; read anew when `wanted` is not among the known ones.
    pub(super) async fn of(
        &self,
        registry: &impl Registry,
        tenant: &Tenant,
        wanted: &Environment,
    ) -> Result<Arc<Environments>, JournalError> {
        if let Some((known, at)) = self.lock().get(tenant)
            && at.elapsed() <= BELIEVED
            && known.contains(wanted)
        {
            return Ok(Arc::clone(known));
        }
        let read = Arc::new(registry.environments(tenant).await?);
        self.lock().insert(tenant.clone(), (Arc::clone(&read), Instant::now()));
        Ok(read)
    }

    fn forget(&self, tenant: &Tenant) {
        self.lock().remove(tenant);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.0.lock().expect("nothing panics while it holds this lock")
    }
}

impl<S: Journal + Registry> Api<S> {
    pub(super) async fn all_environments(&self, caller: &Caller) -> Result<Environments, ApiError> {
        guard::may(caller, Permission::Read)?;
        Ok(self.parts.store.environments(&caller.tenant).await?)
    }

    pub(super) async fn put_environment(
        &self,
        caller: &Caller,
        environment: &Environment,
        parent: Option<&Environment>,
    ) -> Result<Environments, ApiError> {
        guard::may(caller, Permission::Administer)?;
        let set = self.parts.store.set_environment(&caller.tenant, environment, parent).await;
        let environments = set.map_err(|error| match error {
            SetEnvironmentError::Invalid(invalid) => ApiError::from(invalid),
            SetEnvironmentError::Journal(error) => error.into(),
        })?;
        self.environments.forget(&caller.tenant);
        let parent = parent.map(Environment::as_str);
        tracing::info!(caller = %caller.name, tenant = %caller.tenant, %environment, parent, "an environment was set");
        self.parts.roster.recheck();
        Ok(environments)
    }
}
