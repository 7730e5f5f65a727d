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

    /// When so many [portions](Self::portion) may pass.
    pub fn portions_at(&self, count: usize) -> Instant {
        let lacks = i128::from(self.portion()) * count as i128 * MICRO - self.left;
        if self.rate == 0 || lacks <= 0 {
            return self.at;
        }
        let micros = lacks.unsigned_abs().div_ceil(u128::from(self.rate));
        self.at + Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
    }

    /// What should pass at once: a block or so, less where that would take long.
    pub fn portion(&self) -> u64 {
        (self.rate / PORTIONS_S).clamp(PORTION_MIN, PORTION_MAX)
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
                    now = bucket.portions_at(1).max(now + Duration::from_micros(500));
                }
                let expected = 20 * rate;
                let error = (passed as f64 / expected as f64 - 1.0).abs();
                assert!(error < 0.01, "{rate} by {step}: {passed} of {expected}");
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
        let portion = bucket.portion();
        assert_eq!(bucket.portions_at(1), at(500_000 + portion * 10));
        assert_eq!(bucket.portions_at(3), at(500_000 + portion * 30));
        bucket.refill(at(3_600_000_000));
        assert_eq!(bucket.left(), 10_000, "an hour's rest is not made up for");
    }

    #[test]
    fn no_limit_is_none() {
        let mut bucket = Bucket::new(0, at(0));
        bucket.take(1 << 40);
        bucket.refill(at(1));
        assert_eq!((bucket.left(), bucket.rate()), (usize::MAX, None));
        assert_eq!(bucket.portions_at(1), at(1));
    }
}
