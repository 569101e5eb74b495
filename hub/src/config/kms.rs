//! `[secrets.aws_kms]`: a cloud's key management, in builds that have it.

use std::path::Path;
use std::time::Duration;

use super::secrets::checked_address;
use super::settings::Settings;
use crate::secrets::cloud::AwsSettings;

/// What is missing or wrong is a problem; none then.
/// `built` says whether this program knows AWS KMS.
pub(super) fn read_aws(settings: &mut Settings, directory: &Path, built: bool) -> Option<AwsSettings> {
    if !built {
        let what =
            "this program was built without AWS KMS: build the hub with `--features kms-aws`".to_owned();
        settings.problem("secrets.aws_kms", what);
    }
    let key = one_word(settings, "secrets.aws_kms.key");
    if key.is_none() {
        settings.required("secrets.aws_kms.key", "the ARN, the id or alias/NAME of a symmetric key");
    }
    let previous = settings.text("secrets.aws_kms.previous_keys").unwrap_or_default();
    let previous: Vec<String> =
        previous.split(',').map(|arn| arn.trim().to_owned()).filter(|arn| !arn.is_empty()).collect();
    if !previous.iter().all(|arn| arn.starts_with("arn:") && arn.contains(":key/")) {
        let what = "must be ARNs like arn:aws:kms:REGION:ACCOUNT:key/ID, with commas between";
        settings.problem("secrets.aws_kms.previous_keys", what.to_owned());
    }
    let region = one_word(settings, "secrets.aws_kms.region");
    let endpoint = settings.text("secrets.aws_kms.endpoint");
    let endpoint = endpoint.and_then(|url| checked_address(settings, "secrets.aws_kms.endpoint", url));
    let mut file = |key: &str| {
        let path = settings.text(key).map(|path| directory.join(path));
        if let Some(path) = path.as_ref().filter(|path| !path.is_file()) {
            settings.problem(key, format!("there is no file {}", path.display()));
        }
        path
    };
    let (ca_cert, credentials_file) =
        (file("secrets.aws_kms.ca_cert"), file("secrets.aws_kms.credentials_file"));
    let profile = one_word(settings, "secrets.aws_kms.profile");
    let timeout = settings.number("secrets.aws_kms.timeout_ms", 100..=30_000).unwrap_or(5_000);
    Some(AwsSettings {
        key: key?,
        previous_keys: previous,
        region,
        endpoint,
        ca_cert,
        profile,
        credentials_file,
        timeout: Duration::from_millis(timeout),
    })
}

fn one_word(settings: &mut Settings, key: &str) -> Option<String> {
    let text = settings.text(key)?;
    if !text.is_empty() && text.len() <= 2_048 && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Some(text);
    }
    settings.problem(key, "is not one word".to_owned());
    None
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// What was read, and the problems by their keys.
    fn read(table: &str, built: bool) -> (Option<AwsSettings>, Vec<(String, String)>) {
        let text = format!("[secrets.aws_kms]\n{table}");
        let mut settings = Settings::read(&text, "LLM_CONFIG_HUB_", &BTreeMap::new()).unwrap();
        let aws = read_aws(&mut settings, Path::new("/etc/hub"), built);
        let problems = settings.finish().err().map(|error| error.problems).unwrap_or_default();
        let mut problems: Vec<_> = problems.into_iter().map(|problem| (problem.key, problem.what)).collect();
        problems.sort();
        (aws, problems)
    }

    #[test]
    fn a_key_is_enough_and_every_problem_is_told() {
        let (aws, problems) = read("key = \"alias/hub\"", true);
        let aws = aws.unwrap();
        assert_eq!((aws.key.as_str(), aws.previous_keys.len(), aws.timeout.as_secs()), ("alias/hub", 0, 5));
        assert_eq!(problems, []);
        let wrong = "endpoint = \"http://10.0.0.1\"\nprevious_keys = \"alias/x\"\nregion = \"a b\"\n\
                     ca_cert = \"none.pem\"\ntimeout_ms = 1\nkeys = \"x\"";
        let keys: Vec<_> = read(wrong, true).1.into_iter().map(|(key, _)| key).collect();
        let expected = ["ca_cert", "endpoint", "key", "keys", "previous_keys", "region", "timeout_ms"];
        assert_eq!(keys, expected.map(|key| format!("secrets.aws_kms.{key}")));
    }

    #[test]
    fn a_build_without_it_names_the_feature() {
        let (_, problems) = read("key = \"alias/hub\"", false);
        assert_eq!(problems.len(), 1);
        assert!(problems[0].1.contains("--features kms-aws"), "{problems:?}");
    }
}
