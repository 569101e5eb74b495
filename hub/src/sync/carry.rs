//! What a session would send to an edge now, for a file that somebody carries there.
//!
//! The hub holds the session with itself: the same state machine is told what the edge acknowledged last, and what it sends is
//! kept instead of sent. So a file holds the very bytes of the stream, and nothing that the stream would not bring.

use std::sync::Arc;

use llm_config_proto::sync::Piece;
use llm_config_shared::feed::Feed;
use llm_config_shared::limits::CLOCK_EPSILON_MS;
use llm_config_shared::parcel::{Cover, Label, Packer};
use llm_config_shared::removal::{CARRIED, Removal};
use llm_config_shared::replication::frame::{EdgeFrame, Hello, HubFrame, PROTOCOL, Refusal};
use llm_config_shared::replication::hub::{HeadReport, HubSession, Input, Output};
use llm_config_shared::replication::rules::Rules;
use llm_config_shared::seal::SealKey;
use llm_config_shared::secret::seal_file_key;
use llm_config_shared::stamp::Hlc;
use llm_config_shared::store::{Journal, JournalError};
use llm_config_shared::time::UnixMillis;
use llm_config_shared::vector::Vector;

use super::service::profile;
use crate::clock;
use crate::fanout::{Ask, Fanout, Transfer};
use crate::identity::Identity;
use crate::processes::line::{Line, UploadError};
use crate::registry::{Edge, Registry};
use crate::secrets::{SecretError, SecretStore};
use crate::writer::WriterHandle;

mod back;
mod held;

pub use back::TakenIn;

/// Why there is nothing to carry.
#[derive(Debug, thiserror::Error)]
pub enum CarryError {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Secrets(#[from] SecretError),
    #[error(
        "the edge has heard more than this hub holds, as after a restored backup; it has to be connected once"
    )]
    NotServed,
    #[error(transparent)]
    Upload(#[from] UploadError),
    #[error("{0}")]
    Refused(String),
    #[error("the edge's sealing key cannot be used; renew its certificate or join it again")]
    BadSealingKey,
}

/// A file that is written while it is read.
pub struct Parcel {
    pub label: Label,
    head: Option<Vec<u8>>,
    pieces: std::vec::IntoIter<Piece>,
    packer: Option<Packer>,
}

impl Iterator for Parcel {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        if let Some(head) = self.head.take() {
            return Some(head);
        }
        match self.pieces.next() {
            Some(piece) => Some(self.packer.as_mut()?.pack(&piece.encode())),
            None => self.packer.take().map(Packer::end),
        }
    }
}

/// Makes files for edges.
pub struct Carrier<S> {
    pub store: Arc<S>,
    pub secrets: Arc<SecretStore<S>>,
    pub identity: Arc<Identity>,
    pub fanout: Arc<Fanout<S>>,
    pub writer: WriterHandle,
    pub line: Arc<Line>,
}

impl<S: Journal + Registry> Carrier<S> {
    /// What the edge lacks, as far as the hub knows what it has; with `full`, everything. Of a removed edge, only that it was
    /// removed.
    ///
    /// # Errors
    /// When the database or a key is away, or the hub has lost what the edge has seen.
    pub async fn to_edge(&self, edge: &Edge, full: bool, good_for_ms: u64) -> Result<Parcel, CarryError> {
        let now = clock::now();
        let pieces = match edge.removed_at {
            Some(removed_at) => vec![self.removal(edge, removed_at)],
            None => self.session(edge, full, now).await?,
        };
        let label = Label {
            tenant: edge.tenant.clone(),
            edge: edge.id,
            issued_at: now,
            not_after: UnixMillis(now.0.saturating_add(good_for_ms)),
        };
        let key = SealKey::new(rand::random());
        let sealed = seal_file_key(&key, &label.bytes(), &edge.sealing_key, &mut rand::rng());
        let cover = Cover { label, key: sealed.map_err(|_| CarryError::BadSealingKey)? };
        let signing = self.identity.signing();
        let draft = cover.draft(signing.id());
        let signature = signing.sign(&draft.message());
        let (packer, head) = Packer::new(key, &draft.signed(&signature));
        Ok(Parcel { label: cover.label, head: Some(head), pieces: pieces.into_iter(), packer: Some(packer) })
    }

