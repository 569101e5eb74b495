//! AWS KMS: the suite of all providers, its troubles one by one, and hubs on it.

use std::sync::Arc;
use std::time::Duration;

use llm_config_hub::secrets::cloud::{AwsSettings, Cloud};
use llm_config_hub::secrets::{KeyProvider, LocalKeyring, ProviderKind, Providers};
use llm_config_tests::edge::Edge;
use llm_config_tests::http::Answer;
use llm_config_tests::hub::Hub;
use llm_config_tests::kms::aws::{AwsKms, Fault, KEY, OTHER_KEY};
use llm_config_tests::postgres;
use llm_config_tests::scratch::Scratch;
use serde_json::json;

use crate::vault::conformance::conforms;
use crate::vault::rotation::{all_open, hub_with_secrets, keys, status};
use crate::vault::{revealed, set_secret};

fn settings(kms: &AwsKms, scratch: &Scratch) -> AwsSettings {
    AwsSettings {
        key: "alias/llm-config-hub".into(),
        previous_keys: Vec::new(),
        region: Some("eu-west-1".into()),
        endpoint: Some(kms.endpoint()),
        ca_cert: kms.certificate.as_ref().map(|pem| scratch.file("kms-ca.pem", pem)),
        profile: None,
        credentials_file: Some(AwsKms::credentials(scratch)),
        timeout: Duration::from_millis(500),
    }
}

