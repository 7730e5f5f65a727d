//! How many peers hold each piece, and the pieces to begin in that order.
//!
//! All pieces stand in one array, partitioned by *key*: 0 for pieces that are not to be begun,
//! otherwise the number of holders plus one. Inside a partition the order is random.
//!
//! ```text
//! order    ┌─ key 0: not listed ─┬─ key 1: no holder ─┬─ key 2: one holder ─┬─ …
//!          borders[0]            borders[1]           borders[2]            borders[3]
//! ```
//!
//! A piece whose key changes by one is swapped with the edge of its partition, and the border
//! moves over it: constant time. A bitfield that touches a large part of all pieces only changes
//! the counts, and the array is sorted anew before it is read next.
//!
//! Sorting the largest torrents would stop everything else for a tenth of a second, so above
//! [`SORTED_MAX`] pieces there is no order, and the rarest of a large sample is good enough.
//!
//! A peer that has everything is not counted in every piece but once, as a seed.
//!
//! Without peers there is neither order nor counts: a torrent that nobody asks for has none.

use crate::base::bits::Bitfield;
use crate::base::id::PieceIndex;
use crate::base::rng::Rng;

/// How a peer's pieces were counted; its leaving must be counted in the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a peer leaves as it was counted"]
pub enum Counted {
    /// Once, as holder of everything.
    Seed,
    /// In each of its pieces.
    Pieces,
}

/// Holders per piece, and the listed pieces from the rarest to the most common.
#[derive(Debug)]
pub(super) struct Rarity {
    rng: Rng,
    seeds: u32,
    /// Holders of each piece that are not counted as seeds; empty while there are none at all.
    counts: Vec<u32>,
    /// Pieces that may be begun.
    listed: Bitfield,
    /// Listed pieces that no peer but a seed holds.
    orphans: u32,
    /// All pieces, by key; empty before it is read, and in a torrent of too many.
    order: Vec<u32>,
    /// Where in `order` each piece stands.
    places: Vec<u32>,
    borders: Vec<u32>,
    /// `order` does not follow the counts at the moment, or is not there.
    is_stale: bool,
}

impl Rarity {
    /// No holders, nothing listed.
    pub(super) fn new(piece_count: u32, rng: Rng) -> Self {
        Self {
            rng,
            seeds: 0,
            counts: Vec::new(),
            listed: Bitfield::new(piece_count),
            orphans: 0,
            order: Vec::new(),
            places: Vec::new(),
            borders: Vec::new(),
            is_stale: true,
        }
    }

    /// Peers that hold `piece`.
    pub(super) fn holders(&self, piece: PieceIndex) -> u32 {
        self.seeds + self.count(piece.0)
    }

    /// The last peer left: counts and order are let go of.
    pub(super) fn rest(&mut self) {
        assert!(self.counts.iter().all(|&count| count == 0) && self.seeds == 0);
        self.counts = Vec::new();
        self.order = Vec::new();
        self.places = Vec::new();
        self.borders = Vec::new();
        self.is_stale = true;
    }

    fn count(&self, piece: u32) -> u32 {
        self.counts.get(piece as usize).copied().unwrap_or(0)
    }

    /// Whether `piece` may be begun.
    pub(super) fn lists(&self, piece: u32) -> bool {
        self.listed.has(piece)
    }

    /// Peers counted as seeds.
    pub(super) fn seeds(&self) -> u32 {
        self.seeds
    }

    /// Whether some peer holds a listed piece.
    pub(super) fn has_offer(&self) -> bool {
        let listed = self.listed.count_ones();
        if self.seeds > 0 {
            listed > 0
        } else {
            listed > self.orphans
        }
    }

    /// Counts the pieces of a peer that came.
    pub(super) fn joined(&mut self, theirs: &Bitfield) -> Counted {
        if theirs.is_full() {
            self.seeds += 1;
            return Counted::Seed;
        }
        self.expect_changes(theirs.count_ones());
        theirs.ones().for_each(|piece| self.gained(piece));
        Counted::Pieces
    }

    /// Takes back what [`Self::joined`] and [`Self::gained`] counted.
    pub(super) fn left(&mut self, theirs: &Bitfield, counted: Counted) {
        match counted {
            Counted::Seed => {
                assert!(self.seeds > 0, "a seed left that never came");
                self.seeds -= 1;
            }
            Counted::Pieces => {
                self.expect_changes(theirs.count_ones());
                theirs.ones().for_each(|piece| self.lost(piece));
            }
        }
    }

