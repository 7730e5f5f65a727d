//! What must hold between any two inputs: for simulations and tests, as it walks over everything.

use std::collections::BTreeMap;

use super::conn::{Purpose, Stage};
use super::{Engine, State};
use crate::base::id::{ConnId, TorrentId};
use crate::base::limits;
use crate::base::time::Instant;
use crate::swarm::Swarm;

impl Engine {
    /// The exchange of a torrent.
    pub fn swarm(&self, torrent: TorrentId) -> Option<&Swarm> {
        self.torrents.get(&torrent).map(|torrent| &torrent.swarm)
    }

    /// Bytes of control messages and promised blocks that wait to leave on `conn`.
    pub fn unsent(&self, conn: ConnId) -> usize {
        self.conn(conn).map_or(0, |conn| conn.outbox.len())
    }

    /// Compares what is counted with what can be counted anew, and with the limits.
    ///
    /// # Errors
    /// What does not agree, in words.
    pub fn audit(&self, now: Instant) -> Result<(), String> {
        let stages = || self.conns.iter().map(|(_, (_, conn))| &conn.stage);
        let dialling = stages().filter(|s| matches!(s, Stage::Dialling(_))).count();
        if dialling != self.dialling as usize || (dialling > OPENING_MAX && self.ending.is_none()) {
            return Err(format!(
                "{dialling} half-open connections, counted {}, limit {}",
                self.dialling, OPENING_MAX
            ));
        }
        let called = stages().filter(|s| matches!(s, Stage::Dialling(Purpose::Peer(_))));
        if called.count() != self.calls.total() {
            return Err(format!("{} calls are counted", self.calls.total()));
        }
        let is_calling = |id| self.torrents.get(&id).is_some_and(|t| t.is_taking_part());
        if let Some(id) = self.calls.line().find(|&id| !is_calling(id)) {
            return Err(format!("torrent {id} is in line and calls nobody"));
        }
        let counts = self
            .torrents
            .iter()
            .map(|(&id, t)| (id, t.swarm.peer_count()));
        let counts: BTreeMap<_, _> = counts.filter(|(_, count)| *count > 0).collect();
        if counts != self.calls.crowds().collect() {
            return Err(format!("{counts:?} peers are there, others are counted"));
        }
        let undecided = stages()
            .filter(|s| matches!(s, Stage::Undecided(_)))
            .count();
        if undecided != self.undecided.len() || undecided > limits::UNDECIDED_MAX as usize {
            return Err(format!(
                "{undecided} undecided streams, counted {}",
                self.undecided.len()
            ));
        }
        if self.peer_conns() > self.config.conns_max as usize + OPENING_MAX {
            return Err(format!("{} connections", self.peer_conns()));
        }
        self.audit_conns(now)?;
        self.pace.audit(|conn| self.conn(conn).is_some())?;
        for torrent in self.torrents.values() {
            torrent.swarm.audit()?;
            let is_asking = torrent
                .swarm
                .peers()
                .any(|(_, peer)| peer.open_requests() > 0);
            let is_at_rest = matches!(torrent.state, State::Paused | State::Queued);
            if is_at_rest && torrent.swarm.peer_count() > 0 {
                return Err("a torrent that is paused or queued has peers".to_owned());
            }
            if torrent.state == State::Seeding && is_asking {
                return Err("a seed asks for blocks".to_owned());
            }
        }
        Ok(())
    }

    fn audit_conns(&self, now: Instant) -> Result<(), String> {
        // After a jump of the clock deadlines may have passed that nobody was told of yet.
        let is_due = self.timers.next_deadline().is_some_and(|at| at <= now);
        for (index, (generation, conn)) in &self.conns {
            let id = ConnId {
                index: index as u32,
                generation: *generation,
            };
            let silent = now - conn.last_in;
            let is_due = is_due || self.waits_to_read(id, now);
            if !is_due && silent > limits::IDLE_TIMEOUT + limits::KEEPALIVE_INTERVAL {
                return Err(format!("{} was silent for {silent:?}", conn.remote));
            }
            if conn.outbox.len() > OUTBOX_LEN_MAX {
                return Err(format!("{} B wait for {}", conn.outbox.len(), conn.remote));
            }
            if let Stage::Exchange(exchange) = &conn.stage {
                let swarm = self.swarm(exchange.torrent);
                let is_there = swarm.is_some_and(|s| s.peers().any(|(key, _)| key == exchange.key));
                if !is_there {
                    return Err(format!("{} has no place in its swarm", conn.remote));
                }
            }
        }
        let exchanging = self
            .conns
            .iter()
            .filter(|(_, (_, c))| c.exchange().is_some());
        let peers: usize = self.torrents.values().map(|t| t.swarm.peer_count()).sum();
        let exchanging = exchanging.count();
        if exchanging != peers {
            return Err(format!("{peers} peers on {exchanging} connections"));
        }
        Ok(())
    }
}

/// Streams that are being opened at most: to peers, and to trackers and for links beside them.
const OPENING_MAX: usize =
    (limits::HALF_OPEN_MAX + limits::HALF_OPEN_LINKS_MAX) as usize + limits::ANNOUNCES_MAX;
/// Bytes that may wait for one peer: a full queue of refusals or requests and a plan of payload.
const OUTBOX_LEN_MAX: usize = 17 * 2 * limits::REQUESTS_IN_CLOSE as usize
    + super::PLAN_LEN
    + limits::LINK_UNSENT_LEN_MAX
    + limits::MESSAGE_LEN_MAX as usize;
