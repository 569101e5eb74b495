//! Drive: brings the supervisor's decisions into the world, and what happens in the world back to it.

use std::future::Future;
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Instant;

use rustix::process::Signal;

use super::super::exit::Failure;
use super::super::follow::Follower;
use super::super::output;
use super::super::reading::Reader;
use super::super::receipt::Receipt;
use super::child::{Children, Program};
use super::environment::{Environment, Wanted};
use super::ready::Ready;
use super::signals::{self, Signals};
use super::supervisor::{Ended, Id, Input, Output, Supervisor};

type Pending<T> = Option<Pin<Box<dyn Future<Output = T>>>>;

/// A process under supervision.
pub(super) struct Drive {
    pub(super) program: Program,
    pub(super) wanted: Wanted,
    pub(super) reader: Reader,
    pub(super) ready: Option<Ready>,
    supervisor: Supervisor,
    children: Children,
    /// As last read.
    newest: Environment,
    /// What the process has.
    used: Environment,
    /// Tells the edge so.
    receipt: Option<Receipt>,
    /// What the process beside it has, or what the last one that did not get ready had.
    tried: Option<(Id, Environment)>,
    reading: Pending<Result<Environment, Failure>>,
    becoming_ready: Pending<Id>,
    /// Why reading failed, when that was told already.
    complained: Option<String>,
}

impl Drive {
    pub(super) fn new(
        program: Program,
        wanted: Wanted,
        reader: Reader,
        ready: Option<Ready>,
        supervisor: Supervisor,
        values: Environment,
        receipt: Option<Receipt>,
    ) -> Self {
        Self {
            program,
            wanted,
            reader,
            ready,
            supervisor,
            children: Children::new(),
            newest: values,
            used: Environment::default(),
            receipt,
            tried: None,
            reading: None,
            becoming_ready: None,
            complained: None,
        }
    }

    /// Runs until the supervisor says to end. Without a follower nothing ever changes.
    pub(super) async fn run(mut self, mut signals: Signals, follower: Option<Follower>) -> ExitCode {
        loop {
            while let Some(output) = self.supervisor.poll() {
                if let Some(code) = self.perform(output) {
                    if let Some(receipt) = self.receipt.take() {
                        receipt.end().await;
                    }
                    return ExitCode::from(code);
                }
            }
            let deadline = self.supervisor.deadline();
            let input = tokio::select! {
                ended = self.children.ended() => Input::Ended(ended.0, ended.1),
                signal = signals.next() => self.asked(signal),
                read = outcome(&mut self.reading) => self.read(read),
                id = outcome(&mut self.becoming_ready) => Input::Ready(id),
                () = changed(follower.as_ref()) => Input::Changed,
                () = until(deadline) => Input::Time,
            };
            self.told_ready(input);
            self.supervisor.handle(input, Instant::now());
        }
    }

    /// Does what the supervisor says; gives the exit code when all is over.
    fn perform(&mut self, output: Output) -> Option<u8> {
        match output {
            Output::Read => {
                let (wanted, reader) = (self.wanted.clone(), self.reader.clone());
                let before = self.newest.clone();
                self.reading = Some(Box::pin(async move { wanted.read(&reader, Some(&before)).await }));
            }
            Output::Start(id) => self.start(id),
            Output::Send(id, signal) => {
                if signal == Signal::KILL {
                    self.say("does not end; killing it");
                }
                self.children.send(id, signal);
            }
            Output::TakenOver => self.take_over(self.newest.clone()),
            Output::GaveUp(how) => {
                self.becoming_ready = None;
                let why = how.map_or_else(|| "did not get ready in time".to_owned(), |how| how.to_string());
                self.say(&format!("with the new values {why}; the one with the old values goes on"));
            }
            Output::Soon(pause) => {
                let names = self.newest.differing(&self.used).join(", ");
                self.say(&format!("uses {names}, which changed; acting in {}", seconds(pause)));
            }
            Output::Again(how, pause) => self.say(&format!("{how}; starting it again in {}", seconds(pause))),
            Output::Exit(code) => return Some(code),
        }
        None
    }

    fn start(&mut self, id: Id) {
        let beside = id != 0 && self.ready.is_some() && self.children.any();
        let started = self.children.start(id, &self.program, &self.newest);
        let runs = started.is_ok();
        match (started, &self.ready) {
            (Err(error), _) => {
                self.say(&format!("cannot be started: {error}"));
                self.supervisor.handle(Input::Ended(id, Ended::Never), Instant::now());
            }
            (Ok(port), Some(ready)) if beside => {
                let ready = ready.wait(port);
                self.becoming_ready = Some(Box::pin(async move {
                    ready.await;
                    id
                }));
            }
            (Ok(_), _) => {}
        }
        if beside {
            self.tried = Some((id, self.newest.clone()));
        } else if runs {
            self.take_over(self.newest.clone());
        } else {
            self.used = self.newest.clone();
        }
    }

    /// The process has these values from now on.
    fn take_over(&mut self, values: Environment) {
        if let Some(receipt) = &self.receipt {
            receipt.uses(values.used());
        }
        self.used = values;
    }

    /// What was tried is what is used, once it is ready, or when only it is left.
    fn told_ready(&mut self, input: Input) {
        let Some((id, _)) = &self.tried else { return };
        let takes_over = match input {
            Input::Ready(ready) => ready == *id,
            Input::Ended(ended, _) => ended != *id && self.becoming_ready.is_some(),
            Input::Changed | Input::Read { .. } | Input::NotRead | Input::Asked { .. } | Input::Time => false,
        };
        if takes_over && let Some((_, values)) = self.tried.take() {
            self.take_over(values);
            self.becoming_ready = None;
        }
    }

    fn asked(&self, signal: Signal) -> Input {
        Input::Asked { signal, passed: self.children.share_terminal && signals::comes_from_terminal(signal) }
    }

    fn read(&mut self, read: Result<Environment, Failure>) -> Input {
        self.reading = None;
        match read {
            Ok(values) => {
                for entry in values.newly_lost(&self.newest) {
                    output::note(format!("llm-config: {entry} is gone; its last value is kept"));
                }
                if self.complained.take().is_some() {
                    output::note("llm-config: values are read again");
                }
                self.newest = values;
                if self.newest.equals(&self.used) && self.children.any() {
                    // A newer version of the same value is in use without anything having been replaced.
                    self.take_over(self.newest.clone());
                }
                let tried = self.tried.as_ref().is_some_and(|(_, tried)| self.newest.equals(tried));
                Input::Read { differs: !self.newest.equals(&self.used) && !tried }
            }
            Err(failure) => {
                let why = failure.to_string();
                if self.complained.as_ref() != Some(&why) {
                    output::note(format!("llm-config: values stay as they are: {why}"));
                    self.complained = Some(why);
                }
                Input::NotRead
            }
        }
    }

    fn say(&self, what: &str) {
        output::note(format!("llm-config: {} {what}", self.program.name()));
    }
}

fn seconds(pause: std::time::Duration) -> String {
    format!("{:.1} s", pause.as_secs_f64())
}

async fn outcome<T>(pending: &mut Pending<T>) -> T {
    match pending {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

async fn changed(follower: Option<&Follower>) {
    match follower {
        Some(follower) => follower.changed().await,
        None => std::future::pending().await,
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
