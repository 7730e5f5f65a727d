//! When to announce one torrent, to which of its trackers, and with what event (BEP 3, BEP 12).
//!
//! No I/O: [`Client::poll`] says what shall be asked, [`Client::answered`] and [`Client::failed`]
//! take what came of it.
//!
//! ```text
//!          due                    answered: again after the interval
//! Waiting ─────▶ poll: Asking ──────────────────────────────────────▶ Waiting
//!    ▲                │  failed: the next tracker of the tier at once, │
//!    └────────────────┘  this one after a growing pause                │ stopped
//!                                                                      ▼
//!                                     every tracker that knows us is told once
//! ```
//!
//! Each tier goes through this on its own, so that a dead tracker in one delays no other. While
//! all of them are silent, known evpeers are asked instead.

use std::net::SocketAddr;
use std::time::Duration;

use crate::base::limits::{
    ANNOUNCE_TIMEOUT, TORRENT_ANNOUNCES_MAX, TRACKER_TEXT_LEN_MAX, TRACKERS_MAX,
};
use crate::base::rng::Rng;
use crate::base::seldom::{Blank, Seldom};
use crate::base::text::printable;
use crate::base::time::Instant;
use crate::wire::announce::{AnnounceError, AnnounceReply, Event, Retry};
use crate::wire::url::{TrackerUrl, TrackerUrlError};

use resort::LastResort;
use tier::{INTERVAL_MAX, Tier};

mod resort;
#[cfg(test)]
mod tests;
mod tier;

/// The announces of one torrent.
#[derive(Debug)]
pub struct Client {
    rng: Rng,
    tiers: Vec<Tier>,
    last_resort: Seldom<LastResort>,
    /// Those that were not told of, the next one last.
    rejected: Vec<Rejected>,
    phase: Phase,
    announces_made: u64,
}

/// Names one announce of a torrent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AnnounceId(pub u64);

/// What shall be asked. The caller adds who we are and how much was transferred.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnnounceWanted {
    /// Goes back with the answer.
    pub id: AnnounceId,
    /// Whom.
    pub url: TrackerUrl,
    /// What happened, if anything did.
    pub event: Option<Event>,
    /// Peers to be told.
    pub numwant: u32,
    /// What this tracker called us before.
    pub tracker_id: Option<Vec<u8>>,
}

/// How far a tracker is: a near one may be asked every few seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nearness {
    /// On a link of this machine, in this site, or an evpeer.
    Near,
    /// Anywhere else.
    Far,
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    Stopping { since: Instant },
}

impl Client {
    /// A client that announces at once. `tiers` as in BEP 12; further addresses than
    /// [`TRACKERS_MAX`], and repeated ones, are dropped.
    pub fn new(tiers: Vec<Vec<String>>, mut rng: Rng, now: Instant) -> Self {
        let mut rejected = Vec::new();
        let mut seen: Vec<TrackerUrl> = Vec::new();
        let mut left = TRACKERS_MAX;
        let mut kept = Vec::new();
        for tier in tiers {
            let mut urls = Vec::new();
            for url in tier.into_iter().take(left) {
                left -= 1;
                match TrackerUrl::parse(&url) {
                    Ok(url) if seen.contains(&url) => {}
                    Ok(url) => {
                        seen.push(url.clone());
                        urls.push(url);
                    }
                    Err(error) => rejected.push(Rejected::new(&url, error)),
                }
            }
            rng.shuffle(&mut urls);
            kept.push(Tier::new(urls, now));
        }
        kept.retain(|tier| tier.len() > 0);
        rejected.reverse();
        Self {
            rng,
            tiers: kept,
            last_resort: Seldom::default(),
            rejected,
            phase: Phase::Running,
            announces_made: 0,
        }
    }

    /// Evpeers to be asked while the torrent's own trackers are silent, in place of those given
    /// before. Not for private torrents (BEP 27).
    pub fn set_last_resort(&mut self, known: Vec<SocketAddr>) {
        if !known.is_empty() || !self.last_resort.is_blank() {
            self.last_resort.set_known(known, &mut self.rng);
        }
    }

    /// Takes an address that cannot be asked, to be shown once.
    pub fn poll_rejected(&mut self) -> Option<Rejected> {
        self.rejected.pop()
    }

