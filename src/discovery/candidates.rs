//! Addresses of one torrent that may be dialled, with their past.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use crate::base::rng::Rng;
use crate::base::time::Instant;

/// Where an address was heard of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The user named it; it is tried for as long as the torrent runs.
    User,
    /// A tracker named it.
    Tracker,
    /// It connected to us and named its port.
    Incoming,
    /// A former run of this peer was connected to it.
    Session,
}

impl Source {
    /// The word for it in every output.
    pub fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Tracker => "tracker",
            Self::Incoming => "incoming",
            Self::Session => "session",
        }
    }
}

/// How many addresses there are of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// All.
    pub known: usize,
    /// Those that wait for another attempt after a failed one.
    pub failed: usize,
    /// Those that are not dialled again.
    pub never: usize,
}

/// How a connection ended, for the decision when to dial again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It was never established.
    Unreachable,
    /// It was lost, or the peer closed it.
    Lost,
    /// It was of no use to either side.
    Redundant,
    /// The peer broke the rules, or is this very process: never again.
    Never,
}

/// The known addresses of a torrent. Bounded: beyond 2000 newcomers are ignored.
#[derive(Debug)]
pub struct Candidates {
    known: BTreeMap<SocketAddr, Candidate>,
    rng: Rng,
}

#[derive(Debug)]
struct Candidate {
    source: Source,
    failures: u32,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// May be dialled from this moment on.
    Idle(Instant),
    /// A connection is being opened or is open.
    Busy,
    /// Is not dialled again.
    Never,
}

impl Candidates {
    /// An empty set; `rng` chooses among addresses that are due.
    pub fn new(rng: Rng) -> Self {
        Self {
            known: BTreeMap::new(),
            rng,
        }
    }

    /// Takes up an address; says whether it is new.
    pub fn add(&mut self, remote: SocketAddr, source: Source, now: Instant) -> bool {
        if let Some(known) = self.known.get_mut(&remote) {
            if source == Source::User {
                known.source = Source::User;
            }
            return false;
        }
        if self.known.len() >= CANDIDATES_MAX || remote.port() == 0 || remote.ip().is_unspecified()
        {
            return false;
        }
        let state = State::Idle(now);
        self.known.insert(
            remote,
            Candidate {
                source,
                failures: 0,
                state,
            },
        );
        true
    }

    /// Takes an address that is due; the caller dials it.
    pub fn take_due(&mut self, now: Instant) -> Option<SocketAddr> {
        let is_due = |c: &Candidate| matches!(c.state, State::Idle(at) if at <= now);
        let due = self.known.values().filter(|c| is_due(c)).count();
        if due == 0 {
            return None;
        }
        let choice = self.rng.below(due as u32) as usize;
        let (&remote, candidate) = self
            .known
            .iter_mut()
            .filter(|(_, c)| is_due(c))
            .nth(choice)
            .expect("counted above");
        candidate.state = State::Busy;
        Some(remote)
    }

    /// When the next address is due.
    pub fn next_deadline(&self) -> Option<Instant> {
        let at = |c: &Candidate| match c.state {
            State::Idle(at) => Some(at),
            State::Busy | State::Never => None,
        };
        self.known.values().filter_map(at).min()
    }

    /// A connection with this address exists already: it is not dialled beside that.
    pub fn connected(&mut self, remote: SocketAddr) {
        if let Some(candidate) = self.known.get_mut(&remote)
            && candidate.state != State::Never
        {
            candidate.state = State::Busy;
        }
    }

    /// A connection that lasted for `age` ended.
    pub fn ended(&mut self, remote: SocketAddr, end: End, age: Duration, now: Instant) {
        let Some(candidate) = self.known.get_mut(&remote) else {
            return;
        };
        if candidate.state == State::Never {
            return;
        }
        if age >= STEADY {
            candidate.failures = 0;
        }
        candidate.state = match end {
            End::Never => State::Never,
            End::Redundant => State::Idle(now + REDUNDANT_PAUSE),
            End::Unreachable | End::Lost => {
                candidate.failures += 1;
                let (first, last) = match candidate.source {
                    Source::User => USER_PAUSES,
                    Source::Tracker | Source::Incoming | Source::Session => PAUSES,
                };
                let doubled = first * (1 << (candidate.failures - 1).min(16));
                let jitter = Duration::from_millis(u64::from(self.rng.below(250)));
                State::Idle(now + doubled.min(last) + jitter)
            }
        };
        let given_up = candidate.failures >= FAILURES_MAX && candidate.source != Source::User;
        if given_up {
            self.known.remove(&remote);
        }
    }

