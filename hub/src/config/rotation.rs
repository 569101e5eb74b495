//! `[secrets.rotation]`: which commands and which services may make new values.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use super::secrets::is_this_machine;
use super::settings::Settings;
use crate::rotation::webhook::Webhook;
use crate::rotation::{CHECK_EVERY, Commands, Webhooks};

/// What rotation may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RotationSettings {
    pub commands: Commands,
    pub webhooks: Webhooks,
    /// From one look to the next.
    pub check_every: Duration,
}

impl RotationSettings {
    /// What plans may name.
    pub fn names(&self) -> BTreeSet<String> {
        self.commands.keys().chain(self.webhooks.keys()).cloned().collect()
    }
}

impl Default for RotationSettings {
    fn default() -> Self {
        Self { commands: Commands::new(), webhooks: Webhooks::new(), check_every: CHECK_EVERY }
    }
}

/// Each command is a program and its arguments with spaces between; no shell reads them.
pub(super) fn read(settings: &mut Settings, directory: &Path) -> RotationSettings {
    const PREFIX: &str = "secrets.rotation.commands.";
    let mut commands = Commands::new();
    for key in settings.below(PREFIX) {
        let Some(line) = settings.text(&key) else { continue };
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        if !words.first().is_some_and(|program| program.starts_with('/')) {
            settings.problem(&key, "must begin with the whole path of a program".to_owned());
        }
        commands.insert(key[PREFIX.len()..].to_owned(), words);
    }
    let webhooks = read_webhooks(settings, directory, &commands);
    let check_every = settings.number("secrets.rotation.check_seconds", 1..=3_600);
    let check_every = check_every.map_or(CHECK_EVERY, Duration::from_secs);
    RotationSettings { commands, webhooks, check_every }
}

fn read_webhooks(settings: &mut Settings, directory: &Path, commands: &Commands) -> Webhooks {
    let mut webhooks = Webhooks::new();
    for name in settings.tables_in("secrets.rotation.webhooks") {
        let key = |part: &str| format!("secrets.rotation.webhooks.{name}.{part}");
        let url = settings.text(&key("url")).filter(|url| is_fit(settings, &key("url"), url));
        let secret_file = settings.text(&key("secret_file")).map(|path| directory.join(path));
        let ca_cert = settings.text(&key("ca_cert")).map(|path| directory.join(path));
        if commands.contains_key(&name) {
            settings.problem(
                &key("url"),
                "has the name of a command; plans could not tell them apart".to_owned(),
            );
        }
        match (url, secret_file) {
            (Some(url), Some(secret_file)) => {
                webhooks.insert(name, Webhook { url, secret_file, ca_cert });
            }
            (url, secret_file) => {
                if url.is_none() {
                    settings.required(&key("url"), "https://HOST/PATH");
                }
                if secret_file.is_none() {
                    settings.required(&key("secret_file"), "a file that holds whsec_ and a key in base64");
                }
            }
        }
    }
    webhooks
}

/// Beyond this machine a new value must not travel in clear.
fn is_fit(settings: &mut Settings, key: &str, url: &str) -> bool {
    let uri = url.parse::<http::Uri>().ok();
    let uri = uri.filter(|uri| uri.authority().is_some_and(|authority| !authority.as_str().contains('@')));
    let here = uri.as_ref().and_then(http::Uri::host).is_some_and(is_this_machine);
    match uri.as_ref().and_then(http::Uri::scheme_str) {
        Some("https") => return true,
        Some("http") if here => return true,
        _ => {
            let what = "must look like https://HOST/PATH; http:// is for services of this machine";
            settings.problem(key, what.to_owned());
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn problems(table: &str) -> (Webhooks, Vec<String>) {
        let mut settings = Settings::read(table, "LLM_CONFIG_HUB_", &BTreeMap::new()).unwrap();
        let read = read(&mut settings, Path::new("/etc/hub"));
        let problems = settings.finish().err().map(|error| error.problems).unwrap_or_default();
        (read.webhooks, problems.into_iter().map(|problem| problem.key).collect())
    }

    #[test]
    fn a_service_has_an_address_of_its_own_and_a_secret() {
        let table = |url: &str| {
            format!("[secrets.rotation.webhooks.vendor]\nurl = \"{url}\"\nsecret_file = \"vendor.secret\"\n")
        };
        let (webhooks, none) = problems(&table("https://rotate.example.com/hook"));
        assert_eq!(webhooks["vendor"].secret_file, Path::new("/etc/hub/vendor.secret"));
        assert!(none.is_empty(), "{none:?}");
        assert!(problems(&table("http://127.0.0.1:9/hook")).1.is_empty());
        assert!(problems(&table("http://[::1]:9/hook")).1.is_empty());
        for url in ["http://10.0.0.1/", "http://127.0.0.1.example.com/", "https://u:p@h/", "ftp://h/", "/x"] {
            assert_eq!(problems(&table(url)).1, ["secrets.rotation.webhooks.vendor.url"], "{url}");
        }
        let twice = format!("[secrets.rotation.commands]\nvendor = \"/bin/x\"\n{}", table("https://h/"));
        assert_eq!(problems(&twice).1, ["secrets.rotation.webhooks.vendor.url"]);
        let empty = "[secrets.rotation.webhooks.vendor]\nca_cert = \"x\"\n";
        assert_eq!(problems(empty).1.len(), 2);
    }
}
