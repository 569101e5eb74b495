//! What a session would send to an edge now, for a file that somebody carries there.
//!
//! What is decided about a file is in `shared/src/replication/carry`; here it is read, sealed and packed.

use std::sync::Arc;

use llm_config_proto::sync::Piece;
use llm_config_shared::feed::Feed;
use llm_config_shared::limits::{CLOCK_EPSILON_MS, SEGMENT_ROWS_MAX};
use llm_config_shared::parcel::{Cover, Label, Packer};
use llm_config_shared::removal::{CARRIED, Removal};
use llm_config_shared::replication::carry::{self, Making, There, draft_parts};
use llm_config_shared::replication::frame::{HubFrame, Refusal};
use llm_config_shared::replication::hub::{HeadReport, Part};
use llm_config_shared::replication::rules::Rules;
use llm_config_shared::replication::transfer::{Issue, PartDraft};
use llm_config_shared::seal::SealKey;
use llm_config_shared::secret::seal_file_key;
use llm_config_shared::segment::Draft;
use llm_config_shared::stamp::Hlc;
use llm_config_shared::store::{FeedSnapshot, Head, Journal, JournalError};
use llm_config_shared::time::UnixMillis;
use llm_config_shared::vector::Vector;

use super::service::profile;
use crate::clock;
use crate::identity::Identity;
use crate::processes::line::{Line, UploadError};
use crate::registry::{Edge, Registry};
use crate::secrets::{SecretError, SecretStore};
use crate::writer::WriterHandle;

mod back;

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

fn not_made(refusal: Refusal) -> CarryError {
    match refusal {
        Refusal::Busy => JournalError::Unavailable("the hub is behind".into()).into(),
        Refusal::Behind
        | Refusal::Ahead
        | Refusal::Removed
        | Refusal::Replaced
        | Refusal::Resubscribe
        | Refusal::Protocol(_) => CarryError::NotServed,
    }
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
        let from = self.held(if full { 0 } else { edge.acked_seq }, &feeds, &head).await?;
        let report = HeadReport {
            physical: now,
            hlc: head.hlc.max(Hlc::from_physical(now)),
            epsilon_ms: CLOCK_EPSILON_MS,
            leads: true,
            lost: Vec::new(),
            copied: false,
            head,
        };
        let begun = Making::begin(profile, Rules::ALL, from, report, clock::instant());
        let (making, wanted) = begun.map_err(not_made)?;
        let snapshot = self.store.read_feeds(&wanted).await?;
        let (to, epochs) = (snapshot.head.vector(), snapshot.head.epochs.clone());
        let parts = self.parts(snapshot, wanted).await?;
        let made = making.finish(to, epochs, parts, clock::instant());
        let There { from, mut welcome, transfer } = made.map_err(not_made)?;
        welcome.carry_key = self.secrets.carry_key().await;
        // Keys are sealed now that it is known what needs them.
        let first = self.keys(edge, &feeds, now).await?;
        let frames = [HubFrame::Welcome(welcome)].into_iter().chain(first).map(Piece::FromHub);
        let answers = self.answers(edge).await?;
        let transfer = transfer.into_iter().map(Piece::FromHub);
        Ok([Piece::asked(from)].into_iter().chain(frames).chain(answers).chain(transfer).collect())
    }

    /// What the edge is known to hold, feed by feed.
    async fn held(
        &self,
        acked_seq: u64,
        feeds: &[Feed],
        head: &Head,
    ) -> Result<Vec<(Feed, Vector)>, JournalError> {
        let Some(place) = carry::place(head, acked_seq) else { return Ok(Vec::new()) };
        let from =
            |vector: &Vector| feeds.iter().map(|feed| (feed.clone(), vector.clone())).collect::<Vec<_>>();
        let all = self.store.read_feeds(&from(&Vector::EMPTY)).await?.feeds;
        let since = self.store.read_feeds(&from(&place)).await?.feeds;
        Ok(carry::held(head, acked_seq, &all, &since))
    }

    /// Lays out and signs what was read, on a thread of its own: it may be everything.
    async fn parts(
        &self,
        snapshot: FeedSnapshot,
        from: Vec<(Feed, Vector)>,
    ) -> Result<Vec<Part>, CarryError> {
        let identity = Arc::clone(&self.identity);
        let make = move || {
            let (signing, mut snapshot) = (identity.signing(), snapshot);
            let issue = Issue { at: clock::now(), key_id: signing.id() };
            let drafts = draft_parts(&mut snapshot, &from, issue, SEGMENT_ROWS_MAX);
            let signed = |(PartDraft { segments, checkpoint }, (feed, _)): (_, (Feed, Vector))| {
                let sign = |draft: Draft| {
                    let signature = signing.sign(&draft.message());
                    draft.signed(&signature)
                };
                let signature = signing.sign(&checkpoint.message());
                let checkpoint = checkpoint.signed(&signature);
                Part { feed, segments: segments.into_iter().map(sign).collect(), checkpoint }
            };
            drafts.into_iter().zip(from).map(signed).collect()
        };
        let made = tokio::task::spawn_blocking(make).await;
        Ok(made.map_err(|_| JournalError::Unavailable("the process is stopping".into()))?)
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
