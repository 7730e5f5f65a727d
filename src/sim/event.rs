//! What happens in the world, in order of time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::HostId;
use super::net::{ParcelId, Side, StreamId};
use crate::base::id::ConnId;
use crate::base::time::Instant;
use crate::storage::jobs::Done;

/// An event and its time; those of the same moment happen in the order of their numbers.
#[derive(Debug)]
struct Scheduled {
    at: Instant,
    number: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// Events to come.
///
/// Nearly all of them happen within milliseconds, and there may be millions. So they lie in a
/// ring of slots, each a short [`SPAN`] of time, unsorted; only the slot whose time has come is a
/// heap, small enough for the cache. What is further away than the ring waits in a heap of its own.
#[derive(Debug)]
pub(super) struct Events {
    /// The slot that is being emptied, and whatever is given for a time before its end.
    current: BinaryHeap<Reverse<Scheduled>>,
    /// The slots after it: that of time slot `n` is at `n` modulo the ring's length.
    ring: Vec<Vec<Reverse<Scheduled>>>,
    /// Events in the ring.
    near: usize,
    /// Emptied slots, for their buffers.
    spare: Vec<Vec<Reverse<Scheduled>>>,
    far: BinaryHeap<Reverse<Scheduled>>,
    /// The number of the current time slot.
    slot: u64,
    count: u64,
}

impl Default for Events {
    fn default() -> Self {
        Self {
            current: BinaryHeap::new(),
            ring: (0..RING_LEN).map(|_| Vec::new()).collect(),
            near: 0,
            spare: Vec::new(),
            far: BinaryHeap::new(),
            slot: 0,
            count: 0,
        }
    }
}

impl Events {
    /// Makes `event` happen at `at`.
    pub fn push(&mut self, at: Instant, event: Event) {
        self.count += 1;
        let number = self.count;
        self.put(Reverse(Scheduled { at, number, event }));
    }

    fn put(&mut self, scheduled: Reverse<Scheduled>) {
        let slot = scheduled.0.at.as_micros() / SPAN;
        if slot <= self.slot {
            self.current.push(scheduled);
        } else if slot - self.slot < RING_LEN {
            let slot = &mut self.ring[(slot % RING_LEN) as usize];
            if slot.capacity() == 0 {
                *slot = self.spare.pop().unwrap_or_default();
            }
            slot.push(scheduled);
            self.near += 1;
        } else {
            self.far.push(scheduled);
        }
    }

    /// When the next one happens.
    pub fn next_at(&mut self) -> Option<Instant> {
        self.advance();
        self.current.peek().map(|Reverse(next)| next.at)
    }

    /// The next one.
    pub fn pop(&mut self) -> Option<(Instant, Event)> {
        self.advance();
        let Reverse(next) = self.current.pop()?;
        Some((next.at, next.event))
    }

