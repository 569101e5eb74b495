//! One suite that everything passes that can hold the key-encryption key.

use std::sync::Arc;
use std::time::Duration;

use llm_config_hub::secrets::vault::{Credential, Hidden, Vault, VaultAuth, VaultSettings};
use llm_config_hub::secrets::{KeyProvider, LocalKeyring, Passphrase, ProviderKind, Providers, wrapped_by};
use llm_config_tests::bao::Bao;
use llm_config_tests::scratch::Scratch;

/// What a CA's key is at most, and then some.
const LONGEST: usize = 4_096;

pub(super) fn settings(bao: &Bao) -> VaultSettings {
    // The program does it first thing; here there is none.
    let _ = rustls::crypto::ring::default_provider().install_default();
    VaultSettings {
        addr: format!("http://{}", bao.address()),
        auth: VaultAuth::Token(Credential::Text(Hidden::new(bao.root_token().to_owned()))),
        auth_mount: "token".into(),
        namespace: None,
        ca_cert: None,
        mount: "transit".into(),
        transit_key: "llm-config-hub".into(),
        create_key: false,
        timeout: Duration::from_secs(5),
    }
}

/// What every provider does.
pub(crate) async fn conforms(provider: &impl KeyProvider) {
    for plain in [&b""[..], b"a key", &[0, 255, 7], &vec![9; LONGEST]] {
        let wrapped = provider.wrap_key("ca", plain).await.unwrap();
        assert_eq!(provider.unwrap_key("ca", &wrapped).await.unwrap().as_slice(), plain);
        assert_ne!(wrapped, provider.wrap_key("ca", plain).await.unwrap(), "never the same twice");
        assert!(plain.len() < 4 || !wrapped.windows(plain.len()).any(|window| window == plain));
        assert!(provider.unwrap_key("signing", &wrapped).await.is_err(), "it is bound to its name");
    }
    let wrapped = provider.wrap_key("ca", b"a key").await.unwrap();
    for n in (0..wrapped.len()).step_by(1.max(wrapped.len() / 24)) {
        let mut changed = wrapped.clone();
        changed[n] ^= 1;
        // A letter of base64 may have bits that say nothing; what opens must be the same.
        if let Ok(plain) = provider.unwrap_key("ca", &changed).await {
            assert_eq!(plain.as_slice(), b"a key", "changed at {n}");
        }
        assert!(provider.unwrap_key("ca", &wrapped[..n]).await.is_err(), "cut at {n}");
    }
    assert!(provider.unwrap_key("ca", &[9, 9, 9]).await.is_err());

    let before = provider.current().await.unwrap();
    assert_eq!(wrapped_by(&wrapped).unwrap(), before);
    let after = provider.rotate().await.unwrap();
    assert_ne!(before, after);
    assert_eq!(provider.current().await.unwrap(), after);
    assert_eq!(provider.unwrap_key("ca", &wrapped).await.unwrap().as_slice(), b"a key", "older ones open");
    assert_eq!(wrapped_by(&provider.wrap_key("ca", b"a key").await.unwrap()).unwrap(), after);
}

#[tokio::test]
async fn a_local_keyring_conforms() {
    let folder = tempfile::tempdir().unwrap();
    conforms(&LocalKeyring::open_or_create(&folder.path().join("keyring")).unwrap()).await;
    let (path, passphrase) = (folder.path().join("sealed"), Passphrase::new("correct horse"));
    conforms(&LocalKeyring::open_or_create_locked(&path, passphrase.into()).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vault_conforms_and_so_do_both_beside_each_other() {
    let scratch = Scratch::new("conformance");
    let bao = Bao::start(&scratch).await;
    let vault = Arc::new(Vault::new(settings(&bao)).unwrap());
    conforms(&*vault).await;

    let keyring = Arc::new(LocalKeyring::open_or_create(&scratch.path("keyring")).unwrap());
    let old = keyring.wrap("ca", b"of before").unwrap();
    let both = Providers::new(ProviderKind::Vault, Some(Arc::clone(&keyring)), Some(Arc::clone(&vault)));
    conforms(&both).await;
    assert_eq!(both.unwrap_key("ca", &old).await.unwrap().as_slice(), b"of before");
    let new = both.wrap_key("ca", b"of after").await.unwrap();
    let back = Providers::new(ProviderKind::Local, Some(keyring), Some(vault));
    conforms(&back).await;
    assert_eq!(back.unwrap_key("ca", &new).await.unwrap().as_slice(), b"of after");
    let without = Providers::new(ProviderKind::Local, back.local().cloned(), None);
    let refused = without.unwrap_key("ca", &new).await.unwrap_err().to_string();
    assert!(refused.contains("provider vault") && refused.contains("keys rewrap"), "{refused}");
}
