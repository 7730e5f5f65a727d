//! What an overlay is told and wants: plain values.

use std::net::SocketAddr;

use crate::base::id::{ConnId, PeerId};
use crate::wire::ev_peers::Reason;

/// A stream to another evpeer, after both extension handshakes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    /// The host at the other end: a peer id is of one process.
    pub peer: PeerId,
    /// Where that host accepts connections: what we dialled, or its port at the address from
    /// which it came.
    pub addr: SocketAddr,
    /// What the stream is for.
    pub purpose: Purpose,
}

/// What a stream is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A swarm: it is there whether it carries a link or not.
    Swarm,
    /// Links alone: it is closed when it carries none.
    Overlay,
}

/// What to do with an offer of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Open the link.
    Accept,
    /// Say good bye.
    Refuse(Reason),
    /// Say nothing: the other side takes the offer back by itself.
    Ignore,
}

/// What the overlay wants of its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Dial this address for a stream of [`Purpose::Overlay`].
    Dial(SocketAddr),
    /// Open a link on this stream: the first hello is ours.
    Offer {
        /// Which.
        conn: ConnId,
        /// Whether we drew the other side at random.
        is_drawn: bool,
    },
    /// End the link on this stream, if it carries one, and close it if it is for links alone. The
    /// overlay forgets a stream for links alone with this.
    Drop {
        /// Which.
        conn: ConnId,
        /// What to tell the other side.
        reason: Reason,
    },
}
