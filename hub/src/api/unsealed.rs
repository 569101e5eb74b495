//! What a caller hears when a secret cannot be had.

use llm_config_proto::rest::error::ApiError;

use crate::secrets::SecretError;

impl From<SecretError> for ApiError {
    fn from(error: SecretError) -> Self {
        if let SecretError::Journal(error) = error {
            return error.into();
        }
        if let Some(after) = error.retry_after_s() {
            tracing::warn!(%error, "a key of secrets cannot be had now");
            return Self::unavailable(format!("secrets whose keys are not in memory wait: {error}"), after)
                .detail("reason", "key_provider");
        }
        tracing::error!(%error, "a secret could not be opened");
        Self::internal("the secret cannot be opened; the hub's log says why")
    }
}
