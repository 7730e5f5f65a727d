//! Limits of rate: which stream may move how many bytes now, and who waits.
//!
//! ```text
//!             line of torrent 1 ─┐ each its bucket,
//! a stream ─▶ line of torrent 2 ─┼─ if it has a limit ──▶ the bucket of all ──▶ so many bytes
//!             line of torrent 3 ─┘  in turn
//! ```
//!
//! All streams to peers share two [buckets](crate::base::bucket), one each way, and those of a
//! torrent with limits of its own two more. Whoever finds a bucket empty stands in the line of its
//! torrent; as it fills, those in front are woken, each for a portion, the torrents in turn. A
//! stream that is not read fills the system's buffers, so a limit on what comes in also bounds what
//! is asked for, two seconds' worth over all torrents, and those buffers.

use std::collections::BTreeMap;
use std::time::Duration;

use way::Way;

use super::conn::Stage;
use super::timers::{TICK, TimerId};
use super::{Action, Engine, Report, State};
use crate::base::bucket::Bucket;
use crate::base::id::{ConnId, TorrentId};
use crate::base::limits;
use crate::base::time::Instant;
use crate::config::RateLimits;
use crate::swarm::DownLimit;

mod way;

/// Both directions.
#[derive(Debug)]
pub(super) struct Pace {
    up: Way,
    down: Way,
    /// When the timer fires.
    armed: Instant,
    /// It does not fire sooner.
    rests_until: Instant,
    /// When it is seen anew which torrents share what may be asked for.
    shared_at: Instant,
    /// Streams whose receive buffers are bounded, and how.
    buffers: BTreeMap<ConnId, usize>,
}

impl Pace {
    /// The limits of all torrents together.
    pub fn new(limits: RateLimits, now: Instant) -> Self {
        Self {
            up: Way::new(limits.up, now),
            down: Way::new(limits.down, now),
            armed: Instant::NEVER,
            rests_until: now,
            shared_at: Instant::NEVER,
            buffers: BTreeMap::new(),
        }
    }

    /// A stream is gone.
    pub fn forget(&mut self, conn: ConnId) {
        self.down.forget(conn);
        self.up.forget(conn);
        self.buffers.remove(&conn);
    }

    /// A torrent is gone, and so are its streams.
    pub fn forget_torrent(&mut self, torrent: TorrentId) {
        self.down.own.remove(&torrent);
        self.up.own.remove(&torrent);
    }

    /// What of the lines does not agree; `is_there` says of a stream whether it still is.
    pub fn audit(&self, is_there: impl Fn(ConnId) -> bool) -> Result<(), String> {
        self.up.audit(&is_there)?;
        self.down.audit(&is_there)
    }

    /// The limits of a torrent's own.
    fn own(&self, torrent: TorrentId) -> RateLimits {
        let rate = |way: &Way| way.own.get(&torrent).and_then(Bucket::rate).unwrap_or(0);
        RateLimits {
            up: rate(&self.up),
            down: rate(&self.down),
        }
    }
}

impl Engine {
    /// The limits of all torrents together.
    pub fn limits(&self) -> RateLimits {
        self.config.limits
    }

    /// Whether the limits are for hosts on our own links too.
    pub fn limits_local(&self) -> bool {
        self.config.limit_local
    }

    /// The limits of a torrent's own.
    pub fn torrent_limits(&self, torrent: TorrentId) -> RateLimits {
        self.pace.own(torrent)
    }

    /// Limits all torrents together.
    pub fn set_limits(&mut self, limits: RateLimits, now: Instant) {
        let limits_before = std::mem::replace(&mut self.config.limits, limits);
        if limits == limits_before {
            return;
        }
        self.pace.up.set_rate(None, limits.up, now);
        self.pace.down.set_rate(None, limits.down, now);
        self.limits_changed(now);
        self.report(Report::Limited { torrent: None });
    }

    /// Limits a torrent, within the limits of all together.
    pub fn set_torrent_limits(&mut self, torrent: TorrentId, limits: RateLimits, now: Instant) {
        if !self.torrents.contains_key(&torrent) || self.pace.own(torrent) == limits {
            return;
        }
        self.pace.up.set_rate(Some(torrent), limits.up, now);
        self.pace.down.set_rate(Some(torrent), limits.down, now);
        self.limits_changed(now);
        let torrent = Some(torrent);
        self.report(Report::Limited { torrent });
    }

    /// Decides whether the limits are for hosts on our own links too.
    pub fn set_limits_local(&mut self, limit_local: bool, now: Instant) {
        if std::mem::replace(&mut self.config.limit_local, limit_local) != limit_local {
            self.limits_changed(now);
            self.report(Report::Limited { torrent: None });
        }
    }

