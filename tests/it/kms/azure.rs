//! Azure Key Vault: the suite of all providers, who the hub is there, and its troubles one by one.

use std::sync::Arc;
use std::time::Duration;

use llm_config_hub::secrets::cloud::{AzureIdentity, AzureSettings, Cloud};
use llm_config_hub::secrets::vault::{Credential, Hidden};
use llm_config_hub::secrets::{KeyProvider, LocalKeyring, ProviderKind, Providers, wrapped_by};
use llm_config_tests::http::Answer;
use llm_config_tests::kms::azure::{AzureKeyVault, CLIENT_ID, Fault, TENANT};
use llm_config_tests::scratch::Scratch;
use llm_config_tests::wait::eventually;

use crate::vault::conformance::conforms;
use crate::vault::rotation::{all_open, hub_with_secrets, keys, status};
use crate::vault::set_secret;

fn settings(azure: &AzureKeyVault, scratch: &Scratch) -> AzureSettings {
    // The program does it first thing; here there is none.
    let _ = rustls::crypto::ring::default_provider().install_default();
    AzureSettings {
        key: azure.key(),
        previous_keys: Vec::new(),
        identity: application(Credential::File(AzureKeyVault::secret(scratch))),
        authority: azure.endpoint(),
        ca_cert: Some(scratch.file("azure-ca.pem", &azure.certificate)),
        timeout: Duration::from_millis(1_000),
    }
}

fn application(secret: Credential) -> AzureIdentity {
    AzureIdentity::Application { tenant: TENANT.into(), client_id: CLIENT_ID.into(), secret }
}

