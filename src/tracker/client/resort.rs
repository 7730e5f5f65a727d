//! Trackers of last resort: known evpeers, asked while the torrent's own trackers are silent.
//!
//! Each of them is a tracker (BEP 3) on its peer port. A few at random are asked; one that
//! refuses is dropped, one that does not answer rests, and another takes its place.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::tier::Tier;
use super::{AnnounceFailure, AnnounceId, AnnounceWanted};
use crate::base::rng::Rng;
use crate::base::seldom::Blank;
use crate::base::time::Instant;
use crate::wire::announce::AnnounceError;
use crate::wire::url::TrackerUrl;

/// The evpeers that may be asked, and those that are.
#[derive(Debug, Default)]
pub(super) struct LastResort {
    /// In random order; at most [`KNOWN_MAX`].
    known: Vec<SocketAddr>,
    /// Each a tier of one; at most [`ASKED_MAX`].
    asked: Vec<(SocketAddr, Tier)>,
    /// Those of `known` that brought nothing, and until when they are left alone.
    resting: BTreeMap<SocketAddr, Instant>,
    /// When another one may be chosen.
    choice_at: Instant,
}

impl Blank for LastResort {
    const BLANK: &'static Self = &Self {
        known: Vec::new(),
        asked: Vec::new(),
        resting: BTreeMap::new(),
        choice_at: Instant::ZERO,
    };

    fn is_blank(&self) -> bool {
        self.known.is_empty() && self.asked.is_empty() && self.resting.is_empty()
    }
}

impl LastResort {
    /// Replaces those that may be asked; who is in use stays in use.
    pub fn set_known(&mut self, mut known: Vec<SocketAddr>, rng: &mut Rng) {
        known.retain(|&addr| TrackerUrl::of_evpeer(addr).is_some());
        known.sort_unstable();
        known.dedup();
        rng.shuffle(&mut known);
        known.truncate(KNOWN_MAX);
        self.resting.retain(|addr, _| known.contains(addr));
        self.known = known;
    }

    /// Those in use.
    pub fn tiers(&self) -> impl Iterator<Item = &Tier> {
        self.asked.iter().map(|(_, tier)| tier)
    }

    /// Those in use.
    pub fn tiers_mut(&mut self) -> impl Iterator<Item = &mut Tier> {
        self.asked.iter_mut().map(|(_, tier)| tier)
    }

    /// When [`Self::poll`] has something.
    pub fn next_deadline(&self) -> Instant {
        let regular = self.tiers().map(Tier::next_deadline).min();
        let regular = regular.unwrap_or(Instant::NEVER);
        if self.asked.len() >= ASKED_MAX {
            return regular;
        }
        let free = self.known.iter().filter(|&&addr| !self.is_in_use(addr));
        let free_at = free.map(|&addr| self.rests_until(addr)).min();
        match free_at.unwrap_or(Instant::NEVER) {
            Instant::NEVER => regular,
            at => regular.min(at.max(self.choice_at)),
        }
    }

    /// What shall be asked now, under this id.
    pub fn poll(&mut self, id: AnnounceId, now: Instant) -> Option<AnnounceWanted> {
        if let Some(wanted) = self.tiers_mut().find_map(|tier| tier.poll(id, now)) {
            return Some(wanted);
        }
        if self.asked.len() >= ASKED_MAX || self.choice_at > now {
            return None;
        }
        let is_free = |addr: &SocketAddr| !self.is_in_use(*addr) && self.rests_until(*addr) <= now;
        let addr = self.known.iter().copied().find(is_free)?;
        let mut tier = Tier::new(vec![TrackerUrl::of_evpeer(addr)?], now);
        let wanted = tier.poll(id, now);
        self.asked.push((addr, tier));
        self.choice_at = now + CHOICE_INTERVAL;
        wanted
    }

    /// The announce `id` brought nothing; whether it was one of these.
    pub fn failed(&mut self, id: AnnounceId, failure: &AnnounceFailure, now: Instant) -> bool {
        let Some(place) = self.asked.iter().position(|(_, tier)| tier.is_asking(id)) else {
            return false;
        };
        let (addr, _) = self.asked.remove(place);
        let until = match failure {
            AnnounceFailure::Answer(AnnounceError::Refused { .. }) => Instant::NEVER,
            AnnounceFailure::Answer(_)
            | AnnounceFailure::Status(_)
            | AnnounceFailure::Unreachable(_) => now + REST,
        };
        if self.known.contains(&addr) {
            self.resting.insert(addr, until);
        }
        true
    }

    fn is_in_use(&self, addr: SocketAddr) -> bool {
        self.asked.iter().any(|(asked, _)| *asked == addr)
    }

    fn rests_until(&self, addr: SocketAddr) -> Instant {
        self.resting.get(&addr).copied().unwrap_or(Instant::ZERO)
    }
}

/// Evpeers that are kept in mind at most.
const KNOWN_MAX: usize = 64;
/// Evpeers that are in use at a time at most.
const ASKED_MAX: usize = 3;
/// Time between the choices of two evpeers: a list of dead ones is no burst.
const CHOICE_INTERVAL: Duration = Duration::from_millis(500);
/// How long one that did not answer is left alone.
const REST: Duration = Duration::from_secs(5 * 60);
