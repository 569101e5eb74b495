//! `[secrets.aws_kms]`, `[secrets.gcp_kms]`, `[secrets.azure_keyvault]`: a cloud's key management, in builds that have it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::secrets::checked_address;
use super::settings::Settings;
use crate::secrets::ProviderKind;
use crate::secrets::cloud::{AwsSettings, AzureSettings, GcpSettings};

mod azure;

/// Where Google's Cloud KMS is, and what tells a machine of Google's who it is.
const GOOGLE: &str = "https://cloudkms.googleapis.com";
const GOOGLES_METADATA: &str = "metadata.google.internal";

/// What was said about clouds.
pub(super) struct Clouds {
    pub(super) aws_kms: Option<AwsSettings>,
    pub(super) gcp_kms: Option<GcpSettings>,
    pub(super) azure_keyvault: Option<AzureSettings>,
}

/// The table of the provider that wraps, and those that are there.
pub(super) fn read(
    settings: &mut Settings,
    directory: &Path,
    provider: ProviderKind,
    variables: &BTreeMap<String, String>,
) -> Clouds {
    let mut read = Reader { settings, directory, provider };
    let aws_kms = read.table(ProviderKind::AwsKms, "aws_kms", ("kms-aws", cfg!(feature = "kms-aws")));
    let aws_kms = aws_kms.and_then(read_aws);
    let gcp_kms = read.table(ProviderKind::GcpKms, "gcp_kms", ("kms-gcp", cfg!(feature = "kms-gcp")));
    let gcp_kms = gcp_kms.and_then(|table| read_gcp(table, variables));
    let built = ("kms-azure", cfg!(feature = "kms-azure"));
    let azure_keyvault = read.table(ProviderKind::AzureKeyVault, "azure_keyvault", built);
    let azure_keyvault = azure_keyvault.and_then(|table| azure::read(table, variables));
    Clouds { aws_kms, gcp_kms, azure_keyvault }
}

struct Reader<'a> {
    settings: &'a mut Settings,
    directory: &'a Path,
    provider: ProviderKind,
}

impl Reader<'_> {
    fn table(&mut self, kind: ProviderKind, name: &'static str, built: (&str, bool)) -> Option<Table<'_>> {
        let wanted = self.provider == kind || self.settings.has_table(&format!("secrets.{name}"));
        wanted.then(|| Table::new(self.settings, self.directory, name, built))
    }
}

/// One table, and what all of them have.
struct Table<'a> {
    settings: &'a mut Settings,
    directory: &'a Path,
    name: &'static str,
}

impl<'a> Table<'a> {
    /// `built` is the name of the feature, and whether this program has it.
    fn new(
        settings: &'a mut Settings,
        directory: &'a Path,
        name: &'static str,
        (feature, built): (&str, bool),
    ) -> Self {
        if !built {
            let what =
                format!("this program was built without it: build the hub with `--features {feature}`");
            settings.problem(&format!("secrets.{name}"), what);
        }
        Self { settings, directory, name }
    }

    fn key(&self, key: &str) -> String {
        format!("secrets.{}.{key}", self.name)
    }

    fn problem(&mut self, key: &str, what: &str) {
        self.settings.problem(&self.key(key), what.to_owned());
    }

    fn word(&mut self, key: &str) -> Option<String> {
        let text = self.settings.text(&self.key(key))?;
        if !text.is_empty() && text.len() <= 2_048 && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Some(text);
        }
        self.problem(key, "is not one word");
        None
    }

    /// What wraps.
    fn required(&mut self, key: &str, example: &str) -> Option<String> {
        let word = self.word(key);
        if word.is_none() {
            self.settings.required(&self.key(key), example);
        }
        word
    }

    /// Keys of a form, with commas between.
    fn previous_keys(&mut self, is_one: impl Fn(&str) -> bool, form: &str) -> Vec<String> {
        let text = self.settings.text(&self.key("previous_keys")).unwrap_or_default();
        let keys: Vec<String> =
            text.split(',').map(|key| key.trim().to_owned()).filter(|key| !key.is_empty()).collect();
        if !keys.iter().all(|key| is_one(key)) {
            self.problem("previous_keys", &format!("must be like {form}, with commas between"));
        }
        keys
    }

    fn address(&mut self, key: &str) -> Option<String> {
        let key = self.key(key);
        let address = self.settings.text(&key)?;
        checked_address(self.settings, &key, address)
    }

    /// A file that has to be there.
    fn file(&mut self, key: &str, variable: Option<&String>) -> Option<PathBuf> {
        let named = self.settings.text(&self.key(key)).map(|path| self.directory.join(path));
        let path = named.or_else(|| variable.map(PathBuf::from))?;
        if !path.is_file() {
            self.problem(key, &format!("there is no file {}", path.display()));
        }
        Some(path)
    }

    fn timeout(&mut self) -> Duration {
        let millis = self.settings.number(&self.key("timeout_ms"), 100..=30_000);
        Duration::from_millis(millis.unwrap_or(5_000))
    }
}

/// What is missing or wrong is a problem; none then.
fn read_aws(mut table: Table<'_>) -> Option<AwsSettings> {
    let key = table.required("key", "the ARN, the id or alias/NAME of a symmetric key");
    let is_arn = |key: &str| key.starts_with("arn:") && key.contains(":key/");
    let previous_keys = table.previous_keys(is_arn, "arn:aws:kms:REGION:ACCOUNT:key/ID");
    let (region, endpoint) = (table.word("region"), table.address("endpoint"));
    let (ca_cert, credentials_file) = (table.file("ca_cert", None), table.file("credentials_file", None));
    let (profile, timeout) = (table.word("profile"), table.timeout());
    Some(AwsSettings {
        key: key?,
        previous_keys,
        region,
        endpoint,
        ca_cert,
        profile,
        credentials_file,
        timeout,
    })
}