    /// Goes on to the slot of the next event, unless the current one has some left.
    fn advance(&mut self) {
        while self.current.is_empty() {
            if self.near > 0 {
                self.slot += 1;
            } else if let Some(Reverse(next)) = self.far.peek() {
                self.slot = next.at.as_micros() / SPAN;
            } else {
                return;
            }
            let slot = std::mem::take(&mut self.ring[(self.slot % RING_LEN) as usize]);
            self.near -= slot.len();
            let emptied = std::mem::replace(&mut self.current, slot.into()).into_vec();
            if self.spare.len() < SPARE_MAX {
                self.spare.push(emptied);
            }
            let last = (self.slot + RING_LEN) * SPAN;
            while let Some(next) = self.far.peek()
                && next.0.at.as_micros() < last
                && let Some(next) = self.far.pop()
            {
                self.put(next);
            }
        }
    }
}

/// Microseconds of a time slot.
const SPAN: u64 = 8;
/// Time slots ahead of the current one: 32 ms.
const RING_LEN: u64 = 4096;
/// Emptied slots that are kept.
const SPARE_MAX: usize = 64;

/// Something that happens at a host.
#[derive(Debug)]
pub(super) enum Event {
    /// A stream from elsewhere arrives.
    Arrive(StreamId),
    /// A dialled stream is established.
    Established(StreamId),
    /// A dialled host does not take the stream.
    Refused(HostId, ConnId),
    /// The front of a stream's bytes reaches its other end.
    Deliver(StreamId, Side),
    /// The other end of a stream closed it.
    Ended(StreamId, Side),
    /// The other end of a stream is gone without a word; bytes sent there were refused.
    Reset(StreamId, Side),
    /// The host's line can carry the next chunk.
    LineFree(HostId),
    /// A timer of the engine may be due.
    Timer(HostId),
    /// The disk of this life of the host has done something.
    Disk(HostId, u32, Box<Done>),
    /// The resolver answers this life of the host.
    Resolved(HostId, u32, Box<Answer>),
    /// A datagram arrives.
    Datagram(ParcelId),
}

impl Event {
    /// Figures that tell events apart, for the trace.
    pub fn words(&self) -> [u64; 3] {
        let conn = |conn: ConnId| u64::from(conn.index) << 32 | u64::from(conn.generation);
        match *self {
            Self::Arrive(stream) => [1, u64::from(stream.0), 0],
            Self::Established(stream) => [2, u64::from(stream.0), 0],
            Self::Refused(host, of) => [3, u64::from(host.0), conn(of)],
            Self::Deliver(stream, side) => [4, u64::from(stream.0), side as u64],
            Self::Ended(stream, side) => [5, u64::from(stream.0), side as u64],
            Self::Reset(stream, side) => [6, u64::from(stream.0), side as u64],
            Self::LineFree(host) => [7, u64::from(host.0), 0],
            Self::Timer(host) => [8, u64::from(host.0), 0],
            Self::Disk(host, life, ref done) => {
                [9, u64::from(host.0) << 32 | u64::from(life), done.id.0]
            }
            Self::Resolved(host, life, _) => [10, u64::from(host.0), u64::from(life)],
            Self::Datagram(parcel) => [11, u64::from(parcel.0), 0],
        }
    }
}

/// An event as [`Event::words`] has it, for people.
pub(super) fn in_words([kind, a, b]: [u64; 3]) -> String {
    let side = if b == 0 { "dialler" } else { "acceptor" };
    match kind {
        1 => format!("stream {a} arrives"),
        2 => format!("stream {a} is established"),
        3 => format!("host {a}: connection {} is refused", b >> 32),
        4 => format!("stream {a}: bytes for the {side}"),
        5 => format!("stream {a}: end for the {side}"),
        6 => format!("stream {a}: reset for the {side}"),
        7 => format!("host {a}: line free"),
        8 => format!("host {a}: timer"),
        9 => format!("host {}: disk has done job {b}", a >> 32),
        10 => format!("host {a}: name resolved"),
        _ => format!("datagram {a} arrives"),
    }
}

/// What a name stands for.
#[derive(Debug)]
pub(super) struct Answer {
    pub lookup: crate::engine::LookupId,
    pub addresses: Result<Vec<std::net::SocketAddr>, String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_one_moment_happen_in_the_order_given() {
        let mut events = Events::default();
        for host in [5, 3, 9] {
            events.push(Instant::from_micros(7), Event::Timer(HostId(host)));
        }
        events.push(Instant::from_micros(6), Event::Timer(HostId(1)));
        let order = std::iter::from_fn(|| events.pop()).map(|(_, event)| match event {
            Event::Timer(host) => host.0,
            _ => unreachable!("only timers were pushed"),
        });
        assert_eq!(order.collect::<Vec<_>>(), [1, 5, 3, 9]);
    }

    /// Goal: far or near, given early or late, events come as a sorted list has them.
    #[test]
    fn events_come_in_order_of_time_and_number() {
        let mut rng = crate::base::rng::Rng::new(7);
        let mut events = Events::default();
        let mut expected = std::collections::BTreeSet::new();
        let (mut now, mut host) = (0, 0);
        for turn in 0..60_000 {
            let is_filling = turn % 10_000 < 5_000;
            if rng.below(4) > 0 && is_filling || expected.is_empty() {
                let range = [1, 9, 500, 40_000, 5_000_000][rng.below(5) as usize];
                let at = now + u64::from(rng.below(range));
                events.push(Instant::from_micros(at), Event::Timer(HostId(host)));
                expected.insert((at, host));
                host += 1;
                continue;
            }
            let first = expected.pop_first();
            assert_eq!(
                events.next_at().map(|at| at.as_micros()),
                first.map(|(at, _)| at)
            );
            let Some((at, Event::Timer(HostId(of)))) = events.pop() else {
                panic!("{first:?} is missing");
            };
            now = at.as_micros();
            assert_eq!(Some((now, of)), first, "turn {turn}");
        }
    }
}
