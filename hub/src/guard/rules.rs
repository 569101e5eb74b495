//! What a caller may do: one function per kind of question.

use llm_config_proto::rest::error::ApiError;
use llm_config_proto::rest::service::Caller;
use llm_config_shared::access::{Permission, Role};
use llm_config_shared::feed::Environments;
use llm_config_shared::name::{EntryKey, Namespace, Subtree, Tenant};

use crate::registry::Edge;

/// An edge's local caller, whose request was passed on: it sees what the edge receives and writes where the edge may.
pub fn edge_caller(edge: &Edge, environments: &Environments, local: &str) -> Caller {
    Caller {
        tenant: edge.tenant.clone(),
        name: format!("edge:{}/{local}", edge.name).into(),
        role: Role::Writer,
        read: Some(edge.binding.feeds(&edge.tenant, &edge.name, environments).into()),
        write: Some(edge.binding.write.clone()),
        reveal: true,
    }
}

/// Whether the caller may do such things at all.
///
/// # Errors
/// 403, saying what is missing.
pub fn may(caller: &Caller, permission: Permission) -> Result<(), ApiError> {
    // What lies beyond an edge's own part of the tenant is not its business, whatever its role.
    let bounded = caller.read.is_some() && permission == Permission::Administer;
    if caller.role.may(permission) && !bounded {
        return Ok(());
    }
    let needed = match permission {
        Permission::Read => "reading needs the role reader",
        Permission::Reveal => "showing secrets needs the role writer",
        Permission::Write => "writing needs the role writer",
        Permission::Administer => "this needs the role admin",
    };
    Err(ApiError::forbidden(format!("{} may not do that: {needed}", caller.name)))
}

/// Whether the caller may see that entry, a secret masked.
///
/// # Errors
/// 403.
pub fn may_read(caller: &Caller, at: &EntryKey) -> Result<(), ApiError> {
    may(caller, Permission::Read)?;
    match &caller.read {
        Some(feeds) if !feeds.iter().any(|feed| feed.contains(at)) => {
            Err(beyond(caller, &at.scope.namespace))
        }
        Some(_) | None => Ok(()),
    }
}

/// Whether the caller may see everything of the tenant: lists that cut across namespaces.
///
/// # Errors
/// 403.
pub fn may_read_all(caller: &Caller) -> Result<(), ApiError> {
    may(caller, Permission::Read)?;
    match &caller.read {
        Some(_) => {
            Err(ApiError::forbidden(format!("{} may only see its own part of the tenant", caller.name)))
        }
        None => Ok(()),
    }
}

/// Whether the caller may see the secret in clear.
///
/// # Errors
/// 403.
pub fn may_reveal(caller: &Caller, at: &EntryKey) -> Result<(), ApiError> {
    may_read(caller, at)?;
    let received = caller.read.as_ref().is_none_or(|feeds| feeds.iter().any(|f| f.secrets && f.contains(at)));
    if caller.reveal && caller.role.may(Permission::Reveal) && received {
        return Ok(());
    }
    metrics::counter!("secret_access_total", "status" => "denied").increment(1);
    Err(ApiError::forbidden(format!("{} may not see secrets there", caller.name)))
}

/// Whether the caller may write in that namespace.
///
/// # Errors
/// 403.
pub fn may_write(caller: &Caller, namespace: &Namespace) -> Result<(), ApiError> {
    may(caller, Permission::Write)?;
    match &caller.write {
        Some(subtrees) if !subtrees.iter().any(|subtree: &Subtree| subtree.contains(namespace)) => {
            Err(beyond(caller, namespace))
        }
        Some(_) | None => Ok(()),
    }
}

/// Whether the caller may make tenants, and tokens for others: only the operator's administrators.
///
/// # Errors
/// 403.
pub fn may_operate(caller: &Caller, operator: Option<&Tenant>) -> Result<(), ApiError> {
    may(caller, Permission::Administer)?;
    if operator == Some(&caller.tenant) {
        return Ok(());
    }
    Err(ApiError::forbidden(format!("{} may only administer tenant {}", caller.name, caller.tenant)))
}

fn beyond(caller: &Caller, namespace: &Namespace) -> ApiError {
    ApiError::forbidden(format!("{} may not use namespace {namespace} so", caller.name))
        .detail("field", "namespace")
}

#[cfg(test)]
mod tests {
    use llm_config_shared::feed::Binding;
    use llm_config_shared::name::{EdgeName, Environment, Key, Scope};
    use llm_config_shared::stamp::ActorId;
    use llm_config_shared::time::UnixMillis;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn an_edge_reads_what_it_receives_and_writes_where_it_may() {
        let subtree = |text| Subtree::parse(text).unwrap();
        let edge = Edge {
            id: ActorId(Uuid::from_u128(7)),
            tenant: Tenant::parse("t").unwrap(),
            name: EdgeName::parse("e").unwrap(),
            binding: Binding {
                namespaces: vec![subtree("app")],
                environments: vec![Environment::parse("production").unwrap()],
                write: vec![subtree("edges/e")],
            },
            labels: std::collections::BTreeMap::new(),
            public_key: Vec::new(),
            sealing_key: Vec::new(),
            joined_at: UnixMillis(1),
            removed_at: None,
            last_seen_at: None,
            acked_seq: 0,
        };
        let caller = edge_caller(&edge, &Environments::standard(), "uid:0");
        assert_eq!(&*caller.name, "edge:e/uid:0");
        let at = |environment, namespace| EntryKey {
            scope: Scope {
                tenant: edge.tenant.clone(),
                environment: Environment::parse(environment).unwrap(),
                namespace: Namespace::parse(namespace).unwrap(),
            },
            key: Key::parse("k").unwrap(),
        };
        assert!(may_read(&caller, &at("staging", "app/llm")).is_ok());
        assert!(
            may_read(&caller, &at("edge", "app")).is_err()
                && may_read(&caller, &at("base", "other")).is_err()
        );
        assert!(may_reveal(&caller, &at("production", "app")).is_ok());
        assert!(may_reveal(&caller, &at("staging", "app")).is_err(), "inherited from base only");
        assert!(may_write(&caller, &Namespace::parse("edges/e/x").unwrap()).is_ok());
        assert!(may_write(&caller, &Namespace::parse("app").unwrap()).is_err());
        assert!(may_read_all(&caller).is_err() && may(&caller, Permission::Administer).is_err());
    }

    #[test]
    fn only_the_operators_administrators_make_tenants() {
        let caller = |tenant, role| Caller {
            tenant: Tenant::parse(tenant).unwrap(),
            name: "token:x".into(),
            role,
            read: None,
            write: None,
            reveal: false,
        };
        let operator = Tenant::parse("default").unwrap();
        assert!(may_operate(&caller("default", Role::Admin), Some(&operator)).is_ok());
        assert!(may_operate(&caller("default", Role::Writer), Some(&operator)).is_err());
        assert!(may_operate(&caller("acme", Role::Admin), Some(&operator)).is_err());
    }
}
