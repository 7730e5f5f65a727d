//! The broadcast: who is in the network and in our swarms, told to every evpeer at once.

use std::net::SocketAddr;

use bytes::Bytes;

use crate::base::address::Interfaces;
use crate::base::id::{ConnId, InfoHash};
use crate::base::rng::Rng;
use crate::base::time::Instant;
use crate::wire::ev_peers::{EvPeersError, Reason, Standing};

/// The lists of this host, and its links to other evpeers.
#[derive(Debug)]
pub struct Broadcast {
    interfaces: Interfaces,
    rng: Rng,
    events: std::collections::VecDeque<Event>,
}

/// What a host brings to its broadcast.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The wall clock at the start, milliseconds since 1970: our first epoch.
    pub unix_ms: u64,
    /// The port on which we accept connections.
    pub port: u16,
    /// Random bytes of the system, from which salts are made.
    pub secret: [u8; 16],
    /// For choices.
    pub rng: Rng,
}

/// Which list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum List {
    /// Evpeers, whatever they share.
    Network,
    /// The peers of a swarm.
    Swarm(InfoHash),
}

/// A peer in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// The list.
    pub list: List,
    /// Where it accepts connections.
    pub addr: SocketAddr,
    /// Where it stands now.
    pub standing: Standing,
    /// Whether it is an evpeer.
    pub is_evpeer: bool,
    /// Whether it said so itself.
    pub is_first_hand: bool,
}

/// What the broadcast wants of its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Send this body as an `ev_peers` message.
    Send {
        /// On which link; it may have ended since, and this is its last message.
        link: ConnId,
        /// The body, shared with other links.
        body: Bytes,
    },
    /// A list changed by what another host said.
    Heard(Heard),
    /// The other side ended the link.
    Ended {
        /// Which.
        link: ConnId,
        /// Why.
        reason: Reason,
    },
    /// The other side tells mostly what is not so; the link is ended.
    Distrusted {
        /// Which.
        link: ConnId,
    },
    /// Whether this address is alive would tell us what its teller is worth.
    Doubted {
        /// Which.
        addr: SocketAddr,
    },
}

/// Why a link must end: its other side breaks the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A message that is none.
    #[error(transparent)]
    Format(#[from] EvPeersError),
    /// More than an honest host ever sends.
    #[error("ev_peers flood")]
    Flood,
    /// A message before both sides said hello, or a second hello.
    #[error("ev_peers message out of order")]
    Order,
    /// More swarms than a link has room for.
    #[error("ev_peers with too many swarms")]
    TooManySwarms,
}

impl Broadcast {
    /// A host that knows nobody.
    pub fn new(setup: Setup, now: Instant) -> Self {
        let _ = now;
        Self {
            interfaces: Interfaces::default(),
            rng: setup.rng,
            events: std::collections::VecDeque::new(),
        }
    }

    /// The interfaces of this machine, at the start and after each change.
    pub fn interfaces_found(&mut self, interfaces: &Interfaces) {
        self.interfaces = interfaces.clone();
    }
}
