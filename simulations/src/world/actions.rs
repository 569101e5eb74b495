//! What goes wrong, and what people do: drawn anew every few milliseconds, or after a while of quiet.

use llm_config_shared::name::{EntryKey, Environment};
use llm_config_shared::replication::frame::Refusal;
use llm_config_shared::replication::hub::Input;
use llm_config_shared::stamp::Hlc;
use llm_config_shared::store::Commit;
use llm_config_shared::time::UnixMillis;
use rand::RngExt;

use super::edge::random_error;
use super::{Event, World, places};
use crate::invariants::Check;
use crate::network::{Parcel, StreamId};

impl World {
    pub(super) fn act(&mut self) -> Check {
        if self.actions_left == 0 {
            self.chaos = false;
            return Ok(());
        }
        self.actions_left -= 1;
        let pause = match self.rng.random_range(0..100) {
            0..66 => self.rng.random_range(0..40),
            66..97 => self.rng.random_range(40..1_500),
            _ => self.rng.random_range(2_000..35_000),
        };
        self.schedule(pause, Event::Act);
        if self.rng.random_range(0..12) == 0 {
            return self.somebody_carries();
        }
        if self.people && self.rng.random_range(0..12) == 0 {
            return self.somebody_decides();
        }
        match self.rng.random_range(0..100) {
            0..34 => self.edge_writes(),
            34..56 => self.client_writes(),
            56..61 => self.connection_breaks(),
            61..63 => {
                self.partition();
                Ok(())
            }
            63..67 => self.edge_crashes(),
            67..70 => self.disk_is_copied(),
            70..73 => self.hub_crashes(),
            73..76 => self.hub_pauses(),
            76..79 => self.other_hub_takes_over(),
            79..86 => self.standby_moves(),
            86..87 => self.parent_changes(),
            87..88 => self.subscription_changes(),
            88..95 => {
                self.relay_acts();
                Ok(())
            }
            95..96 => self.rots_and_is_reread(),
            96..97 => {
                self.edge_is_slow();
                Ok(())
            }
            97..99 => self.edge_asks(),
            _ => self.hub_is_backed_up_or_restored(),
        }
    }

    fn random_stream(&mut self) -> Option<StreamId> {
        let ids = self.network.ids();
        (!ids.is_empty()).then(|| ids[self.rng.random_range(0..ids.len())])
    }

    /// A reset reaches one end, or both, or none: then only patience ends the stream.
    fn connection_breaks(&mut self) -> Check {
        let Some(stream) = self.random_stream() else { return Ok(()) };
        self.stats.count("connections broken");
        self.network.cut(stream);
        let ends = self.rng.random_range(1..4);
        if ends != 1 {
            let after = self.latency();
            self.schedule(after, Event::Arrives { stream, parcel: Parcel::ClosedDown });
        }
        if ends != 2 {
            let after = self.latency();
            self.schedule(after, Event::Arrives { stream, parcel: Parcel::ClosedUp });
        }
        Ok(())
    }

    /// A disk is slow from now on, or no longer; or an edge does not read what it is sent for a while.
    fn edge_is_slow(&mut self) {
        let edge = self.rng.random_range(0..self.edges.len());
        match self.edges[edge].stream {
            Some(stream) if self.rng.random_range(0..3) > 0 => {
                let lasts = self.rng.random_range(500..30_000);
                self.stats.count("edges that read slowly");
                self.network.holds_up(stream, self.now + lasts);
            }
            Some(_) | None => self.edges[edge].disk_slow = !self.edges[edge].disk_slow,
        }
    }

    fn partition(&mut self) {
        let edge = self.rng.random_range(0..self.edges.len());
        let one = self.rng.random_range(0..=self.hubs.len());
        let lasts = self.rng.random_range(500..40_000);
        self.stats.count("partitions");
        self.trace.write(self.now, format_args!("edge {edge} is cut off"));
        let hubs = self.hubs.len();
        for hub in (0..hubs).filter(|hub| one == hubs || one == *hub) {
            self.network.partition(edge, hub);
            self.schedule(lasts, Event::Heal { edge, hub });
        }
        if let Some(stream) = self.edges[edge].stream
            && self.rng.random_range(0..3) > 0
        {
            self.reset_edge_end(stream);
        }
    }

    /// Power is lost; on the way up the machine's clock may say something else. Some write at once, before the hub can
    /// have told them the time.
    fn edge_crashes(&mut self) -> Check {
        let edge = self.rng.random_range(0..self.edges.len());
        self.crash_edge(edge);
        if self.rots && self.chance(30) {
            let _ = self.rot(edge);
        }
        if self.rng.random_range(0..2) == 0 {
            self.edges[edge].wall_error_ms = random_error(&mut self.rng);
        }
        let life = self.edges[edge].life;
        if self.rng.random_range(0..3) == 0 {
            let after = self.rng.random_range(100..4_000);
            self.schedule(after, Event::EdgeStarts { edge, life });
            return Ok(());
        }
        self.start_edge(edge, life)?;
        let newest = self.edges[edge].view.rows.values().max_by_key(|row| row.stamp);
        match newest.map(|row| row.at.clone()) {
            Some(at) if self.rng.random_range(0..3) > 0 => self.edge_writes_at(edge, at),
            Some(_) | None => Ok(()),
        }
    }

