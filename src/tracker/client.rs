//! When to announce one torrent, to which of its trackers, and with what event (BEP 3, BEP 12).
//!
//! No I/O: [`Client::poll`] says what shall be asked, [`Client::answered`] and [`Client::failed`]
//! take what came of it. One announce is under way at a time.
//!
//! ```text
//!          due                    answered: again after the interval
//! Waiting ─────▶ poll: Asking ──────────────────────────────────────▶ Waiting
//!    ▲                │  failed: the next tracker at once,               │
//!    └────────────────┘  this one after a growing pause                  │ stopped
//!                                                                        ▼
//!                                     every tracker that knows us is told once
//! ```
//!
//! Trackers are asked in the order of their tiers: the first one that is not pausing. Inside a
//! tier the order is random at first, and a tracker that works moves to the front.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use crate::base::limits::{TRACKER_TEXT_LEN_MAX, TRACKER_TIMEOUT, TRACKERS_MAX};
use crate::base::rng::Rng;
use crate::base::text::printable;
use crate::base::time::Instant;
use crate::wire::announce::{AnnounceError, AnnounceReply, Event, Retry};
use crate::wire::url::{TrackerUrl, TrackerUrlError};

/// The announces of one torrent.
#[derive(Debug)]
pub struct Client {
    rng: Rng,
    tiers: Vec<Vec<Tracker>>,
    rejected: VecDeque<Rejected>,
    /// When the swarm's regular announce is due.
    due: Instant,
    /// When the download ended, until a tracker has heard of it.
    completed: Option<Instant>,
    asking: Option<Asking>,
    phase: Phase,
}

/// What shall be asked. The caller adds who we are and how much was transferred.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnnounceWanted {
    /// Whom.
    pub url: TrackerUrl,
    /// What happened, if anything did.
    pub event: Option<Event>,
    /// Peers to be told.
    pub numwant: u32,
    /// What this tracker called us before.
    pub tracker_id: Option<Vec<u8>>,
}

/// What came of an announce, for the user; the peers are for the exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The tracker answered.
    Answered {
        /// Its address, safe to show.
        url: String,
        /// Its answer.
        reply: AnnounceReply,
    },
    /// It did not, or refused.
    Failed {
        /// Its address, safe to show.
        url: String,
        /// What went wrong, and when it is asked again; safe to print.
        message: String,
    },
}

/// Why an announce brought nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnnounceFailure {
    /// The tracker refused, or its answer is none.
    #[error(transparent)]
    Answer(#[from] AnnounceError),
    /// A status other than success, or a redirect that leads nowhere.
    #[error("the tracker answers with HTTP status {0}")]
    Status(u16),
    /// No answer: name, connection or stream failed. The text is safe to print.
    #[error("{0}")]
    Unreachable(String),
}

/// An address of the torrent that cannot be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// What of the address can be shown: scheme and host.
    pub url: String,
    /// Why.
    pub error: TrackerUrlError,
}

#[derive(Debug)]
struct Tracker {
    url: TrackerUrl,
    /// Announces in a row that brought nothing.
    failures: u32,
    /// It is not asked before; [`Instant::NEVER`] once it is given up.
    rests_until: Instant,
    /// Whether it lists us, as far as we know.
    membership: Membership,
    tracker_id: Option<Vec<u8>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Membership {
    None,
    /// It was told that we started; its answer did not come, or not yet.
    Perhaps,
    Listed,
}

/// The announce that is under way.
#[derive(Clone, Copy, Debug)]
struct Asking {
    tier: usize,
    place: usize,
    event: Option<Event>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    Stopping { since: Instant },
}

impl Client {
    /// A client that announces at once. `tiers` as in BEP 12; further addresses than
    /// [`TRACKERS_MAX`], and repeated ones, are dropped.
    pub fn new(tiers: Vec<Vec<String>>, mut rng: Rng, now: Instant) -> Self {
        let mut rejected = VecDeque::new();
        let mut seen: Vec<TrackerUrl> = Vec::new();
        let mut left = TRACKERS_MAX;
        let mut kept = Vec::new();
        for tier in tiers {
            let mut trackers = Vec::new();
            for url in tier.into_iter().take(left) {
                left -= 1;
                match TrackerUrl::parse(&url) {
                    Ok(url) if seen.contains(&url) => {}
                    Ok(url) => {
                        seen.push(url.clone());
                        trackers.push(Tracker::new(url, now));
                    }
                    Err(error) => rejected.push_back(Rejected::new(&url, error)),
                }
            }
            rng.shuffle(&mut trackers);
            kept.push(trackers);
        }
        kept.retain(|tier| !tier.is_empty());
        Self {
            rng,
            tiers: kept,
            rejected,
            due: now,
            completed: None,
            asking: None,
            phase: Phase::Running,
        }
    }