    /// When [`Self::poll`] or [`Self::poll_overdue`] has something; `None` if neither will.
    pub fn next_deadline(&self) -> Option<Instant> {
        let next = match self.phase {
            Phase::Running => {
                let oldest = self.all_tiers().filter_map(Tier::oldest_asking);
                let overdue = oldest.map(|(_, since)| since + ANNOUNCE_TIMEOUT).min();
                self.announce_at().min(overdue.unwrap_or(Instant::NEVER))
            }
            Phase::Stopping { since } if self.all_tiers().any(Tier::has_farewell) => since,
            Phase::Stopping { .. } => Instant::NEVER,
        };
        (next < Instant::NEVER).then_some(next)
    }

    /// What shall be asked now: to be called until there is no more. It is under way until the
    /// caller says what came of it. The answer to a farewell is of no interest.
    pub fn poll(&mut self, now: Instant) -> Option<AnnounceWanted> {
        let id = AnnounceId(self.announces_made);
        let wanted = match self.phase {
            Phase::Running if self.announce_at() <= now => {
                let mut own = self.tiers.iter_mut();
                let wanted = own.find_map(|tier| tier.poll(id, now));
                wanted.or_else(|| self.poll_last_resort(id, now))?
            }
            Phase::Running => return None,
            Phase::Stopping { .. } => {
                let mut all = self.all_tiers_mut();
                all.find_map(|tier| tier.poll_farewell(id))?
            }
        };
        self.announces_made += 1;
        Some(wanted)
    }

    /// An announce that took too long: it has failed, and nothing that comes of it counts.
    pub fn poll_overdue(&mut self, now: Instant) -> Option<(AnnounceId, Option<Outcome>)> {
        let oldest = self.all_tiers().filter_map(Tier::oldest_asking);
        let (id, since) = oldest.min_by_key(|(_, since)| *since)?;
        if since + ANNOUNCE_TIMEOUT > now {
            return None;
        }
        let failure = AnnounceFailure::Unreachable("no answer in time".to_owned());
        Some((id, self.failed(id, &failure, now)))
    }

    /// The tracker answered. `None`: this announce is not under way (any more), the answer is of
    /// no use.
    pub fn answered(
        &mut self,
        id: AnnounceId,
        reply: AnnounceReply,
        nearness: Nearness,
        now: Instant,
    ) -> Option<Outcome> {
        let mut own = self.tiers.iter_mut();
        let url = own.find_map(|tier| tier.answered(id, &reply, nearness, now));
        let url = url.or_else(|| {
            let mut evpeers = self.last_resort.at_hand()?.tiers_mut();
            evpeers.find_map(|tier| tier.answered(id, &reply, Nearness::Near, now))
        })?;
        Some(Outcome::Answered { url, reply })
    }

    /// The announce brought nothing. `None`: nobody needs to hear of it.
    pub fn failed(
        &mut self,
        id: AnnounceId,
        failure: &AnnounceFailure,
        now: Instant,
    ) -> Option<Outcome> {
        let last_resort = self.last_resort.at_hand();
        if last_resort.is_some_and(|it| it.failed(id, failure, now)) {
            return None;
        }
        let (mut own, rng) = (self.tiers.iter_mut(), &mut self.rng);
        let failed = own.find_map(|tier| tier.failed(id, failure, rng, now))?;
        let then = match failed.rests_until {
            Instant::NEVER => "; it is not asked again".to_owned(),
            at => format!("; next try in {} s", (at - now).as_secs()),
        };
        Some(Outcome::Failed {
            url: failed.url,
            message: format!("{failure}{then}"),
        })
    }

    /// Everything is there: every tracker that lists us, or did, hears of it at once, one time, or
    /// twice if the process is killed before it has remembered the answer. Of a torrent that was
    /// complete from the start none does.
    pub fn completed(&mut self, now: Instant) {
        self.all_tiers_mut().for_each(|tier| tier.completed(now));
    }

    /// Something changed that trackers should know, or peers are needed: they are asked as soon as
    /// they allow.
    pub fn hurry(&mut self, now: Instant) {
        self.tiers.iter_mut().for_each(|tier| tier.hurry(now));
    }

