//! The JSON of requests about values, parsed into what the service is asked.

use std::sync::Arc;

use llm_config_shared::entry::ChangeId;
use llm_config_shared::limits::{BULK_OPERATIONS_MAX, TAG_BYTES_MAX, TAGS_MAX, TEXT_BYTES_MAX};
use llm_config_shared::name::{Environment, Key, Namespace};
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;

use super::error::ApiError;
use super::secret_values::{Said, new_value};
use super::service::{Bulk, BulkAction, BulkOperation, OwnChange, SetEntry, Target, WriteOptions};

type Parsed<T> = Result<T, ApiError>;

/// Sets an entry.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SetBody {
    /// Any JSON; a text for a secret. Integers of 64 bits stay exact.
    #[schema(value_type = serde_json::Value)]
    value: Box<RawValue>,
    env: Option<String>,
    /// Recorded as claimed; the author is the authenticated caller.
    user: Option<String>,
    /// True: keep it as a secret. False: a plain value, also where a secret was.
    secret: Option<bool>,
    /// `generic` (the default), `api_key`, `database_credentials`, `x509_certificate`, `ssh_key`, `oauth_token` or
    /// `jwt_signing_key`: what the document has to hold. With it, `value` may be the document itself.
    secret_type: Option<String>,
    /// When the secret expires, in RFC 3339, where its content does not say so earlier.
    expires_at: Option<String>,
    description: Option<String>,
    tags: Option<Vec<String>>,
    /// Refused with 409 unless the entry is at this version; 0: unless it does not exist.
    if_version: Option<u64>,
    #[serde(alias = "message")]
    change_description: Option<String>,
    /// Not supported yet.
    #[schema(value_type = Option<serde_json::Value>)]
    ttl: Option<Box<RawValue>>,
}

/// What a deletion or a rollback may say.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct OptionsBody {
    env: Option<String>,
    user: Option<String>,
    if_version: Option<u64>,
    #[serde(alias = "message")]
    change_description: Option<String>,
}

/// Many operations as one change.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BulkRequestBody {
    /// At most 500.
    operations: Vec<OperationBody>,
    /// All or nothing; the default.
    atomic: Option<bool>,
    /// Answer as if, change nothing.
    dry_run: Option<bool>,
    user: Option<String>,
    #[serde(alias = "message")]
    change_description: Option<String>,
    /// A UUID of the caller's own, with `batch`: the same request again gets the first answer again.
    change: Option<String>,
    batch: Option<u64>,
}

/// `set` or `delete` of one entry.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct OperationBody {
    /// `set` or `delete`.
    op: String,
    namespace: String,
    key: String,
    env: Option<String>,
    #[serde(default)]
    #[schema(value_type = Option<serde_json::Value>)]
    value: Given,
    secret: Option<bool>,
    secret_type: Option<String>,
    expires_at: Option<String>,
    description: Option<String>,
    tags: Option<Vec<String>>,
    if_version: Option<u64>,
    #[schema(value_type = Option<serde_json::Value>)]
    ttl: Option<Box<RawValue>>,
}

/// A value that may be absent, where `null` is a value.
#[derive(Default)]
struct Given(Option<Box<RawValue>>);

impl<'de> Deserialize<'de> for Given {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Box::<RawValue>::deserialize(deserializer).map(|value| Self(Some(value)))
    }
}

pub(super) fn text(field: &'static str, text: Option<String>) -> Parsed<Option<Arc<str>>> {
    match text {
        Some(text) if text.len() > TEXT_BYTES_MAX => Err(ApiError::unprocessable(format!(
            "{field} has {} bytes; at most {TEXT_BYTES_MAX} are allowed",
            text.len()
        ))
        .detail("field", field)
        .detail("limit", TEXT_BYTES_MAX)),
        text => Ok(text.map(Arc::from)),
    }
}

fn tags(tags: Option<Vec<String>>) -> Parsed<Option<Vec<Arc<str>>>> {
    let refused = |what: String, limit: usize| {
        ApiError::unprocessable(what).detail("field", "tags").detail("limit", limit)
    };
    let Some(tags) = tags else { return Ok(None) };
    if tags.len() > TAGS_MAX {
        return Err(refused(format!("an entry has at most {TAGS_MAX} tags"), TAGS_MAX));
    }
    if tags.iter().any(|tag| tag.is_empty() || tag.len() > TAG_BYTES_MAX) {
        return Err(refused(format!("a tag has 1 to {TAG_BYTES_MAX} bytes"), TAG_BYTES_MAX));
    }
    Ok(Some(tags.into_iter().map(Arc::from).collect()))
}

pub(super) fn environment(env: Option<&str>) -> Parsed<Option<Environment>> {
    Ok(env.map(Environment::parse).transpose()?)
}

/// A field with a meaning that is not built yet is refused, so that nobody relies on it in silence.
fn not_yet(ttl: Option<&RawValue>) -> Parsed<()> {
    if ttl.is_some_and(|ttl| ttl.get() != "null") {
        return Err(ApiError::unprocessable("ttl is not supported yet; a secret may say expires_at")
            .detail("field", "ttl"));
    }
    Ok(())
}

