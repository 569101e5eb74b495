//! `[secrets.azure_keyvault]`. The variables that Azure's own tools read stand in for what is left out.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::Table;
use crate::secrets::cloud::{AzureIdentity, AzureSettings};
use crate::secrets::vault::{Credential, Hidden};

/// Who gives tokens for Azure.
const LOGIN: &str = "https://login.microsoftonline.com";

/// What is missing or wrong is a problem; none then.
pub(super) fn read(mut table: Table<'_>, variables: &BTreeMap<String, String>) -> Option<AzureSettings> {
    const FORM: &str = "https://VAULT.vault.azure.net/keys/NAME";
    let variable = |name: &str| variables.get(name).filter(|value| !value.is_empty()).cloned();
    let key = table.required("key", FORM);
    if key.as_deref().is_some_and(|key| !is_key(key)) {
        table.problem("key", &format!("must be like {FORM}, without a version"));
    }
    let previous_keys = table.previous_keys(is_key, FORM);
    let authority = table.address("authority").or_else(|| variable("AZURE_AUTHORITY_HOST"));
    let authority = authority.unwrap_or_else(|| LOGIN.to_owned());
    if !authority.starts_with("https://") {
        table.problem("authority", "must begin with https://");
    }
    let identity = read_identity(&mut table, &variable);
    let (ca_cert, timeout) = (table.file("ca_cert", None), table.timeout());
    Some(AzureSettings { key: key?, previous_keys, identity: identity?, authority, ca_cert, timeout })
}

fn read_identity(table: &mut Table<'_>, variable: &impl Fn(&str) -> Option<String>) -> Option<AzureIdentity> {
    let tenant = table.word("tenant").or_else(|| variable("AZURE_TENANT_ID"));
    let client_id = table.word("client_id").or_else(|| variable("AZURE_CLIENT_ID"));
    let secret_file =
        table.settings.text(&table.key("client_secret_file")).map(|path| table.directory.join(path));
    let token_file = table.settings.text(&table.key("federated_token_file"));
    let token_file = token_file.map(|path| table.directory.join(path));
    if secret_file.is_some() && token_file.is_some() {
        table.problem("client_secret_file", "is there beside federated_token_file; one of them has to go");
        return None;
    }
    // What hub.toml names wins over what the environment has.
    let in_file = secret_file.is_some() || token_file.is_some();
    let secret = match secret_file {
        Some(path) => Some(Credential::File(path)),
        None if in_file => None,
        None => variable("AZURE_CLIENT_SECRET").map(|text| Credential::Text(Hidden::new(text))),
    };
    let token_file = match token_file {
        Some(path) => Some(path),
        None if secret.is_some() => None,
        None => variable("AZURE_FEDERATED_TOKEN_FILE").map(PathBuf::from),
    };
    if secret.is_none() && token_file.is_none() {
        return Some(AzureIdentity::Machine { client_id });
    }
    for (name, given) in [("tenant", &tenant), ("client_id", &client_id)] {
        if given.is_none() {
            let example =
                format!("the application's, or set AZURE_{}_ID", name.trim_end_matches("_id").to_uppercase());
            table.settings.required(&table.key(name), &example);
        }
    }
    let (tenant, client_id) = (tenant?, client_id?);
    Some(match (secret, token_file) {
        (Some(secret), _) => AzureIdentity::Application { tenant, client_id, secret },
        (None, Some(token_file)) => AzureIdentity::Workload { tenant, client_id, token_file },
        (None, None) => AzureIdentity::Machine { client_id: Some(client_id) },
    })
}

/// `https://HOST/keys/NAME`: tokens go there, so nothing but TLS.
fn is_key(url: &str) -> bool {
    let Some((host, name)) = url.strip_prefix("https://").and_then(|rest| rest.split_once("/keys/")) else {
        return false;
    };
    let is_host = host.parse::<http::uri::Authority>().is_ok_and(|host| !host.as_str().contains('@'));
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    // As the cloud writes it, so that it is known again.
    is_host && host == host.to_lowercase() && !name.is_empty() && name.len() <= 127 && name.bytes().all(fine)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::settings::Settings;

    const KEY: &str = "key = \"https://v.vault.azure.net/keys/hub\"\n";

    /// What was read, and the keys of the problems.
    fn read_with(table: &str, pairs: &[(&str, &str)]) -> (Option<AzureSettings>, Vec<String>) {
        let variables = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let text = format!("[secrets.azure_keyvault]\n{table}");
        let mut settings = Settings::read(&text, "LLM_CONFIG_HUB_", &BTreeMap::new()).unwrap();
        let table = Table::new(&mut settings, Path::new("/etc/hub"), "azure_keyvault", ("kms-azure", true));
        let azure = read(table, &variables);
        let problems = settings.finish().err().map(|error| error.problems).unwrap_or_default();
        let mut keys: Vec<_> = problems
            .into_iter()
            .filter_map(|problem| Some(problem.key.rsplit_once('.')?.1.to_owned()))
            .collect();
        keys.sort();
        (azure, keys)
    }

    fn identity(table: &str, pairs: &[(&str, &str)]) -> AzureIdentity {
        read_with(&format!("{KEY}{table}"), pairs).0.unwrap().identity
    }

    #[test]
    fn the_hub_is_the_machine_an_application_or_a_workload() {
        let who = [("AZURE_TENANT_ID", "t"), ("AZURE_CLIENT_ID", "c")];
        assert_eq!(identity("", &[]), AzureIdentity::Machine { client_id: None });
        assert_eq!(identity("", &who), AzureIdentity::Machine { client_id: Some("c".into()) });
        let (tenant, client_id) = ("t".to_owned(), "c".to_owned());
        let secret =
            [who[0], who[1], ("AZURE_CLIENT_SECRET", "hunter2"), ("AZURE_FEDERATED_TOKEN_FILE", "/f")];
        let application = identity("", &secret);
        assert!(!format!("{application:?}").contains("hunter2"));
        let text = Credential::Text(Hidden::new("hunter2".into()));
        let (of_secret, of_token) = ((tenant.clone(), client_id.clone()), (tenant, client_id));
        let (tenant, client_id) = of_secret;
        assert_eq!(application, AzureIdentity::Application { tenant, client_id, secret: text });
        // What the file says wins over the variables.
        let (tenant, client_id) = of_token;
        let workload = AzureIdentity::Workload { tenant, client_id, token_file: "/etc/hub/token".into() };
        assert_eq!(identity("federated_token_file = \"token\"", &secret), workload);
    }

    #[test]
    fn what_is_missing_or_wrong_is_told() {
        assert_eq!(read_with("", &[]).1, ["key"]);
        let both = format!("{KEY}client_secret_file = \"a\"\nfederated_token_file = \"b\"");
        assert_eq!(read_with(&both, &[]).1, ["client_secret_file"]);
        assert_eq!(read_with(&format!("{KEY}client_secret_file = \"a\""), &[]).1, ["client_id", "tenant"]);
        for wrong in [
            "http://v.vault.azure.net/keys/hub",
            "https://v.vault.azure.net/keys/hub/0123",
            "https://V.vault.azure.net/keys/hub",
            "https://v.vault.azure.net/secrets/hub",
            "https://a@v.vault.azure.net/keys/hub",
            "hub",
        ] {
            let table = format!("key = \"{wrong}\"\nauthority = \"http://127.0.0.1:1\"");
            assert_eq!(read_with(&table, &[]).1, ["authority", "key"], "{wrong}");
        }
    }
}
