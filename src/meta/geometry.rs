//! Piece, block, byte and file arithmetic of one torrent (BEP 3); nothing else does it.
//!
//! ```text
//! files    │ a.bin          │b│ (empty) │ c.bin                    │
//! bytes    0 ────────────────────────────────────────────── length()
//! pieces   │ 0          │ 1          │ 2          │ 3             (shorter) │
//! blocks   │0│1│2│3│..  │            BLOCK_LEN each, the last of a piece may be shorter
//! ```

use std::ops::Range;

use crate::base::id::PieceIndex;
use crate::base::limits::{BLOCK_LEN, PIECE_LEN_MAX, PIECES_MAX};

/// How the data of a torrent is cut: into pieces and blocks one way, into files the other.
///
/// There are at most [`PIECES_MAX`] pieces of at most [`PIECE_LEN_MAX`] bytes, so that every
/// offset fits 64 bits with room to spare and every length inside a piece fits 32.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Geometry {
    length: u64,
    piece_len: u32,
    piece_count: u32,
    files: Box<[Extent]>,
}

/// What the bytes of a file in the list are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// A file on disk.
    Data,
    /// Zeros that align the file that follows (BEP 47); served, but never on disk.
    Pad,
}

/// A run of bytes inside one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Index of the file.
    pub file: u32,
    /// First byte, counted from the start of the file.
    pub offset: u64,
    /// Number of bytes; never 0.
    pub len: u32,
    /// Whether these are zeros that no disk holds.
    pub pad: bool,
}

/// Why lengths do not make a torrent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GeometryError {
    /// A piece length out of bounds.
    #[error("piece length {len}, allowed are 1 to {PIECE_LEN_MAX}")]
    PieceLen {
        /// The length given.
        len: i64,
    },
    /// The files add up to more than a signed 64-bit number holds.
    #[error("lengths of the files add up to more than 2^63 - 1 B")]
    LengthOverflow,
    /// The data would be cut into too many pieces.
    #[error("{length} B in pieces of {piece_len} B are {count} pieces, limit {PIECES_MAX}")]
    TooManyPieces {
        /// Bytes of all files.
        length: u64,
        /// Bytes of a piece.
        piece_len: u32,
        /// The pieces that they make.
        count: u64,
    },
}

/// Where a file lies in the torrent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Extent {
    offset: u64,
    len: u64,
    kind: FileKind,
}

impl Extent {
    fn end(self) -> u64 {
        self.offset + self.len
    }
}

impl Geometry {
    /// Lays `files`, given by length and kind, end to end and cuts them into pieces.
    ///
    /// # Errors
    /// Lengths that BEP 3 or our limits rule out.
    pub fn new(
        piece_len: i64,
        files: impl IntoIterator<Item = (u64, FileKind)>,
    ) -> Result<Self, GeometryError> {
        let in_bounds = u32::try_from(piece_len).ok();
        let piece_len = in_bounds
            .filter(|len| (1..=PIECE_LEN_MAX).contains(len))
            .ok_or(GeometryError::PieceLen { len: piece_len })?;
        let mut length = 0;
        let mut extents = Vec::new();
        for (len, kind) in files {
            let offset = length;
            extents.push(Extent { offset, len, kind });
            length = offset
                .checked_add(len)
                .filter(|&end| end <= i64::MAX as u64)
                .ok_or(GeometryError::LengthOverflow)?;
        }
        let count = length.div_ceil(u64::from(piece_len));
        if count > u64::from(PIECES_MAX) {
            return Err(GeometryError::TooManyPieces {
                length,
                piece_len,
                count,
            });
        }
        Ok(Self {
            length,
            piece_len,
            piece_count: count as u32,
            files: extents.into(),
        })
    }

    /// Bytes of all files, pad files included.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Number of pieces; 0 if all files are empty.
    pub fn piece_count(&self) -> u32 {
        self.piece_count
    }

    /// Bytes of every piece but the last.
    pub fn nominal_piece_len(&self) -> u32 {
        self.piece_len
    }

    /// Bytes of `piece`.
    ///
    /// # Panics
    /// If there is no such piece.
    pub fn piece_len(&self, piece: PieceIndex) -> u32 {
        self.assert_piece(piece);
        let rest = self.length - self.offset(piece, 0);
        rest.min(u64::from(self.piece_len)) as u32
    }

    /// Number of blocks of `piece`.
    ///
    /// # Panics
    /// If there is no such piece.
    pub fn block_count(&self, piece: PieceIndex) -> u32 {
        self.piece_len(piece).div_ceil(BLOCK_LEN)
    }

    /// Bytes of block number `block` of `piece`.
    ///
    /// # Panics
    /// If there is no such block.
    pub fn block_len(&self, piece: PieceIndex, block: u32) -> u32 {
        let len = self.piece_len(piece);
        let blocks = len.div_ceil(BLOCK_LEN);
        assert!(block < blocks, "block {block} of {blocks}");
        (len - block * BLOCK_LEN).min(BLOCK_LEN)
    }

