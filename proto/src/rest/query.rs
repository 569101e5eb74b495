//! Query parameters, taken one by one; what nobody took is refused by name, so that a typing error is never silence.

use axum::extract::{FromRequestParts, Query as Pairs};
use http::request::Parts;
use llm_config_shared::name::{Environment, InvalidName};

use super::duration;
use super::error::ApiError;

/// The parameters of a request.
#[derive(Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Pairs(pairs) = Pairs::<Vec<(String, String)>>::from_request_parts(parts, state)
            .await
            .map_err(|_| ApiError::bad_request("the query is not of the form name=value&name=value"))?;
        for (n, (name, _)) in pairs.iter().enumerate() {
            if pairs[..n].iter().any(|(earlier, _)| earlier == name) {
                return Err(invalid(name, "is given twice"));
            }
        }
        Ok(Self(pairs))
    }
}

/// A refusal that names the parameter and never its value.
fn invalid(name: &str, what: &str) -> ApiError {
    let name: String = name.chars().take(64).collect();
    ApiError::bad_request(format!("query parameter {name} {what}")).detail("field", name)
}

impl Query {
    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.swap_remove(at).1)
    }

    /// False when absent; a name alone is true.
    pub(super) fn flag(&mut self, name: &str) -> Result<bool, ApiError> {
        match self.text(name).as_deref() {
            None | Some("false" | "0") => Ok(false),
            Some("true" | "1" | "") => Ok(true),
            Some(_) => Err(invalid(name, "must be true or false")),
        }
    }

    pub(super) fn number(&mut self, name: &str) -> Result<Option<u64>, ApiError> {
        let number = self.text(name).map(|text| text.parse().map_err(|_| invalid(name, "must be a number")));
        number.transpose()
    }

    pub(super) fn required_number(&mut self, name: &str) -> Result<u64, ApiError> {
        self.number(name)?.ok_or_else(|| invalid(name, "is missing"))
    }

    pub(super) fn duration_ms(&mut self, name: &str) -> Result<Option<u64>, ApiError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let ms =
            duration::parse_ms(&text).ok_or_else(|| invalid(name, "must be a time like 30s, 5m or 500ms"))?;
        Ok(Some(ms))
    }

    pub(super) fn environment(&mut self) -> Result<Option<Environment>, ApiError> {
        Ok(self.text("env").map(|text| Environment::parse(&text)).transpose()?)
    }

    pub(super) fn parsed<T>(
        &mut self,
        name: &str,
        parse: impl Fn(&str) -> Result<T, InvalidName>,
    ) -> Result<Option<T>, ApiError> {
        Ok(self.text(name).map(|text| parse(&text)).transpose()?)
    }

    /// How many to show: between 1 and `max`.
    pub(super) fn limit(&mut self, default: usize, max: usize) -> Result<usize, ApiError> {
        match self.number("limit")? {
            None => Ok(default),
            Some(limit) if (1..=max as u64).contains(&limit) => Ok(limit as usize),
            Some(_) => Err(invalid("limit", &format!("must be from 1 to {max}")).detail("limit", max)),
        }
    }

    /// What is left is not known.
    pub(super) fn end(self) -> Result<(), ApiError> {
        match self.0.first() {
            Some((name, _)) => Err(invalid(name, "is not known here")),
            None => Ok(()),
        }
    }
}