    /// One more peer holds `piece`.
    pub(super) fn gained(&mut self, piece: u32) {
        if self.counts.is_empty() {
            self.counts = vec![0; self.listed.len() as usize];
        }
        let count = self.counts[piece as usize];
        self.counts[piece as usize] = count + 1;
        if !self.listed.has(piece) {
            return;
        }
        self.orphans -= u32::from(count == 0);
        if !self.is_stale {
            self.raise(piece, count + 1);
            self.mix(piece, count + 2);
        }
    }

    /// Makes `piece` one of those to begin; nothing if it is already.
    pub(super) fn list(&mut self, piece: PieceIndex) {
        let PieceIndex(piece) = piece;
        if !self.listed.set(piece) {
            return;
        }
        let count = self.count(piece);
        self.orphans += u32::from(count == 0);
        if !self.is_stale {
            (0..=count).for_each(|key| self.raise(piece, key));
            self.mix(piece, count + 1);
        }
    }

    /// Takes `piece` out of those to begin; nothing if it is not among them.
    pub(super) fn unlist(&mut self, piece: PieceIndex) {
        let PieceIndex(piece) = piece;
        if !self.listed.clear(piece) {
            return;
        }
        let count = self.count(piece);
        self.orphans -= u32::from(count == 0);
        if !self.is_stale {
            (1..=count + 1).rev().for_each(|key| self.lower(piece, key));
        }
    }

    /// The rarest listed piece of `theirs`; a random one of several.
    ///
    /// If none of the [`WALK_MAX`] rarest is theirs, the rarest of a sample of those that are: a
    /// peer that lacks what is rare must not cost a walk over a large torrent.
    pub(super) fn rarest(&mut self, theirs: &Bitfield) -> Option<PieceIndex> {
        if self.listed.len() > SORTED_MAX {
            return self.sample(theirs, |this, piece| this.count(piece));
        }
        if !self.listed.intersects(theirs) {
            return None; // a walk past all that others have is longer than this look
        }
        self.refresh();
        let key = if self.seeds > 0 { 1 } else { 2 }; // without a seed, orphans can wait
        let offered = &self.order[self.start(key)..];
        let near = &offered[..offered.len().min(WALK_MAX)];
        if let Some(&piece) = near.iter().find(|&&piece| theirs.has(piece)) {
            return Some(PieceIndex(piece));
        }
        if near.len() == self.listed.count_ones() as usize {
            return None;
        }
        self.sample(theirs, |this, piece| this.count(piece))
    }

    /// Any listed piece of `theirs`.
    pub(super) fn random(&mut self, theirs: &Bitfield) -> Option<PieceIndex> {
        self.sample(theirs, |_, _| 0)
    }

    /// The best of a sample of listed pieces of `theirs`, the lowest `rank` being the best: of
    /// neighbours, from a random one on. A random one of several equals.
    fn sample(
        &mut self,
        theirs: &Bitfield,
        rank: impl Fn(&Self, u32) -> u32,
    ) -> Option<PieceIndex> {
        let draw = self.draw();
        let best = best_of(&self.listed, theirs, draw, |piece| rank(self, piece));
        best.map(PieceIndex)
    }

    /// The rarest piece of `theirs` among `some` of the listed ones, or of a sample of them.
    pub(super) fn rarest_of(&mut self, some: &Bitfield, theirs: &Bitfield) -> Option<PieceIndex> {
        let draw = self.draw();
        let best = best_of(some, theirs, draw, |piece| self.count(piece));
        best.map(PieceIndex)
    }

    /// The first listed piece of `theirs`.
    pub(super) fn first(&self, theirs: &Bitfield) -> Option<PieceIndex> {
        self.listed.ones_of_both(theirs, 0).next().map(PieceIndex)
    }

    /// Gives up the order: many pieces are about to be listed, or not to be.
    pub(super) fn unsort(&mut self) {
        self.is_stale = true;
    }

    /// Where a sample begins, and how equals are told apart in it.
    fn draw(&mut self) -> (u32, u64) {
        let first = self.rng.below(self.listed.len().max(1));
        (first, self.rng.next_u64())
    }

    fn lost(&mut self, piece: u32) {
        let count = self.count(piece);
        assert!(
            count > 0,
            "piece {piece} lost a holder that was never counted"
        );
        self.counts[piece as usize] = count - 1;
        if !self.listed.has(piece) {
            return;
        }
        self.orphans += u32::from(count == 1);
        if !self.is_stale {
            self.lower(piece, count + 1);
            self.mix(piece, count);
        }
    }

    /// Gives up the order if sorting it anew is cheaper than that many changes.
    fn expect_changes(&mut self, changes: u32) {
        let moves = changes.min(self.listed.count_ones());
        self.is_stale |= moves > self.listed.len() / SORT_SHARE;
    }

