//! How a hub comes to a token, keeps it, and what it does when the token is gone.

use std::sync::Arc;

use llm_config_hub::secrets::KeyProvider as _;
use llm_config_hub::secrets::vault::{Credential, Hidden, Vault, VaultAuth};
use llm_config_tests::bao::Bao;
use llm_config_tests::process::{free_address, run};
use llm_config_tests::scratch::Scratch;
use llm_config_tests::wait::eventually;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::conformance::settings;

async fn role(bao: &Bao, ttl: &str) -> VaultAuth {
    let root = bao.client();
    root.post("/v1/auth/approle/role/hub", json!({"token_policies": "hub", "token_ttl": ttl})).await.fine();
    let role = root.get("/v1/auth/approle/role/hub/role-id").await.expect(200);
    let secret = root.post("/v1/auth/approle/role/hub/secret-id", json!({})).await.expect(200);
    let text = |value: &Value| Hidden::new(value.as_str().expect("a text").to_owned());
    VaultAuth::AppRole {
        role_id: text(&role["data"]["role_id"]),
        secret_id: Credential::Text(text(&secret["data"]["secret_id"])),
    }
}

/// The accessors of all tokens but the first.
async fn accessors(bao: &Bao) -> Vec<String> {
    let root = bao.client();
    let listed = root.send("LIST", "/v1/auth/token/accessors", None).await.expect(200);
    let mut found = Vec::new();
    for accessor in listed["data"]["keys"].as_array().unwrap() {
        let accessor = accessor.as_str().unwrap().to_owned();
        let about = root.post("/v1/auth/token/lookup-accessor", json!({"accessor": accessor})).await;
        if about.status == 200 && about.json()["data"]["path"] == "auth/approle/login" {
            found.push(accessor);
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_renewed_in_time_and_many_callers_log_in_once() {
    let scratch = Scratch::new("renewal");
    let bao = Bao::start(&scratch).await;
    let mut settings = settings(&bao);
    settings.auth = role(&bao, "3s").await;
    settings.auth_mount = "approle".into();
    let vault = Arc::new(Vault::new(settings).unwrap());
    let many = (0..40).map(|n| {
        let vault = Arc::clone(&vault);
        tokio::spawn(async move { vault.wrap_key(&format!("k{n}"), b"a key").await.map(|_| ()) })
    });
    for one in many.collect::<Vec<_>>() {
        one.await.unwrap().unwrap();
    }
    let first = accessors(&bao).await;
    assert_eq!(first.len(), 1, "one login for forty callers");

    let stop = CancellationToken::new();
    let keeping = tokio::spawn(Arc::clone(&vault).keep(stop.clone()));
    // More than two of its lives later it is the same token still.
    let about = json!({"accessor": first[0]});
    let born = bao.client().post("/v1/auth/token/lookup-accessor", about.clone()).await.expect(200);
    let born = born["data"]["creation_time"].as_u64().unwrap();
    eventually("the token is seven seconds old", async || {
        let told = bao.client().post("/v1/auth/token/lookup-accessor", about.clone()).await.expect(200);
        let renewed = told["data"]["last_renewal_time"].as_u64().unwrap_or(0);
        if renewed >= born + 5 { Ok(()) } else { Err(told) }
    })
    .await;
    assert_eq!(accessors(&bao).await, first);
    vault.wrap_key("ca", b"a key").await.unwrap();
    stop.cancel();
    keeping.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_was_revoked_is_replaced_and_one_from_a_file_read_anew() {
    let scratch = Scratch::new("revoked");
    let bao = Bao::start(&scratch).await;
    let mut by_role = settings(&bao);
    by_role.auth = role(&bao, "1h").await;
    by_role.auth_mount = "approle".into();
    let vault = Vault::new(by_role).unwrap();
    let wrapped = vault.wrap_key("ca", b"a key").await.unwrap();
    let before = accessors(&bao).await;
    bao.client().post("/v1/auth/token/revoke-accessor", json!({"accessor": before[0]})).await.fine();
    assert_eq!(vault.unwrap_key("ca", &wrapped).await.unwrap().as_slice(), b"a key");
    let after = accessors(&bao).await;
    assert!(after.len() == 1 && after != before, "one login more, and no more than that");

    let mut by_file = settings(&bao);
    let made = |token: Value| token["auth"]["client_token"].as_str().unwrap().to_owned();
    let ask = json!({"policies": ["hub"], "ttl": "1h"});
    let first = made(bao.client().post("/v1/auth/token/create", ask.clone()).await.expect(200));
    let file = scratch.file("token", &format!("{first}\n"));
    by_file.auth = VaultAuth::Token(Credential::File(file));
    let vault = Vault::new(by_file).unwrap();
    assert_eq!(vault.unwrap_key("ca", &wrapped).await.unwrap().as_slice(), b"a key");
    bao.client_with(&first).post("/v1/auth/token/revoke-self", json!({})).await.fine();
    let refused = vault.unwrap_key("ca", &wrapped).await.unwrap_err();
    assert!(refused.to_string().contains("refuses the hub's login") && refused.retry_after_s().is_some());
    let second = made(bao.client().post("/v1/auth/token/create", ask).await.expect(200));
    scratch.file("token", &second);
    eventually("the new token is used", async || vault.unwrap_key("ca", &wrapped).await.map(|_| ())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_transit_key_is_made_by_init_and_by_nobody_else() {
    let scratch = Scratch::new("made-by-init");
    let bao = Bao::start(&scratch).await;
    let key = "\ntransit_key = \"hub-two\"\n";
    let token = scratch.file("token", bao.root_token());
    let login = format!("token_file = \"{}\"", token.display());
    let text = format!(
        "[listen]\napi = \"127.0.0.1:0\"\nsync = \"127.0.0.1:0\"\n[database]\nurl = \"sqlite:hub.sqlite\"\n[secrets]\n\
         provider = \"vault\"\n{}\n{login}{key}",
        bao.table()
    );
    let config = scratch.file("hub.toml", &text);
    let config = config.to_str().unwrap();
    let said = run("llm-config-hub", ["serve", "--config", config]).await;
    assert!(said.code == 1 && said.err.contains("transit/hub-two") && said.err.contains("init"), "{said:?}");
    assert_eq!(bao.client().get("/v1/transit/keys/hub-two").await.status, 404);
    run("llm-config-hub", ["init", "--config", config]).await.done();
    bao.client().get("/v1/transit/keys/hub-two").await.expect(200);
}

/// Of a CA that no system trusts: its certificate, and one with its key for whoever is at 127.0.0.1.
fn certificates() -> (String, String, String) {
    let (ca_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &Issuer::new(ca, ca_key)).unwrap();
    (ca_pem, leaf.pem(), key.serialize_pem())
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_only_the_ca_of_the_settings_counts_and_a_certificate_logs_in() {
    let scratch = Scratch::new("tls");
    let (ca, certificate, key) = certificates();
    let file = |name: &str, text: &str| scratch.file(name, text);
    let (ca, certificate_file, key) = (file("ca", &ca), file("cert", &certificate), file("key", &key));
    let address = free_address();
    let listener = format!(
        "listener \"tcp\" {{\n address = \"{address}\"\n tls_cert_file = \"{}\"\n tls_key_file = \"{}\"\n}}\n",
        certificate_file.display(),
        key.display()
    );
    let bao = Bao::start_with(&scratch, &listener).await;
    let root = bao.client();
    root.post("/v1/sys/auth/cert", json!({"type": "cert"})).await.fine();
    let role = json!({"certificate": certificate, "token_policies": "hub", "token_ttl": "1h"});
    root.post("/v1/auth/cert/certs/hub", role).await.fine();

    let mut by_certificate = settings(&bao);
    by_certificate.addr = format!("https://{address}");
    by_certificate.auth_mount = "cert".into();
    by_certificate.auth =
        VaultAuth::Cert { role: Some("hub".into()), cert_file: certificate_file, key_file: key };
    let stranger = Vault::new(by_certificate.clone()).unwrap();
    let refused = stranger.wrap_key("ca", b"a key").await.unwrap_err().to_string();
    assert!(refused.contains("cannot be reached"), "{refused}");
    by_certificate.ca_cert = Some(ca);
    let vault = Vault::new(by_certificate).unwrap();
    let wrapped = vault.wrap_key("ca", b"a key").await.unwrap();
    assert_eq!(vault.unwrap_key("ca", &wrapped).await.unwrap().as_slice(), b"a key");
}
