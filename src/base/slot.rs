//! A place in a torrent's data: the value that exchange and storage share.

use super::id::{PieceIndex, TorrentId};

/// A run of bytes inside one piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot {
    /// The torrent that the bytes belong to.
    pub torrent: TorrentId,
    /// The piece.
    pub piece: PieceIndex,
    /// First byte, counted from the start of the piece.
    pub begin: u32,
    /// Number of bytes.
    pub len: u32,
}
