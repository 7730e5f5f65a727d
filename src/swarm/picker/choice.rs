//! What the user wants of a torrent: which pieces, which of them first, in which order; and what
//! peers suggest, where the user leaves that open.

use super::{Picker, RANDOM_PIECES};
use crate::base::bits::Bitfield;
use crate::base::choice::PieceOrder;
use crate::base::id::PieceIndex;
use crate::meta::choice::ChosenPieces;
use crate::wire::message::BlockRef;

/// The user's choice, and the pieces to begin first.
#[derive(Debug)]
pub(super) struct Chosen {
    pieces: ChosenPieces,
    /// Pieces of high priority that may be begun.
    listed: Bitfield,
}

impl Picker {
    /// The user wants these pieces, or all of them, in this order. Blocks that are under way are
    /// not disturbed, and what came of pieces that are not wanted any more is kept.
    pub fn choose(&mut self, pieces: Option<ChosenPieces>, order: PieceOrder) {
        let count = self.missing.len();
        self.order = order;
        self.chosen = pieces.map(|pieces| {
            let listed = Bitfield::new(count);
            Box::new(Chosen { pieces, listed })
        });
        self.rarity.unsort();
        (0..count).for_each(|piece| self.refile(PieceIndex(piece)));
    }

    /// Whether the user wants `piece`.
    pub(super) fn is_chosen(&self, piece: PieceIndex) -> bool {
        let chosen = self.chosen.as_deref();
        chosen.is_none_or(|chosen| chosen.pieces.wanted.has(piece.0))
    }

    /// `piece` was listed, or is not listed any more.
    pub(super) fn listing_changed(&mut self, piece: PieceIndex) {
        let is_listed = self.rarity.lists(piece.0);
        if let Some(chosen) = self.chosen.as_deref_mut() {
            match is_listed && chosen.pieces.high.has(piece.0) {
                true => chosen.listed.set(piece.0),
                false => chosen.listed.clear(piece.0),
            };
        }
    }

    /// Whether the order of pieces is left to chance and to peers: the user named none.
    pub fn takes_suggestions(&self) -> bool {
        let high = self.chosen.as_deref().map(|chosen| &chosen.listed);
        self.order == PieceOrder::RarestFirst && high.is_none_or(|high| high.count_ones() == 0)
    }

    /// Whether nothing of a piece that we want is there, asked for or on its way.
    pub fn is_at_rest(&self, piece: PieceIndex) -> bool {
        self.missing.has(piece.0) && !self.active.contains_key(&piece)
    }

    /// Adds free blocks of `piece` to `out` until it is `end` long; they count as requested. Says
    /// whether there are more.
    pub fn pick_piece(&mut self, piece: PieceIndex, end: usize, out: &mut Vec<BlockRef>) -> bool {
        if !self.missing.has(piece.0) {
            return false;
        }
        self.begin(piece);
        let left = self.take_free(piece, end, out);
        if left == 0 {
            let age = self.active[&piece].age;
            if let Ok(place) = self.open_place(age) {
                self.open.remove(place);
            }
        }
        left > 0
    }

    /// The next piece to begin with this peer: one of high priority if there is any.
    pub(super) fn next_piece(&mut self, theirs: &Bitfield) -> Option<PieceIndex> {
        if let Some(chosen) = self.chosen.as_deref()
            && chosen.listed.count_ones() > 0
        {
            let high = match self.order {
                PieceOrder::Sequential => {
                    let mut high = chosen.listed.ones_of_both(theirs, 0);
                    high.next().map(PieceIndex)
                }
                PieceOrder::RarestFirst => self.rarity.rarest_of(&chosen.listed, theirs),
            };
            if high.is_some() {
                return high;
            }
        }
        match self.order {
            PieceOrder::Sequential => self.rarity.first(theirs),
            PieceOrder::RarestFirst if self.have.count_ones() < RANDOM_PIECES => {
                self.rarity.random(theirs)
            }
            PieceOrder::RarestFirst => self.rarity.rarest(theirs),
        }
    }
}
