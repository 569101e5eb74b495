//! AWS's signature of requests, version 4, from its public description: what a server checks.

use bytes::Bytes;
use http::Request;
use ring::{digest, hmac};

/// Whether the holder of these keys signed exactly this request.
pub(super) fn is_signed(request: &Request<Bytes>, access_key: &str, secret_key: &str) -> bool {
    signature(request, access_key, secret_key).is_some_and(|(given, right)| given == right)
}

/// The signature that is there, and the right one.
fn signature(request: &Request<Bytes>, access_key: &str, secret_key: &str) -> Option<(String, String)> {
    let header = |name: &str| request.headers().get(name)?.to_str().ok();
    let parts = header("authorization")?.strip_prefix("AWS4-HMAC-SHA256 ")?;
    let part = |name: &str| parts.split(", ").find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
    let (signed, given) = (part("SignedHeaders")?, part("Signature")?.to_owned());
    let scope = part("Credential")?.strip_prefix(access_key)?.strip_prefix('/')?;
    let when = header("x-amz-date")?;
    // What a signature leaves out could be changed on the way.
    for needed in ["host", "x-amz-date", "x-amz-target"] {
        signed.split(';').find(|name| *name == needed)?;
    }
    let mut canonical = format!("{}\n{}\n\n", request.method(), request.uri().path());
    for name in signed.split(';') {
        canonical.push_str(&format!("{name}:{}\n", header(name)?.trim()));
    }
    canonical
        .push_str(&format!("\n{signed}\n{}", hex(digest::digest(&digest::SHA256, request.body()).as_ref())));
    let hashed = hex(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref());
    let mut key = format!("AWS4{secret_key}").into_bytes();
    let scopes: Vec<&str> = scope.split('/').collect();
    let [date, _region, "kms", "aws4_request"] = scopes.as_slice() else { return None };
    when.strip_prefix(date)?;
    for part in &scopes {
        key = mac(&key, part.as_bytes());
    }
    let text = format!("AWS4-HMAC-SHA256\n{when}\n{scope}\n{hashed}");
    Some((given, hex(&mac(&key, text.as_bytes()))))
}

fn mac(key: &[u8], text: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text).as_ref().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
