//! How long each turn of the loop holds the thread, by a clock that the shell reads.
//!
//! A turn lasts from the end of one wait to the beginning of the next, so that whatever the caller
//! does between two passes counts too. It is cut into laps, one for each kind of work. Nothing is
//! allocated: durations are counted in classes of at most a quarter's width.

use std::time::Duration;

use crate::base::status::{LoopStatus, LoopWork, STALL};
use crate::base::time::Instant;

/// The turns so far.
#[derive(Debug)]
pub(super) struct Meter {
    counts: [u64; CLASSES],
    turns: u64,
    stalls: u64,
    stalls_asleep: u64,
    longest: Duration,
    longest_in: Option<LoopWork>,
    /// The turn that runs, if one does.
    turn: Option<Turn>,
}

#[derive(Debug)]
struct Turn {
    began: Instant,
    lap_began: Instant,
    /// The time spent on each kind of work so far.
    spent: [Duration; LoopWork::ALL.len()],
    /// The time that the thread slept in stores.
    asleep: Duration,
}

impl Meter {
    /// No turn was measured yet.
    pub fn new() -> Self {
        Self {
            counts: [0; CLASSES],
            turns: 0,
            stalls: 0,
            stalls_asleep: 0,
            longest: Duration::ZERO,
            longest_in: None,
            turn: None,
        }
    }

    /// A wait is over.
    pub fn begin(&mut self, now: Instant) {
        self.turn = Some(Turn {
            began: now,
            lap_began: now,
            spent: [Duration::ZERO; LoopWork::ALL.len()],
            asleep: Duration::ZERO,
        });
    }

    /// What was done since the last lap, or the beginning, was `work`.
    pub fn lap(&mut self, work: LoopWork, now: Instant) {
        if let Some(turn) = &mut self.turn {
            turn.spent[work as usize] += now - turn.lap_began;
            turn.lap_began = now;
        }
    }

    /// The kernel had the thread sleep in stores for so long.
    pub fn slept(&mut self, time: Duration) {
        if let Some(turn) = &mut self.turn {
            turn.asleep += time;
        }
    }

    /// A wait begins.
    pub fn end(&mut self, now: Instant) {
        self.lap(LoopWork::Caller, now);
        let Some(turn) = self.turn.take() else {
            return;
        };
        let held = now - turn.began;
        self.turns += 1;
        self.counts[class_of(held)] += 1;
        self.stalls += u64::from(held > STALL);
        let awake = held.saturating_sub(turn.asleep);
        self.stalls_asleep += u64::from(held > STALL && awake <= STALL);
        if held > self.longest || self.longest_in.is_none() {
            self.longest = held;
            let most = LoopWork::ALL
                .iter()
                .max_by_key(|work| turn.spent[**work as usize]);
            self.longest_in = most.copied();
        }
    }

    /// The figures.
    pub fn status(&self) -> LoopStatus {
        LoopStatus {
            turns: self.turns,
            median: self.quantile(500),
            p99: self.quantile(990),
            p999: self.quantile(999),
            longest: self.longest,
            longest_in: self.longest_in,
            stalls: self.stalls,
            stalls_asleep: self.stalls_asleep,
        }
    }

    /// The time that `mille` of a thousand turns did not exceed.
    fn quantile(&self, mille: u64) -> Duration {
        let rank = (self.turns * mille).div_ceil(1000);
        let mut seen = 0;
        for (class, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank && seen > 0 {
                return end_of(class).min(self.longest);
            }
        }
        self.longest
    }
}

/// Four classes an octave of microseconds; the last has no end.
fn class_of(held: Duration) -> usize {
    let micros = u64::try_from(held.as_micros()).unwrap_or(u64::MAX);
    if micros < 4 {
        return micros as usize;
    }
    let octave = micros.ilog2() as usize;
    let quarter = (micros >> (octave - 2)) as usize & 3;
    (4 * (octave - 1) + quarter).min(CLASSES - 1)
}

