//! Plain values that look as if they were meant to be secrets.
//!
//! A guess from the shape of a text and the name that it stands under. It only ever leads to a warning.

use llm_config_shared::name::Key;
use llm_config_shared::value::Value;
use serde_json::Value as Json;

/// How keys of well-known services begin, and how long one is at least.
const PREFIXES: [(&str, usize); 24] = [
    ("sk-", 20),
    ("sk_live_", 16),
    ("rk_live_", 16),
    ("AKIA", 20),
    ("ASIA", 20),
    ("AIza", 35),
    ("ghp_", 20),
    ("gho_", 20),
    ("ghu_", 20),
    ("ghs_", 20),
    ("ghr_", 20),
    ("github_pat_", 22),
    ("glpat-", 20),
    ("xoxb-", 20),
    ("xoxp-", 20),
    ("xapp-", 20),
    ("hf_", 30),
    ("gsk_", 30),
    ("hvs.", 20),
    ("npm_", 30),
    ("pypi-", 30),
    ("SG.", 30),
    ("dop_v1_", 30),
    ("AGE-SECRET-KEY-", 30),
];
/// Last words of names under which secrets stand.
const NAMES: [&str; 8] =
    ["key", "token", "secret", "password", "passwd", "passphrase", "apikey", "credentials"];
/// A random text is at least so long, and has so many bits a character at least.
const RANDOM_BYTES_MIN: usize = 16;
const RANDOM_BITS_MIN: f64 = 3.3;

/// Why this value under this key looks like a secret, as the end of a sentence about it; none where it does not.
pub(super) fn looks_like_a_secret(key: &Key, value: &Value) -> Option<&'static str> {
    // Nothing short enough to hold no such text is worth being read again.
    if value.as_str().len() < RANDOM_BYTES_MIN {
        return None;
    }
    search(key.as_str(), &serde_json::from_str(value.as_str()).ok()?)
}

/// Values are bounded in depth where they are parsed.
fn search(name: &str, value: &Json) -> Option<&'static str> {
    match value {
        Json::String(text) => judge(name, text),
        Json::Array(items) => items.iter().find_map(|item| search(name, item)),
        Json::Object(members) => members.iter().find_map(|(name, member)| search(name, member)),
        Json::Null | Json::Bool(_) | Json::Number(_) => None,
    }
}

fn judge(name: &str, text: &str) -> Option<&'static str> {
    if text.contains("-----BEGIN ") && text.contains("PRIVATE KEY-----") {
        return Some("looks like a private key");
    }
    let text = text.trim();
    if text.contains(char::is_whitespace) {
        return None;
    }
    let known = |(prefix, least): &(&str, usize)| text.starts_with(prefix) && text.len() >= *least;
    if PREFIXES.iter().any(known) {
        return Some("looks like a key of a well-known service");
    }
    (is_named_so(name) && is_random(text)).then_some("stands under the name of a secret and looks random")
}

fn is_named_so(name: &str) -> bool {
    let last = name.rsplit(['_', '-', '.', '/', ':']).next().unwrap_or(name).to_ascii_lowercase();
    NAMES.contains(&last.as_str()) || NAMES.iter().any(|name| name.len() > 5 && last.ends_with(name))
}

/// Whether the characters are spread as evenly as in a generated text: Shannon's entropy of their counts.
fn is_random(text: &str) -> bool {
    if text.len() < RANDOM_BYTES_MIN || !text.bytes().any(|byte| byte.is_ascii_digit()) {
        return false;
    }
    let mut counts = [0_u32; 256];
    text.bytes().for_each(|byte| counts[usize::from(byte)] += 1);
    let length = text.len() as f64;
    let shares = counts.iter().filter(|count| **count > 0).map(|count| f64::from(*count) / length);
    shares.map(|share| -share * share.log2()).sum::<f64>() >= RANDOM_BITS_MIN
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(key: &str, json: &str) -> bool {
        looks_like_a_secret(&Key::parse(key).unwrap(), &Value::parse(json).unwrap()).is_some()
    }

    #[test]
    fn keys_of_services_private_keys_and_random_texts_under_telling_names_are_noticed() {
        for (key, json) in [
            ("a", r#""sk-ant-api03-0123456789abcdefghij""#),
            ("a", r#""ghp_0123456789abcdefghijklmnopqrstuvwxyz""#),
            ("a", r#"{"deep":["AKIAIOSFODNN7EXAMPLE"]}"#),
            ("a", r#""-----BEGIN EC PRIVATE KEY-----\nx\n-----END EC PRIVATE KEY-----""#),
            ("DB_PASSWORD", r#""kT9$wq2Lm!x04vBz""#),
            ("openai.token", r#""f81d4fae7dec11d0a76500a0c91e6bf6""#),
            ("client", r#"{"apiKey":"0d7c4f3b9a2e8d61"}"#),
        ] {
            assert!(looks(key, json), "{key} {json}");
        }
    }

    #[test]
    fn ordinary_settings_are_left_alone() {
        for (key, json) in [
            ("model", r#""claude-sonnet-4-20250514""#),
            ("max-tokens", "4096"),
            ("token", r#""short1""#),
            ("password", r#""aaaaaaaaaaaaaaaa1""#),
            ("api_key", r#""ask-the-team-for-it""#),
            ("url", r#""https://0d7c4f3b9a2e8d61.example.com/""#),
            ("prompt", r#""You hold the key: 0d7c4f3b9a2e8d61""#),
            ("sk", r#""sk-""#),
        ] {
            assert!(!looks(key, json), "{key} {json}");
        }
    }
}
