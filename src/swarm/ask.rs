//! Asking: which blocks are requested of whom, and how many at a time.

use super::peer::{Others, Peer, PeerKey, Request};
use super::{Effect, Swarm};
use crate::base::bits::Bitfield;
use crate::base::time::Instant;
use crate::wire::message::{BlockRef, Outgoing};

impl Swarm {
    /// Brings the queue of requests with every peer to its target length. Under a limit of rate
    /// somebody else is the first each time, as it may not suffice for all.
    pub(super) fn fill_all(&mut self, now: Instant) {
        let mut keys = self.keys();
        let mut asked = self.asked();
        if self.down_limit.is_some() && !keys.is_empty() {
            let first = self.live.first_to_fill % keys.len();
            keys.rotate_left(first);
            self.live.first_to_fill = first + 1;
            keys.sort_by_key(|&key| self.peer(key).is_last_to_ask());
        }
        for key in keys {
            let before = self.peer(key).requests.len();
            self.fill_within(key, asked, now);
            let peer = self.peer(key);
            if peer.is_limited {
                *asked.blocks_of(peer) += peer.requests.len() - before;
            }
        }
    }

    /// Brings the queue of requests with this peer to its target length.
    pub(super) fn fill(&mut self, key: PeerKey, now: Instant) {
        self.fill_within(key, self.asked(), now);
    }

    fn fill_within(&mut self, key: PeerKey, asked: AllAsked, now: Instant) {
        let most = self.asked_share(key, asked);
        let others = match self.peers.len() {
            1 => Others::None,
            _ if self.is_flat() => Others::Near,
            _ => Others::Far,
        };
        let peer = self.peer_mut(key);
        if !peer.wanted || (peer.chokes_us && peer.allowed_fast.is_empty()) {
            return;
        }
        let target = peer.queue_target(others, now).min(most);
        let free = target.saturating_sub(peer.requests.len());
        if free < (target / 4).clamp(1, REFILL_BATCH) {
            return;
        }
        let mut picked = std::mem::take(&mut self.live.picked);
        picked.clear();
        let fit = self.fit_of(key);
        if self.peer(key).chokes_us {
            let allowed = self.allowed_pieces(key);
            self.live.picker.pick(&allowed, free, &mut picked);
        } else {
            self.pick_alone(key, free, &mut picked);
            let peer = &mut self.peers[key.0 as usize];
            let suggestions = &mut peer.suggestions;
            let named = fit.as_ref().map_or(&peer.have, |fit| &fit.lacking);
            suggestions.pick(&mut self.live.picker, named, free, &mut picked);
            let peer = &self.peers[key.0 as usize];
            let theirs = fit.as_ref().map_or(&peer.have, |fit| &fit.pieces);
            self.live
                .picker
                .pick(theirs, free - picked.len(), &mut picked);
            if picked.is_empty() {
                self.relieve(key, free, now, &mut picked);
            }
            // Copies of one who lets requests time out would keep copies from others.
            let peer = &self.peers[key.0 as usize];
            let theirs = fit.as_ref().map_or(&peer.have, |fit| &fit.pieces);
            let idle = picked.is_empty() && !peer.snubbed && peer.requests.len() < ENDGAME_MAX;
            if idle && self.peers.len() > 1 && self.live.picker.is_endgame() {
                let asked = |block: BlockRef| {
                    peer.incoming.as_ref().is_some_and(|i| i.block == block)
                        || peer.requests.iter().any(|r| r.block == block)
                };
                let room = free.min(ENDGAME_MAX - peer.requests.len());
                self.live
                    .picker
                    .pick_endgame(theirs, asked, room, COPIES_MAX, &mut picked);
            }
        }
        self.fit_used(fit);
        for &block in &picked {
            self.request(key, block, now);
        }
        self.live.picked = picked;
    }

    /// What is asked for under a limit of rate.
    fn asked(&self) -> AllAsked {
        let mut all = AllAsked::default();
        if self.down_limit.is_some() {
            for (_, peer) in self.peers.iter().filter(|(_, peer)| peer.is_limited) {
                *all.blocks_of(peer) += peer.blocks_under_way();
                all.peers += usize::from(peer.may_be_asked() && !peer.is_last_to_ask());
            }
        }
        all
    }

    /// Requests that may be open with this peer under a limit of rate: an equal share of all, as
    /// long as there is room. What those who are asked last hold is no loss to the others.
    fn asked_share(&self, key: PeerKey, asked: AllAsked) -> usize {
        let peer = self.peer(key);
        match self.down_limit {
            Some(limit) if peer.is_limited => {
                let most = limit.blocks as usize;
                let held = match peer.is_last_to_ask() {
                    true => asked.blocks + asked.last,
                    false => asked.blocks,
                };
                let room = most.saturating_sub(held);
                let share = (most / asked.peers.max(1)).max(1);
                let arriving = peer.blocks_under_way() - peer.requests.len();
                share
                    .saturating_sub(arriving)
                    .min(peer.requests.len() + room)
            }
            _ => usize::MAX,
        }
    }

    fn request(&mut self, key: PeerKey, block: BlockRef, now: Instant) {
        if self.live.prepared.insert(block.piece) {
            self.effects.push_back(Effect::Prepare(block.piece));
        }
        let peer = self.peer_mut(key);
        if peer.requests.is_empty() {
            peer.heard = now;
        }
        peer.requests.push_back(Request { block, at: now });
        self.send(key, Outgoing::Request(block));
    }

    fn allowed_pieces(&self, key: PeerKey) -> Bitfield {
        let peer = self.peer(key);
        let mut bits = Bitfield::new(peer.have.len());
        for piece in peer
            .allowed_fast
            .iter()
            .filter(|piece| peer.have.has(piece.0))
        {
            bits.set(piece.0);
        }
        bits
    }
}

/// What is asked of all peers to whom limits of rate apply.
#[derive(Clone, Copy, Debug, Default)]
struct AllAsked {
    /// Blocks that are open or arriving, but for those of peers that are asked last.
    blocks: usize,
    /// Blocks that are open with peers that are asked last.
    last: usize,
    /// Peers that may be asked, but for those that are asked last.
    peers: usize,
}

impl AllAsked {
    /// The count that the blocks of `peer` belong to.
    fn blocks_of(&mut self, peer: &Peer) -> &mut usize {
        match peer.is_last_to_ask() {
            true => &mut self.last,
            false => &mut self.blocks,
        }
    }
}

/// A queue is filled up once this many requests are free, or a quarter of it.
const REFILL_BATCH: usize = 16;
/// A peer with fewer open requests than this is asked, in the endgame, for blocks that others
/// were asked for too; up to this many.
const ENDGAME_MAX: usize = 16;
/// Peers that are asked for the same block at most.
const COPIES_MAX: u32 = 2;