async fn refused(settings: &AwsSettings) -> String {
    Cloud::aws(settings).await.unwrap().wrap_key("ca", b"a key").await.unwrap_err().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn aws_kms_conforms_and_so_does_it_beside_a_keyring() {
    let scratch = Scratch::new("aws-conformance");
    let kms = AwsKms::start_tls().await;
    let cloud = Arc::new(Cloud::aws(&settings(&kms, &scratch)).await.unwrap());
    conforms(&*cloud).await;
    assert!(kms.has_bound("ca") && kms.has_bound("signing"), "CloudTrail shows what is asked for");

    let keyring = Arc::new(LocalKeyring::open_or_create(&scratch.path("keyring")).unwrap());
    let old = keyring.wrap("ca", b"of before").unwrap();
    let both = Providers::new(ProviderKind::AwsKms, Some(Arc::clone(&keyring)), None).with(cloud);
    conforms(&both).await;
    assert_eq!(both.unwrap_key("ca", &old).await.unwrap().as_slice(), b"of before");
    let new = both.wrap_key("ca", b"of after").await.unwrap();
    let without = Providers::new(ProviderKind::Local, Some(keyring), None);
    let refused = without.unwrap_key("ca", &new).await.unwrap_err().to_string();
    assert!(refused.contains("provider aws-kms") && refused.contains("keys rewrap"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_key_that_the_settings_name_opens_what_is_stored() {
    let scratch = Scratch::new("aws-keys");
    let kms = AwsKms::start().await;
    let alias = settings(&kms, &scratch);
    let cloud = Cloud::aws(&alias).await.unwrap();
    let old = cloud.wrap_key("ca", b"a key").await.unwrap();

    kms.point_alias_at(OTHER_KEY);
    let refused = cloud.unwrap_key("ca", &old).await.unwrap_err().to_string();
    assert!(refused.contains(KEY) && refused.contains("previous_keys"), "{refused}");
    assert_eq!(kms.asked("Decrypt"), 0, "a key that is not the hub's is not even tried");
    let both = AwsSettings { previous_keys: vec![KEY.into()], ..alias };
    let both = Cloud::aws(&both).await.unwrap();
    assert_eq!(both.unwrap_key("ca", &old).await.unwrap().as_slice(), b"a key");
    let new = both.wrap_key("ca", b"a key").await.unwrap();
    assert_eq!(
        cloud.unwrap_key("ca", &new).await.unwrap().as_slice(),
        b"a key",
        "the alias is asked for anew"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn each_trouble_says_what_to_do_and_nothing_of_what_aws_said() {
    let scratch = Scratch::new("aws-troubles");
    let kms = AwsKms::start().await;
    let well = settings(&kms, &scratch);
    for (fault, said) in [
        (Fault::Denied("GenerateDataKey"), "denies the hub kms:GenerateDataKey"),
        (Fault::Throttled, "limits the hub's requests"),
        (Fault::Disabled, "disabled: enable it"),
        (Fault::PendingDeletion, "waits for its deletion"),
        (Fault::Failing, "fails (status 500)"),
        (Fault::Garbage, "an answer that is none"),
        (Fault::Silent, "does not answer in time"),
    ] {
        kms.fault(fault);
        let before = kms.asked("GenerateDataKey");
        let told = refused(&well).await;
        assert_eq!(
            kms.asked("GenerateDataKey"),
            before + 1,
            "{fault:?}: the SDK does not try again by itself"
        );
        assert!(told.contains("AWS KMS") && told.contains(said), "{fault:?}: {told}");
        assert!(!told.contains("canary"), "{fault:?}: {told}");
    }
    kms.fault(Fault::OtherKey);
    let cloud = Cloud::aws(&well).await.unwrap();
    let wrapped = cloud.wrap_key("ca", b"a key").await.unwrap();
    let told = cloud.unwrap_key("ca", &wrapped).await.unwrap_err().to_string();
    assert!(told.contains("what another key opened"), "{told}");
    kms.fault(Fault::None);
    let unknown = AwsSettings { key: "alias/other".into(), ..well.clone() };
    assert!(refused(&unknown).await.contains("has no key alias/other"));
    let wrong = "[default]\naws_access_key_id = AKIAIOSFODNN7EXAMPLE\naws_secret_access_key = wrong\n";
    let wrong = AwsSettings { credentials_file: Some(scratch.file("wrong", wrong)), ..well.clone() };
    assert!(refused(&wrong).await.contains("does not accept the hub's credentials"));
    let nobody = AwsSettings { endpoint: Some("http://127.0.0.1:9".into()), ..well };
    assert!(refused(&nobody).await.contains("cannot be reached"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_nobody_vouches_for_is_not_trusted() {
    let scratch = Scratch::new("aws-tls");
    let kms = AwsKms::start_tls().await;
    let trusting = settings(&kms, &scratch);
    Cloud::aws(&trusting).await.unwrap().wrap_key("ca", b"a key").await.unwrap();
    let before = kms.asked("GenerateDataKey");
    let doubting = AwsSettings { ca_cert: None, ..trusting };
    assert!(refused(&doubting).await.contains("cannot be reached"));
    assert_eq!(kms.asked("GenerateDataKey"), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_moves_from_its_keyring_to_aws_rotates_there_and_moves_back() {
    let scratch = Scratch::new("aws-move");
    let kms = AwsKms::start().await;
    let (mut hub, config) = hub_with_secrets(&scratch, "").await;
    hub.configure(&kms.tables(&scratch));
    hub.stop();
    hub.start().await;
    all_open(&hub).await;
    keys(&config, "rewrap").await.done();
    let first = status(&config).await;
    assert!(first.len() == 1 && first.keys().all(|key| key.starts_with(&format!("aws-kms {KEY} version "))));
    std::fs::remove_file(hub.data().join("keyring")).unwrap();
    hub.kill();
    hub.start().await;
    all_open(&hub).await;

    // AWS says that a rotation has begun, and some time later another material wraps.
    keys(&config, "rotate").await.done();
    assert_eq!(status(&config).await.len(), 2, "the new version wraps nothing yet");
    keys(&config, "rewrap").await.done();
    let second = status(&config).await;
    assert!(second.len() == 1 && !second.keys().eq(first.keys()), "{second:?}");
    kms.fault(Fault::Denied("RotateKeyOnDemand"));
    let refused = keys(&config, "rotate").await;
    assert!(refused.code == 1 && refused.err.contains("kms:RotateKeyOnDemand"), "{refused:?}");
    kms.fault(Fault::None);

    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("provider = \"aws-kms\"", "provider = \"local\"")).unwrap();
    hub.kill();
    hub.start().await;
    keys(&config, "rewrap").await.done();
    let after = status(&config).await;
    assert!(after.len() == 1 && after.keys().all(|key| key.starts_with("local ")), "{after:?}");
    kms.fault(Fault::Denied("*"));
    hub.kill();
    hub.start().await;
    all_open(&hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_on_aws_serves_while_it_is_away_asks_it_nothing_and_heals() {
    let scratch = Scratch::new("aws-away");
    let kms = AwsKms::start().await;
    let tables = format!("[database]\nurl = \"{}\"\n\n{}", postgres::database(), kms.tables(&scratch));
    let tables = format!("{tables}\n[telemetry]\nlog = \"trace\"\n");
    let mut hub = Hub::serve(&scratch, &tables).await;
    // Of the other environments no key is made for it.
    let about =
        json!({"name": "e1", "namespaces": ["app"], "environments": ["development"], "write": ["app"]});
    let edge = Edge::join(&scratch, "e1", &hub.join_token(about).await).await;
    set_secret(&hub.client(), "key", "development", "sk-hunter2").await.expect(200);
    let path = format!("{}?env=development&reveal=true", llm_config_tests::http::entry("app", "key"));
    let shown = |answer: &Answer| answer.status == 200 && answer.json()["value"] == "sk-hunter2";
    edge.client().until(&path, shown).await;
    for (fault, environment, said) in [
        (Fault::Disabled, "staging", "AWS KMS has the hub's key disabled"),
        (Fault::Throttled, "production", "AWS KMS limits the hub's requests"),
    ] {
        kms.fault(fault);
        let refused = set_secret(&hub.client(), "new", environment, "sk-1").await;
        assert!(refused.refusal(503).contains(said), "{}", refused.text());
        let before = kms.asked("GenerateDataKey");
        for _ in 0..20 {
            set_secret(&hub.client(), "new", environment, "sk-1").await.refusal(503);
        }
        assert_eq!(kms.asked("GenerateDataKey"), before, "callers do not find out, the hub does");
        let degraded = |answer: &Answer| answer.text().contains("degraded") && answer.text().contains(said);
        hub.anonymous().until("/health", degraded).await;
        set_secret(&hub.client(), "other", "development", "sk-2").await.expect(200);
        assert_eq!(revealed(&hub.client(), "key", "development").await.expect(200)["value"], "sk-hunter2");
        kms.fault(Fault::None);
        let healthy = |answer: &Answer| answer.status == 200 && answer.json()["status"] == "healthy";
        hub.anonymous().until("/health", healthy).await;
        set_secret(&hub.client(), "new", environment, "sk-1").await.expect(200);
    }
    assert_eq!(hub.process().ended(), None, "one process all the time");
    let metrics = hub.client().get("/metrics").await.text();
    let counted = "kms_operations_total{provider=\"aws-kms\",operation=\"generate\",status=\"success\"}";
    assert!(metrics.contains(counted), "{metrics}");
    for secret in ["sk-hunter2", "wJalrXUtnFEMI", "canary-text"] {
        assert!(!hub.log().contains(secret), "{secret} is not in the log");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_that_starts_while_aws_is_away_waits_says_so_and_begins() {
    let scratch = Scratch::new("aws-start");
    let kms = AwsKms::start().await;
    let (mut hub, _) = hub_with_secrets(&scratch, &kms.tables(&scratch)).await;
    hub.stop();
    kms.fault(Fault::Denied("*"));
    hub.launch();
    let told = |answer: &Answer| answer.status == 503 && answer.text().contains("kms:DescribeKey");
    hub.anonymous().until("/health", told).await;
    kms.fault(Fault::None);
    hub.anonymous().until("/health", |answer| answer.status == 200).await;
    all_open(&hub).await;
}
