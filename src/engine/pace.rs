//! Limits of rate: which stream may move how many bytes now, and who waits.
//!
//! All streams to peers share two [buckets](crate::base::bucket), one each way. Whoever finds a
//! bucket empty stands in line; as it fills, those in front are woken, each for a portion. A stream
//! that is not read fills the system's buffers, so a limit on what comes in also limits
//! what is asked for: two seconds' worth, over all torrents.

use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use super::conn::Stage;
use super::timers::TimerId;
use super::{Action, Engine, State};
use crate::base::bucket::Bucket;
use crate::base::id::{ConnId, TorrentId};
use crate::base::limits;
use crate::base::time::Instant;

/// Both directions.
#[derive(Debug)]
pub(super) struct Pace {
    pub up: Line,
    pub down: Line,
    armed: Instant,
}

/// One direction: what may pass, and who waits for it.
#[derive(Debug)]
pub(super) struct Line {
    bucket: Bucket,
    waiting: VecDeque<ConnId>,
    /// The same, to be in line once.
    waits: BTreeSet<ConnId>,
    /// Who was woken for a portion and has not come yet.
    woken: BTreeSet<ConnId>,
    woken_at: Instant,
}

impl Pace {
    /// Limits in bytes per second; 0 is none.
    pub fn new(up: u64, down: u64, now: Instant) -> Self {
        Self {
            up: Line::new(up, now),
            down: Line::new(down, now),
            armed: Instant::NEVER,
        }
    }
}

impl Line {
    fn new(rate: u64, now: Instant) -> Self {
        Self {
            bucket: Bucket::new(rate, now),
            waiting: VecDeque::new(),
            waits: BTreeSet::new(),
            woken: BTreeSet::new(),
            woken_at: now,
        }
    }

    /// Bytes that `conn` may move now; it stands in line if there are none, or others are before
    /// it.
    fn room(&mut self, conn: ConnId) -> usize {
        let portion = usize::try_from(self.bucket.portion()).unwrap_or(usize::MAX);
        let room = self.bucket.left().min(portion);
        let is_its_turn = self.woken.remove(&conn) || self.waiting.is_empty();
        if room > 0 && is_its_turn {
            return room;
        }
        if self.waits.insert(conn) {
            self.waiting.push_back(conn);
        }
        0
    }

    /// Takes those from the line who may move a portion now.
    fn wake(&mut self, now: Instant) -> Vec<ConnId> {
        self.bucket.refill(now);
        if now - self.woken_at >= WOKEN_TIME {
            self.woken.clear(); // they had nothing to move
        }
        let portions = self.bucket.left() as u64 / self.bucket.portion();
        let count = usize::try_from(portions).unwrap_or(usize::MAX);
        let count = count.saturating_sub(self.woken.len());
        let woken = self.waiting.drain(..count.min(self.waiting.len()));
        let woken: Vec<ConnId> = woken.collect();
        for conn in &woken {
            self.waits.remove(conn);
            self.woken.insert(*conn);
            self.woken_at = now;
        }
        woken
    }

    /// When somebody who waits may go on.
    fn due(&self) -> Instant {
        match self.waiting.is_empty() {
            true => Instant::NEVER,
            false => self.bucket.portions_at(self.woken.len() + 1),
        }
    }

    fn forget(&mut self, conn: ConnId) {
        self.woken.remove(&conn);
        if self.waits.remove(&conn) {
            self.waiting.retain(|other| *other != conn);
        }
    }
}

impl Engine {
    /// Bytes that may be read from `conn` now; 0: not before an [`Action::Read`].
    pub fn read_room(&mut self, conn: ConnId) -> usize {
        if self.pace.down.bucket.rate().is_none() || !self.is_paced(conn) {
            return usize::MAX;
        }
        let room = self.pace.down.room(conn);
        self.arm_pace();
        room
    }

    /// There is nothing to write to `conn` now.
    pub(super) fn write_idle(&mut self, conn: ConnId) {
        self.pace.up.woken.remove(&conn);
    }

    /// Bytes that may be written to `conn` now; 0: it is flushed again later.
    pub(super) fn write_room(&mut self, conn: ConnId) -> usize {
        if self.pace.up.bucket.rate().is_none() || !self.is_paced(conn) {
            return usize::MAX;
        }
        let room = self.pace.up.room(conn);
        self.arm_pace();
        room
    }

    /// Bytes came in on `conn`.
    pub(super) fn paced_in(&mut self, conn: ConnId, bytes: usize, now: Instant) {
        if self.pace.down.bucket.rate().is_some() && self.is_paced(conn) {
            self.pace.down.bucket.refill(now);
            self.pace.down.bucket.take(bytes);
        }
    }

    /// Bytes left on `conn`.
    pub(super) fn paced_out(&mut self, conn: ConnId, bytes: usize, now: Instant) {
        if self.pace.up.bucket.rate().is_some() && self.is_paced(conn) {
            self.pace.up.bucket.refill(now);
            self.pace.up.bucket.take(bytes);
        }
    }

    /// Wakes those who may go on.
    pub(super) fn pace_due(&mut self, now: Instant) {
        self.pace.armed = Instant::NEVER;
        for conn in self.pace.down.wake(now) {
            self.actions.push_back(Action::Read { conn });
        }
        for conn in self.pace.up.wake(now) {
            self.flush(conn);
        }
        self.arm_pace();
    }

    /// A stream is gone.
    pub(super) fn pace_forget(&mut self, conn: ConnId) {
        self.pace.down.forget(conn);
        self.pace.up.forget(conn);
    }

    /// Shares what may be asked for among the torrents that fetch.
    pub(super) fn share_requests(&mut self) {
        let fetches = |id: &&TorrentId| self.state(**id) == Some(State::Downloading);
        let count = self.torrents.keys().filter(fetches).count().max(1) as u64;
        let most = self.pace.down.bucket.rate().map(|rate| {
            let blocks = rate * ASKED_AHEAD_S / u64::from(limits::BLOCK_LEN) / count;
            u32::try_from(blocks.max(1)).unwrap_or(u32::MAX)
        });
        for torrent in self.torrents.values_mut() {
            torrent.swarm.set_asked_max(most);
        }
    }

    /// Whether the limits are for this stream: one to a peer, unless those on our links are exempt.
    fn is_paced(&self, conn: ConnId) -> bool {
        let Some(state) = self.conn(conn) else {
            return false;
        };
        matches!(state.stage, Stage::Exchange(_)) && self.limits_apply_to(state.remote.ip())
    }

    /// Whether the limits are for hosts at `ip`.
    pub(super) fn limits_apply_to(&self, ip: IpAddr) -> bool {
        self.config.limit_local || !self.interfaces.is_on_link(ip)
    }

    fn arm_pace(&mut self) {
        let at = self.pace.up.due().min(self.pace.down.due());
        if at < self.pace.armed {
            self.pace.armed = at;
            self.timers.arm(TimerId::Pace, at);
        }
    }
}

/// How much is asked for ahead under a limit, seconds of its rate.
const ASKED_AHEAD_S: u64 = 2;
/// Whoever was woken and has not come for so long has nothing to move.
const WOKEN_TIME: Duration = Duration::from_millis(100);