    /// Number of the block that byte `begin` of a piece lies in.
    pub fn block_at(&self, begin: u32) -> u32 {
        begin / BLOCK_LEN
    }

    /// Where byte `begin` of `piece` lies in the torrent.
    ///
    /// # Panics
    /// If there is no such piece.
    pub fn offset(&self, piece: PieceIndex, begin: u32) -> u64 {
        self.assert_piece(piece);
        u64::from(piece.0) * u64::from(self.piece_len) + u64::from(begin)
    }

    /// Whether `len` bytes from `begin` lie inside `piece`; any numbers may be asked about.
    ///
    /// A piece that does not exist contains nothing, and nothing is contained nowhere.
    pub fn contains(&self, piece: PieceIndex, begin: u32, len: u32) -> bool {
        piece.0 < self.piece_count
            && len > 0
            && u64::from(begin) + u64::from(len) <= u64::from(self.piece_len(piece))
    }

    /// The runs of file bytes that make up `len` bytes of `piece` from `begin`, in order.
    ///
    /// # Panics
    /// If the piece does not contain these bytes.
    pub fn spans(&self, piece: PieceIndex, begin: u32, len: u32) -> Spans<'_> {
        assert!(
            self.contains(piece, begin, len),
            "{len} B from {begin} are not in piece {piece}"
        );
        let offset = self.offset(piece, begin);
        Spans {
            files: &self.files,
            file: self.files.partition_point(|file| file.end() <= offset),
            offset,
            left: len,
        }
    }

    /// Number of files, pad files included.
    pub fn file_count(&self) -> u32 {
        self.files.len() as u32
    }

    /// Bytes of file `file`.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn file_len(&self, file: u32) -> u64 {
        self.files[file as usize].len
    }

    /// What the bytes of file `file` are.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn file_kind(&self, file: u32) -> FileKind {
        self.files[file as usize].kind
    }

    /// Where file `file` begins in the torrent.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn file_offset(&self, file: u32) -> u64 {
        self.files[file as usize].offset
    }

    /// The pieces that hold bytes of file `file`; none if it is empty.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn pieces_of_file(&self, file: u32) -> Range<u32> {
        let extent = self.files[file as usize];
        let piece_len = u64::from(self.piece_len);
        let first = (extent.offset / piece_len) as u32;
        if extent.len == 0 {
            return first..first;
        }
        first..extent.end().div_ceil(piece_len) as u32
    }

    /// Bytes that a disk holds when the torrent is complete: all but the pad files.
    pub fn data_len(&self) -> u64 {
        let on_disk = self.files.iter().filter(|file| file.kind == FileKind::Data);
        on_disk.map(|file| file.len).sum()
    }

    fn assert_piece(&self, piece: PieceIndex) {
        let count = self.piece_count;
        assert!(piece.0 < count, "piece {piece} of {count}");
    }
}

/// The spans of a run of bytes; see [`Geometry::spans`].
#[derive(Clone, Debug)]
pub struct Spans<'g> {
    files: &'g [Extent],
    /// Index of the file that holds the next byte, or of an empty one before it.
    file: usize,
    /// Where the next byte lies in the torrent.
    offset: u64,
    left: u32,
}

