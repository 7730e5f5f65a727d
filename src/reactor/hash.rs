//! How much a pass hashes.
//!
//! What is downloaded is hashed as fast as it comes. What lay on the disk and is checked has the
//! whole thread while little or no payload moves; while much does it has a ninth of the time that
//! the sockets take, so that who is served keeps nine tenths of the speed. A pass without payload
//! in between is no spare time then: others need the cores, to take what was sent and to bring what
//! is next.

use std::time::Duration;

use super::Reactor;
use crate::base::time::Instant;
use crate::storage::Pace;

/// What checks of data on disk may take of the thread.
#[derive(Debug)]
pub(super) struct CheckShare {
    /// How fast they were lately.
    bytes: u64,
    time: Duration,
    /// Time that they have coming, and time that they had too much.
    credit: Duration,
    debt: Duration,
    /// What the sockets took of the time lately.
    sockets: Duration,
    passed: Duration,
    passed_at: Instant,
}

impl CheckShare {
    /// Checks are as fast as on most machines; nothing has moved before `now`.
    pub fn new(now: Instant) -> Self {
        Self {
            bytes: 1 << 20,
            time: Duration::from_millis(1),
            credit: Duration::ZERO,
            debt: Duration::ZERO,
            sockets: Duration::ZERO,
            passed: Duration::ZERO,
            passed_at: now,
        }
    }

    /// A pass in which the sockets took so much time is over but for the hashing.
    fn pass(&mut self, sockets: Duration, now: Instant) {
        let share = sockets / CHECK_SHARE;
        let paid = share.min(self.debt);
        self.debt -= paid;
        self.credit = (self.credit + share - paid).min(CREDIT_MAX);
        self.sockets += sockets;
        self.passed += now - self.passed_at;
        self.passed_at = now;
        while self.passed > MEMORY {
            self.sockets /= 2;
            self.passed /= 2;
        }
    }

    /// Whether the sockets have had a good part of the time lately.
    fn is_busy(&self) -> bool {
        self.sockets * BUSY_PARTS > self.passed
    }

    /// Bytes that may be checked while payload moves; none as long as it would be few, but some
    /// once there has been time enough, however slow that is here.
    fn budget(&self) -> u64 {
        match self.in_time(self.credit) {
            few if few < CHECK_LEN_MIN && self.credit < CREDIT_MAX => 0,
            bytes => bytes.max(CHECK_LEN_MIN),
        }
    }

    /// So many bytes were checked in `time`.
    fn checked(&mut self, bytes: u64, time: Duration) {
        self.debt = (self.debt + time.saturating_sub(self.credit)).min(DEBT_MAX);
        self.credit = self.credit.saturating_sub(time);
        if bytes == 0 {
            return; // what is checked was not there: that says nothing of the speed
        }
        self.bytes += bytes;
        self.time += time;
        while self.time > MEMORY {
            self.bytes /= 2;
            self.time /= 2;
        }
    }

    /// Bytes that can be checked in `time`.
    fn in_time(&self, time: Duration) -> u64 {
        let share = time.as_secs_f64() / self.time.as_secs_f64().max(1e-6);
        (self.bytes as f64 * share) as u64
    }
}

impl Reactor {
    /// Hashes for this pass: more than it received, so that the backlog cannot grow for want of
    /// time. While payload comes in, pieces wait for company; the next pass without any ends that.
    /// `sockets` is the time that the streams took.
    pub(super) fn hash(&mut self, received: usize, sent: usize, sockets: Duration) {
        let pace = match received {
            0 => Pace::AtOnce,
            _ => Pace::InCompany,
        };
        let budget = (2 * received as u64).max(HASH_LEN_MIN);
        self.check_share.pass(sockets, self.clock.now());
        let is_busy = self.check_share.is_busy();
        if received + sent == 0 && !is_busy {
            self.storage.work(budget, pace);
        } else {
            if self.storage.has_urgent_work() {
                self.storage.work_urgent(budget, pace);
            }
            // However long one torrent downloads, another one's check gets on.
            let budget = self.check_share.budget();
            if self.has_checks && budget > 0 {
                let begin = self.clock.now();
                let hashed = self.storage.work_found(budget);
                self.check_share.checked(hashed, self.clock.now() - begin);
            }
        }
        self.has_checks = self.storage.has_work();
        self.has_hash_work = self.has_checks && (!is_busy || self.storage.has_urgent_work_now());
    }

    /// When checks are looked after though no event comes.
    pub(super) fn checks_due(&self, now: Instant) -> Option<Instant> {
        (self.has_checks && !self.has_hash_work).then(|| now + CHECK_PAUSE)
    }
}

