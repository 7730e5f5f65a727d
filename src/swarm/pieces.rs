//! What peers have, what we have, and pieces that are fetched from one peer alone.

use std::sync::Arc;

use super::peer::PeerKey;
use super::{Effect, Exchange, Fault, Swarm};
use crate::base::bits::Bitfield;
use crate::base::id::{PeerId, PieceIndex};
use crate::base::rng::Rng;
use crate::base::time::Instant;
use crate::base::verdict::Verdict;
use crate::wire::message::{BlockRef, Outgoing};

/// A piece that failed with blocks of several senders and is fetched from one peer only.
#[derive(Debug)]
pub(super) struct Alone {
    /// The peer that it is asked of, once one is found.
    pub owner: Option<PeerKey>,
    /// First block that was not asked for yet.
    pub next: u32,
    /// Blocks that are stored.
    pub done: Bitfield,
    /// Its first owners that did not deliver it.
    failed_owners: Vec<PeerId>,
    /// How many did not.
    failures: u32,
}

impl Alone {
    pub fn new(blocks: u32) -> Self {
        Self {
            owner: None,
            next: 0,
            done: Bitfield::new(blocks),
            failed_owners: Vec::new(),
            failures: 0,
        }
    }

    /// Begins anew with another owner, as this one does not deliver.
    fn abandon(&mut self, owner: PeerId) {
        let mut failed_owners = std::mem::take(&mut self.failed_owners);
        if failed_owners.len() < PATIENT_OWNERS {
            failed_owners.push(owner);
        }
        *self = Self {
            failed_owners,
            failures: self.failures.saturating_add(1),
            ..Self::new(self.done.len())
        };
    }
}

impl Swarm {
    /// What was on disk is known: pieces may be asked for from now on.
    pub fn begin_exchange(&mut self, now: Instant) {
        self.exchange = Exchange::Full;
        for key in self.keys() {
            self.review_interest(key);
            self.roles_changed(key);
            self.fill(key, now);
        }
        self.rest_if_idle();
    }

    /// Whether pieces are asked for.
    pub fn exchange(&self) -> Exchange {
        self.exchange
    }

    /// A piece that was on disk before turned out good.
    pub fn found(&mut self, piece: PieceIndex, now: Instant) {
        if self.live.ours.set(piece.0) {
            self.lacking -= u32::from(self.is_wanted(piece));
            if !self.live.is_at_rest() {
                self.live.picker.have(piece);
                self.announce(piece, now);
            }
        }
    }

    /// Blocks of a piece are in storage, unverified, from a former process: they are not fetched.
    /// To be called before the exchange begins.
    pub fn took_up(&mut self, piece: PieceIndex, blocks: &Bitfield) {
        if self.live.ours.has(piece.0) || self.exchange != Exchange::ServeOnly {
            return;
        }
        let mut complete = false;
        for index in blocks.ones() {
            let block = BlockRef {
                piece,
                begin: index * crate::base::limits::BLOCK_LEN,
                len: self.geometry().block_len(piece, index),
            };
            complete |= self.live.picker.block_done(block).piece_complete;
            *self.live.taken_up.entry(piece).or_default() += block.len;
        }
        if complete && self.live.hashing.insert(piece) {
            self.effects.push_back(Effect::Check(piece));
        }
    }

    /// A verified piece is not there any more: it is served no longer, and fetched again.
    pub fn lost(&mut self, piece: PieceIndex) {
        if !self.live.ours.clear(piece.0) {
            return;
        }
        let is_wanted = self.is_wanted(piece);
        self.lacking += u32::from(is_wanted);
        self.refill_all = true;
        if self.live.is_at_rest() {
            return;
        }
        self.live.picker.lose(piece);
        self.nothing_to_suggest();
        self.lost_in_doubt(piece);
        for key in self.keys() {
            self.refuse_piece(key, piece);
            let peer = self.peer_mut(key);
            if peer.have.has(piece.0) {
                peer.offers += u32::from(is_wanted);
                self.review_interest(key);
            } else {
                peer.lacks -= 1;
            }
        }
    }

