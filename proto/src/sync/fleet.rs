//! Tenants, tokens, edges and what belongs to them between regions, as protobuf and back.

use bytes::Bytes;
use llm_config_shared::limits::FRAME_BYTES_MAX;
use llm_config_shared::name::EdgeName;
use llm_config_shared::stamp::ActorId;
use llm_config_shared::store::fleet::{
    Cell, FLEET_ROWS_MAX, FleetPage, FleetRow, Home, Kind, RegionSeats, Said,
};
use llm_config_shared::vector::ShardId;

use super::entry::{InvalidMessage, Parsed, at_most, list, number, required, uuid, uuid_bytes};
use super::wire;

/// Each row may bring two that it refers to.
const ROWS_MAX: usize = 3 * FLEET_ROWS_MAX;
const CELLS_MAX: usize = 32;
const ID_BYTES_MAX: usize = 1 << 10;
const KEY_BYTES_MAX: usize = 4 << 10;
/// Edges connected to one region.
const SEATS_MAX: usize = 100_000;

/// An edge that joins at a region which is not the home. The region has checked that it holds its keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassedJoin {
    pub token_hash: [u8; 32],
    pub public_key: Bytes,
    pub sealing_key: Bytes,
    pub requested_name: Option<EdgeName>,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joined {
    Edge(ActorId),
    Refused(JoinRefused),
}

/// Why the home lets an edge not in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinRefused {
    Unknown,
    Expired,
    Used,
    NameTaken,
}

impl From<FleetPage> for wire::FleetReply {
    fn from(page: FleetPage) -> Self {
        let home = wire::FleetHome { region: uuid_bytes(page.home.region.0), term: page.home.term };
        Self {
            region: uuid_bytes(page.region.0),
            home: Some(home),
            rows: page.rows.into_iter().map(Into::into).collect(),
            read: page.read,
            more: page.more,
        }
    }
}

impl TryFrom<wire::FleetReply> for FleetPage {
    type Error = InvalidMessage;

    fn try_from(reply: wire::FleetReply) -> Parsed<Self> {
        let home = required("home", reply.home)?;
        let home = Home { region: ShardId(uuid("home", &home.region)?), term: home.term };
        let rows = list("rows", ROWS_MAX, reply.rows, row)?;
        Ok(Self {
            region: ShardId(uuid("region", &reply.region)?),
            home,
            // A kind that this program does not know is read by the next one, which begins anew.
            rows: rows.into_iter().flatten().collect(),
            read: reply.read,
            more: reply.more,
        })
    }
}

impl From<FleetRow> for wire::FleetRow {
    fn from(row: FleetRow) -> Self {
        let value = |cell| match cell {
            Cell::Null => None,
            Cell::Int(number) => Some(wire::fleet_cell::Value::Number(number)),
            Cell::Text(text) => Some(wire::fleet_cell::Value::Text(text)),
            Cell::Blob(bytes) => Some(wire::fleet_cell::Value::Bytes(bytes.into())),
        };
        let ended = row.cells.is_none();
        let cells = row.cells.into_iter().flatten();
        Self {
            kind: row.kind.as_str().to_owned(),
            id: row.id,
            term: row.said.term,
            at: row.said.at,
            ended,
            cells: cells.map(|cell| wire::FleetCell { value: value(cell) }).collect(),
        }
    }
}

fn row(row: wire::FleetRow) -> Parsed<Option<FleetRow>> {
    let Some(kind) = Kind::parse(&row.kind) else { return Ok(None) };
    at_most("id bytes", row.id.len(), ID_BYTES_MAX)?;
    let cells = if row.ended { None } else { Some(list("cells", CELLS_MAX, row.cells, cell)?) };
    Ok(Some(FleetRow { kind, id: row.id, said: Said { term: row.term, at: row.at }, cells }))
}

fn cell(cell: wire::FleetCell) -> Parsed<Cell> {
    Ok(match cell.value {
        None => Cell::Null,
        Some(wire::fleet_cell::Value::Number(number)) => Cell::Int(number),
        Some(wire::fleet_cell::Value::Text(text)) => {
            at_most("text bytes", text.len(), FRAME_BYTES_MAX)?;
            Cell::Text(text)
        }
        Some(wire::fleet_cell::Value::Bytes(bytes)) => {
            at_most("bytes", bytes.len(), FRAME_BYTES_MAX)?;
            Cell::Blob(bytes.to_vec())
        }
    })
}

impl From<PassedJoin> for wire::JoinRequest {
    fn from(join: PassedJoin) -> Self {
        Self {
            token_hash: join.token_hash.to_vec().into(),
            public_key: join.public_key,
            sealing_key: join.sealing_key,
            requested_name: join.requested_name.map(|name| name.to_string()),
        }
    }
}

impl TryFrom<wire::JoinRequest> for PassedJoin {
    type Error = InvalidMessage;

