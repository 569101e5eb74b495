//! The OpenAPI 3.1 document, generated from the handlers' own descriptions.

use utoipa::openapi::OpenApi as Document;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::{
    admin_routes, conflict_routes, loss_routes, receipt_routes, rotation_routes, router, types, value_routes,
};

#[derive(OpenApi)]
#[openapi(
    info(title = "LLM Config Manager", description = "Configuration and secrets, the same at the hub and at every edge."),
    paths(
        router::health,
        value_routes::get_entry, value_routes::put_entry, value_routes::post_entry, value_routes::delete_entry,
        value_routes::list_entries, value_routes::explain, value_routes::history, value_routes::rollback, value_routes::diff,
        value_routes::bulk, value_routes::events, value_routes::metrics,
    ),
    components(schemas(types::ClashBody, types::HeldEventBody, types::ExpiryEventBody)),
    security(("token" = [])),
    modifiers(&Token)
)]
struct Values;

#[derive(OpenApi)]
#[openapi(paths(
    admin_routes::create_join_token,
    admin_routes::list_tokens,
    admin_routes::create_token,
    admin_routes::remove_token,
    admin_routes::list_tenants,
    admin_routes::create_tenant,
    admin_routes::get_regions,
    admin_routes::list_environments,
    admin_routes::get_environment,
    admin_routes::put_environment,
    admin_routes::list_edges,
    admin_routes::get_edge,
    admin_routes::remove_edge,
    admin_routes::fleet,
    admin_routes::list_changes,
    admin_routes::get_change,
    loss_routes::get_offline_limit,
    loss_routes::put_offline_limit,
    loss_routes::remove_offline_limit,
    loss_routes::lose_edge,
    loss_routes::get_receipt,
    loss_routes::carry,
    loss_routes::take_carried,
    loss_routes::list_exposed,
    conflict_routes::list_conflicts,
    conflict_routes::get_conflict,
    conflict_routes::restore_conflict,
    conflict_routes::dismiss_conflict,
    conflict_routes::list_held,
    conflict_routes::get_held,
    conflict_routes::release_held,
    conflict_routes::drop_held,
    conflict_routes::release_change,
    conflict_routes::drop_change,
    conflict_routes::undo_change,
    conflict_routes::get_policy,
    conflict_routes::put_policy,
    conflict_routes::remove_policy,
    receipt_routes::get_receipts,
    receipt_routes::put_uses,
    receipt_routes::list_expiring,
    rotation_routes::get_rotation,
    rotation_routes::put_rotation,
    rotation_routes::remove_rotation,
    rotation_routes::rotate,
    rotation_routes::retire,
    rotation_routes::purge,
    rotation_routes::get_sealing,
    rotation_routes::put_sealing,
))]
struct Admin;

struct Token;

impl Modify for Token {
    fn modify(&self, document: &mut Document) {
        let scheme =
            HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("An API token")).build();
        let components = document.components.get_or_insert_with(Default::default);
        components.add_security_scheme("token", SecurityScheme::Http(scheme));
    }
}

/// What an edge serves.
pub fn edge_document() -> Document {
    Values::openapi()
}

/// What a hub serves.
pub fn hub_document() -> Document {
    let mut document = Values::openapi();
    document.merge(Admin::openapi());
    document
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_of_3_1_and_names_every_route() {
        let hub = serde_json::to_value(hub_document()).unwrap();
        assert_eq!(hub["openapi"], "3.1.0");
        let paths = hub["paths"].as_object().unwrap();
        for path in [
            "/health",
            "/api/v1/configs/bulk",
            "/api/v1/events",
            "/api/v1/fleet",
            "/api/v1/held",
            "/api/v1/changes/{id}/receipts",
            "/api/v1/secrets/expiring",
            "/api/v1/secrets/{namespace}/{key}/rotate",
            "/api/v1/conflicts/{id}/restore",
            "/api/v1/namespaces/{namespace}/policy",
        ] {
            assert!(paths.contains_key(path), "{path}");
        }
        let entry: Vec<&String> =
            paths["/api/v1/configs/{namespace}/{key}"].as_object().unwrap().keys().collect();
        assert_eq!(entry, ["delete", "get", "post", "put"]);
        let edge = serde_json::to_value(edge_document()).unwrap();
        assert!(!edge["paths"].as_object().unwrap().contains_key("/api/v1/fleet"));
        assert!(hub["components"]["schemas"].as_object().unwrap().contains_key("EntryBody"));
    }
}
