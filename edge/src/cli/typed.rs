//! What a person types, or a program sends, instead of putting it on the command line.

use std::io::{IsTerminal as _, Read as _};

use super::exit::Failure;

/// A line typed without an echo where stdin is a terminal, else all of stdin.
///
/// # Errors
/// When it cannot be read, or nothing was typed.
pub(crate) fn hidden(prompt: &str) -> Result<String, Failure> {
    if !std::io::stdin().is_terminal() {
        return stdin_text();
    }
    let terminal = console::Term::stderr();
    let failed = |error| Failure::failed(format!("cannot read from the terminal: {error}"));
    terminal.write_str(prompt).map_err(failed)?;
    let text = terminal.read_secure_line().map_err(failed)?;
    if text.is_empty() { Err(Failure::usage("nothing was typed; nothing was done")) } else { Ok(text) }
}

/// Stdin whole, without the line end that every editor and `echo` leave.
///
/// # Errors
/// When it is not text.
pub(crate) fn stdin_text() -> Result<String, Failure> {
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .map_err(|error| Failure::usage(format!("stdin is not text: {error}")))?;
    let cut =
        text.strip_suffix('\n').map_or(text.len(), |rest| rest.strip_suffix('\r').unwrap_or(rest).len());
    text.truncate(cut);
    Ok(text)
}