    /// Takes an address that cannot be asked, to be shown once.
    pub fn poll_rejected(&mut self) -> Option<Rejected> {
        self.rejected.pop_front()
    }

    /// When [`Self::poll`] has something; `None` while an announce is under way, or if nothing
    /// will be asked any more.
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.asking.is_some() {
            return None;
        }
        match self.phase {
            Phase::Running => {
                let earliest = self.trackers().map(|t| self.ready_at(t)).min();
                earliest.filter(|&at| at < Instant::NEVER)
            }
            Phase::Stopping { since } => self.next_farewell().map(|_| since),
        }
    }

    /// What shall be asked now. It is under way until the caller says what came of it.
    pub fn poll(&mut self, now: Instant) -> Option<AnnounceWanted> {
        if self.next_deadline()? > now {
            return None;
        }
        let (tier, place) = match self.phase {
            Phase::Running => self.find(|tracker| self.ready_at(tracker) <= now)?,
            Phase::Stopping { .. } => self.next_farewell()?,
        };
        let tracker = &mut self.tiers[tier][place];
        let event = match (self.phase, tracker.membership) {
            (Phase::Stopping { .. }, _) => Some(Event::Stopped),
            (Phase::Running, Membership::Listed) => self.completed.map(|_| Event::Completed),
            (Phase::Running, Membership::None | Membership::Perhaps) => Some(Event::Started),
        };
        tracker.membership = match event {
            Some(Event::Stopped) => Membership::None,
            Some(Event::Started) => Membership::Perhaps,
            Some(Event::Completed) | None => Membership::Listed,
        };
        self.asking = Some(Asking { tier, place, event });
        Some(AnnounceWanted {
            url: tracker.url.clone(),
            event,
            numwant: if event == Some(Event::Stopped) {
                0
            } else {
                NUMWANT
            },
            tracker_id: tracker.tracker_id.clone(),
        })
    }

    /// The tracker answered; `from` is the address that it was asked at.
    ///
    /// # Panics
    /// If no announce is under way.
    pub fn answered(&mut self, reply: AnnounceReply, from: IpAddr, now: Instant) -> Outcome {
        let asking = self
            .asking
            .take()
            .expect("an answer belongs to an announce");
        let tracker = &mut self.tiers[asking.tier][asking.place];
        tracker.failures = 0;
        if reply.tracker_id.is_some() {
            tracker.tracker_id.clone_from(&reply.tracker_id);
        }
        let url = tracker.url.to_string();
        if self.phase == Phase::Running {
            tracker.membership = Membership::Listed;
            let shortest = if is_local(from) {
                INTERVAL_MIN_LOCAL
            } else {
                INTERVAL_MIN
            };
            let clamp = |interval: Duration| interval.clamp(shortest, INTERVAL_MAX);
            let rest = clamp(reply.min_interval.unwrap_or(shortest));
            tracker.rests_until = now + rest;
            self.due = now + clamp(reply.interval.unwrap_or(INTERVAL_DEFAULT)).max(rest);
            self.completed = match asking.event {
                Some(Event::Completed) => None,
                _ => self.completed,
            };
            self.tiers[asking.tier][..=asking.place].rotate_right(1);
        }
        Outcome::Answered { url, reply }
    }

