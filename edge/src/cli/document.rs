//! Files of configuration: JSON, YAML, TOML and dotenv, read into entries. Keys that appear twice are refused by name,
//! at every depth, for nobody can say which of the two was meant.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use llm_config_shared::limits::VALUE_DEPTH_MAX;
use llm_config_shared::name::Key;
use llm_config_shared::value::Value;
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::exit::Failure;

/// Largest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// How many problems are told at once.
const PROBLEMS_SHOWN: usize = 5;

/// How a file of configuration is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    Json,
    Yaml,
    Toml,
    Dotenv,
}

impl Format {
    /// The format that a file's name says.
    pub(crate) fn of_name(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        if name == ".env" || name.starts_with(".env.") {
            return Some(Self::Dotenv);
        }
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "json" => Some(Self::Json),
            "yaml" | "yml" => Some(Self::Yaml),
            "toml" => Some(Self::Toml),
            "env" => Some(Self::Dotenv),
            _ => None,
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Json => "JSON",
            Self::Yaml => "YAML",
            Self::Toml => "TOML",
            Self::Dotenv => "dotenv",
        }
    }
}

/// Reads a file, within the limit.
pub(crate) fn read(path: &Path) -> Result<String, Failure> {
    let refused = |error: std::io::Error| Failure::usage(format!("cannot read {}: {error}", path.display()));
    let length = std::fs::metadata(path).map_err(refused)?.len();
    if length > FILE_BYTES_MAX {
        let (path, most) = (path.display(), FILE_BYTES_MAX >> 20);
        return Err(Failure::usage(format!(
            "{path} has {length} bytes; at most {most} MiB can be imported at once"
        )));
    }
    std::fs::read_to_string(path).map_err(refused)
}

/// The members of the file's top object, in the file's order. Every problem of a key or value is collected first.
pub(crate) fn parse(text: &str, format: Format) -> Result<Vec<(Key, Value)>, Failure> {
    let members = match format {
        Format::Json => json_members(text),
        Format::Yaml => {
            let documents = serde_yaml_ng::Deserializer::from_str(text);
            Top.deserialize(documents).map_err(|error| error.to_string())
        }
        Format::Toml => match toml::de::Deserializer::parse(text) {
            Ok(document) => Top.deserialize(document).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        },
        Format::Dotenv => super::dotenv::members(text),
    };
    let members =
        members.map_err(|why| Failure::usage(format!("not the {} of an object: {why}", format.label())))?;
    let mut problems = Vec::new();
    let mut seen = BTreeSet::new();
    let mut entries = Vec::with_capacity(members.len());
    for (name, text) in members {
        if !seen.insert(name.clone()) {
            problems.push(format!("key {name:?} appears twice"));
            continue;
        }
        match (Key::parse(&name), Value::parse(&text)) {
            (Ok(key), Ok(value)) => entries.push((key, value)),
            (Err(why), _) => problems.push(format!("{name:?}: {why}")),
            (_, Err(why)) => problems.push(format!("{name:?}: {why}")),
        }
    }
    if problems.is_empty() {
        return Ok(entries);
    }
    let more = problems.len().saturating_sub(PROBLEMS_SHOWN);
    problems.truncate(PROBLEMS_SHOWN);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    Err(Failure::usage(format!("nothing was imported: {}{more}", problems.join("; "))))
}

/// A name with the JSON text of what stands under it.
pub(super) type Member = (String, String);

/// JSON is split without reading the values, so that numbers stay as they were written.
fn json_members(text: &str) -> Result<Vec<Member>, String> {
    struct Split;
    impl<'de> Visitor<'de> for Split {
        type Value = Vec<Member>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object whose members are the entries")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut members = Vec::new();
            while let Some((name, value)) = map.next_entry::<String, Box<RawValue>>()? {
                members.push((name, value.get().to_owned()));
            }
            Ok(members)
        }
    }
    let mut json = serde_json::Deserializer::from_str(text);
    let members = json.deserialize_map(Split).map_err(|error| error.to_string())?;
    json.end().map_err(|error| error.to_string())?;
    Ok(members)
}

/// The top object of YAML and TOML.
struct Top;

impl<'de> DeserializeSeed<'de> for Top {
    type Value = Vec<Member>;
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Top {
    type Value = Vec<Member>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object whose members are the entries")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            members.push((name, map.next_value_seed(JsonText { depth: 1 })?));
        }
        Ok(members)
    }
}

/// Any YAML or TOML value as JSON text. What JSON cannot say is an error, never a guess.
struct JsonText {
    depth: usize,
}

/// Under this name, alone in a map, the TOML reader hands out a date or time.
const TOML_DATETIME: &str = "$__toml_private_datetime";

impl<'de> DeserializeSeed<'de> for JsonText {
    type Value = String;
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<String, D::Error> {
        from.deserialize_any(self)
    }
}

impl JsonText {
    fn below<E: de::Error>(&self) -> Result<Self, E> {
        if self.depth > VALUE_DEPTH_MAX {
            return Err(E::custom(format!("it nests deeper than {VALUE_DEPTH_MAX} levels")));
        }
        Ok(Self { depth: self.depth + 1 })
    }
}

fn quoted<E: de::Error>(text: &str) -> Result<String, E> {
    serde_json::to_string(text).map_err(E::custom)
}

