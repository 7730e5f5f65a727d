//! What one host has of the torrent: pieces hashed right, and who writes the blocks of others.

use std::collections::{BTreeMap, BTreeSet};

use crate::base::bits::Bitfield;
use crate::base::id::PieceIndex;
use crate::base::limits::BLOCK_LEN;
use crate::base::slot::Slot;
use crate::meta::geometry::Geometry;
use crate::sim::net::StreamId;
use crate::swarm::Swarm;

/// A host's book.
#[derive(Debug)]
pub(super) struct Pieces {
    verified: Bitfield,
    /// Blocks that are being written or are whole, of pieces that are not verified.
    blocks: BTreeMap<(PieceIndex, u32), Block>,
    /// Pieces that were hashed wrong: they come from one peer alone, and from the beginning again
    /// whenever that one ceases to deliver.
    failed: BTreeSet<PieceIndex>,
    /// Pieces that were hashed right, and are being hashed again.
    again: BTreeSet<PieceIndex>,
    /// Payload that was heard and said, and that of the pieces that were fetched, bytes.
    pub heard: u64,
    pub said: u64,
    gained: u64,
}

#[derive(Clone, Copy, Debug)]
struct Block {
    writer: Option<StreamId>,
    done: u32,
}

impl Pieces {
    /// Nothing is there.
    pub fn new(count: u32) -> Self {
        Self {
            verified: Bitfield::new(count),
            blocks: BTreeMap::new(),
            failed: BTreeSet::new(),
            again: BTreeSet::new(),
            heard: 0,
            said: 0,
            gained: 0,
        }
    }

    /// Whether the piece was hashed right.
    pub fn is_verified(&self, piece: PieceIndex) -> bool {
        piece.0 < self.verified.len() && self.verified.has(piece.0)
    }

    /// The piece was hashed right; whether that is news. Blocks of it may have been there before.
    pub fn verified(&mut self, piece: PieceIndex) -> bool {
        let fetched = self.blocks.range((piece, 0)..=(piece, u32::MAX));
        self.gained += fetched.map(|(_, block)| u64::from(block.done)).sum::<u64>();
        self.failed.remove(&piece);
        self.forget(piece);
        self.verified.set(piece.0)
    }

    /// The engine wants the piece hashed.
    pub fn asked(&mut self, piece: PieceIndex) {
        if self.is_verified(piece) {
            self.again.insert(piece);
        }
    }

    /// Whether this verdict is of a piece that was hashed right before.
    pub fn is_asked_again(&mut self, piece: PieceIndex) -> bool {
        self.again.remove(&piece)
    }

    /// Compares what the engine says it has, received and sent with what was seen.
    pub fn compare(&self, swarm: &Swarm) -> Result<(), (&'static str, String)> {
        if swarm.pieces() != &self.verified {
            let (counted, seen) = (swarm.pieces().count_ones(), self.verified.count_ones());
            let text = format!("counts {counted} pieces as its own, {seen} were hashed right");
            return Err(("pieces", text));
        }
        let (down, wasted) = (swarm.downloaded_bytes(), swarm.wasted_bytes());
        if down > self.heard || self.gained + wasted > down {
            let text = format!(
                "received {down} B, {wasted} in vain, of {} that came; its pieces took {}",
                self.heard, self.gained
            );
            return Err(("books", text));
        }
        if swarm.uploaded_bytes() != self.said {
            let text = format!(
                "sent {} B, of {} that left",
                swarm.uploaded_bytes(),
                self.said
            );
            return Err(("books", text));
        }
        Ok(())
    }

    /// The piece was hashed wrong: it is fetched again.
    pub fn failed(&mut self, piece: PieceIndex) {
        self.verified.clear(piece.0);
        self.failed.insert(piece);
        self.forget(piece);
    }

    /// The piece is not there any more: it is fetched again.
    pub fn lost(&mut self, piece: PieceIndex) {
        self.verified.clear(piece.0);
        self.forget(piece);
    }

    fn forget(&mut self, piece: PieceIndex) {
        let blocks = self.blocks.range((piece, 0)..=(piece, u32::MAX));
        let keys: Vec<_> = blocks.map(|(&key, _)| key).collect();
        for key in keys {
            self.blocks.remove(&key);
        }
    }

    /// Bytes are written: by the stream on which they come, or as a whole block (`None`).
    pub fn write(
        &mut self,
        writer: Option<StreamId>,
        slot: Slot,
        geometry: &Geometry,
    ) -> Result<(), String> {
        if self.is_verified(slot.piece) {
            return Err(format!("{slot:?} is written, the piece is verified"));
        }
        let index = slot.begin / BLOCK_LEN;
        let len = geometry.block_len(slot.piece, index);
        let done = slot.begin % BLOCK_LEN;
        let begun = self.blocks.get(&(slot.piece, index)).copied();
        let starts_again = self.failed.contains(&slot.piece) && done == 0;
        if begun.is_some_and(|block| block.done == len) && !starts_again {
            return Err(format!("{slot:?} is written, the block is whole"));
        }
        let goes_on = begun.is_some_and(|block| block.writer == writer && block.done == done);
        if done != 0 && !goes_on {
            return Err(format!(
                "{slot:?} is written by {writer:?}, after {begun:?}"
            ));
        }
        let block = Block {
            writer,
            done: done + slot.len,
        };
        self.blocks.insert((slot.piece, index), block);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::TorrentId;

    fn slot(begin: u32, len: u32) -> Slot {
        Slot {
            torrent: TorrentId(0),
            piece: PieceIndex(0),
            begin,
            len,
        }
    }

    #[test]
    fn a_block_has_one_writer_at_a_time_and_is_written_once() {
        let geometry = Geometry::new(40_000, [(40_000, crate::meta::geometry::FileKind::Data)]);
        let geometry = geometry.expect("a sound geometry");
        let mut pieces = Pieces::new(1);
        let (a, b) = (Some(StreamId(1)), Some(StreamId(2)));
        assert!(pieces.write(a, slot(0, 100), &geometry).is_ok());
        assert!(
            pieces.write(b, slot(100, 100), &geometry).is_err(),
            "two writers"
        );
        assert!(
            pieces.write(b, slot(0, 100), &geometry).is_ok(),
            "it takes over"
        );
        assert!(
            pieces.write(a, slot(100, 100), &geometry).is_err(),
            "deposed"
        );
        assert!(pieces.write(b, slot(100, 16_284), &geometry).is_ok());
        assert!(
            pieces.write(None, slot(0, 16_384), &geometry).is_err(),
            "whole"
        );
        pieces.failed(PieceIndex(0));
        assert!(
            pieces.write(None, slot(0, 16_384), &geometry).is_ok(),
            "again"
        );
        assert!(pieces.verified(PieceIndex(0)));
        assert!(
            pieces.write(a, slot(16_384, 1), &geometry).is_err(),
            "verified"
        );
        assert!(!pieces.verified(PieceIndex(0)), "no news");
        assert_eq!(pieces.gained, 16_384);
    }
}
