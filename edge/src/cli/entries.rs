//! Values: get, set, list, delete.

use std::time::{SystemTime, UNIX_EPOCH};

use http::{Method, StatusCode};
use llm_config_proto::rest::duration;
use llm_config_shared::name::{Environment, Key, Namespace};
use llm_config_shared::secret::SecretType;
use llm_config_shared::time::UnixMillis;
use llm_config_shared::value::{InvalidValue, Value};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::address::Address;
use super::connection::{Answer, Connection};
use super::exit::Failure;
use super::{output, typed};

/// The entry that a command is about.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Place {
    /// Folder path, as app/llm
    #[arg(value_parser = namespace)]
    pub(crate) namespace: String,
    /// Name of the entry
    #[arg(value_parser = key)]
    pub(crate) key: String,
    /// Environment; without it, the default of what is asked
    #[arg(long, short, value_name = "ENV", value_parser = environment)]
    pub(crate) env: Option<String>,
}

impl Place {
    pub(crate) fn address(&self, part: &[&str]) -> Address {
        Address::entry(&self.namespace, &self.key, part).with_some("env", self.env.as_deref())
    }
}

pub(crate) fn namespace(text: &str) -> Result<String, String> {
    Namespace::parse(text).map(|name| name.to_string()).map_err(|why| why.to_string())
}

pub(crate) fn key(text: &str) -> Result<String, String> {
    Key::parse(text).map(|name| name.to_string()).map_err(|why| why.to_string())
}

pub(crate) fn environment(text: &str) -> Result<String, String> {
    Environment::parse(text).map(|name| name.to_string()).map_err(|why| why.to_string())
}

fn secret_type(text: &str) -> Result<SecretType, String> {
    let known = || SecretType::ALL.map(SecretType::as_str).join(", ");
    SecretType::parse(text).ok_or_else(|| format!("say one of {}", known()))
}

fn expiry(text: &str) -> Result<UnixMillis, String> {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let later = |ms: u64| UnixMillis(u64::try_from(now().as_millis()).unwrap_or(u64::MAX).saturating_add(ms));
    let at = UnixMillis::parse_rfc3339(text).or_else(|| duration::parse_ms(text).map(later));
    at.ok_or_else(|| "say in how long, as 90d, or when, as 2027-01-31T00:00:00Z".to_owned())
}

/// How fresh an answer has to be.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Fresh {
    /// Fail when the hub confirmed the value longer ago than this, as 30s or 5m
    #[arg(long, value_name = "TIME")]
    max_staleness: Option<String>,
    /// Wait for a write, by the position that it printed
    #[arg(long, value_name = "POSITION")]
    at_least: Option<String>,
}

