//! A limit in bytes per second: how much may pass now, and when more may.

use std::time::Duration;

use super::time::Instant;

/// Bytes that may pass, which grow with time up to a small store.
///
/// Whoever takes more than there is leaves a debt that time pays first, so that over any long time
/// no more passes than the rate allows, and not less if somebody always waits.
#[derive(Clone, Debug)]
pub struct Bucket {
    /// Bytes per second; 0: no limit.
    rate: u64,
    /// Millionths of bytes that may pass.
    left: i128,
    at: Instant,
}

impl Bucket {
    /// A limit of `rate` bytes per second; 0 is none.
    pub fn new(rate: u64, now: Instant) -> Self {
        Self {
            rate,
            left: 0,
            at: now,
        }
    }

    /// Bytes per second; `None`: no limit.
    pub fn rate(&self) -> Option<u64> {
        (self.rate > 0).then_some(self.rate)
    }

    /// It is `now`.
    pub fn refill(&mut self, now: Instant) {
        let micros = (now - self.at).as_micros() as i128;
        self.at = self.at.max(now);
        let most = i128::from(self.depth()) * MICRO;
        self.left = (self.left + micros * i128::from(self.rate)).min(most);
    }

    /// Bytes that may pass.
    pub fn left(&self) -> usize {
        match self.rate {
            0 => usize::MAX,
            _ => usize::try_from(self.left / MICRO).unwrap_or(0),
        }
    }

    /// So many bytes passed.
    pub fn take(&mut self, bytes: usize) {
        if self.rate > 0 {
            self.left -= bytes as i128 * MICRO;
        }
    }

    /// It is `now`, and from now on the limit is `rate` bytes per second; 0 is none. What was
    /// passed too much is still paid for.
    pub fn set_rate(&mut self, rate: u64, now: Instant) {
        self.refill(now);
        self.rate = rate;
        self.left = match rate {
            0 => 0,
            _ => self.left.min(i128::from(self.depth()) * MICRO),
        };
    }

    /// When so many bytes may pass.
    pub fn ready_at(&self, bytes: u64) -> Instant {
        let lacks = i128::from(bytes) * MICRO - self.left;
        if self.rate == 0 || lacks <= 0 {
            return self.at;
        }
        let micros = lacks.unsigned_abs().div_ceil(u128::from(self.rate));
        self.at + Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
    }

    /// What should pass at once, bytes: some blocks, less where that would take long.
    pub fn portion(&self) -> u64 {
        match self.rate {
            0 => PORTION_MAX,
            rate => (rate / PORTIONS_S).clamp(PORTION_MIN, PORTION_MAX),
        }
    }

    /// What is stored at most: what passes while the loop has something else to do.
    fn depth(&self) -> u64 {
        (self.rate / DEPTHS_S).max(2 * self.portion())
    }
}

const MICRO: i128 = 1_000_000;
/// Portions a second, so that what passes is smooth to the other side.
const PORTIONS_S: u64 = 50;
/// A smaller one would cost more in packets than it gains.
const PORTION_MIN: u64 = 1400;
const PORTION_MAX: u64 = 128 << 10;
/// Stores a second.
const DEPTHS_S: u64 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: u64) -> Instant {
        Instant::from_micros(micros)
    }

    /// Goal: over 20 s no more and no less passes than the rate says, for every rate, whoever
    /// takes how much at a time.
    #[test]
    fn rate_is_kept_whatever_is_taken_at_a_time() {
        for rate in [64 << 10, 1 << 20, 256 << 20, 1000, 10_u64.pow(12)] {
            for step in [1000, 17_000, 1 << 20] {
                let mut bucket = Bucket::new(rate, at(0));
                let mut passed = 0;
                let mut now = at(0);
                while now < at(20_000_000) {
                    bucket.refill(now);
                    let len = bucket.left().min(step.max(rate as usize / 100));
                    if len > 0 {
                        bucket.take(len);
                        passed += len as u64;
                    }
                    let ready = bucket.ready_at(bucket.portion());
                    now = ready.max(now + Duration::from_micros(500));
                }
                // What is stored when the time is over may still pass.
                let (expected, stored) = (20 * rate, 2 * bucket.portion());
                let is_kept = passed <= expected && passed + stored + expected / 100 >= expected;
                assert!(is_kept, "{rate} by {step}: {passed} of {expected}");
            }
        }
    }

    #[test]
    fn debt_is_paid_first_and_a_rest_is_short() {
        let mut bucket = Bucket::new(100_000, at(0));
        bucket.refill(at(0));
        assert_eq!(bucket.left(), 0);
        bucket.take(50_000);
        bucket.refill(at(500_000));
        assert_eq!(bucket.left(), 0);
        assert_eq!(bucket.ready_at(1000), at(500_000 + 10_000));
        assert_eq!(bucket.ready_at(3000), at(500_000 + 30_000));
        bucket.refill(at(3_600_000_000));
        assert_eq!(bucket.left(), 10_000, "an hour's rest is not made up for");
    }

    #[test]
    fn no_limit_is_none() {
        let mut bucket = Bucket::new(0, at(0));
        bucket.take(1 << 40);
        bucket.refill(at(1));
        assert_eq!((bucket.left(), bucket.rate()), (usize::MAX, None));
        assert_eq!(bucket.ready_at(1 << 40), at(1));
    }

    #[test]
    fn new_rate_holds_at_once_and_for_what_is_stored_too() {
        let mut bucket = Bucket::new(10_000_000, at(0));
        bucket.set_rate(100_000, at(1_000_000));
        assert_eq!(bucket.left(), 10_000, "a tenth of a second's worth");
        bucket.take(20_000);
        bucket.set_rate(1_000_000, at(1_000_000));
        assert_eq!(bucket.ready_at(0), at(1_010_000), "debts stay");
        bucket.set_rate(0, at(1_000_000));
        assert_eq!((bucket.left(), bucket.rate()), (usize::MAX, None));
        bucket.set_rate(5000, at(9_000_000));
        assert_eq!(bucket.left(), 0, "nothing was stored without a limit");
    }
}
