//! Keys of secrets between regions, as protobuf and back.

use llm_config_shared::limits::REGION_KEYS_MAX;
use llm_config_shared::name::{Environment, Tenant};
use llm_config_shared::seal::SealKey;
use llm_config_shared::store::region::{KeyName, RegionKey};

use super::entry::{InvalidMessage, Parsed, list, required};
use super::wire;

impl From<&KeyName> for wire::KeyName {
    fn from(name: &KeyName) -> Self {
        Self {
            tenant: name.tenant.to_string(),
            environment: name.environment.to_string(),
            key_epoch: name.key_epoch,
        }
    }
}

impl TryFrom<wire::KeyName> for KeyName {
    type Error = InvalidMessage;

    fn try_from(name: wire::KeyName) -> Parsed<Self> {
        Ok(Self {
            tenant: Tenant::parse(&name.tenant)?,
            environment: Environment::parse(&name.environment)?,
            key_epoch: name.key_epoch,
        })
    }
}

impl TryFrom<wire::KeysRequest> for Option<KeyName> {
    type Error = InvalidMessage;

    fn try_from(request: wire::KeysRequest) -> Parsed<Self> {
        request.after.map(TryInto::try_into).transpose()
    }
}

impl From<Vec<RegionKey>> for wire::KeysReply {
    fn from(keys: Vec<RegionKey>) -> Self {
        let key = |RegionKey { name, key }: RegionKey| wire::keys_reply::Key {
            name: Some((&name).into()),
            key: key.expose().to_vec().into(),
        };
        Self { keys: keys.into_iter().map(key).collect() }
    }
}

impl TryFrom<wire::KeysReply> for Vec<RegionKey> {
    type Error = InvalidMessage;

    fn try_from(reply: wire::KeysReply) -> Parsed<Self> {
        list("keys", REGION_KEYS_MAX, reply.keys, |part| {
            let key = SealKey::from_slice(&part.key);
            let key = key.map_err(|_| InvalidMessage::Missing { field: "key" })?;
            Ok(RegionKey { name: required("name", part.name)?.try_into()?, key })
        })
    }
}
