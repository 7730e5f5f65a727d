//! Peer exchange (BEP 11): what each peer is told of the others, and what we believe of it.
//!
//! The [`Roster`] of a torrent numbers what happens: a peer joins, a peer leaves. Every address
//! stands in it once, with the last that happened to it. A [`PexOut`] only remembers up to which
//! number its peer has been told, so a peer that nothing has happened to costs nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::base::address::{Interfaces, Scope, may_be_told, scope};
use crate::base::limits::{PEX_FIRST_MAX, PEX_TOLD_MAX};
use crate::base::rng::Rng;
use crate::base::seldom::{Blank, Seldom};
use crate::base::time::Instant;
use crate::wire::pex::{Flags, Pex};

use super::Privacy;

/// The peers of one torrent that we are connected to, as all of them may hear of.
#[derive(Debug)]
pub struct Roster {
    privacy: Privacy,
    last: Seldom<Last>,
    count: u64,
}

/// The last event of each address.
#[derive(Debug, Default)]
struct Last {
    /// By number, from 1.
    events: BTreeMap<u64, Event>,
    numbers: BTreeMap<SocketAddr, u64>,
    /// Numbers of those that have left.
    gone: BTreeSet<u64>,
}

impl Blank for Last {
    const BLANK: &'static Self = &Self {
        events: BTreeMap::new(),
        numbers: BTreeMap::new(),
        gone: BTreeSet::new(),
    };

    fn is_blank(&self) -> bool {
        self.events.is_empty()
    }
}

#[derive(Clone, Copy, Debug)]
struct Event {
    listens: SocketAddr,
    flags: Flags,
    at: Instant,
    /// Number of the event by which it joined, the earliest that somebody may have been told.
    joined: u64,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Connected,
    Gone(Departure),
}

/// Why a peer is no longer connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Departure {
    /// It may be listed as recently seen.
    Usual,
    /// It is not to be recommended.
    Banned,
}

impl Roster {
    /// Nobody is connected. Nobody is told of the peers of a private torrent (BEP 27).
    pub fn new(privacy: Privacy) -> Self {
        Self {
            privacy,
            last: Seldom::default(),
            count: 0,
        }
    }

    /// A peer that is connected accepts others at `listens`: dialled there, or by its own word. If
    /// it is here already, only its flags are noted.
    pub fn joined(&mut self, listens: SocketAddr, flags: Flags, now: Instant) {
        let known = self.last.numbers.get(&listens).copied();
        if let Some(event) = known.and_then(|number| self.last.events.get_mut(&number))
            && event.state == State::Connected
        {
            event.flags = flags;
            return;
        }
        let joined = known.map(|number| self.last.events[&number].joined);
        let event = Event {
            listens,
            flags,
            at: now,
            joined: joined.unwrap_or(self.count + 1),
            state: State::Connected,
        };
        self.happened(event);
    }

    /// No connection with this peer is left.
    pub fn left(&mut self, listens: SocketAddr, departure: Departure, now: Instant) {
        let known = self.last.numbers.get(&listens);
        let Some(&event) = known.and_then(|number| self.last.events.get(number)) else {
            return;
        };
        if event.state == State::Connected {
            self.happened(Event {
                at: now,
                state: State::Gone(departure),
                ..event
            });
        }
    }

    /// Peers that are connected.
    pub fn len(&self) -> usize {
        self.last.numbers.len() - self.last.gone.len()
    }

    /// Whether nobody is connected.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn happened(&mut self, event: Event) {
        self.count += 1;
        if let Some(last) = self.last.numbers.insert(event.listens, self.count) {
            self.last.events.remove(&last);
            self.last.gone.remove(&last);
        }
        self.last.events.insert(self.count, event);
        if event.state != State::Connected {
            self.last.gone.insert(self.count);
        }
        if self.last.gone.len() > GONE_MAX
            && let Some(oldest) = self.last.gone.pop_first()
            && let Some(event) = self.last.events.remove(&oldest)
        {
            self.last.numbers.remove(&event.listens);
        }
    }

    /// What happened after the event with this number.
    fn after(&self, number: u64) -> impl Iterator<Item = (u64, &Event)> {
        let events = self.last.events.range(number + 1..);
        events.map(|(&number, event)| (number, event))
    }

    /// Those that left lately and may be listed, the latest first.
    fn recent(&self, now: Instant) -> impl Iterator<Item = &Event> {
        let gone = self
            .last
            .gone
            .iter()
            .rev()
            .map(|number| &self.last.events[number]);
        gone.take_while(move |event| now < event.at + RECENT)
            .filter(|event| event.state == State::Gone(Departure::Usual))
    }
}

