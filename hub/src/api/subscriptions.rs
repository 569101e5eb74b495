//! What an edge receives and where it may write: said when it is let in, and changed later.

use llm_config_proto::rest::admin::{ChangedSubscription, EdgeInfo};
use llm_config_proto::rest::error::ApiError;
use llm_config_proto::rest::service::Caller;
use llm_config_shared::access::Permission;
use llm_config_shared::feed::Binding;
use llm_config_shared::limits::FEEDS_MAX;
use llm_config_shared::name::{EdgeName, Subtree};
use llm_config_shared::store::Journal;

use super::Api;
use super::edges::no_edge;
use crate::config::Mode;
use crate::guard;
use crate::registry::Registry;

impl<S: Journal + Registry> Api<S> {
    /// From now on. An edge that is connected is told at once and keeps what it still receives; one that is not learns of
    /// it when it comes back. What it receives no more it removes; writes that wait for where it may not write any more
    /// are refused then, and told of.
    pub(super) async fn bind_edge(
        &self,
        caller: &Caller,
        name: &EdgeName,
        changed: ChangedSubscription,
    ) -> Result<EdgeInfo, ApiError> {
        guard::may(caller, Permission::Administer)?;
        let edge = self.parts.store.edge_named(&caller.tenant, name).await?.ok_or_else(|| no_edge(name))?;
        let before = edge.binding;
        let binding = Binding {
            namespaces: changed.namespaces.unwrap_or(before.namespaces),
            environments: changed.environments.unwrap_or(before.environments),
            write: changed.write.unwrap_or(before.write),
        };
        let binding = self.checked(caller, name, binding).await?.of_edge(name);
        let bound = self.parts.store.bind_edge(&caller.tenant, name, &binding).await?;
        let edge = bound.ok_or_else(|| no_edge(name))?;
        tracing::info!(caller = %caller.name, edge = %name, "an edge's subscription was changed");
        self.parts.roster.recheck();
        Ok(self.info(edge))
    }

    /// The binding, if an edge may have it here.
    pub(super) async fn checked(
        &self,
        caller: &Caller,
        name: &EdgeName,
        binding: Binding,
    ) -> Result<Binding, ApiError> {
        let binding = whole(self.parts.mode, binding)?;
        let environments = self.parts.store.environments(&caller.tenant).await?;
        if let Some(unknown) = binding.environments.iter().find(|name| !environments.contains(name)) {
            return Err(ApiError::bad_request(format!("environment {unknown} does not exist"))
                .detail("field", "environments"));
        }
        let feeds = binding.feeds(&caller.tenant, name, &environments).len();
        if feeds > FEEDS_MAX {
            let message = format!(
                "namespaces: with the environments and their parents these make {feeds} parts; an edge receives at most \
                 {FEEDS_MAX}"
            );
            return Err(ApiError::unprocessable(message)
                .detail("field", "namespaces")
                .detail("limit", FEEDS_MAX as u64));
        }
        Ok(binding)
    }
}

/// Empty lists are everything for one person on one machine, and a mistake anywhere else. An empty list of where to write
/// becomes each edge's own part when it joins: for a token of several uses, its name is not known before.
fn whole(mode: Mode, mut binding: Binding) -> Result<Binding, ApiError> {
    if mode == Mode::Dev {
        if binding.write.is_empty() {
            binding.write.push(Subtree::ALL);
        }
        return Ok(binding);
    }
    let empty =
        [("namespaces", binding.namespaces.is_empty()), ("environments", binding.environments.is_empty())];
    match empty.into_iter().find(|(_, empty)| *empty) {
        None => Ok(binding),
        Some((field, _)) => {
            Err(ApiError::unprocessable(format!("{field}: say which ones the edge receives"))
                .detail("field", field))
        }
    }
}

#[cfg(test)]
mod tests {
    use llm_config_shared::name::Environment;

    use super::*;

    fn binding(namespaces: &[&str], environments: &[&str], write: &[&str]) -> Binding {
        let subtrees = |texts: &[&str]| texts.iter().map(|text| Subtree::parse(text).unwrap()).collect();
        Binding {
            namespaces: subtrees(namespaces),
            environments: environments.iter().map(|text| Environment::parse(text).unwrap()).collect(),
            write: subtrees(write),
        }
    }

    #[test]
    fn empty_lists_are_everything_under_dev_and_refused_under_serve() {
        let nothing = binding(&[], &[], &[]);
        assert_eq!(whole(Mode::Dev, nothing.clone()), Ok(Binding::everything()));
        for (asked, field) in [(nothing, "namespaces"), (binding(&["app"], &[], &[]), "environments")] {
            let error = whole(Mode::Serve, asked).unwrap_err();
            assert_eq!((error.kind.status(), &error.details["field"]), (422, &field.into()));
        }
        let told = binding(&["app"], &["prod"], &[]);
        let name = EdgeName::parse("kiosk-7").unwrap();
        assert_eq!(whole(Mode::Serve, told.clone()).unwrap().write, []);
        assert_eq!(told.of_edge(&name).write, [Subtree::parse("edges/kiosk-7").unwrap()]);
    }
}