impl Iterator for Spans<'_> {
    type Item = Span;

    fn next(&mut self) -> Option<Span> {
        if self.left == 0 {
            return None;
        }
        while self.files[self.file].end() <= self.offset {
            self.file += 1;
        }
        let file = self.files[self.file];
        let len = (file.end() - self.offset).min(u64::from(self.left)) as u32;
        let span = Span {
            file: self.file as u32,
            offset: self.offset - file.offset,
            len,
            pad: file.kind == FileKind::Pad,
        };
        self.offset += u64::from(len);
        self.left -= len;
        Some(span)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    fn data(piece_len: i64, lens: &[u64]) -> Geometry {
        let files = lens.iter().map(|&len| (len, FileKind::Data));
        Geometry::new(piece_len, files).unwrap()
    }

    #[test]
    fn last_piece_and_last_block_are_shorter() {
        let geometry = data(40_000, &[100_000]);
        assert_eq!(geometry.piece_count(), 3);
        let lens: Vec<_> = (0..3).map(|i| geometry.piece_len(PieceIndex(i))).collect();
        assert_eq!(lens, [40_000, 40_000, 20_000]);
        assert_eq!(geometry.block_count(PieceIndex(0)), 3);
        assert_eq!(geometry.block_len(PieceIndex(0), 1), BLOCK_LEN);
        assert_eq!(geometry.block_len(PieceIndex(0), 2), 40_000 - 2 * BLOCK_LEN);
        assert_eq!(geometry.block_count(PieceIndex(2)), 2);
        assert_eq!(geometry.block_at(BLOCK_LEN - 1), 0);
        assert_eq!(geometry.block_at(BLOCK_LEN), 1);
    }

    #[test]
    fn only_bytes_of_the_piece_are_contained() {
        let geometry = data(40_000, &[100_000]);
        let cases = [
            // what it shows            piece  begin     len       contained
            ("all of a piece", 0, 0, 40_000, true),
            ("one too many", 0, 0, 40_001, false),
            ("last byte", 2, 19_999, 1, true),
            ("past the short last", 2, 19_999, 2, false),
            ("no such piece", 3, 0, 1, false),
            ("the largest index", u32::MAX, 0, 1, false),
            ("nothing", 0, 0, 0, false),
            ("sum wraps 32 bits", 0, u32::MAX, 2, false),
        ];
        for (name, piece, begin, len, contained) in cases {
            let found = geometry.contains(PieceIndex(piece), begin, len);
            assert_eq!(found, contained, "{name}");
        }
    }

    #[test]
    fn spans_cross_files_and_skip_empty_ones() {
        let files = [
            (0, FileKind::Data),
            (5, FileKind::Data),
            (0, FileKind::Data),
            (3, FileKind::Pad),
            (4, FileKind::Data),
            (0, FileKind::Data),
        ];
        let geometry = Geometry::new(8, files).unwrap();
        let span = |file, offset, len, pad| Span {
            file,
            offset,
            len,
            pad,
        };
        let spans = |piece, begin, len| {
            let spans = geometry.spans(PieceIndex(piece), begin, len);
            spans.collect::<Vec<_>>()
        };
        assert_eq!(spans(0, 0, 8), [span(1, 0, 5, false), span(3, 0, 3, true)]);
        assert_eq!(spans(0, 4, 2), [span(1, 4, 1, false), span(3, 0, 1, true)]);
        assert_eq!(spans(1, 1, 3), [span(4, 1, 3, false)]);
        let pieces: Vec<_> = (0..6).map(|file| geometry.pieces_of_file(file)).collect();
        assert_eq!(pieces, [0..0, 0..1, 0..0, 0..1, 1..2, 1..1]);
        assert_eq!((geometry.length(), geometry.data_len()), (12, 9));
    }

    #[test]
    fn spans_of_all_pieces_are_the_files_end_to_end() {
        let mut rng = Rng::new(3);
        for round in 0..200 {
            let lens: Vec<u64> = (0..1 + rng.below(8))
                .map(|_| u64::from(rng.below(4) * rng.below(50)))
                .collect();
            let geometry = data(i64::from(1 + rng.below(40)), &lens);
            let mut found = vec![0; lens.len()];
            for piece in (0..geometry.piece_count()).map(PieceIndex) {
                for span in geometry.spans(piece, 0, geometry.piece_len(piece)) {
                    let file = span.file as usize;
                    assert_eq!(span.offset, found[file], "round {round}");
                    assert!(geometry.pieces_of_file(span.file).contains(&piece.0));
                    found[file] += u64::from(span.len);
                }
            }
            assert_eq!(found, lens, "round {round}");
        }
    }

    #[test]
    fn only_empty_files_make_no_pieces() {
        let geometry = data(16_384, &[0, 0]);
        assert_eq!((geometry.piece_count(), geometry.length()), (0, 0));
        assert_eq!(geometry.pieces_of_file(1), 0..0);
    }

    #[test]
    fn lengths_out_of_bounds_are_refused() {
        let new = |piece_len, lens: &[u64]| {
            let files = lens.iter().map(|&len| (len, FileKind::Data));
            Geometry::new(piece_len, files).map(|geometry| geometry.piece_count())
        };
        let count = u64::from(PIECES_MAX) + 1;
        assert_eq!(new(i64::from(PIECE_LEN_MAX), &[1]), Ok(1));
        for len in [
            0,
            -1,
            i64::from(PIECE_LEN_MAX) + 1,
            1 << 31,
            i64::MAX,
            i64::MIN,
        ] {
            assert_eq!(new(len, &[1]), Err(GeometryError::PieceLen { len }));
        }
        let half = 1 << 62;
        assert_eq!(
            new(16_384, &[half, half]),
            Err(GeometryError::LengthOverflow)
        );
        assert_eq!(
            new(16_384, &[u64::MAX, 1]),
            Err(GeometryError::LengthOverflow)
        );
        assert_eq!(new(3, &[3 * (count - 1)]), Ok(PIECES_MAX));
        let too_many = GeometryError::TooManyPieces {
            length: 3 * count,
            piece_len: 3,
            count,
        };
        assert_eq!(new(3, &[3 * count]), Err(too_many));
    }
}
