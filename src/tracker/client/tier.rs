//! One tier of trackers (BEP 12): its order, which of them is asked when, and what became of it.
//!
//! Nobody else waits for a tier. In it the first tracker that is not resting is asked; if it has
//! not answered after [`BESIDE_AFTER`], the next one is asked beside it. The first answer counts,
//! and its tracker moves to the front.

use std::time::Duration;

use super::{AnnounceFailure, AnnounceId, AnnounceWanted, Nearness};
use crate::base::rng::Rng;
use crate::base::time::Instant;
use crate::wire::announce::{AnnounceReply, Event};
use crate::wire::url::TrackerUrl;

/// Trackers that list the same peers.
#[derive(Debug)]
pub(super) struct Tier {
    trackers: Vec<Tracker>,
    /// When the tier's regular announce is due.
    due: Instant,
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
    /// It listed us, before we began anew or in a former run, as one who lacks something.
    was_listed: bool,
    /// When the download ended, if it has to hear of it.
    owed: Option<Instant>,
    asking: Option<Asking>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Membership {
    None,
    /// It was told that we started; its answer did not come, or not yet.
    Perhaps,
    Listed,
}

/// An announce that is under way.
#[derive(Clone, Copy, Debug)]
struct Asking {
    id: AnnounceId,
    event: Option<Event>,
    since: Instant,
}

/// A tracker that brought nothing.
#[derive(Debug)]
pub(super) struct Failed {
    /// Its address, safe to show.
    pub url: String,
    /// When it is asked again, at the earliest.
    pub rests_until: Instant,
}

impl Tier {
    /// A tier that is due at once, in this order.
    pub fn new(urls: Vec<TrackerUrl>, now: Instant) -> Self {
        let tracker = |url| Tracker {
            url,
            failures: 0,
            rests_until: now,
            membership: Membership::None,
            tracker_id: None,
            was_listed: false,
            owed: None,
            asking: None,
        };
        Self {
            trackers: urls.into_iter().map(tracker).collect(),
            due: now,
        }
    }

    /// Number of its trackers.
    pub fn len(&self) -> usize {
        self.trackers.len()
    }

    /// Announces that are under way.
    pub fn asking_count(&self) -> usize {
        self.asking().count()
    }

    /// Whether this announce is under way here.
    pub fn is_asking(&self, id: AnnounceId) -> bool {
        self.asking().any(|asking| asking.id == id)
    }

    /// The oldest announce that is under way, and when it was made.
    pub fn oldest_asking(&self) -> Option<(AnnounceId, Instant)> {
        let oldest = self.asking().min_by_key(|asking| asking.since)?;
        Some((oldest.id, oldest.since))
    }

    /// When [`Self::poll`] has something; [`Instant::NEVER`] if nothing will be asked any more.
    pub fn next_deadline(&self) -> Instant {
        let places = 0..self.trackers.len();
        let all = places.map(|place| self.ready_at(place));
        all.min().unwrap_or(Instant::NEVER)
    }

    /// What shall be asked now, under this id.
    pub fn poll(&mut self, id: AnnounceId, now: Instant) -> Option<AnnounceWanted> {
        let place = (0..self.trackers.len()).find(|&place| self.ready_at(place) <= now)?;
        let tracker = &mut self.trackers[place];
        let event = match tracker.membership {
            Membership::Listed => tracker.owed.map(|_| Event::Completed),
            Membership::None | Membership::Perhaps => Some(Event::Started),
        };
        if event == Some(Event::Started) {
            tracker.membership = Membership::Perhaps;
        }
        tracker.asking = Some(Asking {
            id,
            event,
            since: now,
        });
        Some(tracker.wanted(id, event, NUMWANT))
    }

    /// A farewell, if a tracker is left that may list us and answered last time.
    pub fn poll_farewell(&mut self, id: AnnounceId) -> Option<AnnounceWanted> {
        let tracker = self.trackers.iter_mut().find(|t| t.is_owed_a_farewell())?;
        tracker.was_listed = true;
        tracker.membership = Membership::None;
        Some(tracker.wanted(id, Some(Event::Stopped), 0))
    }

