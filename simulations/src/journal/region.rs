//! What another region reads of the history.

use llm_config_shared::store::JournalError;
use llm_config_shared::store::region::{Begin, Bookmark, Layout, RegionAsk, RegionPage, RegionWrite};
use llm_config_shared::vector::{Dot, Position};

use super::state::{State, corrupt};

impl State {
    pub(super) fn region_page(&self, ask: &RegionAsk, limit: usize) -> Result<RegionPage, JournalError> {
        let version = self.versions();
        let head = self.head(version)?;
        let own = head.own_epochs();
        let newest = own.newest().ok_or_else(|| corrupt("a shard without a leadership"))?.epoch;
        let read = match ask.begin(&own, newest) {
            Begin::At(read) => read,
            Begin::Behind(position) => {
                let at = self.history.iter().position(|stored| stored.row.seq == Some(position.seq));
                Bookmark::behind(position, at.map(|at| at as u64 + 1), newest)
            }
        };
        let mut page = Layout::new(ask, read);
        let begin = read.number as usize;
        for (stored, number) in self.history.iter().skip(begin).take(limit).zip(read.number + 1..) {
            let Some(row) = stored.at(version) else { continue };
            let place = row.seq.map(|seq| Position { epoch: own.epoch_of(seq), seq });
            let here = place.map(|position| Dot { shard: head.shard, position });
            let current =
                self.row_or_purged(&row.at, version).filter(|current| current.row.stamp == row.stamp);
            let metadata = current.map(|current| current.row.metadata.clone());
            if !page.add(number, place, RegionWrite::of(row, here, metadata)) {
                return Ok(page.finish(&head, false));
            }
        }
        Ok(page.finish(&head, self.history.len() <= begin + limit))
    }
}
