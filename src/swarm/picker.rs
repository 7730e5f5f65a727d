//! Which blocks to ask of a peer: rarest piece first, begun pieces before new ones.
//!
//! A piece is *begun* (active) when the first of its blocks is asked for, or arrives unasked,
//! and at rest again when nothing of it is asked for, arriving or there.
//!
//! ```text
//!            list                 pick                    last block done
//! unwanted ────────▶ listed ──────────────▶ begun ────────────────────────▶ complete
//!    ▲                 ▲ ▲                    │                              │    │
//!    │                 │ └── all released ────┘         failed: start again  │    │
//!    └─ set_wanted     └────────────────────────────────────────────────────┘   have
//! ```
//!
//! A peer begins a new piece only if no begun piece has a free block that it can give. So the
//! number of begun pieces is bounded by the open requests, plus those pieces that peers gave a
//! part of before they left.
//!
//! Owns the counts of holders and the state of every block of begun pieces; who was asked for a
//! block, and who is sending it, is the caller's to know.

mod audit;
mod blocks;
mod choice;
mod rarity;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use crate::base::bits::Bitfield;
use crate::base::choice::PieceOrder;
use crate::base::id::PieceIndex;
use crate::base::limits::BLOCK_LEN;
use crate::base::rng::Rng;
use crate::wire::message::BlockRef;

pub use blocks::{Arrival, BlockState, Done};
pub use rarity::Counted;

use blocks::{Active, BEGUN, Cut, DONE, FREE, REQUESTS};
use choice::Chosen;
use rarity::Rarity;

/// Chooses blocks of one torrent.
#[derive(Debug)]
pub struct Picker {
    cut: Cut,
    rng: Rng,
    rarity: Rarity,
    have: Bitfield,
    /// Pieces that are not held back.
    wanted: Bitfield,
    /// What the user wants; `None`: everything, in no order of theirs.
    chosen: Option<Box<Chosen>>,
    order: PieceOrder,
    /// Wanted pieces that we do not have.
    missing: Bitfield,
    active: BTreeMap<PieceIndex, Active>,
    /// Begun pieces with a free block that are wanted, in the order in which they were begun.
    open: Vec<(u64, PieceIndex)>,
    /// Pieces begun so far, the age of the next one.
    begun_total: u64,
}

/// Whether a piece may be asked for, if the user wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// It is downloaded.
    Yes,
    /// It is not asked for.
    No,
}

impl Picker {
    /// A picker for a torrent of `length` bytes of which we have these pieces and want everything.
    ///
    /// # Panics
    /// If as many pieces of `piece_len` bytes do not make up `length` bytes.
    pub fn new(have: Bitfield, piece_len: u32, length: u64, mut rng: Rng) -> Self {
        let piece_count = have.len();
        let pieces = u64::from(piece_count);
        assert!(piece_len > 0 && length.div_ceil(u64::from(piece_len)) == pieces);
        let mut rarity = Rarity::new(piece_count, Rng::new(rng.next_u64()));
        let mut missing = Bitfield::new(piece_count);
        missing.copy_without(&Bitfield::full(piece_count), &have);
        missing
            .ones()
            .for_each(|piece| rarity.list(PieceIndex(piece)));
        Self {
            cut: Cut { length, piece_len },
            rng,
            rarity,
            have,
            wanted: Bitfield::full(piece_count),
            chosen: None,
            order: PieceOrder::RarestFirst,
            missing,
            active: BTreeMap::new(),
            open: Vec::new(),
            begun_total: 0,
        }
    }

    /// Whether it is as [`Self::new`] makes one that has the same, as long as no peer is counted.
    pub fn is_as_made(&self) -> bool {
        let is_over = self.active.is_empty() && self.wanted.is_full();
        is_over && self.chosen.is_none() && self.order == PieceOrder::RarestFirst
    }

    /// Counts a new peer's pieces. Keep the answer for [`Self::peer_left`].
    ///
    /// A peer whose pieces are not known yet joins with an empty bitfield, or later.
    pub fn peer_joined(&mut self, theirs: &Bitfield) -> Counted {
        self.rarity.joined(theirs)
    }

    /// Forgets a peer; `theirs` is its bitfield at the end.
    pub fn peer_left(&mut self, theirs: &Bitfield, counted: Counted) {
        self.rarity.left(theirs, counted);
    }

