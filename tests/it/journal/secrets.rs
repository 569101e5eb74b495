//! Secrets over a real registry: sealed, opened after a restart, granted, and shut out.

use std::collections::BTreeSet;
use std::sync::Arc;

use llm_config_hub::registry::{Edge, Registry};
use llm_config_hub::secrets::{LocalKeyring, SecretStore, keyring_of};
use llm_config_shared::feed::Feed;
use llm_config_shared::limits::KEY_EPOCH_MS_MAX;
use llm_config_shared::name::{EntryKey, Subtree, Tenant};
use llm_config_shared::offline::OfflineLimits;
use llm_config_shared::replication::admit::Sealer as _;
use llm_config_shared::seal::SealKey;
use llm_config_shared::secret::{
    KeyGrant, SealedSecret, SubtreeKey, open_grant, open_limit_keys, open_limited_grant, open_secret,
    sealing_keypair,
};
use llm_config_shared::time::UnixMillis;

use super::book::{NOW, at, feed, tenant};
use super::registry::{join_token, joined};

fn keyring(folder: &tempfile::TempDir) -> Arc<LocalKeyring> {
    Arc::new(LocalKeyring::open_or_create(&folder.path().join("keyring")).unwrap())
}

async fn seal<R: Registry>(store: &SecretStore<R>, at: &EntryKey, version: u64, text: &str) -> SealedSecret {
    let place: (Tenant, _) = (at.scope.tenant.clone(), at.scope.environment.clone());
    let mut sealer = store.sealer(&BTreeSet::from([place])).await;
    sealer.seal(at, version, text.as_bytes()).unwrap()
}

/// An edge whose private sealing key the test knows.
async fn edge<R: Registry>(registry: &R) -> (Edge, SealKey) {
    registry.create_tenant(&tenant("acme"), NOW).await.unwrap();
    let token = join_token(1, "kiosk", 1);
    registry.add_join_token(&token).await.unwrap();
    let edge = joined(registry, &token, 1).await;
    let (private, public) = sealing_keypair(&[5; 32]);
    registry.set_sealing_key(edge.id, &public).await.unwrap();
    (registry.edge(edge.id).await.unwrap().unwrap(), private)
}

/// The key that an edge gets out of a grant, with the limit key that the hub gives it: never without.
async fn granted<R: Registry>(
    store: &SecretStore<R>,
    edge: &Edge,
    private: &SealKey,
    grant: &KeyGrant,
) -> SubtreeKey {
    let name = edge.id.0.to_string();
    let feeds = [Feed { subtree: grant.subtree.clone(), ..feed("app") }];
    let said = store.limit_statement(edge, &feeds, &OfflineLimits::default(), None, NOW).await.unwrap();
    let limit_key = open_limit_keys(&said.keys, &edge.tenant, &name, private).unwrap().remove(0);
    assert!(open_grant(grant, &edge.tenant, &name, private).is_err(), "the edge's own key is not enough");
    open_limited_grant(grant, &edge.tenant, &name, private, &limit_key).unwrap()
}

pub(super) async fn a_secret_opens_after_a_restart<R: Registry>(registry: &Arc<R>) {
    let folder = tempfile::tempdir().unwrap();
    let db = at("app/llm", "db");
    let store = SecretStore::new(Arc::clone(registry), keyring(&folder));
    let sealed = seal(&store, &db, 4, "hunter2").await;
    assert_eq!(store.open(&db, &sealed).await.unwrap().as_slice(), b"hunter2");
    drop(store);

    let store = SecretStore::new(Arc::clone(registry), keyring(&folder));
    assert_eq!(store.open(&db, &sealed).await.unwrap().as_slice(), b"hunter2");
    assert!(store.open(&at("app/llm", "other"), &sealed).await.is_err(), "it is bound to its place");
    let moved = SealedSecret { version: 5, ..sealed.clone() };
    assert!(store.open(&db, &moved).await.is_err(), "and to its version");
    let mut sealer = store.sealer(&BTreeSet::from([(tenant("acme"), db.scope.environment.clone())])).await;
    let again = sealer.reseal(&db, &sealed, 5).unwrap();
    assert_eq!(store.open(&db, &again).await.unwrap().as_slice(), b"hunter2");
    let elsewhere = EntryKey { scope: super::book::scope("acme", "edge", "app"), key: db.key.clone() };
    assert!(sealer.seal(&elsewhere, 1, b"x").is_err(), "the sealer was not prepared for it");

    let other = tempfile::tempdir().unwrap();
    let store = SecretStore::new(Arc::clone(registry), keyring(&other));
    let error = store.open(&db, &sealed).await.unwrap_err().to_string();
    assert!(error.contains("keyring"), "{error}");
}

