//! One piece on its way through SHA-1: as a whole, then block by block if that is asked for.

use sha1::{Digest, Sha1};

use crate::base::id::{PieceIndex, TorrentId};
use crate::base::limits::BLOCK_LEN;
use crate::storage::lanes::{Sha1State, update_lanes};

/// One piece that is being hashed.
#[derive(Debug)]
pub(super) struct Check {
    /// The torrent.
    pub torrent: TorrentId,
    /// The piece.
    pub piece: PieceIndex,
    /// Bytes of the piece.
    pub len: u32,
    /// The next byte to hash.
    pub at: u32,
    /// Bytes were stored into it since it was checked last.
    pub is_stored: bool,
    /// What is being computed.
    pub stage: Stage,
}

#[derive(Debug)]
pub(super) enum Stage {
    /// The digest of the piece.
    Piece {
        state: Sha1State,
        /// The begin of a 64-byte block whose end lies in another window.
        carry: [u8; LANE_LEN],
        carry_len: usize,
    },
    /// One digest a block, for a piece that is `is_good`.
    Blocks {
        is_good: bool,
        hasher: Sha1,
        digests: Vec<u64>,
    },
}

impl Check {
    /// Whether nothing is left to hash in this stage.
    pub fn is_at_end(&self) -> bool {
        self.at == self.len
    }

    /// Whether the next bytes do not go side by side with those of other checks.
    pub fn goes_alone(&self, next_len: u32) -> bool {
        match &self.stage {
            Stage::Blocks { .. } => true,
            Stage::Piece { carry_len, .. } => {
                *carry_len > 0 || next_len < SIDE_BY_SIDE_LEN_MIN || self.is_at_end()
            }
        }
    }

    /// How many of the next bytes are hashed when this check goes alone.
    pub fn alone_len(&self, next_len: u32) -> u32 {
        let block_left = BLOCK_LEN - self.at % BLOCK_LEN;
        match &self.stage {
            Stage::Blocks { .. } => next_len.min(block_left),
            Stage::Piece { carry_len: 0, .. } => next_len.min(SIDE_BY_SIDE_LEN_MIN),
            Stage::Piece { carry_len, .. } => next_len.min((LANE_LEN - carry_len) as u32),
        }
    }

    /// Takes up the next bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        match &mut self.stage {
            Stage::Piece {
                state,
                carry,
                carry_len,
            } => {
                if *carry_len > 0 {
                    let n = bytes.len().min(LANE_LEN - *carry_len);
                    carry[*carry_len..*carry_len + n].copy_from_slice(&bytes[..n]);
                    *carry_len += n;
                    bytes = &bytes[n..];
                    if *carry_len == LANE_LEN {
                        update_lanes(&mut [&mut *state], &[&carry[..]]);
                        *carry_len = 0;
                    }
                }
                let (whole, rest) = bytes.split_at(bytes.len() / LANE_LEN * LANE_LEN);
                if !whole.is_empty() {
                    update_lanes(&mut [&mut *state], &[whole]);
                }
                if !rest.is_empty() {
                    carry[..rest.len()].copy_from_slice(rest);
                    *carry_len = rest.len();
                }
            }
            Stage::Blocks {
                hasher, digests, ..
            } => {
                hasher.update(bytes);
                let end = self.at + bytes.len() as u32;
                if end.is_multiple_of(BLOCK_LEN) || end == self.len {
                    let digest = hasher.finalize_reset();
                    let [a, b, c, d, e, f, g, h, ..] = <[u8; 20]>::from(digest);
                    digests.push(u64::from_be_bytes([a, b, c, d, e, f, g, h]));
                }
            }
        }
    }
}

/// Bytes that SHA-1 takes at once.
pub(super) const LANE_LEN: usize = 64;
/// Shorter runs are hashed alone, so that they do not shorten those of others.
const SIDE_BY_SIDE_LEN_MIN: u32 = 4096;

const _: () = assert!(SIDE_BY_SIDE_LEN_MIN as usize >= LANE_LEN);
