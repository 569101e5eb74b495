//! What the quickstart prints: numbered steps with figures, each with the facts that were checked.

use std::io::Write as _;

/// Prints a line. Nobody is left to tell when stdout is gone.
pub fn say(text: impl AsRef<str>) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{}", text.as_ref()).and_then(|()| out.flush());
}

/// The story so far: steps told, facts checked.
#[derive(Debug, Default)]
pub struct Report {
    steps: usize,
    checked: usize,
    failed: Vec<String>,
}

impl Report {
    /// Begins a step.
    pub fn step(&mut self, title: &str) {
        self.steps += 1;
        say(format!("\n{:2}. {title}", self.steps));
    }

    /// A figure of this step.
    pub fn figure(&self, text: impl AsRef<str>) {
        say(format!("      {}", text.as_ref()));
    }

    /// A fact that holds or not.
    pub fn check(&mut self, fact: impl Into<String>, holds: bool) {
        let fact = fact.into();
        self.checked += 1;
        if holds {
            say(format!("    ✓ {fact}"));
        } else {
            say(format!("    ✗ NOT SO: {fact}"));
            self.failed.push(fact);
        }
    }

    /// How many facts were checked, and which did not hold.
    pub fn outcome(&self) -> (usize, &[String]) {
        (self.checked, &self.failed)
    }
}

/// A number with separators every three digits.
pub fn count(number: usize) -> String {
    let digits = number.to_string();
    let groups: Vec<_> =
        digits.as_bytes().rchunks(3).rev().map(|group| String::from_utf8_lossy(group)).collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fact_that_does_not_hold_is_kept() {
        let mut report = Report::default();
        report.check("so", true);
        report.check("not so", false);
        assert_eq!(report.outcome(), (2, &["not so".to_owned()][..]));
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!([0, 999, 2_708, 1_234_567].map(count), ["0", "999", "2,708", "1,234,567"]);
    }
}
