//! Clocks that jump, stop and start anew: nothing makes the silence seem shorter than it was.

use super::*;

const HOUR: u64 = 3_600_000;
const DAY: u64 = 24 * HOUR;
/// 2106-02-07, where 32 bits of seconds end.
const YEAR_2106: u64 = 4_294_967_296_000;
const NOW: u64 = 1_795_000_000_000;

/// A machine whose true time is known.
struct Machine {
    boot: u8,
    since_boot_ms: u64,
    wall: u64,
}

impl Machine {
    fn clocks(&self) -> Clocks {
        Clocks {
            boot: BootId([self.boot; 16]),
            since_boot_ms: self.since_boot_ms,
            wall: UnixMillis(self.wall),
        }
    }

    fn pass(&mut self, ms: u64) {
        self.since_boot_ms += ms;
        self.wall += ms;
    }

    fn reboot(&mut self, off_ms: u64) {
        self.boot += 1;
        self.since_boot_ms = 0;
        self.wall += off_ms;
    }
}

/// Numbers that are the same in every run (SplitMix64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

fn machine() -> Machine {
    Machine { boot: 1, since_boot_ms: 5 * HOUR, wall: NOW }
}

fn heard(machine: &Machine) -> Contact {
    Contact::heard(UnixMillis(NOW), 0, machine.clocks())
}

#[test]
fn with_clocks_that_go_right_the_silence_is_exact() {
    let mut machine = machine();
    let mut contact = heard(&machine);
    for _ in 0..1_000 {
        machine.pass(1_001);
    }
    assert_eq!(contact.silent_ms(machine.clocks()), 1_001_000);
}

#[test]
fn no_wall_clock_makes_it_shorter_while_the_machine_is_up() {
    for wall in [0, NOW - DAY, NOW - 600_000, NOW - 5_000, NOW, NOW + 5_000, NOW + DAY, YEAR_2106, u64::MAX] {
        let mut machine = machine();
        let mut contact = heard(&machine);
        machine.since_boot_ms += 10 * HOUR;
        machine.wall = wall;
        let silent = contact.silent_ms(machine.clocks());
        assert!(silent >= 10 * HOUR, "wall {wall}");
        assert_eq!(silent, (10 * HOUR).max(wall.saturating_sub(NOW)), "wall {wall}");
        machine.wall = NOW;
        assert_eq!(contact.silent_ms(machine.clocks()), silent, "what was measured stays");
    }
}

#[test]
fn a_wrong_wall_clock_strands_nobody_the_hubs_next_word_begins_anew() {
    let mut machine = machine();
    let mut contact = heard(&machine);
    machine.wall = YEAR_2106;
    assert!(contact.silent_ms(machine.clocks()) > 30 * DAY);
    machine.pass(1_000);
    contact.heard_again(UnixMillis(NOW + 1_000), machine.clocks());
    assert_eq!(contact.silent_ms(machine.clocks()), 0);
    machine.pass(HOUR);
    assert_eq!(contact.silent_ms(machine.clocks()), HOUR, "and goes on from the wrong clock");
}

#[test]
fn words_that_were_held_back_are_as_old_as_they_are() {
    let mut machine = machine();
    let mut contact = heard(&machine);
    machine.pass(HOUR);
    contact.heard_again(UnixMillis(NOW + 60_000), machine.clocks());
    assert_eq!(contact.silent_ms(machine.clocks()), HOUR - 60_000);
    machine.pass(60_000);
    contact.heard_again(UnixMillis(NOW + 120_000), machine.clocks());
    assert_eq!(contact.silent_ms(machine.clocks()), HOUR - 60_000, "still as late");
}

#[test]
fn a_machine_that_was_off_counts_what_its_wall_clock_says_and_never_less_than_before() {
    let mut machine = machine();
    let mut contact = heard(&machine);
    machine.pass(HOUR);
    assert_eq!(contact.silent_ms(machine.clocks()), HOUR);
    machine.reboot(8 * HOUR);
    machine.pass(60_000);
    assert_eq!(contact.silent_ms(machine.clocks()), 9 * HOUR + 60_000);
    assert!(!contact.too_many_reboots());
    machine.wall = 0;
    machine.reboot(0);
    machine.pass(60_000);
    assert_eq!(contact.silent_ms(machine.clocks()), 9 * HOUR + 120_000, "a dead clock gives nothing back");
    assert!(contact.too_many_reboots(), "but how long it was off is not known any more");
    contact.heard_again(UnixMillis(NOW + DAY), machine.clocks());
    assert!(!contact.too_many_reboots());
}

#[test]
fn a_carried_word_is_taken_once_and_is_as_old_as_the_clocks_make_it() {
    let mut machine = machine();
    let mut contact = heard(&machine);
    machine.pass(3 * HOUR);
    assert!(!contact.carried(UnixMillis(NOW), machine.clocks()), "not newer");
    assert!(contact.carried(UnixMillis(NOW + HOUR), machine.clocks()));
    assert_eq!(contact.silent_ms(machine.clocks()), 2 * HOUR);
    assert!(!contact.carried(UnixMillis(NOW + HOUR), machine.clocks()), "nor twice");
}

#[test]
fn in_random_lives_the_silence_is_never_shorter_than_the_machine_was_up_and_never_falls() {
    for seed in 0..2_000 {
        let mut numbers = Numbers(seed);
        let mut machine = machine();
        let mut contact = heard(&machine);
        let (mut up_ms, mut before) = (0, 0);
        for _ in 0..40 {
            match numbers.below(6) {
                0 => machine.wall = numbers.below(2 * YEAR_2106),
                1 => machine.wall = machine.wall.saturating_sub(numbers.below(DAY)),
                2 => machine.wall += numbers.below(5_000),
                3 => machine.reboot(numbers.below(DAY)),
                // Stopped: only the boot-time clock goes on.
                4 => {
                    let ms = numbers.below(HOUR);
                    machine.since_boot_ms += ms;
                    up_ms += ms;
                }
                _ => {
                    let ms = numbers.below(HOUR);
                    machine.pass(ms);
                    up_ms += ms;
                }
            }
            if numbers.below(4) == 0 {
                let mut out = Writer::default();
                contact.encode(&mut out);
                contact = Contact::decode(&mut Reader::new(&out.finish())).unwrap();
            }
            let silent = contact.silent_ms(machine.clocks());
            assert!(silent >= before && silent >= up_ms, "seed {seed}: {silent}, {before}, {up_ms}");
            before = silent;
        }
    }
}
