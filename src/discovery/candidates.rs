//! Addresses of one torrent that may be dialled, with their past.
//!
//! ```text
//!                 take_due          ended                 eight failures
//! Waiting ─▶ Due ──────────▶ Busy ─────────▶ Waiting ... ────────────────▶ forgotten
//!    ▲        │ gate               └────────▶ Never
//!    └────────┘
//! ```

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use crate::base::address::{Interfaces, Scope, scope};
use crate::base::limits::CANDIDATES_MAX;
use crate::base::rng::Rng;
use crate::base::seldom::{Blank, Seldom};
use crate::base::time::Instant;

use super::Privacy;
use super::gate::Gate;

mod terms;

pub use terms::{End, Reach, Source, Tally};

/// The known addresses of a torrent. Bounded: beyond 2000 a better newcomer takes the place of
/// the worst, and others are ignored.
#[derive(Debug)]
pub struct Candidates {
    privacy: Privacy,
    /// `None` until they are told; nothing is off-link until then.
    interfaces: Option<Interfaces>,
    all: Seldom<All>,
    /// When those that are due were listed last.
    ripened: Instant,
    rng: Rng,
}

/// The addresses, in every place where they stand.
#[derive(Debug, Default)]
struct All {
    known: BTreeMap<SocketAddr, Candidate>,
    /// Those that wait, by the moment at which they are due.
    waiting: BTreeSet<(Instant, SocketAddr)>,
    /// Those that are due, the preferred first.
    due: BTreeSet<(Preference, SocketAddr)>,
    /// Those that may give way to others, the worst first.
    expendable: BTreeSet<(Worth, SocketAddr)>,
    /// Addresses known by the hearsay of one sender; none is 0.
    told_by: BTreeMap<IpAddr, usize>,
    /// Ports known of one host; none is 0.
    ports: BTreeMap<IpAddr, usize>,
}

impl Blank for All {
    const BLANK: &'static Self = &Self {
        known: BTreeMap::new(),
        waiting: BTreeSet::new(),
        due: BTreeSet::new(),
        expendable: BTreeSet::new(),
        told_by: BTreeMap::new(),
        ports: BTreeMap::new(),
    };

    fn is_blank(&self) -> bool {
        self.known.is_empty()
    }
}

#[derive(Clone, Copy, Debug)]
struct Candidate {
    source: Source,
    is_on_link: bool,
    failures: u32,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// May be dialled from this moment on.
    Waiting(Instant),
    /// May be dialled; the number is drawn, and decides among equals.
    Due(u32),
    /// A connection is being opened or is open.
    Busy,
    /// Is not dialled again.
    Never,
}

/// How much the word of a source counts, from little to much.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Trust {
    Hearsay,
    Tracker,
    FirstHand,
    User,
}

/// Who is dialled first: trusted, on our links, seldom failed, lucky.
type Preference = (Reverse<Trust>, Reverse<bool>, u32, u32);

/// No address comes before this one.
const LEAST: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));
/// Who stays when not all can: trusted, on our links, seldom failed.
type Worth = (Trust, bool, Reverse<u32>);

impl Candidates {
    /// An empty set; `rng` chooses among addresses that are due.
    pub fn new(privacy: Privacy, rng: Rng) -> Self {
        Self {
            privacy,
            interfaces: None,
            all: Seldom::default(),
            ripened: Instant::ZERO,
            rng,
        }
    }

    /// The interfaces of this machine, at the start and after each change.
    pub fn interfaces_found(&mut self, interfaces: &Interfaces) {
        self.interfaces = Some(interfaces.clone());
        let all: Vec<SocketAddr> = self.all.known.keys().copied().collect();
        for remote in all {
            let mut candidate = self.take_out(remote).expect("listed above");
            candidate.is_on_link = interfaces.is_on_link(remote.ip());
            if candidate.state == State::Busy || !candidate.is_privileged(remote) {
                self.put_in(remote, candidate);
            }
        }
    }

