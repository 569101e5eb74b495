//! Settings of a folder that hold for everything below it: shown, set, or left to what holds above.

use http::Method;
use serde_json::Value as Json;

use super::address::Address;
use super::connection::{Answer, Connection};
use super::exit::Failure;

/// Sets it, lets what holds above hold again, or shows it.
pub(super) async fn ask(
    connection: &Connection,
    namespace: &str,
    setting: &str,
    set: Option<Json>,
    inherit: bool,
) -> Result<Answer, Failure> {
    let address = Address::new(&["namespaces", namespace, setting]);
    match (set, inherit) {
        (Some(set), _) => connection.ask(Method::PUT, &address, Some(set.to_string())).await,
        (None, true) => connection.ask(Method::DELETE, &address, None).await,
        (None, false) => connection.ask(Method::GET, &address, None).await,
    }
}

/// Where it was set, where that is not here.
pub(super) fn source(set_in: Option<&str>, namespace: &str) -> String {
    match set_in {
        Some(above) if above != namespace => format!(" (set for {above})"),
        Some(_) => String::new(),
        None => " (nobody set another)".to_owned(),
    }
}