    /// Limits, or what they are for, have changed.
    pub(super) fn limits_changed(&mut self, now: Instant) {
        for conn in self.conn_ids() {
            let Some((torrent, key)) = self.exchange_of(conn) else {
                continue;
            };
            let is_limited = self.limits_apply_to(conn);
            if let Some(running) = self.torrents.get_mut(&torrent) {
                running.swarm.set_limited(key, is_limited);
            }
            self.bound_buffer(conn, torrent);
        }
        self.share_requests(now);
        // Those for whom there is no limit any more shall not wait for one.
        let waiting: Vec<ConnId> = self.pace.down.waits.keys().copied().collect();
        for conn in waiting {
            self.pace.down.forget(conn);
            self.actions.push_back(Action::Read { conn });
        }
        let waiting: Vec<ConnId> = self.pace.up.waits.keys().copied().collect();
        for conn in waiting {
            self.pace.up.forget(conn);
            self.flush(conn);
        }
    }

    /// Bytes that may be read from `conn` now; 0: not before an [`Action::Read`].
    pub fn read_room(&mut self, conn: ConnId) -> usize {
        let Some(torrent) = self.paced(&self.pace.down, conn) else {
            return usize::MAX;
        };
        let room = self.pace.down.room(conn, torrent);
        self.arm_pace();
        room
    }

    /// There is nothing to write to `conn` now.
    pub(super) fn write_idle(&mut self, conn: ConnId) {
        self.pace.up.woken.remove(&conn);
    }

    /// Bytes that `conn` writes at once, if it is limited: more is not decided ahead.
    pub fn write_portion(&self, conn: ConnId) -> Option<usize> {
        let torrent = self.paced(&self.pace.up, conn)?;
        usize::try_from(self.pace.up.portion(torrent)).ok()
    }

    /// Bytes that may be written to `conn` now; 0: it is flushed again later.
    pub(super) fn write_room(&mut self, conn: ConnId) -> usize {
        let Some(torrent) = self.paced(&self.pace.up, conn) else {
            return usize::MAX;
        };
        let room = self.pace.up.room(conn, torrent);
        self.arm_pace();
        room
    }

    /// Bytes came in on `conn`.
    pub(super) fn paced_in(&mut self, conn: ConnId, bytes: usize, now: Instant) {
        if let Some(torrent) = self.paced(&self.pace.down, conn) {
            self.pace.down.passed(torrent, bytes, now);
        }
    }

    /// Bytes left on `conn`.
    pub(super) fn paced_out(&mut self, conn: ConnId, bytes: usize, now: Instant) {
        if let Some(torrent) = self.paced(&self.pace.up, conn) {
            self.pace.up.passed(torrent, bytes, now);
        }
    }

    /// Whether a limit of ours keeps `conn` from being read: its silence says nothing of the peer.
    pub(super) fn waits_to_read(&self, conn: ConnId, now: Instant) -> bool {
        self.pace.down.holds_back(conn, now)
    }

    /// Whether a limit of ours keeps `conn` from being written to: that it takes nothing says
    /// nothing of the peer.
    pub(super) fn waits_to_write(&self, conn: ConnId, now: Instant) -> bool {
        self.pace.up.holds_back(conn, now)
    }

    /// Wakes those who may go on.
    pub(super) fn pace_due(&mut self, now: Instant) {
        if self.pace.armed > now {
            return; // a later entry than this one stands for all
        }
        self.pace.armed = Instant::NEVER;
        self.pace.rests_until = now + REST_TIME;
        for conn in self.pace.down.wake(now) {
            self.actions.push_back(Action::Read { conn });
        }
        for conn in self.pace.up.wake(now) {
            self.flush(conn);
        }
        if self.pace.shared_at <= now {
            self.share_requests(now);
        }
        self.arm_pace();
    }

    /// A torrent began to fetch, or ended it.
    pub(super) fn share_requests_soon(&mut self) {
        if self.pace.down.is_any() {
            self.pace.shared_at = Instant::ZERO;
            self.arm_pace();
        }
    }

    /// Shares what may be asked for among the torrents that fetch. Those who at present have
    /// nobody to ask get a part as if they had.
    fn share_requests(&mut self, now: Instant) {
        let all = self.pace.down.all.rate();
        let mut count = 0;
        let mut is_any = false;
        for torrent in self.torrents.values() {
            if torrent.state == State::Downloading {
                is_any = true;
                count += u64::from(torrent.swarm.is_asking());
            }
        }
        for (id, torrent) in &mut self.torrents {
            let sharers = count + u64::from(!torrent.swarm.is_asking());
            let own = self.pace.down.own.get(id).and_then(Bucket::rate);
            let all = all.map(|rate| down_limit(rate, sharers.max(1)));
            let own = own.map(|rate| down_limit(rate, 1));
            let lowest = all.into_iter().chain(own).min();
            torrent.swarm.set_down_limit(lowest);
        }
        for id in self.torrents.keys().copied().collect::<Vec<_>>() {
            self.run_effects(id, now);
        }
        self.pace.shared_at = match self.pace.down.is_any() && is_any {
            true => now + TICK,
            false => Instant::NEVER,
        };
        self.arm_pace();
    }