    /// The announce brought nothing.
    ///
    /// # Panics
    /// If no announce is under way.
    pub fn failed(&mut self, failure: &AnnounceFailure, now: Instant) -> Outcome {
        let asking = self
            .asking
            .take()
            .expect("a failure belongs to an announce");
        let tracker = &mut self.tiers[asking.tier][asking.place];
        tracker.failures = tracker.failures.saturating_add(1);
        tracker.rests_until = match failure.pause(tracker.failures) {
            Some(pause) => now + pause + jitter(pause, &mut self.rng),
            None => Instant::NEVER,
        };
        let url = tracker.url.to_string();
        let then = match tracker.rests_until {
            _ if self.phase != Phase::Running => String::new(),
            Instant::NEVER => "; it is not asked again".to_owned(),
            at => format!("; next try in {} s", (at - now).as_secs()),
        };
        // The announce is still due, at whichever tracker is ready first.
        self.due = now;
        Outcome::Failed {
            url,
            message: format!("{failure}{then}"),
        }
    }

    /// The download has ended: the tracker hears of it at once, one tracker, one time.
    ///
    /// Not to be called for a torrent that was complete from the start.
    pub fn completed(&mut self, now: Instant) {
        self.completed = Some(now);
    }

    /// The torrent stops: from now on [`Self::poll`] gives a farewell for each tracker that
    /// may list us and answered last time. The announce that was under way is forgotten.
    pub fn stopped(&mut self, now: Instant) {
        self.asking = None;
        self.phase = Phase::Stopping { since: now };
    }

    /// The torrent goes on after [`Self::stopped`]: every tracker is told of it as of a start, and
    /// the first one at once.
    pub fn resumed(&mut self, now: Instant) {
        self.asking = None;
        self.phase = Phase::Running;
        self.due = now;
        for tracker in self.tiers.iter_mut().flatten() {
            tracker.membership = Membership::None;
            if tracker.failures == 0 {
                tracker.rests_until = now;
            }
        }
    }

    /// A farewell is on its way: its answer is of no interest, and the next one may go beside it.
    pub fn farewell_sent(&mut self) {
        assert_ne!(self.phase, Phase::Running, "farewells are said at the end");
        self.asking = None;
    }

    /// Whether an announce is under way, of which [`Self::answered`] or [`Self::failed`] shall
    /// hear.
    pub fn is_asking(&self) -> bool {
        self.asking.is_some()
    }

    /// Whether [`Self::stopped`] has been called and every farewell was said.
    pub fn is_finished(&self) -> bool {
        self.phase != Phase::Running && self.asking.is_none() && self.next_farewell().is_none()
    }

    /// When `tracker` can be asked next, and there is something to say.
    fn ready_at(&self, tracker: &Tracker) -> Instant {
        let regular = self.due.max(tracker.rests_until);
        match self.completed {
            Some(at) if tracker.membership == Membership::Listed && tracker.failures == 0 => {
                regular.min(at)
            }
            _ => regular,
        }
    }

    fn next_farewell(&self) -> Option<(usize, usize)> {
        self.find(|t| t.membership != Membership::None && t.failures == 0)
    }

    fn find(&self, is_fit: impl Fn(&Tracker) -> bool) -> Option<(usize, usize)> {
        self.tiers.iter().enumerate().find_map(|(tier, trackers)| {
            let place = trackers.iter().position(&is_fit)?;
            Some((tier, place))
        })
    }

    fn trackers(&self) -> impl Iterator<Item = &Tracker> {
        self.tiers.iter().flatten()
    }
}

impl Tracker {
    fn new(url: TrackerUrl, now: Instant) -> Self {
        Self {
            url,
            failures: 0,
            rests_until: now,
            membership: Membership::None,
            tracker_id: None,
        }
    }
}

impl Rejected {
    fn new(url: &str, error: TrackerUrlError) -> Self {
        let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
        let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
        let host = authority.rsplit('@').next().unwrap_or(authority);
        let shown = match scheme {
            "" => host.to_owned(),
            _ => format!("{scheme}://{host}"),
        };
        let url = printable(shown.as_bytes(), TRACKER_TEXT_LEN_MAX);
        Self { url, error }
    }
}

