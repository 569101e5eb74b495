//! Web forms, as servers of tokens read them.

/// Names and values.
pub(super) struct Form(Vec<(String, String)>);

impl Form {
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn has(&self, name: &str, value: &str) -> bool {
        self.field(name) == Some(value)
    }
}

/// The fields of a web form.
pub(super) fn fields(form: &[u8]) -> Form {
    let text = std::str::from_utf8(form).unwrap_or_default();
    let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    Form(pairs.map(|(name, value)| (name.to_owned(), unescaped(value))).collect())
}

fn unescaped(value: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = value.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        let code = after.get(..2).and_then(|code| std::str::from_utf8(code).ok());
        match (first, code.and_then(|code| u8::from_str_radix(code, 16).ok())) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            _ => bytes.push(*first),
        }
    }
    String::from_utf8(bytes).unwrap_or_default()
}
