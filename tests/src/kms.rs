//! Clouds' key management as servers for tests: they speak the real protocols, check who asks and really encrypt. No
//! cloud account is touched, and none is needed.

pub mod aws;
pub mod azure;
mod cipher;
mod form;
pub mod gcp;
mod sigv4;