impl AnnounceFailure {
    /// How long a tracker rests after so many failures in a row; `None`: for good.
    fn pause(&self, failures: u32) -> Option<Duration> {
        let doubled = PAUSE_MIN * 2u32.saturating_pow(failures.saturating_sub(1).min(16));
        let pause = doubled.min(PAUSE_MAX);
        match self {
            Self::Answer(AnnounceError::Refused { retry, .. }) => match retry {
                Some(Retry::Never) => None,
                Some(Retry::After(pause)) => Some((*pause).clamp(PAUSE_MIN, INTERVAL_MAX)),
                None => Some(pause),
            },
            Self::Status(410) => None,
            Self::Status(401 | 403) => Some(PAUSE_MAX),
            Self::Status(429 | 503) => Some(pause.max(PAUSE_BUSY)),
            Self::Answer(_) | Self::Status(_) | Self::Unreachable(_) => Some(pause),
        }
    }
}

/// Up to a quarter of `pause`, or of [`PAUSE_MAX`], so that clients do not come back in step.
fn jitter(pause: Duration, rng: &mut Rng) -> Duration {
    let quarter = pause.min(PAUSE_MAX).as_millis() as u32 / 4;
    Duration::from_millis(u64::from(rng.below(quarter)))
}

/// Whether an address belongs to this host or this site: a tracker there may be asked often.
///
/// Loopback, private (RFC 1918, RFC 6598, RFC 4193) and link-local addresses.
fn is_local(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let is_shared = ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64;
            ip.is_loopback() || ip.is_private() || ip.is_link_local() || is_shared
        }
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

/// Peers asked for in one announce.
const NUMWANT: u32 = 50;
/// Time between announces if a tracker does not say.
const INTERVAL_DEFAULT: Duration = Duration::from_secs(30 * 60);
/// A tracker may not ask for shorter intervals than this,
const INTERVAL_MIN: Duration = Duration::from_secs(60);
/// or this, if it is near,
const INTERVAL_MIN_LOCAL: Duration = Duration::from_secs(5);
/// nor for longer ones than this.
const INTERVAL_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a tracker rests after its first failure; each further one doubles that (BEP 15).
const PAUSE_MIN: Duration = Duration::from_secs(15);
/// How long it rests at most.
const PAUSE_MAX: Duration = Duration::from_secs(30 * 60);
/// How long it rests at least if it is overloaded.
const PAUSE_BUSY: Duration = Duration::from_secs(120);

