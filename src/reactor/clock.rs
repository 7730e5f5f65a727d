//! The one clock of the process. Everything else is told the time.
#![expect(
    clippy::disallowed_methods,
    reason = "the one place that reads a clock"
)]

use std::time;

use crate::base::time::Instant;

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
