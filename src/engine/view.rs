//! What the outside is shown of a torrent beyond its [`Snapshot`](super::Snapshot): plain values.

use std::net::SocketAddr;
use std::time::Duration;

use crate::base::choice::Priority;
use crate::base::id::PeerId;
use crate::discovery::candidates::Source;

/// A connected peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerView {
    /// The other end of its stream.
    pub remote: SocketAddr,
    /// Where it accepts connections, if that is known.
    pub listens: Option<SocketAddr>,
    /// The id in its handshake.
    pub peer_id: PeerId,
    /// What it calls itself (BEP 10 `v`), safe to print.
    pub client: Option<String>,
    /// How its address was learned, if that is known.
    pub source: Option<Source>,
    /// Who called whom.
    pub direction: Direction,
    /// Whether it has every piece.
    pub is_seed: bool,
    /// Pieces that it has.
    pub pieces: u32,
    /// Time since the last byte from it.
    pub silent_for: Duration,
    /// Time since its stream began.
    pub age: Duration,
    /// Payload from it a second, at present.
    pub down_bytes_s: u64,
    /// Payload to it a second, at present.
    pub up_bytes_s: u64,
    /// Payload from it.
    pub down_bytes: u64,
    /// Payload to it.
    pub up_bytes: u64,
    /// It chokes us.
    pub chokes_us: bool,
    /// It wants something of us.
    pub wants_us: bool,
    /// We choke it.
    pub choked: bool,
    /// We want something of it.
    pub wanted: bool,
}

/// Who opened a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The peer.
    Incoming,
    /// We.
    Outgoing,
}

/// An evpeer of the network, whatever it shares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostView {
    /// Where it accepts connections.
    pub addr: SocketAddr,
    /// How its address was learned, if that is known.
    pub source: Option<Source>,
    /// Whether it is in the network now, as far as is known; otherwise a former run met it.
    pub is_here: bool,
    /// Time since the last byte from it; `None` if it is not connected.
    pub silent_for: Option<Duration>,
}

/// A tracker of a torrent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackerView {
    /// Its address, without credentials.
    pub url: String,
    /// Its tier (BEP 12), counted from 0.
    pub tier: usize,
    /// What came of the last announce; `None` if it was not asked yet, or has not answered yet.
    pub heard: Option<Heard>,
}

/// What a tracker said last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It answered.
    Answered {
        /// Addresses that it named.
        peers: u32,
        /// Its warning, if it sent one.
        warning: Option<String>,
    },
    /// It did not, or refused.
    Failed {
        /// What went wrong, and when it is tried again.
        message: String,
    },
}

/// A file of a torrent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileView {
    /// By which its user may name it: 1 for the first, pad files not counted.
    pub number: u32,
    /// How much it is wanted.
    pub priority: Priority,
    /// Its path below the output folder.
    pub path: String,
    /// Its bytes.
    pub length: u64,
    /// Its bytes in verified pieces.
    pub done_bytes: u64,
}
