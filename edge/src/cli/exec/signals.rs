//! Signals that are sent to us and meant for the process.

use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::super::exit::Failure;

/// What is passed on.
const PASSED_ON: [Signal; 7] =
    [Signal::TERM, Signal::INT, Signal::QUIT, Signal::HUP, Signal::USR1, Signal::USR2, Signal::WINCH];

/// Signals in the order in which they came.
pub(super) struct Signals(mpsc::UnboundedReceiver<Signal>);

impl Signals {
    /// From now on, signals no longer do to us what they do to other programs.
    ///
    /// # Errors
    /// When the system refuses it.
    pub(super) fn take() -> Result<Self, Failure> {
        let (sender, received) = mpsc::unbounded_channel();
        for passed in PASSED_ON {
            let refused =
                |error| Failure::failed(format!("cannot receive signal {}: {error}", passed.as_raw()));
            let mut stream = signal(SignalKind::from_raw(passed.as_raw())).map_err(refused)?;
            let sender = sender.clone();
            tokio::spawn(
                async move { while stream.recv().await.is_some() && sender.send(passed).is_ok() {} },
            );
        }
        Ok(Self(received))
    }

    pub(super) async fn next(&mut self) -> Signal {
        match self.0.recv().await {
            Some(signal) => signal,
            // The tasks that send live as long as the runtime.
            None => std::future::pending().await,
        }
    }
}

/// Whether the terminal itself sends a signal to every process in its foreground.
pub(super) fn comes_from_terminal(signal: Signal) -> bool {
    matches!(signal, Signal::INT | Signal::QUIT | Signal::WINCH)
}

/// `HUP`, `SIGHUP` or `hup`.
///
/// # Errors
/// When it is none of those that are passed on.
pub(super) fn by_name(name: &str) -> Result<Signal, String> {
    let upper = name.to_ascii_uppercase();
    match upper.strip_prefix("SIG").unwrap_or(&upper) {
        "TERM" => Ok(Signal::TERM),
        "INT" => Ok(Signal::INT),
        "QUIT" => Ok(Signal::QUIT),
        "HUP" => Ok(Signal::HUP),
        "USR1" => Ok(Signal::USR1),
        "USR2" => Ok(Signal::USR2),
        _ => Err(format!("{name} is none of HUP, INT, QUIT, TERM, USR1, USR2")),
    }
}