    fn try_from(request: wire::JoinRequest) -> Parsed<Self> {
        at_most("public key bytes", request.public_key.len(), KEY_BYTES_MAX)?;
        at_most("sealing key bytes", request.sealing_key.len(), KEY_BYTES_MAX)?;
        Ok(Self {
            token_hash: required("token_hash", request.token_hash.as_ref().try_into().ok())?,
            public_key: request.public_key,
            sealing_key: request.sealing_key,
            requested_name: request.requested_name.map(|name| EdgeName::parse(&name)).transpose()?,
        })
    }
}

impl From<Joined> for wire::JoinReply {
    fn from(joined: Joined) -> Self {
        use wire::join_reply::{Outcome, Refused};
        let outcome = match joined {
            Joined::Edge(edge) => Outcome::Edge(uuid_bytes(edge.0)),
            Joined::Refused(refused) => Outcome::Refused(
                match refused {
                    JoinRefused::Unknown => Refused::Unknown,
                    JoinRefused::Expired => Refused::Expired,
                    JoinRefused::Used => Refused::Used,
                    JoinRefused::NameTaken => Refused::NameTaken,
                }
                .into(),
            ),
        };
        Self { outcome: Some(outcome) }
    }
}

impl TryFrom<wire::JoinReply> for Joined {
    type Error = InvalidMessage;

    fn try_from(reply: wire::JoinReply) -> Parsed<Self> {
        use wire::join_reply::{Outcome, Refused};
        match required("outcome", reply.outcome)? {
            Outcome::Edge(edge) => Ok(Self::Edge(ActorId(uuid("edge", &edge)?))),
            Outcome::Refused(refused) => {
                let refused = match Refused::try_from(refused) {
                    Ok(Refused::Unknown) => Some(JoinRefused::Unknown),
                    Ok(Refused::Expired) => Some(JoinRefused::Expired),
                    Ok(Refused::Used) => Some(JoinRefused::Used),
                    Ok(Refused::NameTaken) => Some(JoinRefused::NameTaken),
                    Ok(Refused::Unspecified) | Err(_) => None,
                };
                Ok(Self::Refused(required("refused", refused)?))
            }
        }
    }
}

impl From<RegionSeats> for wire::SeatsReply {
    fn from(seats: RegionSeats) -> Self {
        let seat = |(edge, acknowledged): (ActorId, u64)| wire::seats_reply::Seat {
            edge: uuid_bytes(edge.0),
            acknowledged,
        };
        Self { head: seats.head, has: seats.has, seats: seats.edges.into_iter().map(seat).collect() }
    }
}

impl TryFrom<wire::SeatsReply> for RegionSeats {
    type Error = InvalidMessage;

    fn try_from(reply: wire::SeatsReply) -> Parsed<Self> {
        let edges = list("seats", SEATS_MAX, reply.seats, |seat| {
            Ok((ActorId(uuid("edge", &seat.edge)?), number("acknowledged", seat.acknowledged)?))
        })?;
        Ok(Self { head: number("head", reply.head)?, has: number("has", reply.has)?, edges })
    }
}

impl TryFrom<wire::SeatsRequest> for ShardId {
    type Error = InvalidMessage;

    fn try_from(request: wire::SeatsRequest) -> Parsed<Self> {
        Ok(Self(uuid("region", &request.region)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page() -> FleetPage {
        let id = ShardId(uuid::Uuid::from_u128(5));
        let cells = vec![Cell::Null, Cell::Int(-3), Cell::Text("t".into()), Cell::Blob(vec![0, 255])];
        let said = Said { term: 2, at: 9 };
        let row = |cells| FleetRow { kind: Kind::Token, id: "ab".into(), said, cells };
        let home = Home { region: id, term: 4 };
        FleetPage { region: id, home, rows: vec![row(Some(cells)), row(None)], read: 7, more: true }
    }

    #[test]
    fn a_page_comes_back_as_it_was_without_kinds_that_are_not_known() {
        let mut sent = wire::FleetReply::from(page());
        let mut newer = sent.rows[0].clone();
        newer.kind = "of-a-newer-program".into();
        sent.rows.push(newer);
        assert_eq!(FleetPage::try_from(sent), Ok(page()));
        let mut many = wire::FleetReply::from(page());
        many.rows = vec![many.rows[0].clone(); ROWS_MAX + 1];
        assert!(FleetPage::try_from(many).is_err());
    }

    #[test]
    fn a_join_and_its_outcome_come_back_as_they_were() {
        let join = PassedJoin {
            token_hash: [7; 32],
            public_key: Bytes::from_static(b"p"),
            sealing_key: Bytes::from_static(b"s"),
            requested_name: Some(EdgeName::parse("kiosk").unwrap()),
        };
        assert_eq!(PassedJoin::try_from(wire::JoinRequest::from(join.clone())), Ok(join.clone()));
        let mut short = wire::JoinRequest::from(join);
        short.token_hash = Bytes::from_static(b"short");
        assert!(PassedJoin::try_from(short).is_err());
        let edge = ActorId(uuid::Uuid::from_u128(3));
        for joined in [Joined::Edge(edge), Joined::Refused(JoinRefused::Used)] {
            assert_eq!(Joined::try_from(wire::JoinReply::from(joined)), Ok(joined));
        }
        assert!(Joined::try_from(wire::JoinReply { outcome: None }).is_err());
    }
}
