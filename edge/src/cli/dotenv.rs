//! The dotenv form: `NAME=value` lines, comments, single and double quotes. Every value is text.

use std::fmt::Write as _;

use super::document::Member;

/// The variables of a dotenv file, in order. Line breaks inside double quotes are kept.
pub(super) fn members(text: &str) -> Result<Vec<Member>, String> {
    let mut members = Vec::new();
    let mut rest = text;
    let mut line = 1;
    while !rest.is_empty() {
        let (statement, after) = split_statement(rest).map_err(|why| format!("line {line}: {why}"))?;
        if let Some((name, value)) = variable(statement).map_err(|why| format!("line {line}: {why}"))? {
            members.push((name, serde_json::Value::String(value).to_string()));
        }
        line += statement.matches('\n').count() + 1;
        rest = after;
    }
    Ok(members)
}

/// Cuts after the line, or after the last line of a quoted value that goes on.
fn split_statement(text: &str) -> Result<(&str, &str), String> {
    let line_end = text.find('\n').unwrap_or(text.len());
    let opened = match text[..line_end].split_once('=') {
        Some((name, value)) if !name.trim_start().starts_with('#') => {
            let value_at = line_end - value.len() + (value.len() - value.trim_start().len());
            text[value_at..]
                .chars()
                .next()
                .filter(|first| matches!(first, '"' | '\''))
                .map(|quote| (value_at, quote))
        }
        _ => None,
    };
    let end = match opened {
        None => line_end,
        Some((at, quote)) => {
            let close = closing(&text[at + 1..], quote).ok_or("a quoted value is not closed")?;
            let from = at + 1 + close;
            text[from..].find('\n').map_or(text.len(), |more| from + more)
        }
    };
    Ok((&text[..end], text.get(end + 1..).unwrap_or("")))
}

/// Where the closing quote stands. Only double quotes know escapes.
fn closing(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' if quote == '"' => escaped = true,
            _ if character == quote => return Some(at),
            _ => {}
        }
    }
    None
}

fn variable(statement: &str) -> Result<Option<(String, String)>, String> {
    let statement = statement.trim();
    if statement.is_empty() || statement.starts_with('#') {
        return Ok(None);
    }
    let statement = statement.strip_prefix("export ").unwrap_or(statement);
    let Some((name, value)) = statement.split_once('=') else {
        return Err("expected NAME=value".into());
    };
    let name = name.trim();
    if !is_name(name) {
        return Err(format!("{name:?} is no variable name; use letters, digits and `_`"));
    }
    let value = value.trim();
    let quote = value.chars().next().filter(|first| matches!(first, '"' | '\''));
    let text = match quote {
        None => value.split_once(" #").map_or(value, |(before, _)| before.trim_end()).to_owned(),
        Some(quote) => {
            let close = closing(&value[1..], quote).ok_or("a quoted value is not closed")?;
            let after = value[close + 2..].trim();
            if !after.is_empty() && !after.starts_with('#') {
                return Err(format!("unexpected text behind the quoted value of {name}"));
            }
            let inside = &value[1..=close];
            if quote == '"' { unescaped(inside) } else { inside.to_owned() }
        }
    };
    Ok(Some((name.to_owned(), text)))
}

fn unescaped(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            plain.push(character);
            continue;
        }
        match characters.next() {
            Some('n') => plain.push('\n'),
            Some('r') => plain.push('\r'),
            Some('t') => plain.push('\t'),
            Some(other @ ('"' | '\\' | '$')) => plain.push(other),
            Some(other) => plain.extend(['\\', other]),
            None => plain.push('\\'),
        }
    }
    plain
}

/// Whether a shell would take `name` as a variable.
pub(super) fn is_name(name: &str) -> bool {
    let mut characters = name.chars();
    characters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && characters.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// One line, or a quoted value over several, that [`members`] reads back to the same text.
pub(super) fn write(name: &str, text: &str, out: &mut String) {
    let _ = writeln!(out, "{name}={}", quoted(text));
}

/// The right side of such a line: as it is if nothing in it means anything else, or in double quotes.
pub(super) fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' | '$' => quoted.extend(['\\', character]),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(String, String)> {
        let plain = |json: String| serde_json::from_str::<String>(&json).unwrap();
        members(text).unwrap().into_iter().map(|(name, json)| (name, plain(json))).collect()
    }

    #[test]
    fn quotes_comments_and_exports_are_understood() {
        let text = "# top\nA=1\nexport B = two # note\nC='a # b\\n'\nD=\"x\\ny\"\nE=\n\nF=\"one\ntwo\" # end\nG=a#b\r\n";
        let told = read(text);
        let expected = [
            ("A", "1"),
            ("B", "two"),
            ("C", "a # b\\n"),
            ("D", "x\ny"),
            ("E", ""),
            ("F", "one\ntwo"),
            ("G", "a#b"),
        ];
        assert_eq!(told, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        assert!(members("A=1\nnonsense\n").unwrap_err().starts_with("line 2: expected NAME=value"));
        assert!(members("A=\"x\ny\"\n1B=2").unwrap_err().starts_with("line 3"));
        assert!(members("A=\"never closed\nB=1").unwrap_err().contains("not closed"));
        assert!(members("A='x' y").unwrap_err().contains("behind the quoted value"));
    }

    #[test]
    fn what_is_written_reads_back_the_same() {
        for text in ["", "plain", "two words", "a\"b\\c$d", "line\nbreak\ttab\r", "#no comment", " edge "] {
            let mut out = String::new();
            write("NAME", text, &mut out);
            assert_eq!(read(&out), [("NAME".to_owned(), text.to_owned())], "{out}");
        }
    }
}
