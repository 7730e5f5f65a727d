//! What a seed gives first: each piece once before any of them goes out twice (BEP 6, "Suggest
//! Piece").
//!
//! All that leechers know at the start is that the seed has everything, so they would ask it for
//! the same pieces, and each piece that it sends twice keeps the rest waiting for another.
//! So a seed names to each peer that it serves pieces that nobody else has, each to one peer only,
//! and always so many that its queue of requests is made of them; and whoever is told so asks for
//! these first. Nobody is hindered: who does not know of it asks for what it likes.
//!
//! Once every piece was named, those are named again that came to too few (see
//! [`step_back`](super::step_back)). When all peers have left it begins anew: whoever comes then is
//! the first of others.

use std::collections::VecDeque;

use super::live::Work;
use super::peer::{Peer, PeerKey};
use super::picker::Picker;
use super::{Exchange, Fault, Swarm};
use crate::base::bits::Bitfield;
use crate::base::id::PieceIndex;
use crate::base::rng::Rng;
use crate::base::time::Instant;
use crate::wire::message::{BlockRef, Outgoing};

/// A seed's list of what it has not named to anybody.
#[derive(Debug)]
pub(super) struct Spread {
    rng: Rng,
    /// Pieces to name, the next one last; `None` before the first is.
    left: Option<Vec<PieceIndex>>,
    /// Pieces that were named and came to too few others.
    again: Vec<PieceIndex>,
}

/// What a peer suggested that we have not asked it for, in its order.
#[derive(Debug, Default)]
pub(super) struct Suggestions {
    pieces: VecDeque<PieceIndex>,
    /// The first of them was begun because of its suggestion.
    is_begun: bool,
}

impl Spread {
    pub fn new(rng: Rng) -> Self {
        let again = Vec::new();
        Self {
            rng,
            left: None,
            again,
        }
    }

    /// Puts peers in a random order.
    pub fn shuffle(&mut self, keys: &mut [PeerKey]) {
        self.rng.shuffle(keys);
    }

    /// Whether a piece may be named once more to this peer, which has no slot.
    pub fn has_for(&self, peer: &Peer) -> bool {
        let may = peer.wants_us && peer.caps.fast;
        may && self.again.iter().any(|piece| !peer.have.has(piece.0))
    }
}

impl Suggestions {
    /// Takes note of a suggestion; those of one that makes too many are not.
    fn add(&mut self, piece: PieceIndex) {
        if self.pieces.len() < SUGGESTIONS_MAX && !self.pieces.contains(&piece) {
            self.pieces.push_back(piece);
        }
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Appends blocks of suggested pieces until there are `end`. What was begun with others since
    /// is fetched from them.
    pub fn pick(
        &mut self,
        picker: &mut Picker,
        theirs: &Bitfield,
        end: usize,
        out: &mut Vec<BlockRef>,
    ) {
        if !picker.takes_suggestions() {
            return;
        }
        while out.len() < end
            && let Some(&piece) = self.pieces.front()
        {
            let is_ours = self.is_begun || picker.is_at_rest(piece);
            // Who suggests what it has just got may not have said yet that it has it.
            let may = is_ours && theirs.has(piece.0);
            self.is_begun = may && picker.pick_piece(piece, end, out);
            if !self.is_begun {
                self.pieces.pop_front();
            }
        }
    }
}

impl Swarm {
    /// Names to a peer that is served what it should ask for, if we are a seed.
    pub(super) fn suggest(&mut self, key: PeerKey, now: Instant) {
        let peer = self.peer(key);
        let is_served = peer.caps.fast && peer.wants_us && !peer.choked;
        if !is_served || !self.is_complete() || self.exchange != Exchange::Full {
            return;
        }
        let piece_len = self.geometry().nominal_piece_len().max(1);
        let ahead = (peer.uploads.len().max(AHEAD_MIN) as u32)
            .saturating_mul(crate::base::limits::BLOCK_LEN);
        let most = (ahead / piece_len) as usize + 2;
        // Who only begins with what is named to it is named no more.
        let begun_max = self.peer(key).uploads.len() + most.max(BEGUN_MAX);
        while self.peer(key).firsts.len() < begun_max
            && self.peer(key).suggested.len() < most
            && let Some(piece) = self.next_unnamed(key)
        {
            self.peer_mut(key).suggested.push_back(piece);
            self.live.back.named(piece, now);
            self.send(key, Outgoing::Suggest(piece));
        }
    }

