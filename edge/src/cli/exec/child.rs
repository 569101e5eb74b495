//! Children: processes that get their values in their environment, and nowhere else.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::future::poll_fn;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::pin::pin;
use std::process::ExitStatus;
use std::task::Poll;

use rustix::process::{Pid, Signal, getpgrp, kill_process, kill_process_group};
use rustix::termios::tcgetpgrp;
use tokio::process::{Child, Command};

use super::environment::Environment;
use super::step;
use super::supervisor::{Ended, Id};

/// The API token with which values are read; a child has its values.
const TOKEN_VARIABLE: &str = "LLM_CONFIG_TOKEN";

/// What is started, again and again.
#[derive(Clone, Debug)]
pub(super) struct Program {
    pub(super) command: Vec<OsString>,
    /// Variables with ports that no two processes of ours have at once.
    pub(super) ports: Vec<Ports>,
}

impl Program {
    /// Its name, for people.
    pub(super) fn name(&self) -> String {
        self.command.first().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
    }
}

/// A variable and the ports that it may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ports {
    variable: String,
    ports: Vec<u16>,
}

impl std::str::FromStr for Ports {
    type Err = String;

    /// `PORT=8081,8082`
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "say VAR=PORT,PORT with at least two ports".to_owned();
        let (variable, ports) = text.split_once('=').ok_or_else(wrong)?;
        let ports: Vec<u16> =
            ports.split(',').map(str::parse).collect::<Result<_, _>>().map_err(|_| wrong())?;
        if ports.len() < 2 || !super::super::dotenv::is_name(variable) {
            return Err(wrong());
        }
        Ok(Self { variable: variable.to_owned(), ports })
    }
}

impl Ports {
    /// The port of a turn.
    fn of(&self, turn: usize) -> Option<u16> {
        self.ports.get(turn).copied()
    }
}

/// The first turn that nobody has.
fn free_turn(taken: &[usize]) -> usize {
    (0..=taken.len()).find(|turn| !taken.contains(turn)).unwrap_or_default()
}

/// The processes that run.
pub(super) struct Children {
    /// Each with its turn, by which it has its ports.
    running: BTreeMap<Id, (Child, usize)>,
    /// Whether they are in our process group, as the terminal's foreground: then its keys reach them without us.
    pub(super) share_terminal: bool,
}

impl Children {
    pub(super) fn new() -> Self {
        let foreground = tcgetpgrp(io::stdin()).is_ok_and(|group| group == getpgrp());
        Self { running: BTreeMap::new(), share_terminal: foreground }
    }

    /// Starts a process with these values beside the environment that we have ourselves, and gives its first port, if it has
    /// one.
    pub(super) fn start(
        &mut self,
        id: Id,
        program: &Program,
        values: &Environment,
    ) -> io::Result<Option<u16>> {
        let mut command = Command::new("/proc/self/exe");
        command.arg0("llm-config").arg(step::NAME).arg(std::process::id().to_string()).arg("--");
        command.args(&program.command).env_remove(TOKEN_VARIABLE).envs(values.iter());
        let turn = free_turn(&self.running.values().map(|(_, turn)| *turn).collect::<Vec<_>>());
        for ports in &program.ports {
            let port = ports.of(turn).ok_or_else(|| io::Error::other("no port is free"))?;
            command.env(&ports.variable, port.to_string());
        }
        if !self.share_terminal {
            // What it starts itself can be ended with it then.
            command.process_group(0);
        }
        self.running.insert(id, (command.spawn()?, turn));
        Ok(program.ports.first().and_then(|ports| ports.of(turn)))
    }

    /// Whether one runs.
    pub(super) fn any(&self) -> bool {
        !self.running.is_empty()
    }

    /// Sends a signal to a process and, where it has a group of its own, to what it started. One that has ended is
    /// passed over.
    pub(super) fn send(&self, id: Id, signal: Signal) {
        let number = self
            .running
            .get(&id)
            .and_then(|(child, _)| child.id())
            .and_then(|number| i32::try_from(number).ok());
        let Some(process) = number.and_then(Pid::from_raw) else { return };
        // Fails only when nobody is left to get it: nobody else's process has the number before we have waited for ours.
        let _ = if self.share_terminal {
            kill_process(process, signal)
        } else {
            kill_process_group(process, signal)
        };
    }

    /// Waits until one of them ends. Never returns while there is none.
    pub(super) async fn ended(&mut self) -> (Id, Ended) {
        let (id, how) = poll_fn(|context| {
            for (id, (child, _)) in &mut self.running {
                if let Poll::Ready(status) = pin!(child.wait()).poll(context) {
                    return Poll::Ready((*id, status.map_or(Ended::Never, how_ended)));
                }
            }
            Poll::Pending
        })
        .await;
        self.running.remove(&id);
        (id, how)
    }
}

fn how_ended(status: ExitStatus) -> Ended {
    match (status.code(), status.signal()) {
        (Some(code), _) => Ended::Code(u8::try_from(code & 0xff).unwrap_or(1)),
        (None, Some(signal)) => Ended::By(signal),
        (None, None) => Ended::Never,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_processes_have_one_port() {
        let ports: Ports = "PORT=8081,8082".parse().unwrap();
        assert_eq!([0, 1, 2].map(|turn| ports.of(turn)), [Some(8081), Some(8082), None]);
        assert_eq!([&[][..], &[0], &[1], &[1, 0]].map(free_turn), [0, 1, 0, 2]);
        for bad in ["PORT", "PORT=1", "PORT=1,x", "1=1,2", "=1,2"] {
            assert!(bad.parse::<Ports>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_end_is_told_as_shells_do() {
        assert_eq!(how_ended(ExitStatus::from_raw(7 << 8)).code(), 7);
        assert_eq!(how_ended(ExitStatus::from_raw(15)).code(), 143);
    }
}
