//! What somebody carried here from an edge: admitted as if the edge had uploaded it.

use bytes::Bytes;
use llm_config_proto::possession::{carried_message, verify};
use llm_config_proto::sync::Piece;
use llm_config_shared::codec::{Reader, Writer};
use llm_config_shared::limits::{CLOCK_EPSILON_MS, FRAME_BYTES_MAX};
use llm_config_shared::name::{EdgeName, Tenant};
use llm_config_shared::parcel::{Cover, Label, Unpacker, read_cover};
use llm_config_shared::replication::admit::Upload;
use llm_config_shared::replication::carry::{Admission, Back};
use llm_config_shared::replication::frame::{EdgeFrame, HubFrame};
use llm_config_shared::replication::hub::{HeadReport, Profile};
use llm_config_shared::replication::rules::Rules;
use llm_config_shared::secret::open_file_key;
use llm_config_shared::stamp::Hlc;
use llm_config_shared::store::{Journal, JournalError};
use llm_config_shared::time::UnixMillis;
use llm_config_shared::write::{Answer, Verdict, Write};

use super::super::service::profile;
use super::super::session::author;
use super::{Carrier, CarryError};
use crate::clock;
use crate::registry::{Edge, Registry};

/// The one request that is carried.
const USES: &str = "/api/v1/uses";

/// A file that was looked through.
struct Opened {
    edge: Edge,
    label: Label,
    frames: Vec<EdgeFrame>,
    /// As `PUT /uses` takes it.
    uses: Option<Bytes>,
}

/// What became of the writes of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TakenIn {
    pub edge: String,
    pub accepted: usize,
    /// Brought before, by this file or by the edge itself.
    pub known: usize,
    /// Kept in the history; a value that was written meanwhile counts.
    pub conflicts: usize,
    pub held: usize,
    pub denied: usize,
    /// The edge, which has been connected since, brings these itself.
    pub left: usize,
    /// What it said of who uses what there, as `PUT /uses` takes it, and when; none where the edge has been heard since.
    pub uses: Option<(Bytes, UnixMillis)>,
}

impl TakenIn {
    fn count(&mut self, answers: &[Answer]) {
        for answer in answers {
            *match answer.verdict {
                Verdict::Admitted { .. } => &mut self.accepted,
                Verdict::Duplicate => &mut self.known,
                Verdict::Lost { .. } => &mut self.conflicts,
                Verdict::Held(_) => &mut self.held,
                Verdict::Denied(_) => &mut self.denied,
                Verdict::Reidentify => &mut self.left,
            } += 1;
        }
    }
}

/// As they go into the next file for the edge.
fn encode(answers: &[HubFrame]) -> Vec<u8> {
    let mut out = Writer::default();
    for frame in answers {
        out.bytes(&Piece::FromHub(frame.clone()).encode());
    }
    out.finish()
}

fn refused(why: impl ToString) -> CarryError {
    CarryError::Refused(why.to_string())
}

impl<S: Journal + Registry> Carrier<S> {
    /// Admits what waits at an edge, exactly once however often it is brought, and by whatever way.
    ///
    /// # Errors
    /// When the file is not whole, not of an edge of this tenant or too old, or its edge was removed: nothing of it was taken
    /// then. When the database is away, some of it may have been; brought again, the rest is taken.
    pub async fn from_edge(&self, tenant: &Tenant, file: &[u8]) -> Result<TakenIn, CarryError> {
        let Opened { edge, label, frames, uses } = self.opened(tenant, file).await?;
        let environments = self.store.environments(&edge.tenant).await?;
        let profile = profile(&edge, environments);
        let mut taken = TakenIn { edge: edge.name.to_string(), ..TakenIn::default() };
        // Of an edge that was heard later, this is no news of what it has and of who uses it.
        let is_news = edge.last_seen_at <= Some(label.issued_at);
        let said_at = label.issued_at.min(clock::now());
        taken.uses = uses.filter(|_| is_news).map(|uses| (uses, said_at));
        let not_now = |refusal| refused(format!("the file cannot be taken in now: {refusal}"));
        let (report, now) = (self.head_report().await?, clock::instant());
        let mut back = Back::begin(frames, profile.clone(), Rules::ALL, report, now).map_err(not_now)?;
        while let Some(Admission { batch, session, writes }) = back.next(clock::instant()).map_err(not_now)? {
            let answers = self.admit(&edge, &profile, session, writes).await?;
            taken.count(&answers);
            back.decided(batch, answers, clock::instant());
        }
        let answers = encode(back.answers());
        self.store.put_carried(edge.id, label.issued_at, &answers).await?;
        if is_news {
            self.store.touch_edge_carried(edge.id, said_at, back.held()).await?;
        }
        Ok(taken)
    }

