//! What namespaces do with concurrent writes.

use std::collections::BTreeSet;

use llm_config_shared::limits::POLICIES_MAX;
use llm_config_shared::name::{Namespace, Tenant};
use llm_config_shared::policy::{ConflictPolicy, Policies};
use llm_config_shared::store::fleet::Kind;

use super::fleet;
use crate::journal::dialect::{Answer, Cells, Column, Sql, Transact};
use crate::journal::failure::{corrupt, unavailable};
use crate::journal::rows::name;
use crate::registry::SetPolicyError;

const LOCK: Sql = Sql {
    sqlite: "SELECT name FROM tenant WHERE name = $1",
    postgres: "SELECT name FROM tenant WHERE name = $1 FOR UPDATE",
};
const OF: Sql = Sql {
    sqlite: "SELECT tenant, namespace, conflicts FROM policy WHERE tenant = $1",
    postgres: "SELECT tenant, namespace, conflicts FROM unnest($1::text[]) AS a (t) JOIN policy ON tenant = t",
};
const PUT: Sql = Sql::same(
    "INSERT INTO policy (tenant, namespace, conflicts) VALUES ($1, $2, $3)
     ON CONFLICT (tenant, namespace) DO UPDATE SET conflicts = excluded.conflicts",
);
const REMOVE: Sql = Sql::same("DELETE FROM policy WHERE tenant = $1 AND namespace = $2");

pub(in crate::journal) async fn of<T: Transact>(tx: &mut T, tenants: &[Tenant]) -> Answer<Policies> {
    let tenants: BTreeSet<&str> = tenants.iter().map(Tenant::as_str).collect();
    let mut policies = Policies::default();
    for row in &tx.fetch_each(OF, vec![Column::texts(tenants)]).await? {
        let policy =
            ConflictPolicy::parse(row.text(2)?).ok_or_else(|| corrupt("a policy of an unknown sort"))?;
        let (tenant, namespace) = (Tenant::parse(row.text(0)?), Namespace::parse(row.text(1)?));
        policies.set(name(tenant)?, name(namespace)?, policy);
    }
    Ok(policies)
}

/// The tenant is locked, so that two at once do not come above the bound together.
pub(super) async fn set<T: Transact>(
    tx: &mut T,
    tenant: &Tenant,
    namespace: &Namespace,
    policy: Option<ConflictPolicy>,
) -> Result<Policies, SetPolicyError> {
    if tx.fetch(LOCK, vec![tenant.as_str().into()]).await?.is_empty() {
        return Err(unavailable(format!("it has no tenant {tenant}")).into());
    }
    let place = [tenant.as_str().into(), namespace.as_str().into()];
    let id = format!("{tenant}/{namespace}");
    match policy {
        None => {
            tx.execute(REMOVE, place.into()).await?;
            fleet::ended(tx, Kind::Policy, &id).await?;
        }
        Some(policy) => {
            let [tenant, namespace] = place;
            tx.execute(PUT, vec![tenant, namespace, policy.as_str().into()]).await?;
            fleet::changed(tx, Kind::Policy, &id).await?;
        }
    }
    let policies = of(tx, std::slice::from_ref(tenant)).await?;
    if policies.count(tenant) > POLICIES_MAX {
        return Err(SetPolicyError::TooMany);
    }
    Ok(policies)
}
