//! Questions to trackers over UDP (BEP 15): one exchange an announce, all on our port's datagrams.
//!
//! [`UdpExchange`] knows the protocol; here it gets its addresses, its time and its datagrams, and
//! connection ids are kept for later announces to the same tracker.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use bytes::Bytes;

use super::announce::{unreachable, usable_addresses};
use super::timers::TimerId;
use super::{Action, Engine, Lookup};
use crate::base::id::TorrentId;
use crate::base::rng::Rng;
use crate::base::time::Instant;
use crate::tracker::client::AnnounceId;
use crate::tracker::guard::Origin;
use crate::tracker::udp::{Connection, Received, UdpExchange};
use crate::wire::udp_tracker::UdpAnnounce;
use crate::wire::url::TrackerUrl;

/// An announce whose tracker is being looked up.
#[derive(Debug)]
pub(super) struct UdpQuestion {
    pub torrent: TorrentId,
    pub id: AnnounceId,
    /// It tells that we leave: the answer is of no interest.
    pub farewell: bool,
    pub url: TrackerUrl,
    pub announce: UdpAnnounce,
}

/// The exchanges that are under way, and what earlier ones left.
#[derive(Debug)]
pub(super) struct UdpTrackers {
    running: BTreeMap<(TorrentId, AnnounceId), Running>,
    /// At most [`CONNECTIONS_MAX`].
    connections: BTreeMap<SocketAddr, Connection>,
    /// Trackers that refuse the announces of those who wait; at most [`CONNECTIONS_MAX`].
    plain: BTreeSet<SocketAddr>,
    /// When the earliest timer fires.
    armed: Instant,
}

#[derive(Debug)]
struct Running {
    farewell: bool,
    exchange: UdpExchange,
}

impl Default for UdpTrackers {
    fn default() -> Self {
        Self {
            running: BTreeMap::new(),
            connections: BTreeMap::new(),
            plain: BTreeSet::new(),
            armed: Instant::NEVER,
        }
    }
}

impl UdpTrackers {
    /// Exchanges that are under way.
    pub fn len(&self) -> usize {
        self.running.len()
    }

    /// Ends the exchange of an announce.
    pub fn forget(&mut self, torrent: TorrentId, id: AnnounceId) {
        self.running.remove(&(torrent, id));
    }

    /// Ends the exchanges of a torrent, but for farewells.
    pub fn forget_torrent(&mut self, torrent: TorrentId) {
        let stays = |&(of, _): &(TorrentId, AnnounceId), running: &mut Running| {
            of != torrent || running.farewell
        };
        self.running.retain(stays);
    }

    /// The tracker has answered an announce.
    fn ended(&mut self, key: (TorrentId, AnnounceId), tracker: SocketAddr) {
        let running = self.running.remove(&key);
        let is_plain = running.is_some_and(|running| running.exchange.is_plain());
        if is_plain && self.plain.len() < CONNECTIONS_MAX {
            self.plain.insert(tracker);
        }
    }

    fn keep(&mut self, tracker: SocketAddr, connection: Connection, now: Instant) {
        self.connections.retain(|_, known| known.is_good(now));
        if self.connections.len() < CONNECTIONS_MAX {
            self.connections.insert(tracker, connection);
        }
    }
}

impl Engine {
    pub(super) fn ask_by_udp(&mut self, question: UdpQuestion) {
        let (host, port) = (question.url.host().to_owned(), question.url.port());
        self.look_up(Lookup::UdpTracker(Box::new(question)), host, port);
    }

    pub(super) fn udp_tracker_resolved(
        &mut self,
        question: UdpQuestion,
        answer: Result<Vec<SocketAddr>, String>,
        now: Instant,
    ) {
        let UdpQuestion {
            torrent,
            id,
            farewell,
            url,
            mut announce,
        } = question;
        if !farewell && !self.is_announcing(torrent, id) {
            return;
        }
        let addresses = match usable_addresses(&url, answer, Origin::Given) {
            Ok(addresses) => addresses,
            Err(message) => {
                return self.announce_failed_for(torrent, id, unreachable(message), now);
            }
        };
        let known = addresses.iter().find_map(|addr| {
            let connection = self.udp_trackers.connections.get(addr)?;
            Some((*addr, *connection))
        });
        let is_plain = |addr: &SocketAddr| self.udp_trackers.plain.contains(addr);
        announce.is_paused &= !addresses.iter().any(is_plain);
        let rng = Rng::new(self.rng.next_u64());
        let exchange = UdpExchange::new(addresses, announce, url.url_data(), known, rng, now);
        let running = Running { farewell, exchange };
        self.udp_trackers.running.insert((torrent, id), running);
        self.udp_trackers_due(now);
    }

    /// A datagram came in on our port. Whether it belonged to one of our announces.
    pub(super) fn udp_tracker_reply(
        &mut self,
        from: SocketAddr,
        bytes: &[u8],
        now: Instant,
    ) -> bool {
        let mut running = self.udp_trackers.running.iter_mut();
        let received =
            running.find_map(
                |(&key, running)| match running.exchange.received(from, bytes, now) {
                    Received::Foreign => None,
                    received => Some((key, received)),
                },
            );
        let Some(((torrent, id), received)) = received else {
            return false;
        };
        match received {
            Received::Foreign | Received::Useless => {}
            Received::Connected(tracker, connection) => {
                self.udp_trackers.keep(tracker, connection, now);
            }
            Received::Ended(tracker, result) => {
                self.udp_trackers.ended((torrent, id), tracker);
                match result {
                    Ok(reply) => self.announce_answered(torrent, id, reply, tracker, now),
                    Err(error) => self.announce_failed_for(torrent, id, error.into(), now),
                }
            }
        }
        self.udp_trackers_due(now);
        true
    }

    /// Sends what is due, ends what took too long, and arms the timer.
    pub(super) fn udp_trackers_due(&mut self, now: Instant) {
        let mut over = Vec::new();
        let mut next = Instant::NEVER;
        for (&key, running) in &mut self.udp_trackers.running {
            if running.exchange.is_over(now) {
                over.push(key);
                continue;
            }
            while let Some((to, bytes)) = running.exchange.poll_datagram(now) {
                self.actions.push_back(Action::Datagram {
                    to,
                    from: None,
                    bytes: Bytes::from(bytes),
                });
            }
            next = next.min(running.exchange.next_deadline());
        }
        for (torrent, id) in over {
            self.udp_trackers.forget(torrent, id);
            let failure = unreachable("no answer by UDP".to_owned());
            self.announce_failed_for(torrent, id, failure, now);
        }
        if next < self.udp_trackers.armed {
            self.udp_trackers.armed = next;
            self.timers.arm(TimerId::UdpTrackers, next);
        }
    }

    /// The timer that [`Self::udp_trackers_due`] armed has fired.
    pub(super) fn udp_trackers_timer(&mut self, now: Instant) {
        if self.udp_trackers.armed <= now {
            self.udp_trackers.armed = Instant::NEVER;
            self.udp_trackers_due(now);
        }
    }
}

/// Connection ids that are kept at most; each is of use for a minute.
const CONNECTIONS_MAX: usize = 256;