    /// The answers to what was carried here last, for the edge that waits for them.
    pub(super) async fn answers(&self, edge: &Edge) -> Result<Vec<Piece>, CarryError> {
        let kept = self.store.carried(edge.id).await?.unwrap_or_default();
        let corrupt = |error: &dyn std::fmt::Display| JournalError::Corrupt(error.to_string());
        let mut reader = Reader::new(&kept);
        let mut pieces = Vec::new();
        while reader.remaining() > 0 {
            let piece = reader.bytes(FRAME_BYTES_MAX, "answers").map_err(|error| corrupt(&error))?;
            pieces.push(Piece::decode(piece).map_err(|error| corrupt(&error))?);
        }
        Ok(pieces)
    }

    async fn head_report(&self) -> Result<HeadReport, CarryError> {
        let (head, physical) = (self.store.head().await?, clock::now());
        let hlc = head.hlc.max(Hlc::from_physical(physical));
        let (leads, copied, lost) = (true, false, Vec::new());
        Ok(HeadReport { head, physical, hlc, epsilon_ms: CLOCK_EPSILON_MS, leads, copied, lost })
    }

    async fn admit(
        &self,
        edge: &Edge,
        profile: &Profile,
        session: u64,
        mut writes: Vec<Write>,
    ) -> Result<Vec<Answer>, CarryError> {
        for write in &mut writes {
            write.author.name = author(&edge.name, &write.author.name);
        }
        let upload = Upload {
            edge: edge.id,
            tenant: edge.tenant.clone(),
            write: profile.write.clone(),
            feeds: profile.feeds.clone(),
            environments: profile.environments.clone(),
            session,
            // A file may be brought again: that its session has uploaded before says nothing of copies.
            first: false,
            writes,
        };
        Ok(self.line.upload(&self.writer, upload).await?)
    }

    /// Looks through all of it before anything is done.
    async fn opened(&self, tenant: &Tenant, file: &[u8]) -> Result<Opened, CarryError> {
        let mut rest = file;
        let signed = read_cover(&mut rest).map_err(refused)?;
        let (Cover { label, key }, body, signature) =
            Cover::of_edge(&signed).map_err(|_| refused("this is no file of `llm-config edge carry`"))?;
        let edge = self.store.edge(label.edge).await?.filter(|edge| edge.tenant == *tenant);
        let edge = edge.ok_or_else(|| refused("the file is from an edge that this hub does not know"))?;
        let name: &EdgeName = &edge.name;
        verify(&edge.public_key, &carried_message(&body), &signature)
            .map_err(|_| refused(format!("the file was not signed by edge {name}, or is damaged")))?;
        if edge.removed_at.is_some() {
            return Err(refused(format!("edge {name} was removed; nothing that it wrote is taken")));
        }
        if label.tenant != *tenant || label.not_after < clock::now() {
            let until = label.not_after.to_rfc3339();
            return Err(refused(format!("the file was good until {until}; have edge {name} make a new one")));
        }
        let (private, _) = self.secrets.file_keys().await?;
        let key = open_file_key(&key, &label.bytes(), &private)
            .map_err(|_| refused("the file was sealed to another hub, or before this one was restored"))?;
        let mut pieces = Unpacker::new(rest, key, &signed);
        let (mut frames, mut uses) = (Vec::new(), None);
        while let Some(piece) = pieces.next_piece().map_err(refused)? {
            let frame = match Piece::decode(&piece) {
                Ok(Piece::FromEdge(frame)) => frame,
                Ok(Piece::FromHub(_) | Piece::Removal(_)) | Err(_) => {
                    return Err(refused("the file makes no sense to this hub; it may be of a newer edge"));
                }
            };
            if let EdgeFrame::Call { request, .. } = &frame
                && *request.target == *USES
            {
                uses = Some(request.body.clone());
                continue;
            }
            frames.push(frame);
        }
        if !Back::makes_sense(&frames) {
            return Err(refused("the file makes no sense to this hub"));
        }
        Ok(Opened { edge, label, frames, uses })
    }
}