    /// Takes up an address; says whether it is new.
    ///
    /// One that is known already may be due earlier afterwards: who speaks himself is alive, and
    /// past failures count no more.
    pub fn add(&mut self, remote: SocketAddr, source: Source, now: Instant) -> bool {
        let remote = canonical(remote);
        if let Some(mut known) = self.take_out(remote) {
            known.heard_again(source, now);
            self.put_in(remote, known);
            return false;
        }
        let interfaces = self.interfaces.as_ref();
        let newcomer = Candidate {
            source,
            is_on_link: interfaces.is_none_or(|all| all.is_on_link(remote.ip())),
            failures: 0,
            state: State::Waiting(now),
        };
        let is_welcome = self.is_acceptable(remote, &newcomer) && self.has_room_for(&newcomer);
        if is_welcome {
            self.put_in(remote, newcomer);
        }
        is_welcome
    }

    /// Takes an address that is due, within `reach`, and that `gate` lets pass; the caller dials
    /// it.
    ///
    /// Those that the user named pass any gate, and are within any reach.
    pub fn take_due(&mut self, reach: Reach, gate: &mut Gate, now: Instant) -> Option<SocketAddr> {
        self.ripen(now);
        while let Some(remote) = self.first_due(reach) {
            let mut candidate = self.take_out(remote).expect("what is due is known");
            let passed = match candidate.source {
                Source::User => Ok(()),
                _ => gate.dial(remote, now),
            };
            candidate.state = match passed {
                Ok(()) => State::Busy,
                Err(at) => State::Waiting(at.max(now + JITTER) + self.jitter()),
            };
            self.put_in(remote, candidate);
            if passed.is_ok() {
                return Some(remote);
            }
        }
        None
    }

    /// When the next address within `reach` is due, in the past if one is. An address that waits
    /// counts wherever it is, but where nobody is within reach.
    pub fn next_deadline(&self, reach: Reach) -> Option<Instant> {
        match self.first_due(reach) {
            Some(_) => Some(self.ripened),
            None if reach == Reach::Nowhere => None,
            None => self.all.waiting.first().map(|&(at, _)| at),
        }
    }

    /// Who is dialled next of those that are due.
    fn first_due(&self, reach: Reach) -> Option<SocketAddr> {
        let &((Reverse(trust), ..), first) = self.all.due.first()?;
        let is_on_link = match reach {
            _ if trust == Trust::User => return Some(first),
            Reach::Everywhere => return Some(first),
            Reach::Nowhere => return None,
            Reach::OnLink => true,
            Reach::OffLink => false,
        };
        let first_of = |trust| {
            let begin = (Reverse(trust), Reverse(is_on_link), 0, 0);
            let mut due = self.all.due.range((begin, LEAST)..);
            let fits = |entry: &&(Preference, SocketAddr)| {
                (entry.0.0, entry.0.1) == (Reverse(trust), Reverse(is_on_link))
            };
            due.next().filter(fits).map(|&(_, remote)| remote)
        };
        first_of(Trust::FirstHand).or_else(|| first_of(Trust::Tracker))
    }

    /// A connection with this address exists already: it is not dialled beside that.
    pub fn connected(&mut self, remote: SocketAddr) {
        let remote = canonical(remote);
        if let Some(mut candidate) = self.take_out(remote) {
            if candidate.state != State::Never {
                candidate.state = State::Busy;
            }
            self.put_in(remote, candidate);
        }
    }

    /// A connection that lasted for `age` ended.
    pub fn ended(&mut self, remote: SocketAddr, end: End, age: Duration, now: Instant) {
        let remote = canonical(remote);
        let Some(mut candidate) = self.take_out(remote) else {
            return;
        };
        if candidate.state != State::Never {
            if age >= STEADY {
                candidate.failures = 0;
            }
            candidate.state = match end {
                End::Never => State::Never,
                End::Redundant => State::Waiting(now + REDUNDANT_PAUSE),
                End::Unreachable | End::Lost => {
                    candidate.failures += 1;
                    State::Waiting(now + candidate.pause() + self.jitter())
                }
            };
        }
        let is_given_up = candidate.failures >= FAILURES_MAX && candidate.source != Source::User;
        match is_given_up {
            true => self.all.tidy(),
            false => self.put_in(remote, candidate),
        }
    }

    /// How an address was learned; `None` if it is not known.
    pub fn source(&self, remote: SocketAddr) -> Option<Source> {
        let candidate = self.all.known.get(&canonical(remote))?;
        Some(candidate.source)
    }

