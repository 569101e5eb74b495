//! The supervisor in every situation that it must get right, with a clock that the test turns.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// A supervisor whose time passes when the test says so, and whose chance is always 0.5.
struct World {
    supervisor: Supervisor,
    now: Instant,
}

impl World {
    fn new(change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings {
            pace: PaceArgs { settle: SECOND, settle_max: 5 * SECOND, splay: 4 * SECOND },
            on_change: OnChange::Restart,
            restart: Restart::Never,
            kill_after: 10 * SECOND,
            crash_pause: SECOND,
            overlap: None,
        };
        change(&mut settings);
        let now = Instant::now();
        let mut world = Self { supervisor: Supervisor::new(settings, || 0.5, now), now };
        assert_eq!(world.outputs(), [Output::Start(0)]);
        world
    }

    fn outputs(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.supervisor.poll()).collect()
    }

    /// What follows from an input.
    fn after(&mut self, input: Input) -> Vec<Output> {
        self.supervisor.handle(input, self.now);
        self.outputs()
    }

    /// What follows when nothing happens until the next deadline.
    fn wait(&mut self) -> Vec<Output> {
        self.now = self.supervisor.deadline().expect("something is due");
        self.after(Input::Time)
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    /// A change that is read and differs, as far as the pause before it is acted on.
    fn value_changes(&mut self) {
        assert_eq!(self.after(Input::Changed), []);
        assert_eq!(self.wait(), [Output::Read]);
        assert_eq!(self.after(Input::Read { differs: true }), [Output::Soon(2 * SECOND)]);
    }
}

fn term(passed: bool) -> Input {
    Input::Asked { signal: Signal::TERM, passed }
}

#[test]
fn a_changed_value_replaces_the_process_and_an_equal_one_does_not() {
    let mut world = World::new(|_| {});
    assert_eq!(world.after(Input::Changed), []);
    assert_eq!(world.wait(), [Output::Read]);
    assert_eq!(world.after(Input::Read { differs: false }), []);
    assert_eq!(world.supervisor.deadline(), None, "nothing is left to do");
    world.value_changes();
    assert_eq!(world.wait(), [Output::Send(0, Signal::TERM)]);
    assert_eq!(world.after(Input::Ended(0, Ended::Code(9))), [Output::Start(1)]);
    assert_eq!(world.after(Input::Ended(1, Ended::Code(9))), [Output::Exit(9)], "by itself");
}

#[test]
fn changes_that_go_on_are_read_again_before_anything_is_ended() {
    let mut world = World::new(|_| {});
    world.value_changes();
    world.pass(SECOND * 3 / 2);
    let due = world.supervisor.deadline();
    assert_eq!(world.after(Input::Changed), []);
    assert_eq!(world.wait(), [Output::Read]);
    assert!(Some(world.now) > due, "the splay is over, but what is known may be half of a change");
    assert_eq!(world.after(Input::Read { differs: true }), [Output::Send(0, Signal::TERM)]);
}

#[test]
fn a_change_that_is_taken_back_during_the_splay_does_nothing() {
    let mut world = World::new(|_| {});
    world.value_changes();
    world.after(Input::Changed);
    assert_eq!(world.wait(), [Output::Read]);
    assert_eq!(world.after(Input::Read { differs: false }), []);
    assert_eq!(world.supervisor.deadline(), None);
}

#[test]
fn what_cannot_be_read_is_read_again_later_and_ends_nothing() {
    let mut world = World::new(|_| {});
    world.after(Input::Changed);
    assert_eq!(world.wait(), [Output::Read]);
    for pause in [3, 6, 12] {
        assert_eq!(world.after(Input::NotRead), []);
        let before = world.now;
        assert_eq!(world.wait(), [Output::Read]);
        assert_eq!(world.now - before, pause * SECOND / 4, "a growing pause");
    }
}

#[test]
fn a_process_that_does_not_end_is_killed() {
    let mut world = World::new(|_| {});
    world.value_changes();
    assert_eq!(world.wait(), [Output::Send(0, Signal::TERM)]);
    let before = world.now;
    assert_eq!(world.wait(), [Output::Send(0, Signal::KILL)]);
    assert_eq!(world.now - before, 10 * SECOND);
    assert_eq!(world.after(Input::Ended(0, Ended::By(9))), [Output::Start(1)]);
    assert_eq!(world.supervisor.deadline(), None);
}

#[test]
fn a_signal_instead_of_a_restart_counts_as_taken_over() {
    let mut world = World::new(|settings| settings.on_change = OnChange::Signal(Signal::HUP));
    world.value_changes();
    assert_eq!(world.wait(), [Output::Send(0, Signal::HUP), Output::TakenOver]);
    assert_eq!(world.supervisor.deadline(), None);
}

#[test]
fn when_told_to_end_everything_ends_with_the_code_of_the_process() {
    let mut world = World::new(|_| {});
    world.value_changes();
    assert_eq!(world.after(term(false)), [Output::Send(0, Signal::TERM)]);
    assert_eq!(world.after(Input::Changed), []);
    assert_eq!(world.wait(), [Output::Send(0, Signal::KILL)], "it is not replaced, but it has to end");
    assert_eq!(world.after(Input::Ended(0, Ended::By(9))), [Output::Exit(137)]);
}

#[test]
fn told_to_end_while_it_is_replaced_no_other_is_started() {
    let mut world = World::new(|_| {});
    world.value_changes();
    world.wait();
    assert_eq!(world.after(term(false)), [Output::Send(0, Signal::TERM)]);
    assert_eq!(world.after(Input::Ended(0, Ended::Code(0))), [Output::Exit(0)]);
}