impl Fresh {
    pub(crate) fn ask(&self, address: Address) -> Address {
        address
            .with_some("max_staleness", self.max_staleness.as_deref())
            .with_some("at_least", self.at_least.as_deref())
    }
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct GetArgs {
    #[command(flatten)]
    place: Place,
    /// This environment's own value only, without inheritance
    #[arg(long)]
    exact: bool,
    /// Show the plaintext of a secret
    #[arg(long)]
    reveal: bool,
    /// An old version of this environment's own value
    #[arg(long, value_name = "N")]
    version: Option<u64>,
    #[command(flatten)]
    fresh: Fresh,
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct SetArgs {
    #[command(flatten)]
    place: Place,
    /// JSON if it reads as JSON, else text; `-` reads it from stdin; left out with --secret, it is asked for
    #[arg(allow_hyphen_values = true)]
    value: Option<String>,
    /// Take the value as text, even if it reads as JSON
    #[arg(long)]
    text: bool,
    /// Keep the value as a secret
    #[arg(long)]
    secret: bool,
    /// What the secret is; its value is then a JSON document with the members of that type
    #[arg(long = "type", value_name = "TYPE", requires = "secret", value_parser = secret_type)]
    secret_type: Option<SecretType>,
    /// When the secret expires: in a while, as 90d, or at a time, as 2027-01-31T00:00:00Z
    #[arg(long, value_name = "WHEN", requires = "secret", value_parser = expiry)]
    expires: Option<UnixMillis>,
    /// Fail unless the entry is at this version; 0: unless it does not exist
    #[arg(long, value_name = "N")]
    if_version: Option<u64>,
    /// Why, for the history
    #[arg(long, short, value_name = "TEXT")]
    message: Option<String>,
    /// What the entry is for
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Tag; repeat it for several. Replaces the tags that were there
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ListArgs {
    /// Folder path, as app/llm
    #[arg(value_parser = namespace)]
    namespace: String,
    /// Environment; without it, the default of what is asked
    #[arg(long, short, value_name = "ENV", value_parser = environment)]
    env: Option<String>,
    /// Also the folders below
    #[arg(long, short)]
    recursive: bool,
    /// Keys that begin so
    #[arg(long)]
    prefix: Option<String>,
    /// Entries that carry this tag
    #[arg(long)]
    tag: Option<String>,
    /// This environment's own values only, without inheritance
    #[arg(long)]
    exact: bool,
    /// Show the plaintext of secrets
    #[arg(long)]
    reveal: bool,
    #[arg(long, value_enum, default_value_t = ListFormat::Table)]
    format: ListFormat,
    #[command(flatten)]
    fresh: Fresh,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum ListFormat {
    Table,
    Json,
    Yaml,
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct DeleteArgs {
    #[command(flatten)]
    place: Place,
    /// Why, for the history
    #[arg(long, short, value_name = "TEXT")]
    message: Option<String>,
}

/// An entry as the REST API gives it. The value stays the text that came, so that numbers stay exact.
#[derive(Debug, Deserialize)]
pub(crate) struct Entry {
    pub(crate) namespace: String,
    pub(crate) key: String,
    pub(crate) value: Box<RawValue>,
    pub(crate) environment: String,
    pub(crate) version: u64,
    #[serde(default)]
    pub(crate) secret: bool,
    #[serde(default)]
    secret_type: Option<String>,
    #[serde(default)]
    expires_at: Option<String>,
    #[serde(default)]
    pub(crate) pending: bool,
    #[serde(default)]
    pub(crate) origin: Option<Origin>,
    pub(crate) metadata: EntryMetadata,
}

impl Entry {
    pub(crate) fn about(&self) -> String {
        about(self.secret_type.as_deref(), self.expires_at.as_deref())
    }
}

/// What is told of a secret beside its value, for people: empty for what is no secret.
pub(crate) fn about(secret_type: Option<&str>, expires_at: Option<&str>) -> String {
    let secret_type = secret_type.filter(|name| *name != "generic").map(str::to_owned);
    let parts = [secret_type, expires_at.map(|at| format!("expires {at}"))];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// Where an inherited value was found.
#[derive(Debug, Deserialize)]
pub(crate) struct Origin {
    pub(crate) namespace: String,
    pub(crate) environment: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct EntryMetadata {
    pub(crate) updated_at: String,
    pub(crate) updated_by: String,
}

/// A JSON string without its quotes, anything else as it is.
pub(crate) fn plain(value: &RawValue) -> String {
    serde_json::from_str::<String>(value.get()).unwrap_or_else(|_| value.get().to_owned())
}

pub(crate) async fn get(connection: &Connection, args: &GetArgs, json: bool) -> Result<(), Failure> {
    let resolve = !args.exact && args.version.is_none();
    let version = args.version.map(|version| version.to_string());
    let address = args
        .place
        .address(&[])
        .with("resolve", if resolve { "true" } else { "false" })
        .with_some("version", version.as_deref())
        .with_flag("reveal", args.reveal);
    let answer = connection.ask(Method::GET, &args.fresh.ask(address), None).await?;
    if json {
        return output::line(answer.text());
    }
    let entry: Entry = answer.parsed()?;
    if entry.secret {
        let about = entry.about();
        let about = if about.is_empty() { String::new() } else { format!(" ({about})") };
        let how = if args.reveal { "" } else { "; --reveal shows it" };
        output::hint(format!("this is a secret{about}{how}"));
    }
    if entry.pending {
        output::hint("this is your write; the hub has not confirmed it yet");
    }
    if output::to_person() && !entry.secret && entry.value.get().starts_with(['{', '[']) {
        return output::line(indented(&entry.value)?);
    }
    output::line(plain(&entry.value))
}

/// JSON over several lines, for people.
fn indented(value: &RawValue) -> Result<String, Failure> {
    let value: serde_json::Value =
        serde_json::from_str(value.get()).map_err(|error| Failure::failed(error.to_string()))?;
    serde_json::to_string_pretty(&value).map_err(|error| Failure::failed(error.to_string()))
}

pub(crate) async fn set(connection: &Connection, args: &SetArgs, json: bool) -> Result<(), Failure> {
    let text = value_text(args)?;
    let value = if args.secret || args.text { as_text(&text) } else { read_value(&text) }?;
    let value: Box<RawValue> = RawValue::from_string(value.as_str().to_owned())
        .map_err(|error| Failure::failed(error.to_string()))?;
    let mut body = serde_json::Map::new();
    let mut put = |name: &str, value: Option<serde_json::Value>| {
        value.map(|value| body.insert(name.to_owned(), value));
    };
    put("env", args.place.env.as_ref().map(|env| json!(env)));
    put("secret", args.secret.then_some(json!(true)));
    put("secret_type", args.secret_type.map(|secret_type| json!(secret_type.as_str())));
    put("expires_at", args.expires.map(|at| json!(at.to_rfc3339())));
    put("if_version", args.if_version.map(|version| json!(version)));
    put("change_description", args.message.as_ref().map(|message| json!(message)));
    put("description", args.description.as_ref().map(|description| json!(description)));
    put("tags", (!args.tags.is_empty()).then(|| json!(args.tags)));
    let body = with_value(body, &value)?;
    let address = Address::entry(&args.place.namespace, &args.place.key, &[]);
    let answer = connection.ask(Method::PUT, &address, Some(body)).await?;
    told_write(&answer, &args.place, json, "set")
}

/// The body with the value's own text in it: a detour over a tree would change numbers.
fn with_value(
    mut body: serde_json::Map<String, serde_json::Value>,
    value: &RawValue,
) -> Result<String, Failure> {
    body.remove("value");
    let rest = serde_json::Value::Object(body).to_string();
    let rest = rest.strip_prefix('{').ok_or_else(|| Failure::failed("an object begins with a brace"))?;
    let comma = if rest == "}" { "" } else { "," };
    Ok(format!("{{\"value\":{}{comma}{rest}", value.get()))
}

pub(crate) fn told_write(answer: &Answer, place: &Place, json: bool, verb: &str) -> Result<(), Failure> {
    #[derive(Default, Deserialize)]
    struct Warned {
        #[serde(default)]
        warnings: Vec<String>,
    }
    let warned = answer.parsed::<Warned>().unwrap_or_default();
    for warning in warned.warnings {
        output::note(format!("llm-config: {} {}: {warning}", place.namespace, place.key));
    }
    if json {
        return output::line(answer.text());
    }
    let name = format!("{} {}", place.namespace, place.key);
    if answer.status == StatusCode::ACCEPTED {
        let queued: serde_json::Value = answer.parsed()?;
        let place = queued.get("place").and_then(serde_json::Value::as_u64).unwrap_or(1);
        return output::line(format!(
            "{name}: kept here, {place}. in the queue; the hub hears of it when it is reachable"
        ));
    }
    if answer.status == StatusCode::NO_CONTENT {
        return output::line(format!("{name}: {verb}"));
    }
    let entry: Entry = answer.parsed()?;
    output::line(format!("{name}: {verb}, version {} in {}", entry.version, entry.environment))?;
    if let Some(change) = answer.header("x-config-change") {
        output::hint(format!("change {change}"));
    }
    Ok(())
}

/// The text of the value: from the command line, from stdin, or asked for without an echo.
fn value_text(args: &SetArgs) -> Result<String, Failure> {
    match args.value.as_deref() {
        Some("-") => typed::stdin_text(),
        Some(text) => Ok(text.to_owned()),
        None if !args.secret => {
            Err(Failure::usage("the value is missing; give it behind the key, or `-` to read stdin"))
        }
        None => typed::hidden(&format!("secret for {} {}: ", args.place.namespace, args.place.key)),
    }
}

fn as_text(text: &str) -> Result<Value, Failure> {
    Value::string(text).map_err(|why| Failure::usage(why.to_string()))
}

/// JSON if it is JSON, else text. What is JSON but cannot be kept is refused rather than kept as something else.
fn read_value(text: &str) -> Result<Value, Failure> {
    match Value::parse(text) {
        Ok(value) => Ok(value),
        Err(InvalidValue::Syntax { .. }) => {
            if text.starts_with(['{', '[', '"']) {
                output::hint("kept as text: it begins like JSON but is none");
            }
            as_text(text)
        }
        Err(why) => Err(Failure::usage(format!("{why}; --text keeps it as text"))),
    }
}

/// Asks page after page and gives all entries.
pub(crate) async fn all(connection: &Connection, address: &Address) -> Result<Vec<Box<RawValue>>, Failure> {
    let mut entries = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let page = address.clone().with("limit", "1000").with_some("cursor", cursor.as_deref());
        let answer = connection.ask(Method::GET, &page, None).await?;
        let mut part: Vec<Box<RawValue>> = answer.parsed()?;
        entries.append(&mut part);
        match answer.header("x-next-cursor") {
            Some(next) if cursor.as_deref() != Some(next) => cursor = Some(next.to_owned()),
            _ => return Ok(entries),
        }
    }
}

/// The entries themselves.
pub(crate) fn parsed(raw: &[Box<RawValue>]) -> Result<Vec<Entry>, Failure> {
    let entry = |raw: &RawValue| {
        serde_json::from_str(raw.get())
            .map_err(|error| Failure::failed(format!("unexpected answer: {error}")))
    };
    raw.iter().map(|raw| entry(raw)).collect()
}

pub(crate) async fn list(connection: &Connection, args: &ListArgs, json: bool) -> Result<(), Failure> {
    let address = Address::new(&["configs", &args.namespace])
        .with_some("env", args.env.as_deref())
        .with("resolve", if args.exact { "false" } else { "true" })
        .with_flag("recursive", args.recursive)
        .with_some("prefix", args.prefix.as_deref())
        .with_some("tag", args.tag.as_deref())
        .with_flag("reveal", args.reveal);
    let raw = all(connection, &args.fresh.ask(address)).await?;
    match args.format {
        ListFormat::Json => return output::line(joined(&raw)),
        ListFormat::Table if json => return output::line(joined(&raw)),
        ListFormat::Yaml => {
            let entries: Vec<serde_json::Value> =
                serde_json::from_str(&joined(&raw)).map_err(|error| Failure::failed(error.to_string()))?;
            let text =
                serde_yaml_ng::to_string(&entries).map_err(|error| Failure::failed(error.to_string()))?;
            return output::line(text.trim_end());
        }
        ListFormat::Table => {}
    }
    let rows = parsed(&raw)?.into_iter().map(|entry| {
        let from = entry.origin.as_ref().map_or(entry.environment.as_str(), |origin| &origin.environment);
        let version =
            if entry.pending { format!("{} +1 pending", entry.version) } else { entry.version.to_string() };
        vec![
            entry.namespace.clone(),
            entry.key.clone(),
            shown(&entry.value),
            from.to_owned(),
            version,
            entry.metadata.updated_at.clone(),
            entry.metadata.updated_by.clone(),
            entry.about(),
        ]
    });
    output::table(&["namespace", "key", "value", "from", "version", "updated", "by", "secret"], rows)
}

/// A value in a table: short for a person, whole in a pipe.
pub(crate) fn shown(value: &RawValue) -> String {
    let text = plain(value);
    if output::to_person() { output::shortened(&text, 60) } else { text }
}

fn joined(raw: &[Box<RawValue>]) -> String {
    let texts: Vec<_> = raw.iter().map(|entry| entry.get()).collect();
    format!("[{}]", texts.join(","))
}

pub(crate) async fn delete(connection: &Connection, args: &DeleteArgs, json: bool) -> Result<(), Failure> {
    let address = args.place.address(&[]).with_some("change_description", args.message.as_deref());
    let answer = connection.ask(Method::DELETE, &address, None).await?;
    if json && answer.status == StatusCode::NO_CONTENT {
        return output::line("{\"deleted\":true}");
    }
    told_write(&answer, &args.place, json, "deleted")
}

#[cfg(test)]
mod tests {
    use super::super::exit::Exit;
    use super::*;

    #[test]
    fn a_value_is_json_if_it_reads_as_json_and_text_otherwise() {
        let value = |text: &str| read_value(text).unwrap().as_str().to_owned();
        assert_eq!(value("0.70"), "0.7");
        assert_eq!(value("9007199254740993"), "9007199254740993");
        assert_eq!(value("null"), "null");
        assert_eq!(value("gpt-4"), "\"gpt-4\"");
        assert_eq!(value(""), "\"\"");
        assert_eq!(value("{\"a\":1,}"), r#""{\"a\":1,}""#);
        assert_eq!(read_value("18446744073709551616").unwrap_err().exit, Exit::Usage);
        assert!(read_value(r#"{"a":1,"a":2}"#).unwrap_err().message.contains("\"a\""));
        assert_eq!(as_text("1").unwrap().as_str(), "\"1\"");
    }

    #[test]
    fn a_value_travels_as_it_was_written() {
        let raw = RawValue::from_string("9007199254740993".into()).unwrap();
        assert_eq!(with_value(serde_json::Map::new(), &raw).unwrap(), r#"{"value":9007199254740993}"#);
        let mut rest = serde_json::Map::new();
        rest.insert("env".into(), json!("base"));
        assert_eq!(with_value(rest, &raw).unwrap(), r#"{"value":9007199254740993,"env":"base"}"#);
    }

    #[test]
    fn an_answer_is_read_with_and_without_its_optional_members() {
        let bare = r#"{"id":"x","namespace":"a","key":"k","value":1.50,"environment":"base","version":3,
            "metadata":{"created_at":"c","created_by":"x","updated_at":"u","updated_by":"y","tags":[]}}"#;
        let entry: Entry = serde_json::from_str(bare).unwrap();
        assert_eq!(
            (entry.value.get(), entry.version, entry.pending, entry.secret),
            ("1.50", 3, false, false)
        );
        assert_eq!(plain(&RawValue::from_string("\"a\\\"b\"".into()).unwrap()), "a\"b");
    }
}
