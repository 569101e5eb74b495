//! `[secrets]`: who holds the key-encryption key. The variables that Vault's own tools read stand in for keys that
//! hub.toml leaves out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::kms::Clouds;
use super::settings::Settings;
use super::{Database, Expiry, RotationSettings, expiry, kms, rotation};
use crate::secrets::cloud::{AwsSettings, AzureSettings, GcpSettings};
use crate::secrets::vault::{Credential, Hidden, VaultAuth, VaultSettings};
use crate::secrets::{Passphrase, ProviderKind};

/// Where Kubernetes puts the token of a pod's service account.
const KUBERNETES_JWT: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
/// Ways of logging in, with the keys that belong to each alone.
const AUTHS: [(&str, &[&str]); 4] = [
    ("token", &["token", "token_file"]),
    ("approle", &["role_id", "secret_id", "secret_id_file"]),
    ("kubernetes", &["jwt_file"]),
    ("cert", &["cert_file", "key_file"]),
];

/// `[secrets]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secrets {
    /// What wraps from now on. What another one wrapped is unwrapped by it for as long as its table is there.
    pub provider: ProviderKind,
    /// The file with the key that all other keys in the database lie under; also the folder of the files that the hub
    /// writes for people.
    pub keyring: PathBuf,
    /// What the keyring's file is sealed by.
    pub passphrase: Option<Passphrase>,
    /// The same in a file.
    pub passphrase_file: Option<PathBuf>,
    /// Whether the keyring's file is sealed by a key in the keychain of the user that the hub runs as.
    pub keychain: bool,
    pub vault: Option<VaultSettings>,
    pub aws_kms: Option<AwsSettings>,
    pub gcp_kms: Option<GcpSettings>,
    pub azure_keyvault: Option<AzureSettings>,
    pub expiry: Expiry,
    pub rotation: RotationSettings,
}

impl Secrets {
    /// A local keyring as it is.
    pub fn local(keyring: PathBuf) -> Self {
        Self {
            provider: ProviderKind::Local,
            keyring,
            passphrase: None,
            passphrase_file: None,
            keychain: false,
            vault: None,
            aws_kms: None,
            gcp_kms: None,
            azure_keyvault: None,
            expiry: Expiry::default(),
            rotation: RotationSettings::default(),
        }
    }
}

pub(super) fn read(
    settings: &mut Settings,
    directory: &Path,
    database: Option<&Database>,
    variables: &BTreeMap<String, String>,
) -> Secrets {
    let provider = read_provider(settings);
    let beside = match database {
        Some(Database::Sqlite(path)) => path.with_file_name("keyring"),
        Some(Database::Postgres(_)) | None => directory.join("keyring"),
    };
    let keyring = settings.text("secrets.local.keyring").map_or(beside, |path| directory.join(path));
    let passphrase_file = settings.text("secrets.local.passphrase_file").map(|path| directory.join(path));
    let passphrase = read_passphrase(settings, passphrase_file.is_some());
    let keychain = settings.flag("secrets.local.keychain").unwrap_or(false);
    let wanted = provider == ProviderKind::Vault || settings.has_table("secrets.vault");
    let vault = wanted.then(|| read_vault(settings, directory, variables)).flatten();
    let Clouds { aws_kms, gcp_kms, azure_keyvault } = kms::read(settings, directory, provider, variables);
    let (expiry, rotation) = (expiry::read(settings), rotation::read(settings, directory));
    Secrets {
        provider,
        keyring,
        passphrase,
        passphrase_file,
        keychain,
        vault,
        aws_kms,
        gcp_kms,
        azure_keyvault,
        expiry,
        rotation,
    }
}

fn read_provider(settings: &mut Settings) -> ProviderKind {
    const KINDS: [ProviderKind; 5] = [
        ProviderKind::Local,
        ProviderKind::Vault,
        ProviderKind::AwsKms,
        ProviderKind::GcpKms,
        ProviderKind::AzureKeyVault,
    ];
    let Some(named) = settings.text("secrets.provider") else { return ProviderKind::Local };
    let kind = KINDS.into_iter().find(|kind| kind.to_string() == named);
    kind.unwrap_or_else(|| {
        let known = KINDS.map(|kind| format!("{:?}", kind.to_string())).join(", ");
        settings.problem("secrets.provider", format!("{named:?} is not known; there are {known}"));
        ProviderKind::Local
    })
}

