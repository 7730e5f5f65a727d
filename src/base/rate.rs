//! Bytes per second over a sliding window.

use std::time::Duration;

use super::time::Instant;

/// A meter over the last [`WINDOW`], in steps of a quarter of a second.
///
/// While nothing is counted it takes little room: there are thousands of such.
#[derive(Clone, Debug)]
pub struct Rate {
    /// `None`: all are empty.
    buckets: Option<Box<[u64; BUCKETS]>>,
    /// What is in all buckets.
    sum: u64,
    /// Step of the newest bucket since the clock's start.
    step: u64,
    /// Step at which counting began: a young meter is divided by its own age.
    first: u64,
    total: u64,
}

impl Rate {
    /// A meter that starts counting at `now`.
    pub fn new(now: Instant) -> Self {
        let step = step_of(now);
        Self {
            buckets: None,
            sum: 0,
            step,
            first: step,
            total: 0,
        }
    }

    /// Counts `bytes` at `now`.
    pub fn add(&mut self, bytes: u64, now: Instant) {
        self.advance(now);
        let buckets = self.buckets.get_or_insert_default();
        buckets[(self.step % BUCKETS as u64) as usize] += bytes;
        self.sum += bytes;
        self.total += bytes;
    }

    /// Bytes per second in the window that ends at `now`.
    pub fn bytes_per_sec(&mut self, now: Instant) -> u64 {
        self.advance(now);
        let steps = (self.step - self.first + 1).min(BUCKETS as u64);
        self.sum * STEPS_PER_SEC / steps
    }

    /// Whether something was counted lately: within [`WINDOW`], or two of them.
    pub fn is_moving(&self, now: Instant) -> bool {
        self.sum > 0 && step_of(now).saturating_sub(self.step) < BUCKETS as u64
    }

    /// All bytes ever counted.
    pub fn total(&self) -> u64 {
        self.total
    }

    fn advance(&mut self, now: Instant) {
        let step = step_of(now);
        let passed = step.saturating_sub(self.step);
        self.step = self.step.max(step);
        if passed >= BUCKETS as u64 {
            (self.buckets, self.sum) = (None, 0);
        }
        let Some(buckets) = &mut self.buckets else {
            return;
        };
        for i in 0..passed {
            let bucket = &mut buckets[((step - i) % BUCKETS as u64) as usize];
            self.sum -= std::mem::take(bucket);
        }
    }
}

/// How far back a rate looks.
pub const WINDOW: Duration = Duration::from_millis(1000 / STEPS_PER_SEC * BUCKETS as u64);

const STEPS_PER_SEC: u64 = 4;
const BUCKETS: usize = 20;

fn step_of(now: Instant) -> u64 {
    now.as_micros() / (1_000_000 / STEPS_PER_SEC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_follows_what_came_in_the_window() {
        let mut now = Instant::ZERO;
        let mut rate = Rate::new(now);
        for _ in 0..40 {
            rate.add(250, now);
            now += Duration::from_millis(250);
        }
        let shown = rate.bytes_per_sec(now);
        assert!((900..=1000).contains(&shown), "{shown} B/s");
        now += WINDOW + Duration::from_secs(1);
        assert!(!rate.is_moving(now));
        assert_eq!(rate.bytes_per_sec(now), 0);
        assert_eq!(rate.total(), 10_000);
        assert!(rate.buckets.is_none(), "it keeps room for nothing");
        rate.add(1, now);
        assert!(rate.is_moving(now + Duration::from_secs(3)));
    }

    #[test]
    fn young_meter_is_not_diluted_by_the_empty_past() {
        let mut rate = Rate::new(Instant::from_micros(77_000_000));
        rate.add(1000, Instant::from_micros(77_000_000));
        assert_eq!(rate.bytes_per_sec(Instant::from_micros(77_200_000)), 4000);
    }
}
