//! 10,000 entries as configuration looks: JSON objects of some 336 bytes, about a fifth of that after gzip.

use std::collections::BTreeMap;

use llm_config_shared::value::Value;
use serde_json::{Value as Json, json};

use super::{ENVIRONMENT, FOLDER};

const WORDS: [&str; 24] = [
    "answer", "briefly", "in", "the", "language", "of", "the", "question", "never", "invent", "sources",
    "cite", "what", "was", "given", "refuse", "politely", "when", "asked", "about", "people", "keep",
    "tables", "short",
];

/// Spreads the bits of a number: the same everywhere, with nothing that gzip could find.
fn mixed(number: u64) -> u64 {
    let mut x = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// The name of the entry of that number.
pub fn key(number: usize) -> String {
    format!("team-{}/route-{number}", mixed(number as u64) % 40)
}

/// What the entry of that number holds in that round.
pub fn value(number: usize, round: u64) -> Json {
    let seed = mixed(number as u64 ^ (round << 32));
    let prompt: Vec<_> = (0..21).map(|n| WORDS[(mixed(seed + n) % 24) as usize]).collect();
    json!({
        "model": format!("provider-{}/model-{}", seed % 7, seed % 61),
        "fallbacks": [format!("model-{}", seed % 61), format!("model-{}", seed % 59)],
        "temperature": (seed % 100) as f64 / 100.0,
        "max_tokens": 256 << (seed % 6),
        "timeout_ms": 1_000 * (seed % 30 + 1),
        "cache": seed.is_multiple_of(3),
        "digest": (0..3).map(|n| format!("{:016x}", mixed(seed ^ n))).collect::<String>(),
        "prompt": prompt.join(" "),
    })
}

/// A bulk operation that sets the entry of that number.
pub fn set(number: usize, round: u64) -> String {
    set_to(&key(number), &value(number, round).to_string())
}

/// A bulk operation that sets an entry to a value given as JSON text.
pub fn set_to(key: &str, value: &str) -> String {
    let place = json!({"op": "set", "namespace": FOLDER, "env": ENVIRONMENT, "key": key}).to_string();
    format!("{},\"value\":{value}}}", place.strip_suffix('}').expect("an object ends with a brace"))
}

/// Those entries as a map, to be compared and measured.
pub fn entries(numbers: impl Iterator<Item = usize>, round: u64) -> BTreeMap<String, Value> {
    let entry = |number| {
        let text = value(number, round).to_string();
        (key(number), Value::parse(&text).expect("what is built here is JSON"))
    };
    numbers.map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{catalogue, measure};

    #[test]
    fn the_rows_look_like_the_ones_that_others_were_measured_with() {
        let rows = entries(0..10_000, 0);
        assert_eq!(rows.len(), 10_000);
        let text = catalogue::object(&rows);
        let each = rows.values().map(|value| value.as_str().len()).sum::<usize>() / rows.len();
        assert!((300..=370).contains(&each), "{each} bytes a value");
        let share = measure::gzip_bytes(text.as_bytes(), 6) as f64 / text.len() as f64;
        assert!((0.19..0.23).contains(&share), "{share}");
        assert_ne!(value(1, 0), value(1, 1));
    }
}
