//! Canonical JSON: one text for one value, so that a hash names it on every replica.
//!
//! Input is RFC 8259. The canonical form has no white space, members sorted by key (byte order of UTF-8), 64-bit
//! integers exactly as written, other numbers as the shortest text that reads back as the same 64-bit float, and only
//! the escapes that JSON demands. `1` and `1.0` stay different values. Duplicate members are refused by name.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::limits::{VALUE_BYTES_MAX, VALUE_DEPTH_MAX};

/// A JSON value in canonical form, within the limits.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Value(Arc<str>);

/// Why a text is not a value. `at` is a byte offset.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidValue {
    #[error("value is not JSON: unexpected {found} at byte {at}")]
    Syntax { found: String, at: usize },
    #[error("value has {length} bytes; at most {max} are allowed", max = VALUE_BYTES_MAX)]
    TooLarge { length: usize },
    #[error("value nests deeper than {max} levels", max = VALUE_DEPTH_MAX)]
    TooDeep,
    #[error("number {text} does not fit into 64 bits")]
    Number { text: String },
    #[error("member {member:?} appears twice in one object")]
    Duplicate { member: String },
}

impl Value {
    /// Reads any JSON text.
    ///
    /// # Errors
    /// When it is not JSON, repeats a member, nests too deep, has a number beyond 64 bits, or is too large.
    pub fn parse(text: &str) -> Result<Self, InvalidValue> {
        // White space and escapes may shrink, but never without end: a bound before any work is done.
        if text.len() > 6 * VALUE_BYTES_MAX {
            return Err(InvalidValue::TooLarge { length: text.len() });
        }
        let mut parser = Parser { text, at: 0, depth: 0, out: String::with_capacity(text.len()) };
        parser.value()?;
        parser.white_space();
        if parser.at < text.len() {
            return Err(parser.unexpected());
        }
        if parser.out.len() > VALUE_BYTES_MAX {
            return Err(InvalidValue::TooLarge { length: parser.out.len() });
        }
        Ok(Self(parser.out.into()))
    }

    /// A JSON string holding `text`.
    ///
    /// # Errors
    /// When it is too large.
    pub fn string(text: &str) -> Result<Self, InvalidValue> {
        let mut out = String::with_capacity(text.len() + 2);
        write_string(text, &mut out);
        if out.len() > VALUE_BYTES_MAX {
            return Err(InvalidValue::TooLarge { length: out.len() });
        }
        Ok(Self(out.into()))
    }

    /// The canonical text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text inside a JSON string, or none when the value is something else.
    pub fn as_text(&self) -> Option<String> {
        serde_json::from_str(&self.0).ok()
    }

    /// SHA-256 of the canonical text.
    pub fn hash(&self) -> [u8; 32] {
        let digest = ring::digest::digest(&ring::digest::SHA256, self.0.as_bytes());
        digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
    }
}

impl fmt::Debug for Value {
    /// Values are never printed: they may hold what nobody meant to log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Value({} bytes)", self.0.len())
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    out: String,
}