/// What is missing or wrong is a problem; none then. The variables of Google's own tools stand in for what is left out.
fn read_gcp(mut table: Table<'_>, variables: &BTreeMap<String, String>) -> Option<GcpSettings> {
    const FORM: &str = "projects/PROJECT/locations/LOCATION/keyRings/RING/cryptoKeys/KEY";
    let variable = |name: &str| variables.get(name).filter(|value| !value.is_empty());
    let key = table.required("key", FORM);
    if key.as_deref().is_some_and(|key| !is_crypto_key(key)) {
        table.problem("key", &format!("must be like {FORM}, without a version"));
    }
    let previous_keys = table.previous_keys(is_crypto_key, FORM);
    let endpoint = table.address("endpoint").unwrap_or_else(|| GOOGLE.to_owned());
    let ca_cert = table.file("ca_cert", None);
    let credentials_file = table.file("credentials_file", variable("GOOGLE_APPLICATION_CREDENTIALS"));
    let metadata_host = variable("GCE_METADATA_HOST").map_or(GOOGLES_METADATA, String::as_str).to_owned();
    let timeout = table.timeout();
    Some(GcpSettings {
        key: key?,
        previous_keys,
        endpoint,
        ca_cert,
        credentials_file,
        metadata_host,
        timeout,
    })
}

fn is_crypto_key(name: &str) -> bool {
    let fine = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte))
            && !part.bytes().all(|byte| byte == b'.')
    };
    match name.split('/').collect::<Vec<_>>().as_slice() {
        ["projects", project, "locations", location, "keyRings", ring, "cryptoKeys", key] => {
            [project, location, ring, key].into_iter().all(|part| fine(part))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GCP_KEY: &str = "projects/p/locations/europe-west1/keyRings/r/cryptoKeys/hub";

    /// What was read, and the problems by their keys.
    fn read<T>(
        name: &'static str,
        table: &str,
        built: bool,
        read: impl FnOnce(Table<'_>) -> T,
    ) -> (T, Vec<(String, String)>) {
        let text = format!("[secrets.{name}]\n{table}");
        let mut settings = Settings::read(&text, "LLM_CONFIG_HUB_", &BTreeMap::new()).unwrap();
        let table = Table::new(&mut settings, Path::new("/etc/hub"), name, ("kms-x", built));
        let read = read(table);
        let problems = settings.finish().err().map(|error| error.problems).unwrap_or_default();
        let mut problems: Vec<_> = problems.into_iter().map(|problem| (problem.key, problem.what)).collect();
        problems.sort();
        (read, problems)
    }

    fn keys(problems: Vec<(String, String)>) -> Vec<String> {
        problems.into_iter().filter_map(|(key, _)| Some(key.rsplit_once('.')?.1.to_owned())).collect()
    }

    #[test]
    fn a_key_is_enough_and_every_problem_is_told() {
        let (aws, problems) = read("aws_kms", "key = \"alias/hub\"", true, read_aws);
        let aws = aws.unwrap();
        assert_eq!((aws.key.as_str(), aws.previous_keys.len(), aws.timeout.as_secs()), ("alias/hub", 0, 5));
        assert_eq!(problems, []);
        let wrong = "endpoint = \"http://10.0.0.1\"\nprevious_keys = \"alias/x\"\nregion = \"a b\"\n\
                     ca_cert = \"none.pem\"\ntimeout_ms = 1\nkeys = \"x\"";
        let found = keys(read("aws_kms", wrong, true, read_aws).1);
        assert_eq!(found, ["ca_cert", "endpoint", "key", "keys", "previous_keys", "region", "timeout_ms"]);
    }

    #[test]
    fn googles_variables_stand_in_and_a_key_has_its_whole_name() {
        let variables = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let read_with = |table: &str, pairs: &[(&str, &str)]| {
            let variables = variables(pairs);
            read("gcp_kms", table, true, |table| read_gcp(table, &variables))
        };
        let table = format!("key = \"{GCP_KEY}\"");
        let gcp = read_with(&table, &[]).0.unwrap();
        assert_eq!((gcp.endpoint.as_str(), gcp.metadata_host.as_str()), (GOOGLE, GOOGLES_METADATA));
        assert_eq!(gcp.credentials_file, None);
        let there = ["GOOGLE_APPLICATION_CREDENTIALS", "GCE_METADATA_HOST"].map(|name| (name, "/dev/null"));
        let (gcp, problems) = read_with(&table, &there);
        assert_eq!(gcp.unwrap().credentials_file, Some("/dev/null".into()));
        assert_eq!(keys(problems), ["credentials_file"], "it is no file");
        let version = format!("{GCP_KEY}/cryptoKeyVersions/1");
        for wrong in [
            "hub",
            &version,
            "projects/../locations/l/keyRings/r/cryptoKeys/k",
            "projects/p/x/l/keyRings/r/cryptoKeys/k",
        ] {
            let table = format!("key = \"{wrong}\"\nprevious_keys = \"{wrong}\"");
            assert_eq!(keys(read_with(&table, &[]).1), ["key", "previous_keys"], "{wrong}");
        }
    }

    #[test]
    fn a_build_without_it_names_the_feature() {
        let (_, problems) = read("aws_kms", "key = \"alias/hub\"", false, read_aws);
        assert_eq!(problems.len(), 1);
        assert!(problems[0].1.contains("--features kms-x"), "{problems:?}");
    }
}
