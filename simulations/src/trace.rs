//! What happened, in order, as one number: equal seeds give equal numbers. Lines are kept only when asked for.

use std::fmt::{Arguments, Write};

/// FNV-1a (Fowler, Noll and Vo) over every line.
#[derive(Debug)]
pub struct Trace {
    hash: u64,
    lines: Option<Vec<String>>,
    line: String,
}

impl Trace {
    pub fn new(keep_lines: bool) -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, lines: keep_lines.then(Vec::new), line: String::new() }
    }

    /// Adds a line.
    pub fn write(&mut self, now: u64, what: Arguments<'_>) {
        self.line.clear();
        write!(self.line, "{now:>9} {what}").expect("a String takes everything");
        for byte in self.line.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if let Some(lines) = &mut self.lines {
            lines.push(self.line.clone());
        }
    }

    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The lines, if they were kept.
    pub fn into_lines(self) -> Vec<String> {
        self.lines.unwrap_or_default()
    }
}