    /// The trackers that have to hear that the download ended, and have not yet: to be told by
    /// [`Self::owe`] to the client of the next run.
    pub fn untold(&self) -> Vec<String> {
        self.tiers.iter().flat_map(Tier::untold).collect()
    }

    /// The trackers that had not heard in a former run that the download ended: they do after the
    /// start of this one.
    pub fn owe(&mut self, untold: &[String], now: Instant) {
        self.tiers.iter_mut().for_each(|tier| tier.owe(untold, now));
    }

    /// The trackers that have heard of us: they have to hear that the download ended, should it do
    /// so. To be told by [`Self::were_listed`] to the client of the next run.
    pub fn listing(&self) -> Vec<String> {
        let listing = self.tiers.iter().flat_map(Tier::listing);
        let mut listing: Vec<String> = listing.collect();
        listing.sort(); // trackers change their places in a tier
        listing
    }

    /// The trackers that had heard of us in a former run, which had not everything.
    pub fn were_listed(&mut self, listing: &[String]) {
        for tier in &mut self.tiers {
            tier.were_listed(listing);
        }
    }

    /// The torrent stops: from now on [`Self::poll`] gives a farewell for each tracker that
    /// may list us and answered last time. The announces that were under way are forgotten.
    pub fn stopped(&mut self, now: Instant) {
        self.all_tiers_mut().for_each(Tier::forget_asking);
        self.phase = Phase::Stopping { since: now };
    }

    /// The torrent goes on after [`Self::stopped`]: its trackers hear of it as of a start, at once.
    pub fn resumed(&mut self, now: Instant) {
        self.phase = Phase::Running;
        self.all_tiers_mut().for_each(|tier| tier.restart(now));
    }

    /// Whether this announce is under way: [`Self::answered`] or [`Self::failed`] shall hear of it.
    pub fn is_asking(&self, id: AnnounceId) -> bool {
        self.all_tiers().any(|tier| tier.is_asking(id))
    }

    /// Whether [`Self::stopped`] has been called and every farewell was given out.
    pub fn is_finished(&self) -> bool {
        self.phase != Phase::Running && !self.all_tiers().any(Tier::has_farewell)
    }

    /// When somebody is to be asked.
    fn announce_at(&self) -> Instant {
        let under_way: usize = self.all_tiers().map(Tier::asking_count).sum();
        if under_way >= TORRENT_ANNOUNCES_MAX {
            return Instant::NEVER;
        }
        let own = self.tiers.iter().map(Tier::next_deadline).min();
        let evpeers = self.silent_from().max(self.last_resort.next_deadline());
        own.unwrap_or(Instant::NEVER).min(evpeers)
    }

    fn poll_last_resort(&mut self, id: AnnounceId, now: Instant) -> Option<AnnounceWanted> {
        if self.silent_from() > now {
            return None;
        }
        self.last_resort.at_hand()?.poll(id, now)
    }

    /// From when on nobody should count on the torrent's own trackers.
    fn silent_from(&self) -> Instant {
        let own = self.tiers.iter().map(Tier::silent_from);
        own.max().unwrap_or(Instant::ZERO)
    }

    fn all_tiers(&self) -> impl Iterator<Item = &Tier> {
        self.tiers.iter().chain(self.last_resort.tiers())
    }

    fn all_tiers_mut(&mut self) -> impl Iterator<Item = &mut Tier> {
        let last_resort = self.last_resort.at_hand().into_iter();
        (self.tiers.iter_mut()).chain(last_resort.flat_map(LastResort::tiers_mut))
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

/// How long a tracker rests after its first failure; each further one doubles that (BEP 15).
const PAUSE_MIN: Duration = Duration::from_secs(15);
/// How long it rests at most.
const PAUSE_MAX: Duration = Duration::from_secs(30 * 60);
/// How long it rests at least if it is overloaded.
const PAUSE_BUSY: Duration = Duration::from_secs(120);

const _: () = assert!(PAUSE_MAX.as_secs() <= INTERVAL_MAX.as_secs());
const _: () = assert!(ANNOUNCE_TIMEOUT.as_secs() < PAUSE_MAX.as_secs());
