//! What the torrents of one peer share, so that none of them has it all: connections, and places
//! for those that are being opened.
//!
//! ```text
//!                  all taken, another torrent has two more:
//!  a peer comes ── one of that torrent's goes ──────────────▶ let in
//!                  of whom nothing comes or goes
//!
//!                  few are free, or others wait for them:
//!  an address ──── stands in line ── its torrent's turn ────▶ called
//! ```
//!
//! A torrent calls until it has [enough peers](PEERS_ENOUGH), and others if nothing moves with
//! those, or now and then; who calls it is let in.
//!
//! A torrent that wants to call and finds no place stands in line, and has its turn when a place
//! becomes free. The more places a torrent has taken, the more it leaves free, so that one with
//! nothing but dead addresses keeps nobody waiting for their time-outs.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::{Ending, Engine};
use crate::base::id::{ConnId, TorrentId};
use crate::base::limits;
use crate::base::time::Instant;
use crate::discovery::candidates::Reach;
use crate::swarm::Peer;

/// Who is called for which torrent, which of them wait until they may call, and how many peers
/// each has.
#[derive(Debug, Default)]
pub(super) struct Calls {
    /// Peers that are being called; none is 0.
    under_way: BTreeMap<TorrentId, u32>,
    /// Torrents that found no place, each once, the first of them first.
    line: VecDeque<TorrentId>,
    /// Torrents with peers, by their number; those that were added first are last of several.
    crowds: BTreeSet<(usize, Reverse<TorrentId>)>,
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

    /// The torrents that wait until they may call.
    pub fn line(&self) -> impl Iterator<Item = TorrentId> + '_ {
        self.line.iter().copied()
    }

    /// The torrents with peers, and how many each has.
    pub fn crowds(&self) -> impl Iterator<Item = (TorrentId, usize)> + '_ {
        self.crowds.iter().map(|&(count, Reverse(id))| (id, count))
    }

    /// Peers that are being called, of all torrents.
    pub fn total(&self) -> usize {
        self.under_way.values().map(|&count| count as usize).sum()
    }
}

impl Engine {
    /// Whether one more peer of the torrent may be called.
    pub(super) fn may_dial(&self, id: TorrentId, now: Instant) -> bool {
        self.ending.is_none()
            && self.is_turn_to_call(id)
            && (self.peer_conns() < self.config.conns_max as usize || self.may_displace(id, now))
    }