const _: () = assert!(PAUSE_MAX.as_secs() <= INTERVAL_MAX.as_secs());
const _: () = assert!(TRACKER_TIMEOUT.as_secs() < PAUSE_MAX.as_secs());

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    const START: Instant = Instant::from_micros(5_000_000);
    const FAR: IpAddr = IpAddr::V4(Ipv4Addr::new(93, 184, 215, 14));

    /// One string a tier, names separated by spaces.
    fn client(tiers: &[&str], rng_seed: u64) -> Client {
        let urls = |tier: &&str| {
            tier.split(' ')
                .map(|n| format!("http://{n}/announce"))
                .collect()
        };
        Client::new(tiers.iter().map(urls).collect(), Rng::new(rng_seed), START)
    }

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn reply(interval: u64) -> AnnounceReply {
        AnnounceReply {
            interval: Some(secs(interval)),
            ..AnnounceReply::default()
        }
    }

    fn refused(retry: Option<Retry>) -> AnnounceFailure {
        AnnounceFailure::Answer(AnnounceError::Refused {
            reason: "no".to_owned(),
            retry,
        })
    }

    fn dead() -> AnnounceFailure {
        AnnounceFailure::Unreachable("connection refused".to_owned())
    }

    /// What is asked when it is due: name, event, and the time.
    fn ask(client: &mut Client) -> Option<(String, Option<Event>, Instant)> {
        let now = client.next_deadline()?;
        let just_before = Instant::from_micros(now.as_micros() - 1);
        assert_eq!(client.poll(just_before), None, "not before its time");
        let wanted = client.poll(now).expect("what the deadline promised");
        assert_eq!(client.next_deadline(), None, "one at a time");
        assert_eq!(
            client.poll(Instant::from_micros(u64::MAX - 1)),
            None,
            "one at a time"
        );
        Some((wanted.url.host().to_owned(), wanted.event, now))
    }

    fn ask_name(client: &mut Client) -> String {
        ask(client).expect("somebody to ask").0
    }

    #[test]
    fn first_announce_is_at_once_and_names_the_event() {
        let mut client = client(&["a"], 1);
        let wanted = client.poll(START).expect("the first announce");
        assert_eq!((wanted.event, wanted.numwant), (Some(Event::Started), 50));
        client.answered(reply(1800), FAR, START);
        assert_eq!(
            ask(&mut client),
            Some(("a".to_owned(), None, START + secs(1800)))
        );
    }

    /// Row 80 of the hostile inputs.
    #[test]
    fn intervals_are_clamped() {
        let huge = 1 << 63;
        let day = 24 * 3600;
        let near = IpAddr::from([192, 168, 1, 1]);
        #[rustfmt::skip]
        let cases = [
            // what it shows         interval    min         from  next
            ("as told",              Some(1800), None,       FAR,  1800),
            ("not told",             None,       None,       FAR,  1800),
            ("zero",                 Some(0),    None,       FAR,  60),
            ("zero, near",           Some(0),    None,       near, 5),
            ("seven, near",          Some(7),    None,       near, 7),
            ("huge",                 Some(huge), None,       FAR,  day),
            ("huge, near",           Some(huge), None,       near, day),
            ("minimum below it",     Some(1800), Some(300),  FAR,  1800),
            ("minimum above it",     Some(120),  Some(900),  FAR,  900),
            ("minimum is huge",      Some(120),  Some(huge), FAR,  day),
            ("minimum alone, short", Some(0),    Some(0),    FAR,  60),
        ];
        for (name, interval, min_interval, from, next) in cases {
            let mut client = client(&["a"], 1);
            client.poll(START).expect("the first announce");
            let reply = AnnounceReply {
                interval: interval.map(secs),
                min_interval: min_interval.map(secs),
                ..AnnounceReply::default()
            };
            client.answered(reply, from, START);
            assert_eq!(client.next_deadline(), Some(START + secs(next)), "{name}");
        }
    }

    #[test]
    fn addresses_of_this_site_are_near() {
        #[rustfmt::skip]
        let cases = [
            ("127.0.0.1", true),        ("::1", true),          ("10.1.2.3", true),
            ("172.16.0.1", true),       ("172.32.0.1", false),  ("192.168.7.7", true),
            ("169.254.1.1", true),      ("100.64.0.1", true),   ("100.128.0.1", false),
            ("fd00::1", true),          ("fe80::1", true),      ("2001:db8::1", false),
            ("::ffff:10.0.0.1", true),  ("8.8.8.8", false),     ("0.0.0.0", false),
        ];
        for (ip, expected) in cases {
            assert_eq!(is_local(ip.parse().expect(ip)), expected, "{ip}");
        }
        assert!(!is_local(IpAddr::V6(Ipv6Addr::UNSPECIFIED)));
    }

    #[test]
    fn pauses_double_up_to_half_an_hour() {
        let mut client = client(&["a"], 7);
        for shortest in [15, 30, 60, 120, 240, 480, 960, 1800, 1800, 1800] {
            let (_, event, now) = ask(&mut client).expect("tried for ever");
            assert_eq!(event, Some(Event::Started), "it never answered");
            client.failed(&dead(), now);
            let pause = client.next_deadline().expect("a next try") - now;
            assert!(
                pause >= secs(shortest) && pause < secs(shortest) * 5 / 4,
                "{pause:?}"
            );
        }
        let (_, _, now) = ask(&mut client).expect("tried for ever");
        client.answered(reply(600), FAR, now);
        let (_, event, now) = ask(&mut client).expect("regular");
        assert_eq!(event, None);
        client.failed(&dead(), now);
        let pause = client.next_deadline().expect("a next try") - now;
        assert!(
            pause < secs(20),
            "an answer forgives earlier failures: {pause:?}"
        );
    }

    /// Row 86 of the hostile inputs; BEP 31.
    #[test]
    fn refusals_decide_how_long_a_tracker_rests() {
        let after = |minutes: u64| refused(Some(Retry::After(secs(minutes * 60))));
        #[rustfmt::skip]
        let cases = [
            // what it shows         failure                          rest, seconds
            ("no reason to wait",    refused(None),                   Some(15)),
            ("retry in 5 minutes",   after(5),                        Some(300)),
            ("retry in 0 minutes",   after(0),                        Some(15)),
            ("retry in ages",        after(1 << 50),                  Some(24 * 3600)),
            ("retry never",          refused(Some(Retry::Never)),     None),
            ("gone",                 AnnounceFailure::Status(410),    None),
            ("forbidden",            AnnounceFailure::Status(403),    Some(1800)),
            ("too many requests",    AnnounceFailure::Status(429),    Some(120)),
            ("overloaded",           AnnounceFailure::Status(503),    Some(120)),
            ("server error",         AnnounceFailure::Status(500),    Some(15)),
            ("a web page",           AnnounceError::NotADictionary.into(), Some(15)),
        ];
        for (name, failure, rest) in cases {
            let mut client = client(&["a"], 1);
            client.poll(START).expect("the first announce");
            let Outcome::Failed { message, .. } = client.failed(&failure, START) else {
                panic!("{name}: a failure is reported");
            };
            let rested = client.next_deadline().map(|at| (at - START).as_secs());
            match (rest, rested) {
                (None, None) => assert!(message.ends_with("not asked again"), "{message}"),
                (Some(rest), Some(rested)) => {
                    assert!(
                        rested >= rest && rested < rest + rest.min(1800) / 4 + 1,
                        "{name}"
                    );
                    assert!(
                        message.ends_with(&format!("next try in {rested} s")),
                        "{message}"
                    );
                }
                _ => panic!("{name}: {rested:?}"),
            }
        }
    }

    #[test]
    fn next_tracker_is_asked_at_once_when_one_fails() {
        let mut client = client(&["a", "b", "c"], 1);
        let mut now = START;
        for name in ["a", "b"] {
            assert_eq!(
                ask(&mut client),
                Some((name.to_owned(), Some(Event::Started), now))
            );
            now += secs(1);
            client.failed(&dead(), now);
        }
        assert_eq!(
            ask(&mut client),
            Some(("c".to_owned(), Some(Event::Started), now))
        );
        client.answered(reply(600), FAR, now);
        assert_eq!(
            ask_name(&mut client),
            "a",
            "tiers come in order at every announce"
        );
        client.failed(&dead(), now + secs(600));
        assert_eq!(ask_name(&mut client), "b");
    }

    #[test]
    fn working_tracker_moves_to_the_front_of_its_tier() {
        let mut client = client(&["a b c", "d"], 3);
        let first = ask_name(&mut client);
        client.failed(&dead(), START);
        let second = ask_name(&mut client);
        client.answered(reply(60), FAR, START);
        for _ in 0..5 {
            let (name, _, now) = ask(&mut client).expect("regular");
            assert_eq!(name, second);
            client.answered(reply(60), FAR, now);
        }
        let (_, _, now) = ask(&mut client).expect("regular");
        client.failed(&dead(), now);
        assert_eq!(
            ask_name(&mut client),
            first,
            "then those that were in front of it"
        );
    }

    #[test]
    fn order_inside_a_tier_is_random() {
        let names = (0..60).map(|rng_seed| ask_name(&mut client(&["a b c", "d"], rng_seed)));
        let mut firsts: Vec<String> = names.collect();
        firsts.sort_unstable();
        firsts.dedup();
        assert_eq!(firsts, ["a", "b", "c"]);
    }

    #[test]
    fn completed_is_told_at_once_and_once() {
        let mut client = client(&["a"], 1);
        ask(&mut client);
        client.answered(reply(1800), FAR, START);
        let end = START + secs(77);
        client.completed(end);
        assert_eq!(
            ask(&mut client),
            Some(("a".to_owned(), Some(Event::Completed), end))
        );
        client.failed(&dead(), end);
        let (_, event, now) = ask(&mut client).expect("tried again");
        assert_eq!(event, Some(Event::Completed), "nobody heard it");
        client.answered(reply(1800), FAR, now);
        assert_eq!(
            ask(&mut client),
            Some(("a".to_owned(), None, now + secs(1800)))
        );
    }

    #[test]
    fn tracker_hears_of_the_start_before_the_end() {
        let mut client = client(&["a", "b"], 1);
        ask(&mut client);
        client.answered(reply(1800), FAR, START);
        let end = START + secs(10);
        client.completed(end);
        assert_eq!(ask_name(&mut client), "a");
        client.failed(&dead(), end);
        let (name, event, _) = ask(&mut client).expect("the other one");
        assert_eq!((&*name, event), ("b", Some(Event::Started)));
        client.answered(reply(1800), FAR, end);
        let (name, event, _) = ask(&mut client).expect("the news");
        assert_eq!((&*name, event), ("b", Some(Event::Completed)));
        client.answered(reply(1800), FAR, end);
        assert_eq!(ask(&mut client).map(|(_, event, _)| event), Some(None));
    }

    #[test]
    fn stop_is_told_to_those_who_know_us_and_answer() {
        let mut client = client(&["a", "b", "c", "d"], 1);
        ask(&mut client); // a answers, then fails
        client.answered(reply(60), FAR, START);
        let now = START + secs(60);
        assert_eq!(ask_name(&mut client), "a");
        client.failed(&dead(), now);
        assert_eq!(ask_name(&mut client), "b"); // b answers
        client.answered(reply(60), FAR, now);
        let now = now + secs(60);
        assert_eq!(ask_name(&mut client), "a");
        client.failed(&dead(), now);
        assert_eq!(ask_name(&mut client), "b");
        client.failed(&refused(None), now);
        assert_eq!(ask_name(&mut client), "c"); // c answers
        client.answered(reply(60), FAR, now);
        let now = now + secs(60);
        assert_eq!(ask_name(&mut client), "a");
        client.failed(&dead(), now);
        assert_eq!(ask_name(&mut client), "b"); // b answers again
        client.answered(reply(60), FAR, now);
        assert_eq!(ask_name(&mut client), "b"); // and is being asked
        client.stopped(now);

        let mut told = Vec::new();
        while let Some(wanted) = client.poll(now) {
            assert_eq!((wanted.event, wanted.numwant), (Some(Event::Stopped), 0));
            assert!(!client.is_finished());
            told.push(wanted.url.host().to_owned());
            if told.len() == 1 {
                client.failed(&dead(), now);
            } else {
                client.answered(reply(0), FAR, now);
            }
        }
        assert_eq!(told, ["b", "c"], "each once, whatever it answers");
        assert!(client.is_finished());
        assert_eq!(client.next_deadline(), None);
    }

    #[test]
    fn tracker_that_may_have_heard_of_us_is_told_that_we_leave() {
        let mut client = client(&["a"], 1);
        ask(&mut client);
        client.stopped(START);
        let (name, event, _) = ask(&mut client).expect("a farewell");
        assert_eq!((&*name, event), ("a", Some(Event::Stopped)));
        assert!(client.is_asking() && !client.is_finished());
        client.farewell_sent();
        assert!(!client.is_asking() && client.is_finished());
        let mut unheard = self::client(&["a"], 1);
        unheard.stopped(START);
        assert!(unheard.is_finished());
    }

    #[test]
    fn tracker_id_goes_back_to_its_tracker_only() {
        let mut client = client(&["a", "b"], 1);
        ask(&mut client);
        let named = AnnounceReply {
            tracker_id: Some(b"id of a".to_vec()),
            ..reply(60)
        };
        client.answered(named, FAR, START);
        let now = START + secs(60);
        let wanted = client.poll(now).expect("regular");
        assert_eq!(wanted.tracker_id.as_deref(), Some(&b"id of a"[..]));
        client.failed(&dead(), now);
        assert_eq!(client.poll(now).expect("the other one").tracker_id, None);
        client.failed(&dead(), now);
        let (_, _, later) = ask(&mut client).expect("a again");
        client.answered(reply(60), FAR, later);
        let kept = client.poll(later + secs(60)).expect("regular");
        assert_eq!(
            kept.tracker_id.as_deref(),
            Some(&b"id of a"[..]),
            "kept until replaced"
        );
    }

    #[test]
    fn addresses_that_cannot_be_asked_are_reported_without_secrets() {
        let tier = [
            "udp://u:secret@t.example:80/announce?passkey=secret",
            "https://t.example/secret/announce",
            "http://t.example/announce",
            "http://t.example/announce",
            "\u{1b}[2J",
        ];
        let tiers = vec![tier.map(str::to_owned).to_vec(), Vec::new()];
        let mut client = Client::new(tiers, Rng::new(1), START);
        let rejected: Vec<Rejected> = std::iter::from_fn(|| client.poll_rejected()).collect();
        let shown: Vec<&str> = rejected.iter().map(|r| &*r.url).collect();
        assert_eq!(
            shown,
            ["udp://t.example:80", "https://t.example", "\\u{1b}[2J"]
        );
        assert_eq!(client.trackers().count(), 1);
        assert_eq!(ask_name(&mut client), "t.example");
        let mut none = Client::new(Vec::new(), Rng::new(1), START);
        assert_eq!((none.next_deadline(), none.poll(START)), (None, None));
    }

    #[test]
    fn number_of_trackers_is_limited() {
        let tiers = (0..1000).map(|n| vec![format!("http://t{n}/"), "nonsense".to_owned()]);
        let mut client = Client::new(tiers.collect(), Rng::new(1), START);
        let rejected = std::iter::from_fn(|| client.poll_rejected()).count();
        assert_eq!(client.trackers().count() + rejected, TRACKERS_MAX);
    }

    /// Goal: whatever trackers answer, none is asked more often than the limits allow, and the
    /// client always comes to an end when it is stopped.
    /// Method: a day of random answers; every announce is checked against the last ones.
    #[test]
    fn no_answer_makes_the_client_ask_too_often() {
        for rng_seed in 0..60 {
            let mut rng = Rng::new(rng_seed);
            let mut client = client(&["a b", "c", "d e"], rng_seed);
            let mut last: Vec<(String, Instant)> = Vec::new();
            let mut asked = 0;
            while let Some((name, event, now)) = ask(&mut client)
                && now < START + INTERVAL_MAX
            {
                asked += 1;
                if let Some(place) = last.iter().position(|(other, _)| *other == name) {
                    let (_, before) = last.swap_remove(place);
                    let is_news = event == Some(Event::Completed);
                    assert!(is_news || now - before >= PAUSE_MIN, "{name} {event:?}");
                }
                last.push((name, now));
                answer_by_chance(&mut client, &mut rng, now);
                if rng.below(50) == 0 {
                    client.completed(now);
                }
            }
            assert!(
                asked < 5 * 24 * 60,
                "{asked} announces, rng_seed {rng_seed}"
            );
            client.stopped(START);
            let farewells = std::iter::from_fn(|| {
                let wanted = client.poll(START)?;
                client.failed(&dead(), START);
                Some(wanted)
            });
            assert!(farewells.count() <= 5);
            assert!(client.is_finished());
        }
    }

    fn answer_by_chance(client: &mut Client, rng: &mut Rng, now: Instant) {
        let length = Duration::from_secs(rng.next_u64() >> rng.below(64));
        match rng.below(8) {
            0 => client.failed(&refused(Some(Retry::After(length))), now),
            1 => client.failed(&AnnounceFailure::Status(rng.below(400) as u16 + 411), now),
            2..=4 => client.failed(&dead(), now),
            choice => {
                let reply = AnnounceReply {
                    interval: (choice != 5).then_some(length),
                    min_interval: (choice == 7).then_some(length / 2),
                    ..AnnounceReply::default()
                };
                client.answered(reply, FAR, now)
            }
        };
    }
}
