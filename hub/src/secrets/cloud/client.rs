//! The HTTP client of clouds that have no own one.

use std::path::Path;

use reqwest::{Certificate, Client, redirect};

use super::error::CloudError;
use crate::secrets::provider::ProviderKind;

/// One that goes where it was sent and nowhere else. How long anything may take is the gate's to say.
pub(super) fn client(provider: ProviderKind, ca_cert: Option<&Path>) -> Result<Client, CloudError> {
    let set_up = |what: String| CloudError::SetUp { provider, what };
    let mut builder = Client::builder().redirect(redirect::Policy::none());
    if let Some(path) = ca_cert {
        let pem = std::fs::read(path).map_err(|error| set_up(format!("{}: {error}", path.display())))?;
        let trusted = Certificate::from_pem_bundle(&pem).ok().filter(|trusted| !trusted.is_empty());
        let trusted = trusted.ok_or_else(|| set_up(format!("{} holds no certificate", path.display())))?;
        builder = builder.tls_certs_merge(trusted);
    }
    builder.build().map_err(|_| set_up("TLS is of no use".to_owned()))
}
