//! The tracker that every peer is: announces and scrapes over HTTP and UDP, on the peer port.
//!
//! Requests go in with their sender, bytes to answer with come out; what the engine should know
//! is polled. The swarms are in the [`Registry`], which the server feeds and reads.

use std::collections::VecDeque;
use std::net::SocketAddr;

use bytes::Bytes;

use super::asker::Asker;
use super::registry::Registry;
use super::secret::Secret;
use crate::base::id::{InfoHash, PeerId};
use crate::base::time::Instant;
use crate::wire::announce::Event;
use crate::wire::request::Request;

/// Whose swarms are tracked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Openness {
    /// Those that the registry was told to track.
    #[default]
    Closed,
    /// Any that is announced.
    Open,
}

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
    /// The torrent file of this swarm, which is not private and not necessarily ours; the caller
    /// makes the answer with [`wire::request::respond`](crate::wire::request::respond).
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
    /// A peer announced itself and is listed; or it said that it leaves.
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

/// The tracker.
#[derive(Debug)]
pub struct Server {
    /// All swarms and peers.
    pub registry: Registry,
    secret: Secret,
    events: VecDeque<ServerEvent>,
}

impl Server {
    /// A tracker without swarms. `secret` is the shell's, from the system's entropy.
    pub fn new(secret: Secret, openness: Openness) -> Self {
        let _ = openness;
        Self {
            registry: Registry::new(&secret),
            secret,
            events: VecDeque::new(),
        }
    }

    /// Answers a request that came in on a stream.
    pub fn http(&mut self, request: &Request, asker: &Asker<'_>, now: Instant) -> HttpReply {
        let _ = (request, asker, now, &self.secret);
        todo!()
    }

    /// Answers a datagram (BEP 15), if it is to be answered: not what is no tracker's request,
    /// what has no valid connection id, or what is too much.
    ///
    /// uTP and DHT datagrams can be told apart before: the first byte of tracker requests is 0 or
    /// has `e` as its second hex digit.
    pub fn datagram(&mut self, bytes: &[u8], asker: &Asker<'_>, now: Instant) -> Option<Bytes> {
        let _ = (bytes, asker, now);
        todo!()
    }

    /// The next thing that the engine should know.
    pub fn poll_event(&mut self) -> Option<ServerEvent> {
        self.events.pop_front()
    }
}
