//! A secret's document, asked for its members.

use llm_config_shared::time::UnixMillis;
use serde_json::{Map, Value as Json};

use super::{Checked, invalid};

/// An object. Members that nobody asks for may hold what they like.
pub(super) struct Document(pub(super) Map<String, Json>);

impl Document {
    /// `null` counts as absent.
    fn member(&self, name: &str) -> Option<&Json> {
        self.0.get(name).filter(|member| !member.is_null())
    }

    pub(super) fn text(&self, name: &'static str) -> Checked<&str> {
        self.optional_text(name)?.ok_or_else(|| invalid(name, "is missing"))
    }

    pub(super) fn optional_text(&self, name: &'static str) -> Checked<Option<&str>> {
        let Some(member) = self.member(name) else { return Ok(None) };
        let text = member.as_str().filter(|text| !text.is_empty());
        text.map(Some).ok_or_else(|| invalid(name, "must be a text that is not empty"))
    }

    pub(super) fn texts(&self, name: &'static str) -> Checked<()> {
        match self.member(name) {
            None => Ok(()),
            Some(Json::Array(items)) if items.iter().all(Json::is_string) => Ok(()),
            Some(_) => Err(invalid(name, "must be a list of texts")),
        }
    }

    pub(super) fn number(&self, name: &'static str) -> Checked<Option<u64>> {
        let Some(member) = self.member(name) else { return Ok(None) };
        member.as_u64().map(Some).ok_or_else(|| invalid(name, "must be a whole number"))
    }

    /// In RFC 3339, or in seconds since 1970.
    pub(super) fn time(&self, name: &'static str) -> Checked<Option<UnixMillis>> {
        let Some(member) = self.member(name) else { return Ok(None) };
        let at = match member {
            Json::String(text) => UnixMillis::parse_rfc3339(text),
            Json::Number(number) => number.as_u64().and_then(seconds),
            Json::Null | Json::Bool(_) | Json::Array(_) | Json::Object(_) => None,
        };
        let what = "must be a time like 2027-01-31T00:00:00Z, or seconds since 1970";
        at.map(Some).ok_or_else(|| invalid(name, what))
    }
}

/// None where a database could not hold it.
pub(super) fn seconds(seconds: u64) -> Option<UnixMillis> {
    seconds.checked_mul(1_000).filter(|ms| *ms <= i64::MAX as u64).map(UnixMillis)
}