    /// The last peer was forgotten: nothing is counted any more.
    pub fn last_peer_left(&mut self) {
        self.rarity.rest();
    }

    /// A peer that joined without `piece` has it now.
    pub fn peer_gained(&mut self, piece: PieceIndex) {
        self.rarity.gained(piece.0);
    }

    /// Peers that hold `piece`.
    pub fn availability(&self, piece: PieceIndex) -> u32 {
        self.rarity.holders(piece)
    }

    /// Peers that came with everything.
    pub fn seeds(&self) -> u32 {
        self.rarity.seeds()
    }

    /// `piece` is verified: it is asked for no longer.
    pub fn have(&mut self, piece: PieceIndex) {
        self.have.set(piece.0);
        self.forget(piece);
    }

    /// `piece` is not there after all: it is asked for again, as a whole.
    pub fn lose(&mut self, piece: PieceIndex) {
        self.have.clear(piece.0);
        self.forget(piece);
    }

    /// The hash of `piece` did not match: all its blocks are free again.
    ///
    /// Requests for it that are still open are forgotten; the caller withdraws them, or bears
    /// with a block that comes twice.
    pub fn piece_failed(&mut self, piece: PieceIndex) {
        self.forget(piece);
    }

    /// `piece` is held back for a while, or is not. Blocks that are under way are not disturbed.
    pub fn set_wanted(&mut self, piece: PieceIndex, wanted: Wanted) {
        match wanted {
            Wanted::Yes => self.wanted.set(piece.0),
            Wanted::No => self.wanted.clear(piece.0),
        };
        self.refile(piece);
    }

    /// The pieces that we have.
    pub fn ours(&self) -> &Bitfield {
        &self.have
    }

    /// Wanted pieces that we do not have.
    pub fn missing(&self) -> u32 {
        self.missing.count_ones()
    }

    /// Bytes of the wanted pieces that we do not have.
    pub fn missing_len(&self) -> u64 {
        let pieces = u64::from(self.missing.count_ones());
        let Some(last) = self.missing.len().checked_sub(1) else {
            return 0;
        };
        let nominal = self.cut.piece_len;
        let short = nominal - self.cut.len_of(PieceIndex(last));
        let is_last_missing = u64::from(self.missing.has(last));
        pieces * u64::from(nominal) - u64::from(short) * is_last_missing
    }

    /// Whether the peer has a piece that we want (BEP 3 `interested`).
    pub fn is_interesting(&self, theirs: &Bitfield) -> bool {
        if theirs.is_full() {
            return self.missing.count_ones() > 0;
        }
        theirs.count_ones() > 0 && self.missing.intersects(theirs)
    }

    /// Whether we still want `piece`.
    pub fn is_missing(&self, piece: PieceIndex) -> bool {
        self.missing.has(piece.0)
    }

    /// Adds up to `count` free blocks that the peer can give to `out`; they count as requested.
    ///
    /// Blocks of begun pieces come first, then those of the rarest pieces (unless the user
    /// [chose](Self::choose) otherwise). The first blocks of
    /// a piece that is begun here include its block at 0.
    pub fn pick(&mut self, theirs: &Bitfield, count: usize, out: &mut Vec<BlockRef>) {
        let end = out.len() + count;
        let mut at = 0;
        while out.len() < end && at < self.open.len() {
            let (_, piece) = self.open[at];
            if theirs.has(piece.0) && self.take_free(piece, end, out) == 0 {
                self.open.remove(at);
            } else {
                at += 1;
            }
        }
        while out.len() < end {
            let Some(piece) = self.next_piece(theirs) else {
                return;
            };
            self.begin(piece);
            if self.take_free(piece, end, out) == 0 {
                self.open.pop();
            }
        }
    }

    /// Whether every missing block that a peer could give has been asked for.
    pub fn is_endgame(&self) -> bool {
        let is_offered = |&(_, piece): &(u64, PieceIndex)| self.rarity.holders(piece) > 0;
        self.missing.count_ones() > 0
            && !self.rarity.has_offer()
            && !self.open.iter().any(is_offered)
    }