#[test]
fn an_interrupt_from_the_terminal_is_not_sent_twice_and_never_kills() {
    let mut world = World::new(|settings| settings.restart = Restart::Always);
    assert_eq!(world.after(Input::Asked { signal: Signal::INT, passed: true }), []);
    assert_eq!(world.supervisor.deadline(), None);
    assert_eq!(world.after(Input::Ended(0, Ended::By(2))), [Output::Exit(130)], "it is not started again");
}

#[test]
fn other_signals_are_only_passed_on() {
    let mut world = World::new(|_| {});
    for signal in [Signal::HUP, Signal::USR1, Signal::USR2, Signal::WINCH] {
        assert_eq!(world.after(Input::Asked { signal, passed: false }), [Output::Send(0, signal)]);
    }
    world.value_changes();
    assert_eq!(world.wait(), [Output::Send(0, Signal::TERM)], "and all goes on");
}

#[test]
fn a_crashing_process_is_started_again_after_growing_pauses() {
    let mut world = World::new(|settings| settings.restart = Restart::OnFailure);
    for (id, quarters) in [(0, 3), (1, 6), (2, 12)] {
        let pause = SECOND * quarters / 4;
        let told = world.after(Input::Ended(id, Ended::Code(1)));
        assert_eq!(told, [Output::Again(Ended::Code(1), pause)]);
        let before = world.now;
        assert_eq!(world.wait(), [Output::Start(id + 1)]);
        assert_eq!(world.now - before, pause);
    }
    world.pass(STEADY);
    let told = world.after(Input::Ended(3, Ended::By(11)));
    assert_eq!(told, [Output::Again(Ended::By(11), SECOND * 3 / 4)], "it had run for long");
    world.wait();
    assert_eq!(world.after(Input::Ended(4, Ended::Code(0))), [Output::Exit(0)], "that was no failure");
}

#[test]
fn told_to_end_during_the_pause_nothing_is_started_any_more() {
    let mut world = World::new(|settings| settings.restart = Restart::Always);
    world.after(Input::Ended(0, Ended::Code(0)));
    assert_eq!(world.after(term(false)), [Output::Exit(143)]);
}

#[test]
fn a_changed_value_ends_a_long_pause() {
    let mut world = World::new(|settings| {
        settings.restart = Restart::OnFailure;
        settings.crash_pause = 60 * SECOND;
    });
    world.after(Input::Ended(0, Ended::Code(1)));
    world.after(Input::Changed);
    assert_eq!(world.wait(), [Output::Read]);
    assert_eq!(world.after(Input::Read { differs: true }), []);
    let before = world.now;
    assert_eq!(world.wait(), [Output::Start(1)]);
    assert_eq!(world.now - before, 2 * SECOND);
    assert_eq!(world.supervisor.deadline(), None);
}

fn overlapping() -> World {
    let mut world = World::new(|settings| settings.overlap = Some(30 * SECOND));
    world.value_changes();
    assert_eq!(world.wait(), [Output::Start(1)], "the old one is not told yet");
    world
}

#[test]
fn overlapping_the_old_one_ends_when_the_new_one_is_ready() {
    let mut world = overlapping();
    assert_eq!(world.after(Input::Ready(1)), [Output::Send(0, Signal::TERM)]);
    world.after(Input::Changed);
    assert_eq!(world.wait(), [Output::Read]);
    assert_eq!(world.after(Input::Read { differs: true }), [Output::Soon(2 * SECOND)]);
    assert_eq!(world.wait(), [Output::Send(0, Signal::KILL)], "a third one is not started yet");
    assert_eq!(world.after(Input::Ended(0, Ended::By(9))), [Output::Start(2)]);
    assert_eq!(
        world.after(Input::Ended(2, Ended::Code(3))),
        [Output::GaveUp(Some(Ended::Code(3)))],
        "its code does not matter"
    );
    assert_eq!(world.after(Input::Ended(1, Ended::Code(4))), [Output::Exit(4)]);
}

#[test]
fn overlapping_a_new_one_that_does_not_get_ready_ends_and_the_old_one_goes_on() {
    let mut world = overlapping();
    assert_eq!(world.wait(), [Output::Send(1, Signal::TERM), Output::GaveUp(None)]);
    assert_eq!(world.after(Input::Ready(1)), [], "too late");
    assert_eq!(world.wait(), [Output::Send(1, Signal::KILL)]);
    assert_eq!(world.after(Input::Ended(1, Ended::By(9))), []);
    assert_eq!(world.after(Input::Ended(0, Ended::Code(0))), [Output::Exit(0)]);

    let mut world = overlapping();
    assert_eq!(
        world.after(Input::Ended(1, Ended::Code(1))),
        [Output::GaveUp(Some(Ended::Code(1)))],
        "it ended by itself"
    );
    world.value_changes();
    assert_eq!(world.wait(), [Output::Start(2)]);
}

#[test]
fn overlapping_the_new_one_is_all_there_is_when_the_old_one_ends_by_itself() {
    let mut world = overlapping();
    assert_eq!(world.after(Input::Ended(0, Ended::Code(1))), []);
    assert_eq!(world.after(Input::Ended(1, Ended::Code(5))), [Output::Exit(5)]);
}

#[test]
fn overlapping_both_are_told_to_end_and_waited_for() {
    let mut world = overlapping();
    assert_eq!(world.after(term(false)), [Output::Send(0, Signal::TERM), Output::Send(1, Signal::TERM)]);
    assert_eq!(world.after(Input::Ended(0, Ended::Code(7))), []);
    assert_eq!(world.after(term(false)), [Output::Send(1, Signal::TERM)]);
    assert_eq!(world.after(Input::Ended(1, Ended::Code(0))), [Output::Exit(7)]);
}