impl<'de> Visitor<'de> for JsonText {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value that JSON can hold")
    }
    fn visit_bool<E>(self, value: bool) -> Result<String, E> {
        Ok(value.to_string())
    }
    fn visit_i64<E>(self, value: i64) -> Result<String, E> {
        Ok(value.to_string())
    }
    fn visit_u64<E>(self, value: u64) -> Result<String, E> {
        Ok(value.to_string())
    }
    fn visit_i128<E>(self, value: i128) -> Result<String, E> {
        // Beyond 64 bits: the value's own parser refuses it and shows the number.
        Ok(value.to_string())
    }
    fn visit_u128<E>(self, value: u128) -> Result<String, E> {
        Ok(value.to_string())
    }
    fn visit_f64<E: de::Error>(self, value: f64) -> Result<String, E> {
        if value.is_finite() {
            Ok(format!("{value:?}"))
        } else {
            Err(E::custom(format!("JSON has no number {value}")))
        }
    }
    fn visit_str<E: de::Error>(self, value: &str) -> Result<String, E> {
        quoted(value)
    }
    fn visit_unit<E>(self) -> Result<String, E> {
        Ok("null".into())
    }
    fn visit_none<E>(self) -> Result<String, E> {
        Ok("null".into())
    }
    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<String, D::Error> {
        from.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<String, A::Error> {
        let mut texts = Vec::new();
        while let Some(text) = items.next_element_seed(self.below()?)? {
            texts.push(text);
        }
        Ok(format!("[{}]", texts.join(",")))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<String, A::Error> {
        let mut texts = Vec::new();
        let mut seen = BTreeSet::new();
        while let Some(name) = map.next_key::<String>()? {
            if name == TOML_DATETIME && texts.is_empty() {
                return quoted(&map.next_value::<String>()?);
            }
            let text = map.next_value_seed(self.below()?)?;
            texts.push(format!("{}:{text}", quoted::<A::Error>(&name)?));
            if !seen.insert(name.clone()) {
                return Err(de::Error::custom(format!("key {name:?} appears twice in one object")));
            }
        }
        Ok(format!("{{{}}}", texts.join(",")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str, format: Format) -> Vec<(String, String)> {
        let entries = parse(text, format).unwrap();
        entries.iter().map(|(key, value)| (key.to_string(), value.as_str().to_owned())).collect()
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn refusal(text: &str, format: Format) -> String {
        parse(text, format).unwrap_err().to_string()
    }

    #[test]
    fn json_keeps_numbers_and_null_as_they_are() {
        let text =
            r#" { "b/x:1": {"n": 9007199254740993, "f": 1e-06}, "a": null, "c": 18446744073709551615 } "#;
        let expected =
            [("b/x:1", r#"{"f":1e-6,"n":9007199254740993}"#), ("a", "null"), ("c", "18446744073709551615")];
        assert_eq!(texts(text, Format::Json), pairs(&expected));
    }

    #[test]
    fn every_problem_is_told_with_its_key() {
        let told = refusal(r#"{"a":1,"a":2,"b":{"x":1,"x":2},"ü":1,"d":18446744073709551616}"#, Format::Json);
        for part in
            [r#"key "a" appears twice"#, r#""b": member "x" appears twice"#, "\"ü\"", "18446744073709551616"]
        {
            assert!(told.contains(part), "{part} in {told}");
        }
        let many = format!("{{{}}}", (0..9).map(|n| format!("\"k {n}\":1")).collect::<Vec<_>>().join(","));
        assert!(refusal(&many, Format::Json).ends_with("and 4 more"));
        assert!(refusal("[1]", Format::Json).contains("an object whose members are the entries"));
        assert!(refusal("{} x", Format::Json).contains("JSON"));
    }

    #[test]
    fn yaml_becomes_json_without_guessing() {
        let text = "model: gpt-4\nlimits:\n  rpm: 60\n  ratio: 0.5\n  off: ~\nlist: [1, true, 'x']\n1: one\n";
        let told = texts(text.trim_end_matches("1: one\n"), Format::Yaml);
        let expected = [
            ("model", r#""gpt-4""#),
            ("limits", r#"{"off":null,"ratio":0.5,"rpm":60}"#),
            ("list", r#"[1,true,"x"]"#),
        ];
        assert_eq!(told, pairs(&expected));
        assert!(refusal("a: 1\na: 2\n", Format::Yaml).contains("\"a\" appears twice"));
        assert!(refusal("a:\n  x: 1\n  x: 2\n", Format::Yaml).contains("\"x\" appears twice"));
        assert!(refusal("a: .nan\n", Format::Yaml).contains("no number"));
        assert!(refusal("- 1\n", Format::Yaml).contains("object"));
    }

    #[test]
    fn toml_dates_are_text() {
        let text = "name = \"x\"\nwhen = 2026-11-23T06:00:00Z\n[table]\nday = 2026-11-23\nn = -1\n";
        let expected = [
            ("name", "\"x\""),
            ("when", "\"2026-11-23T06:00:00Z\""),
            ("table", r#"{"day":"2026-11-23","n":-1}"#),
        ];
        let mut told = texts(text, Format::Toml);
        told.sort();
        let mut expected = pairs(&expected);
        expected.sort();
        assert_eq!(told, expected);
        assert!(refusal("a = 1\na = 2\n", Format::Toml).contains("duplicate"));
        assert!(refusal("a = inf\n", Format::Toml).contains("no number"));
    }

    #[test]
    fn names_say_the_format() {
        let format = |name: &str| Format::of_name(Path::new(name));
        assert_eq!(format("a/b.JSON"), Some(Format::Json));
        assert_eq!(format("b.yml"), Some(Format::Yaml));
        assert_eq!(format(".env"), Some(Format::Dotenv));
        assert_eq!(format("x/.env.local"), Some(Format::Dotenv));
        assert_eq!(format("prod.env"), Some(Format::Dotenv));
        assert_eq!(format("notes.txt"), None);
    }
}
