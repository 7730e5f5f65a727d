//! What a swarm wants done after an event.

use bytes::Bytes;

use crate::base::id::{ConnId, PieceIndex};
use crate::base::limits;
use crate::base::slot::Slot;
use crate::base::time::Instant;
use crate::swarm::peer::Origin;
use crate::wire::message::Outgoing;

/// One thing to be done, in order.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Queue a message.
    Send(ConnId, Outgoing),
    /// Requests that have not left are void: the peer choked us.
    DropRequests(ConnId),
    /// New pieces to tell, or blocks to serve, wait for this connection.
    Flush(ConnId),
    /// At this time [`super::Swarm::news_due`] wants to be called.
    News(Instant),
    /// End a connection.
    Close(ConnId, Departure),
    /// This sender's data was proven wrong: refuse it from now on.
    Ban(Origin, PieceIndex),
    /// `piece` will be written soon.
    Prepare(PieceIndex),
    /// A block that was collected aside goes to storage.
    Store(Slot, Bytes),
    /// Every block of `piece` is stored: hash it.
    Check(PieceIndex),
    /// A piece of ours turned out to be wrong: it is lost.
    Spoilt(PieceIndex),
    /// The last missing piece is verified.
    Completed,
    /// The peer of this connection has every piece; said once.
    PeerComplete(ConnId),
}

/// Why a peer has to go, other than by its own fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Departure {
    /// It has everything and so have we.
    #[error("both sides have everything")]
    Redundant,
}

/// What a peer sent that BEP 3, BEP 6 or the metainfo forbids. Every variant ends the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A piece index past the end.
    #[error("piece {index} of a torrent of {count}")]
    PieceOutOfRange {
        /// The index.
        index: u32,
        /// Pieces of the torrent.
        count: u32,
    },
    /// A block that is not inside its piece.
    #[error("block of {len} B at {begin} is not inside piece {piece}")]
    BlockOutOfRange {
        /// The piece.
        piece: u32,
        /// First byte.
        begin: u32,
        /// Bytes.
        len: u32,
    },
    /// A request for nothing, or for more than anybody serves.
    #[error("request of {len} B, limit {} B", limits::REQUEST_LEN_MAX)]
    RequestLen {
        /// Bytes.
        len: u32,
    },
    /// A bitfield of wrong length or with spare bits set.
    #[error("bitfield of {len} B does not fit {count} pieces")]
    BadBitfield {
        /// Bytes.
        len: usize,
        /// Pieces of the torrent.
        count: u32,
    },
    /// A bitfield, have-all or have-none after other messages that brings nothing new, or takes
    /// pieces back.
    #[error("bitfield after other messages that does not only add pieces")]
    LateBitfield,
    /// A message of the fast extension without agreement on it.
    #[error("fast extension message without negotiation")]
    FastNotAgreed,
    /// A block of another length than was asked for.
    #[error("block of {len} B where {asked} B were asked for")]
    WrongBlockLen {
        /// Bytes announced.
        len: u32,
        /// Bytes asked for.
        asked: u32,
    },
    /// Too many blocks that nobody asked for.
    #[error("{blocks} blocks, {bytes} B, that were not asked for")]
    Unasked {
        /// Blocks.
        blocks: u32,
        /// Their bytes.
        bytes: u64,
    },
    /// Too many requests for pieces that we do not have.
    #[error("{count} requests for pieces that we do not have")]
    LackingRequests {
        /// Requests.
        count: u32,
    },
    /// Too many requests at all.
    #[error("more than {} requests beyond our limit", limits::REQUESTS_IN_CLOSE)]
    RequestFlood,
    /// It rejects whatever it is asked for.
    #[error("rejects whatever it is asked for")]
    RejectFlood,
    /// Too many messages of unknown id.
    #[error("too many messages of unknown id")]
    UnknownFlood,
    /// Choke or interest changes too often.
    #[error("choke or interest changes too often")]
    Flapping,
}

impl Fault {
    /// Whether the address may be dialled again: some old clients send a late bitfield.
    pub fn may_retry(self) -> bool {
        match self {
            Self::LateBitfield | Self::WrongBlockLen { .. } | Self::Unasked { .. } => true,
            Self::PieceOutOfRange { .. }
            | Self::BlockOutOfRange { .. }
            | Self::RequestLen { .. }
            | Self::BadBitfield { .. }
            | Self::FastNotAgreed
            | Self::LackingRequests { .. }
            | Self::RequestFlood
            | Self::RejectFlood
            | Self::UnknownFlood
            | Self::Flapping => false,
        }
    }
}
