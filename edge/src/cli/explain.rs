//! Why a value is what it is: every place that a reader looks in, and what it holds.

use http::Method;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::connection::Connection;
use super::entries::{Fresh, Place};
use super::exit::{Exit, Failure};
use super::output;

/// Characters of a value that a table shows.
const SHOWN_MAX: usize = 60;

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ExplainArgs {
    #[command(flatten)]
    place: Place,
    /// As readers at this edge get it; asked of a hub
    #[arg(long, value_name = "NAME")]
    edge: Option<String>,
    #[command(flatten)]
    fresh: Fresh,
}

#[derive(Debug, Deserialize)]
struct Explained {
    environment: String,
    places: Vec<Looked>,
}

#[derive(Debug, Deserialize)]
struct Looked {
    namespace: String,
    environment: String,
    found: String,
    entry: Option<Box<RawValue>>,
}

#[derive(Debug, Deserialize)]
struct Entry {
    value: Box<RawValue>,
    version: u64,
    metadata: Metadata,
    #[serde(default)]
    pending: bool,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    updated_at: String,
    updated_by: String,
}

/// Why this place gives the value, or does not.
fn reason(found: &str, pending: bool) -> String {
    let words = match found {
        "used" if pending => "used; waits for the hub",
        "used" => "used",
        "covered" => "not used: a place before it has a value",
        "secret_not_inherited" => "not used: secrets come from the environment itself and from base",
        "empty" => "nothing here",
        "deletion_waits" => "deleted here; waits for the hub",
        "not_received" => "not sent to this edge",
        "secrets_not_received" => "nothing here but perhaps a secret, which this edge is not sent",
        "denied" => "you may not read here",
        other => other,
    };
    words.to_owned()
}

fn row(place: Looked) -> Result<Vec<String>, Failure> {
    let Looked { namespace, environment, found, entry } = place;
    let entry = entry.map(|entry| serde_json::from_str::<Entry>(entry.get()));
    let entry = entry.transpose().map_err(|error| Failure::failed(format!("unexpected answer: {error}")))?;
    let mark = if found == "used" { "→" } else { "" };
    let why = reason(&found, entry.as_ref().is_some_and(|entry| entry.pending));
    let mut cells = vec![mark.to_owned(), namespace, environment];
    cells.extend(match entry {
        Some(Entry { value, version, metadata, .. }) => {
            let value = output::shortened(value.get(), SHOWN_MAX);
            [value, version.to_string(), metadata.updated_by, metadata.updated_at]
        }
        None => Default::default(),
    });
    cells.push(why);
    Ok(cells)
}

/// Shows every place; fails as a read does where none gives a value.
pub(crate) async fn explain(connection: &Connection, args: &ExplainArgs, json: bool) -> Result<(), Failure> {
    let address = args.place.address(&["explain"]).with_some("edge", args.edge.as_deref());
    let answer = connection.ask(Method::GET, &args.fresh.ask(address), None).await?;
    let Explained { environment, places } = answer.parsed()?;
    let used = places.iter().any(|place| place.found == "used");
    if json {
        output::line(answer.text())?;
    } else {
        let head = ["", "folder", "environment", "value", "version", "by", "when", "why"];
        output::table(&head, places.into_iter().map(row).collect::<Result<Vec<_>, _>>()?)?;
    }
    if used {
        return Ok(());
    }
    let Place { namespace, key, .. } = &args.place;
    let told = format!("no place gives a reader of {namespace} in {environment} a value of {key}");
    Err(Failure::new(Exit::NotFound, told))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_told_with_its_exact_value_and_why_it_counts() {
        let places = r#"[{"namespace":"edges/e/app","environment":"production","found":"empty"},
            {"namespace":"app","environment":"production","found":"used","entry":{"value":1.50,"version":3,
             "metadata":{"updated_at":"t","updated_by":"uid:0"},"pending":true}}]"#;
        let places: Vec<Looked> = serde_json::from_str(places).unwrap();
        let rows: Vec<_> = places.into_iter().map(|place| row(place).unwrap()).collect();
        assert_eq!(rows[0], ["", "edges/e/app", "production", "", "", "", "", "nothing here"]);
        assert_eq!(rows[1], ["→", "app", "production", "1.50", "3", "uid:0", "t", "used; waits for the hub"]);
    }
}
