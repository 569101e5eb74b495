//! The figures that the product is held to, each beside a floor of the same run, measured on the real programs.

pub mod delivery;
pub mod floor;
pub mod reads;
pub mod rows;
pub mod sizes;
pub mod writes;

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::json;

use crate::process::{Edge, EdgeOptions, Hub};
use crate::proxy::Proxy;

/// The folder of everything that the benchmarks write.
pub const FOLDER: &str = "bench";
/// Their environment: edges of it have no parents' rows to fetch.
pub const ENVIRONMENT: &str = "production";

/// One figure: what was measured, what it is compared with, and what was hoped for.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    pub name: &'static str,
    pub value: f64,
    pub unit: &'static str,
    /// What is possible, in the same unit and run.
    pub floor: Option<(f64, &'static str)>,
    /// The bound of the design, in words.
    pub bound: &'static str,
    /// Whether it holds; none where nothing was promised.
    pub holds: Option<bool>,
}

impl Figure {
    /// A figure without a floor or a bound.
    pub fn plain(name: &'static str, value: f64, unit: &'static str) -> Self {
        Self { name, value, unit, floor: None, bound: "", holds: None }
    }

    /// Beside a floor.
    #[must_use]
    pub fn over(mut self, floor: f64, what: &'static str) -> Self {
        self.floor = Some((floor, what));
        self
    }

    /// With a bound, and whether it holds.
    #[must_use]
    pub fn bound(mut self, bound: &'static str, holds: bool) -> Self {
        self.bound = bound;
        self.holds = Some(holds);
        self
    }

    /// How many times the floor.
    pub fn ratio(&self) -> Option<f64> {
        self.floor.map(|(floor, _)| self.value / floor)
    }
}

/// A hub on an empty folder, for one benchmark.
pub struct Bench {
    pub hub: Hub,
    folder: tempfile::TempDir,
}

impl Bench {
    /// Starts a hub with its data below `below`: a folder on a real disk, for a durable write in memory costs nothing.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start(below: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(below)?;
        let folder = tempfile::Builder::new().prefix("run-").tempdir_in(below)?;
        std::fs::create_dir_all(folder.path().join("logs"))?;
        let hub = Hub::start(&folder.path().join("hub"), &folder.path().join("logs")).await?;
        Ok(Self { hub, folder })
    }

    /// Joins an edge to everything of the benchmarks and starts it, behind a network that counts.
    ///
    /// # Errors
    /// When it cannot join or does not start.
    pub async fn edge(&self, name: &str) -> anyhow::Result<(Edge, Proxy)> {
        let body =
            json!({"name": name, "namespaces": [FOLDER], "environments": [ENVIRONMENT], "write": [FOLDER]});
        let reply = self.hub.api.expect("POST", "/api/v1/join-tokens", Some(&body)).await?.json();
        let token = reply["token"].as_str().context("the hub gave no join token")?;
        let proxy = Proxy::start(self.hub.sync_address()).await?;
        let options = EdgeOptions {
            name,
            data: &self.folder.path().join(name),
            logs: &self.folder.path().join("logs"),
            sockets: &self.sockets()?,
            hub: proxy.address(),
            ca: &self.hub.ca_file(),
            join_token: token,
        };
        Ok((Edge::join(options).await?, proxy))
    }

    /// A short path: a socket's has at most 107 bytes.
    fn sockets(&self) -> anyhow::Result<PathBuf> {
        let folder = std::env::temp_dir().join(format!("llmcb-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    /// Writes operations, each given as JSON text, through bulk requests of at most 500.
    ///
    /// # Errors
    /// When the hub refuses one.
    pub async fn bulk(&self, operations: &[String]) -> anyhow::Result<()> {
        const TARGET: &str = "/api/v1/configs/bulk";
        for batch in operations.chunks(500) {
            let body = format!("{{\"operations\":[{}],\"atomic\":true}}", batch.join(","));
            self.hub.api.send("POST", TARGET, Some(body)).await?.welcome("POST", TARGET)?;
        }
        Ok(())
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(std::env::temp_dir().join(format!("llmcb-{}", std::process::id())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_knows_its_ratio() {
        let figure = Figure::plain("x", 3.0, "ms").over(2.0, "floor");
        assert_eq!(figure.ratio(), Some(1.5));
        assert_eq!(Figure::plain("x", 3.0, "ms").ratio(), None);
    }
}
