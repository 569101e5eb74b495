//! The shipped model catalogue: three consecutive states of one real configuration.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use llm_config_shared::value::Value;
use serde_json::value::RawValue;
use serde_json::{Map, Value as Json};

/// The versions, oldest first.
pub const VERSIONS: [&str; 3] = ["1.85.0", "1.90.0", "1.95.1"];

/// The file of one version.
pub fn path(version: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(format!("llm-models-{version}.json"))
}

/// The entries of one version.
///
/// # Errors
/// When the file is missing or is not the JSON of an object.
pub fn entries(version: &str) -> anyhow::Result<BTreeMap<String, Value>> {
    let path = path(version);
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let members: BTreeMap<String, Box<RawValue>> = serde_json::from_str(&text)?;
    members.into_iter().map(|(key, raw)| Ok((key, Value::parse(raw.get())?))).collect()
}

/// What differs from one state to the next: the new values, and the keys that are gone.
pub struct Difference {
    pub changed: BTreeMap<String, Value>,
    pub removed: Vec<String>,
}

/// Compares two states.
pub fn difference(before: &BTreeMap<String, Value>, after: &BTreeMap<String, Value>) -> Difference {
    let changed = after.iter().filter(|(key, value)| before.get(*key) != Some(value));
    Difference {
        changed: changed.map(|(key, value)| (key.clone(), value.clone())).collect(),
        removed: before.keys().filter(|key| !after.contains_key(*key)).cloned().collect(),
    }
}

/// The text of one JSON object with these members.
pub fn object(entries: &BTreeMap<String, Value>) -> String {
    let member = |(key, value): (&String, &Value)| format!("{}:{}", Json::from(key.as_str()), value.as_str());
    format!("{{{}}}", entries.iter().map(member).collect::<Vec<_>>().join(","))
}

/// The changed values as one JSON object of merge patches (RFC 7386) against `before`, removed keys as null.
pub fn patches(before: &BTreeMap<String, Value>, difference: &Difference) -> String {
    let tree =
        |value: &Value| serde_json::from_str::<Json>(value.as_str()).expect("a canonical value is JSON");
    let patch = |(key, value): (&String, &Value)| {
        let patch = before.get(key).map_or_else(|| tree(value), |old| merge_patch(&tree(old), &tree(value)));
        (key.clone(), patch)
    };
    let mut all: Map<String, Json> = difference.changed.iter().map(patch).collect();
    all.extend(difference.removed.iter().map(|key| (key.clone(), Json::Null)));
    Json::Object(all).to_string()
}

fn merge_patch(before: &Json, after: &Json) -> Json {
    let (Json::Object(old), Json::Object(new)) = (before, after) else { return after.clone() };
    let mut patch = Map::new();
    for (name, value) in new {
        match old.get(name) {
            Some(same) if same == value => {}
            Some(other) => {
                patch.insert(name.clone(), merge_patch(other, value));
            }
            None => {
                patch.insert(name.clone(), value.clone());
            }
        }
    }
    patch.extend(old.keys().filter(|name| !new.contains_key(*name)).map(|name| (name.clone(), Json::Null)));
    Json::Object(patch)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_patch_says_only_what_differs() {
        let (before, after) =
            (json!({"a": 1, "b": {"c": 1, "d": 2}, "e": 1}), json!({"a": 1, "b": {"c": 1, "d": 3}, "f": 2}));
        assert_eq!(merge_patch(&before, &after), json!({"b": {"d": 3}, "e": null, "f": 2}));
        assert_eq!(merge_patch(&json!(1), &json!([1])), json!([1]));
    }

    #[test]
    fn the_catalogue_is_the_one_that_the_story_tells_of() {
        let states = VERSIONS.map(|version| entries(version).unwrap());
        assert_eq!(states.each_ref().map(BTreeMap::len), [2_708, 2_838, 2_979]);
        let first = difference(&states[0], &states[1]);
        let second = difference(&states[1], &states[2]);
        assert_eq!((first.changed.len(), first.removed.len()), (331, 0));
        assert_eq!((second.changed.len(), second.removed.len()), (517, 3));
    }
}