    /// Whom the torrent would call now, beside those that its user named. One with enough peers on
    /// our own links and enough elsewhere calls others only if nothing moves, and one now and then.
    pub(super) fn reach(&self, id: TorrentId, now: Instant) -> Reach {
        let called = self.calls.count(id) as usize;
        let Some(torrent) = self.torrents.get(&id) else {
            return Reach::Nowhere;
        };
        let (swarm, is_time) = (&torrent.swarm, torrent.mixed_at + MIX_INTERVAL <= now);
        if swarm.peer_count() + called < PEERS_ENOUGH || is_time || swarm.is_quiet(now) {
            return Reach::Everywhere;
        }
        let near = swarm.peers().filter(|(_, peer)| peer.is_near).count();
        let far = swarm.peer_count() - near;
        match (near + called < PEERS_ENOUGH, far + called < FAR_ENOUGH) {
            (true, true) => Reach::Everywhere,
            (true, false) => Reach::OnLink,
            (false, true) => Reach::OffLink,
            (false, false) => Reach::Nowhere,
        }
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
    pub(super) fn call_begun(&mut self, id: TorrentId, now: Instant) {
        let called = self.calls.count(id) as usize;
        if let Some(torrent) = self.torrents.get_mut(&id)
            && torrent.swarm.peer_count() + called >= PEERS_ENOUGH
        {
            torrent.mixed_at = now;
        }
        self.calls.begun(id);
        self.calls.line.retain(|&other| other != id);
    }

    /// Whether there is somebody whom the torrent would call now.
    pub(super) fn would_call(&self, id: TorrentId, now: Instant) -> bool {
        self.torrents.get(&id).is_some_and(|torrent| {
            let due = torrent.candidates.next_deadline(self.reach(id, now));
            torrent.is_taking_part() && due.is_some_and(|at| at <= now)
        })
    }

    /// The torrent does not call any more.
    pub(super) fn leave_line(&mut self, id: TorrentId) {
        self.calls.line.retain(|&other| other != id);
    }

    /// The torrent has called whom it may. If it has others to call, and what it lacks is a place
    /// to do so, it stands in line.
    pub(super) fn wait_to_call(&mut self, id: TorrentId, now: Instant) {
        let free = limits::HALF_OPEN_MAX.saturating_sub(self.dialling);
        let waits = self.would_call(id, now)
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
        if let Some(&first) = self.calls.line.front() {
            self.arm_torrent(first, now);
        }
    }

    /// A peer of the torrent has joined or left; it had so many `before`.
    pub(super) fn crowd_changed(&mut self, id: TorrentId, before: usize) {
        self.calls.crowds.remove(&(before, Reverse(id)));
        let swarm = self.torrents.get(&id).map(|torrent| &torrent.swarm);
        let count = swarm.map_or(0, |swarm| swarm.peer_count());
        if count > 0 {
            self.calls.crowds.insert((count, Reverse(id)));
        }
    }

    /// Whether somebody is called for this torrent who is to take the place of another torrent's
    /// peer when all are taken: only as long as it lacks something. Of those who are called to that
    /// end few are at a time: most may not be there.
    fn may_displace(&self, id: TorrentId, now: Instant) -> bool {
        let most = self.config.conns_max.saturating_add(DISPLACING_MAX);
        let called = self.calls.count(id) as usize;
        let torrent = self.torrents.get(&id);
        torrent.is_some_and(|torrent| !torrent.swarm.has_all_wanted())
            && self.peer_conns() < most as usize
            && self.displaced(id, called, now).is_some()
    }

    /// Who gives way to one more peer of this torrent: one of the torrent with most peers, if that
    /// has more than this one will have; `called` are on their way already. Nobody knows yet what
    /// the one who comes is good for, so one with whom data moves stays, unless this torrent has
    /// nobody at all.
    fn displaced(&self, id: TorrentId, called: usize, now: Instant) -> Option<ConnId> {
        let swarm = &self.torrents.get(&id)?.swarm;
        let &(most, Reverse(other)) = self.calls.crowds.last()?;
        if most <= swarm.peer_count() + called + 1 {
            return None;
        }
        let worst = self.least_useful(other, now)?;
        let is_alone = swarm.peer_count() == 0;
        (is_alone || !worst.is_moving(now)).then_some(worst.conn)
    }

    /// Peers of all torrents.
    pub(super) fn peers_joined(&self) -> usize {
        self.calls.crowds().map(|(_, count)| count).sum()
    }

    /// Makes room for a peer of this torrent, who is here, where all connections are taken; says
    /// whether there is room now.
    pub(super) fn make_room(&mut self, id: TorrentId, now: Instant) -> bool {
        let Some(worst) = self.displaced(id, 0, now) else {
            return false;
        };
        let ending = Ending::Redundant("gives way to another torrent");
        self.close(worst, ending, now);
        true
    }

    /// The peer of a torrent that is missed least: nothing moves, and it is young.
    fn least_useful(&self, id: TorrentId, now: Instant) -> Option<&Peer> {
        let use_of = |peer: &&Peer| {
            let moves = (peer.wanted && !peer.chokes_us) || (peer.wants_us && !peer.choked);
            let may_move = peer.wanted || peer.wants_us;
            let age = (Reverse(peer.joined), Reverse(peer.conn));
            (peer.is_moving(now), moves, may_move, age)
        };
        let peers = self.torrents.get(&id)?.swarm.peers();
        peers.map(|(_, peer)| peer).min_by_key(use_of)
    }
}

/// Peers on our own links beside whom a torrent calls nobody else there, as long as data moves, and
/// those of any kind up to whom it calls everybody. Where each of a hundred hosts knew all others,
/// slots gave it a random third of those, and what was new was out of reach of most: the last host
/// took a tenth longer than where each knew 32.
const PEERS_ENOUGH: usize = 32;
/// The same of peers elsewhere, beside many on our own links: a rack must not be on its own.
const FAR_ENOUGH: usize = 8;
/// How often a torrent with enough peers calls one more: so swarms that met late become one, and
/// who has little use of its peers finds others.
const MIX_INTERVAL: Duration = Duration::from_secs(10);
/// Calls that a torrent may have under way for each place that it leaves free to others.
const CALLS_PER_FREE: u32 = 4;
/// Streams beyond `--max-peers` that may be opened to peers who are to take the place of others.
const DISPLACING_MAX: u32 = 8;