/// What one peer was told.
#[derive(Debug)]
pub struct PexOut {
    /// It was told of everything up to the event with this number.
    told: u64,
    /// The last event before the first message: who was gone by then was never told of.
    before_first: u64,
    is_first: bool,
    due: Instant,
}

impl PexOut {
    /// The peer has said that it wants `ut_pex`; it is told in some seconds.
    pub fn new(rng: &mut Rng, now: Instant) -> Self {
        let spread = (FIRST_PAUSE_MAX - FIRST_PAUSE_MIN).as_micros() as u32;
        let pause = FIRST_PAUSE_MIN + Duration::from_micros(rng.below(spread).into());
        Self {
            told: 0,
            before_first: 0,
            is_first: true,
            due: now + pause,
        }
    }

    /// When [`PexOut::next`] may have something, if nothing else happens; in the past if now.
    ///
    /// Cheap: to be asked of every connection each second.
    pub fn next_deadline(&self, roster: &Roster) -> Option<Instant> {
        if roster.privacy == Privacy::Private || self.told >= roster.count {
            return None;
        }
        let (_, next) = roster.after(self.told).next()?;
        Some(self.due.max(next.at + GATHER))
    }

    /// What the peer at `remote`, which accepts others at `listens`, shall be told now.
    ///
    /// It is not told of itself, nor of addresses that it cannot use. A message is due a minute
    /// after the last; what does not fit waits for the next.
    pub fn next(
        &mut self,
        roster: &Roster,
        remote: IpAddr,
        listens: Option<SocketAddr>,
        now: Instant,
    ) -> Option<Pex> {
        if self.next_deadline(roster).is_none_or(|at| at > now) {
            return None;
        }
        let is_for_it =
            |event: &Event| Some(event.listens) != listens && may_be_told(event.listens, remote);
        let mut pex = self.news(roster, is_for_it);
        if self.is_first {
            let room = RECENT_MAX.saturating_sub(pex.added.len());
            let recent = roster
                .recent(now)
                .filter(|event| is_for_it(event))
                .take(room);
            pex.added
                .extend(recent.map(|event| (event.listens, event.flags)));
        }
        if pex.is_empty() {
            return None;
        }
        self.is_first = false;
        self.due = now + INTERVAL;
        Some(pex)
    }

    /// As much of what it was not told as fits a message.
    fn news(&mut self, roster: &Roster, is_for_it: impl Fn(&Event) -> bool) -> Pex {
        let count_max = match self.is_first {
            true => PEX_FIRST_MAX,
            false => PEX_TOLD_MAX,
        };
        if self.is_first {
            self.before_first = roster.count;
        }
        let mut pex = Pex::default();
        let before = self.told;
        for (number, event) in roster.after(before) {
            let is_connected = event.state == State::Connected;
            // Not exact while older news wait: a needless `dropped` does no harm.
            let was_told = number > self.before_first && event.joined <= before;
            if is_for_it(event) && (is_connected || was_told) {
                let count = match is_connected {
                    true => pex.added.len(),
                    false => pex.dropped.len(),
                };
                if count == count_max {
                    return pex;
                }
                match is_connected {
                    true => pex.added.push((event.listens, event.flags)),
                    false => pex.dropped.push(event.listens),
                }
            }
            self.told = number;
        }
        pex
    }
}

/// How often one peer told us, and when.
#[derive(Debug, Default)]
pub struct PexIn {
    /// The last messages, the oldest first.
    times: VecDeque<Instant>,
    /// The last message that was not ignored.
    used: Option<Instant>,
}

/// Why a connection is closed for its PEX messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PexFault {
    /// The seventh message within a minute (libtorrent closes there too).
    #[error("more than {TIMES_MAX} PEX messages in {} s", TIMES_SPAN.as_secs())]
    TooMany,
}

/// Who we are, to know what is told of ourselves and of our links.
#[derive(Clone, Copy, Debug)]
pub struct Ourselves<'a> {
    /// The interfaces of this machine.
    pub interfaces: &'a Interfaces,
    /// The port on which we accept peers.
    pub port: u16,
}