    fn removal(&self, edge: &Edge, removed_at: UnixMillis) -> Piece {
        let nonce = bytes::Bytes::from_static(CARRIED);
        let removal = Removal { tenant: edge.tenant.clone(), edge: edge.id, removed_at, nonce };
        let signing = self.identity.signing();
        let draft = removal.draft(signing.id());
        let signature = signing.sign(&draft.message());
        Piece::Removal(draft.signed(&signature))
    }

    async fn session(&self, edge: &Edge, full: bool, now: UnixMillis) -> Result<Vec<Piece>, CarryError> {
        let environments = self.store.environments(&edge.tenant).await?;
        let profile = profile(edge, environments);
        let feeds = profile.feeds.clone();
        let head = self.store.head().await?;
        let acked_seq = if full { 0 } else { edge.acked_seq };
        let from = held::held(&self.store, acked_seq, &feeds, &head).await?;
        let mut floor = Vector::EMPTY;
        from.iter().for_each(|(_, vector)| floor.join(vector));

        let mut core = HubSession::new(profile, Rules::ALL, clock::instant());
        let hello = Hello { protocol: PROTOCOL, incarnation: 0, session: 0, floor, pending: 0 };
        let (mut welcome, mut transfer) = (None, Vec::new());
        core.handle(Input::Frame(EdgeFrame::Hello(hello)), clock::instant());
        while let Some(output) = core.poll_output() {
            let input = match output {
                Output::ReadHead => {
                    let hlc = head.hlc.max(Hlc::from_physical(now));
                    let (head, epsilon_ms) = (head.clone(), CLOCK_EPSILON_MS);
                    let (leads, copied, lost) = (true, false, Vec::new());
                    Input::Head(HeadReport { head, physical: now, hlc, epsilon_ms, leads, copied, lost })
                }
                Output::Send(HubFrame::Welcome(mut said)) => {
                    if let Ok((_, public)) = self.secrets.file_keys().await {
                        said.carry_key = Some(Box::new(public));
                    }
                    welcome = Some(HubFrame::Welcome(said));
                    Input::Frame(EdgeFrame::Subscribe { feeds: from.clone(), held: Vec::new() })
                }
                Output::ReadFeeds { feeds, held, every } => {
                    let Transfer { to, epochs, parts } =
                        self.fanout.transfer(&Ask { feeds, held, every }).await?;
                    Input::Feeds { to, epochs, parts }
                }
                Output::Send(HubFrame::Refused { refusal: Refusal::Busy, .. }) => {
                    return Err(JournalError::Unavailable("the hub is behind".into()).into());
                }
                Output::Send(HubFrame::Refused { .. }) => return Err(CarryError::NotServed),
                Output::Send(frame) => {
                    transfer.push(frame);
                    continue;
                }
                // Keys are sealed once it is known what needs them.
                Output::SealGrants
                | Output::Admit { .. }
                | Output::TakeIn { .. }
                | Output::Call { .. }
                | Output::Repair(_)
                | Output::Acknowledged(_)
                | Output::Close => continue,
            };
            core.handle(input, clock::instant());
        }
        let first = self.keys(edge, &feeds, now).await?;
        let frames = welcome.into_iter().chain(first).map(Piece::FromHub);
        let answers = self.answers(edge).await?;
        let transfer = transfer.into_iter().map(Piece::FromHub);
        Ok([Piece::asked(from)].into_iter().chain(frames).chain(answers).chain(transfer).collect())
    }

    /// What opens secrets: how long, and the keys of every epoch.
    async fn keys(&self, edge: &Edge, feeds: &[Feed], now: UnixMillis) -> Result<Vec<HubFrame>, CarryError> {
        if !feeds.iter().any(|feed| feed.secrets) {
            return Ok(Vec::new());
        }
        let limits = self.store.offline_limits(&edge.tenant).await?;
        let statement = self.secrets.limit_statement(edge, feeds, &limits, None, now).await?;
        let signing = self.identity.signing();
        let draft = statement.draft(signing.id());
        let signature = signing.sign(&draft.message());
        let grants = self.secrets.grants_for(edge, feeds, now).await?;
        Ok(vec![HubFrame::OfflineLimit(draft.signed(&signature)), HubFrame::Grants(grants)])
    }
}
