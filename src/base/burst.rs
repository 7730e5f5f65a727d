//! Queues that a burst makes long, as a start with a thousand torrents does.

use std::collections::VecDeque;

/// Takes the first of a queue. When none is left, the room that a burst took is given back.
pub fn take_first<T>(queue: &mut VecDeque<T>) -> Option<T> {
    let first = queue.pop_front();
    if first.is_none() && queue.capacity() > KEPT_MAX {
        *queue = VecDeque::new();
    }
    first
}

/// Room that is kept, items.
const KEPT_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_of_a_burst_is_given_back_and_that_of_every_day_is_kept() {
        let mut queue: VecDeque<u32> = (0..1000).collect();
        for expected in 0..1000 {
            assert_eq!(take_first(&mut queue), Some(expected));
            assert!(queue.capacity() >= 1000);
        }
        assert_eq!(take_first(&mut queue), None);
        assert_eq!(queue.capacity(), 0);
        queue.extend(0..10);
        while take_first(&mut queue).is_some() {}
        assert!(queue.capacity() >= 10);
    }
}