    /// How an address was learned; `None` if it is not known.
    pub fn source(&self, remote: SocketAddr) -> Option<Source> {
        self.known.get(&remote).map(|candidate| candidate.source)
    }

    /// Lets whoever may be dialled at all be dialled now: the torrent goes on after a pause.
    pub fn wake(&mut self, now: Instant) {
        for candidate in self.known.values_mut() {
            if let State::Idle(_) = candidate.state {
                candidate.state = State::Idle(now);
            }
        }
    }

    /// Counts the addresses.
    pub fn tally(&self, now: Instant) -> Tally {
        let mut tally = Tally {
            known: self.known.len(),
            ..Tally::default()
        };
        for candidate in self.known.values() {
            match candidate.state {
                State::Idle(at) => tally.failed += usize::from(at > now),
                State::Busy => {}
                State::Never => tally.never += 1,
            }
        }
        tally
    }

    /// Number of known addresses.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether no address is known.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}

/// Addresses kept for one torrent at most.
const CANDIDATES_MAX: usize = 2000;
/// First and longest pause between attempts to an address that the user named.
const USER_PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// The same for other addresses.
const PAUSES: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(600));
/// Failures in a row after which an address is forgotten.
const FAILURES_MAX: u32 = 8;
/// A connection that lasted this long makes up for failures before it.
const STEADY: Duration = Duration::from_secs(30);
/// Pause after a connection in which both sides had everything.
const REDUNDANT_PAUSE: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(n: u8) -> SocketAddr {
        ([10, 0, 0, n], 6881).into()
    }

    #[test]
    fn unreachable_address_is_tried_ever_later_and_then_forgotten() {
        let mut candidates = Candidates::new(Rng::new(1));
        let mut now = Instant::ZERO;
        assert!(candidates.add(addr(1), Source::Tracker, now));
        let mut pauses = Vec::new();
        while let Some(at) = candidates.next_deadline() {
            pauses.push((at - now).as_secs());
            now = at;
            assert_eq!(candidates.take_due(now), Some(addr(1)));
            assert_eq!(candidates.take_due(now), None, "one connection an address");
            candidates.ended(addr(1), End::Unreachable, Duration::ZERO, now);
        }
        assert_eq!(pauses, [0, 2, 4, 8, 16, 32, 64, 128]);
        assert!(candidates.is_empty());
    }

    #[test]
    fn address_of_the_user_is_never_given_up_but_for_a_fault() {
        let mut candidates = Candidates::new(Rng::new(1));
        let mut now = Instant::ZERO;
        candidates.add(addr(1), Source::Tracker, now);
        candidates.add(addr(1), Source::User, now);
        for _ in 0..50 {
            now = candidates.next_deadline().expect("still known");
            candidates.take_due(now).expect("due at its deadline");
            candidates.ended(addr(1), End::Lost, Duration::ZERO, now);
        }
        now += Duration::from_secs(60);
        candidates.take_due(now).expect("due");
        candidates.ended(addr(1), End::Never, Duration::ZERO, now);
        assert_eq!(candidates.next_deadline(), None);
        assert!(
            !candidates.add(addr(1), Source::User, now),
            "it stays known as bad"
        );
    }

    #[test]
    fn number_of_candidates_is_bounded() {
        let mut candidates = Candidates::new(Rng::new(1));
        for n in 0..3000_u16 {
            candidates.add(([10, 0, 0, 1], n).into(), Source::Tracker, Instant::ZERO);
        }
        assert_eq!(candidates.len(), CANDIDATES_MAX);
    }
}
