//! What shipped clients differ in.

use std::net::SocketAddr;

/// What a client has when it joins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holds {
    /// No piece.
    Nothing,
    /// Every piece.
    All,
    /// These pieces.
    Pieces(Vec<u32>),
}

/// How a client says what it has, when a stream begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// As BEP 6 and BEP 3 say.
    Plain,
    /// A bitfield that leaves some pieces out, and `have`s for those (libtorrent's
    /// `lazy_bitfields`).
    Lazy,
    /// A `have` for a piece or two first, the bitfield later (aria2 1.36).
    Late,
}

/// What shipped clients differ in. The default is a polite client of today.
#[derive(Clone, Debug)]
pub struct Manners {
    /// Peers that it dials, again and again.
    pub dials: Vec<SocketAddr>,
    /// What it has.
    pub holds: Holds,
    /// It downloads what it lacks.
    pub wants: bool,
    /// It offers the fast extension (BEP 6).
    pub fast: bool,
    /// It offers the extension protocol (BEP 10).
    pub extended: bool,
    /// How it says what it has.
    pub opening: Opening,
    /// It tells everybody of each new piece, also those who have it.
    pub redundant_haves: bool,
    /// Requests that it has open with a peer.
    pub pipeline: usize,
    /// Peers that it serves at a time; all if this is [`usize::MAX`].
    pub slots: usize,
    /// It chokes a peer for a while after so many blocks.
    pub chokes_after: Option<u32>,
    /// Bytes per second that it sends at most, all streams together; otherwise what its line
    /// takes.
    pub up_bytes_s: Option<u64>,
    /// It closes streams to seeds while it is one (libtorrent's `close_redundant_connections`).
    pub cuts_seeds: bool,
    /// Requests that it says it queues (BEP 10 `reqq`); not said if not given.
    pub reqq: Option<u32>,
}

impl Default for Manners {
    fn default() -> Self {
        Self {
            dials: Vec::new(),
            holds: Holds::Nothing,
            wants: true,
            fast: true,
            extended: true,
            opening: Opening::Plain,
            redundant_haves: false,
            pipeline: 64,
            slots: 4,
            chokes_after: None,
            up_bytes_s: None,
            cuts_seeds: true,
            reqq: Some(500),
        }
    }
}
