//! A copied replica on a disk of its own: what it says, what it keeps, and what a power cut leaves.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::super::*;
use crate::entry::{Author, ChangeId};
use crate::feed::Environments;
use crate::name::{Environment, Key, Namespace, Scope, Subtree, Tenant};
use crate::replication::frame::{Hello, Welcome};
use crate::segment::VerificationKeys;
use crate::stamp::{ActorId, Hlc, WriteId};
use crate::store::replica::Slot;
use crate::value::Value;
use crate::vector::ShardId;
use crate::write::Action;
use crate::write::Answer;

const NOW: UnixMillis = UnixMillis(1_000_000);

fn at(key: &str) -> EntryKey {
    let scope = Scope {
        tenant: Tenant::parse("t").unwrap(),
        environment: Environment::base(),
        namespace: Namespace::parse("app").unwrap(),
    };
    EntryKey { scope, key: Key::parse(key).unwrap() }
}

fn identity() -> Identity {
    Identity {
        edge: ActorId(Uuid::from_u128(77)),
        tenant: Tenant::parse("t").unwrap(),
        keys: VerificationKeys::default(),
    }
}

struct Machine {
    replica: EdgeReplica,
    disk: BTreeMap<Slot, Record>,
    /// Batches that are not durable yet, where they are held back.
    held_back: Option<Vec<Batch>>,
    said: Vec<Output>,
    now: Instant,
}

impl Machine {
    fn start(disk: BTreeMap<Slot, Record>) -> Self {
        let records = disk.values().cloned().collect();
        let replica = EdgeReplica::new(identity(), Rules::ALL, records, 1, NOW, Instant(0));
        let mut machine = Self { replica, disk, held_back: None, said: Vec::new(), now: Instant(0) };
        machine.drain();
        machine
    }

    fn new() -> Self {
        let state = StateRecord {
            incarnation: 4,
            write: vec![Subtree::ALL],
            environments: Environments::standard(),
            ..StateRecord::default()
        };
        Self::start(BTreeMap::from([(Slot::State, Record::State(state))]))
    }

    fn drain(&mut self) {
        while let Some(output) = self.replica.poll_output() {
            match (output, &mut self.held_back) {
                (Output::Commit(batch), Some(held_back)) => held_back.push(batch),
                (Output::Commit(batch), None) => self.write(&batch),
                (other, _) => self.said.push(other),
            }
        }
    }

    fn write(&mut self, batch: &Batch) {
        for slot in &batch.remove {
            self.disk.remove(slot);
        }
        self.disk.extend(batch.put.iter().map(|record| (record.slot(), record.clone())));
        self.replica.handle(Input::Committed, self.now);
    }

    fn write_held_back(&mut self) {
        for batch in self.held_back.take().unwrap() {
            self.write(&batch);
        }
        self.drain();
    }

    fn give(&mut self, input: Input) {
        self.replica.handle(input, self.now);
        self.drain();
    }

    fn write_here(&mut self, key: &str, ticket: u64) {
        self.give(Input::Write(LocalWrite {
            ticket,
            at: at(key),
            action: Action::Set { value: Value::parse("1").unwrap(), tags: None, description: None },
            author: Author { name: "uid:0".into(), claimed: None },
            message: None,
            change: ChangeId(Uuid::from_u128(u128::from(ticket))),
        }));
    }

    /// Connects when that is due and says hello.
    fn greet(&mut self, spare: u64) -> Hello {
        self.now = self.now.max(self.replica.poll_timeout().unwrap());
        self.replica.handle_timeout(self.now);
        self.drain();
        self.give(Input::Connected { spare });
        let hello = self.said.drain(..).rev().find_map(|output| match output {
            Output::Send(EdgeFrame::Hello(hello)) => Some(hello),
            _ => None,
        });
        hello.expect("it says hello")
    }

    fn welcome(&mut self, copied: bool) {
        self.give(Input::Frame(HubFrame::Welcome(Welcome {
            shard: ShardId(Uuid::from_u128(1)),
            epochs: Epochs::default(),
            head: Vector::EMPTY,
            physical: NOW,
            hlc: Hlc::from_physical(NOW),
            epsilon_ms: 500,
            heartbeat_ms: 30_000,
            feeds: Vec::new(),
            environments: Environments::standard(),
            default_environment: Environment::base(),
            lost_history: None,
            takes_newer: false,
            write: vec![Subtree::ALL],
            copied,
            carry_key: None,
        })));
    }

    /// The upload that it sent last.
    fn upload(&mut self) -> (u64, Vec<Write>) {
        let upload = self.said.drain(..).rev().find_map(|output| match output {
            Output::Send(EdgeFrame::Upload { batch, writes }) => Some((batch, writes)),
            _ => None,
        });
        upload.expect("it uploads")
    }

