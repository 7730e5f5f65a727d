//! What the torrents of one peer share, so that none of them has it all: connections, and places
//! for those that are being opened.
//!
//! ```text
//!                  all taken, another torrent has two more:
//!  a peer comes ── one of that torrent's goes ──────────────▶ let in
//!
//!                  few are free, or others wait for them:
//!  an address ──── stands in line ── its torrent's turn ────▶ called
//! ```
//!
//! A torrent that wants to call and finds no place stands in line, and has its turn when a place
//! becomes free. The more places a torrent has taken, the more it leaves free, so that one with
//! nothing but dead addresses keeps nobody waiting for their time-outs.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};

use super::conn::{Exchange, Stage};
use super::torrent::Torrent;
use super::{Ending, Engine};
use crate::base::id::{ConnId, TorrentId};
use crate::base::limits;
use crate::base::time::Instant;

/// Who is called for which torrent, and which of them wait until they may call.
#[derive(Debug, Default)]
pub(super) struct Calls {
    /// Peers that are being called; none is 0.
    under_way: BTreeMap<TorrentId, u32>,
    /// Torrents that found no place, each once, the first of them first.
    line: VecDeque<TorrentId>,
}

impl Calls {
    /// A peer of the torrent is called.
    fn begun(&mut self, torrent: TorrentId) {
        *self.under_way.entry(torrent).or_insert(0) += 1;
    }

    /// Such a call has ended.
    fn ended(&mut self, torrent: TorrentId) {
        let count = self.under_way.get_mut(&torrent);
        let count = count.expect("a call that ends has begun");
        *count -= 1;
        if *count == 0 {
            self.under_way.remove(&torrent);
        }
    }

    fn count(&self, torrent: TorrentId) -> u32 {
        self.under_way.get(&torrent).copied().unwrap_or(0)
    }

    /// Peers that are being called, of all torrents.
    pub fn total(&self) -> usize {
        self.under_way.values().map(|&count| count as usize).sum()
    }
}

impl Engine {
    /// Whether one more peer of the torrent may be called.
    pub(super) fn may_dial(&self, id: TorrentId) -> bool {
        self.ending.is_none()
            && self.is_turn_to_call(id)
            && (self.peer_conns() < self.config.conns_max as usize || self.may_displace(id))
    }

    /// Whether there is a place in which to call that is for this torrent.
    fn is_turn_to_call(&self, id: TorrentId) -> bool {
        let free = limits::HALF_OPEN_MAX.saturating_sub(self.dialling);
        let line = &self.calls.line;
        let before = line.iter().position(|&other| other == id);
        let before = before.unwrap_or(line.len());
        self.is_modest(id, free) && before < free as usize
    }

    /// Whether the torrent has not taken many times as many places to call as it leaves free.
    fn is_modest(&self, id: TorrentId, free: u32) -> bool {
        self.calls.count(id) < CALLS_PER_FREE * free
    }

    /// A peer of the torrent is called in one of the places.
    pub(super) fn call_begun(&mut self, id: TorrentId) {
        self.calls.begun(id);
        self.calls.line.retain(|&other| other != id);
    }

    /// The torrent has called whom it may. If it has others to call, and what it lacks is a place
    /// to do so, it stands in line.
    pub(super) fn wait_to_call(&mut self, id: TorrentId, now: Instant) {
        let free = limits::HALF_OPEN_MAX.saturating_sub(self.dialling);
        let is_due = |torrent: &Torrent| {
            let due = torrent.candidates.next_deadline();
            torrent.is_taking_part() && due.is_some_and(|at| at <= now)
        };
        let waits = self.torrents.get(&id).is_some_and(|t| is_due(t))
            && self.is_modest(id, free.max(1))
            && !self.is_turn_to_call(id);
        let place = self.calls.line.iter().position(|&other| other == id);
        match (waits, place) {
            (true, None) => self.calls.line.push_back(id),
            (false, Some(place)) => {
                self.calls.line.remove(place);
            }
            _ => {}
        }
    }

    /// A stream that was being opened, to a peer of `torrent` or for something else, is open or
    /// has failed: whoever waits first for its place is to try again.
    pub(super) fn call_ended(&mut self, torrent: Option<TorrentId>, now: Instant) {
        self.dialling -= 1;
        if let Some(torrent) = torrent {
            self.calls.ended(torrent);
        }
        while let Some(&first) = self.calls.line.front() {
            let running = self.torrents.get(&first);
            if running.is_some_and(|torrent| torrent.is_taking_part()) {
                return self.arm_torrent(first, now);
            }
            self.calls.line.pop_front();
        }
    }

    /// Whether a peer of this torrent may take the place of another torrent's when all are taken.
    /// Of those who are called to that end few are at a time: most may not be there.
    fn may_displace(&self, id: TorrentId) -> bool {
        let most = self.config.conns_max.saturating_add(DISPLACING_MAX);
        let called = self.calls.count(id) as usize;
        self.peer_conns() < most as usize && self.torrent_to_displace(id, called).is_some()
    }

    /// The torrent with most peers, if that has more than this one will have with one more;
    /// `called` are on their way already.
    fn torrent_to_displace(&self, id: TorrentId, called: usize) -> Option<TorrentId> {
        let own = self.torrents.get(&id)?.swarm.peer_count() + called;
        let counts = self.torrents.iter();
        let counts = counts.map(|(&other, torrent)| (torrent.swarm.peer_count(), Reverse(other)));
        let (most, Reverse(other)) = counts.max()?;
        (most > own + 1).then_some(other)
    }

    /// Peers of all torrents.
    pub(super) fn peers_joined(&self) -> usize {
        let torrents = self.torrents.values();
        torrents.map(|torrent| torrent.swarm.peer_count()).sum()
    }

    /// Makes room for a peer of this torrent, who is here, where all connections are taken; says
    /// whether there is room now.
    pub(super) fn make_room(&mut self, id: TorrentId, now: Instant) -> bool {
        let Some(other) = self.torrent_to_displace(id, 0) else {
            return false;
        };
        let Some(worst) = self.least_useful(other) else {
            return false;
        };
        self.close(
            worst,
            Ending::Redundant("gives way to another torrent"),
            now,
        );
        true
    }

    /// The stream of a torrent that is missed least: nothing moves on it, and it is young.
    fn least_useful(&self, id: TorrentId) -> Option<ConnId> {
        let swarm = &self.torrents.get(&id)?.swarm;
        let use_of = |exchange: &Exchange| {
            let peer = swarm.peer(exchange.key);
            let moves = (peer.wanted && !peer.chokes_us) || (peer.wants_us && !peer.choked);
            let may_move = peer.wanted || peer.wants_us;
            (moves, may_move, Reverse(peer.joined), Reverse(peer.conn))
        };
        let exchanges = self
            .conns
            .iter()
            .filter_map(|(_, (_, conn))| match &conn.stage {
                Stage::Exchange(exchange) if exchange.torrent == id => Some(exchange),
                _ => None,
            });
        let worst = exchanges.min_by_key(|exchange| use_of(exchange))?;
        Some(swarm.peer(worst.key).conn)
    }
}

/// Calls that a torrent may have under way for each place that it leaves free to others.
const CALLS_PER_FREE: u32 = 4;
/// Streams beyond `--max-peers` that may be opened to peers who are to take the place of others.
const DISPLACING_MAX: u32 = 8;
