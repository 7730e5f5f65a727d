//! Serving: whom, which blocks, and how fast.

use std::time::Duration;

use super::Foreign;
use super::peer::Peer;
use crate::base::id::ConnId;
use crate::base::limits::BLOCK_LEN;
use crate::base::time::Instant;
use crate::sim::actor::Hands;
use crate::sim::spec::Payload;
use crate::wire::message::{BlockRef, Outgoing};

impl Foreign {
    pub(super) fn requested(&mut self, conn: ConnId, block: BlockRef, hands: &mut Hands<'_>) {
        if self.ignores_requests() {
            return;
        }
        let geometry = self.meta.geometry();
        let fits = block.piece.0 < geometry.piece_count()
            && geometry.contains(block.piece, block.begin, block.len)
            && block.len <= BLOCK_LEN;
        let has = fits && self.fetch.have.has(block.piece.0);
        let Some(peer) = self.peers.get_mut(&conn) else {
            return;
        };
        if peer.choked || !has || peer.queue.len() >= QUEUE_MAX {
            if peer.fast {
                self.say(conn, &Outgoing::Reject(block), hands);
            }
            return;
        }
        peer.queue.push_back(block);
        self.pump(conn, hands);
    }

    pub(super) fn cancelled(&mut self, conn: ConnId, block: BlockRef, hands: &mut Hands<'_>) {
        let Some(peer) = self.peers.get_mut(&conn) else {
            return;
        };
        if let Some(at) = peer.queue.iter().position(|queued| *queued == block) {
            peer.queue.remove(at);
            if peer.fast {
                self.say(conn, &Outgoing::Reject(block), hands);
            }
        }
    }

    /// Sends blocks while the stream takes them.
    fn pump(&mut self, conn: ConnId, hands: &mut Hands<'_>) {
        while let Some(peer) = self.peers.get_mut(&conn)
            && !peer.choked
            && hands.unsent(conn) + peer.paced.len() < UNSENT_MAX
            && let Some(block) = peer.queue.pop_front()
        {
            peer.served += 1;
            let served = peer.served;
            self.counts.blocks_out += 1;
            if self.serve_viciously(conn, block, hands) {
                continue;
            }
            let payload = self.payload_of(block);
            self.send_block(conn, block, &payload, hands);
            if self.manners.chokes_after.is_some_and(|most| served >= most) {
                self.choke(conn, hands);
            }
        }
    }

    pub(super) fn send_block(
        &mut self,
        conn: ConnId,
        block: BlockRef,
        payload: &[u8],
        hands: &mut Hands<'_>,
    ) {
        let mut bytes = Vec::with_capacity(13 + payload.len());
        Outgoing::Piece(block).encode(&mut bytes);
        bytes.extend_from_slice(payload);
        self.say_bytes(conn, &bytes, hands);
    }

    /// The right bytes of a block.
    pub(super) fn payload_of(&self, block: BlockRef) -> Vec<u8> {
        match &self.payload {
            Payload::Real(content) => {
                let first = self.meta.geometry().offset(block.piece, block.begin) as usize;
                content[first..first + block.len as usize].to_vec()
            }
            Payload::Tagged => vec![0; block.len as usize],
        }
    }

    /// Somebody became interested: a free slot is given away at once.
    pub(super) fn interest(&mut self, hands: &mut Hands<'_>) {
        let served = self.peers.values().filter(|p| p.wants_us && !p.choked);
        let free = self.slots().saturating_sub(served.count());
        let is_rested = |p: &Peer| p.served == 0 || hands.now - p.turned >= CHOKE_TIME;
        let waiting: Vec<ConnId> = self
            .peers
            .iter()
            .filter(|(_, p)| p.is_met && p.wants_us && p.choked && is_rested(p))
            .map(|(&conn, _)| conn)
            .take(free)
            .collect();
        for conn in waiting {
            self.unchoke(conn, hands);
        }
    }

