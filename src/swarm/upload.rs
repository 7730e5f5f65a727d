//! Serving: requests that come in, blocks that leave, whom to choke.

use std::net::IpAddr;

use super::peer::{Peer, PeerKey};
use super::{Fault, Swarm};
use crate::base::digest::sha1;
use crate::base::id::{ConnId, InfoHash, PieceIndex};
use crate::base::limits;
use crate::base::time::Instant;
use crate::swarm::choker::{Candidate, FAR_SLOTS, Role, SLOTS_FIRST};
use crate::wire::message::{BlockRef, Outgoing};

impl Swarm {
    pub(super) fn interest(
        &mut self,
        key: PeerKey,
        wants: bool,
        now: Instant,
    ) -> Result<(), Fault> {
        self.flip(key, now)?;
        if self.peer(key).wants_us == wants {
            return Ok(());
        }
        self.peer_mut(key).wants_us = wants;
        if wants {
            self.grant_fast(key);
            self.suggest(key, now);
        }
        self.look_back(now);
        if wants == self.peer(key).choked {
            self.interest_changed(now);
        }
        Ok(())
    }

    pub(super) fn requested(
        &mut self,
        key: PeerKey,
        block: BlockRef,
        now: Instant,
    ) -> Result<(), Fault> {
        if block.len == 0 || block.len > limits::REQUEST_LEN_MAX {
            return Err(Fault::RequestLen { len: block.len });
        }
        self.check_block(block)?;
        if !self.live.ours.has(block.piece.0) {
            let peer = self.peer_mut(key);
            peer.nuisance.lacking += 1;
            if peer.nuisance.lacking > LACKING_MAX {
                return Err(Fault::LackingRequests {
                    count: peer.nuisance.lacking,
                });
            }
            self.refuse(key, block);
            return Ok(());
        }
        self.complained(key, block.piece);
        let full = self.peer(key).uploads.len() >= limits::REQUESTS_IN_MAX as usize;
        if full || (self.peer(key).choked && !self.take_grant(key, block.piece)) {
            if self.peer_mut(key).nuisance.refused(now) {
                return Err(Fault::RequestFlood);
            }
            self.refuse(key, block);
            return Ok(());
        }
        self.peer_mut(key).uploads.push_back(block);
        self.flush(key);
        self.suggestion_taken(key, block.piece, now);
        Ok(())
    }

    pub(super) fn cancelled(&mut self, key: PeerKey, block: BlockRef) -> Result<(), Fault> {
        let peer = self.peer_mut(key);
        if let Some(place) = peer.uploads.iter().position(|b| *b == block) {
            peer.uploads.remove(place);
            self.refuse(key, block);
        }
        Ok(())
    }

    /// The next block to send to this peer.
    pub fn next_upload(&mut self, key: PeerKey) -> Option<BlockRef> {
        let peer = self.peer_mut(key);
        let block = peer.uploads.pop_front()?;
        peer.leaving += u64::from(block.len);
        if !peer.have.has(block.piece.0) {
            peer.served.sent(block.piece, block.len);
        }
        self.gave(key, block);
        Some(block)
    }

    /// What leaves for this peer next that is not of `piece`, if that is soon.
    pub fn upload_ahead(&self, key: PeerKey, piece: PieceIndex) -> Option<BlockRef> {
        let mut queued = self.peer(key).uploads.iter().take(UPLOADS_AHEAD);
        queued.find(|block| block.piece != piece).copied()
    }

    /// Payload went out to this peer; whether somebody got a slot by that.
    pub fn uploaded(&mut self, key: PeerKey, bytes: u64, now: Instant) -> bool {
        let peer = self.peer_mut(key);
        peer.leaving = peer.leaving.saturating_sub(bytes);
        peer.up.add(bytes, now);
        peer.served_at = now;
        self.up.add(bytes, now);
        self.leave_to_others(key);
        self.ran_dry(key, now)
    }

    /// Refuses what is queued of a piece that cannot be served any more.
    pub(super) fn refuse_piece(&mut self, key: PeerKey, piece: PieceIndex) {
        let queued = std::mem::take(&mut self.peer_mut(key).uploads);
        for block in queued {
            if block.piece == piece {
                self.refuse(key, block);
            } else {
                self.peer_mut(key).uploads.push_back(block);
            }
        }
    }