fn read_passphrase(settings: &mut Settings, in_a_file: bool) -> Option<Passphrase> {
    const KEY: &str = "secrets.local.passphrase";
    let text = settings.text(KEY)?;
    if in_a_file {
        settings
            .problem(KEY, "is there beside secrets.local.passphrase_file; one of them has to go".to_owned());
    }
    if !settings.is_from_variable(KEY) {
        let what = "does not belong into this file; put it into one of its own (passphrase_file) or into the variable";
        settings.problem(KEY, what.to_owned());
    }
    let passphrase = Passphrase::new(&text);
    if passphrase.is_none() {
        settings.problem(KEY, "is empty".to_owned());
    }
    passphrase
}

/// What is missing or wrong is a problem; none then.
fn read_vault(
    settings: &mut Settings,
    directory: &Path,
    variables: &BTreeMap<String, String>,
) -> Option<VaultSettings> {
    let environment = |name: &str| variables.get(name).filter(|value| !value.is_empty()).cloned();
    let addr = settings.text("secrets.vault.addr").or_else(|| environment("VAULT_ADDR"));
    let addr = addr.and_then(|addr| checked_address(settings, "secrets.vault.addr", addr));
    if addr.is_none() {
        settings.required("secrets.vault.addr", "https://HOST:8200, or set VAULT_ADDR");
    }
    let namespace = settings.text("secrets.vault.namespace").or_else(|| environment("VAULT_NAMESPACE"));
    let namespace = namespace.filter(|namespace| {
        let fine = !namespace.is_empty() && namespace.bytes().all(|byte| byte.is_ascii_graphic());
        if !fine {
            settings.problem("secrets.vault.namespace", "is no path".to_owned());
        }
        fine
    });
    let ca_cert = settings.text("secrets.vault.ca_cert").map(|path| directory.join(path));
    let ca_cert = ca_cert.or_else(|| environment("VAULT_CACERT").map(PathBuf::from));
    if let Some(path) = ca_cert.as_ref().filter(|path| !path.is_file()) {
        settings.problem("secrets.vault.ca_cert", format!("there is no file {}", path.display()));
    }
    let mount = name(settings, "secrets.vault.mount", "transit");
    let transit_key = name(settings, "secrets.vault.transit_key", "llm-config-hub");
    let create_key = settings.flag("secrets.vault.create_key").unwrap_or(false);
    let timeout = settings.number("secrets.vault.timeout_ms", 100..=10_000).unwrap_or(1_000);
    let (auth, auth_mount) = read_auth(settings, directory, &environment);
    Some(VaultSettings {
        addr: addr?,
        auth: auth?,
        auth_mount,
        namespace,
        ca_cert,
        mount,
        transit_key,
        create_key,
        timeout: Duration::from_millis(timeout),
    })
}

/// Beyond this machine a token must not travel in clear.
pub(super) fn checked_address(settings: &mut Settings, key: &str, addr: String) -> Option<String> {
    let uri = addr.parse::<http::Uri>().ok().filter(|uri| {
        let plain = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
        plain && uri.path() == "/" && uri.query().is_none()
    });
    let here = uri.as_ref().and_then(http::Uri::host).is_some_and(is_this_machine);
    match uri.as_ref().and_then(http::Uri::scheme_str) {
        Some("https") => return Some(addr),
        Some("http") if here => return Some(addr),
        Some("http") => settings.problem(
            key,
            "must begin with https:// unless it is on this machine: keys and tokens go there".to_owned(),
        ),
        _ => settings.problem(key, "must look like https://HOST:PORT".to_owned()),
    }
    None
}