    /// A peer joined, or the limits changed: the system shall not take up much more from it than a
    /// limit lets through.
    pub(super) fn bound_buffer(&mut self, conn: ConnId, torrent: TorrentId) {
        let rate = self.pace.down.rate(torrent);
        let rate = rate.filter(|&rate| rate <= BUFFER_RATE_MAX && self.limits_apply_to(conn));
        let most = rate.and_then(|rate| usize::try_from(rate * BUFFER_S).ok());
        let most = most.map(|most| most.max(BUFFER_LEN_MIN));
        let before = match most {
            Some(most) => self.pace.buffers.insert(conn, most),
            None => self.pace.buffers.remove(&conn),
        };
        if before != most {
            self.actions.push_back(Action::BoundBuffer { conn, most });
        }
    }

    /// The torrent of `conn` if the limits of this way are for it: a stream to a peer, unless those
    /// on our links are exempt.
    fn paced(&self, way: &Way, conn: ConnId) -> Option<TorrentId> {
        if !way.is_any() {
            return None;
        }
        let (torrent, _) = self.exchange_of(conn)?;
        (way.limits(torrent) && self.limits_apply_to(conn)).then_some(torrent)
    }

    /// Tells the exchange whether the peer at the other end of a stream is on our own link.
    pub(super) fn place_peer(&mut self, conn: ConnId) {
        let Some((torrent, key)) = self.exchange_of(conn) else {
            return;
        };
        let remote = self.conn(conn).map(|state| state.remote.ip());
        let is_near = remote.is_some_and(|ip| self.interfaces.is_on_link(ip));
        if let Some(running) = self.torrents.get_mut(&torrent) {
            let own = self.secrets.peer_id;
            running.swarm.set_near(key, is_near, own);
        }
    }

    fn exchange_of(&self, conn: ConnId) -> Option<(TorrentId, crate::swarm::PeerKey)> {
        match &self.conn(conn)?.stage {
            Stage::Exchange(exchange) => Some((exchange.torrent, exchange.key)),
            _ => None,
        }
    }

    /// Whether limits are for the host at the other end of `conn`.
    pub(super) fn limits_apply_to(&self, conn: ConnId) -> bool {
        self.config.limit_local
            || self
                .conn(conn)
                .is_some_and(|state| !self.interfaces.is_on_link(state.remote.ip()))
    }

    fn arm_pace(&mut self) {
        let at = self.pace.up.due().min(self.pace.down.due());
        let at = at.min(self.pace.shared_at).max(self.pace.rests_until);
        if at < self.pace.armed {
            self.pace.armed = at;
            self.timers.arm(TimerId::Pace, at);
        }
    }
}

/// What a limit of `rate` is for one of `sharers` torrents.
fn down_limit(rate: u64, sharers: u64) -> DownLimit {
    DownLimit {
        rate: rate / sharers,
        blocks: blocks_ahead(rate, sharers),
    }
}

/// Blocks that one of `sharers` torrents may ask for ahead under a limit of `rate`.
fn blocks_ahead(rate: u64, sharers: u64) -> u32 {
    let blocks = rate.saturating_mul(ASKED_AHEAD_S) / u64::from(limits::BLOCK_LEN) / sharers;
    u32::try_from(blocks.max(1)).unwrap_or(u32::MAX)
}

/// How much is asked for ahead under a limit, seconds of its rate.
const ASKED_AHEAD_S: u64 = 2;
/// Those who wait are woken no more often than this: several at a time, where portions are many.
const REST_TIME: Duration = Duration::from_micros(500);
/// Receive buffer of a stream under a limit, seconds of its rate; Linux keeps twice as many bytes
/// for it, its own bookkeeping among them.
const BUFFER_S: u64 = 1;
/// A smaller one would cut the packets.
const BUFFER_LEN_MIN: usize = 16 * 1024;
/// Under a higher limit the system's own measure stays, bytes per second: a fixed buffer may be 208
/// KiB where nobody has allowed more (Linux `rmem_max`), too little for more over a long way.
const BUFFER_RATE_MAX: u64 = 1 << 20;

#[cfg(test)]
mod tests;