    /// Storage hashed a piece that was fetched.
    pub fn piece_checked(&mut self, piece: PieceIndex, verdict: Verdict, now: Instant) {
        if self.rechecked(piece, &verdict) {
            return self.rest_if_idle();
        }
        self.live.hashing.remove(&piece);
        self.live.prepared.remove(&piece);
        // Copies that are still asked for would come in vain, or spoil a new beginning.
        if self.live.alone.contains_key(&piece) || !matches!(verdict, Verdict::Good { .. }) {
            self.take_back_piece(piece, now);
        }
        match verdict {
            Verdict::Good { blocks } => self.piece_passed(piece, &blocks, now),
            Verdict::Bad { blocks } => self.piece_failed(piece, blocks),
            Verdict::Missing => self.piece_failed(piece, Vec::new()),
        }
        if self.exchange == Exchange::Full && self.has_all_wanted() {
            for key in self.keys() {
                self.roles_changed(key);
            }
        } else {
            self.refill_all |= self.live.alone.contains_key(&piece);
        }
        self.rest_if_idle();
    }

    fn piece_passed(&mut self, piece: PieceIndex, digests: &[u64], now: Instant) {
        for guilty in self.live.blame.passed(piece, digests) {
            self.effects.push_back(Effect::Ban(guilty, piece));
        }
        let had_failed = self.live.alone.remove(&piece).is_some();
        self.live.taken_up.remove(&piece);
        if !self.live.ours.set(piece.0) {
            return;
        }
        let was_done = self.has_all_wanted();
        self.lacking -= u32::from(self.is_wanted(piece));
        self.live.picker.have(piece);
        if had_failed {
            self.live
                .picker
                .set_wanted(piece, super::picker::Wanted::Yes);
        }
        self.announce(piece, now);
        if self.is_complete() || (self.has_all_wanted() && !was_done) {
            self.effects.push_back(Effect::Completed);
        }
    }

    fn piece_failed(&mut self, piece: PieceIndex, digests: Vec<u64>) {
        let geometry = self.geometry();
        let (blocks, len) = (geometry.block_count(piece), geometry.piece_len(piece));
        // What a former process received is not of this one's account.
        let taken_up = self.live.taken_up.remove(&piece).unwrap_or(0);
        self.wasted_bytes += u64::from(len - taken_up);
        if let Some(guilty) = self.live.blame.failed(piece, digests) {
            self.effects.push_back(Effect::Ban(guilty, piece));
        }
        self.live.picker.piece_failed(piece);
        self.live
            .picker
            .set_wanted(piece, super::picker::Wanted::No);
        self.live.alone.insert(piece, Alone::new(blocks));
        self.refill_all = true;
    }

    pub(super) fn has(
        &mut self,
        key: PeerKey,
        piece: PieceIndex,
        now: Instant,
    ) -> Result<(), Fault> {
        self.check_index(piece)?;
        let peer = self.peer_mut(key);
        peer.served.arrived(piece);
        if !peer.have.set(piece.0) {
            return Ok(());
        }
        self.live.picker.peer_gained(piece);
        self.near_gained(key, piece);
        if !self.live.ours.has(piece.0) {
            if self.is_wanted(piece) {
                self.peer_mut(key).offers += 1;
                self.review_interest(key);
                self.fill(key, now);
            }
        } else {
            self.peer_mut(key).lacks -= 1;
            self.gained(key, piece, now);
        }
        self.roles_changed(key);
        Ok(())
    }

    pub(super) fn has_bits(
        &mut self,
        key: PeerKey,
        bytes: &[u8],
        now: Instant,
    ) -> Result<(), Fault> {
        let count = self.geometry().piece_count();
        let bits = Bitfield::from_bytes(bytes, count).ok_or(Fault::BadBitfield {
            len: bytes.len(),
            count,
        })?;
        self.has_set(key, bits, now)
    }

    pub(super) fn has_all(&mut self, key: PeerKey, now: Instant) -> Result<(), Fault> {
        self.check_fast(key)?;
        self.has_set(key, Bitfield::full(self.geometry().piece_count()), now)
    }

    pub(super) fn has_none(&mut self, key: PeerKey) -> Result<(), Fault> {
        self.check_fast(key)?;
        if !self.peer(key).opening {
            return Err(Fault::LateBitfield);
        }
        self.peer_mut(key).opening = false;
        Ok(())
    }

    fn has_set(&mut self, key: PeerKey, bits: Bitfield, now: Instant) -> Result<(), Fault> {
        let peer = &mut self.peers[key.0 as usize];
        // aria2 1.36 sends a bitfield later on too, in place of many `have`s.
        let only_adds = bits.has_more_than(&peer.have) && !peer.have.has_more_than(&bits);
        if !peer.opening && !only_adds {
            return Err(Fault::LateBitfield);
        }
        peer.opening = false;
        self.live.picker.peer_left(&peer.have, peer.counted);
        peer.counted = self.live.picker.peer_joined(&bits);
        peer.served.arrived_all(&bits);
        let ours = &self.live.ours;
        peer.lacks = ours.ones().filter(|&piece| !bits.has(piece)).count() as u32;
        peer.have = bits;
        peer.came_as_seed = peer.is_seed();
        let offers = self.offers_of(&self.peer(key).have);
        self.peer_mut(key).offers = offers;
        if self.peer(key).is_near {
            self.neighbours_changed();
        }
        self.review_interest(key);
        self.roles_changed(key);
        self.fill(key, now);
        Ok(())
    }

