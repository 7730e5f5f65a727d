//! Requests that end without their block: released, withdrawn, timed out.

use std::collections::VecDeque;

use super::Swarm;
use super::peer::PeerKey;
use crate::base::id::PieceIndex;
use crate::base::time::Instant;
use crate::wire::message::{BlockRef, Outgoing};

impl Swarm {
    /// A request will not be answered: the block is free for others.
    pub(super) fn release(&mut self, key: PeerKey, block: BlockRef) {
        self.refill_all = true;
        if self.is_stored(block) {
            return;
        }
        let index = self.geometry().block_at(block.begin);
        match self.alone.get_mut(&block.piece) {
            Some(alone) if alone.owner == Some(key) => alone.again.push(index),
            Some(_) => {}
            None => self.picker.block_released(block),
        }
    }

    /// Gives up every request with this peer.
    pub(super) fn release_requests(&mut self, key: PeerKey, now: Instant) {
        let requests = std::mem::take(&mut self.peer_mut(key).requests);
        for request in requests {
            self.release(key, request.block);
            self.peer_mut(key).withdraw(request, now);
        }
    }

    /// Takes back every request for a block of `piece`.
    pub(super) fn take_back_piece(&mut self, piece: PieceIndex, now: Instant) {
        for key in self.keys() {
            let peer = self.peer_mut(key);
            let (gone, kept): (VecDeque<_>, _) = std::mem::take(&mut peer.requests)
                .into_iter()
                .partition(|request| request.block.piece == piece);
            peer.requests = kept;
            for request in gone {
                self.release(key, request.block);
                self.peer_mut(key).withdraw(request, now);
                self.send(key, Outgoing::Cancel(request.block));
            }
        }
    }

    /// Gives up requests that take too long.
    ///
    /// A peer that was silent for the whole time is snubbed and loses all of them; one that
    /// answered later requests has lost the older ones (libtorrent drops what exceeds its queue).
    pub(super) fn expire_requests(&mut self, key: PeerKey, now: Instant) {
        let peer = self.peer_mut(key);
        let patience = peer.patience(now);
        let Some(oldest) = peer.requests.front().copied() else {
            return;
        };
        if now - peer.heard.max(oldest.at) > patience {
            peer.snubbed = true;
            // It may only be slow: what is asked of it again shall not come twice.
            let asked: Vec<BlockRef> = peer.requested().collect();
            for block in asked {
                self.send(key, Outgoing::Cancel(block));
            }
            self.release_requests(key, now);
            self.abandon_alone(key);
            self.stop_receiving(key);
            return;
        }
        let mut lost = Vec::new();
        while let Some(request) = peer.requests.front()
            && now - request.at > patience * 2
        {
            lost.extend(peer.requests.pop_front());
        }
        for request in lost {
            self.release(key, request.block);
            let block = request.block;
            self.peer_mut(key).withdraw(request, now);
            self.send(key, Outgoing::Cancel(block));
        }
    }
}
