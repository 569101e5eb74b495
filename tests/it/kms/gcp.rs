//! Google's Cloud KMS: the suite of all providers, who the hub is there, and its troubles one by one.

use std::sync::Arc;
use std::time::Duration;

use llm_config_hub::secrets::cloud::{Cloud, GcpSettings};
use llm_config_hub::secrets::{KeyProvider, LocalKeyring, ProviderKind, Providers, wrapped_by};
use llm_config_tests::http::Answer;
use llm_config_tests::kms::gcp::{Fault, GcpKms, KEY, OTHER_KEY};
use llm_config_tests::scratch::Scratch;
use llm_config_tests::wait::eventually;

use crate::vault::conformance::conforms;
use crate::vault::rotation::{all_open, hub_with_secrets, keys, status};
use crate::vault::set_secret;

pub(super) fn settings(kms: &GcpKms, scratch: &Scratch) -> GcpSettings {
    // The program does it first thing; here there is none.
    let _ = rustls::crypto::ring::default_provider().install_default();
    GcpSettings {
        key: KEY.into(),
        previous_keys: Vec::new(),
        endpoint: kms.endpoint(),
        ca_cert: kms.certificate.as_ref().map(|pem| scratch.file("gcp-ca.pem", pem)),
        credentials_file: Some(kms.account(scratch)),
        metadata_host: kms.metadata_host(),
        timeout: Duration::from_millis(1_000),
    }
}

async fn refused(settings: &GcpSettings) -> String {
    Cloud::gcp(settings).unwrap().wrap_key("ca", b"a key").await.unwrap_err().to_string()
}

