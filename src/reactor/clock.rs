//! The one clock of the process. Everything else is told the time.
#![expect(
    clippy::disallowed_methods,
    reason = "the one place that reads a clock"
)]

use std::time;

use crate::base::time::Instant;

/// Seconds since 1970, by the wall clock: for what other runs read, never for deadlines.
pub fn unix_s() -> u64 {
    unix_ms() / 1000
}

/// The same in milliseconds: where the epochs of this host begin.
pub fn unix_ms() -> u64 {
    let since = time::SystemTime::now().duration_since(time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

/// Counts microseconds since it was started; never goes back, whatever the wall clock does.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: time::Instant,
}

impl Clock {
    /// A clock that stands at [`Instant::ZERO`] now.
    pub fn start() -> Self {
        Self {
            started: time::Instant::now(),
        }
    }

    /// Time since the start.
    pub fn now(&self) -> Instant {
        Instant::ZERO + self.started.elapsed()
    }
}
