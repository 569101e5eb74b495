//! What a caller hears when a secret cannot be had.

use llm_config_proto::rest::error::ApiError;

use crate::secrets::SecretError;

impl From<SecretError> for ApiError {
    fn from(error: SecretError) -> Self {
        if let SecretError::Journal(error) = error {
            return error.into();
        }
        tracing::error!(%error, "a secret could not be opened");
        Self::internal("the secret cannot be opened; the hub's log says why")
    }
}