/// Bytes that a pass may hash at least, about a millisecond's worth.
const HASH_LEN_MIN: u64 = 1024 * 1024;
/// Bytes that are checked at a time at least while payload moves.
const CHECK_LEN_MIN: u64 = 16 * 1024;
/// The sockets are busy if they take more than one part of the time in so many.
const BUSY_PARTS: u32 = 10;
/// Time that checks have coming at most.
const CREDIT_MAX: Duration = Duration::from_millis(1);
/// Time that they had too much, at most: a disk that stood still does not count against them.
const DEBT_MAX: Duration = Duration::from_millis(50);
/// How long checks wait for the sockets to be busy no more.
const CHECK_PAUSE: Duration = Duration::from_millis(1);
/// Of the time that the streams take, checks get one part in so many.
const CHECK_SHARE: u32 = 9;
/// Over how much time speeds and shares are averaged.
const MEMORY: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speed_follows_what_was_measured_lately() {
        let mut speed = CheckShare::new(Instant::ZERO);
        for (bytes_ms, expected) in [(2_000_000, 2_000_000), (100_000, 100_000)] {
            for _ in 0..1000 {
                speed.checked(bytes_ms, Duration::from_millis(1));
            }
            let ms = speed.in_time(Duration::from_millis(1)) as f64;
            assert!((ms / f64::from(expected) - 1.0).abs() < 0.05, "{ms}");
        }
        assert_eq!(speed.in_time(Duration::ZERO), 0);
    }

    /// Checks get a ninth of what the sockets take, in portions, however short the passes are.
    #[test]
    fn checks_have_their_share_of_busy_times() {
        for pass in [Duration::from_micros(10), Duration::from_micros(900)] {
            let mut share = CheckShare::new(Instant::ZERO);
            let (mut now, mut sockets, mut checks) =
                (Instant::ZERO, Duration::ZERO, Duration::ZERO);
            for _ in 0..10_000 {
                now += pass;
                sockets += pass;
                share.pass(pass, now);
                assert!(share.is_busy());
                let budget = share.budget();
                if budget > 0 {
                    assert!(budget >= CHECK_LEN_MIN);
                    let took = Duration::from_nanos(budget * 1000 / 1049);
                    share.checked(budget, took);
                    now += took;
                    checks += took;
                }
            }
            let part = sockets.as_secs_f64() / checks.as_secs_f64();
            assert!((8.5..9.5).contains(&part), "one part in {part}");
        }
    }

    #[test]
    fn sockets_are_busy_by_what_they_took_lately() {
        let mut share = CheckShare::new(Instant::ZERO);
        let mut now = Instant::ZERO;
        let mut pass = |sockets_us, passed_ms| {
            now += Duration::from_millis(passed_ms);
            share.pass(Duration::from_micros(sockets_us), now);
            share.is_busy()
        };
        assert!(!pass(0, 1), "nothing moves");
        assert!(!pass(50, 1), "little does");
        assert!((0..20).map(|_| pass(500, 1)).last().unwrap(), "much does");
        assert!(pass(0, 1), "a pause of a moment");
        assert!(!pass(0, 100), "it is over");
        assert!(share.credit <= CREDIT_MAX);
    }

    /// However slow checks were, and however often there was nothing to check, they go on.
    #[test]
    fn slow_checks_go_on_in_busy_times() {
        let mut share = CheckShare::new(Instant::ZERO);
        let mut now = Instant::ZERO;
        let mut checked_in_a_second = |share: &mut CheckShare, bytes_ms: u64| {
            let (end, mut checked) = (now + Duration::from_secs(1), 0);
            while now < end {
                now += Duration::from_micros(100);
                share.pass(Duration::from_micros(100), now);
                let budget = share.budget();
                if budget > 0 {
                    let len = if bytes_ms == 0 { 0 } else { budget };
                    let took = len.max(10) * 1000 / bytes_ms.max(1000);
                    share.checked(len, Duration::from_micros(took));
                    now += Duration::from_micros(took);
                    checked += len;
                }
            }
            checked
        };
        assert_eq!(checked_in_a_second(&mut share, 0), 0, "nothing is there");
        let fast = checked_in_a_second(&mut share, 1_000_000);
        assert!(fast > 90_000_000, "{fast} bytes at once after that");
        checked_in_a_second(&mut share, 1000);
        let slow = checked_in_a_second(&mut share, 1000);
        assert!((90_000..200_000).contains(&slow), "{slow} bytes");
        checked_in_a_second(&mut share, 1_000_000);
        let fast = checked_in_a_second(&mut share, 1_000_000);
        assert!(fast > 90_000_000, "{fast} bytes once it is fast again");
    }
}
