//! Blocks that were stored whole, of pieces that are not: from the stores as they come.
//!
//! A block has one writer at a time, whose bytes come in order; another writer begins at its first
//! byte again. So a block is whole when one run of stores went from its first byte to its last.

use std::collections::BTreeMap;

use crate::base::id::PieceIndex;
use crate::base::limits::BLOCK_LEN;
use crate::base::slot::Slot;
use crate::meta::geometry::Geometry;

/// The blocks of one torrent on their way to the journal.
#[derive(Debug, Default)]
pub(super) struct Partials {
    /// How far blocks are that are not whole.
    begun: BTreeMap<(PieceIndex, u32), u32>,
    /// Whole blocks that nobody took note of, with the number of the store that made them whole.
    fresh: BTreeMap<PieceIndex, Vec<(u32, u64)>>,
}

impl Partials {
    /// No block is begun.
    pub const NONE: Self = Self {
        begun: BTreeMap::new(),
        fresh: BTreeMap::new(),
    };

    /// Whether no block is begun, and none waits to be noted.
    pub fn is_empty(&self) -> bool {
        self.begun.is_empty() && self.fresh.is_empty()
    }

    /// Bytes were stored, as number `seq`. Says whether that made a block whole.
    pub fn stored(&mut self, slot: Slot, geometry: &Geometry, seq: u64) -> bool {
        let mut is_any_whole = false;
        let end = slot.begin + slot.len;
        let mut at = slot.begin;
        while at < end {
            let block = at / BLOCK_LEN;
            let block_len = geometry.block_len(slot.piece, block);
            let from = at % BLOCK_LEN;
            let upto = (end - block * BLOCK_LEN).min(block_len);
            let key = (slot.piece, block);
            let goes_on = from == 0 || self.begun.get(&key) == Some(&from);
            if !goes_on {
                // Nothing known continues here: the block cannot become whole by this.
                self.begun.remove(&key);
            } else if upto == block_len {
                self.begun.remove(&key);
                self.fresh.entry(slot.piece).or_default().push((block, seq));
                is_any_whole = true;
            } else {
                self.begun.insert(key, upto);
            }
            at = block * BLOCK_LEN + upto;
        }
        is_any_whole
    }

    /// The piece has a verdict: its blocks are of no interest any more.
    pub fn forget(&mut self, piece: PieceIndex) {
        self.fresh.remove(&piece);
        let blocks = self.begun.range((piece, 0)..=(piece, u32::MAX));
        let keys: Vec<_> = blocks.map(|(&key, _)| key).collect();
        for key in keys {
            self.begun.remove(&key);
        }
    }

    /// Takes the whole blocks that nobody took note of, by piece.
    pub fn take_fresh(&mut self) -> BTreeMap<PieceIndex, Vec<(u32, u64)>> {
        std::mem::take(&mut self.fresh)
    }

    /// Gives blocks back that cannot be noted yet.
    pub fn put_back(&mut self, piece: PieceIndex, blocks: Vec<(u32, u64)>) {
        self.fresh.entry(piece).or_default().extend(blocks);
    }

    /// Whether there are whole blocks that nobody took note of.
    pub fn has_fresh(&self) -> bool {
        !self.fresh.is_empty()
    }

    /// How many there are.
    pub fn fresh_count(&self) -> usize {
        self.fresh.values().map(Vec::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::TorrentId;
    use crate::meta::geometry::FileKind;

    /// Stores `begin..end` of piece 0, whose blocks are 16384 bytes and the last 7232.
    fn store(partials: &mut Partials, begin: u32, end: u32) -> Vec<u32> {
        let geometry = Geometry::new(40_000, [(40_000, FileKind::Data)]).expect("sound");
        let slot = Slot {
            torrent: TorrentId(0),
            piece: PieceIndex(0),
            begin,
            len: end - begin,
        };
        let is_any_whole = partials.stored(slot, &geometry, 9);
        let fresh = partials
            .take_fresh()
            .remove(&PieceIndex(0))
            .unwrap_or_default();
        assert_eq!(is_any_whole, !fresh.is_empty());
        fresh.into_iter().map(|(block, _)| block).collect()
    }

    #[test]
    fn a_block_is_whole_when_one_run_of_stores_filled_it() {
        type Case<'a> = (&'a str, &'a [(u32, u32)], &'a [u32]);
        let cases: [Case; 8] = [
            ("at once", &[(0, 16_384)], &[0]),
            ("in parts", &[(0, 5), (5, 16_000), (16_000, 16_384)], &[0]),
            ("the last, shorter", &[(32_768, 40_000)], &[2]),
            ("all of the piece", &[(0, 40_000)], &[0, 1, 2]),
            (
                "over an edge",
                &[(0, 9), (9, 20_000), (20_000, 32_768)],
                &[0, 1],
            ),
            ("a part is missing", &[(0, 5), (6, 16_384)], &[]),
            ("the begin is missing", &[(5, 16_384)], &[]),
            (
                "another begins again",
                &[(0, 9_000), (0, 5), (9_000, 16_384)],
                &[],
            ),
        ];
        for (name, stores, expected) in cases {
            let mut partials = Partials::default();
            let whole = stores.iter().flat_map(|&(a, b)| store(&mut partials, a, b));
            assert_eq!(whole.collect::<Vec<_>>(), expected, "{name}");
        }
    }

    #[test]
    fn nothing_is_left_of_a_piece_with_a_verdict() {
        let mut partials = Partials::default();
        store(&mut partials, 0, 5);
        partials.put_back(PieceIndex(0), vec![(1, 1)]);
        partials.forget(PieceIndex(0));
        assert!(!partials.has_fresh());
        assert!(store(&mut partials, 5, 16_384).is_empty());
    }
}
