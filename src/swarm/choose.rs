//! What the user wants of the torrent, and how much of that is there.

use super::peer::PeerKey;
use super::pieces::Alone;
use super::{Effect, Exchange, Swarm};
use crate::base::bits::Bitfield;
use crate::base::choice::PieceOrder;
use crate::base::id::PieceIndex;
use crate::base::time::Instant;
use crate::meta::choice::ChosenPieces;

impl Swarm {
    /// The user wants these pieces from now on, or all of them. What is under way of others is
    /// taken back: nothing of them is stored any more.
    pub fn choose(&mut self, pieces: Option<ChosenPieces>, order: PieceOrder, now: Instant) {
        let was_done = self.has_all_wanted();
        self.wanted = pieces.as_ref().map(|pieces| pieces.wanted.clone());
        if !self.live.is_at_rest() || pieces.is_some() || order != PieceOrder::RarestFirst {
            self.live.picker.choose(pieces, order);
        }
        self.lacking = match &self.wanted {
            None => self.live.ours.len() - self.live.ours.count_ones(),
            Some(wanted) => wanted.ones().filter(|&p| !self.live.ours.has(p)).count() as u32,
        };
        self.drop_unwanted(now);
        self.near_changed();
        for key in self.keys() {
            let offers = self.offers_of(&self.peer(key).have);
            self.peer_mut(key).offers = offers;
            self.review_interest(key);
            self.roles_changed(key);
        }
        self.refill_all = true;
        if self.exchange == Exchange::Full && !was_done && self.has_all_wanted() {
            self.effects.push_back(Effect::Completed);
        }
        self.rest_if_idle();
    }

    /// Whether the user wants `piece`.
    pub fn is_wanted(&self, piece: PieceIndex) -> bool {
        let wanted = self.wanted.as_ref();
        wanted.is_none_or(|wanted| wanted.has(piece.0))
    }

    /// Whether every piece that the user wants is verified.
    pub fn has_all_wanted(&self) -> bool {
        self.lacking == 0
    }

    /// Bytes of the verified pieces.
    pub fn done_bytes(&self) -> u64 {
        self.len_of(self.live.ours.count_ones(), |last| self.live.ours.has(last))
    }

    /// Bytes of the pieces that the user wants.
    pub fn wanted_bytes(&self) -> u64 {
        match &self.wanted {
            None => self.geometry().length(),
            Some(wanted) => self.len_of(wanted.count_ones(), |last| wanted.has(last)),
        }
    }

    /// Bytes of the pieces that the user wants and that are not verified.
    pub fn left_bytes(&self) -> u64 {
        let is_lacking = |last| self.is_wanted(PieceIndex(last)) && !self.live.ours.has(last);
        self.len_of(self.lacking, is_lacking)
    }

    /// Bytes of so many pieces, whether the last one of all, which may be shorter, is among them.
    fn len_of(&self, count: u32, has: impl Fn(u32) -> bool) -> u64 {
        let geometry = self.geometry();
        let nominal = geometry.nominal_piece_len();
        let all = u64::from(count) * u64::from(nominal);
        match geometry.piece_count().checked_sub(1) {
            Some(last) if has(last) => {
                all - u64::from(nominal - geometry.piece_len(PieceIndex(last)))
            }
            _ => all,
        }
    }

    /// How many pieces that we want and lack are among these.
    pub(super) fn offers_of(&self, theirs: &Bitfield) -> u32 {
        let is_offered =
            |&piece: &u32| !self.live.ours.has(piece) && self.is_wanted(PieceIndex(piece));
        theirs.ones().filter(is_offered).count() as u32
    }

    /// Takes back what is under way of pieces that the user does not want.
    fn drop_unwanted(&mut self, now: Instant) {
        if self.live.is_at_rest() {
            return;
        }
        let alone = self.live.alone.keys().copied();
        let alone = alone.filter(|p| !self.is_wanted(*p) && !self.live.hashing.contains(p));
        for piece in alone.collect::<Vec<_>>() {
            let blocks = self.geometry().block_count(piece);
            self.live.alone.insert(piece, Alone::new(blocks));
        }
        for key in self.keys() {
            for piece in self.unwanted_of(key) {
                for block in self.take_back(key, piece, now) {
                    self.release(key, block, now);
                }
            }
            let incoming = self.peer(key).incoming.as_ref();
            if incoming.is_some_and(|incoming| !self.is_wanted(incoming.block.piece)) {
                self.stop_receiving(key, now);
            }
        }
    }

    /// The unwanted pieces that this peer was asked for.
    fn unwanted_of(&self, key: PeerKey) -> Vec<PieceIndex> {
        let asked = self.peer(key).requests.iter().map(|r| r.block.piece);
        let mut unwanted: Vec<_> = asked.filter(|piece| !self.is_wanted(*piece)).collect();
        unwanted.sort_unstable();
        unwanted.dedup();
        unwanted
    }
}