    /// Adds up to `count` blocks that others were asked for to `out`; they count as requested
    /// once more.
    ///
    /// Takes none for which `already` holds (asked of this peer), none with `max_dup` open
    /// requests. Those with the fewest requests come first, those with a writer last.
    ///
    /// # Panics
    /// If `max_dup` is over [`REQUESTS_PER_BLOCK_MAX`].
    pub fn pick_endgame(
        &mut self,
        theirs: &Bitfield,
        already: impl Fn(BlockRef) -> bool,
        count: usize,
        max_dup: u32,
        out: &mut Vec<BlockRef>,
    ) {
        assert!(max_dup <= REQUESTS_PER_BLOCK_MAX);
        let (start, end) = (out.len(), out.len() + count);
        let is_offered = |piece: &PieceIndex| theirs.has(piece.0) && self.missing.has(piece.0);
        let mut pieces: Vec<_> = self.active_pieces().filter(is_offered).collect();
        if pieces.is_empty() {
            return;
        }
        let first = self.rng.below(pieces.len() as u32) as usize;
        pieces.rotate_left(first);
        for writer in [0, BEGUN] {
            for state in (1..max_dup as u8).map(|by| writer | by) {
                for &piece in &pieces {
                    let is_fit =
                        |block, out: &[_]| !out[start..].contains(&block) && !already(block);
                    self.take_requested(piece, state, is_fit, end, out);
                }
                if out.len() == end {
                    return;
                }
            }
        }
    }

    /// A request was withdrawn, rejected or lost. Nothing if the block is there by now.
    pub fn block_released(&mut self, block: BlockRef) {
        let index = self.index(block);
        let Some(active) = self.active.get_mut(&block.piece) else {
            return;
        };
        let state = active.blocks[index];
        if state & DONE == 0 && state & REQUESTS > 0 {
            active.put(index, state - 1);
            self.rest(block.piece);
        }
    }

    /// The first payload byte of `block` came; it need not have been asked for any more.
    pub fn block_begun(&mut self, block: BlockRef) -> Arrival {
        let index = self.index(block);
        if self.have.has(block.piece.0) {
            return Arrival::Unneeded;
        }
        self.begin(block.piece);
        let active = self.active.get_mut(&block.piece).expect("just begun");
        let state = active.blocks[index];
        if state & DONE != 0 {
            return Arrival::Unneeded;
        }
        if state & BEGUN != 0 {
            return Arrival::Second;
        }
        active.put(index, state | BEGUN);
        self.rest(block.piece);
        Arrival::Writer
    }

    /// The writer of `block` stopped before its end. Its request stays open until released.
    pub fn block_abandoned(&mut self, block: BlockRef) {
        let index = self.index(block);
        let Some(active) = self.active.get_mut(&block.piece) else {
            return;
        };
        active.put(index, active.blocks[index] & !BEGUN);
        self.rest(block.piece);
    }

    /// All of `block` is there. Its open requests are settled by this.
    pub fn block_done(&mut self, block: BlockRef) -> Done {
        let index = self.index(block);
        let mut done = Done {
            is_new: false,
            piece_complete: false,
        };
        if self.have.has(block.piece.0) {
            return done;
        }
        self.begin(block.piece);
        let active = self.active.get_mut(&block.piece).expect("just begun");
        if active.blocks[index] != DONE {
            active.put(index, DONE);
            active.done += 1;
            done.is_new = true;
            done.piece_complete = active.done as usize == active.blocks.len();
        }
        self.rest(block.piece);
        done
    }

    /// What is known of `block`.
    pub fn block_state(&self, block: BlockRef) -> BlockState {
        let index = self.index(block);
        if self.have.has(block.piece.0) {
            return BlockState::Done;
        }
        let Some(active) = self.active.get(&block.piece) else {
            return BlockState::Free;
        };
        let state = active.blocks[index];
        let by = u32::from(state & REQUESTS);
        match state {
            FREE => BlockState::Free,
            _ if state & DONE != 0 => BlockState::Done,
            _ if state & BEGUN != 0 => BlockState::Begun { by },
            _ => BlockState::Requested { by },
        }
    }

    /// Whether `block` is exactly one of those that we ask for; the other questions about a
    /// block may only be put for such.
    pub fn is_block(&self, block: BlockRef) -> bool {
        block.piece.0 < self.missing.len()
            && block.begin.is_multiple_of(BLOCK_LEN)
            && block.begin < self.cut.len_of(block.piece)
            && block == self.cut.block(block.piece, block.begin / BLOCK_LEN)
    }

