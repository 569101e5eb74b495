//! Supervisor: decides what happens to a process when values change, when it ends, and when somebody sends a signal. Starts
//! and reads nothing itself: inputs and the time go in, outputs come out.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::super::pace::{Backoff, PaceArgs, Settling};

/// A process that ran for this long is no longer taken to be crashing.
const STEADY: Duration = Duration::from_secs(60);
/// Pauses before a process that crashes is started again grow up to this.
const CRASH_PAUSE_MAX: Duration = Duration::from_secs(60);
/// Pauses before values that could not be read are read again.
const READ_PAUSE_FIRST: Duration = Duration::from_secs(1);
const READ_PAUSE_MAX: Duration = Duration::from_secs(30);

/// One process that was started; numbers are not used twice.
pub(super) type Id = u64;

/// What is done about a process when a value that it uses changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnChange {
    Restart,
    Signal(Signal),
    Nothing,
}

/// Whether a process that ended by itself is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Restart {
    Never,
    OnFailure,
    Always,
}

/// What was asked for on the command line.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) pace: PaceArgs,
    pub(super) on_change: OnChange,
    pub(super) restart: Restart,
    /// From the polite signal to the other one.
    pub(super) kill_after: Duration,
    /// The first pause before a process that crashes is started again.
    pub(super) crash_pause: Duration,
    /// How long the next process may take to get ready beside the old one; none: one ends before the next begins.
    pub(super) overlap: Option<Duration>,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Code(u8),
    By(i32),
    /// It could not be started.
    Never,
}

impl Ended {
    /// The exit code that a shell would give it.
    pub(super) fn code(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::By(signal) => u8::try_from(128 + signal).unwrap_or(255),
            Self::Never => 1,
        }
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "ended with exit code {code}"),
            Self::By(signal) => write!(f, "was ended by signal {signal}"),
            Self::Never => f.write_str("could not be started"),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// Something may have changed.
    Changed,
    /// The values were read; whether they differ from those that the process has.
    Read {
        differs: bool,
    },
    /// They could not be read.
    NotRead,
    Ended(Id, Ended),
    /// The process beside the old one can take over.
    Ready(Id),
    /// Somebody sent us this. `passed` says that the process got it as well, from the terminal.
    Asked {
        signal: Signal,
        passed: bool,
    },
    /// Time went by.
    Time,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Output {
    /// Read the values, and say how it went.
    Read,
    /// Start the process with the values as they were last read.
    Start(Id),
    Send(Id, Signal),
    /// The values as they were last read count as taken over.
    TakenOver,
    /// The process beside the old one did not get ready, in time or because it ended; the old one goes on.
    GaveUp(Option<Ended>),
    /// The old process will be replaced, after a while.
    Soon(Duration),
    /// It ended badly and will be started again, after a while.
    Again(Ended, Duration),
    Exit(u8),
}

/// Where the process is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running {
        since: Instant,
    },
    /// The next one runs beside it, and is not ready yet.
    Overlapping {
        since: Instant,
        next: Id,
        until: Instant,
    },
    /// It was told to end, and is followed by another.
    Replacing,
    /// It ended badly, and is started again then.
    Pausing {
        until: Instant,
    },
    /// It was told to end, or to do as it likes, and we end with it.
    Leaving {
        code: Option<u8>,
    },
}

/// Supervises one process and its successors.
pub(super) struct Supervisor {
    settings: Settings,
    chance: Box<dyn FnMut() -> f64>,
    phase: Phase,
    current: Id,
    /// The last number given.
    last: Id,
    /// Processes that were told to end, and when they are killed.
    told: BTreeMap<Id, Option<Instant>>,
    settling: Settling,
    reading: bool,
    read_again: Option<Instant>,
    replace_at: Option<Instant>,
    crashes: Backoff,
    failed_reads: Backoff,
    outputs: VecDeque<Output>,
}

