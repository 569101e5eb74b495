//! Export: the entries of a folder as one JSON, YAML, TOML or dotenv file, that import reads back to the same values.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::value::RawValue;

use super::address::Address;
use super::connection::Connection;
use super::document::Format;
use super::dotenv;
use super::entries::{self, Entry, plain};
use super::exit::{Exit, Failure};
use super::output;

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ExportArgs {
    /// Folder path, as app/llm
    #[arg(long, short, value_name = "NAMESPACE", value_parser = entries::namespace)]
    namespace: String,
    /// Environment
    #[arg(long, short, value_name = "ENV", value_parser = entries::environment)]
    env: String,
    /// How the file is written; --out's name tells if left out, else JSON
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// File to write, readable by you alone; stdout if left out
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
    /// This environment's own values only, without inheritance
    #[arg(long)]
    exact: bool,
    /// Include secrets, in clear; without it they are left out
    #[arg(long)]
    reveal: bool,
}

/// Runs the export.
pub(crate) async fn export(connection: &Connection, args: &ExportArgs) -> Result<(), Failure> {
    let named = args.out.as_deref().and_then(Format::of_name);
    let format = args.format.or(named).unwrap_or(Format::Json);
    let address = Address::new(&["configs", &args.namespace])
        .with("env", &args.env)
        .with("resolve", if args.exact { "false" } else { "true" })
        .with_flag("reveal", args.reveal);
    let raw = entries::all(connection, &address).await?;
    let (secrets, shown): (Vec<_>, Vec<_>) =
        entries::parsed(&raw)?.into_iter().partition(|entry| entry.secret && !args.reveal);
    if !secrets.is_empty() {
        output::note(format!("secrets left out: {}; --reveal includes them in clear", secrets.len()));
    }
    let text = render(&shown, format)?;
    match &args.out {
        None => output::line(text.trim_end()),
        Some(path) => write_own(path, &text),
    }
}

/// A file that only its owner can read, complete or not there at all.
fn write_own(path: &Path, text: &str) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::failed(format!("cannot write {}: {error}", path.display()));
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&partial)
        .map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
    std::fs::rename(&partial, path).map_err(failed)
}

fn render(entries: &[Entry], format: Format) -> Result<String, Failure> {
    match format {
        Format::Json => json(entries),
        Format::Yaml => {
            let text = serde_yaml_ng::to_string(&tree(entries)?);
            text.map_err(|error| Failure::failed(format!("cannot write YAML: {error}")))
        }
        Format::Toml => to_toml(entries),
        Format::Dotenv => to_dotenv(entries),
    }
}

/// One member a line, each value exactly as it is kept.
fn json(entries: &[Entry]) -> Result<String, Failure> {
    let member = |entry: &Entry| {
        let name = serde_json::to_string(&entry.key).map_err(|error| Failure::failed(error.to_string()))?;
        Ok(format!("  {name}: {}", entry.value.get()))
    };
    let members = entries.iter().map(member).collect::<Result<Vec<_>, Failure>>()?;
    Ok(if members.is_empty() { "{}\n".into() } else { format!("{{\n{}\n}}\n", members.join(",\n")) })
}

fn tree(entries: &[Entry]) -> Result<serde_json::Map<String, serde_json::Value>, Failure> {
    let value =
        |raw: &RawValue| serde_json::from_str(raw.get()).map_err(|error| Failure::failed(error.to_string()));
    entries.iter().map(|entry| Ok((entry.key.clone(), value(&entry.value)?))).collect()
}

fn to_toml(entries: &[Entry]) -> Result<String, Failure> {
    for (key, value) in tree(entries)? {
        if holds_null(&value) {
            return Err(Failure::usage(format!(
                "TOML has no null, but {key} holds one; export as json or yaml"
            )));
        }
    }
    toml::to_string(&tree(entries)?)
        .map_err(|error| Failure::usage(format!("this does not fit TOML: {error}; export as json or yaml")))
}

fn holds_null(value: &serde_json::Value) -> bool {
    match value {
        serde_json::Value::Null => true,
        serde_json::Value::Array(items) => items.iter().any(holds_null),
        serde_json::Value::Object(members) => members.values().any(holds_null),
        serde_json::Value::Bool(_) | serde_json::Value::Number(_) | serde_json::Value::String(_) => false,
    }
}

fn to_dotenv(entries: &[Entry]) -> Result<String, Failure> {
    if let Some(entry) = entries.iter().find(|entry| !dotenv::is_name(&entry.key)) {
        let message =
            format!("{:?} is no variable name, so dotenv cannot hold it; export as json", entry.key);
        return Err(Failure::new(Exit::Usage, message));
    }
    let mut out = String::new();
    for entry in entries {
        dotenv::write(&entry.key, &plain(&entry.value), &mut out);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::super::document;
    use super::*;

    fn entry(key: &str, value: &str) -> Entry {
        let text = format!(
            r#"{{"namespace":"a","key":{key:?},"value":{value},"environment":"base","version":1,
                "metadata":{{"updated_at":"","updated_by":""}}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    fn read_back(entries: &[Entry], format: Format) -> Vec<(String, String)> {
        let text = render(entries, format).unwrap();
        let mut members: Vec<_> = document::parse(&text, format)
            .unwrap()
            .into_iter()
            .map(|(key, value)| (key.to_string(), value.as_str().to_owned()))
            .collect();
        members.sort();
        members
    }

    #[test]
    fn what_is_exported_imports_to_the_same_values() {
        let values =
            [("A", r#"{"n":9007199254740993,"x":[1.5,true,"y\n"]}"#), ("B", "\"two words\""), ("C", "-3")];
        let entries = values.map(|(key, value)| entry(key, value));
        let expected: Vec<_> =
            values.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        for format in [Format::Json, Format::Yaml, Format::Toml] {
            assert_eq!(read_back(&entries, format), expected, "{format:?}");
        }
        let texts = read_back(&entries, Format::Dotenv);
        assert_eq!(texts[1], ("B".to_owned(), "\"two words\"".to_owned()));
        assert_eq!(texts[2], ("C".to_owned(), "\"-3\"".to_owned()));
        assert_eq!(render(&[], Format::Json).unwrap(), "{}\n");
    }

    #[test]
    fn what_a_format_cannot_hold_is_refused_with_its_key() {
        let null = [entry("k", r#"{"a":[null]}"#)];
        assert!(render(&null, Format::Toml).unwrap_err().message.contains("k holds one"));
        assert!(read_back(&null, Format::Yaml)[0].1.contains("null"));
        assert!(render(&[entry("a/b", "1")], Format::Dotenv).unwrap_err().message.contains("a/b"));
    }
}