    /// A row was admitted that is ahead of true time, as it may be by a little. Whoever follows it from a clock that is
    /// far ahead, and greets the hub before time has caught up, must not end up below it.
    pub(super) fn set_trap(&mut self, commit: &Commit) {
        let soon = Hlc::from_physical(UnixMillis(self.wall().0 + 120));
        let ahead = commit.rows.iter().find(|row| row.row.stamp.hlc > soon && row.row.content.is_live());
        if let Some(row) = ahead
            && self.chance(60)
        {
            let at = Box::new(row.row.at.clone());
            let after = self.rng.random_range(30..200);
            self.schedule(after, Event::Trap { at });
        }
    }

    pub(super) fn spring_trap(&mut self, at: &EntryKey) -> Check {
        // Many have it by now, and few of many edges would be hit blindly.
        let shows = |edge: &usize| self.edges[*edge].view.rows.contains_key(at);
        let who: Vec<usize> = (0..self.edges.len()).filter(shows).collect();
        if !self.chaos || who.is_empty() {
            return Ok(());
        }
        let edge = who[self.rng.random_range(0..who.len())];
        self.crash_edge(edge);
        self.edges[edge].wall_error_ms = self.rng.random_range(600..90_000);
        self.start_edge(edge, self.edges[edge].life)?;
        self.edge_writes_at(edge, at.clone())
    }

    fn hub_crashes(&mut self) -> Check {
        let hub = self.rng.random_range(0..self.hubs.len());
        self.crash_hub(hub)?;
        let life = self.hubs[hub].life;
        let after = self.rng.random_range(10..3_000);
        self.schedule(after, Event::HubStarts { hub, life });
        let other = 1 - hub;
        if self.hubs[other].up && self.true_leader().is_none() && self.rng.random_range(0..2) == 0 {
            self.take_lead(other);
        }
        Ok(())
    }

    /// A process stands still, as in a long collection or a frozen machine; often the other takes the lead meanwhile.
    fn hub_pauses(&mut self) -> Check {
        let hub = self.true_leader().unwrap_or(0);
        let lasts = self.rng.random_range(20..5_000);
        self.hubs[hub].paused_until = self.hubs[hub].paused_until.max(self.now + lasts);
        self.stats.count("hub pauses");
        self.trace.write(self.now, format_args!("hub {hub} pauses for {lasts}"));
        let other = 1 - hub;
        if self.hubs[other].up && self.rng.random_range(0..3) > 0 {
            self.take_lead(other);
        }
        Ok(())
    }

    /// The old leader has not noticed, and goes on until its next commit.
    fn other_hub_takes_over(&mut self) -> Check {
        let Some(leader) = self.true_leader() else { return Ok(()) };
        let other = 1 - leader;
        if self.hubs[other].up && self.hubs[other].paused_until <= self.now {
            self.stats.count("takeovers");
            self.take_lead(other);
        }
        Ok(())
    }

    /// A standby stops following, or follows again, all the way or a part of it.
    fn standby_moves(&mut self) -> Check {
        let hub = self.rng.random_range(0..self.hubs.len());
        let newest = self.journal.versions();
        let Some(sees) = self.hubs[hub].sees else { return Ok(()) };
        if !self.hubs[hub].stuck {
            self.hubs[hub].stuck = true;
            return Ok(());
        }
        let to = if sees < newest { self.rng.random_range(sees..=newest) } else { newest };
        self.hubs[hub].sees = Some(to);
        let follows = self.rng.random_range(0..3) == 0;
        self.hubs[hub].stuck = !follows;
        let life = self.hubs[hub].life;
        if !self.hubs[hub].up {
            return Ok(());
        }
        for stream in self.hubs[hub].sessions.keys().copied().collect::<Vec<_>>() {
            self.hub_input(hub, stream, Input::Advanced)?;
        }
        self.schedule(1, Event::Advanced { hub, life });
        Ok(())
    }

    /// An environment inherits from another: what edges receive changes with it.
    fn parent_changes(&mut self) -> Check {
        let production = places::environment("production");
        let parents = [Some(Environment::base()), Some(places::environment("staging"))];
        let parent = parents[self.rng.random_range(0..parents.len())].clone();
        self.environments.set_parent(production, parent).expect("both exist, and neither inherits from it");
        self.stats.count("parents changed");
        self.trace.write(self.now, format_args!("parent of production changes"));
        self.end_sessions(|_| true)
    }

    /// Somebody changes what an edge receives and where it may write, connected or not.
    fn subscription_changes(&mut self) -> Check {
        let who = self.rng.random_range(0..self.bindings.len());
        let other = places::binding(self.rng.random_range(0..places::BINDINGS));
        let binding = &mut self.bindings[who];
        match self.rng.random_range(0..4) {
            0 => binding.namespaces = other.namespaces,
            1 => binding.environments = other.environments,
            2 => binding.write = other.write,
            _ => *binding = other,
        }
        let actor = self.actor(who);
        // It may not bring everything back any more.
        self.truth.owed.retain(|id| id.actor != actor);
        self.stats.count("subscriptions changed");
        self.trace.write(self.now, format_args!("subscription of edge {who} changes"));
        self.end_sessions(|it| it == who)
    }

    fn end_sessions(&mut self, of: impl Fn(usize) -> bool) -> Check {
        for hub in 0..self.hubs.len() {
            let sessions = &self.hubs[hub].sessions;
            let told = sessions.iter().filter(|(_, session)| of(self.who(session.edge))).map(|(id, _)| *id);
            for stream in told.collect::<Vec<_>>() {
                self.hub_input(hub, stream, Input::Close(Refusal::Resubscribe))?;
            }
        }
        Ok(())
    }
}