    /// Without the fast extension a refusal is silent (BEP 3), with it it is a message (BEP 6).
    fn refuse(&mut self, key: PeerKey, block: BlockRef) {
        if self.peer(key).caps.fast {
            self.send(key, Outgoing::Reject(block));
        }
    }

    /// Decides anew who is served.
    pub(super) fn rechoke(&mut self, now: Instant) {
        let role = self.role();
        let candidates: Vec<Candidate> = self.candidates(now);
        let chosen = self.live.choker.rechoke(&candidates, role, now);
        self.apply_chokes(&self.keys(), &chosen, now);
    }

    /// A peer began or ceased to be interested: a free slot is given away at once.
    pub(super) fn interest_changed(&mut self, now: Instant) {
        let credit = self.credit();
        let wants = |peer: &Peer| self.is_ours_to_serve(peer);
        let (mut served, mut waiting, mut far_served, mut near_waiting) = (0, 0, 0, 0);
        let mut owing = 0;
        for (_, peer) in self.peers.iter().filter(|(_, peer)| wants(peer)) {
            if peer.choked && peer.owes(credit) {
                owing += 1;
            } else if peer.choked {
                waiting += 1;
                near_waiting += u32::from(peer.is_near);
            } else {
                served += 1;
                far_served += usize::from(!peer.is_near);
            }
        }
        let is_free = served < self.live.choker.slot_count();
        if served < SLOTS_FIRST {
            waiting += owing;
        }
        let makes_room =
            self.live.choker.makes_room() && near_waiting > 0 && far_served > FAR_SLOTS;
        if waiting == 0 || !(is_free || makes_room) {
            return;
        }
        // Who has no slot and wants none is not asked about, and rates do not matter.
        let concerned = self.peers.iter().filter(|(_, p)| wants(p) || !p.choked);
        let (keys, candidates): (Vec<PeerKey>, Vec<Candidate>) = concerned
            .map(|(key, peer)| {
                let candidate = candidate(peer, wants(peer), (0, 0), credit);
                (PeerKey(key as u32), candidate)
            })
            .unzip();
        let role = self.role();
        let chosen = self.live.choker.unchoke_now(&candidates, role, now);
        self.apply_chokes(&keys, &chosen, now);
    }

    pub(super) fn role(&self) -> Role {
        if self.has_all_wanted() {
            Role::Seed
        } else {
            Role::Leecher
        }
    }

    fn candidates(&mut self, now: Instant) -> Vec<Candidate> {
        let credit = self.credit();
        let mut candidates = Vec::with_capacity(self.peers.len());
        for key in self.keys() {
            let rates = self.peer_rates(key, now);
            let peer = self.peer(key);
            candidates.push(candidate(peer, self.is_ours_to_serve(peer), rates, credit));
        }
        candidates
    }

    /// Of the peers `keys` those that are `chosen` have a slot from now on, and the others none.
    fn apply_chokes(&mut self, keys: &[PeerKey], chosen: &[ConnId], now: Instant) {
        for &key in keys {
            let peer = self.peer(key);
            match (chosen.contains(&peer.conn), peer.choked) {
                (true, true) => self.unchoke(key, now),
                (false, false) => self.choke(key),
                (true, false) => self.suggest(key, now),
                _ => {}
            }
        }
    }

    pub(super) fn unchoke(&mut self, key: PeerKey, now: Instant) {
        let peer = self.peer_mut(key);
        peer.choked = false;
        peer.unchoked_at = Some(now);
        self.suggest(key, now);
        self.send(key, Outgoing::Unchoke);
    }

    /// Chokes; with the fast extension what is queued is then rejected, one by one (BEP 6).
    pub(super) fn choke(&mut self, key: PeerKey) {
        self.peer_mut(key).choked = true;
        self.send(key, Outgoing::Choke);
        self.take_back_suggestions(key);
        let queued = std::mem::take(&mut self.peer_mut(key).uploads);
        for block in queued {
            self.refuse(key, block);
        }
    }

