//! The key-encryption key in clouds' key management, over the protocols that they speak. The clouds are servers of these
//! tests: they check signatures and contexts and really encrypt, but nobody has an account anywhere.

mod aws;
mod azure;
mod gcp;
mod moves;
