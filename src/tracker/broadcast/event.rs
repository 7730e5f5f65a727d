//! What a broadcast is told and tells: plain values.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;

use crate::base::id::{ConnId, InfoHash};
use crate::base::rng::Rng;
use crate::wire::ev_peers::{EvPeersError, Reason, Standing};

/// What a host brings to its broadcast.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The wall clock at the start, milliseconds since 1970: our first epoch.
    pub unix_ms: u64,
    /// The port on which we accept connections.
    pub port: u16,
    /// The only address that we use, if there is one.
    pub bind: Option<IpAddr>,
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
    /// Whether it said so itself, or we saw it.
    pub is_first_hand: bool,
    /// The address of the host that told of it first, if its link is still there.
    pub teller: Option<IpAddr>,
}

/// What the broadcast wants of its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Send this body as an `ev_peers` message.
    Send {
        /// On which stream; its link may have ended since, and this be the last message.
        link: ConnId,
        /// The body, shared with other links.
        body: Bytes,
    },
    /// The other side said hello too: the link carries news from now on.
    Met {
        /// Which.
        link: ConnId,
    },
    /// A list changed by what another host said, or by time.
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
    /// Somebody says that this evpeer is gone and somebody that it is there: we shall see, now or
    /// when our connection to it ends.
    Disputed {
        /// Which.
        addr: SocketAddr,
    },
}

/// Why a link was ended: its other side breaks the rules.
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

/// What happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Times that news left, over all links together.
    pub flushes: u64,
    /// Bodies that were encoded for them, and bodies that were sent.
    pub bodies: u64,
    /// Of those, sent: the rest was shared.
    pub bodies_sent: u64,
    /// Entries that were news here.
    pub news: u64,
    /// Entries that were known here already.
    pub repeated: u64,
    /// Entries that were not believed or not kept.
    pub refused: u64,
    /// Rounds of repair that we began.
    pub repairs: u64,
}
