//! Torrents that wait for their turn to download (`--max-active`).
//!
//! ```text
//!                 pieces are missing,               a place is free,
//!  checking ──── and all places taken ──▶ queued ── or its user resumes it ──▶ downloading
//! ```
//!
//! Those that were added first have their turn first. One that has received nothing for a while
//! goes on, but holds no place meanwhile: nobody waits behind a swarm without seeds. Seeding takes
//! no place. To everybody else a queued torrent is a paused one.

use std::collections::BTreeMap;
use std::time::Duration;

use super::timers::TimerId;
use super::{Engine, State};
use crate::base::id::TorrentId;
use crate::base::time::Instant;

/// Who gets on.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// What each torrent that downloads had received, and since when it is no more.
    received: BTreeMap<TorrentId, (u64, Instant)>,
    /// When places are given away next.
    armed: Option<Instant>,
}

impl Engine {
    /// Torrents that download at a time; 0 is no bound.
    pub fn max_active(&self) -> u32 {
        self.config.max_active
    }

    /// Whether one more torrent may download beside the others.
    pub(super) fn has_place(&mut self, id: TorrentId, now: Instant) -> bool {
        self.config.max_active == 0 || self.active_count(id, now) < self.config.max_active as usize
    }

    /// The torrents that hold a place, but for this one.
    fn active_count(&mut self, but: TorrentId, now: Instant) -> usize {
        let Self {
            torrents, queue, ..
        } = self;
        let is_downloading = |id: &TorrentId| {
            let torrent = torrents.get(id);
            torrent.is_some_and(|torrent| torrent.state == State::Downloading)
        };
        queue.received.retain(|id, _| is_downloading(id));
        let mut count = 0;
        for (&id, torrent) in torrents.iter() {
            if torrent.state != State::Downloading || id == but {
                continue;
            }
            let down = torrent.totals().down;
            let (before, since) = queue.received.entry(id).or_insert((down, now));
            if *before != down {
                (*before, *since) = (down, now);
            }
            count += usize::from(now - *since < STALL_TIME);
        }
        count
    }

    /// A torrent that has to wait: nobody hears of it until its turn.
    pub(super) fn queue(&mut self, id: TorrentId, now: Instant) {
        let reason = format!(
            "as many torrents download as may at a time, {}",
            self.config.max_active
        );
        self.rest(id, State::Queued, Some(reason), now);
    }

    /// A torrent may have left its place, or may want one.
    pub(super) fn queue_changed(&mut self, now: Instant) {
        if self.config.max_active > 0 {
            self.arm_queue(now);
        }
    }

    fn arm_queue(&mut self, at: Instant) {
        if self.queue.armed.is_none_or(|armed| at < armed) {
            self.queue.armed = Some(at);
            self.timers.arm(TimerId::Queue, at);
        }
    }

    /// Gives free places away.
    pub(super) fn queue_due(&mut self, now: Instant) {
        if self.queue.armed.take_if(|at| *at <= now).is_none() {
            return; // an earlier entry stood for this one
        }
        let queued = |engine: &Self| {
            let mut torrents = engine.torrents.iter();
            let first = torrents.find(|(_, torrent)| torrent.state == State::Queued)?;
            Some(*first.0)
        };
        while let Some(id) = queued(self) {
            if self.ending.is_some() {
                return;
            }
            if !self.has_place(id, now) {
                self.arm_queue(now + LOOK_INTERVAL);
                return;
            }
            self.take_turn(id, now);
        }
    }

    /// It is the turn of a torrent that was queued.
    pub(super) fn take_turn(&mut self, id: TorrentId, now: Instant) {
        self.come_back(id, now, now);
        self.begin(id, now);
    }

    /// A torrent leaves its place: what it had received is of no interest when it comes again.
    pub(super) fn leave_place(&mut self, id: TorrentId) {
        self.queue.received.remove(&id);
    }

    /// Something else is to be done with a torrent that may be queued: it is not at rest any more.
    pub(super) fn leave_queue(&mut self, id: TorrentId, now: Instant) {
        if self.state(id) == Some(State::Queued) {
            self.come_back(id, now, now);
        }
    }
}

/// A torrent that has received nothing for so long holds no place.
const STALL_TIME: Duration = Duration::from_secs(60);
/// How often that is looked at while others wait.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