    /// Lets whoever may be dialled at all be dialled now: the torrent goes on after a pause.
    pub fn wake(&mut self, now: Instant) {
        if self.all.waiting.is_empty() {
            return;
        }
        for (_, remote) in std::mem::take(&mut self.all.waiting) {
            let mut candidate = self.take_out(remote).expect("who waits is known");
            candidate.state = State::Waiting(now);
            self.put_in(remote, candidate);
        }
    }

    /// Counts the addresses.
    pub fn tally(&self, now: Instant) -> Tally {
        let is_never = |candidate: &&Candidate| candidate.state == State::Never;
        Tally {
            known: self.all.known.len(),
            failed: self.all.waiting.iter().filter(|(at, _)| *at > now).count(),
            never: self.all.known.values().filter(is_never).count(),
        }
    }

    /// Number of known addresses.
    pub fn len(&self) -> usize {
        self.all.known.len()
    }

    /// Whether no address is known.
    pub fn is_empty(&self) -> bool {
        self.all.known.is_empty()
    }

    /// Moves those that have waited long enough to those that are due.
    pub fn ripen(&mut self, now: Instant) {
        self.ripened = now;
        while let Some(&(at, remote)) = self.all.waiting.first()
            && at <= now
        {
            let mut candidate = self.take_out(remote).expect("who waits is known");
            candidate.state = State::Due(self.rng.next_u64() as u32);
            self.put_in(remote, candidate);
        }
    }

    /// Whether `newcomer` may be known at all.
    fn is_acceptable(&self, remote: SocketAddr, newcomer: &Candidate) -> bool {
        let ip = remote.ip();
        if remote.port() == 0 || ip.is_unspecified() || newcomer.is_privileged(remote) {
            return false;
        }
        let count = |counts: &BTreeMap<_, _>, of| counts.get(&of).copied().unwrap_or(0);
        match newcomer.source {
            Source::User => true,
            Source::Tracker | Source::Incoming | Source::Session => scope(ip) != Scope::Nowhere,
            Source::Lsd => self.privacy == Privacy::Public && scope(ip) != Scope::Nowhere,
            Source::Pex { sender } | Source::Evpeer { sender } => {
                let ports_max = match scope(ip) {
                    Scope::Loopback => LOOPBACK_PORTS_MAX,
                    _ => PORTS_MAX,
                };
                self.privacy == Privacy::Public
                    && scope(ip) != Scope::Nowhere
                    && count(&self.all.told_by, sender.to_canonical()) < HEARSAY_MAX
                    && count(&self.all.ports, ip) < ports_max
            }
        }
    }

    /// Whether there is room for `newcomer`; makes some if it is better than the worst.
    fn has_room_for(&mut self, newcomer: &Candidate) -> bool {
        if self.all.known.len() < CANDIDATES_MAX {
            return true;
        }
        match self.all.expendable.first() {
            Some(&(worth, worst)) if worth < newcomer.worth() => {
                self.take_out(worst);
                true
            }
            _ => false,
        }
    }

    fn jitter(&mut self) -> Duration {
        Duration::from_micros(u64::from(self.rng.below(JITTER.as_micros() as u32)))
    }

    /// Removes an address from every place where it stands.
    fn take_out(&mut self, remote: SocketAddr) -> Option<Candidate> {
        self.all.known.get(&remote)?;
        let candidate = self.all.known.remove(&remote)?;
        match candidate.state {
            State::Waiting(at) => _ = self.all.waiting.remove(&(at, remote)),
            State::Due(lot) => _ = self.all.due.remove(&(candidate.preference(lot), remote)),
            State::Busy | State::Never => {}
        }
        if candidate.is_expendable() {
            self.all.expendable.remove(&(candidate.worth(), remote));
        }
        if let Some(sender) = candidate.source.sender() {
            one_less(&mut self.all.told_by, sender);
        }
        one_less(&mut self.all.ports, remote.ip());
        Some(candidate)
    }