pub(super) async fn an_edge_opens_what_it_was_granted_and_nothing_else<R: Registry>(registry: &Arc<R>) {
    let folder = tempfile::tempdir().unwrap();
    let store = SecretStore::new(Arc::clone(registry), keyring(&folder));
    let (edge, private) = edge(&**registry).await;
    let (inside, beside) = (at("app/llm", "db"), at("apple", "db"));
    let feeds = [
        feed("app"),
        Feed { secrets: false, ..feed("apple") },
        Feed { tenant: tenant("other"), ..feed("app") },
    ];
    let grants = store.grants_for(&edge, &feeds, NOW).await.unwrap();
    assert_eq!(grants.len(), 1, "only the feed with secrets, only of its tenant");
    let key = granted(&store, &edge, &private, &grants[0]).await;
    assert_eq!(key.subtree(), &Subtree::parse("app").unwrap());
    let sealed = seal(&store, &inside, 1, "hunter2").await;
    assert_eq!(open_secret(&key, &inside, &sealed).unwrap().as_slice(), b"hunter2");
    let sealed = seal(&store, &beside, 1, "swordfish").await;
    assert!(open_secret(&key, &beside, &sealed).is_err());

    let ledger = registry.grants(edge.id).await.unwrap();
    assert_eq!(ledger.len(), 1);
    assert_eq!((&ledger[0].subtree, ledger[0].key_epoch, ledger[0].granted_at), (key.subtree(), 1, NOW));
}

pub(super) async fn a_new_key_epoch_shuts_old_keys_out<R: Registry>(registry: &Arc<R>) {
    let folder = tempfile::tempdir().unwrap();
    let store = SecretStore::new(Arc::clone(registry), keyring(&folder));
    // A second process of the same hub, with what it knew before.
    let second = SecretStore::new(Arc::clone(registry), keyring(&folder));
    let (edge, private) = edge(&**registry).await;
    let db = at("app", "db");
    let old = seal(&second, &db, 1, "old").await;
    let grants = store.grants_for(&edge, &[feed("app")], NOW).await.unwrap();
    let key = granted(&store, &edge, &private, &grants[0]).await;

    store.begin_epoch(&tenant("acme"), std::slice::from_ref(&db.scope.environment)).await.unwrap();
    let new = seal(&second, &db, 2, "new").await;
    assert_eq!((old.key_epoch, new.key_epoch), (1, 2), "also in the process that did not begin it");
    assert!(open_secret(&key, &db, &old).is_ok() && open_secret(&key, &db, &new).is_err());
    assert_eq!(store.open(&db, &old).await.unwrap().as_slice(), b"old");
    let grants = store.grants_for(&edge, &[feed("app")], NOW).await.unwrap();
    let epochs: Vec<u64> = grants.iter().map(|grant| grant.key_epoch).collect();
    assert_eq!(epochs, [1, 2], "who stays gets all epochs");
}

pub(super) async fn keys_that_are_old_are_replaced_once<R: Registry>(registry: &Arc<R>) {
    let folder = tempfile::tempdir().unwrap();
    let store = SecretStore::new(Arc::clone(registry), keyring(&folder));
    registry.create_tenant(&tenant("acme"), NOW).await.unwrap();
    let db = at("app", "db");
    let old = seal(&store, &db, 1, "old").await;
    let made = registry.roots(&tenant("acme")).await.unwrap()[0].created_at;
    let due = UnixMillis(made.0 + KEY_EPOCH_MS_MAX);
    assert_eq!(store.renew_old(UnixMillis(due.0 - 1)).await.unwrap(), 0);
    assert_eq!(store.renew_old(due).await.unwrap(), 1);
    let new = seal(&store, &db, 2, "new").await;
    assert_eq!((old.key_epoch, new.key_epoch), (1, 2));
    assert_eq!(store.open(&db, &old).await.unwrap().as_slice(), b"old");
    assert_eq!(store.renew_old(UnixMillis(made.0 + 1_000)).await.unwrap(), 0, "the new one is young");
}

pub(super) async fn a_database_knows_its_keyring<R: Registry>(registry: &Arc<R>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keyring");
    let first = keyring_of(&**registry, &path).await.unwrap();
    let again = keyring_of(&**registry, &path).await.unwrap();
    let wrapped = first.wrap("ca", b"a key").unwrap();
    assert_eq!(again.unwrap("ca", &wrapped).unwrap().as_slice(), b"a key");

    let lost = folder.path().join("lost");
    let error = keyring_of(&**registry, &lost).await.err().unwrap().to_string();
    assert!(error.contains("lost"), "{error}");
    assert!(!lost.exists(), "a lost keyring is not replaced by one that opens nothing");
    LocalKeyring::open_or_create(&lost).unwrap();
    let error = keyring_of(&**registry, &lost).await.err().unwrap().to_string();
    assert!(error.contains("this database's keyring"), "{error}");
}