    /// Chooses anew whom to serve: the best givers, or for a seed whoever waited longest; and
    /// one by chance.
    pub(super) fn rechoke(&mut self, hands: &mut Hands<'_>) {
        let slots = self.slots();
        let is_seed = self.fetch.have.is_full();
        let mut wanting: Vec<(ConnId, u64, Instant)> = self
            .peers
            .iter()
            .filter(|(_, p)| p.is_met && p.wants_us)
            .map(|(&conn, p)| (conn, p.gave, p.turned))
            .collect();
        self.peers.values_mut().for_each(|p| p.gave = 0);
        if wanting.len() > slots {
            hands.rng.shuffle(&mut wanting);
            if is_seed {
                wanting.sort_by_key(|&(_, _, turned)| turned);
            } else if slots > 0 {
                wanting.sort_by_key(|&(_, gave, _)| std::cmp::Reverse(gave));
                let by_chance =
                    slots - 1 + hands.rng.below((wanting.len() - slots + 1) as u32) as usize;
                wanting.swap(slots - 1, by_chance);
            }
            for &(conn, ..) in &wanting[slots..] {
                if self.peers.get(&conn).is_some_and(|p| !p.choked) {
                    self.choke(conn, hands);
                }
            }
            wanting.truncate(slots);
        }
        for (conn, ..) in wanting {
            if self.peers.get(&conn).is_some_and(|p| p.choked) {
                self.unchoke(conn, hands);
            }
        }
    }

    pub(super) fn unchoke(&mut self, conn: ConnId, hands: &mut Hands<'_>) {
        if let Some(peer) = self.peers.get_mut(&conn) {
            peer.choked = false;
            peer.served = 0;
            peer.turned = hands.now;
            self.say(conn, &Outgoing::Unchoke, hands);
        }
    }

    /// Chokes; what is queued is rejected if the peer knows rejects (BEP 6).
    pub(super) fn choke(&mut self, conn: ConnId, hands: &mut Hands<'_>) {
        let Some(peer) = self.peers.get_mut(&conn) else {
            return;
        };
        peer.choked = true;
        peer.turned = hands.now;
        let queued = std::mem::take(&mut peer.queue);
        let fast = peer.fast;
        self.say(conn, &Outgoing::Choke, hands);
        for block in queued.into_iter().filter(|_| fast) {
            self.say(conn, &Outgoing::Reject(block), hands);
        }
    }

    /// Lets bytes leave, as many as the limit allows, and fills up what the streams have room for.
    pub(super) fn let_leave(&mut self, hands: &mut Hands<'_>) {
        let now = hands.now;
        if let Some(rate) = self.manners.up_bytes_s {
            let micros = (now - self.credited).as_micros() as u64;
            let most = rate.saturating_mul(1_000_000).max(1_000_000);
            self.credit = self
                .credit
                .saturating_add(rate.saturating_mul(micros))
                .min(most);
            let waiting: Vec<ConnId> = self
                .peers
                .iter()
                .filter(|(_, p)| !p.paced.is_empty())
                .map(|(&conn, _)| conn)
                .collect();
            let share = (self.credit / 1_000_000) as usize / waiting.len().max(1);
            for conn in waiting {
                if let Some(peer) = self.peers.get_mut(&conn) {
                    let len = share.min(peer.paced.len());
                    let bytes: Vec<u8> = peer.paced.drain(..len).collect();
                    hands.send(conn, &bytes);
                    self.credit -= len as u64 * 1_000_000;
                }
            }
        }
        self.credited = now;
        let conns: Vec<ConnId> = self.peers.keys().copied().collect();
        for conn in conns {
            self.pump(conn, hands);
        }
        if self.manners.chokes_after.is_some() {
            self.interest(hands);
        }
    }

    /// When there is more to send, if there is.
    pub(super) fn backlog(&self, hands: &Hands<'_>) -> Option<Instant> {
        let is_paced = self.peers.values().any(|p| !p.paced.is_empty());
        let is_full = |p: &Peer| !p.choked && !p.queue.is_empty();
        if is_paced {
            Some(hands.now + PACE)
        } else if self.peers.values().any(is_full) {
            Some(hands.now + REFILL)
        } else {
            None
        }
    }

    fn slots(&self) -> usize {
        if self.serves_nobody() {
            0
        } else {
            self.manners.slots
        }
    }
}

/// Requests of a peer that are queued.
const QUEUE_MAX: usize = 2000;
/// Bytes that are put into a stream ahead.
const UNSENT_MAX: usize = 256 * 1024;
/// How often a client with a limit sends something.
const PACE: Duration = Duration::from_millis(100);
/// How often a full stream is looked after.
const REFILL: Duration = Duration::from_millis(2);
/// How long a peer stays choked that has had its blocks.
const CHOKE_TIME: Duration = Duration::from_secs(2);
