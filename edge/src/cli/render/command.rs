//! The command that hears of new files.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::Command;

use super::super::exit::Failure;

/// Runs a line in a shell and waits for its end, which comes by force after `timeout`.
///
/// # Errors
/// When it does not end well.
pub(super) async fn run(line: &str, timeout: Duration) -> Result<(), Failure> {
    let mut shell = Command::new("sh");
    shell.args(["-c", line]).stdin(Stdio::null()).process_group(0).env_remove("LLM_CONFIG_TOKEN");
    let mut child =
        shell.spawn().map_err(|error| Failure::failed(format!("cannot run the command: {error}")))?;
    let number = child.id().and_then(|number| i32::try_from(number).ok()).and_then(Pid::from_raw);
    match tokio::time::timeout(timeout, child.wait()).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(Failure::failed(format!("the command failed: {status}"))),
        Ok(Err(error)) => Err(Failure::failed(format!("cannot wait for the command: {error}"))),
        Err(_) => {
            // What it started is ended with it; it fails only if nothing of it is left.
            let _ = number.map(|number| kill_process_group(number, Signal::KILL));
            let _ = child.wait().await;
            Err(Failure::failed(format!(
                "the command took longer than {} s and was killed",
                timeout.as_secs_f64()
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_command_succeeds_fails_or_is_killed() {
        let minute = Duration::from_secs(60);
        assert_eq!(run("true", minute).await, Ok(()));
        assert!(run("exit 3", minute).await.unwrap_err().message.contains('3'));
        let told = run("sleep 600 & wait", Duration::from_millis(50)).await.unwrap_err();
        assert!(told.message.contains("was killed"), "{told}");
    }
}