    fn answer(&mut self, batch: u64, writes: &[Write], verdict: &Verdict) {
        let answer = |write: &Write| Answer { id: write.id, verdict: verdict.clone(), current: None };
        let answers = writes.iter().map(answer).collect();
        self.give(Input::Frame(HubFrame::UploadResult { batch, answers }));
    }

    fn waiting(&self) -> Vec<Write> {
        self.replica.pending_writes().map(|pending| pending.write.clone()).collect()
    }
}

fn numbers(writes: &[Write]) -> Vec<(u64, u64)> {
    writes.iter().map(|write| (write.id.incarnation, write.id.counter)).collect()
}

#[test]
fn what_was_not_decided_goes_up_again_under_another_incarnation() {
    let mut machine = Machine::new();
    machine.write_here("a", 1);
    machine.write_here("a", 2);
    let before = machine.waiting();
    assert_eq!(before[1].base, Some(before[0].as_base()));
    assert_eq!(machine.greet(9).incarnation, 4);
    machine.welcome(false);
    let (batch, writes) = machine.upload();
    assert_eq!(numbers(&writes), [(4, 1), (4, 2)]);
    machine.answer(batch, &writes, &Verdict::Reidentify);
    assert!(machine.said.contains(&Output::Alert(Alert::Copied { again: 2 })));
    assert!(machine.said.contains(&Output::Disconnect));
    let decided = |machine: &Machine| -> Vec<u64> {
        let counter = |output: &Output| match output {
            Output::Decided { counter, .. } => Some(*counter),
            _ => None,
        };
        machine.said.iter().filter_map(counter).collect()
    };
    assert!(decided(&machine).is_empty(), "who waits goes on waiting");

    let hello = machine.greet(10);
    assert_eq!((hello.incarnation, hello.session), (9, 2));
    machine.welcome(false);
    let (batch, again) = machine.upload();
    assert_eq!(numbers(&again), [(9, 1), (9, 2)]);
    assert!(again.iter().zip(&before).all(|(again, before)| again.hlc == before.hlc));
    assert_eq!(
        again[1].base,
        Some(again[0].as_base()),
        "what followed a write follows it under its new name"
    );
    machine.answer(batch, &again, &Verdict::Admitted { version: 1 });
    assert_eq!(decided(&machine), [1, 2]);
    machine.write_here("b", 3);
    assert_eq!(machine.upload().1[0].id, WriteId { counter: 3, ..again[0].id });
}

#[test]
fn a_power_cut_leaves_either_all_under_the_old_incarnation_or_all_under_the_new_one() {
    for durable in [false, true] {
        let mut machine = Machine::new();
        machine.write_here("a", 1);
        machine.write_here("b", 2);
        machine.greet(9);
        machine.welcome(false);
        let (batch, writes) = machine.upload();
        machine.held_back = Some(Vec::new());
        machine.answer(batch, &writes, &Verdict::Reidentify);
        machine.write_here("c", 3);
        machine.give(Input::Disconnected);
        if durable {
            machine.write_held_back();
        }
        let mut machine = Machine::start(machine.disk);
        let expected = if durable { 9 } else { 4 };
        let hello = machine.greet(11);
        assert_eq!((hello.incarnation, hello.session), (expected, 2));
        machine.welcome(false);
        let found = numbers(&machine.upload().1);
        let all: &[(u64, u64)] = if durable { &[(9, 1), (9, 2), (9, 3)] } else { &[(4, 1), (4, 2)] };
        assert_eq!(found, all);
        machine.write_here("d", 4);
        let newest = machine.waiting().pop().unwrap();
        assert!(newest.id.counter >= crate::limits::COUNTER_BLOCK, "numbers below the ceiling are used up");
    }
}

#[test]
fn a_copy_that_meets_the_other_has_its_writes_decided_first() {
    let mut machine = Machine::new();
    machine.write_here("a", 1);
    machine.greet(9);
    machine.welcome(true);
    let (batch, writes) = machine.upload();
    machine.write_here("b", 2);
    machine.answer(batch, &writes, &Verdict::Duplicate);
    assert!(machine.said.contains(&Output::Decided { counter: 1, at: at("a"), verdict: Verdict::Duplicate }));
    assert!(machine.said.contains(&Output::Alert(Alert::Copied { again: 1 })));
    assert_eq!(numbers(&machine.waiting()), [(9, 2)]);
    assert!(!machine.said.iter().any(|said| matches!(said, Output::Send(EdgeFrame::Subscribe { .. }))));

    let mut idle = Machine::new();
    idle.greet(9);
    idle.welcome(true);
    assert_eq!(idle.greet(10).incarnation, 9, "also with nothing to send");
    idle.welcome(false);
    assert!(idle.replica.is_subscribed());
}
