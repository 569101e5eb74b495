//! The product's main job, told as it happens: every step is done by the real programs, every fact is checked.

mod conflict;
mod deliver;
mod outage;
mod secret;
mod start;

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::Context as _;
use tokio::process::Command;

use crate::process::{Edge, Hub, programs};
use crate::proxy::{Proxy, Traffic};
use crate::report::Report;

pub use conflict::{BOOSTED, ROUTES};
pub use start::start;

/// The folder of the whole story: what the edges receive and where they may write.
const ROOT: &str = "llm";
/// Where the catalogue goes.
pub const MODELS: &str = "llm/models";
/// The environment of the whole story.
pub const ENVIRONMENT: &str = "production";

/// An edge with its own piece of network.
pub struct Site {
    pub edge: Edge,
    pub proxy: Proxy,
}

/// The actors.
pub struct Stage {
    pub hub: Hub,
    pub sites: Vec<Site>,
    /// Where everything lies.
    pub data: PathBuf,
}

impl Stage {
    /// Every piece of network, for a look at what went through.
    fn traffic(&self) -> Vec<Traffic> {
        self.sites.iter().map(|site| site.proxy.traffic()).collect()
    }

    /// Runs `llm-config` against the hub, as a person would, and gives what it printed.
    ///
    /// # Errors
    /// When the command fails; its message is in the error.
    pub async fn llm_config(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = Command::new(programs()?.join("llm-config"))
            .args(arguments)
            .args(["--hub", &self.hub.url(), "--token-file"])
            .arg(self.hub.token_file())
            .env_remove("LLM_CONFIG_SOCKET")
            .env_remove("LLM_CONFIG_HUB")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .context("cannot run llm-config")?;
        if !output.status.success() {
            anyhow::bail!(
                "llm-config {}: {}",
                arguments.join(" "),
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Ends every program in good order; whether all did so by themselves.
    ///
    /// # Errors
    /// When the system refuses.
    pub async fn stop(mut self) -> anyhow::Result<bool> {
        let mut good = true;
        for site in &mut self.sites {
            good &= site.edge.stop().await?;
        }
        Ok(good & self.hub.stop().await?)
    }
}

/// Tells everything that comes after the start.
///
/// # Errors
/// When a step cannot be done at all; a fact that does not hold goes into the report instead.
pub async fn tell(stage: &mut Stage, report: &mut Report) -> anyhow::Result<()> {
    deliver::changes(stage, report).await?;
    secret::travels_sealed(stage, report).await?;
    outage::begins(stage, report).await?;
    let written = conflict::writes_apart(stage, report).await?;
    outage::outlives_a_crash(stage, report).await?;
    conflict::comes_together(stage, report, &written).await
}

/// Whether a file below `folder` holds `needle`.
fn holds(folder: &Path, needle: &[u8]) -> anyhow::Result<bool> {
    for entry in
        std::fs::read_dir(folder).with_context(|| format!("cannot look into {}", folder.display()))?
    {
        let entry = entry?;
        let kind = entry.file_type()?;
        let found = if kind.is_dir() {
            holds(&entry.path(), needle)?
        } else if kind.is_file() {
            let bytes = std::fs::read(entry.path())?;
            bytes.windows(needle.len()).any(|window| window == needle)
        } else {
            false
        };
        if found {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_found_wherever_it_lies() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("below")).unwrap();
        std::fs::write(folder.path().join("below/file"), b"xx needle xx").unwrap();
        assert!(holds(folder.path(), b"needle").unwrap());
        assert!(!holds(folder.path(), b"other").unwrap());
    }
}