    /// The opposite of [`Candidates::take_out`].
    fn put_in(&mut self, remote: SocketAddr, candidate: Candidate) {
        match candidate.state {
            State::Waiting(at) => _ = self.all.waiting.insert((at, remote)),
            State::Due(lot) => _ = self.all.due.insert((candidate.preference(lot), remote)),
            State::Busy | State::Never => {}
        }
        if candidate.is_expendable() {
            self.all.expendable.insert((candidate.worth(), remote));
        }
        if let Some(sender) = candidate.source.sender() {
            *self.all.told_by.entry(sender).or_insert(0) += 1;
        }
        *self.all.ports.entry(remote.ip()).or_insert(0) += 1;
        self.all.known.insert(remote, candidate);
        assert!(
            self.all.known.len() <= CANDIDATES_MAX,
            "room was made before"
        );
    }
}

impl Candidate {
    fn heard_again(&mut self, source: Source, now: Instant) {
        if source.trust() > self.source.trust() {
            self.source = source;
        }
        let speaks_himself = source.trust() == Trust::FirstHand;
        if speaks_himself && self.failures > 0 {
            self.failures = 0;
            if let State::Waiting(at) = self.state {
                self.state = State::Waiting(at.min(now));
            }
        }
    }

    fn preference(&self, lot: u32) -> Preference {
        // Whether a tracker or a peer told of an address makes no difference for dialling.
        let trust = self.source.trust().max(Trust::Tracker);
        (Reverse(trust), Reverse(self.is_on_link), self.failures, lot)
    }

    fn worth(&self) -> Worth {
        // A bad address is worth knowing, however often it failed before.
        let failures = match self.state {
            State::Never => 0,
            _ => self.failures,
        };
        (self.source.trust(), self.is_on_link, Reverse(failures))
    }

    fn is_expendable(&self) -> bool {
        self.state != State::Busy && self.source != Source::User
    }

    /// Whether it is a port of a service that somebody might be made to attack.
    fn is_privileged(&self, remote: SocketAddr) -> bool {
        !self.is_on_link && remote.port() < PORT_MIN && self.source != Source::User
    }

    fn pause(&self) -> Duration {
        let (first, last) = match self.source {
            Source::User => USER_PAUSES,
            _ => PAUSES,
        };
        let doubled = first * (1 << (self.failures - 1).min(16));
        doubled.min(last)
    }
}

impl Source {
    fn trust(self) -> Trust {
        match self {
            Self::User => Trust::User,
            Self::Tracker | Self::Session => Trust::Tracker,
            Self::Incoming | Self::Lsd => Trust::FirstHand,
            Self::Pex { .. } | Self::Evpeer { .. } => Trust::Hearsay,
        }
    }

    /// Whose hearsay it is.
    fn sender(self) -> Option<IpAddr> {
        match self {
            Self::Pex { sender } | Self::Evpeer { sender } => Some(sender.to_canonical()),
            Self::User | Self::Tracker | Self::Incoming | Self::Lsd | Self::Session => None,
        }
    }
}

/// The one form of an address: IPv4 in IPv6 is IPv4, the scope of IPv6 stays.
fn canonical(remote: SocketAddr) -> SocketAddr {
    match remote.ip().to_canonical() {
        IpAddr::V4(ip) => (ip, remote.port()).into(),
        IpAddr::V6(_) => remote,
    }
}

fn one_less(counts: &mut BTreeMap<IpAddr, usize>, of: IpAddr) {
    let count = counts.get_mut(&of).expect("it was counted");
    *count -= 1;
    if *count == 0 {
        counts.remove(&of);
    }
}

/// Addresses known by the hearsay of one sender at most: 30 of 100.
const HEARSAY_MAX: usize = CANDIDATES_MAX * 30 / 100;
/// Ports of one host that are taken from hearsay, and on this very machine.
const PORTS_MAX: usize = 64;
const LOOPBACK_PORTS_MAX: usize = 1024;
/// Lowest port that is dialled off our links unless the user named it.
const PORT_MIN: u16 = 1024;
/// First and longest pause between attempts to an address that the user named.
const USER_PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// The same for other addresses.
const PAUSES: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(600));
/// What is added to a pause at most.
const JITTER: Duration = Duration::from_millis(250);
/// Failures in a row after which an address is forgotten.
const FAILURES_MAX: u32 = 8;
/// A connection that lasted this long makes up for failures before it.
const STEADY: Duration = Duration::from_secs(30);
/// Pause after a connection in which both sides had everything.
const REDUNDANT_PAUSE: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests;
