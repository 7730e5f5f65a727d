//! From a place in a piece to places in windows.

use crate::base::id::{PieceIndex, TorrentId};
use crate::base::limits::WINDOW_LEN;
use crate::meta::geometry::Geometry;

/// Names one window: a run of [`WINDOW_LEN`] bytes of one file (less at its end).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct WindowKey {
    pub torrent: TorrentId,
    pub file: u32,
    /// Which run of the file, from 0.
    pub index: u32,
}

impl WindowKey {
    /// Where the window begins in its file.
    pub fn offset(self) -> u64 {
        u64::from(self.index) * WINDOW_LEN
    }

    /// How long it is in a file of `file_len` bytes.
    pub fn len(self, file_len: u64) -> u32 {
        // At most WINDOW_LEN, which fits.
        (file_len - self.offset()).min(WINDOW_LEN) as u32
    }
}

/// A run of bytes of a piece that lies in one window, or in a pad file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    /// First byte, counted from the start of the piece.
    pub begin: u32,
    pub len: u32,
    pub place: Place,
}

/// Where a chunk lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Nowhere: it reads as zeros.
    Pad,
    Window {
        key: WindowKey,
        /// First byte, counted from the start of the window.
        start: u32,
    },
}

/// The chunks of `len` bytes of `piece` from `begin` on, in order.
pub(super) fn chunks(
    geometry: &Geometry,
    torrent: TorrentId,
    piece: PieceIndex,
    begin: u32,
    len: u32,
) -> impl Iterator<Item = Chunk> + '_ {
    let mut at = begin;
    geometry
        .spans(piece, begin, len)
        .flat_map(move |span| {
            let mut done = 0;
            std::iter::from_fn(move || {
                if done == span.len {
                    return None;
                }
                let (place, len) = if span.pad {
                    (Place::Pad, span.len)
                } else {
                    let offset = span.offset + u64::from(done);
                    let start = offset % WINDOW_LEN;
                    let key = WindowKey {
                        torrent,
                        file: span.file,
                        index: (offset / WINDOW_LEN) as u32,
                    };
                    let len = u64::from(span.len - done).min(WINDOW_LEN - start);
                    let start = start as u32;
                    (Place::Window { key, start }, len as u32)
                };
                done += len;
                Some((place, len))
            })
        })
        .map(move |(place, len)| {
            let begin = at;
            at += len;
            Chunk { begin, len, place }
        })
}