    /// Tells the peer if we began or ceased to want something.
    pub(super) fn review_interest(&mut self, key: PeerKey) {
        let wanted = self.exchange == Exchange::Full && self.peer(key).offers > 0;
        if self.peer(key).wanted != wanted {
            self.peer_mut(key).wanted = wanted;
            self.send(
                key,
                if wanted {
                    Outgoing::Interested
                } else {
                    Outgoing::NotInterested
                },
            );
        }
    }

    /// Appends requests for pieces that this peer alone may deliver.
    pub(super) fn pick_alone(&mut self, key: PeerKey, most: usize, out: &mut Vec<BlockRef>) {
        if self.live.alone.is_empty() {
            return;
        }
        // Those that are being hashed are with nobody, and nobody is asked for them.
        let pieces = self.live.alone.keys().copied();
        let may_ask = |piece: &_| !self.live.hashing.contains(piece) && self.is_wanted(*piece);
        let pieces: Vec<_> = pieces.filter(may_ask).collect();
        for piece in pieces {
            if self.live.alone[&piece].owner.is_none() && self.may_own(key, piece) {
                self.live.blame.restarted(piece);
                let state = self.live.alone.get_mut(&piece).expect("listed above");
                state.owner = Some(key);
            }
            let meta = Arc::clone(self.meta());
            let geometry = meta.geometry();
            let state = self.live.alone.get_mut(&piece).expect("listed above");
            while state.owner == Some(key) && out.len() < most {
                let block = state.next;
                if block >= geometry.block_count(piece) {
                    break;
                }
                state.next += 1;
                let begin = block * crate::base::limits::BLOCK_LEN;
                out.push(BlockRef {
                    piece,
                    begin,
                    len: geometry.block_len(piece, block),
                });
            }
        }
    }

    /// Whoever failed to deliver the piece least often is preferred, then one that had no part in
    /// its failure. Names cost nothing: after some owners have failed, it is a matter of chance.
    fn may_own(&self, key: PeerKey, piece: PieceIndex) -> bool {
        let state = &self.live.alone[&piece];
        let can = |peer: &super::Peer| !peer.chokes_us && !peer.snubbed && peer.have.has(piece.0);
        let rank = |key: PeerKey, peer: &super::Peer| {
            let origin = peer.origin;
            if state.failed_owners.len() < PATIENT_OWNERS {
                let failed = state.failed_owners.iter();
                let times = failed.filter(|&&owner| owner == origin.peer_id).count();
                (times, self.live.blame.is_suspect(piece, origin), 0)
            } else {
                let draw = u64::from(state.failures) << 32 | u64::from(key.0);
                (0, false, Rng::new(draw).next_u64())
            }
        };
        let peer = self.peer(key);
        let ours = rank(key, peer);
        can(peer)
            && !self
                .peers()
                .any(|(key, other)| can(other) && rank(key, other) < ours)
    }

    /// The peer will not deliver: the pieces that it was to deliver alone look for another one.
    pub(super) fn abandon_alone(&mut self, key: PeerKey, now: Instant) {
        let is_its = |(_, state): &(&PieceIndex, &Alone)| state.owner == Some(key);
        let its: Vec<PieceIndex> = self
            .live
            .alone
            .iter()
            .filter(is_its)
            .map(|(&p, _)| p)
            .collect();
        for piece in its {
            self.abandon_piece(key, piece, now);
        }
    }

    /// The peer has not delivered a block of a piece that it was to deliver alone.
    pub(super) fn abandon_piece(&mut self, key: PeerKey, piece: PieceIndex, now: Instant) {
        let owner = self.peer(key).origin.peer_id;
        let is_hashed = self.live.hashing.contains(&piece);
        if let Some(state) = self.live.alone.get_mut(&piece) {
            if is_hashed {
                state.owner = None; // it has delivered
                return;
            }
            state.abandon(owner);
            self.take_back(key, piece, now);
            self.refill_all = true;
        }
    }
}

/// Owners of a piece that may fail before chance says who is the next.
const PATIENT_OWNERS: usize = 4;
