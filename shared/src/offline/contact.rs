//! How long ago the hub was heard, by clocks of which none is trusted alone.
//!
//! While the machine is up its boot-time clock counts, sleep included. The wall clock counts as well, and of the two the
//! one that says more: so a wall clock that is set forward locks early, and one that is set back, or stands still, changes
//! nothing. What was once measured is never taken back; only the hub's own word begins a new measurement.

use crate::codec::{DecodeError, Reader, Writer};
use crate::limits::OFFLINE_REBOOTS_MAX;
use crate::time::UnixMillis;

/// Which start of the machine it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BootId(pub [u8; 16]);

/// What the clocks of a machine say at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clocks {
    pub boot: BootId,
    /// Since the machine was started, sleep included.
    pub since_boot_ms: u64,
    pub wall: UnixMillis,
}

/// The last time that the hub was heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contact {
    /// The hub's clock then.
    issued_at: UnixMillis,
    /// From where the clocks are compared.
    anchor: Clocks,
    /// What had passed since then at the anchor.
    before_ms: u64,
    /// The most that was ever measured.
    most_ms: u64,
    /// Starts of the machine since.
    reboots: u32,
}

impl Contact {
    /// The hub has answered a question of this session, `delay_ms` after it was asked.
    pub fn heard(issued_at: UnixMillis, delay_ms: u64, now: Clocks) -> Self {
        Self { issued_at, anchor: now, before_ms: delay_ms, most_ms: delay_ms, reboots: 0 }
    }

    /// The hub has spoken again in the same session. Who held its word back made it old by what the hub's clock lacks.
    pub fn heard_again(&mut self, issued_at: UnixMillis, now: Clocks) {
        let passed = self.before_ms.saturating_add(self.by_boot(now));
        let late_ms = passed.saturating_sub(issued_at.0.saturating_sub(self.issued_at.0));
        *self = Self::heard(issued_at.max(self.issued_at), late_ms, now);
    }

    /// The hub's word has come by another way than a session, and says nothing of how long it was on its way: it is as old as
    /// what was measured since the last one makes it. False when it is not newer than that one.
    #[must_use]
    pub fn carried(&mut self, issued_at: UnixMillis, now: Clocks) -> bool {
        if issued_at <= self.issued_at {
            return false;
        }
        let hub_now = self.issued_at.0.saturating_add(self.silent_ms(now));
        *self = Self::heard(issued_at, hub_now.saturating_sub(issued_at.0), now);
        true
    }

    /// How long the hub has been silent. Never less than what this gave before.
    pub fn silent_ms(&mut self, now: Clocks) -> u64 {
        let by_wall = now.wall.0.saturating_sub(self.anchor.wall.0);
        if now.boot == self.anchor.boot {
            let passed = self.by_boot(now).max(by_wall);
            self.most_ms = self.most_ms.max(self.before_ms.saturating_add(passed));
            return self.most_ms;
        }
        // How long the machine was off only the wall clock knows, if it went on; that it is on again, every clock.
        let most = self.before_ms.saturating_add(by_wall);
        self.most_ms = most.max(self.most_ms.saturating_add(now.since_boot_ms));
        self.before_ms = self.most_ms;
        self.anchor = now;
        self.reboots = self.reboots.saturating_add(1);
        self.most_ms
    }

    /// Whether the machine was started so often since that how long it was off cannot be known any more.
    pub fn too_many_reboots(&self) -> bool {
        self.reboots > OFFLINE_REBOOTS_MAX
    }

    /// The hub's clock when it was heard.
    pub fn issued_at(&self) -> UnixMillis {
        self.issued_at
    }

    fn by_boot(&self, now: Clocks) -> u64 {
        now.since_boot_ms.saturating_sub(self.anchor.since_boot_ms)
    }

    /// For the disk.
    pub fn encode(&self, out: &mut Writer) {
        out.uint(self.issued_at.0);
        out.raw(&self.anchor.boot.0);
        out.uint(self.anchor.since_boot_ms);
        out.uint(self.anchor.wall.0);
        out.uint(self.before_ms);
        out.uint(self.most_ms);
        out.uint(u64::from(self.reboots));
    }

    /// The inverse of [`Contact::encode`].
    ///
    /// # Errors
    /// Says what is not readable.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            issued_at: UnixMillis(reader.uint("time of contact")?),
            anchor: Clocks {
                boot: BootId(reader.array("start of the machine")?),
                since_boot_ms: reader.uint("time since the start")?,
                wall: UnixMillis(reader.uint("wall clock")?),
            },
            before_ms: reader.uint("time passed")?,
            most_ms: reader.uint("time passed")?,
            reboots: u32::try_from(reader.uint("starts")?).map_err(|_| DecodeError::Invalid("starts"))?,
        })
    }
}

#[cfg(test)]
mod tests;
