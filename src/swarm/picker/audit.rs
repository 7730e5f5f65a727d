//! What must hold of the picker's books: for simulations and tests.

use super::blocks::FREE;
use super::{DONE, Picker};
use crate::base::bits::Bitfield;
use crate::base::id::PieceIndex;

impl Picker {
    /// Compares the counts of holders and blocks with a recount; `peers` are the pieces of all
    /// connected peers.
    ///
    /// # Errors
    /// What does not agree, in words.
    pub fn audit<'a>(&self, peers: impl Iterator<Item = &'a Bitfield>) -> Result<(), String> {
        let count = self.missing.len();
        let mut holders = vec![0; count as usize];
        for theirs in peers {
            theirs.ones().for_each(|piece| holders[piece as usize] += 1);
        }
        for (piece, &held) in (0..count).zip(&holders) {
            let counted = self.availability(PieceIndex(piece));
            if held != counted {
                return Err(format!(
                    "piece {piece} has {held} holders, counted {counted}"
                ));
            }
            let is_wanted = self.wanted.has(piece) && self.is_chosen(PieceIndex(piece));
            let is_missing = is_wanted && !self.have.has(piece);
            if is_missing != self.missing.has(piece) {
                return Err(format!(
                    "piece {piece} is missing: {is_missing}, noted otherwise"
                ));
            }
            let is_begun = self.active.contains_key(&PieceIndex(piece));
            if self.rarity.lists(piece) != (is_missing && !is_begun) {
                return Err(format!("piece {piece} is not listed as it should be"));
            }
        }
        for (&piece, active) in &self.active {
            let free = active.blocks.iter().filter(|&&state| state == FREE);
            let done = active.blocks.iter().filter(|&&state| state & DONE != 0);
            if (free.count(), done.count()) != (active.free as usize, active.done as usize) {
                return Err(format!("blocks of piece {piece} are miscounted"));
            }
            let is_open = self.open_place(active.age).is_ok();
            if is_open != (active.free > 0 && self.missing.has(piece.0)) {
                return Err(format!(
                    "piece {piece} has {} free blocks, open: {is_open}",
                    active.free
                ));
            }
        }
        Ok(())
    }
}
