//! What is possible at least: a bare axum on a Unix socket, in a process of its own, answering 400 constant bytes.

use std::path::Path;

use anyhow::Context as _;
use axum::Router;
use axum::http::header;
use axum::response::IntoResponse as _;
use axum::routing::get;
use tokio::net::UnixListener;
use tokio::process::{Child, Command};

/// Bytes of the constant answer.
const ANSWER_BYTES: usize = 400;

/// Serves the constant answer for every entry until it is ended.
///
/// # Errors
/// When the socket cannot be bound.
pub async fn serve(socket: &Path) -> anyhow::Result<()> {
    let head = r#"{"namespace":"bench","key":"constant","value":""#;
    let body = format!("{head}{}\"}}", "x".repeat(ANSWER_BYTES - head.len() - 2));
    let answer = move || {
        let body = body.clone();
        async move { ([(header::CONTENT_TYPE, "application/json")], body).into_response() }
    };
    let router = Router::new().route("/api/v1/configs/{namespace}/{key}", get(answer));
    let listener = UnixListener::bind(socket).with_context(|| format!("cannot bind {}", socket.display()))?;
    axum::serve(listener, router).await.context("the floor cannot serve")
}

/// Starts [`serve`] as a process of its own: this program with the hidden argument.
///
/// # Errors
/// When it does not start.
pub async fn start(socket: &Path) -> anyhow::Result<Child> {
    let child =
        Command::new(std::env::current_exe()?).arg("--serve-floor").arg(socket).kill_on_drop(true).spawn()?;
    for _ in 0..500 {
        if tokio::net::UnixStream::connect(socket).await.is_ok() {
            return Ok(child);
        }
        tokio::time::sleep(crate::process::LOOK_AGAIN).await;
    }
    anyhow::bail!("the floor does not answer on {}", socket.display())
}
