//! Ready: whether a process that was started beside another can take over, by a URL on this machine or by a command.

use std::future::Future;
use std::process::Stdio;
use std::time::Duration;

use http::Method;
use llm_config_proto::rest::client::Client;
use tokio::process::Command;

/// Pause between two questions.
const PAUSE: Duration = Duration::from_millis(200);
/// How long one question may take.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// How to ask; `{port}` stands for the first port of the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ready {
    /// `http://127.0.0.1:8081/health` answers with 2xx.
    Url { base: String, path: String },
    /// The command ends with exit code 0.
    Command(String),
}

impl std::str::FromStr for Ready {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with("https://") {
            return Err("a process of this machine is asked over http://; for https give a command".into());
        }
        let Some(rest) = text.strip_prefix("http://") else { return Ok(Self::Command(text.to_owned())) };
        let end = rest.find('/').unwrap_or(rest.len());
        let path = if end == rest.len() { "/" } else { &rest[end..] };
        Ok(Self::Url { base: format!("http://{}", &rest[..end]), path: path.to_owned() })
    }
}

impl Ready {
    /// Returns when the answer is yes.
    pub(super) fn wait(&self, port: Option<u16>) -> impl Future<Output = ()> + use<> {
        let filled = |text: &str| match port {
            Some(port) => text.replace("{port}", &port.to_string()),
            None => text.to_owned(),
        };
        let asked = match self {
            Self::Url { base, path } => Self::Url { base: filled(base), path: filled(path) },
            Self::Command(command) => Self::Command(filled(command)),
        };
        async move {
            while !asked.ask().await {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    async fn ask(&self) -> bool {
        match self {
            Self::Url { base, path } => {
                let Ok(client) = Client::http(base, None) else { return false };
                let answer = client.with_timeout(ANSWER_MAX).request(Method::GET, path, None).await;
                answer.is_ok_and(|answer| answer.is_success())
            }
            Self::Command(command) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", command]).kill_on_drop(true);
                shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
                let ended = tokio::time::timeout(ANSWER_MAX, shell.status()).await;
                ended.is_ok_and(|status| status.is_ok_and(|status| status.success()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_asked_and_anything_else_is_run() {
        let url = |base: &str, path: &str| Ok(Ready::Url { base: base.into(), path: path.into() });
        assert_eq!(
            "http://127.0.0.1:{port}/health?x=1".parse(),
            url("http://127.0.0.1:{port}", "/health?x=1")
        );
        assert_eq!("http://localhost:1".parse(), url("http://localhost:1", "/"));
        assert_eq!("test -e x".parse(), Ok(Ready::Command("test -e x".into())));
        assert!("https://localhost".parse::<Ready>().is_err());
    }

    #[tokio::test]
    async fn a_command_is_asked_until_it_says_yes() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("8081");
        let command = format!("test -e {} || {{ touch {}; false; }}", file.display(), file.display());
        let ready: Ready = command.replace("8081", "{port}").parse().unwrap();
        ready.wait(Some(8081)).await;
        assert!(file.exists());
    }
}