impl Supervisor {
    /// Starts the first process at once. `chance` gives numbers between 0 and 1.
    pub(super) fn new(settings: Settings, chance: impl FnMut() -> f64 + 'static, now: Instant) -> Self {
        Self {
            chance: Box::new(chance),
            phase: Phase::Running { since: now },
            current: 0,
            last: 0,
            told: BTreeMap::new(),
            settling: Settling::new(&settings.pace),
            reading: false,
            read_again: None,
            replace_at: None,
            crashes: Backoff::new(settings.crash_pause, CRASH_PAUSE_MAX),
            failed_reads: Backoff::new(READ_PAUSE_FIRST, READ_PAUSE_MAX),
            outputs: VecDeque::from([Output::Start(0)]),
            settings,
        }
    }

    /// The next thing to do.
    pub(super) fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Input::Time`] is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let kill = self.told.values().flatten().min().copied();
        let phase = match self.phase {
            Phase::Leaving { .. } => return kill,
            Phase::Overlapping { until, .. } | Phase::Pausing { until } => Some(until),
            Phase::Running { .. } if !self.has_to_wait() => self.replace_at,
            Phase::Running { .. } | Phase::Replacing => None,
        };
        let read = if self.reading {
            None
        } else {
            [self.settling.due(), self.read_again].into_iter().flatten().min()
        };
        [kill, phase, read].into_iter().flatten().min()
    }

    /// While more changes come in, or are being read, what is known may be half of a change. And no more than two
    /// processes run at once.
    fn has_to_wait(&self) -> bool {
        let crowded = self.settings.overlap.is_some() && !self.told.is_empty();
        self.reading || self.settling.due().is_some() || crowded
    }

    /// Takes what happened; then [`Supervisor::poll`] says what to do.
    pub(super) fn handle(&mut self, input: Input, now: Instant) {
        match input {
            Input::Changed => self.settling.changed(now),
            Input::Read { differs } => self.read(differs, now),
            Input::NotRead => {
                self.reading = false;
                self.read_again = Some(now + self.failed_reads.next((self.chance)()));
            }
            Input::Ended(id, how) => self.ended(id, how, now),
            Input::Ready(id) => self.ready(id, now),
            Input::Asked { signal, passed } => self.asked(signal, passed, now),
            Input::Time => {}
        }
        self.time(now);
    }

    fn leaving(&self) -> bool {
        matches!(self.phase, Phase::Leaving { .. })
    }

    /// Whatever is due.
    fn time(&mut self, now: Instant) {
        for (id, kill_at) in &mut self.told {
            if kill_at.is_some_and(|at| at <= now) {
                *kill_at = None;
                self.outputs.push_back(Output::Send(*id, Signal::KILL));
            }
        }
        if self.leaving() {
            return;
        }
        let again = self.read_again.take_if(|at| *at <= now).is_some();
        if !self.reading && (self.settling.take(now) || again) {
            self.reading = true;
            self.read_again = None;
            self.outputs.push_back(Output::Read);
        }
        match self.phase {
            Phase::Pausing { until } if until <= now => self.start(now),
            Phase::Overlapping { since, next, until } if until <= now => {
                self.tell(next, Some(now + self.settings.kill_after));
                self.outputs.push_back(Output::GaveUp(None));
                self.phase = Phase::Running { since };
            }
            Phase::Running { since } => self.replace_when_due(since, now),
            Phase::Pausing { .. } | Phase::Overlapping { .. } | Phase::Replacing | Phase::Leaving { .. } => {}
        }
    }

    fn read(&mut self, differs: bool, now: Instant) {
        self.reading = false;
        self.failed_reads.reset();
        if self.leaving() {
            return;
        }
        if !differs {
            self.replace_at = None;
            return;
        }
        if self.settings.on_change == OnChange::Nothing || self.replace_at.is_some() {
            return;
        }
        let splay = self.settings.pace.splay.mul_f64((self.chance)());
        if let Phase::Pausing { until } = &mut self.phase {
            // What changed may be the cure.
            *until = (*until).min(now + splay);
            return;
        }
        self.replace_at = Some(now + splay);
        self.outputs.push_back(Output::Soon(splay));
    }

    fn replace_when_due(&mut self, since: Instant, now: Instant) {
        if self.replace_at.is_none_or(|at| at > now) || self.has_to_wait() {
            return;
        }
        self.replace_at = None;
        match (self.settings.on_change, self.settings.overlap) {
            (OnChange::Nothing, _) => {}
            (OnChange::Signal(signal), _) => {
                self.outputs.extend([Output::Send(self.current, signal), Output::TakenOver]);
            }
            (OnChange::Restart, None) => {
                self.phase = Phase::Replacing;
                self.tell(self.current, Some(now + self.settings.kill_after));
            }
            (OnChange::Restart, Some(patience)) => {
                let next = self.launch();
                self.phase = Phase::Overlapping { since, next, until: now + patience };
            }
        }
    }

    /// Asks a process politely to end.
    fn tell(&mut self, id: Id, kill_at: Option<Instant>) {
        self.told.insert(id, kill_at);
        self.outputs.push_back(Output::Send(id, Signal::TERM));
    }

    fn launch(&mut self) -> Id {
        self.last += 1;
        self.outputs.push_back(Output::Start(self.last));
        self.last
    }

    fn start(&mut self, now: Instant) {
        self.replace_at = None;
        self.current = self.launch();
        self.phase = Phase::Running { since: now };
    }

    fn ready(&mut self, id: Id, now: Instant) {
        if let Phase::Overlapping { next, .. } = self.phase
            && next == id
        {
            self.tell(self.current, Some(now + self.settings.kill_after));
            self.current = id;
            self.phase = Phase::Running { since: now };
        }
    }

    fn ended(&mut self, id: Id, how: Ended, now: Instant) {
        self.told.remove(&id);
        match self.phase {
            Phase::Leaving { code } => {
                let code = if id == self.current { Some(how.code()) } else { code };
                self.leave(code);
            }
            Phase::Overlapping { since, next, .. } if next == id => {
                self.outputs.push_back(Output::GaveUp(Some(how)));
                self.phase = Phase::Running { since };
            }
            Phase::Overlapping { next, .. } if id == self.current => {
                self.current = next;
                self.phase = Phase::Running { since: now };
            }
            Phase::Replacing if id == self.current => self.start(now),
            Phase::Running { since } if id == self.current => self.ended_by_itself(how, since, now),
            // One that was replaced before.
            Phase::Running { .. } | Phase::Overlapping { .. } | Phase::Replacing | Phase::Pausing { .. } => {}
        }
    }

    fn ended_by_itself(&mut self, how: Ended, since: Instant, now: Instant) {
        let again = match self.settings.restart {
            Restart::Never => false,
            Restart::OnFailure => how != Ended::Code(0),
            Restart::Always => true,
        };
        if !again {
            self.leave(Some(how.code()));
            return;
        }
        if now.duration_since(since) >= STEADY {
            self.crashes.reset();
        }
        let pause = self.crashes.next((self.chance)());
        self.phase = Phase::Pausing { until: now + pause };
        self.outputs.push_back(Output::Again(how, pause));
    }

    /// Ends with `code` once no process is left that was told to end.
    fn leave(&mut self, code: Option<u8>) {
        self.phase = Phase::Leaving { code };
        if let (Some(code), true) = (code, self.told.is_empty()) {
            self.outputs.push_back(Output::Exit(code));
        }
    }

    fn asked(&mut self, signal: Signal, passed: bool, now: Instant) {
        let ends = matches!(signal, Signal::TERM | Signal::INT | Signal::QUIT);
        let there: Vec<Id> = match self.phase {
            Phase::Running { .. } | Phase::Replacing => vec![self.current],
            Phase::Overlapping { next, .. } => vec![self.current, next],
            Phase::Leaving { .. } => self.told.keys().copied().collect(),
            Phase::Pausing { .. } if ends => return self.leave(Some(Ended::By(signal.as_raw()).code())),
            Phase::Pausing { .. } => Vec::new(),
        };
        let kill_at = (signal == Signal::TERM).then(|| now + self.settings.kill_after);
        for id in there {
            if !passed {
                self.outputs.push_back(Output::Send(id, signal));
            }
            if ends {
                let kill_at = self.told.get(&id).copied().flatten().or(kill_at);
                self.told.insert(id, kill_at);
            }
        }
        if ends && !self.leaving() {
            self.phase = Phase::Leaving { code: None };
        }
    }
}

#[cfg(test)]
mod tests;
