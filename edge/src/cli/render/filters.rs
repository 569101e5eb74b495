//! Filters that put a value into the form of a file: JSON, YAML, a shell's word, a line of variables.

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Output, State};

use super::super::dotenv;

/// Adds the filters, and the form of what is printed without one.
pub(super) fn add(engine: &mut Environment<'_>) {
    engine.add_filter("tojson", to_json);
    engine.add_filter("toyaml", to_yaml);
    engine.add_filter("quote", quote);
    engine.add_filter("dotenv", to_dotenv);
    engine.set_formatter(print);
}

/// Text as it is, numbers and the like as in JSON.
fn print(out: &mut Output<'_>, state: &mut State<'_, '_>, value: &Value) -> Result<(), Error> {
    known(value)?;
    if matches!(value.kind(), ValueKind::None | ValueKind::Bool | ValueKind::Seq | ValueKind::Map) {
        return out.write_str(&json(value, None)?).map_err(|_| ErrorKind::WriteFailure.into());
    }
    minijinja::escape_formatter(out, state, value)
}

fn json(value: &Value, indent: Option<usize>) -> Result<String, Error> {
    let text = match indent {
        None => serde_json::to_string(value),
        Some(_) => serde_json::to_string_pretty(value),
    };
    // Its message may tell what the value is.
    text.map_err(|_| Error::new(ErrorKind::BadSerialization, "no JSON"))
}

fn to_json(value: &Value, options: Kwargs) -> Result<String, Error> {
    known(value)?;
    let indent = options.get::<Option<usize>>("indent")?;
    options.assert_all_used()?;
    json(value, indent)
}

fn to_yaml(value: &Value) -> Result<String, Error> {
    known(value)?;
    let text = serde_yaml_ng::to_string(value);
    let text = text.map_err(|_| Error::new(ErrorKind::BadSerialization, "no YAML"))?;
    Ok(text.trim_end().to_owned())
}

/// One word of a POSIX shell, whatever is in it.
fn quote(value: &Value) -> Result<String, Error> {
    Ok(format!("'{}'", text(value)?.replace('\'', r"'\''")))
}

/// The right side of `NAME=…` in a file of variables.
fn to_dotenv(value: &Value) -> Result<String, Error> {
    Ok(dotenv::quoted(&text(value)?))
}

fn text(value: &Value) -> Result<String, Error> {
    known(value)?;
    value.as_str().map_or_else(|| json(value, None), |text| Ok(text.to_owned()))
}

fn known(value: &Value) -> Result<(), Error> {
    if value.is_undefined() { Err(ErrorKind::UndefinedError.into()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(template: &str) -> Result<String, Error> {
        let mut engine = Environment::new();
        add(&mut engine);
        let value = |json: &str| serde_json::from_str::<Value>(json).unwrap();
        let context: std::collections::BTreeMap<_, _> = [
            ("text", value(r#""it's \"$HOME\" <b>\n""#)),
            ("tree", value(r#"{"b":[1,2.5,null],"a":true}"#)),
            ("big", value("9007199254740993")),
        ]
        .into();
        engine.render_str(template, context)
    }

    #[test]
    fn values_take_the_form_of_their_file() {
        let told = |template: &str| rendered(template).unwrap();
        assert_eq!(
            told("{{ tree }} {{ big }} {{ true }} {{ none }}"),
            r#"{"a":true,"b":[1,2.5,null]} 9007199254740993 true null"#
        );
        assert_eq!(told("{{ text|tojson }}"), r#""it's \"$HOME\" <b>\n""#, "JSON for files, not for HTML");
        assert_eq!(told("{{ tree.b|tojson(indent=2) }}"), "[\n  1,\n  2.5,\n  null\n]");
        assert_eq!(told("{{ tree|toyaml }}"), "a: true\nb:\n- 1\n- 2.5\n- null");
        assert_eq!(told("{{ text|quote }} {{ tree.b|quote }}"), "'it'\\''s \"$HOME\" <b>\n' '[1,2.5,null]'");
        assert_eq!(told("{{ text|dotenv }}"), r#""it's \"\$HOME\" <b>\n""#);
    }

    #[test]
    fn what_is_not_there_is_an_error_in_every_form() {
        for form in ["", "|tojson", "|toyaml", "|quote", "|dotenv"] {
            assert!(rendered(&format!("{{{{ absent{form} }}}}")).is_err(), "{form}");
        }
    }
}