async fn wraps(settings: &GcpSettings) {
    Cloud::gcp(settings).unwrap().wrap_key("ca", b"a key").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn google_kms_conforms_and_so_does_it_beside_a_keyring() {
    let scratch = Scratch::new("gcp-conformance");
    let kms = GcpKms::start_tls().await;
    let cloud = Arc::new(Cloud::gcp(&settings(&kms, &scratch)).unwrap());
    conforms(&*cloud).await;
    let keyring = Arc::new(LocalKeyring::open_or_create(&scratch.path("keyring")).unwrap());
    let both = Providers::new(ProviderKind::GcpKms, Some(keyring), None).with(cloud);
    conforms(&both).await;
    assert!(kms.has_bound(" ca") && kms.has_bound(" signing"), "the name is associated data");
    assert_eq!(kms.tokens_given(), 1, "a token is used for as long as it is good");
    let wrapped = both.wrap_key("ca", b"a key").await.unwrap();
    assert_eq!(wrapped_by(&wrapped).unwrap().to_string(), format!("gcp-kms {KEY} version 3"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hub_is_an_account_a_workload_or_the_machine_and_gets_tokens_anew() {
    let scratch = Scratch::new("gcp-identity");
    let kms = GcpKms::start().await;
    let account = settings(&kms, &scratch);
    let workload = GcpSettings { credentials_file: Some(kms.workload(&scratch)), ..account.clone() };
    let machine = GcpSettings { credentials_file: None, ..account.clone() };
    for identity in [&account, &workload, &machine] {
        wraps(identity).await;
    }
    assert_eq!(kms.tokens_given(), 3);

    // A token is replaced before it ends, and one that was revoked when it is refused.
    kms.tokens_live(Duration::from_secs(1));
    let cloud = Cloud::gcp(&account).unwrap();
    cloud.wrap_key("ca", b"a key").await.unwrap();
    let ended = async || if kms.good_tokens() == 3 { Ok(()) } else { Err("it is good yet") };
    eventually("its token has ended", ended).await;
    cloud.wrap_key("ca", b"a key").await.unwrap();
    assert_eq!(kms.tokens_given(), 5);
    kms.tokens_live(Duration::from_secs(3_600));
    let cloud = Cloud::gcp(&account).unwrap();
    cloud.wrap_key("ca", b"a key").await.unwrap();
    kms.revoke_tokens();
    let told = cloud.wrap_key("ca", b"a key").await.unwrap_err();
    assert!(told.to_string().contains("does not accept the hub's credentials"), "{told}");
    let heals = async || cloud.wrap_key("ca", b"a key").await.map_err(|error| error.to_string());
    eventually("another token is had", heals).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_that_is_none_says_what_is_missing() {
    let scratch = Scratch::new("gcp-nobody");
    let kms = GcpKms::start().await;
    let well = settings(&kms, &scratch);
    let with = |path| GcpSettings { credentials_file: Some(path), ..well.clone() };
    let told = refused(&with(kms.unknown_account(&scratch))).await;
    assert!(told.contains("does not accept the hub's credentials"), "{told}");
    let told = refused(&with(scratch.path("gone.json"))).await;
    assert!(told.contains("gone.json"), "{told}");
    let told =
        refused(&with(scratch.file("user.json", r#"{"type":"authorized_user","secret":"canary"}"#))).await;
    assert!(told.contains("no key file of a service account") && !told.contains("canary"), "{told}");
    let account = std::fs::read_to_string(kms.account(&scratch)).unwrap();
    let open = account.replace("http://127.0.0.1", "http://10.0.0.1");
    assert!(refused(&with(scratch.file("open.json", &open))).await.contains("without TLS"));
    let elsewhere =
        GcpSettings { credentials_file: None, metadata_host: "127.0.0.1:9".into(), ..well.clone() };
    assert!(refused(&elsewhere).await.contains("the hub has no credentials"));
    assert_eq!(kms.asked("cloudkms.cryptoKeyVersions.useToEncrypt"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_trouble_says_what_to_do_and_nothing_of_what_google_said() {
    let scratch = Scratch::new("gcp-troubles");
    let kms = GcpKms::start().await;
    let well = settings(&kms, &scratch);
    const ENCRYPT: &str = "cloudkms.cryptoKeyVersions.useToEncrypt";
    for (fault, said) in [
        (Fault::Denied(ENCRYPT), "denies the hub cloudkms.cryptoKeyVersions.useToEncrypt"),
        (Fault::Throttled, "limits the hub's requests"),
        (Fault::Failing, "fails (status 503)"),
        (Fault::Garbage, "an answer that is none"),
        (Fault::Silent, "does not answer in time"),
        (Fault::Garbled, "changed on the way"),
        (Fault::Unverified, "changed on the way"),
    ] {
        kms.fault(fault);
        let before = kms.asked(ENCRYPT);
        let told = Cloud::gcp(&well).unwrap().wrap_key("ca", b"a key").await.unwrap_err();
        let asked = kms.asked(ENCRYPT) - before;
        assert_eq!(asked, u32::from(!matches!(fault, Fault::Garbage | Fault::Silent)), "{fault:?}: once");
        assert!(
            fault != Fault::Throttled || told.retry_after_s() >= Some(2),
            "it is left alone as long as it asks"
        );
        let told = told.to_string();
        assert!(told.contains("Google Cloud KMS") && told.contains(said), "{fault:?}: {told}");
        assert!(!told.contains("canary"), "{fault:?}: {told}");
    }
    kms.fault(Fault::GarbledPlain);
    let cloud = Cloud::gcp(&well).unwrap();
    let wrapped = cloud.wrap_key("ca", b"a key").await.unwrap();
    let told = cloud.unwrap_key("ca", &wrapped).await.unwrap_err().to_string();
    assert!(told.contains("changed on the way"), "{told}");
    kms.fault(Fault::None);
    kms.state(1, "DISABLED");
    assert!(refused(&well).await.contains("disabled: enable it"));
    kms.state(1, "DESTROY_SCHEDULED");
    assert!(refused(&well).await.contains("waits for its deletion"));
    kms.state(1, "ENABLED");
    kms.purpose("ASYMMETRIC_SIGN");
    let told = Cloud::gcp(&well).unwrap().current().await.unwrap_err().to_string();
    assert!(told.contains("ENCRYPT_DECRYPT"), "{told}");
    kms.purpose("ENCRYPT_DECRYPT");
    let unknown = GcpSettings { key: format!("{KEY}x"), ..well.clone() };
    assert!(refused(&unknown).await.contains(&format!("has no key {KEY}x")));
    let nobody = GcpSettings { endpoint: "http://127.0.0.1:9".into(), ..well };
    assert!(refused(&nobody).await.contains("cannot be reached"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_is_disabled_is_told_by_its_number_and_the_key_goes_on() {
    let scratch = Scratch::new("gcp-versions");
    let kms = GcpKms::start().await;
    let well = settings(&kms, &scratch);
    let cloud = Cloud::gcp(&well).unwrap();
    let old = cloud.wrap_key("ca", b"a key").await.unwrap();
    assert_eq!(cloud.rotate().await.unwrap().to_string(), format!("gcp-kms {KEY} version 2"));
    for state in ["DISABLED", "DESTROYED"] {
        kms.state(1, state);
        let told = cloud.unwrap_key("ca", &old).await.unwrap_err().to_string();
        assert!(told.contains("version 1") && told.contains("enable it"), "{told}");
        assert_eq!(cloud.trouble(), None, "the key itself is well");
        cloud.wrap_key("ca", b"a key").await.unwrap();
    }
    kms.state(1, "ENABLED");
    assert_eq!(cloud.unwrap_key("ca", &old).await.unwrap().as_slice(), b"a key");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_key_of_google_that_the_settings_name_opens_what_is_stored() {
    let scratch = Scratch::new("gcp-keys");
    let kms = GcpKms::start().await;
    let well = settings(&kms, &scratch);
    let other = GcpSettings { key: OTHER_KEY.into(), ..well.clone() };
    let of_another = Cloud::gcp(&other).unwrap().wrap_key("ca", b"a key").await.unwrap();
    let told = Cloud::gcp(&well).unwrap().unwrap_key("ca", &of_another).await.unwrap_err().to_string();
    assert!(told.contains(OTHER_KEY) && told.contains("previous_keys"), "{told}");
    assert_eq!(kms.asked("cloudkms.cryptoKeyVersions.useToDecrypt"), 0, "it is not even tried");
    let both = Cloud::gcp(&GcpSettings { previous_keys: vec![OTHER_KEY.into()], ..well }).unwrap();
    assert_eq!(both.unwrap_key("ca", &of_another).await.unwrap().as_slice(), b"a key");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_nobody_vouches_for_gets_no_token() {
    let scratch = Scratch::new("gcp-tls");
    let kms = GcpKms::start_tls().await;
    let trusting = settings(&kms, &scratch);
    wraps(&trusting).await;
    let doubting = GcpSettings { ca_cert: None, ..trusting };
    assert!(refused(&doubting).await.contains("cannot be reached"));
    assert_eq!(kms.tokens_given(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_on_google_kms_rotates_serves_while_it_is_away_and_starts_when_it_is_back() {
    let scratch = Scratch::new("gcp-hub");
    let kms = GcpKms::start().await;
    let tables = format!("{}[telemetry]\nlog = \"trace\"\n", kms.tables(&scratch));
    let (mut hub, config) = hub_with_secrets(&scratch, &tables).await;
    keys(&config, "rotate").await.done();
    assert_eq!(status(&config).await.len(), 2, "the new version wraps nothing yet");
    keys(&config, "rewrap").await.done();
    let after = status(&config).await;
    assert!(after.keys().eq([&format!("gcp-kms {KEY} version 2")]), "{after:?}");
    kms.fault(Fault::Denied("cloudkms.cryptoKeyVersions.create"));
    let told = keys(&config, "rotate").await;
    assert!(told.code == 1 && told.err.contains("cloudkms.cryptoKeyVersions.create"), "{told:?}");

    kms.state(2, "DISABLED");
    kms.fault(Fault::None);
    all_open(&hub).await;
    hub.kill();
    hub.launch();
    let told = |answer: &Answer| answer.status == 503 && answer.text().contains("disabled: enable it");
    hub.anonymous().until("/health", told).await;
    kms.state(2, "ENABLED");
    hub.anonymous().until("/health", |answer| answer.status == 200).await;
    all_open(&hub).await;
    set_secret(&hub.client(), "other", "development", "sk-2").await.expect(200);
    let metrics = hub.client().get("/metrics").await.text();
    let counted = "kms_operations_total{provider=\"gcp-kms\",operation=\"decrypt\",status=\"success\"}";
    assert!(metrics.contains(counted), "{metrics}");
    for secret in ["canary", "BEGIN PRIVATE", "eyJ"] {
        assert!(!hub.log().contains(secret), "{secret} is not in the log");
    }
}
