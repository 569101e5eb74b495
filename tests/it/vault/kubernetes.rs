//! A hub logs in by the token of its pod's service account: a real OpenBao asks a Kubernetes about it, whose only part
//! that matters here, the review of tokens, is played by a server of this test.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use llm_config_hub::secrets::KeyProvider as _;
use llm_config_hub::secrets::vault::{Vault, VaultAuth};
use llm_config_tests::bao::Bao;
use llm_config_tests::scratch::Scratch;
use llm_config_tests::wait::eventually;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::conformance::settings;

/// A service account's token; who reviews it knows it as a whole, so its signature is never looked at.
fn token(account: &str) -> String {
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = json!({
        "iss": "https://kubernetes.default.svc", "sub": format!("system:serviceaccount:apps:{account}"),
        "iat": 1_700_000_000, "nbf": 1_700_000_000, "exp": 4_102_444_800_u64, "kubernetes.io": {"namespace": "apps",
            "serviceaccount": {"name": account, "uid": "6a2f"}},
    });
    format!("{}.{}.{}", part(json!({"alg": "RS256", "typ": "JWT"})), part(claims), "c2lnbmVk")
}

/// Says of one token that it is genuine, and whose; of every other that it is not.
struct Kubernetes {
    address: SocketAddr,
    genuine: Arc<Mutex<String>>,
}

impl Kubernetes {
    async fn start(genuine: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let genuine = Arc::new(Mutex::new(genuine.to_owned()));
        let known = Arc::clone(&genuine);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let known = Arc::clone(&known);
                let answer = service_fn(move |request| review(request, Arc::clone(&known)));
                let server = hyper::server::conn::http1::Builder::new();
                tokio::spawn(server.serve_connection(TokioIo::new(stream), answer));
            }
        });
        Self { address, genuine }
    }

    fn knows(&self, token: &str) {
        token.clone_into(&mut self.genuine.lock().unwrap());
    }
}

/// `TokenReview` of `authentication.k8s.io/v1`.
async fn review(
    request: Request<Incoming>,
    genuine: Arc<Mutex<String>>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    assert_eq!(request.uri().path(), "/apis/authentication.k8s.io/v1/tokenreviews");
    let asked = request.into_body().collect().await?.to_bytes();
    let asked: Value = serde_json::from_slice(&asked).unwrap();
    let token = asked["spec"]["token"].as_str().unwrap();
    let status = if token == *genuine.lock().unwrap() {
        let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
        let claims: Value = serde_json::from_slice(&claims).unwrap();
        json!({"authenticated": true, "user": {"username": claims["sub"],
            "uid": "6a2f", "groups": ["system:serviceaccounts", "system:serviceaccounts:apps"]}})
    } else {
        json!({"authenticated": false, "error": "token is expired"})
    };
    let told = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": status});
    let answer = Response::builder().status(201).header("content-type", "application/json");
    Ok(answer.body(Full::new(Bytes::from(told.to_string()))).unwrap())
}

/// A hub's Vault that logs in with the token in a file.
fn pod(bao: &Bao, jwt_file: PathBuf) -> Vault {
    let mut settings = settings(bao);
    settings.auth_mount = "kubernetes".into();
    settings.auth = VaultAuth::Kubernetes { role: "hub".into(), jwt_file };
    Vault::new(settings).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_logs_in_by_its_service_account_and_reads_the_token_anew() {
    let scratch = Scratch::new("kubernetes");
    let bao = Bao::start(&scratch).await;
    let first = token("hub");
    let kubernetes = Kubernetes::start(&first).await;
    let root = bao.client();
    root.post("/v1/sys/auth/kubernetes", json!({"type": "kubernetes"})).await.fine();
    // It wants a CA, and none counts on a line without TLS.
    let ca = rcgen::generate_simple_self_signed(vec!["kubernetes".to_owned()]).unwrap().cert.pem();
    let config = json!({"kubernetes_ca_cert": ca, "kubernetes_host": format!("http://{}", kubernetes.address),
        "token_reviewer_jwt": token("reviewer"), "disable_local_ca_jwt": true});
    root.post("/v1/auth/kubernetes/config", config).await.fine();
    let role = json!({"bound_service_account_names": "hub", "bound_service_account_namespaces": "apps",
        "token_policies": "hub", "token_ttl": "1h"});
    root.post("/v1/auth/kubernetes/role/hub", role).await.fine();

    let file = scratch.file("jwt", &first);
    let vault = pod(&bao, file.clone());
    let wrapped = vault.wrap_key("ca", b"a key").await.unwrap();
    assert_eq!(vault.unwrap_key("ca", &wrapped).await.unwrap().as_slice(), b"a key");

    // The kubelet puts a new token into the file; the old one is not known any more, nor are Vault's tokens of it.
    let second = token("hub").replace("c2lnbmVk", "YW5ldw");
    kubernetes.knows(&second);
    root.post("/v1/sys/leases/revoke-prefix/auth/kubernetes", json!({})).await.fine();
    let refused = vault.unwrap_key("ca", &wrapped).await.unwrap_err().to_string();
    assert!(refused.contains("refuses the hub's login"), "{refused}");
    std::fs::write(&file, &second).unwrap();
    let key = eventually("the new token is read", async || vault.unwrap_key("ca", &wrapped).await).await;
    assert_eq!(key.as_slice(), b"a key");

    // Another account of the cluster is genuine, and not the hub's.
    let other = token("other");
    kubernetes.knows(&other);
    let stranger = pod(&bao, scratch.file("other", &other));
    let refused = stranger.unwrap_key("ca", &wrapped).await.unwrap_err().to_string();
    assert!(refused.contains("refuses the hub's login"), "{refused}");
}