/// Whether what is sent there stays on this machine.
pub(crate) fn is_this_machine(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// A path in Vault.
fn name(settings: &mut Settings, key: &str, default: &str) -> String {
    let name = settings.text(key).unwrap_or_else(|| default.to_owned());
    let fine = |part: &str| {
        !matches!(part, "" | "." | "..")
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    if !name.split('/').all(fine) || name.len() > 256 {
        settings.problem(key, "must be a path of letters, digits, '-', '_' and '.'".to_owned());
    }
    name
}

fn read_auth(
    settings: &mut Settings,
    directory: &Path,
    environment: &impl Fn(&str) -> Option<String>,
) -> (Option<VaultAuth>, String) {
    let kind = settings.text("secrets.vault.auth").unwrap_or_else(|| "token".to_owned());
    let given: BTreeMap<&str, String> = AUTHS
        .iter()
        .flat_map(|(_, keys)| *keys)
        .chain(&["role"])
        .filter_map(|key| settings.text(&format!("secrets.vault.{key}")).map(|text| (*key, text)))
        .collect();
    let Some((_, own)) = AUTHS.iter().find(|(name, _)| *name == kind) else {
        let what = format!("{kind:?} is not known; there are token, approle, kubernetes and cert");
        settings.problem("secrets.vault.auth", what);
        return (None, kind);
    };
    for (belongs_to, keys) in AUTHS.iter().filter(|(name, _)| *name != kind) {
        for key in keys.iter().filter(|key| given.contains_key(*key)) {
            let what = format!("belongs to auth = \"{belongs_to}\", and auth is {kind:?}");
            settings.problem(&format!("secrets.vault.{key}"), what);
        }
    }
    if given.contains_key("role") && matches!(kind.as_str(), "token" | "approle") {
        settings.problem("secrets.vault.role", format!("does not belong to auth = {kind:?}"));
    }
    let mount = name(settings, "secrets.vault.auth_mount", &kind);
    let mut auth = Auth { settings, directory, given, own };
    let auth = match kind.as_str() {
        "token" => auth.credential("token", environment("VAULT_TOKEN")).map(VaultAuth::Token),
        "approle" => {
            let role_id = auth.given.get("role_id").cloned().or_else(|| environment("VAULT_ROLE_ID"));
            if role_id.is_none() {
                auth.settings.required("secrets.vault.role_id", "the role's id, or set VAULT_ROLE_ID");
            }
            let secret_id = auth.credential("secret_id", environment("VAULT_SECRET_ID"));
            role_id
                .zip(secret_id)
                .map(|(role_id, secret_id)| VaultAuth::AppRole { role_id: Hidden::new(role_id), secret_id })
        }
        "kubernetes" => {
            let jwt_file = auth.path("jwt_file").unwrap_or_else(|| KUBERNETES_JWT.into());
            if !auth.given.contains_key("role") {
                auth.settings
                    .required("secrets.vault.role", "the role that the service account has in Vault");
            }
            auth.given.get("role").cloned().map(|role| VaultAuth::Kubernetes { role, jwt_file })
        }
        _ => {
            let files = (auth.file("cert_file"), auth.file("key_file"));
            let role = auth.given.get("role").cloned();
            match files {
                (Some(cert_file), Some(key_file)) => Some(VaultAuth::Cert { role, cert_file, key_file }),
                _ => None,
            }
        }
    };
    (auth, mount)
}

/// The keys of one way of logging in.
struct Auth<'a> {
    settings: &'a mut Settings,
    directory: &'a Path,
    given: BTreeMap<&'static str, String>,
    own: &'static [&'static str],
}

