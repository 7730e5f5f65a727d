//! A peer of which nothing is asked relieves one that is asked for much.
//!
//! In a crowd everybody lacks the same few pieces, those that have just left the seed. All blocks
//! of them are soon asked for, of those who had them first, and whoever gets such a piece later
//! has nothing that is not asked of somebody else already: its line is idle, while what others wait
//! for stands in a long queue. So what stands at the end of one peer's queue is asked of another
//! instead, as soon as that one could give it and is asked for nothing, and answers sooner. This is
//! so among peers on our own link alone, where one is as good as another, and without a limit of
//! rate, under which each has its share.
//!
//! Nothing is asked of two for this: the request is taken back from the one before the other gets
//! it. What is sent nevertheless, as the two messages crossed, is used if it comes first.

use std::time::Duration;

use super::Swarm;
use super::peer::{Peer, PeerKey};
use crate::base::bits::Bitfield;
use crate::base::time::Instant;
use crate::wire::message::BlockRef;

impl Swarm {
    /// If all are near and nothing is asked of the peer `key`, which does not choke us: takes up to
    /// `most` blocks that it has back from the peer with the longest queue that holds any. Adds
    /// them to `picked`, to be asked of that peer.
    pub(super) fn relieve(
        &mut self,
        key: PeerKey,
        most: usize,
        now: Instant,
        picked: &mut Vec<BlockRef>,
    ) {
        let peer = self.peer(key);
        let is_idle = peer.requests.is_empty() && peer.incoming.is_none();
        if !(self.is_flat() && is_idle && !peer.snubbed) || self.down_limit.is_some() {
            return;
        }
        let answers_in = peer.latency.unwrap_or(Duration::ZERO);
        // In a queue that is always full the oldest request has waited about as long as the next
        // one will.
        let waits = |queue: &Peer| {
            let oldest = queue.requests.front();
            oldest.map_or(Duration::ZERO, |request| now - request.at)
        };
        let queues = self.peers.iter().filter(|&(other, queue)| {
            let is_slow = queue.requests.len() >= QUEUE_LONG && waits(queue) >= answers_in;
            let is_other = other != key.0 as usize;
            is_other && is_slow && self.last_for(queue, &peer.have).is_some()
        });
        let longest = queues.max_by_key(|(_, queue)| queue.requests.len());
        let Some((longest, _)) = longest else {
            return;
        };
        let longest = PeerKey(longest as u32);
        for _ in 0..most.min(MOVED_MAX) {
            let (peer, queue) = (self.peer(key), self.peer(longest));
            let Some(place) = self.last_for(queue, &peer.have) else {
                break;
            };
            let queue = &mut self.peer_mut(longest).requests;
            let request = queue.remove(place).expect("found above");
            self.withdraw(longest, request, now);
            picked.push(request.block);
        }
        // In the order in which they were asked for.
        picked.reverse();
    }

    /// The place of the last request in the second half of a long queue that is for a piece of
    /// `theirs`, among the very last ones. What is fetched from one peer alone stays with it.
    fn last_for(&self, queue: &Peer, theirs: &Bitfield) -> Option<usize> {
        let len = queue.requests.len();
        let first = (len / 2).max(len.saturating_sub(LOOKED_AT));
        (first..len).rev().find(|&place| {
            let piece = queue.requests[place].block.piece;
            len >= QUEUE_LONG && theirs.has(piece.0) && !self.live.alone.contains_key(&piece)
        })
    }
}

/// Requests of a queue that is long.
const QUEUE_LONG: usize = 8;
/// Requests that are moved at a time at most.
const MOVED_MAX: usize = 4;
/// Requests at the end of a queue that are looked at, at most.
const LOOKED_AT: usize = 32;
