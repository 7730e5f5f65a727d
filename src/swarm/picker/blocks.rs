//! The blocks of begun pieces, and how a torrent is cut into them.

use crate::base::id::PieceIndex;
use crate::base::limits::BLOCK_LEN;
use crate::wire::message::BlockRef;

/// What is known of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockState {
    /// Nobody was asked for it.
    Free,
    /// So many requests are open.
    Requested {
        /// Open requests, at least 1.
        by: u32,
    },
    /// Its payload began to arrive: it has a writer.
    Begun {
        /// Open requests; 0 if the answer came after its request was withdrawn.
        by: u32,
    },
    /// It is there, or the whole piece is.
    Done,
}

/// What the first payload byte of a block means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// The block had no writer: this sender is it now.
    Writer,
    /// Another sender writes it.
    Second,
    /// The block is there already.
    Unneeded,
}

/// What a complete block changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    /// The block was missing until now.
    pub is_new: bool,
    /// It was the last missing block of its piece: the piece can be checked.
    pub piece_complete: bool,
}

/// How a torrent is cut into pieces and blocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    pub(super) length: u64,
    pub(super) piece_len: u32,
}

impl Cut {
    /// Bytes of `piece`.
    pub(super) fn len_of(self, piece: PieceIndex) -> u32 {
        let rest = self.length - u64::from(piece.0) * u64::from(self.piece_len);
        rest.min(u64::from(self.piece_len)) as u32
    }

    /// Blocks of `piece`.
    pub(super) fn block_count(self, piece: PieceIndex) -> u32 {
        self.len_of(piece).div_ceil(BLOCK_LEN)
    }

    /// The block at `index` of `piece`.
    pub(super) fn block(self, piece: PieceIndex, index: u32) -> BlockRef {
        let begin = index * BLOCK_LEN;
        BlockRef {
            piece,
            begin,
            len: BLOCK_LEN.min(self.len_of(piece) - begin),
        }
    }
}

/// The blocks of a begun piece.
#[derive(Debug)]
pub(super) struct Active {
    /// How many pieces were begun before this one.
    pub(super) age: u64,
    /// A byte each: [`FREE`], or open requests in the low bits with [`BEGUN`], or [`DONE`].
    pub(super) blocks: Box<[u8]>,
    /// Blocks that are free.
    pub(super) free: u32,
    /// Blocks that are there.
    pub(super) done: u32,
    /// No block before this one is free.
    pub(super) first_free: usize,
}

impl Active {
    /// `block_count` free blocks.
    pub(super) fn new(age: u64, block_count: u32) -> Self {
        Self {
            age,
            blocks: vec![FREE; block_count as usize].into(),
            free: block_count,
            done: 0,
            first_free: 0,
        }
    }

    /// Puts the block at `index` into `state`.
    pub(super) fn put(&mut self, index: usize, state: u8) {
        let was_free = self.blocks[index] == FREE;
        self.blocks[index] = state;
        if state == FREE {
            self.first_free = self.first_free.min(index);
        }
        self.free = self.free + u32::from(state == FREE) - u32::from(was_free);
    }

    /// The first free block.
    pub(super) fn next_free(&mut self) -> Option<usize> {
        let rest = &self.blocks[self.first_free..];
        let skipped = rest.iter().position(|&state| state == FREE);
        self.first_free += skipped.unwrap_or(rest.len());
        skipped.map(|_| self.first_free)
    }
}

/// Nobody was asked for the block.
pub(super) const FREE: u8 = 0;
/// The low bits of a block's state count its open requests.
pub(super) const REQUESTS: u8 = 0x3f;
/// The block has a writer.
pub(super) const BEGUN: u8 = 0x40;
/// The block is there.
pub(super) const DONE: u8 = 0x80;