impl PexIn {
    /// The peer at `sender` told of others; gives those that may be dialled. Nobody is given that
    /// only a peer in another place could know, nor a port of a system's service.
    ///
    /// # Errors
    /// If the peer tells too often: the connection shall be closed.
    pub fn received(
        &mut self,
        pex: &Pex,
        sender: IpAddr,
        ourselves: Ourselves<'_>,
        now: Instant,
    ) -> Result<Vec<(SocketAddr, Flags)>, PexFault> {
        if self.times.len() == TIMES_MAX {
            let first = self.times.pop_front();
            if first.is_some_and(|first| now - first < TIMES_SPAN) {
                return Err(PexFault::TooMany);
            }
        }
        self.times.push_back(now);
        if self.used.is_some_and(|last| now - last < PAUSE_MIN) {
            return Ok(Vec::new());
        }
        self.used = Some(now);
        let contradicted: BTreeSet<_> = pex.dropped.iter().collect();
        let mut seen = BTreeSet::new();
        let believed = |&&(addr, _): &&(SocketAddr, Flags)| {
            !contradicted.contains(&addr)
                && is_credible(addr, sender, ourselves)
                && seen.insert(addr)
        };
        Ok(pex.added.iter().filter(believed).copied().collect())
    }
}

/// Whether `sender` may know `addr`, and it is worth dialling.
fn is_credible(addr: SocketAddr, sender: IpAddr, ourselves: Ourselves<'_>) -> bool {
    let ip = addr.ip();
    let interfaces = ourselves.interfaces;
    let is_our_address = interfaces.iter().any(|own| own.ip == ip);
    let is_ours = is_our_address && addr.port() == ourselves.port;
    let is_of_its_site = scope(ip) == Scope::Global
        || scope(sender) != Scope::Global
        || interfaces.is_on_link(sender);
    ip == ip.to_canonical()
        && addr.port() >= PORT_MIN
        && may_be_told(addr, sender)
        && is_of_its_site
        && !is_ours
}

/// The first message to a peer comes so long after the handshake: on a LAN, soon.
const FIRST_PAUSE_MIN: Duration = Duration::from_secs(5);
const FIRST_PAUSE_MAX: Duration = Duration::from_secs(10);
/// Pause between two messages to a peer (BEP 11: one a minute).
const INTERVAL: Duration = Duration::from_secs(60);
/// What happens is told after so long, together with what happens meanwhile.
const GATHER: Duration = Duration::from_secs(5);
/// Peers that left are told of as recently seen if fewer than so many are connected (BEP 11).
const RECENT_MAX: usize = 25;
/// Time for which a peer that left is recent.
const RECENT: Duration = Duration::from_secs(600);
/// Peers that left and are remembered at most, so that others hear of it.
const GONE_MAX: usize = 500;
/// Messages of a peer in a span of time, at most.
const TIMES_MAX: usize = 6;
const TIMES_SPAN: Duration = Duration::from_secs(60);
/// A message that comes sooner after another is ignored.
const PAUSE_MIN: Duration = Duration::from_secs(15);
/// Lowest port that is taken from a peer's word.
const PORT_MIN: u16 = 1024;

