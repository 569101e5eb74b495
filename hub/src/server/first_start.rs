//! The first tenant and the first administrator's token.

use std::path::PathBuf;

use llm_config_shared::access::Role;
use llm_config_shared::name::Tenant;
use ring::rand::SystemRandom;
use uuid::Uuid;

use super::ServerError;
use crate::clock;
use crate::config::Config;
use crate::data_directory::write_private;
use crate::identity::api_token;
use crate::registry::{ApiToken, Registry};

/// What was there, and what was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirstStart {
    /// False when there was a tenant before.
    pub made_tenant: bool,
    /// The file with an administrator's token.
    pub token_file: PathBuf,
    /// False when the file was there.
    pub made_token: bool,
}

/// Makes the tenant if there is none, and an administrator's token if its file is not there and, with `again`, also for
/// a tenant that existed.
///
/// # Errors
/// When the database or the file system refuses.
pub async fn first_start<S: Registry>(
    store: &S,
    config: &Config,
    tenant: &Tenant,
    again: bool,
) -> Result<FirstStart, ServerError> {
    let token_file = config.data_directory().join("admin.token");
    let made_tenant = store.tenants().await?.is_empty() && store.create_tenant(tenant, clock::now()).await?;
    // A crash between the two leaves a tenant that nobody can enter: then there is no token either.
    let unusable = made_tenant || store.tokens(tenant).await?.is_empty();
    let made_token = unusable || (again && !token_file.exists());
    if made_token {
        let (text, hash) =
            api_token::generate(&SystemRandom::new()).map_err(|_| ServerError::NoRandomness)?;
        let token = ApiToken {
            id: Uuid::now_v7(),
            tenant: tenant.clone(),
            name: "admin".to_owned(),
            hash,
            role: Role::Admin,
            created_at: clock::now(),
            created_by: "llm-config-hub".to_owned(),
            expires_at: None,
        };
        // The file first: a token that nobody can read would look like one that was given out.
        write_private(&token_file, &format!("{}\n", *text))?;
        store.add_token(&token).await?;
    }
    Ok(FirstStart { made_tenant, token_file, made_token })
}
