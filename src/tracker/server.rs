//! The tracker that every peer is: announces and scrapes over HTTP and UDP, on the peer port.
//!
//! Requests go in with their sender, bytes to answer with come out; what the engine should know
//! is polled. The swarms are in the [`Registry`], which the server feeds and reads.
//!
//! Nobody is believed about its address: HTTP proves it by the connection, UDP by the connection
//! id (BEP 15), before which no answer is longer than what asked for it.

mod datagram;
mod http;

use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;

use super::asker::{Asker, Nearness};
use super::budget::{Budget, Rates};

use super::registry::{
    Announced, ChangeKind, Counts, Families, Heard, Openness, Registry, Sighting,
};
use super::secret::Secret;
use crate::base::id::{InfoHash, PeerId};
use crate::base::limits::TOLD_PEERS_DEFAULT;
use crate::base::time::Instant;
use crate::wire::announce::Event;
use crate::wire::answer::Peers;
use crate::wire::ev_peers::Standing;
use crate::wire::query::Form;

/// The answer to an HTTP request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HttpReply {
    /// Head and body.
    Whole {
        /// What to send.
        bytes: Bytes,
        /// What happens to the stream after that.
        then: Then,
    },
    /// The torrent file of this swarm, which is not private, but not necessarily one of ours.
    /// The caller answers with [`respond`](crate::wire::request::respond).
    Torrent(InfoHash),
}

/// What happens to a stream after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Further requests may come.
    KeepAlive,
    /// It is closed.
    Close,
}

/// What the engine should know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerEvent {
    /// A peer announced itself and is listed, or said that it leaves.
    Announced {
        /// The swarm.
        info_hash: InfoHash,
        /// Where the peer accepts peers.
        addr: SocketAddr,
        /// What it calls itself.
        peer_id: PeerId,
        /// Whether it has everything.
        is_seed: bool,
        /// Why it announced out of turn.
        event: Option<Event>,
        /// Whether it was not known before, or by hearsay only.
        is_new: bool,
    },
}

/// How dialling a peer went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// It answered.
    Reached,
    /// It did not, or its host refused.
    Unreached,
}

/// The tracker.
#[derive(Debug)]
pub struct Server {
    /// All swarms and peers.
    pub registry: Registry,
    secret: Secret,
    budget: Budget,
    events: VecDeque<ServerEvent>,
    /// Who announced itself from an address at which it was not to be reached.
    unreached: BTreeSet<SocketAddr>,
    /// Peers of the answer in work, kept for its memory.
    told: Peers,
}

impl Server {
    /// A tracker without swarms. `secret` is the shell's, from the system's entropy.
    pub fn new(secret: Secret, openness: Openness) -> Self {
        Self {
            registry: Registry::new(&secret, openness),
            secret,
            budget: Budget::new(Rates::ALONE),
            events: VecDeque::new(),
            unreached: BTreeSet::new(),
            told: Peers::default(),
        }
    }

    /// Dialling who is listed at `addr` went so: who could not be reached is told with its next
    /// announce.
    pub fn dialled(&mut self, addr: SocketAddr, reach: Reach) {
        match reach {
            Reach::Reached => {
                self.unreached.remove(&addr);
            }
            Reach::Unreached if self.unreached.len() < UNREACHED_MAX => {
                self.unreached.insert(addr);
            }
            Reach::Unreached => {}
        }
    }

    /// Sets how many requests a second are answered.
    pub fn set_rates(&mut self, rates: Rates) {
        self.budget.set_rates(rates);
    }

    /// The next thing that the engine should know. To be polled after each request: beyond
    /// [`EVENTS_MAX`] the oldest are lost.
    pub fn poll_event(&mut self) -> Option<ServerEvent> {
        self.events.pop_front()
    }

    /// Lists who announces itself and fills `self.told`; says what else to answer. `None` if the
    /// swarm is not tracked.
    fn announce(
        &mut self,
        announce: &Announce,
        asker: &Asker<'_>,
        nearness: Nearness,
        now: Instant,
    ) -> Option<(Counts, Duration)> {
        let is_seed = announce.left == Some(0);
        let addr = asker.listed_at(&announce.claimed, announce.port);
        let announced = Announced {
            sighting: Sighting {
                addr,
                peer_id: Some(announce.peer_id),
                key: announce.key,
                is_seed: Some(is_seed),
                is_paused: announce.is_paused && !is_seed,
                heard: Heard::Announce,
            },
            event: announce.event,
            count: announce.count,
            families: announce.families,
        };
        self.told.begin(announce.form);
        if announce.event != Some(Event::Stopped) {
            self.ask_links(announce.info_hash, asker, now);
        }
        let asker = (&asker.ears(), nearness);
        let info_hash = announce.info_hash;
        let outcome = self
            .registry
            .announced(info_hash, &announced, asker, now, &mut self.told)?;
        let kind = outcome.change.map(|change| change.kind);
        if outcome.is_listed || kind == Some(ChangeKind::Left) {
            if self.events.len() == EVENTS_MAX {
                self.events.pop_front();
            }
            self.events.push_back(ServerEvent::Announced {
                info_hash,
                addr,
                peer_id: announce.peer_id,
                is_seed,
                event: announce.event,
                is_new: kind == Some(ChangeKind::Joined),
            });
        }
        Some((outcome.counts, outcome.interval))
    }

    /// Tracks a swarm that somebody asks for if an evpeer that we have a link with is in it, and
    /// lists that one.
    fn ask_links(&mut self, info_hash: InfoHash, asker: &Asker<'_>, now: Instant) {
        let Some(links) = asker
            .links
            .filter(|_| self.registry.may_ask(info_hash, now))
        else {
            return;
        };
        for (addr, standing) in links.linked_in(info_hash) {
            let sighting = Sighting {
                addr,
                peer_id: None,
                key: None,
                is_seed: Some(standing == Standing::Seed),
                is_paused: standing == Standing::PartialSeed,
                heard: Heard::Announce,
            };
            self.registry
                .named(info_hash, &sighting, asker.ip(), asker.interfaces, now);
        }
    }
}

/// An announce, however it came.
#[derive(Clone, Copy, Debug)]
struct Announce {
    info_hash: InfoHash,
    peer_id: PeerId,
    /// The addresses that it says it has.
    claimed: [Option<IpAddr>; 3],
    port: u16,
    key: Option<u32>,
    left: Option<u64>,
    event: Option<Event>,
    is_paused: bool,
    /// Peers to be told at most.
    count: usize,
    families: Families,
    /// How they are told.
    form: Form,
}

/// How many peers are told to who wants `numwant`.
fn told_count(numwant: Option<u32>, max: usize) -> usize {
    let wanted = numwant.map_or(TOLD_PEERS_DEFAULT, |count| {
        usize::try_from(count).unwrap_or(usize::MAX)
    });
    wanted.min(max)
}

/// Why an announce for a swarm that is not tracked here is refused.
const NOT_TRACKED: &str = "this peer does not track that torrent";
/// Events that may wait to be polled at most.
pub const EVENTS_MAX: usize = 1024;
/// Peers that could not be reached that are remembered at most.
const UNREACHED_MAX: usize = 1024;

#[cfg(test)]
mod tests;