    /// Whether there is one.
    pub fn has_farewell(&self) -> bool {
        self.trackers.iter().any(Tracker::is_owed_a_farewell)
    }

    /// The tracker that was asked under `id` answered; its address, safe to show.
    pub fn answered(
        &mut self,
        id: AnnounceId,
        reply: &AnnounceReply,
        nearness: Nearness,
        now: Instant,
    ) -> Option<String> {
        let (place, asking) = self.take_asking(id)?;
        let tracker = &mut self.trackers[place];
        tracker.failures = 0;
        tracker.membership = Membership::Listed;
        if reply.tracker_id.is_some() {
            tracker.tracker_id.clone_from(&reply.tracker_id);
        }
        if asking.event == Some(Event::Completed) {
            tracker.owed = None;
        }
        let shortest = match nearness {
            Nearness::Near => INTERVAL_MIN_NEAR,
            Nearness::Far => INTERVAL_MIN,
        };
        let clamp = |interval: Duration| interval.clamp(shortest, INTERVAL_MAX);
        let rest = clamp(reply.min_interval.unwrap_or(shortest));
        tracker.rests_until = now + rest;
        let url = tracker.url.to_string();
        // The others that were asked beside it come too late to be the tier's tracker.
        if place == 0 || self.due <= now {
            self.due = now + clamp(reply.interval.unwrap_or(INTERVAL_DEFAULT)).max(rest);
            self.trackers[..=place].rotate_right(1);
        }
        Some(url)
    }

    /// The announce `id` brought nothing.
    pub fn failed(
        &mut self,
        id: AnnounceId,
        failure: &AnnounceFailure,
        rng: &mut Rng,
        now: Instant,
    ) -> Option<Failed> {
        let (place, _) = self.take_asking(id)?;
        let tracker = &mut self.trackers[place];
        tracker.failures = tracker.failures.saturating_add(1);
        tracker.rests_until = match failure.pause(tracker.failures) {
            Some(pause) => now + pause + jitter(pause, rng),
            None => Instant::NEVER,
        };
        if place == 0 {
            // It was the tier's tracker: another one has to be found.
            self.due = self.due.min(now);
        }
        Some(Failed {
            url: tracker.url.to_string(),
            rests_until: tracker.rests_until,
        })
    }

    /// The download has ended: those that list us, or may, or did, have to hear of it.
    pub fn completed(&mut self, now: Instant) {
        for tracker in &mut self.trackers {
            if tracker.has_listed_us() {
                tracker.owed = Some(now);
            }
        }
    }

    /// Those who have heard of us, by their addresses, safe to show.
    pub fn listing(&self) -> impl Iterator<Item = String> {
        let listing = self.trackers.iter().filter(|t| t.has_listed_us());
        listing.map(|tracker| tracker.url.to_string())
    }

    /// Those of its trackers that are in `listing` had heard of us in a former run.
    pub fn were_listed(&mut self, listing: &[String]) {
        for tracker in &mut self.trackers {
            tracker.was_listed |= listing.contains(&tracker.url.to_string());
        }
    }

    /// The next announce is due now, if no tracker has to rest.
    pub fn hurry(&mut self, now: Instant) {
        self.due = self.due.min(now);
    }

    /// A former run left before those of its trackers that are in `untold` had heard that the
    /// download ended.
    pub fn owe(&mut self, untold: &[String], now: Instant) {
        for tracker in &mut self.trackers {
            if untold.contains(&tracker.url.to_string()) {
                tracker.owed = Some(now);
            }
        }
    }

    /// Those who have to hear that the download ended, by their addresses, safe to show.
    pub fn untold(&self) -> impl Iterator<Item = String> {
        let untold = self.trackers.iter().filter(|t| t.owed.is_some());
        untold.map(|tracker| tracker.url.to_string())
    }