async fn refused(settings: &AzureSettings) -> String {
    Cloud::azure(settings).unwrap().wrap_key("ca", b"a key").await.unwrap_err().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vault_and_a_managed_hsm_conform_and_so_do_they_beside_a_keyring() {
    let scratch = Scratch::new("azure-conformance");
    for azure in [AzureKeyVault::start().await, AzureKeyVault::start_hsm().await] {
        let cloud = Arc::new(Cloud::azure(&settings(&azure, &scratch)).unwrap());
        conforms(&*cloud).await;
        let keyring = Arc::new(LocalKeyring::open_or_create(&scratch.path("keyring")).unwrap());
        let both = Providers::new(ProviderKind::AzureKeyVault, Some(keyring), None).with(cloud);
        conforms(&both).await;
        assert_eq!(azure.tokens_given(), 1, "a token is used for as long as it is good");
        let wrapped = both.wrap_key("ca", b"a key").await.unwrap();
        let by = format!("azure-keyvault {} version {}", azure.key(), azure.version(3));
        assert_eq!(wrapped_by(&wrapped).unwrap().to_string(), by);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hub_is_an_application_or_a_workload_and_gets_tokens_anew() {
    let scratch = Scratch::new("azure-identity");
    let azure = AzureKeyVault::start().await;
    let by_secret = settings(&azure, &scratch);
    let token_file = AzureKeyVault::assertion(&scratch);
    let identity = AzureIdentity::Workload { tenant: TENANT.into(), client_id: CLIENT_ID.into(), token_file };
    let by_token = AzureSettings { identity, ..by_secret.clone() };
    for settings in [&by_secret, &by_token] {
        Cloud::azure(settings).unwrap().wrap_key("ca", b"a key").await.unwrap();
    }
    assert_eq!(azure.tokens_given(), 2);
    let cloud = Cloud::azure(&by_secret).unwrap();
    cloud.wrap_key("ca", b"a key").await.unwrap();
    azure.revoke_tokens();
    let told = cloud.wrap_key("ca", b"a key").await.unwrap_err();
    assert!(told.to_string().contains("does not accept the hub's credentials"), "{told}");
    let heals = async || cloud.wrap_key("ca", b"a key").await.map_err(|error| error.to_string());
    eventually("another token is had", heals).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_that_is_none_in_azure_says_what_is_missing() {
    let scratch = Scratch::new("azure-nobody");
    let azure = AzureKeyVault::start().await;
    let well = settings(&azure, &scratch);
    let with = |identity| AzureSettings { identity, ..well.clone() };
    let wrong = Credential::Text(Hidden::new("canary-wrong".into()));
    let told = refused(&with(application(wrong))).await;
    assert!(told.contains("does not accept the hub's credentials") && !told.contains("canary"), "{told}");
    let told = refused(&with(application(Credential::File(scratch.path("gone"))))).await;
    assert!(told.contains("of no use") && told.contains("gone"), "{told}");
    let token_file = scratch.path("no-token");
    let workload = AzureIdentity::Workload { tenant: TENANT.into(), client_id: CLIENT_ID.into(), token_file };
    assert!(refused(&with(workload)).await.contains("no-token"));
    // Here is no machine of Azure's.
    let told = refused(&with(AzureIdentity::Machine { client_id: None })).await;
    assert!(told.contains("the hub has no credentials"), "{told}");
    assert_eq!(azure.tokens_given(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_trouble_says_what_to_do_and_nothing_of_what_azure_said() {
    let scratch = Scratch::new("azure-troubles");
    let azure = AzureKeyVault::start().await;
    let well = settings(&azure, &scratch);
    for (fault, said) in [
        (Fault::Denied("keys/wrapKey"), "denies the hub keys/wrapKey"),
        (Fault::Denied("keys/get"), "denies the hub keys/get"),
        (Fault::Throttled, "limits the hub's requests"),
        (Fault::Failing, "fails (status 503)"),
        (Fault::Garbage, "an answer that is none"),
        (Fault::Silent, "does not answer in time"),
        (Fault::OtherVersion, "what another key wrapped"),
    ] {
        azure.fault(fault);
        let before = azure.asked("keys/get");
        let told = Cloud::azure(&well).unwrap().wrap_key("ca", b"a key").await.unwrap_err();
        let asked = azure.asked("keys/get") - before;
        assert!(asked <= 1, "{fault:?}: the SDK does not try again by itself");
        assert!(fault != Fault::Throttled || told.retry_after_s() >= Some(2), "it is left alone as it asks");
        let told = told.to_string();
        assert!(told.contains("Azure Key Vault") && told.contains(said), "{fault:?}: {told}");
        assert!(!told.contains("canary"), "{fault:?}: {told}");
    }
    azure.fault(Fault::None);
    let cloud = Cloud::azure(&well).unwrap();
    let wrapped = cloud.wrap_key("ca", b"a key").await.unwrap();
    azure.fault(Fault::OtherVersion);
    let told = cloud.unwrap_key("ca", &wrapped).await.unwrap_err().to_string();
    assert!(told.contains("what another key opened"), "{told}");
    azure.fault(Fault::None);
    azure.enabled(1, false);
    assert!(refused(&well).await.contains("disabled: enable it"));
    azure.enabled(1, true);
    azure.expires(Some(1_700_000_000));
    assert!(refused(&well).await.contains("has expired"));
    azure.expires(None);
    for (kind, operations, said) in [
        ("EC", ["wrapKey", "unwrapKey"], "make one of the type RSA"),
        ("RSA", ["sign", "verify"], "allow it the operations wrapKey and unwrapKey"),
    ] {
        azure.kind(kind, &operations);
        let told = refused(&well).await;
        assert!(told.contains(said), "{told}");
    }
    let unknown = AzureSettings { key: format!("{}x", azure.key()), ..well.clone() };
    assert!(refused(&unknown).await.contains(&format!("has no key {}x", azure.key())));
    let nobody = AzureSettings { key: "https://127.0.0.1:9/keys/hub".into(), ..well };
    assert!(refused(&nobody).await.contains("cannot be reached"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_of_a_vault_that_is_disabled_is_told_and_the_key_goes_on() {
    let scratch = Scratch::new("azure-versions");
    let azure = AzureKeyVault::start().await;
    let cloud = Cloud::azure(&settings(&azure, &scratch)).unwrap();
    let old = cloud.wrap_key("ca", b"a key").await.unwrap();
    cloud.rotate().await.unwrap();
    azure.enabled(1, false);
    let told = cloud.unwrap_key("ca", &old).await.unwrap_err().to_string();
    assert!(told.contains(&format!("version {}", azure.version(1))) && told.contains("enable it"), "{told}");
    assert_eq!(cloud.trouble(), None, "the key itself is well");
    cloud.wrap_key("ca", b"a key").await.unwrap();
    azure.enabled(1, true);
    assert_eq!(cloud.unwrap_key("ca", &old).await.unwrap().as_slice(), b"a key");
    azure.fault(Fault::Denied("keys/unwrapKey"));
    let told = cloud.unwrap_key("ca", &old).await.unwrap_err().to_string();
    assert!(told.contains("denies the hub keys/unwrapKey"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_key_of_a_vault_that_the_settings_name_opens_what_is_stored() {
    let scratch = Scratch::new("azure-keys");
    let azure = AzureKeyVault::start().await;
    let well = settings(&azure, &scratch);
    let other = AzureSettings { key: azure.other_key(), ..well.clone() };
    let of_another = Cloud::azure(&other).unwrap().wrap_key("ca", b"a key").await.unwrap();
    let told = Cloud::azure(&well).unwrap().unwrap_key("ca", &of_another).await.unwrap_err().to_string();
    assert!(told.contains(&azure.other_key()) && told.contains("previous_keys"), "{told}");
    assert_eq!(azure.asked("keys/unwrapKey"), 0, "it is not even tried");
    let both = Cloud::azure(&AzureSettings { previous_keys: vec![azure.other_key()], ..well }).unwrap();
    assert_eq!(both.unwrap_key("ca", &of_another).await.unwrap().as_slice(), b"a key");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vaults_certificate_that_nobody_vouches_for_gets_nothing() {
    let scratch = Scratch::new("azure-tls");
    let azure = AzureKeyVault::start().await;
    let doubting = AzureSettings { ca_cert: None, ..settings(&azure, &scratch) };
    assert!(refused(&doubting).await.contains("cannot be reached"));
    assert_eq!((azure.tokens_given(), azure.asked("keys/get")), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_on_a_vault_of_azure_rotates_serves_while_it_is_away_and_starts_when_it_is_back() {
    let scratch = Scratch::new("azure-hub");
    let azure = AzureKeyVault::start().await;
    let tables = format!("{}[telemetry]\nlog = \"trace\"\n", azure.tables(&scratch));
    let (mut hub, config) = hub_with_secrets(&scratch, &tables).await;
    keys(&config, "rotate").await.done();
    keys(&config, "rewrap").await.done();
    let after = status(&config).await;
    let newest = format!("azure-keyvault {} version {}", azure.key(), azure.version(2));
    assert!(after.keys().eq([&newest]), "{after:?}");
    azure.fault(Fault::Denied("keys/rotate"));
    let told = keys(&config, "rotate").await;
    assert!(told.code == 1 && told.err.contains("keys/rotate"), "{told:?}");
    azure.fault(Fault::Denied("*"));
    all_open(&hub).await;
    hub.kill();
    hub.launch();
    let told = |answer: &Answer| answer.status == 503 && answer.text().contains("denies the hub keys/get");
    hub.anonymous().until("/health", told).await;
    azure.fault(Fault::None);
    hub.anonymous().until("/health", |answer| answer.status == 200).await;
    all_open(&hub).await;
    set_secret(&hub.client(), "other", "development", "sk-2").await.expect(200);
    let metrics = hub.client().get("/metrics").await.text();
    let counted =
        "kms_operations_total{provider=\"azure-keyvault\",operation=\"decrypt\",status=\"success\"}";
    assert!(metrics.contains(counted), "{metrics}");
    assert!(!hub.log().contains("canary"), "neither secret nor token nor Azure's words are in the log");
}