impl Auth<'_> {
    fn path(&self, key: &str) -> Option<PathBuf> {
        self.given.get(key).map(|path| self.directory.join(path))
    }

    /// A file that has to be there.
    fn file(&mut self, key: &str) -> Option<PathBuf> {
        let path = self.path(key);
        let dotted = format!("secrets.vault.{key}");
        match &path {
            None => self.settings.required(&dotted, "a PEM file"),
            Some(path) if !path.is_file() => {
                self.settings.problem(&dotted, format!("there is no file {}", path.display()));
            }
            Some(_) => {}
        }
        path
    }

    /// Itself or in a file, not both; the variable where hub.toml has neither.
    fn credential(&mut self, key: &str, variable: Option<String>) -> Option<Credential> {
        let in_file = format!("{key}_file");
        debug_assert!(self.own.contains(&key), "{key} is one of its own keys");
        match (self.given.get(key).cloned(), self.path(&in_file), variable) {
            (Some(_), Some(_), _) => {
                let what = format!("is there beside secrets.vault.{in_file}; one of them has to go");
                self.settings.problem(&format!("secrets.vault.{key}"), what);
                None
            }
            (Some(text), None, _) | (None, None, Some(text)) => {
                if text.bytes().all(|byte| byte.is_ascii_graphic()) && !text.is_empty() {
                    return Some(Credential::Text(Hidden::new(text)));
                }
                self.settings.problem(&format!("secrets.vault.{key}"), "is not one word".to_owned());
                None
            }
            // It may come later than the hub: an agent writes it.
            (None, Some(path), _) => Some(Credential::File(path)),
            (None, None, None) => {
                let variable = format!("VAULT_{}", key.to_uppercase());
                let example =
                    format!("it, or secrets.vault.{in_file} to its file, or {variable} in the environment");
                self.settings.required(&format!("secrets.vault.{key}"), &example);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, InvalidConfig};

    const BASE: &str =
        "[database]\nurl = \"sqlite:hub.sqlite\"\n[secrets]\nprovider = \"vault\"\n[secrets.vault]\n";

    fn parse(vault: &str, pairs: &[(&str, &str)]) -> Result<Secrets, InvalidConfig> {
        let variables = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Config::parse(&format!("{BASE}{vault}"), Path::new("/etc/hub"), &variables)
            .map(|config| config.secrets)
    }

    fn problems(vault: &str, pairs: &[(&str, &str)]) -> Vec<String> {
        let problems = parse(vault, pairs).unwrap_err().problems;
        problems.into_iter().map(|problem| problem.key).collect()
    }

    #[test]
    fn the_variables_of_vaults_tools_are_enough_and_hub_toml_wins() {
        let pairs = [
            ("VAULT_ADDR", "https://vault:8200"),
            ("VAULT_TOKEN", "s.hunter2"),
            ("VAULT_NAMESPACE", "team/a"),
        ];
        let secrets = parse("", &pairs).unwrap();
        let vault = secrets.vault.clone().unwrap();
        assert_eq!((vault.addr.as_str(), vault.namespace.as_deref()), ("https://vault:8200", Some("team/a")));
        assert_eq!(vault.auth, VaultAuth::Token(Credential::Text(Hidden::new("s.hunter2".to_owned()))));
        assert_eq!((vault.mount.as_str(), vault.transit_key.as_str()), ("transit", "llm-config-hub"));
        assert!(!format!("{secrets:?}").contains("hunter2"));

        let said = "addr = \"http://127.0.0.1:1\"\ntoken_file = \"vault.token\"\n";
        let vault = parse(said, &pairs).unwrap().vault.unwrap();
        assert_eq!(vault.addr, "http://127.0.0.1:1");
        assert_eq!(vault.auth, VaultAuth::Token(Credential::File("/etc/hub/vault.token".into())));

        let roles = [("VAULT_ROLE_ID", "r"), ("VAULT_SECRET_ID", "s"), pairs[0]];
        let auth = parse("auth = \"approle\"\nauth_mount = \"hubs\"", &roles).unwrap().vault.unwrap();
        assert!(matches!(auth.auth, VaultAuth::AppRole { .. }));
        assert_eq!(auth.auth_mount, "hubs");
    }

    #[test]
    fn without_the_provider_and_its_table_variables_mean_nothing() {
        let variables = [("VAULT_ADDR".to_owned(), "nonsense".to_owned())].into();
        let text = "[database]\nurl = \"sqlite:x\"\n";
        assert_eq!(Config::parse(text, Path::new("."), &variables).unwrap().secrets.vault, None);
    }

    #[test]
    fn what_is_missing_or_contradicts_is_told_at_once() {
        assert_eq!(problems("", &[]), ["secrets.vault.addr", "secrets.vault.token"]);
        let wrong = "addr = \"http://vault.example.com:8200\"\nauth = \"approle\"\nrole_id = \"r\"\ntoken = \"t\"\n\
                     secret_id = \"s\"\nsecret_id_file = \"f\"\nrole = \"x\"\nmount = \"a//b\"\nkey = 1\n";
        let mut found = problems(wrong, &[]);
        found.sort();
        let expected = [
            "secrets.vault.addr",
            "secrets.vault.key",
            "secrets.vault.mount",
            "secrets.vault.role",
            "secrets.vault.secret_id",
            "secrets.vault.token",
        ];
        assert_eq!(found, expected);
        let address = "addr = \"https://v:1\"\n";
        assert_eq!(problems(&format!("{address}auth = \"ldap\""), &[]), ["secrets.vault.auth"]);
        assert_eq!(problems(&format!("{address}auth = \"kubernetes\""), &[]), ["secrets.vault.role"]);
        let cert = format!("{address}auth = \"cert\"\ncert_file = \"/no/file\"");
        assert_eq!(problems(&cert, &[]), ["secrets.vault.cert_file", "secrets.vault.key_file"]);
        let error = parse("addr = \"https://v:1\"\ntoken = \"hunter 2\"", &[]).unwrap_err().to_string();
        assert!(!error.contains("hunter"), "{error}");
    }

    #[test]
    fn a_passphrase_comes_from_a_file_or_the_environment_and_not_from_hub_toml() {
        let parse = |local: &str, pairs: &[(&str, &str)]| {
            let text = format!("[database]\nurl = \"sqlite:x\"\n[secrets.local]\n{local}");
            let variables = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            Config::parse(&text, Path::new("/etc/hub"), &variables).map(|config| config.secrets)
        };
        let variable = [("LLM_CONFIG_HUB_SECRETS__LOCAL__PASSPHRASE", "correct horse")];
        assert_eq!(parse("", &variable).unwrap().passphrase, Passphrase::new("correct horse"));
        let file = "passphrase_file = \"pass\"";
        assert_eq!(parse(file, &[]).unwrap().passphrase_file, Some("/etc/hub/pass".into()));
        assert!(parse(file, &variable).is_err(), "not both");
        let error = parse("passphrase = \"hunter2\"", &[]).unwrap_err().to_string();
        assert!(error.contains("passphrase_file") && !error.contains("hunter2"), "{error}");
        assert!(parse("keychain = true", &[]).unwrap().keychain && !parse("", &[]).unwrap().keychain);
    }
}
