//! Requests that end without their block: released, withdrawn, timed out.

use std::collections::VecDeque;
use std::time::Duration;

use super::Swarm;
use super::peer::{ENDGAME_PATIENCE, PATIENCE_MAX, PeerKey, Request, gap};
use crate::base::id::PieceIndex;
use crate::base::limits::BLOCK_LEN;
use crate::base::time::Instant;
use crate::wire::message::{BlockRef, Outgoing};

impl Swarm {
    /// A request will not be answered: the block is free for others.
    pub(super) fn release(&mut self, key: PeerKey, block: BlockRef, now: Instant) {
        self.refill_all = true;
        if self.is_stored(block) {
            return;
        }
        match self.live.alone.get(&block.piece) {
            Some(alone) if alone.owner == Some(key) => self.abandon_piece(key, block.piece, now),
            Some(_) => {}
            None => self.live.picker.block_released(block),
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
            self.withdraw(key, request, now);
        }
        gone.into_iter().map(|request| request.block).collect()
    }

    /// Tells a peer that `request`, which is open no longer, was given up.
    pub(super) fn withdraw(&mut self, key: PeerKey, request: Request, now: Instant) {
        self.peer_mut(key).withdraw(request, now);
        self.send(key, Outgoing::Cancel(request.block));
    }

    /// How long a limit of rate lets a block take if all who have one under way get the same.
    pub(super) fn limited_turn(&self) -> Option<Duration> {
        let limit = self.down_limit?;
        let peers = self.peers.iter().filter(|(_, peer)| peer.is_limited);
        let busy = peers.filter(|(_, peer)| peer.incoming.is_some() || !peer.requests.is_empty());
        let bytes = u64::from(BLOCK_LEN) * (busy.count() as u64).max(1);
        Some(Duration::from_millis(bytes * 1000 / limit.rate.max(1)))
    }

    /// The mean time from one block of a peer's to its next, of all peers that are here.
    pub(super) fn usual_gap(&self, now: Instant) -> Option<Duration> {
        let peers = self.peers.iter().map(|(_, peer)| peer);
        let time = peers.clone().map(|peer| now - peer.joined).sum();
        gap(time, peers.map(|peer| peer.down.total()).sum())
    }

    /// Gives up requests that take too long; of all peers together there are the
    /// [`Self::limited_turn`] and the [`Self::usual_gap`].
    ///
    /// A peer that was silent for the whole time is snubbed and loses all of them; one that
    /// answered later requests has lost the older ones (libtorrent drops what exceeds its queue).
    /// A block that has begun counts as a request: its sender may have died in the midst of it, and
    /// it may be all that is asked of anybody.
    pub(super) fn expire_requests(
        &mut self,
        key: PeerKey,
        (turn, gap): (Option<Duration>, Option<Duration>),
        now: Instant,
    ) {
        // In the endgame others are idle: they should not wait long for one who is silent.
        let hurry = self.peers.len() > 1 && self.live.picker.is_endgame();
        // A limit of ours that lets a block through only now and then is not its fault.
        let rate = self.down_limit.map_or(u64::MAX, |limit| limit.rate);
        let peer = self.peer_mut(key);
        let turn = turn.filter(|_| peer.is_limited);
        let by_limit = turn.unwrap_or(Duration::ZERO).saturating_mul(2);
        let in_endgame = peer.endgame_patience(gap).max(by_limit);
        let is_slowed = turn.is_some() && (rate <= SLOW_RATE_MAX || by_limit > ENDGAME_PATIENCE);
        let patience = match is_slowed {
            true => PATIENCE_MAX.max(by_limit),
            false => peer.patience(now).max(by_limit),
        };
        let silence_max = if hurry && !peer.snubbed && !is_slowed {
            patience.min(in_endgame)
        } else {
            patience
        };
        if let Some(incoming) = &peer.incoming
            && incoming.counted
            && now - incoming.since > BLOCK_TIME_MAX.max(by_limit.saturating_mul(2))
        {
            self.stop_receiving(key, now);
        }
        let peer = self.peer_mut(key);
        let begun = peer.incoming.as_ref().filter(|i| i.counted);
        let begun = begun.map(|i| i.since);
        let Some(since) = begun.or(peer.requests.front().map(|oldest| oldest.at)) else {
            return;
        };
        if now - peer.heard.max(since) > silence_max {
            peer.snubbed = true;
            // It may only be slow: what is asked of it again shall not come twice.
            let asked: Vec<BlockRef> = peer.requested().collect();
            for block in asked {
                self.send(key, Outgoing::Cancel(block));
            }
            self.release_requests(key, now);
            self.abandon_alone(key, now);
            self.stop_receiving(key, now);
            if self.peer(key).is_near {
                self.near_changed();
            }
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
            self.withdraw(key, request, now);
        }
    }
}

/// What limits of rate let come in for one torrent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DownLimit {
    /// Bytes a second, the other torrents having had their part.
    pub rate: u64,
    /// Blocks that may be open or arriving, of all peers to whom limits apply.
    pub blocks: u32,
}

/// Under a limit of no more than this, bytes a second, time-outs are long.
const SLOW_RATE_MAX: u64 = 64 * 1024;
/// Time after which a block that is still arriving is asked of others too; a limit of rate that
/// lets a block through more slowly makes it longer.
const BLOCK_TIME_MAX: Duration = Duration::from_secs(60);