impl Parser<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn unexpected(&self) -> InvalidValue {
        let found = match self.text.get(self.at..).and_then(|rest| rest.chars().next()) {
            Some(character) => format!("{character:?}"),
            None => "end".to_owned(),
        };
        InvalidValue::Syntax { found, at: self.at }
    }

    fn white_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8) -> Result<(), InvalidValue> {
        if self.peek() != Some(byte) {
            return Err(self.unexpected());
        }
        self.at += 1;
        Ok(())
    }

    fn value(&mut self) -> Result<(), InvalidValue> {
        self.white_space();
        match self.peek() {
            Some(b'{') => self.nested(Self::object),
            Some(b'[') => self.nested(Self::array),
            Some(b'"') => {
                let text = self.string()?;
                write_string(&text, &mut self.out);
                Ok(())
            }
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.literal("true"),
            Some(b'f') => self.literal("false"),
            Some(b'n') => self.literal("null"),
            _ => Err(self.unexpected()),
        }
    }

    fn nested(&mut self, inner: fn(&mut Self) -> Result<(), InvalidValue>) -> Result<(), InvalidValue> {
        self.depth += 1;
        if self.depth > VALUE_DEPTH_MAX {
            return Err(InvalidValue::TooDeep);
        }
        self.at += 1;
        inner(self)?;
        self.depth -= 1;
        Ok(())
    }

    fn literal(&mut self, word: &'static str) -> Result<(), InvalidValue> {
        if !self.text[self.at..].starts_with(word) {
            return Err(self.unexpected());
        }
        self.at += word.len();
        self.out.push_str(word);
        Ok(())
    }

    fn array(&mut self) -> Result<(), InvalidValue> {
        self.out.push('[');
        self.white_space();
        if self.peek() == Some(b']') {
            self.at += 1;
            self.out.push(']');
            return Ok(());
        }
        loop {
            self.value()?;
            self.white_space();
            match self.peek() {
                Some(b',') => {
                    self.at += 1;
                    self.out.push(',');
                }
                Some(b']') => {
                    self.at += 1;
                    self.out.push(']');
                    return Ok(());
                }
                _ => return Err(self.unexpected()),
            }
        }
    }

    fn object(&mut self) -> Result<(), InvalidValue> {
        // Members are written behind what stands already, taken off again, and put back in order.
        let mut members: BTreeMap<String, String> = BTreeMap::new();
        self.white_space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            self.out.push_str("{}");
            return Ok(());
        }
        loop {
            self.white_space();
            if self.peek() != Some(b'"') {
                return Err(self.unexpected());
            }
            let member = self.string()?;
            self.white_space();
            self.expect(b':')?;
            let start = self.out.len();
            self.value()?;
            let value = self.out.split_off(start);
            if members.contains_key(&member) {
                return Err(InvalidValue::Duplicate { member });
            }
            members.insert(member, value);
            self.white_space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => break,
                _ => return Err(self.unexpected()),
            }
        }
        self.at += 1;
        for (n, (member, value)) in members.iter().enumerate() {
            self.out.push(if n == 0 { '{' } else { ',' });
            write_string(member, &mut self.out);
            self.out.push(':');
            self.out.push_str(value);
        }
        self.out.push('}');
        Ok(())
    }

    fn number(&mut self) -> Result<(), InvalidValue> {
        let start = self.at;
        let mut integer = true;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        let first = self.peek();
        let digits = self.digits()?;
        if first == Some(b'0') && digits > 1 {
            self.at = start;
            return Err(self.unexpected());
        }
        if self.peek() == Some(b'.') {
            integer = false;
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            integer = false;
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        let text = &self.text[start..self.at];
        match canonical_number(text, integer) {
            Some(canonical) => {
                self.out.push_str(&canonical);
                Ok(())
            }
            None => Err(InvalidValue::Number { text: text.chars().take(40).collect() }),
        }
    }

    fn digits(&mut self) -> Result<usize, InvalidValue> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start { Err(self.unexpected()) } else { Ok(self.at - start) }
    }

    /// Reads a string without its quotes and escapes.
    fn string(&mut self) -> Result<String, InvalidValue> {
        self.expect(b'"')?;
        let mut text = String::new();
        loop {
            let rest = &self.text[self.at..];
            let Some(stop) = rest.bytes().position(|byte| byte == b'"' || byte == b'\\' || byte < 0x20)
            else {
                self.at = self.text.len();
                return Err(self.unexpected());
            };
            text.push_str(&rest[..stop]);
            self.at += stop;
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(text);
                }
                Some(b'\\') => text.push(self.escape()?),
                _ => return Err(self.unexpected()),
            }
        }
    }

    fn escape(&mut self) -> Result<char, InvalidValue> {
        self.at += 1;
        let character = match self.peek() {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode_escape(),
            _ => return Err(self.unexpected()),
        };
        self.at += 1;
        Ok(character)
    }

    fn unicode_escape(&mut self) -> Result<char, InvalidValue> {
        let high = self.hex4()?;
        if !(0xd800..0xdc00).contains(&high) {
            // A lone low surrogate is no character.
            return char::from_u32(high).ok_or_else(|| self.unexpected());
        }
        if self.peek() != Some(b'\\') || self.text.as_bytes().get(self.at + 1) != Some(&b'u') {
            return Err(self.unexpected());
        }
        self.at += 1;
        let low = self.hex4()?;
        if !(0xdc00..0xe000).contains(&low) {
            return Err(self.unexpected());
        }
        char::from_u32(0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00)).ok_or_else(|| self.unexpected())
    }

    /// The four digits behind `u`, which is the current byte.
    fn hex4(&mut self) -> Result<u32, InvalidValue> {
        self.at += 1;
        let digits = self.text.as_bytes().get(self.at..self.at + 4).ok_or_else(|| self.unexpected())?;
        let mut code = 0;
        for digit in digits {
            code = code * 16 + char::from(*digit).to_digit(16).ok_or_else(|| self.unexpected())?;
        }
        self.at += 4;
        Ok(code)
    }
}

