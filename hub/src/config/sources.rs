//! `[sources.NAME]`: namespaces whose secrets come from a KV store of Vault.

use std::path::Path;
use std::time::Duration;

use llm_config_shared::name::{Environment, Namespace, Tenant};

use super::settings::Settings;

/// Most sources of one hub.
const SOURCES_MAX: usize = 64;

/// One path of a KV store (version 2) and where its secrets go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    pub name: String,
    pub mount: String,
    pub path: String,
    pub tenant: Tenant,
    pub namespace: Namespace,
    pub environment: Environment,
    /// About how often it is looked at.
    pub every: Duration,
    /// Whether what people write here is written there as well.
    pub write_through: bool,
}

pub(super) fn read(settings: &mut Settings, vault: bool) -> Vec<Source> {
    let names = settings.tables_in("sources");
    if names.len() > SOURCES_MAX {
        settings.problem("sources", format!("are more than {SOURCES_MAX}"));
    }
    if let Some(name) = names.first().filter(|_| !vault) {
        let what = "needs Vault: say in [secrets.vault] where it is".to_owned();
        settings.problem(&format!("sources.{name}"), what);
    }
    names.into_iter().filter_map(|name| source(settings, name)).collect()
}

fn source(settings: &mut Settings, name: String) -> Option<Source> {
    let key = |part: &str| format!("sources.{name}.{part}");
    let mount = path(settings, &key("mount"), Some("secret"));
    let path = path(settings, &key("path"), None);
    let tenant = settings.text(&key("tenant")).unwrap_or_else(|| "default".to_owned());
    let tenant = parsed(settings, &key("tenant"), Tenant::parse(&tenant));
    let namespace = settings.text(&key("namespace"));
    if namespace.is_none() {
        settings.required(&key("namespace"), "the namespace that the secrets go to");
    }
    let namespace = namespace.and_then(|text| parsed(settings, &key("namespace"), Namespace::parse(&text)));
    let environment = settings.text(&key("environment"));
    if environment.is_none() {
        settings.required(&key("environment"), "the environment that the secrets go to");
    }
    let environment =
        environment.and_then(|text| parsed(settings, &key("environment"), Environment::parse(&text)));
    let every = settings.number(&key("every_seconds"), 1..=86_400).unwrap_or(60);
    let write_through = settings.flag(&key("write_through")).unwrap_or(false);
    Some(Source {
        mount: mount?,
        path: path?,
        tenant: tenant?,
        namespace: namespace?,
        environment: environment?,
        every: Duration::from_secs(every),
        write_through,
        name,
    })
}

fn parsed<T, E: std::fmt::Display>(settings: &mut Settings, key: &str, parsed: Result<T, E>) -> Option<T> {
    parsed.map_err(|error| settings.problem(key, error.to_string())).ok()
}

/// A path in Vault without slashes at its ends.
fn path(settings: &mut Settings, key: &str, default: Option<&str>) -> Option<String> {
    let Some(path) = settings.text(key).or_else(|| default.map(str::to_owned)) else {
        settings.required(key, "a path in the KV store");
        return None;
    };
    let path = path.trim_matches('/').to_owned();
    let relative =
        !Path::new(&path).components().any(|part| !matches!(part, std::path::Component::Normal(_)));
    if path.is_empty() || !relative || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        settings.problem(key, "must be a path like team/llm".to_owned());
        return None;
    }
    Some(path)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use crate::config::Config;

    fn parse(sources: &str) -> Result<Config, crate::config::InvalidConfig> {
        let text = format!(
            "[database]\nurl = \"sqlite:x\"\n[secrets.vault]\naddr = \"https://v:1\"\ntoken = \"t\"\n{sources}"
        );
        Config::parse(&text, std::path::Path::new("."), &BTreeMap::new())
    }

    #[test]
    fn a_source_says_from_where_to_where() {
        let config =
            parse("[sources.team]\npath = \"team/llm/\"\nnamespace = \"llm/keys\"\nenvironment = \"prod\"\n");
        let source = config.unwrap().sources.remove(0);
        assert_eq!((source.mount.as_str(), source.path.as_str()), ("secret", "team/llm"));
        assert_eq!((source.name.as_str(), source.environment.as_str()), ("team", "production"));
        assert_eq!((source.tenant.as_str(), source.every.as_secs()), ("default", 60));
        assert!(!source.write_through);
    }

    #[test]
    fn every_problem_of_every_source_is_told() {
        let error = parse("[sources.a]\npath = \"../x\"\nnamespace = \"a//b\"\n[sources.b]\nkey = 1\n");
        let mut keys: Vec<_> = error.unwrap_err().problems.into_iter().map(|problem| problem.key).collect();
        keys.sort();
        let expected = [
            "sources.a.environment",
            "sources.a.namespace",
            "sources.a.path",
            "sources.b.environment",
            "sources.b.key",
            "sources.b.namespace",
            "sources.b.path",
        ];
        assert_eq!(keys, expected);
        let alone = "[database]\nurl = \"sqlite:x\"\n[sources.a]\npath = \"p\"\nnamespace = \"n\"\nenvironment = \"e\"";
        let error = Config::parse(alone, std::path::Path::new("."), &BTreeMap::new()).unwrap_err();
        assert!(error.to_string().contains("[secrets.vault]"), "{error}");
    }
}