const _: () = assert!(RECENT_MAX <= PEX_TOLD_MAX);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::address::Interface;

    const ASKER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 200));

    fn secs(secs: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(secs)
    }

    fn addr(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    fn peer(n: u16) -> SocketAddr {
        let [high, low] = n.to_be_bytes();
        ([10, 1, high, low], 6881).into()
    }

    fn roster(count: u16) -> Roster {
        let mut roster = Roster::new(Privacy::Public);
        for n in 0..count {
            roster.joined(peer(n), Flags(0), secs(0));
        }
        roster
    }

    fn out() -> PexOut {
        PexOut::new(&mut Rng::new(1), secs(0))
    }

    fn next(out: &mut PexOut, roster: &Roster, at: u64) -> Option<(Vec<u16>, Vec<u16>)> {
        let number = |addr: SocketAddr| match addr.ip() {
            IpAddr::V4(ip) => u16::from_be_bytes([ip.octets()[2], ip.octets()[3]]),
            IpAddr::V6(_) => panic!("none is there"),
        };
        let pex = out.next(roster, ASKER, None, secs(at))?;
        let added = pex.added.iter().map(|&(addr, _)| number(addr)).collect();
        Some((added, pex.dropped.into_iter().map(number).collect()))
    }

    #[test]
    fn first_message_comes_after_some_seconds_and_others_a_minute_apart() {
        let mut roster = roster(3);
        let mut out = out();
        let first = out.next_deadline(&roster).expect("there is news");
        assert!(first >= secs(5) && first < secs(10), "{first}");
        assert_eq!(next(&mut out, &roster, 4), None);
        assert_eq!(next(&mut out, &roster, 10), Some((vec![0, 1, 2], vec![])));
        assert_eq!(out.next_deadline(&roster), None, "no news");
        roster.left(peer(1), Departure::Usual, secs(20));
        roster.joined(peer(3), Flags(0), secs(20));
        assert_eq!(out.next_deadline(&roster), Some(secs(70)));
        assert_eq!(next(&mut out, &roster, 69), None);
        assert_eq!(next(&mut out, &roster, 70), Some((vec![3], vec![1])));
        // After a calm time news are gathered for some seconds.
        roster.joined(peer(4), Flags(0), secs(200));
        roster.joined(peer(5), Flags(0), secs(203));
        assert_eq!(out.next_deadline(&roster), Some(secs(205)));
        assert_eq!(next(&mut out, &roster, 205), Some((vec![4, 5], vec![])));
    }

    #[test]
    fn messages_are_limited_and_nobody_is_left_out() {
        let mut roster = roster(230);
        let mut out = out();
        let told = |out: &mut PexOut, roster: &Roster, at| {
            let (added, dropped) = next(out, roster, at).unwrap_or_default();
            (added.len(), dropped.len())
        };
        assert_eq!(told(&mut out, &roster, 10), (100, 0));
        assert_eq!(told(&mut out, &roster, 70), (50, 0));
        for n in 0..230 {
            roster.left(peer(n), Departure::Usual, secs(80));
        }
        for (at, count) in [
            (130, 50),
            (190, 50),
            (250, 50),
            (310, 50),
            (370, 30),
            (430, 0),
        ] {
            assert_eq!(told(&mut out, &roster, at), (0, count), "at {at} s");
        }
    }

    #[test]
    fn nobody_is_told_of_itself_or_of_what_it_cannot_use() {
        let mut roster = Roster::new(Privacy::Public);
        let all = [
            "10.0.0.5:6881",
            "127.0.0.1:6881",
            "[fe80::5%2]:6881",
            "[fd00::5]:6881",
        ];
        for text in all {
            roster.joined(addr(text), Flags::SEED, secs(0));
        }
        #[rustfmt::skip]
        let cases = [
            // remote         listens                   told
            ("10.0.0.200",    None,                     vec![0, 3]),
            ("10.0.0.5",      Some("10.0.0.5:6881"),    vec![3]),
            ("10.0.0.5",      Some("10.0.0.5:7000"),    vec![0, 3]),
            ("127.0.0.1",     None,                     vec![0, 1, 3]),
        ];
        for (remote, listens, told) in cases {
            let remote = remote.parse().expect("an address");
            let pex = out().next(&roster, remote, listens.map(addr), secs(10));
            let expected = Pex {
                added: told.iter().map(|&i| (addr(all[i]), Flags::SEED)).collect(),
                dropped: vec![],
            };
            assert_eq!(pex, Some(expected), "{remote} {listens:?}");
        }
    }

    #[test]
    fn who_comes_and_goes_unheard_is_not_told_of_and_who_was_told_is_dropped() {
        #[rustfmt::skip]
        let cases = [
            // before the first message, after it; + joins, - leaves      second message
            ("",      "+",       Some((vec![9], vec![]))),
            ("",      "+-",      None),
            ("",      "+-+",     Some((vec![9], vec![]))),
            ("+",     "",        None),
            ("+",     "-",       Some((vec![], vec![9]))),
            ("+",     "-+",      Some((vec![9], vec![]))),
            ("+",     "-+-",     Some((vec![], vec![9]))),
        ];
        for (before, after, second) in cases {
            let mut roster = roster(1);
            let mut out = out();
            for (events, at) in [(before, 0), (after, 20)] {
                for event in events.chars() {
                    match event {
                        '+' => roster.joined(peer(9), Flags(0), secs(at)),
                        _ => roster.left(peer(9), Departure::Usual, secs(at)),
                    }
                }
                if at == 0 {
                    next(&mut out, &roster, 10).expect("one at least is told");
                }
            }
            assert_eq!(next(&mut out, &roster, 100), second, "{before:?} {after:?}");
        }
    }

    #[test]
    fn recently_seen_are_listed_at_the_start_when_few_are_connected() {
        let mut roster = roster(40);
        for n in 0..39 {
            let departure = match n {
                38 => Departure::Banned,
                _ => Departure::Usual,
            };
            roster.left(peer(n), departure, secs(100 * u64::from(n)));
        }
        let mut late = PexOut::new(&mut Rng::new(1), secs(3900));
        let (added, dropped) = next(&mut late, &roster, 3910).expect("it is told of some");
        assert_eq!((added, dropped), (vec![39, 37, 36, 35, 34], vec![]));
        for n in 100..300 {
            roster.joined(peer(n), Flags(0), secs(4000));
            roster.left(peer(n), Departure::Usual, secs(4000));
        }
        let mut late = PexOut::new(&mut Rng::new(1), secs(4000));
        let (added, _) = next(&mut late, &roster, 4010).expect("it is told of some");
        assert_eq!(added.len(), RECENT_MAX);
        assert_eq!(added[..2], [39, 299]);
    }

    #[test]
    fn peers_of_a_private_torrent_are_told_to_nobody() {
        let mut roster = Roster::new(Privacy::Private);
        roster.joined(peer(1), Flags(0), secs(0));
        let mut out = out();
        assert_eq!(out.next_deadline(&roster), None);
        assert_eq!(next(&mut out, &roster, 100), None);
    }

    #[test]
    fn who_was_gone_before_the_first_message_is_never_dropped() {
        let mut roster = roster(300);
        for n in 0..300 {
            if n % 2 == 0 {
                roster.left(peer(n), Departure::Banned, secs(1));
            }
        }
        let mut out = out();
        for (at, count) in [(10, 100), (70, 50), (130, 0)] {
            let (added, dropped) = next(&mut out, &roster, at).unwrap_or_default();
            assert_eq!((added.len(), dropped.len()), (count, 0), "at {at} s");
        }
    }

    #[test]
    fn memory_of_those_that_left_is_bounded() {
        let mut roster = roster(1);
        for n in 1..2000 {
            roster.joined(peer(n), Flags(0), secs(1));
            roster.left(peer(n), Departure::Usual, secs(1));
        }
        assert_eq!(roster.len(), 1);
        let sizes = [
            roster.last.events.len(),
            roster.last.numbers.len(),
            roster.last.gone.len(),
        ];
        assert_eq!(sizes, [GONE_MAX + 1, GONE_MAX + 1, GONE_MAX]);
    }

    /// Goal: after everything has been told, each peer believes exactly what is.
    /// Method: peers come and go at random; a receiver keeps what it is told.
    #[test]
    fn peers_end_up_believing_what_is() {
        for rng_seed in 0..50 {
            let mut rng = Rng::new(rng_seed);
            let mut roster = Roster::new(Privacy::Public);
            let mut here: BTreeSet<SocketAddr> = BTreeSet::new();
            let mut receivers: Vec<(PexOut, BTreeSet<SocketAddr>)> = Vec::new();
            for second in 0..1200 {
                let remote = peer(rng.below(120) as u16);
                if second < 600 && here.remove(&remote) {
                    roster.left(remote, Departure::Banned, secs(second));
                } else if second < 600 {
                    here.insert(remote);
                    roster.joined(remote, Flags(0), secs(second));
                }
                if second % 100 == 0 {
                    receivers.push((PexOut::new(&mut rng, secs(second)), BTreeSet::new()));
                }
                for (out, believed) in &mut receivers {
                    let Some(pex) = out.next(&roster, ASKER, None, secs(second)) else {
                        continue;
                    };
                    for (addr, _) in &pex.added {
                        assert!(!pex.dropped.contains(addr), "{addr} in both");
                        believed.insert(*addr);
                    }
                    for addr in &pex.dropped {
                        believed.remove(addr);
                    }
                }
            }
            for (out, believed) in &receivers {
                assert_eq!(believed, &here, "rng_seed {rng_seed}");
                assert_eq!(out.next_deadline(&roster), None);
            }
        }
    }

    fn at_home() -> Interfaces {
        let interface = |ip: &str, prefix_len| Interface {
            index: 2,
            ip: ip.parse().expect("an address"),
            prefix_len,
        };
        Interfaces::new(vec![
            interface("10.0.0.1", 24),
            interface("2001:db8::1", 64),
        ])
    }

    #[test]
    fn what_a_sender_cannot_know_or_nobody_wants_is_dropped() {
        let interfaces = at_home();
        #[rustfmt::skip]
        let cases = [
            // sender           told of                        believed
            ("10.0.0.9",        "10.0.0.8:6881",               true),
            ("10.0.0.9",        "192.168.7.8:6881",            true),
            ("10.0.0.9",        "198.51.100.1:6881",           true),
            ("10.0.0.9",        "[2001:db8::8]:6881",          true),
            ("10.0.0.9",        "0.0.0.0:6881",                false),
            ("10.0.0.9",        "0.1.2.3:6881",                false),
            ("10.0.0.9",        "127.0.0.1:6881",              false),
            ("10.0.0.9",        "169.254.1.1:6881",            false),
            ("10.0.0.9",        "224.0.0.1:6881",              false),
            ("10.0.0.9",        "255.255.255.255:6881",        false),
            ("10.0.0.9",        "[::1]:6881",                  false),
            ("10.0.0.9",        "[ff02::1]:6881",              false),
            ("10.0.0.9",        "[fe80::8]:6881",              false),
            ("10.0.0.9",        "[::ffff:10.0.0.8]:6881",      false),
            ("10.0.0.9",        "10.0.0.8:0",                  false),
            ("10.0.0.9",        "10.0.0.8:53",                 false),
            ("10.0.0.9",        "10.0.0.8:1023",               false),
            ("10.0.0.9",        "10.0.0.8:1024",               true),
            ("10.0.0.9",        "10.0.0.1:6881",               false), // ourselves
            ("10.0.0.9",        "10.0.0.1:6882",               true),
            ("127.0.0.1",       "127.0.0.1:7000",              true),
            ("127.0.0.1",       "10.0.0.8:6881",               true),
            ("169.254.1.2",     "169.254.1.1:6881",            true),
            ("fe80::9",         "[fe80::8]:6881",              false),
            ("198.51.100.7",    "198.51.100.1:6881",           true),
            ("198.51.100.7",    "10.0.0.8:6881",               false),
            ("198.51.100.7",    "[fd00::8]:6881",              false),
            ("198.51.100.7",    "127.0.0.1:6881",              false),
            // A global address, but on our link.
            ("2001:db8::9",     "10.0.0.8:6881",               true),
        ];
        for (sender, told, believed) in cases {
            let pex = Pex {
                added: vec![(addr(told), Flags::SEED)],
                ..Pex::default()
            };
            let ourselves = Ourselves {
                interfaces: &interfaces,
                port: 6881,
            };
            let sender_ip = sender.parse().expect("an address");
            let given = PexIn::default().received(&pex, sender_ip, ourselves, secs(1));
            let expected = if believed { pex.added } else { vec![] };
            assert_eq!(given, Ok(expected), "{told} from {sender}");
        }
    }

    #[test]
    fn contradictions_and_repetitions_are_dropped() {
        let pex = Pex {
            added: [1, 2, 2, 3].map(|n| (peer(n), Flags(0))).to_vec(),
            dropped: vec![peer(1), peer(7)],
        };
        let interfaces = at_home();
        let ourselves = Ourselves {
            interfaces: &interfaces,
            port: 6881,
        };
        let given = PexIn::default().received(&pex, ASKER, ourselves, secs(1));
        assert_eq!(given, Ok([2, 3].map(|n| (peer(n), Flags(0))).to_vec()));
    }

    #[test]
    fn peer_that_tells_too_often_is_ignored_and_then_closed() {
        #[rustfmt::skip]
        let cases = [
            // seconds at which messages come              used, ignored, fault
            (vec![0, 60, 120, 180, 240, 300, 360, 420],    "uuuuuuuu"),
            (vec![0, 14, 15, 29, 30],                      "uiuiu"),
            (vec![0, 1, 2, 3, 4, 5, 6],                    "uiiiiif"),
            (vec![0, 1, 2, 3, 4, 5, 59],                   "uiiiiif"),
            (vec![0, 1, 2, 3, 4, 5, 60],                   "uiiiiiu"),
            (vec![0, 12, 24, 36, 48, 60, 72],              "uiuiuiu"),
        ];
        let pex = Pex {
            added: vec![(peer(1), Flags(0))],
            ..Pex::default()
        };
        let interfaces = at_home();
        let ourselves = Ourselves {
            interfaces: &interfaces,
            port: 6881,
        };
        for (times, expected) in cases {
            let mut told = PexIn::default();
            let became = |at: &u64| match told.received(&pex, ASKER, ourselves, secs(*at)) {
                Ok(given) if given.is_empty() => 'i',
                Ok(_) => 'u',
                Err(PexFault::TooMany) => 'f',
            };
            let became: String = times.iter().map(became).collect();
            assert_eq!(became, expected, "{times:?}");
        }
    }
}
