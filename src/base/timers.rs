//! Deadlines in order: given the time, yields the ids that are due.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::time::Instant;

/// A queue of deadlines. Owners re-arm lazily: an entry that fires early looks at its owner's
/// state and is armed again, so that busy owners cost nothing between two firings.
///
/// A heap: with one entry a connection and a torrent, 20,000 of them, an operation is some
/// fifteen comparisons. Equal deadlines fire in the order in which they were armed.
#[derive(Debug)]
pub struct TimerQueue<T> {
    heap: BinaryHeap<Reverse<(Instant, u64, T)>>,
    armed: u64,
}

impl<T: Ord + Copy> Default for TimerQueue<T> {
    fn default() -> Self {
        Self {
            heap: BinaryHeap::new(),
            armed: 0,
        }
    }
}

impl<T: Ord + Copy> TimerQueue<T> {
    /// Fires `id` at `at`, beside whatever else is armed for it.
    pub fn arm(&mut self, id: T, at: Instant) {
        self.armed += 1;
        self.heap.push(Reverse((at, self.armed, id)));
    }

    /// The earliest deadline.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, ..))| *at)
    }

    /// Takes the earliest id that is due at `now`.
    pub fn poll(&mut self, now: Instant) -> Option<T> {
        if self.next_deadline()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse((.., id))| id)
    }

    /// Number of armed entries.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether nothing is armed.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn due_ids_come_in_order_of_their_deadlines() {
        let at = Instant::from_micros;
        let mut timers = TimerQueue::default();
        for (id, micros) in [(1, 30), (2, 10), (3, 20), (4, 10)] {
            timers.arm(id, at(micros));
        }
        assert_eq!(timers.poll(at(9)), None);
        assert_eq!(timers.next_deadline(), Some(at(10)));
        let due: Vec<_> = std::iter::from_fn(|| timers.poll(at(20))).collect();
        assert_eq!(due, [2, 4, 3]);
        assert_eq!(timers.len(), 1);
    }
}