    /// Moves `piece` from partition `key` to the next.
    fn raise(&mut self, piece: u32, key: u32) {
        while self.borders.len() < key as usize + 2 {
            self.borders.push(self.order.len() as u32);
        }
        let edge = self.borders[key as usize + 1] - 1;
        self.swap(self.places[piece as usize], edge);
        self.borders[key as usize + 1] = edge;
    }

    /// Moves `piece` from partition `key` to the one before.
    fn lower(&mut self, piece: u32, key: u32) {
        let edge = self.borders[key as usize];
        self.swap(self.places[piece as usize], edge);
        self.borders[key as usize] = edge + 1;
    }

    /// Gives `piece` a random place in its partition `key`.
    fn mix(&mut self, piece: u32, key: u32) {
        let (start, end) = (self.start(key) as u32, self.start(key + 1) as u32);
        let other = start + self.rng.below(end - start);
        self.swap(self.places[piece as usize], other);
    }

    fn swap(&mut self, a: u32, b: u32) {
        self.order.swap(a as usize, b as usize);
        self.places[self.order[a as usize] as usize] = a;
        self.places[self.order[b as usize] as usize] = b;
    }

    /// First place of partition `key`; the end of all for one that never was.
    fn start(&self, key: u32) -> usize {
        let start = self.borders.get(key as usize);
        start.map_or(self.order.len(), |&start| start as usize)
    }

    fn key(&self, piece: u32) -> u32 {
        if self.listed.has(piece) {
            self.count(piece) + 1
        } else {
            0
        }
    }

    /// Sorts the order anew if it is stale.
    fn refresh(&mut self) {
        if !self.is_stale {
            return;
        }
        self.is_stale = false;
        let piece_count = self.listed.len();
        if self.order.is_empty() {
            self.order = (0..piece_count).collect();
            self.places = self.order.clone();
        }
        let mut sizes = vec![0u32; 1];
        for piece in 0..piece_count {
            let key = self.key(piece) as usize;
            if key >= sizes.len() {
                sizes.resize(key + 1, 0);
            }
            sizes[key] += 1;
        }
        self.borders.clear();
        let mut start = 0;
        for size in sizes {
            self.borders.push(start);
            start += size;
        }
        let mut next = self.borders.clone();
        for piece in 0..piece_count {
            let place = &mut next[self.key(piece) as usize];
            self.order[*place as usize] = piece;
            *place += 1;
        }
        for key in 1..self.borders.len() as u32 {
            let partition = self.start(key)..self.start(key + 1);
            self.rng.shuffle(&mut self.order[partition]);
        }
        for (place, &piece) in (0..).zip(&self.order) {
            self.places[piece as usize] = place;
        }
    }

    #[cfg(test)]
    pub(super) fn is_listed(&self, piece: PieceIndex) -> bool {
        self.listed.has(piece.0)
    }

    /// Counts everything again.
    #[cfg(test)]
    pub(super) fn check(&self) {
        let orphans = self.listed.ones().filter(|&p| self.count(p) == 0);
        assert_eq!(self.orphans as usize, orphans.count(), "orphans");
        if self.is_stale {
            return;
        }
        assert!(self.borders.is_sorted(), "{:?}", self.borders);
        for (place, &piece) in (0..).zip(&self.order) {
            assert_eq!(self.places[piece as usize], place);
            let key = self.key(piece);
            let partition = self.start(key)..self.start(key + 1);
            assert!(
                partition.contains(&(place as usize)),
                "piece {piece} at {place}"
            );
        }
    }
}

/// The best of a sample of the pieces of `set` that are `theirs` too.
fn best_of(
    set: &Bitfield,
    theirs: &Bitfield,
    (first, salt): (u32, u64),
    rank: impl Fn(u32) -> u32,
) -> Option<u32> {
    let lot = |piece| {
        salt.wrapping_add(u64::from(piece))
            .wrapping_mul(GOLDEN_RATIO)
    };
    let from = |first| set.ones_of_both(theirs, first);
    let sample = from(first).chain(from(0)).take(SAMPLE_MAX);
    sample.min_by_key(|&piece| (rank(piece), lot(piece)))
}

/// Pieces looked at from the rarest on before a sample decides.
const WALK_MAX: usize = 2048;
/// Pieces of a peer that are compared in a sample.
const SAMPLE_MAX: usize = 4096;
/// A bitfield that moves more than one of so many pieces has the order sorted anew.
const SORT_SHARE: u32 = 4;
/// Pieces of a torrent that are kept in order at most.
const SORTED_MAX: u32 = 128 * 1024;
/// 2^64 divided by the golden ratio: multiples of it fall evenly over all numbers.
const GOLDEN_RATIO: u64 = 0x9e37_79b9_7f4a_7c15;