    /// Whether we are a seed that has not named every piece yet.
    pub(super) fn is_spreading(&self) -> bool {
        let left = self.live.spread.left.as_ref();
        self.is_complete() && left.is_none_or(|left| !left.is_empty())
    }

    /// Pieces that are to be named once more.
    pub(super) fn name_again(&mut self, pieces: Vec<PieceIndex>) {
        self.live.spread.again = pieces;
    }

    /// The next piece that nobody but we has, and that was named to nobody; then the next of those
    /// that are to be named again.
    fn next_unnamed(&mut self, key: PeerKey) -> Option<PieceIndex> {
        let count = self.live.ours.len();
        let Work { spread, picker, .. } = &mut *self.live;
        let Spread { rng, left, again } = spread;
        let left = left.get_or_insert_with(|| {
            let mut pieces: Vec<PieceIndex> = (0..count).map(PieceIndex).collect();
            rng.shuffle(&mut pieces);
            pieces
        });
        while let Some(piece) = left.pop() {
            let peer = &self.peers[key.0 as usize];
            if picker.availability(piece) == 0 && !peer.have.has(piece.0) {
                return Some(piece);
            }
        }
        left.shrink_to_fit();
        while let Some(piece) = again.pop() {
            let peer = &self.peers[key.0 as usize];
            if !peer.have.has(piece.0) {
                return Some(piece);
            }
        }
        None
    }

    /// A peer asks for what was suggested to it: more is.
    pub(super) fn suggestion_taken(&mut self, key: PeerKey, piece: PieceIndex, now: Instant) {
        let suggested = &mut self.peer_mut(key).suggested;
        if let Some(place) = suggested.iter().position(|named| *named == piece) {
            suggested.remove(place);
            let len = self.geometry().piece_len(piece);
            self.peer_mut(key).firsts.push((piece, len));
            self.suggest(key, now);
        }
    }

    /// A peer is served no longer: what it has not asked for is named to others.
    pub(super) fn take_back_suggestions(&mut self, key: PeerKey) {
        let suggested = std::mem::take(&mut self.peer_mut(key).suggested);
        let firsts = std::mem::take(&mut self.peer_mut(key).firsts);
        let firsts = firsts.into_iter().map(|(piece, _)| piece);
        if self.live.back.is_back() {
            let dropped: Vec<PieceIndex> = suggested.into_iter().chain(firsts).collect();
            return self.live.back.not_named(&dropped);
        }
        if let Some(left) = &mut self.live.spread.left {
            left.extend(suggested);
            left.splice(..0, firsts); // who has a part of it may be served again before
        }
    }

    /// We are a seed no longer.
    pub(super) fn nothing_to_suggest(&mut self) {
        self.live.spread.left = None;
        self.live.spread.again = Vec::new();
        self.live.back.begin_anew();
        for key in self.keys() {
            self.peer_mut(key).suggested.clear();
            self.peer_mut(key).firsts.clear();
        }
    }

    /// A peer says what it had best be asked for.
    pub(super) fn suggested(&mut self, key: PeerKey, piece: PieceIndex) -> Result<(), Fault> {
        self.check_fast(key)?;
        self.check_index(piece)?;
        if self.live.picker.is_missing(piece) {
            self.peer_mut(key).suggestions.add(piece);
        }
        Ok(())
    }
}

/// Suggestions of a peer that are remembered at most.
const SUGGESTIONS_MAX: usize = 512;
/// Suggested pieces that a peer may have begun, beside those whose blocks wait, at least.
const BEGUN_MAX: usize = 16;
/// Blocks that are suggested ahead of a peer's requests at least.
const AHEAD_MIN: usize = 64;
