//! How much a pass hashes.
//!
//! What is downloaded is hashed as fast as it comes. What lay on the disk and is checked has the
//! whole thread while no payload moves; while some does it has a ninth of the time that the sockets
//! take, so that who is served keeps nine tenths of the speed.

use std::time::Duration;

use super::Reactor;
use crate::storage::Pace;

/// How fast checks of data on disk were lately.
#[derive(Debug)]
pub(super) struct CheckSpeed {
    bytes: u64,
    time: Duration,
}

impl CheckSpeed {
    /// What most machines do.
    pub fn new() -> Self {
        Self {
            bytes: 1 << 20,
            time: Duration::from_millis(1),
        }
    }

    /// So many bytes were checked in `time`.
    fn checked(&mut self, bytes: u64, time: Duration) {
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
        if received + sent == 0 {
            self.storage.work(budget, pace);
        } else {
            if self.storage.has_urgent_work() {
                self.storage.work_urgent(budget, pace);
            }
            // However long one torrent downloads, another one's check gets on.
            if self.has_hash_work {
                let budget = self.check_speed.in_time(sockets / CHECK_SHARE);
                let begin = self.clock.now();
                let hashed = self.storage.work_found(budget.max(CHECK_LEN_MIN));
                self.check_speed.checked(hashed, self.clock.now() - begin);
            }
        }
        self.has_hash_work = self.storage.has_work();
    }
}

/// Bytes that a pass may hash at least, about a millisecond's worth.
const HASH_LEN_MIN: u64 = 1024 * 1024;
/// Bytes that a pass may check at least while payload moves.
const CHECK_LEN_MIN: u64 = 16 * 1024;
/// Of the time that the streams take, checks get one part in so many.
const CHECK_SHARE: u32 = 9;
/// Over how much time of hashing its speed is averaged.
const MEMORY: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speed_follows_what_was_measured_lately() {
        let mut speed = CheckSpeed::new();
        for (bytes_ms, expected) in [(2_000_000, 2_000_000), (100_000, 100_000)] {
            for _ in 0..1000 {
                speed.checked(bytes_ms, Duration::from_millis(1));
            }
            let ms = speed.in_time(Duration::from_millis(1)) as f64;
            assert!((ms / f64::from(expected) - 1.0).abs() < 0.05, "{ms}");
        }
        assert_eq!(speed.in_time(Duration::ZERO), 0);
    }
}
