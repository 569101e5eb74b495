//! A new value from a command that hub.toml names: no shell, nothing secret in its arguments or environment, bounded in time
//! and output.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use llm_config_shared::limits::VALUE_BYTES_MAX;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;
use zeroize::Zeroizing;

use super::produce::NotProduced;

/// Longer no command takes.
const TIME_MAX: Duration = Duration::from_secs(60);

/// Runs the command with `told` on its stdin; what it writes to its stdout is the new value, without the line end.
///
/// # Errors
/// When it fails, takes too long or says too much. What it wrote to stderr is not kept: it may hold anything.
pub(super) async fn run(
    name: &Arc<str>,
    words: &[String],
    told: Zeroizing<Vec<u8>>,
) -> Result<Zeroizing<String>, NotProduced> {
    let failed = |what: String| NotProduced::Command { name: Arc::clone(name), what };
    let (program, args) = words.split_first().ok_or_else(|| failed("is empty".to_owned()))?;
    let mut command = Command::new(program);
    command.args(args).env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    // What it started itself is not ours to end; the command is.
    let child = command.kill_on_drop(true).spawn();
    let mut child = child.map_err(|error| failed(format!("cannot be run: {error}")))?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let talking = async {
        let telling = async {
            if let Some(mut stdin) = stdin {
                // A command that does not want to know closes its end.
                let _ = stdin.write_all(&told).await;
            }
        };
        let mut said = Zeroizing::new(Vec::new());
        let listening = async {
            let Some(stdout) = stdout else { return Ok(0) };
            stdout.take(VALUE_BYTES_MAX as u64 + 2).read_to_end(&mut said).await
        };
        let ((), heard) = tokio::join!(telling, listening);
        heard.map_err(|error| failed(format!("cannot be heard: {error}")))?;
        let ended = child.wait().await.map_err(|error| failed(format!("cannot be waited for: {error}")))?;
        if ended.success() { Ok(said) } else { Err(failed(format!("failed: {ended}"))) }
    };
    let said = tokio::time::timeout(TIME_MAX, talking).await;
    let said = said.map_err(|_| failed(format!("took longer than {} s", TIME_MAX.as_secs())))??;
    let text = std::str::from_utf8(&said).map_err(|_| failed("said what is no text".to_owned()))?;
    let text = text.strip_suffix('\n').map_or(text, |rest| rest.strip_suffix('\r').unwrap_or(rest));
    match text.len() {
        0 => Err(failed("said nothing".to_owned())),
        length if length > VALUE_BYTES_MAX => Err(failed("said more than a value may hold".to_owned())),
        _ => Ok(Zeroizing::new(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn say(script: &str, told: &str) -> Result<String, String> {
        let words = ["sh", "-c", script].map(str::to_owned);
        let said = run(&"c".into(), &words, Zeroizing::new(told.as_bytes().to_vec())).await;
        said.map(|text| text.to_string()).map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn what_a_command_says_is_the_value_and_what_it_hears_is_on_stdin() {
        assert_eq!(say("read line; echo \"new-$line\"", "old\n").await.as_deref(), Ok("new-old"));
        assert_eq!(say("echo 'two'; echo 'lines'", "").await.as_deref(), Ok("two\nlines"));
        assert_eq!(
            say("env | grep -cv -e ^PATH= -e ^PWD= -e ^_= -e ^SHLVL=; true", "").await.as_deref(),
            Ok("0")
        );
    }

    #[tokio::test]
    async fn a_command_that_fails_says_nothing_or_too_much_is_none() {
        assert!(
            say("echo canary; echo canary >&2; exit 3", "").await.is_err_and(|why| !why.contains("canary"))
        );
        assert!(say("true", "").await.unwrap_err().contains("said nothing"));
        let refused = say("yes | head -c 2000000; exit 0", "").await.unwrap_err();
        assert!(refused.contains("more than a value") || refused.contains("failed"), "{refused}");
        let words = ["/no/such/program".to_owned()];
        assert!(run(&"c".into(), &words, Zeroizing::default()).await.is_err());
    }
}
