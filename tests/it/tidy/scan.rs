//! Splits Rust source into code, comments and the text of literals, line for line, well enough for rules about words.

/// Three pictures of one file. Each has the file's lines and columns; what belongs to another layer is blank.
pub(super) struct Layers {
    pub(super) code: String,
    pub(super) comments: String,
    pub(super) text: String,
}

#[derive(Clone, Copy, PartialEq)]
enum Layer {
    Code,
    Comment,
    Text,
}

/// Splits a file. Understands line and nested block comments, plain, byte and raw strings, and characters.
pub(super) fn layers(source: &str) -> Layers {
    let chars: Vec<char> = source.chars().collect();
    let mut layer_of = vec![Layer::Code; chars.len()];
    let mut at = 0;
    while at < chars.len() {
        let (layer, end) = token(&chars, at);
        layer_of[at..end].fill(layer);
        at = end;
    }
    let picture = |wanted: Layer| {
        let keep = |(&c, &layer): (&char, &Layer)| if c == '\n' || layer == wanted { c } else { ' ' };
        chars.iter().zip(&layer_of).map(keep).collect()
    };
    Layers { code: picture(Layer::Code), comments: picture(Layer::Comment), text: picture(Layer::Text) }
}

/// The layer of what starts at a place, and where it ends.
fn token(chars: &[char], at: usize) -> (Layer, usize) {
    let next = chars.get(at + 1).copied();
    let in_word = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
    match chars[at] {
        '/' if next == Some('/') => (Layer::Comment, find(chars, at, |c| c == '\n')),
        '/' if next == Some('*') => (Layer::Comment, block_end(chars, at)),
        '"' => (Layer::Text, string_end(chars, at + 1)),
        'r' if !in_word && matches!(next, Some('"' | '#')) => raw_end(chars, at + 1),
        'b' if !in_word && next == Some('r') => raw_end(chars, at + 2),
        '\'' => character_end(chars, at),
        _ => (Layer::Code, at + 1),
    }
}

fn find(chars: &[char], from: usize, wanted: impl Fn(char) -> bool) -> usize {
    (from..chars.len()).find(|&i| wanted(chars[i])).unwrap_or(chars.len())
}

fn block_end(chars: &[char], start: usize) -> usize {
    let mut depth = 0;
    let mut at = start;
    while at + 1 < chars.len() {
        match (chars[at], chars[at + 1]) {
            ('/', '*') => depth += 1,
            ('*', '/') => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return at;
        }
    }
    chars.len()
}

fn string_end(chars: &[char], from: usize) -> usize {
    let mut at = from;
    while at < chars.len() {
        match chars[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    chars.len()
}

/// A raw string from its hashes on; `r#type` is a name and stays code.
fn raw_end(chars: &[char], from: usize) -> (Layer, usize) {
    let quote = find(chars, from, |c| c != '#');
    if chars.get(quote) != Some(&'"') {
        return (Layer::Code, quote.max(from));
    }
    let hashes = quote - from;
    let closes =
        |i: &usize| chars[*i] == '"' && chars[i + 1..].iter().take_while(|c| **c == '#').count() >= hashes;
    let end = (quote + 1..chars.len()).find(closes).map_or(chars.len(), |i| i + 1 + hashes);
    (Layer::Text, end)
}

/// A character, or the quote of a lifetime.
fn character_end(chars: &[char], at: usize) -> (Layer, usize) {
    match (chars.get(at + 1), chars.get(at + 2)) {
        (Some('\\'), _) => (Layer::Text, (find(chars, at + 3, |c| c == '\'') + 1).min(chars.len())),
        (Some(_), Some('\'')) => (Layer::Text, at + 3),
        _ => (Layer::Code, at + 1),
    }
}

/// Blanks every item under `#[cfg(test)]`, in a picture of code.
pub(super) fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut out = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(start) = rest.find(MARK) {
        let after = &rest[start + MARK.len()..];
        let length = MARK.len() + item_length(after);
        out.push_str(&rest[..start]);
        out.extend(rest[start..start + length].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        rest = &rest[start + length..];
    }
    out.push_str(rest);
    out
}

/// How far the first item of some code reaches: to its semicolon, or to the end of its block.
pub(super) fn item_length(code: &str) -> usize {
    let mut depth = 0usize;
    for (at, c) in code.char_indices() {
        match c {
            ';' if depth == 0 => return at + 1,
            '{' | '(' | '[' => depth += 1,
            '}' | ')' | ']' => {
                depth = depth.saturating_sub(1);
                if depth == 0 && c == '}' {
                    return at + 1;
                }
            }
            _ => {}
        }
    }
    code.len()
}

/// Whether a word stands in some code, not as a part of a longer one.
pub(super) fn has_word(code: &str, word: &str) -> bool {
    let outside = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric() && c != '_');
    code.match_indices(word).any(|(at, _)| {
        outside(code[..at].chars().next_back()) && outside(code[at + word.len()..].chars().next())
    })
}

#[test]
fn comments_text_and_code_are_told_apart() {
    let source = "let a = \"x // no\"; // y \"no\"\n/* a /* b */ c */ let r = r#\"q\"z\"#; let c = '\"'; fn f<'a>() {}\n";
    let layers = layers(source);
    assert_eq!(
        layers.code.split_whitespace().collect::<Vec<_>>().join(" "),
        "let a = ; let r = ; let c = ; fn f<'a>() {}"
    );
    assert!(layers.comments.contains("// y \"no\"") && layers.comments.contains("/* a /* b */ c */"));
    assert!(layers.text.contains("\"x // no\"") && layers.text.contains("r#\"q\"z\"#"));
    assert_eq!(layers.code.lines().count(), source.lines().count());
}

#[test]
fn escapes_do_not_end_a_literal_early() {
    let layers = layers(r#"call("a\"b", '\'', b'\\', '\u{1F600}', b"x"); r#type"#);
    assert_eq!(layers.code.split_whitespace().collect::<String>(), "call(,,b,,b);r#type");
}

#[test]
fn what_is_under_cfg_test_is_blanked_and_nothing_else() {
    let code = "fn a() {}\n#[cfg(test)]\nmod tests {\n  fn b() { {} }\n}\nfn c() {}\n#[cfg(test)]\nmod more;\nfn d() {}\n";
    let kept = without_tests(code);
    assert_eq!(kept.split_whitespace().collect::<String>(), "fna(){}fnc(){}fnd(){}");
    assert_eq!(kept.lines().count(), code.lines().count());
}

#[test]
fn a_word_is_not_a_part_of_another() {
    assert!(has_word("use sled::Db;", "sled"));
    assert!(!has_word("let sledge = unsled;", "sled"));
}