    /// The begun pieces, by index.
    pub fn active_pieces(&self) -> impl Iterator<Item = PieceIndex> + '_ {
        self.active.keys().copied()
    }

    /// Takes free blocks of an open piece until `out` is `end` long; says how many are left.
    fn take_free(&mut self, piece: PieceIndex, end: usize, out: &mut Vec<BlockRef>) -> u32 {
        let active = self.active.get_mut(&piece).expect("open pieces are begun");
        while out.len() < end
            && let Some(index) = active.next_free()
        {
            active.put(index, 1);
            out.push(self.cut.block(piece, index as u32));
        }
        active.free
    }

    /// Takes the fit blocks of a begun piece that are in `state` until `out` is `end` long.
    fn take_requested(
        &mut self,
        piece: PieceIndex,
        state: u8,
        is_fit: impl Fn(BlockRef, &[BlockRef]) -> bool,
        end: usize,
        out: &mut Vec<BlockRef>,
    ) {
        let active = self.active.get_mut(&piece).expect("the caller saw it");
        for index in 0..active.blocks.len() {
            if out.len() == end {
                return;
            }
            if active.blocks[index] != state {
                continue;
            }
            let block = self.cut.block(piece, index as u32);
            if is_fit(block, out) {
                active.put(index, state + 1);
                out.push(block);
            }
        }
    }

    /// Gives a piece that we do not have its block states, if it has none.
    fn begin(&mut self, piece: PieceIndex) {
        if self.active.contains_key(&piece) {
            return;
        }
        let active = Active::new(self.begun_total, self.cut.block_count(piece));
        self.begun_total += 1;
        self.active.insert(piece, active);
        self.refile(piece);
    }

    /// Files a begun piece anew after one of its blocks changed; one with no trace of a block
    /// is no longer begun.
    fn rest(&mut self, piece: PieceIndex) {
        let active = &self.active[&piece];
        if active.free as usize == active.blocks.len() {
            self.forget(piece);
            return;
        }
        let is_open = self.open_place(active.age).is_ok();
        if is_open != (active.free > 0 && self.missing.has(piece.0)) {
            self.refile(piece);
        }
    }

    /// Drops the block states of `piece`.
    fn forget(&mut self, piece: PieceIndex) {
        if let Some(active) = self.active.remove(&piece)
            && let Ok(place) = self.open_place(active.age)
        {
            self.open.remove(place);
        }
        self.refile(piece);
    }

    /// Brings `missing`, the list of pieces to begin and the open pieces in line with what is
    /// known of `piece`.
    fn refile(&mut self, piece: PieceIndex) {
        let is_wanted = self.wanted.has(piece.0) && self.is_chosen(piece);
        let is_missing = is_wanted && !self.have.has(piece.0);
        if is_missing {
            self.missing.set(piece.0);
        } else {
            self.missing.clear(piece.0);
        }
        let Some((age, free)) = self.active.get(&piece).map(|a| (a.age, a.free)) else {
            if is_missing {
                self.rarity.list(piece);
            } else {
                self.rarity.unlist(piece);
            }
            return self.listing_changed(piece);
        };
        self.rarity.unlist(piece);
        self.listing_changed(piece);
        match (self.open_place(age), is_missing && free > 0) {
            (Ok(place), false) => drop(self.open.remove(place)),
            (Err(place), true) => self.open.insert(place, (age, piece)),
            (Ok(_), true) | (Err(_), false) => {}
        }
    }

    /// Where in `open` the piece of this age stands, or would.
    fn open_place(&self, age: u64) -> Result<usize, usize> {
        self.open.binary_search_by_key(&age, |&(age, _)| age)
    }

    /// Index of `block` in its piece.
    ///
    /// # Panics
    /// If it is none that we ask for.
    fn index(&self, block: BlockRef) -> usize {
        assert!(
            self.is_block(block),
            "{block:?} is no block of this torrent"
        );
        (block.begin / BLOCK_LEN) as usize
    }
}

/// Open requests for one block at most.
pub const REQUESTS_PER_BLOCK_MAX: u32 = REQUESTS as u32;
/// So many pieces are taken at random: a new peer soon has something that others lack, while a
/// rarest piece would come slowly, from few.
const RANDOM_PIECES: u32 = 4;
