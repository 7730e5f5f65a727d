//! News of our pieces: which peer hears of one at once, and which of several together.
//!
//! A `have` that travels alone costs both sides a system call, a packet and a turn of the loop:
//! more than the block of a piece of 16 KiB. A peer that has little to ask us for hears of each
//! piece at once. Whoever lacks many of ours has enough to do, and hears of new ones some
//! milliseconds later, of all of them together, or with whatever else goes out to it before. What a
//! peer has itself is no news to it, but for a seed of our own link, which wants to know what
//! became of its pieces (see [`step_back`](super::step_back)), and is told more rarely.

use std::time::Duration;

use super::peer::PeerKey;
use super::{Effect, Swarm};
use crate::base::id::PieceIndex;
use crate::base::time::Instant;

/// What there is to tell, and when all were last told.
#[derive(Debug)]
pub(super) struct News {
    /// Every piece verified since there are peers, in order; each peer has read up to a place in
    /// it.
    log: Vec<PieceIndex>,
    told_at: Option<Instant>,
    /// When all will be told again, if anybody waits for it.
    due: Option<Instant>,
    /// When seeds will be told, if they have to be.
    seeds_due: Option<Instant>,
}

impl News {
    pub fn new() -> Self {
        Self {
            log: Vec::new(),
            told_at: None,
            due: None,
            seeds_due: None,
        }
    }

    /// There is nobody who could have read anything.
    pub fn forget(&mut self) {
        self.log = Vec::new();
    }

    /// Pieces that there were to tell of.
    pub fn len(&self) -> usize {
        self.log.len()
    }
}

impl Swarm {
    /// Lets peers know of a new piece of ours.
    pub(super) fn announce(&mut self, piece: PieceIndex, now: Instant) {
        if self.peers.is_empty() {
            return self.live.news.forget(); // whoever comes is told of all pieces at once
        }
        self.live.news.log.push(piece);
        let next = self.live.news.told_at.map_or(now, |at| at + PAUSE);
        let is_time = next <= now;
        if is_time {
            self.live.news.told_at = Some(now);
        }
        let (mut waits, mut for_seeds) = (false, false);
        let is_wanted = self.is_wanted(piece);
        for key in self.keys() {
            let peer = self.peer_mut(key);
            if peer.have.has(piece.0) {
                peer.offers -= u32::from(is_wanted);
                for_seeds |= peer.hears_all();
                if peer.offers == 0 {
                    self.review_interest(key);
                }
                continue; // what it has is no news
            }
            peer.lacks += 1;
            if is_time || peer.lacks <= LACKS_FEW {
                self.flush(key);
            } else {
                waits = true;
            }
        }
        let news = &mut self.live.news;
        let due = (waits && news.due.is_none()).then_some(next);
        let is_seeds = for_seeds && news.seeds_due.is_none();
        let seeds_due = is_seeds.then_some(now + PAUSE_SEEDS);
        news.due = news.due.or(due);
        news.seeds_due = news.seeds_due.or(seeds_due);
        let alarms = due.into_iter().chain(seeds_due);
        self.effects.extend(alarms.map(Effect::News)); // one for each
    }

    /// Tells everybody what was kept back, if it is time.
    pub fn news_due(&mut self, now: Instant) {
        if self.live.is_at_rest() {
            return;
        }
        let news = &mut self.live.news;
        let is_due = news.due.take_if(|due| *due <= now).is_some();
        let is_due_to_seeds = news.seeds_due.take_if(|due| *due <= now).is_some();
        if is_due {
            news.told_at = Some(now);
        }
        for key in self.keys() {
            let is_time = match self.peer(key).hears_all() {
                true => is_due_to_seeds,
                false => is_due,
            };
            if is_time && self.has_news(key) {
                self.flush(key);
            }
        }
    }

    /// The next piece that this peer has to hear of; left out are pieces that it has itself, and
    /// those that we have lost since.
    pub fn next_have(&mut self, key: PeerKey) -> Option<PieceIndex> {
        if !self.has_news(key) {
            return None;
        }
        let peer = &mut self.peers[key.0 as usize];
        peer.news_told += 1;
        self.live.news.log.get(peer.news_told - 1).copied()
    }

    /// Whether there is anything new to this peer; passes over what there is no use in telling.
    fn has_news(&mut self, key: PeerKey) -> bool {
        let peer = &mut self.peers[key.0 as usize];
        while let Some(&piece) = self.live.news.log.get(peer.news_told) {
            let is_new = peer.hears_all() || !peer.have.has(piece.0);
            if self.live.ours.has(piece.0) && is_new {
                return true;
            }
            peer.news_told += 1;
        }
        false
    }
}

/// The least time between two pieces that peers hear of who lack many.
const PAUSE: Duration = Duration::from_millis(4);
/// The least time between two pieces that seeds hear of.
const PAUSE_SEEDS: Duration = Duration::from_millis(20);
/// Whoever lacks no more pieces of ours than this hears of each at once.
const LACKS_FEW: u32 = 32;
