//! Requests that end without their block: released, withdrawn, timed out.

use std::collections::VecDeque;
use std::time::Duration;

use super::Swarm;
use super::peer::{PATIENCE_MAX, PeerKey};
use crate::base::id::PieceIndex;
use crate::base::time::Instant;
use crate::wire::message::{BlockRef, Outgoing};

impl Swarm {
    /// A request will not be answered: the block is free for others.
    pub(super) fn release(&mut self, key: PeerKey, block: BlockRef, now: Instant) {
        self.refill_all = true;
        if self.is_stored(block) {
            return;
        }
        match self.alone.get(&block.piece) {
            Some(alone) if alone.owner == Some(key) => self.abandon_piece(key, block.piece, now),
            Some(_) => {}
            None => self.picker.block_released(block),
        }
    }

    /// Gives up every request with this peer.
    pub(super) fn release_requests(&mut self, key: PeerKey, now: Instant) {
        let requests = std::mem::take(&mut self.peer_mut(key).requests);
        for request in requests {
            self.release(key, request.block, now);
            self.peer_mut(key).withdraw(request, now);
        }
    }

    /// Takes back every request for a block of `piece`.
    pub(super) fn take_back_piece(&mut self, piece: PieceIndex, now: Instant) {
        for key in self.keys() {
            for block in self.take_back(key, piece, now) {
                self.release(key, block, now);
            }
        }
    }

    /// Cancels the requests with this peer for blocks of `piece`, and says which they were.
    pub(super) fn take_back(
        &mut self,
        key: PeerKey,
        piece: PieceIndex,
        now: Instant,
    ) -> Vec<BlockRef> {
        let peer = self.peer_mut(key);
        let (gone, kept): (VecDeque<_>, _) = std::mem::take(&mut peer.requests)
            .into_iter()
            .partition(|request| request.block.piece == piece);
        peer.requests = kept;
        for &request in &gone {
            self.peer_mut(key).withdraw(request, now);
            self.send(key, Outgoing::Cancel(request.block));
        }
        gone.into_iter().map(|request| request.block).collect()
    }

    /// Gives up requests that take too long.
    ///
    /// A peer that was silent for the whole time is snubbed and loses all of them; one that
    /// answered later requests has lost the older ones (libtorrent drops what exceeds its queue).
    pub(super) fn expire_requests(&mut self, key: PeerKey, now: Instant) {
        // In the endgame others are idle: they should not wait long for one who is silent.
        let hurry = self.peers.len() > 1 && self.picker.is_endgame();
        // A limit of ours that lets a block through only now and then is not its fault.
        let is_slowed = self.asked_max.is_some_and(|most| most <= SLOW_ASKED_MAX);
        let peer = self.peer_mut(key);
        let is_slowed = is_slowed && peer.is_limited;
        let patience = match is_slowed {
            true => PATIENCE_MAX,
            false => peer.patience(now),
        };
        let silence_max = if hurry && !peer.snubbed && !is_slowed {
            patience.min(ENDGAME_PATIENCE)
        } else {
            patience
        };
        if let Some(incoming) = &peer.incoming
            && incoming.counted
            && !is_slowed
            && now - incoming.since > BLOCK_TIME_MAX
        {
            self.stop_receiving(key, now);
        }
        let peer = self.peer_mut(key);
        let Some(oldest) = peer.requests.front().copied() else {
            return;
        };
        if now - peer.heard.max(oldest.at) > silence_max {
            peer.snubbed = true;
            // It may only be slow: what is asked of it again shall not come twice.
            let asked: Vec<BlockRef> = peer.requested().collect();
            for block in asked {
                self.send(key, Outgoing::Cancel(block));
            }
            self.release_requests(key, now);
            self.abandon_alone(key, now);
            self.stop_receiving(key, now);
            return;
        }
        let mut lost = Vec::new();
        while let Some(request) = peer.requests.front()
            && now - request.at > patience * 2
        {
            lost.extend(peer.requests.pop_front());
        }
        for request in lost {
            self.release(key, request.block, now);
            let block = request.block;
            self.peer_mut(key).withdraw(request, now);
            self.send(key, Outgoing::Cancel(block));
        }
    }
}

/// Under a limit of rate with no more open requests than this, all peers together, time-outs are
/// long: less than 64 KiB a second.
const SLOW_ASKED_MAX: u32 = 8;
/// Time after which a block that is still arriving is asked of others too.
const BLOCK_TIME_MAX: Duration = Duration::from_secs(60);
/// Time after which a silent peer loses its requests when nothing else is left to ask for.
const ENDGAME_PATIENCE: Duration = Duration::from_secs(5);
