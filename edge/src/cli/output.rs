//! What goes to the terminal or into a pipe: tables for people, JSON for programs, notes on stderr.

use std::io::{self, IsTerminal, Write};

use comfy_table::{ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::exit::Failure;

/// Writes `text` and a line end to stdout. A reader that went away (`| head`) is no failure of the command.
pub(crate) fn line(text: impl AsRef<str>) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{}", text.as_ref()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::failed(format!("cannot write to stdout: {error}")))
        }
        _ => Ok(()),
    }
}

/// Writes a note for a person to stderr. Nothing that a program needs goes here.
pub(crate) fn note(text: impl AsRef<str>) {
    // Nobody is left to tell when stderr is gone.
    let _ = writeln!(io::stderr().lock(), "{}", text.as_ref());
}

/// A note that only somebody at a terminal gets.
pub(crate) fn hint(text: impl AsRef<str>) {
    if io::stderr().is_terminal() {
        note(text);
    }
}

/// Whether a person looks at stdout.
pub(crate) fn to_person() -> bool {
    io::stdout().is_terminal()
}

/// A table with a head. On a terminal it has rules and wraps; in a pipe it is columns of plain text.
pub(crate) fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> Result<(), Failure> {
    let mut rows = rows.into_iter().peekable();
    if rows.peek().is_none() {
        hint("nothing found");
        return Ok(());
    }
    if !to_person() {
        for row in rows {
            let cells: Vec<_> = row.iter().map(|cell| cell.replace(['\t', '\n', '\r'], " ")).collect();
            line(cells.join("\t"))?;
        }
        return Ok(());
    }
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
    // The table itself cannot ask the terminal: its `tty` feature is left off.
    let (_, columns) = console::Term::stdout().size();
    table.set_width(columns).set_header(head);
    for row in rows {
        table.add_row(row);
    }
    line(table.to_string())
}

/// `text` cut to at most `most` characters, with a sign that something is missing.
pub(crate) fn shortened(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// A bar on a terminal's stderr, nothing in a pipe.
pub(crate) fn progress(length: u64, verb: &'static str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {elapsed}")
        .expect("the template is constant");
    bar.set_style(style);
    bar.set_message(verb);
    bar
}

/// A duration as people say it: `4 s`, `3 min`, `2 h`, `5 d`.
pub(crate) fn age(milliseconds: u64) -> String {
    match milliseconds / 1_000 {
        0 => format!("{milliseconds} ms"),
        s @ 1..=119 => format!("{s} s"),
        s @ 120..=7_199 => format!("{} min", s / 60),
        s @ 7_200..=172_799 => format!("{} h", s / 3_600),
        s => format!("{} d", s / 86_400),
    }
}

/// A number with separators every three digits.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// So many of a thing, in words: `one` of them is called so, more or none `many`.
pub(crate) fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thing_is_not_called_many() {
        let words = [0, 1, 2, 1_000].map(|number| counted(number, "entry", "entries"));
        assert_eq!(words, ["0 entries", "1 entry", "2 entries", "1,000 entries"]);
    }

    #[test]
    fn numbers_and_ages_read_well() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(2_708), "2,708");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(age(12), "12 ms");
        assert_eq!(age(119_000), "119 s");
        assert_eq!(age(7_200_000), "2 h");
    }

    #[test]
    fn cutting_never_splits_a_character() {
        assert_eq!(shortened("äöü", 3), "äöü");
        assert_eq!(shortened("äöüß", 2), "äö…");
    }
}