fn canonical_number(text: &str, integer: bool) -> Option<String> {
    if integer && text != "-0" {
        let fits = text.parse::<i64>().is_ok() || text.parse::<u64>().is_ok();
        return fits.then(|| text.to_owned());
    }
    let number: f64 = text.parse().ok()?;
    // Debug formatting is the shortest text that reads back the same, and always has a point or an exponent.
    number.is_finite().then(|| format!("{number:?}"))
}

fn write_string(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            control if (control as u32) < 0x20 => out.push_str(&format!("\\u{:04x}", control as u32)),
            other => out.push(other),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(text: &str) -> String {
        Value::parse(text).unwrap().as_str().to_owned()
    }

    #[test]
    fn members_are_sorted_and_white_space_goes() {
        assert_eq!(canonical(" { \"b\" : [ 1 , {} ] , \"a\" : null } "), r#"{"a":null,"b":[1,{}]}"#);
        assert_eq!(canonical(r#"{"é":1,"z":{"y":1,"x":2}}"#), r#"{"z":{"x":2,"y":1},"é":1}"#);
    }

    #[test]
    fn integers_stay_exact_and_floats_take_their_shortest_form() {
        assert_eq!(canonical("9007199254740993"), "9007199254740993");
        assert_eq!(canonical("18446744073709551615"), "18446744073709551615");
        assert_eq!(canonical("-9223372036854775808"), "-9223372036854775808");
        assert_eq!(canonical("0.70"), "0.7");
        assert_eq!(canonical("1.0"), "1.0");
        assert_eq!(canonical("5e-324"), "5e-324");
        for beyond in ["18446744073709551616", "-9223372036854775809", "1e999"] {
            assert!(matches!(Value::parse(beyond), Err(InvalidValue::Number { .. })), "{beyond}");
        }
    }

    #[test]
    fn escapes_are_resolved_and_only_the_needed_ones_come_back() {
        assert_eq!(canonical(r#""\u0041\/\ud83d\ude00\n\u0001""#), "\"A/😀\\n\\u0001\"");
        assert_eq!(Value::string("a\"b").unwrap().as_text().as_deref(), Some("a\"b"));
    }

    #[test]
    fn what_is_not_json_is_refused_with_its_place() {
        for text in
            ["", "nul", "01", "1.", "[1,]", "{\"a\"}", "\"\\x\"", "\"\\ud800\"", "\"\u{1}\"", "1 2", "{,}"]
        {
            assert!(matches!(Value::parse(text), Err(InvalidValue::Syntax { .. })), "{text:?}");
        }
        assert_eq!(
            Value::parse(r#"{"a":1,"b":2,"a":3}"#),
            Err(InvalidValue::Duplicate { member: "a".into() })
        );
        let deep = "[".repeat(33) + &"]".repeat(33);
        assert_eq!(Value::parse(&deep), Err(InvalidValue::TooDeep));
        assert!(Value::parse(&deep[1..deep.len() - 1]).is_ok());
        let large = format!("\"{}\"", "x".repeat(VALUE_BYTES_MAX));
        assert!(matches!(Value::parse(&large), Err(InvalidValue::TooLarge { .. })));
    }
}