/// The longest time of a class.
fn end_of(class: usize) -> Duration {
    if class < 4 {
        return Duration::from_micros(class as u64);
    }
    let (octave, quarter) = (class / 4 + 1, class as u64 % 4);
    Duration::from_micros(((5 + quarter) << (octave - 2)) - 1)
}

/// Up to 2^32 µs.
const CLASSES: usize = 4 * 31;

#[cfg(test)]
mod tests {
    use super::*;

    fn micros(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }

    /// A meter that has seen turns of these lengths, all of `work`.
    fn seen(turns: impl IntoIterator<Item = u64>, work: LoopWork) -> Meter {
        let mut meter = Meter::new();
        let mut now = Instant::ZERO;
        for held in turns {
            now += micros(1_000_000);
            meter.begin(now);
            now += micros(held);
            meter.lap(work, now);
            meter.end(now);
        }
        meter
    }

    #[test]
    fn classes_are_in_order_and_no_wider_than_a_quarter() {
        let mut last = 0;
        for held in (0..5000).chain((13..32).flat_map(|n| [(1 << n) - 1, 1 << n, (1 << n) + 1])) {
            let class = class_of(micros(held));
            assert!(class == last || class > last && class < CLASSES, "{held}");
            last = class;
            let end = end_of(class).as_micros() as u64;
            assert!(held <= end && end <= held + held / 4, "{held}: {end}");
        }
        assert_eq!(class_of(Duration::MAX), CLASSES - 1);
    }

    #[test]
    fn figures_are_those_of_the_turns() {
        let status = seen([], LoopWork::Sockets).status();
        assert_eq!(status, LoopStatus::default());
        let turns = (0..1000).map(|turn| if turn < 998 { 100 } else { 60_000 + turn });
        let status = seen(turns, LoopWork::Storage).status();
        assert_eq!((status.turns, status.stalls), (1000, 2));
        let right = |figure: Duration| (100..=125).contains(&(figure.as_micros() as u64));
        assert!(right(status.median) && right(status.p99), "{status:?}");
        assert!(status.p999 >= micros(60_998), "{status:?}");
        assert_eq!(status.longest, micros(60_999));
        assert_eq!(status.longest_in, Some(LoopWork::Storage));
    }

    #[test]
    fn turns_that_are_long_as_the_thread_slept_are_counted_apart_too() {
        let mut meter = Meter::new();
        for (held, asleep) in [
            (40_000, 40_000),
            (60_000, 5000),
            (60_000, 10_000),
            (70_000, 0),
        ] {
            let now = Instant::ZERO + micros(held);
            meter.begin(Instant::ZERO);
            meter.slept(micros(asleep / 2));
            meter.slept(micros(asleep / 2));
            meter.end(now);
        }
        let status = meter.status();
        assert_eq!((status.stalls, status.stalls_asleep), (3, 1));
        assert_eq!(status.longest, micros(70_000));
    }

    #[test]
    fn longest_turn_is_called_after_what_took_most_of_it() {
        let mut meter = Meter::new();
        let at = |micros| Instant::ZERO + Duration::from_micros(micros);
        meter.begin(at(10));
        meter.lap(LoopWork::Sockets, at(40));
        meter.lap(LoopWork::Timers, at(60));
        meter.lap(LoopWork::Sockets, at(70));
        meter.end(at(105)); // 35 of the caller, 40 of sockets
        assert_eq!(meter.status().longest, Duration::from_micros(95));
        assert_eq!(meter.status().longest_in, Some(LoopWork::Sockets));
        meter.end(at(500)); // nothing runs
        assert_eq!(meter.status().turns, 1);
        // What the caller does before it waits again is a part of the turn.
        meter.begin(at(1000));
        meter.lap(LoopWork::Control, at(1010));
        meter.end(at(2000));
        assert_eq!(meter.status().longest_in, Some(LoopWork::Caller));
    }
}
