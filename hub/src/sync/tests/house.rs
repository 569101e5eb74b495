//! The processes of a hub under test, on one SQLite file.

use super::*;
use crate::fanout::Fanout;
use crate::guard::Guard;
use crate::identity::Identity;
use crate::processes::ProcessAt;
use crate::processes::line::Line;
use crate::processes::passing::Passing;
use crate::processes::tests::Room;
use crate::regions::home::{Asking, HomeLine};
use crate::secrets::{LocalKeyring, SecretStore};
use crate::sync::listener::{ListenError, listen};
use crate::sync::presence::Presence;
use crate::sync::roster::Roster;
use crate::sync::service::Parts;
use crate::writer;

pub(super) struct Hub {
    pub(super) parts: Arc<Parts<SqliteJournal, SqliteJournal>>,
    pub(super) address: String,
    pub(super) stop: Option<oneshot::Sender<()>>,
    pub(super) served: tokio::task::JoinHandle<Result<(), ListenError>>,
    _house: House,
}

/// What all processes of a hub share.
#[derive(Clone)]
pub(super) struct House {
    pub(super) journal: Arc<SqliteJournal>,
    pub(super) keyring: Arc<LocalKeyring>,
    pub(super) room: Arc<Room>,
    _folder: Arc<tempfile::TempDir>,
}

impl House {
    pub(super) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let journal = Arc::new(SqliteJournal::open(&folder.path().join("hub.sqlite")).await.unwrap());
        journal.migrate().await.unwrap();
        journal.create_tenant(&tenant(), clock::now()).await.unwrap();
        let keyring = Arc::new(LocalKeyring::open_or_create(&folder.path().join("keyring")).unwrap());
        Self { journal, keyring, room: Arc::default(), _folder: Arc::new(folder) }
    }
}

impl Hub {
    pub(super) async fn start() -> Self {
        Self::start_in(&House::new().await, |_| {
            Router::new().route("/api/v1/configs/{namespace}", get(|| async { "from the hub" }))
        })
        .await
    }

    /// One process of a hub, with these routes.
    pub(super) async fn start_in(house: &House, routes: impl FnOnce(Passing) -> Router) -> Self {
        let House { journal, keyring, room, _folder } = house.clone();
        let identity = Arc::new(Identity::open(&*journal, Arc::clone(&keyring), clock::now()).await.unwrap());
        let again = Identity::open(&*journal, Arc::clone(&keyring), clock::now()).await.unwrap();
        assert_eq!(identity.ca().certificate(), again.ca().certificate(), "keys are made once");
        let secrets = Arc::new(SecretStore::new(Arc::clone(&journal), keyring));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let me = ProcessAt::new(format!("https://{address}"));
        let started = writer::start(Arc::clone(&journal), Arc::clone(&room), Arc::clone(&secrets), me);
        let writer::Started { handle: writer, tail, .. } = started.await.unwrap();
        let line = Arc::new(Line::new(Uuid::new_v4(), writer.roles(), Arc::clone(&identity)));
        let calls = Calls::new(routes(Passing::new(writer.clone(), Arc::clone(&line), Arc::clone(&tail))));
        let roster = Arc::new(Roster::default());
        let hubs = Arc::new(HubsService {
            writer: writer.clone(),
            calls: calls.clone(),
            guard: Arc::new(Guard::new(Arc::clone(&journal), 10)),
            registry: Arc::clone(&journal),
            journal: Arc::clone(&journal),
            roster: Arc::clone(&roster),
            secrets: Arc::clone(&secrets),
        });
        let home = HomeLine::new(Asking {
            process: Uuid::new_v4(),
            alone: true,
            edge_address: String::new(),
            identity: Arc::clone(&identity),
            registry: Arc::clone(&journal),
            roster: Arc::clone(&roster),
        });
        let parts = Arc::new(Parts {
            home: Arc::new(home),
            fanout: Arc::new(Fanout::new(Arc::clone(&journal), Arc::clone(&tail), Arc::clone(&identity))),
            registry: Arc::clone(&journal),
            journal,
            secrets,
            identity,
            writer,
            line,
            tail,
            calls,
            roster,
            presence: Presence::default(),
        });
        let (stop, stopped) = oneshot::channel();
        let names = vec!["127.0.0.1".into()];
        let served = tokio::spawn(listen(listener, Arc::clone(&parts), hubs, room, names, async move {
            let _ = stopped.await;
        }));
        Self { parts, address, stop: Some(stop), served, _house: house.clone() }
    }
}
