//! What another region reads of the history.

use llm_config_shared::entry::{HistoryRow, Status};
use llm_config_shared::store::JournalError;
use llm_config_shared::store::region::{Bookmark, RegionAsk, RegionPage, RegionWrite};
use llm_config_shared::vector::{Dot, EpochTable, Position};

use super::state::{State, corrupt};

impl State {
    pub(super) fn region_page(&self, ask: &RegionAsk, limit: usize) -> Result<RegionPage, JournalError> {
        let version = self.versions();
        let head = self.head(version)?;
        let own = EpochTable::new(self.epochs.clone());
        let newest = own.newest().ok_or_else(|| corrupt("a shard without a leadership"))?.epoch;
        let begin = self.begin(ask, &own, newest);
        let mut read = begin;
        let mut writes = Vec::new();
        let mut rest = self.history.iter().enumerate().skip(begin.number as usize);
        while writes.len() < limit
            && let Some((at, stored)) = rest.next()
        {
            read.number = at as u64 + 1;
            if let Some(seq) = stored.row.seq {
                read.position = Position { epoch: own.epoch_of(seq), seq };
            }
            let Some(row) = stored.at(version) else { continue };
            if let Some(write) = self.region_write(row, &own, version)
                && !write.origin.is_some_and(|origin| ask.has(origin))
            {
                writes.push(write);
            }
        }
        let last = rest.next().is_none();
        let regions = last.then(|| (head.regions.clone(), head.epochs.clone()));
        if last {
            read.position = head.position;
        }
        Ok(RegionPage {
            shard: head.shard,
            after: ask.read,
            writes,
            read,
            epochs: own,
            hlc: head.hlc,
            regions,
        })
    }

    /// Where to read on. Under another leadership than the newest the numbers may have been given again.
    fn begin(&self, ask: &RegionAsk, own: &EpochTable, newest: u64) -> Bookmark {
        let nothing = Bookmark { position: Position { epoch: newest, seq: 0 }, number: 0, epoch: newest };
        let Some(read) = ask.read else { return nothing };
        if read.epoch == newest {
            return read;
        }
        let Some(position) = own.clamp(read.position) else { return nothing };
        let at = self.history.iter().position(|stored| stored.row.seq == Some(position.seq));
        at.map_or(nothing, |at| Bookmark { position, number: at as u64 + 1, epoch: newest })
    }

    fn region_write(&self, row: HistoryRow, own: &EpochTable, version: usize) -> Option<RegionWrite> {
        if !matches!(row.status, Status::Applied | Status::SupersededConcurrent) {
            return None;
        }
        let shard = self.shard?;
        let here = row.seq.map(|seq| Dot { shard, position: Position { epoch: own.epoch_of(seq), seq } });
        let current = self.row_or_purged(&row.at, version).filter(|current| current.row.stamp == row.stamp);
        let metadata = current.map(|current| current.row.metadata.clone());
        Some(RegionWrite { origin: row.origin.or(here), metadata, row })
    }
}