    /// Names the pieces that a newcomer may fetch while choked (BEP 6, "Allowed Fast").
    fn grant_fast(&mut self, key: PeerKey) {
        let peer = self.peer(key);
        let few = peer.have.count_ones() < ALLOWED_FAST_COUNT as u32;
        // A seed would give the same pieces to many before it gave each once.
        let is_spreading = self.is_spreading() || self.live.back.is_back();
        if !peer.caps.fast || !few || !peer.granted_fast.is_empty() || is_spreading {
            return;
        }
        let IpAddr::V4(ip) = peer.origin.remote.ip().to_canonical() else {
            return;
        };
        let count = self.geometry().piece_count();
        let set = allowed_fast_set(
            ip.octets(),
            self.meta().info_hash,
            count,
            ALLOWED_FAST_COUNT,
        );
        for piece in set {
            if self.live.ours.has(piece.0) && !self.peer(key).have.has(piece.0) {
                self.peer_mut(key).granted_fast.push((piece, 0));
                self.send(key, Outgoing::AllowedFast(piece));
            }
        }
    }

    /// Uses up one block of what may be served to a choked peer: each piece three times over.
    fn take_grant(&mut self, key: PeerKey, piece: PieceIndex) -> bool {
        let most = self.geometry().block_count(piece).saturating_mul(3);
        let grants = &mut self.peer_mut(key).granted_fast;
        match grants.iter_mut().find(|(granted, _)| *granted == piece) {
            Some((_, served)) if *served < most => {
                *served += 1;
                true
            }
            _ => false,
        }
    }
}

/// The canonical allowed-fast set of BEP 6 for a peer at `ip`: at most `k` pieces of `count`.
pub fn allowed_fast_set(ip: [u8; 4], info_hash: InfoHash, count: u32, k: usize) -> Vec<PieceIndex> {
    let mut set = Vec::new();
    if count == 0 {
        return set;
    }
    let k = k.min(count as usize);
    let mut seed = vec![ip[0], ip[1], ip[2], 0];
    seed.extend_from_slice(&info_hash.0);
    // A small torrent may repeat its indices for long; what is found by then is enough.
    for _ in 0..ALLOWED_FAST_ROUNDS_MAX {
        let digest = sha1(&seed);
        for word in digest.chunks_exact(4) {
            let word = u32::from_be_bytes([word[0], word[1], word[2], word[3]]);
            let piece = PieceIndex(word % count);
            if set.len() < k && !set.contains(&piece) {
                set.push(piece);
            }
        }
        if set.len() == k {
            break;
        }
        seed = digest.to_vec();
    }
    set
}

/// What the choker has to know of a peer.
fn candidate(peer: &Peer, wants: bool, (down_rate, up_rate): (u64, u64), credit: u64) -> Candidate {
    Candidate {
        conn: peer.conn,
        interested: wants,
        is_near: peer.is_near,
        unchoked: !peer.choked,
        snubbed: peer.snubbed,
        owes: peer.owes(credit),
        down_rate,
        up_rate,
        joined: peer.joined,
        last_unchoked: peer.unchoked_at,
    }
}

/// Pieces that a choked newcomer may fetch (libtorrent: 5).
const ALLOWED_FAST_COUNT: usize = 5;
const ALLOWED_FAST_ROUNDS_MAX: u32 = 100;
/// Blocks within which it is seen what leaves next: as many as a window of storage has.
const UPLOADS_AHEAD: usize = (limits::WINDOW_LEN / limits::BLOCK_LEN as u64) as usize;
/// Requests for pieces that we lack before the peer is closed.
const LACKING_MAX: u32 = 50;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allowed_fast_set_of_the_beps_example() {
        // BEP 6, "Allowed Fast": info hash of 0xaa bytes, 80.4.4.200, 1313 pieces.
        let set = allowed_fast_set([80, 4, 4, 200], InfoHash([0xaa; 20]), 1313, 9);
        let indices: Vec<u32> = set.iter().map(|p| p.0).collect();
        assert_eq!(indices, [1059, 431, 808, 1217, 287, 376, 1188, 353, 508]);
    }

    #[test]
    fn allowed_fast_set_of_a_tiny_torrent_ends() {
        assert_eq!(
            allowed_fast_set([1, 2, 3, 4], InfoHash([1; 20]), 1, 5),
            [PieceIndex(0)]
        );
        assert!(allowed_fast_set([1, 2, 3, 4], InfoHash([1; 20]), 0, 5).is_empty());
    }
}
