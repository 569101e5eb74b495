//! JSON merge patches (RFC 7386) between canonical values: how a small change of a large value travels.
//!
//! A patch is only made where applying it gives the target byte for byte. Merge patches cannot say everything (`null`
//! means "remove"); what they cannot say travels whole.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::value::RawValue;

use crate::value::{InvalidValue, Value};

/// Members of an object, by name. Their values stay text: what a patch does not touch is never read.
type Members<'a> = BTreeMap<Cow<'a, str>, &'a RawValue>;

const REMOVE: &str = "null";

/// Why a patch could not be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPatch {
    #[error("the value that the patch belongs to is not an object, or the patch is none")]
    NotAnObject,
    #[error("the result is no value: {0}")]
    Result(#[from] InvalidValue),
}

/// The patch that turns `base` into `target`: none where both are not objects, where no patch says it, or where it is
/// not shorter than the target itself.
pub fn diff(base: &Value, target: &Value) -> Option<Value> {
    let (old, new) = (members(base.as_str())?, members(target.as_str())?);
    let patch = Value::parse(&difference(&old, &new)).ok()?;
    let shorter = patch.as_str().len() < target.as_str().len();
    (shorter && apply(base, &patch).as_ref() == Ok(target)).then_some(patch)
}

/// The value that `patch` makes of `base`.
///
/// # Errors
/// When one of them is no object, or the result breaks a bound of values.
pub fn apply(base: &Value, patch: &Value) -> Result<Value, InvalidPatch> {
    let old = members(base.as_str()).ok_or(InvalidPatch::NotAnObject)?;
    let patch = members(patch.as_str()).ok_or(InvalidPatch::NotAnObject)?;
    Ok(Value::parse(&merged(old, &patch))?)
}

/// An object's members; none for anything else. The text is canonical, so its depth is bounded.
fn members(text: &str) -> Option<Members<'_>> {
    if text.starts_with('{') { serde_json::from_str(text).ok() } else { None }
}

fn difference(old: &Members<'_>, new: &Members<'_>) -> String {
    let mut out = Object::default();
    for (name, value) in new {
        let (value, before) = (value.get(), old.get(name).map(|before| before.get()));
        match (before, before.and_then(members).zip(members(value))) {
            (Some(before), _) if before == value => {}
            (_, Some((before, after))) => out.member(name, &difference(&before, &after)),
            (_, None) => out.member(name, value),
        }
    }
    for name in old.keys().filter(|name| !new.contains_key(*name)) {
        out.member(name, REMOVE);
    }
    out.close()
}

fn merged(mut old: Members<'_>, patch: &Members<'_>) -> String {
    let mut out = Object::default();
    for (name, change) in patch {
        let before = old.remove(name.as_ref());
        let change = change.get();
        if change == REMOVE {
            continue;
        }
        match members(change) {
            // RFC 7386: an object is merged into whatever is there; into nothing, if that is no object.
            Some(change) => {
                let before = before.and_then(|before| members(before.get())).unwrap_or_default();
                out.member(name, &merged(before, &change));
            }
            None => out.member(name, change),
        }
    }
    for (name, value) in &old {
        out.member(name, value.get());
    }
    out.close()
}

/// The text of an object while it is written. Members come in any order: reading the result brings them into theirs.
#[derive(Default)]
struct Object(String);

impl Object {
    fn member(&mut self, name: &str, value: &str) {
        self.0.push(if self.0.is_empty() { '{' } else { ',' });
        self.0.push_str(Value::string(name).expect("a name was part of a value").as_str());
        self.0.push(':');
        self.0.push_str(value);
    }

    fn close(mut self) -> String {
        if self.0.is_empty() {
            self.0.push('{');
        }
        self.0.push('}');
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Value {
        Value::parse(text).unwrap()
    }

    fn patched(base: &str, target: &str) -> Option<String> {
        let patch = diff(&value(base), &value(target))?;
        assert_eq!(apply(&value(base), &patch), Ok(value(target)), "{base} → {target}");
        Some(patch.as_str().to_owned())
    }

    #[test]
    fn members_are_set_removed_and_merged() {
        let base = r#"{"a":1,"b":{"c":[1,2],"d":"long enough to be worth it"},"e":"stays as it is"}"#;
        let target = r#"{"b":{"c":[1],"d":"long enough to be worth it"},"e":"stays as it is","f":true}"#;
        assert_eq!(patched(base, target).as_deref(), Some(r#"{"a":null,"b":{"c":[1]},"f":true}"#));
    }

    #[test]
    fn the_examples_of_the_rfc_come_out_as_it_says() {
        // RFC 7386, appendix A: those whose target is an object, and in which nothing else stands.
        for (base, patch, result) in [
            (r#"{"a":"b"}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"b":"c"}"#, r#"{"a":"b","b":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"a":null}"#, "{}"),
            (r#"{"a":"b","b":"c"}"#, r#"{"a":null}"#, r#"{"b":"c"}"#),
            (r#"{"a":["b"]}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"c"}"#, r#"{"a":["b"]}"#, r#"{"a":["b"]}"#),
            (r#"{"a":{"b":"c"}}"#, r#"{"a":{"b":"d","c":null}}"#, r#"{"a":{"b":"d"}}"#),
            (r#"{"a":[{"b":"c"}]}"#, r#"{"a":[1]}"#, r#"{"a":[1]}"#),
            (r#"{"e":null}"#, r#"{"a":1}"#, r#"{"a":1,"e":null}"#),
            ("{}", r#"{"a":{"bb":{"ccc":null}}}"#, r#"{"a":{"bb":{}}}"#),
        ] {
            assert_eq!(apply(&value(base), &value(patch)), Ok(value(result)), "{base} {patch}");
        }
        assert_eq!(apply(&value("[1]"), &value("{}")), Err(InvalidPatch::NotAnObject));
    }

    #[test]
    fn what_a_patch_cannot_say_is_left_to_whole_values() {
        let long = "x".repeat(100);
        for (base, target) in [
            (format!(r#"{{"a":1,"b":"{long}"}}"#), format!(r#"{{"a":null,"b":"{long}"}}"#)),
            (format!(r#"{{"a":1,"b":"{long}"}}"#), format!(r#"{{"a":{{"c":null}},"b":"{long}"}}"#)),
            (format!(r#""{long}""#), format!(r#"{{"b":"{long}"}}"#)),
            (format!(r#"{{"b":"{long}"}}"#), "{}".to_owned()),
        ] {
            assert_eq!(patched(&base, &target), None, "{target}");
        }
    }

    #[test]
    fn numbers_and_escapes_stay_what_they_are() {
        let long = "y".repeat(60);
        let base = format!(r#"{{"n":9007199254740993,"f":1.0,"q\"uote":"a\nb","t":"{long}","x":{{"é":1}}}}"#);
        let target =
            format!(r#"{{"n":18446744073709551615,"f":1.0,"q\"uote":"a\nc","t":"{long}","x":{{"é":2}}}}"#);
        let patch = patched(&base, &target).unwrap();
        assert_eq!(patch, r#"{"n":18446744073709551615,"q\"uote":"a\nc","x":{"é":2}}"#);
    }
}
