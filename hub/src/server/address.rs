//! Where edges find this hub, as it is written into join tokens, and where its other processes find this one.

use crate::config::Config;

/// What the settings say, else the sync port's address, else this machine's name.
pub(super) fn for_edges(config: &Config) -> String {
    if let Some(public) = &config.listen.public {
        return public.clone();
    }
    if config.listen.sync.ip().is_unspecified() {
        tracing::warn!(
            "edges are told this machine's name, because listen.sync is every address; set listen.public if they \
             cannot find it by that"
        );
    }
    of_this_machine(config)
}

/// The same for the hub's other processes. Not the edges' address: behind that may be any of them.
pub(super) fn for_processes(config: &Config) -> String {
    config.listen.peer.clone().unwrap_or_else(|| of_this_machine(config))
}

fn of_this_machine(config: &Config) -> String {
    let sync = config.listen.sync;
    if !sync.ip().is_unspecified() {
        return format!("https://{sync}");
    }
    let host = machine().unwrap_or_else(|| "localhost".to_owned());
    format!("https://{host}:{}", sync.port())
}

/// The names and addresses that the sync port's certificate says beside those of every hub.
pub(super) fn names(config: &Config) -> Vec<String> {
    let public = config.listen.public.as_deref().and_then(|url| url.parse::<http::Uri>().ok());
    let public = public.and_then(|uri| uri.host().map(|host| host.trim_matches(['[', ']']).to_owned()));
    let ip = config.listen.sync.ip();
    let bound = (!ip.is_unspecified()).then(|| ip.to_string());
    let machine = if ip.is_unspecified() { machine() } else { None };
    public.into_iter().chain(bound).chain(machine).collect()
}

fn machine() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    let name = name.trim();
    (!matches!(name, "" | "(none)")).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn edges_are_told_an_address_that_can_be_connected_to() {
        let told = |sync: &str| {
            let api = "127.0.0.1:8080".parse().unwrap();
            for_edges(&Config::dev(Path::new("d"), api, sync.parse().unwrap()).unwrap())
        };
        assert_eq!(told("127.0.0.1:8443"), "https://127.0.0.1:8443");
        assert_eq!(told("[::1]:8443"), "https://[::1]:8443");
        assert!(!told("0.0.0.0:8443").contains("0.0.0.0"));
    }

    #[test]
    fn processes_are_told_an_address_of_this_one_alone() {
        let here = "127.0.0.1:8443".parse().unwrap();
        let mut config = Config::dev(Path::new("d"), here, here).unwrap();
        config.listen.public = Some("https://hub.example.com:8443".to_owned());
        assert_eq!(for_processes(&config), "https://127.0.0.1:8443", "not that of the edges");
        config.listen.peer = Some("https://hub-1.internal:8443".to_owned());
        assert_eq!(for_processes(&config), "https://hub-1.internal:8443");
    }
}
