//! The JSON about who has a change, who uses it, and which secrets expire.

use llm_config_shared::in_use::{ConsumerReceipt, EdgeReceipt, Receipts};
use llm_config_shared::limits::{CONSUMER_BYTES_MAX, USES_MAX};
use llm_config_shared::name::{Environment, Key, Namespace};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::error::ApiError;
use super::extract::json;
use super::receipts::{ConsumerReport, ExpiringSecret, UsedEntry, UsesReport};

/// Who has a change and who uses it.
#[derive(Serialize, ToSchema)]
pub(super) struct ReceiptsBody {
    change: String,
    /// Every edge that receives something of it has it on its disk.
    delivered: bool,
    /// And everything there that uses its entries uses what it wrote; false while nothing has said that it uses them.
    in_use: bool,
    edges: Vec<EdgeReceiptBody>,
}

/// What one edge has of a change.
#[derive(Serialize, ToSchema)]
struct EdgeReceiptBody {
    edge: String,
    connected: bool,
    last_seen_at: Option<String>,
    delivered: bool,
    /// True also where nothing uses it, for nothing has to change there.
    in_use: bool,
    consumers: Vec<ConsumerBody>,
}

/// What one consumer has of a change: the entry in which it is furthest behind.
#[derive(Serialize, ToSchema)]
struct ConsumerBody {
    consumer: String,
    in_use: bool,
    namespace: String,
    key: String,
    environment: String,
    /// What the change wrote.
    version: u64,
    /// What is used.
    uses_version: u64,
}

impl From<Receipts> for ReceiptsBody {
    fn from(receipts: Receipts) -> Self {
        Self {
            change: receipts.change.0.to_string(),
            delivered: receipts.delivered(),
            in_use: receipts.in_use(),
            edges: receipts.edges.into_iter().map(EdgeReceiptBody::from).collect(),
        }
    }
}

impl From<EdgeReceipt> for EdgeReceiptBody {
    fn from(receipt: EdgeReceipt) -> Self {
        Self {
            in_use: receipt.in_use(),
            edge: receipt.edge.to_string(),
            connected: receipt.connected,
            last_seen_at: receipt.last_seen_at.map(|at| at.to_rfc3339()),
            delivered: receipt.delivered,
            consumers: receipt.consumers.into_iter().map(ConsumerBody::from).collect(),
        }
    }
}

impl From<ConsumerReceipt> for ConsumerBody {
    fn from(receipt: ConsumerReceipt) -> Self {
        Self {
            in_use: receipt.is_current(),
            consumer: receipt.consumer.to_string(),
            namespace: receipt.at.scope.namespace.to_string(),
            key: receipt.at.key.to_string(),
            environment: receipt.at.scope.environment.to_string(),
            version: receipt.wrote,
            uses_version: receipt.uses,
        }
    }
}

/// Everything at an edge that uses values.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct UsesBody {
    /// Others than these have gone, but for lasting ones.
    #[serde(default)]
    complete: bool,
    consumers: Vec<ConsumerReportBody>,
}

/// What one of them uses.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ConsumerReportBody {
    consumer: String,
    /// It stays until it says something else, whether the edge tells of it or not.
    #[serde(default)]
    lasting: bool,
    entries: Vec<UsedEntryBody>,
}

/// A version of an entry that is in use.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct UsedEntryBody {
    namespace: String,
    key: String,
    environment: String,
    version: u64,
}

impl UsesReport {
    /// Of the body of `PUT /uses`.
    ///
    /// # Errors
    /// When it is no such report, or tells of too much.
    pub fn parse(body: &[u8]) -> Result<Self, ApiError> {
        json::<UsesBody>(body)?.parse()
    }
}

impl UsesBody {
    fn parse(self) -> Result<UsesReport, ApiError> {
        let count: usize = self.consumers.iter().map(|consumer| consumer.entries.len().max(1)).sum();
        if count > USES_MAX {
            let message = format!("{count} uses are told; at most {USES_MAX} of an edge are kept");
            return Err(ApiError::too_large(message).detail("limit", USES_MAX));
        }
        let consumers =
            self.consumers.into_iter().map(ConsumerReportBody::parse).collect::<Result<_, _>>()?;
        Ok(UsesReport { complete: self.complete, consumers })
    }
}

impl ConsumerReportBody {
    fn parse(self) -> Result<ConsumerReport, ApiError> {
        let named = (1..=CONSUMER_BYTES_MAX).contains(&self.consumer.len()) && !self.consumer.contains('\0');
        if !named {
            let message = format!("consumer must have 1 to {CONSUMER_BYTES_MAX} bytes");
            return Err(ApiError::unprocessable(message).detail("field", "consumer"));
        }
        let uses = self.entries.into_iter().map(UsedEntryBody::parse).collect::<Result<_, _>>()?;
        Ok(ConsumerReport { consumer: self.consumer.into(), lasting: self.lasting, uses })
    }
}

impl UsedEntryBody {
    fn parse(self) -> Result<UsedEntry, ApiError> {
        Ok(UsedEntry {
            environment: Environment::parse(&self.environment)?,
            namespace: Namespace::parse(&self.namespace)?,
            key: Key::parse(&self.key)?,
            version: self.version,
        })
    }
}

/// A secret that expires.
#[derive(Serialize, ToSchema)]
pub(super) struct ExpiringBody {
    id: String,
    namespace: String,
    key: String,
    environment: String,
    version: u64,
    secret_type: &'static str,
    expires_at: String,
}

impl From<ExpiringSecret> for ExpiringBody {
    fn from(secret: ExpiringSecret) -> Self {
        Self {
            id: secret.at.id().to_string(),
            namespace: secret.at.scope.namespace.to_string(),
            key: secret.at.key.to_string(),
            environment: secret.at.scope.environment.to_string(),
            version: secret.version,
            secret_type: secret.secret_type.as_str(),
            expires_at: secret.expires_at.to_rfc3339(),
        }
    }
}