    /// Begins anew: nobody lists us, and who answered last time may be asked at once.
    pub fn restart(&mut self, now: Instant) {
        self.due = now;
        for tracker in &mut self.trackers {
            tracker.was_listed = tracker.has_listed_us();
            tracker.membership = Membership::None;
            tracker.asking = None;
            if tracker.failures == 0 {
                tracker.rests_until = now;
            }
        }
    }

    /// What is under way is of no interest any more.
    pub fn forget_asking(&mut self) {
        for tracker in &mut self.trackers {
            tracker.asking = None;
        }
    }

    /// From when on all of its trackers have failed, or were silent for so long that nobody
    /// should count on them; [`Instant::NEVER`] while there is hope.
    pub fn silent_from(&self) -> Instant {
        let silent_from = |tracker: &Tracker| match tracker.asking {
            _ if tracker.failures > 0 => Instant::ZERO,
            Some(asking) => asking.since + SILENCE,
            None => Instant::NEVER,
        };
        let all = self.trackers.iter().map(silent_from);
        all.max().unwrap_or(Instant::ZERO)
    }

    fn asking(&self) -> impl Iterator<Item = &Asking> {
        self.trackers.iter().filter_map(|t| t.asking.as_ref())
    }

    fn take_asking(&mut self, id: AnnounceId) -> Option<(usize, Asking)> {
        let is_it = |tracker: &Tracker| tracker.asking.is_some_and(|asking| asking.id == id);
        let place = self.trackers.iter().position(is_it)?;
        let asking = self.trackers[place].asking.take()?;
        Some((place, asking))
    }

    /// When the tracker at `place` can be asked next, and there is something to say.
    fn ready_at(&self, place: usize) -> Instant {
        let tracker = &self.trackers[place];
        if tracker.asking.is_some() || tracker.rests_until == Instant::NEVER {
            return Instant::NEVER;
        }
        let last_asked = self.asking().map(|asking| asking.since).max();
        let regular = match last_asked {
            None => self.due.max(tracker.rests_until),
            Some(at) if self.asking_count() < ASKED_AT_ONCE_MAX => {
                (self.due.max(tracker.rests_until)).max(at + BESIDE_AFTER)
            }
            Some(_) => Instant::NEVER,
        };
        match tracker.owed {
            Some(at) if tracker.membership == Membership::Listed && tracker.failures == 0 => {
                regular.min(at)
            }
            _ => regular,
        }
    }
}

impl Tracker {
    fn has_listed_us(&self) -> bool {
        self.was_listed || self.membership != Membership::None
    }

    fn is_owed_a_farewell(&self) -> bool {
        self.membership != Membership::None && self.failures == 0
    }

    fn wanted(&self, id: AnnounceId, event: Option<Event>, numwant: u32) -> AnnounceWanted {
        AnnounceWanted {
            id,
            url: self.url.clone(),
            event,
            numwant,
            tracker_id: self.tracker_id.clone(),
        }
    }
}

/// Up to a quarter of `pause`, or of the longest pause, so that clients do not come back in step.
pub(super) fn jitter(pause: Duration, rng: &mut Rng) -> Duration {
    let quarter = pause.min(super::PAUSE_MAX).as_millis() as u32 / 4;
    Duration::from_millis(u64::from(rng.below(quarter)))
}

/// Peers asked for in one announce.
pub(super) const NUMWANT: u32 = 50;
/// Time between announces if a tracker does not say.
const INTERVAL_DEFAULT: Duration = Duration::from_secs(30 * 60);
/// A tracker may not ask for shorter intervals than this,
const INTERVAL_MIN: Duration = Duration::from_secs(60);
/// or this, if it is near,
const INTERVAL_MIN_NEAR: Duration = Duration::from_secs(5);
/// nor for longer ones than this.
pub(super) const INTERVAL_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a tracker may take before the next one of its tier is asked beside it.
const BESIDE_AFTER: Duration = Duration::from_secs(3);
/// Trackers of a tier that are asked at a time at most.
const ASKED_AT_ONCE_MAX: usize = 3;
/// How long a tracker may take before those of last resort are asked.
const SILENCE: Duration = Duration::from_secs(5);
