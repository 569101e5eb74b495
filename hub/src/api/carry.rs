//! Files for edges that cannot reach this hub.

use llm_config_proto::rest::error::ApiError;
use llm_config_proto::rest::losses::{CarriedFile, CarryWanted};
use llm_config_proto::rest::receipts::UsesReport;
use llm_config_proto::rest::service::Caller;
use llm_config_shared::limits::{CARRIED_MS, OFFLINE_LIMIT_MS_MAX, OFFLINE_LIMIT_MS_MIN};
use llm_config_shared::name::{EdgeName, Tenant};
use llm_config_shared::store::Journal;

use serde_json::{Value as Json, json};

use super::Api;
use crate::guard::edge_caller;
use crate::registry::{Registry, Said};
use crate::sync::carry::{Carrier, CarryError, TakenIn};

impl From<CarryError> for ApiError {
    fn from(error: CarryError) -> Self {
        match error {
            CarryError::Journal(error) => error.into(),
            CarryError::Secrets(error) => error.into(),
            CarryError::Upload(error) => Self::unavailable(error.to_string(), 1),
            CarryError::Refused(_) | CarryError::NotServed | CarryError::BadSealingKey => {
                Self::conflict(error.to_string())
            }
        }
    }
}

impl<S: Journal + Registry> Api<S> {
    fn carrier(&self) -> Carrier<S> {
        let parts = &self.parts;
        Carrier {
            store: parts.store.clone(),
            secrets: parts.secrets.clone(),
            identity: parts.identity.clone(),
            writer: parts.writer.clone(),
            line: parts.line.clone(),
        }
    }

    pub(super) async fn taken_in(&self, caller: &Caller, file: &[u8]) -> Result<Json, ApiError> {
        let taken = self.carrier().from_edge(&caller.tenant, file).await?;
        let TakenIn { edge, accepted, known, conflicts, held, denied, left, uses } = taken;
        if let Some((uses, said_at)) = &uses {
            self.report_for(&caller.tenant, &EdgeName::parse(&edge)?, uses, Said::Carried(*said_at)).await?;
        }
        tracing::info!(
            caller = %caller.name, edge, accepted, known, conflicts, held, denied, left,
            "writes that were carried here from an edge were decided"
        );
        Ok(json!({
            "edge": edge, "accepted": accepted, "known": known, "conflicts": conflicts,
            "held": held, "denied": denied, "left": left, "uses": uses.is_some(),
        }))
    }

    /// As the edge itself would have told it then.
    async fn report_for(
        &self,
        tenant: &Tenant,
        name: &EdgeName,
        uses: &[u8],
        said: Said,
    ) -> Result<(), ApiError> {
        let store = &self.parts.store;
        let Some(edge) = store.edge_named(tenant, name).await? else { return Ok(()) };
        let caller = edge_caller(&edge, &store.environments(tenant).await?, "daemon");
        self.note_uses(&caller, UsesReport::parse(uses)?, said).await
    }

    pub(super) async fn carried(
        &self,
        caller: &Caller,
        name: &EdgeName,
        wanted: CarryWanted,
    ) -> Result<CarriedFile, ApiError> {
        let good_for_ms = wanted.good_for_ms.unwrap_or(CARRIED_MS);
        if !(OFFLINE_LIMIT_MS_MIN..=OFFLINE_LIMIT_MS_MAX).contains(&good_for_ms) {
            let message = "good_for must be from one second to 30 days";
            return Err(ApiError::unprocessable(message).detail("field", "good_for"));
        }
        let edge = self.latest(caller, name).await?;
        let parcel = self.carrier().to_edge(&edge, wanted.full, good_for_ms).await?;
        tracing::info!(caller = %caller.name, edge = %name, full = wanted.full, "a file was made for an edge, to be carried");
        Ok(CarriedFile { good_until: parcel.label.not_after, pieces: Box::new(parcel) })
    }
}
