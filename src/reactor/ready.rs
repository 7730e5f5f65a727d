//! Who is next, and how much of the loop he may have.
//!
//! mio tells only once that a socket is ready. What is not finished in a connection's turn
//! stays in the [`Ready`] ring, behind everybody else who waits.

use std::collections::VecDeque;

use crate::base::id::ConnId;

/// Connections with unfinished work, in order of their next turn, each at most once.
#[derive(Debug, Default)]
pub struct Ready {
    ring: VecDeque<ConnId>,
    /// By index: the generation that is in the ring. An entry of another generation is of a
    /// connection that was closed since, and is passed over.
    queued: Vec<Option<u32>>,
}

impl Ready {
    /// Puts `conn` behind the others, unless it waits already.
    pub fn push(&mut self, conn: ConnId) {
        let index = conn.index as usize;
        if index >= self.queued.len() {
            self.queued.resize(index + 1, None);
        }
        if self.queued[index] != Some(conn.generation) {
            self.queued[index] = Some(conn.generation);
            self.ring.push_back(conn);
        }
    }

    /// Takes the connection whose turn it is.
    pub fn pop(&mut self) -> Option<ConnId> {
        while let Some(conn) = self.ring.pop_front() {
            let queued = &mut self.queued[conn.index as usize];
            if *queued == Some(conn.generation) {
                *queued = None;
                return Some(conn);
            }
        }
        None
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }

    /// Moves everybody behind those in `other`.
    pub fn move_to(&mut self, other: &mut Self) {
        while let Some(conn) = self.pop() {
            other.push(conn);
        }
    }
}

/// What a turn or a pass of the loop may still move, bytes.
#[derive(Debug)]
pub struct Budget {
    left: usize,
}

impl Budget {
    /// One direction of one connection's turn.
    pub fn turn() -> Self {
        Self { left: TURN_LEN_MAX }
    }

    /// The datagrams of a multicast group in one pass of the loop.
    pub fn group() -> Self {
        Self {
            left: GROUP_LEN_MAX,
        }
    }

    /// All turns of one pass of the loop.
    pub fn pass() -> Self {
        Self { left: PASS_LEN_MAX }
    }

    /// Accounts for `len` bytes.
    pub fn spend(&mut self, len: usize) {
        self.left = self.left.saturating_sub(len);
    }

    /// Accounts for a turn that moved `len` bytes: one that moved nothing costs something too.
    pub fn spend_turn(&mut self, len: usize) {
        self.spend(len.max(TURN_COST_MIN));
    }

    /// Whether nothing is left.
    pub fn is_spent(&self) -> bool {
        self.left == 0
    }

    /// Bytes that may still be moved.
    pub fn left(&self) -> usize {
        self.left
    }
}

/// Bytes that a connection moves in a turn at most, each way; also the receive buffer's size.
pub const TURN_LEN_MAX: usize = 256 * 1024;
/// Bytes that all connections move before the loop polls again, hashes and looks at the clock.
const PASS_LEN_MAX: usize = 4 * 1024 * 1024;
/// Bytes of datagrams that a multicast group has looked at in a pass.
const GROUP_LEN_MAX: usize = 64 * 1024;
/// What a turn costs at least, bytes: bounds the turns of a pass.
const TURN_COST_MIN: usize = 1024;

const _: () = assert!(
    PASS_LEN_MAX >= 4 * TURN_LEN_MAX,
    "several get a turn in a pass"
);

#[cfg(test)]
mod tests {
    use super::*;

    fn conn(index: u32, generation: u32) -> ConnId {
        ConnId { index, generation }
    }

    #[test]
    fn everybody_waits_at_most_once_and_in_order() {
        let mut ready = Ready::default();
        for index in [4, 2, 4, 9, 2] {
            ready.push(conn(index, 0));
        }
        let order: Vec<_> = std::iter::from_fn(|| ready.pop()).collect();
        assert_eq!(order, [conn(4, 0), conn(2, 0), conn(9, 0)]);
        assert!(ready.is_empty());
        ready.push(conn(4, 0));
        assert_eq!(ready.pop(), Some(conn(4, 0)), "may wait again after a turn");
    }

    #[test]
    fn closed_connection_does_not_take_the_turn_of_its_successor() {
        let mut ready = Ready::default();
        ready.push(conn(1, 0));
        ready.push(conn(2, 0));
        ready.push(conn(1, 1));
        let order: Vec<_> = std::iter::from_fn(|| ready.pop()).collect();
        assert_eq!(order, [conn(2, 0), conn(1, 1)]);
    }

    #[test]
    fn busy_connection_gets_no_second_turn_before_the_others_had_one() {
        let mut ready = Ready::default();
        for index in 0..8 {
            ready.push(conn(index, 0));
        }
        let mut budget = Budget::pass();
        let mut turns = [0; 8];
        while !budget.is_spent() {
            let conn = ready.pop().unwrap();
            turns[conn.index as usize] += 1;
            budget.spend_turn(TURN_LEN_MAX);
            ready.push(conn);
        }
        assert_eq!(turns, [2; 8]);
    }

    #[test]
    fn idle_turns_spend_the_pass_too() {
        let mut budget = Budget::pass();
        let mut turns = 0;
        while !budget.is_spent() {
            budget.spend_turn(0);
            turns += 1;
        }
        assert_eq!(turns, PASS_LEN_MAX / TURN_COST_MIN);
    }
}
