//! Where edges find this hub, as it is written into join tokens.

use crate::config::Config;

/// What the settings say, else the sync port's address, else this machine's name.
pub(super) fn for_edges(config: &Config) -> String {
    if let Some(public) = &config.listen.public {
        return public.clone();
    }
    let sync = config.listen.sync;
    if !sync.ip().is_unspecified() {
        return format!("https://{sync}");
    }
    let host = machine().unwrap_or_else(|| "localhost".to_owned());
    tracing::warn!(
        host,
        "edges are told this machine's name, because listen.sync is every address; set listen.public if they cannot \
         find it by that"
    );
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
}
