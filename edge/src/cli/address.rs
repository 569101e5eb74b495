//! The address of a route: one percent-encoded segment for each name, and a query of what was given.

use std::fmt::Write as _;

/// The path and query of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    text: String,
    queried: bool,
}

impl Address {
    /// `/api/v1` and the segments below it.
    pub(crate) fn new(segments: &[&str]) -> Self {
        let mut text = String::from("/api/v1");
        for segment in segments {
            text.push('/');
            encode(segment, &mut text);
        }
        Self { text, queried: false }
    }

    /// The entry `key` of `namespace`, or a part of it such as its history.
    pub(crate) fn entry(namespace: &str, key: &str, part: &[&str]) -> Self {
        Self::new(&[&["configs", namespace, key], part].concat())
    }

    /// With `name=value` in the query.
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.text.push(if self.queried { '&' } else { '?' });
        self.queried = true;
        self.text.push_str(name);
        self.text.push('=');
        encode(value, &mut self.text);
        self
    }

    /// With `name=value` when there is one.
    pub(crate) fn with_some(self, name: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// With `name=true` when it holds.
    pub(crate) fn with_flag(self, name: &str, holds: bool) -> Self {
        if holds { self.with(name, "true") } else { self }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }
}

fn encode(text: &str, out: &mut String) {
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte.into()),
            other => {
                let _ = write!(out, "%{other:02X}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_one_segment_and_query_values_stay_whole() {
        let address = Address::entry("app/llm", "azure/gpt-4:v1*@ü", &["history"])
            .with_some("env", Some("a&b=c"))
            .with_some("cursor", None)
            .with_flag("recursive", true)
            .with_flag("resolve", false);
        assert_eq!(
            address.as_str(),
            "/api/v1/configs/app%2Fllm/azure%2Fgpt-4%3Av1%2A%40%C3%BC/history?env=a%26b%3Dc&recursive=true"
        );
    }
}