/// `env` may stand in the query or in the body, but not twice with different meanings.
pub(super) fn one_environment(
    query: Option<Environment>,
    body: Option<Environment>,
) -> Parsed<Option<Environment>> {
    match (query, body) {
        (Some(query), Some(body)) if query != body => {
            Err(ApiError::bad_request("env in the query and env in the body name different environments")
                .detail("field", "env"))
        }
        (query, body) => Ok(body.or(query)),
    }
}

impl SetBody {
    pub(super) fn parse(
        self,
        namespace: Namespace,
        key: Key,
        query: Option<Environment>,
    ) -> Parsed<SetEntry> {
        not_yet(self.ttl.as_deref())?;
        let environment = one_environment(query, environment(self.env.as_deref())?)?;
        let said = Said {
            secret: self.secret,
            secret_type: self.secret_type.as_deref(),
            expires_at: self.expires_at.as_deref(),
        };
        Ok(SetEntry {
            target: Target { namespace, key, environment },
            value: new_value(&self.value, said)?,
            tags: tags(self.tags)?,
            description: text("description", self.description)?,
            options: WriteOptions {
                claimed_user: text("user", self.user)?,
                if_version: self.if_version,
                message: text("change_description", self.change_description)?,
            },
        })
    }
}

impl OptionsBody {
    pub(super) fn of_query(query: &mut super::query::Query) -> Parsed<Self> {
        Ok(Self {
            env: query.text("env"),
            user: query.text("user"),
            if_version: query.number("if_version")?,
            change_description: query.text("change_description"),
        })
    }

    /// What the body says, or else the query.
    pub(super) fn or(self, query: Self) -> Self {
        Self {
            env: self.env.or(query.env),
            user: self.user.or(query.user),
            if_version: self.if_version.or(query.if_version),
            change_description: self.change_description.or(query.change_description),
        }
    }

    pub(super) fn parse(self, namespace: Namespace, key: Key) -> Parsed<(Target, WriteOptions)> {
        let target = Target { namespace, key, environment: environment(self.env.as_deref())? };
        let options = WriteOptions {
            claimed_user: text("user", self.user)?,
            if_version: self.if_version,
            message: text("change_description", self.change_description)?,
        };
        Ok((target, options))
    }
}

impl OperationBody {
    fn parse(self) -> Parsed<BulkOperation> {
        not_yet(self.ttl.as_deref())?;
        let target = Target {
            namespace: Namespace::parse(&self.namespace)?,
            key: Key::parse(&self.key)?,
            environment: environment(self.env.as_deref())?,
        };
        let said = Said {
            secret: self.secret,
            secret_type: self.secret_type.as_deref(),
            expires_at: self.expires_at.as_deref(),
        };
        let action = match (self.op.as_str(), self.value.0) {
            ("set", Some(value)) => BulkAction::Set {
                value: new_value(&value, said)?,
                tags: tags(self.tags)?,
                description: text("description", self.description)?,
            },
            ("set", None) => {
                return Err(ApiError::bad_request("a set needs a value").detail("field", "value"));
            }
            ("delete", None) => BulkAction::Delete,
            ("delete", Some(_)) => {
                return Err(ApiError::bad_request("a delete has no value").detail("field", "value"));
            }
            _ => return Err(ApiError::bad_request("op must be set or delete").detail("field", "op")),
        };
        Ok(BulkOperation { target, if_version: self.if_version, action })
    }
}

impl BulkRequestBody {
    pub(super) fn parse(self) -> Parsed<Bulk> {
        if self.operations.len() > BULK_OPERATIONS_MAX {
            let message = format!("a bulk request has at most {BULK_OPERATIONS_MAX} operations");
            return Err(ApiError::unprocessable(message)
                .detail("field", "operations")
                .detail("limit", BULK_OPERATIONS_MAX));
        }
        let own = match (self.change.as_deref().map(Uuid::try_parse), self.batch) {
            (None, None) => None,
            (Some(Ok(change)), batch) => {
                Some(OwnChange { change: ChangeId(change), batch: batch.unwrap_or_default() })
            }
            (Some(Err(_)), _) => {
                return Err(ApiError::bad_request("change must be a UUID").detail("field", "change"));
            }
            (None, Some(_)) => {
                return Err(ApiError::bad_request("batch needs a change").detail("field", "change"));
            }
        };
        // A request that breaks the grammar is refused whole, also where operations stand alone: nothing was done.
        let operations = self.operations.into_iter().enumerate().map(|(n, operation)| {
            operation.parse().map_err(|mut error| {
                error.message = format!("operation {n}: {}", error.message);
                error.detail("operation", n)
            })
        });
        Ok(Bulk {
            operations: operations.collect::<Parsed<_>>()?,
            atomic: self.atomic.unwrap_or(true),
            dry_run: self.dry_run.unwrap_or(false),
            claimed_user: text("user", self.user)?,
            message: text("change_description", self.change_description)?,
            own,
        })
    }
}
