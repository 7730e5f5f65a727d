//! Downloading: what to ask whom for, and whether it was right.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::Foreign;
use super::peer::Peer;
use crate::base::bits::Bitfield;
use crate::base::digest::sha1;
use crate::base::id::{ConnId, PieceIndex};
use crate::base::limits::BLOCK_LEN;
use crate::base::rng::Rng;
use crate::base::time::Instant;
use crate::meta::metainfo::Metainfo;
use crate::sim::actor::Hands;
use crate::sim::spec::Payload;
use crate::wire::message::{BlockRef, Outgoing};

/// What is there, and what is on its way.
#[derive(Debug)]
pub(super) struct Fetch {
    /// Pieces that hashed right.
    pub have: Bitfield,
    begun: BTreeMap<u32, Begun>,
    /// Pieces that were wrong once: each is taken from one peer only.
    alone: BTreeMap<u32, Option<ConnId>>,
    /// Since when a block is asked for, and how many are asked.
    asked: BTreeMap<BlockRef, (Instant, u32)>,
}

/// A piece of which some blocks are there.
#[derive(Debug)]
struct Begun {
    /// Its bytes; in worlds without payload, the first byte of each block.
    bytes: Vec<u8>,
    /// Where each block came from.
    from: Vec<Option<(ConnId, IpAddr)>>,
}

/// What became of a piece with its last block.
enum Verdict {
    Unfinished,
    Right,
    /// And where its blocks came from.
    Wrong(Vec<IpAddr>),
}

impl Fetch {
    /// Has these pieces.
    pub fn new(have: Bitfield) -> Self {
        Self {
            have,
            begun: BTreeMap::new(),
            alone: BTreeMap::new(),
            asked: BTreeMap::new(),
        }
    }

    /// A block to ask `peer` for.
    fn pick(
        &mut self,
        conn: ConnId,
        peer: &Peer,
        meta: &Metainfo,
        rng: &mut Rng,
        now: Instant,
    ) -> Option<BlockRef> {
        let count = self.have.len();
        let first = rng.below(count);
        let begun: Vec<u32> = self.begun.keys().copied().collect();
        let others = (first..count).chain(0..first);
        let fresh = others.filter(|&p| !self.have.has(p) && !self.begun.contains_key(&p));
        let fits = |piece: &u32| {
            let owner = self.alone.get(piece).copied().flatten();
            peer.may_ask(*piece) && owner.is_none_or(|owner| owner == conn)
        };
        // One more may be asked for what takes too long.
        for patience in [None, Some(COPY_AFTER)] {
            let found = begun
                .iter()
                .copied()
                .chain(fresh.clone())
                .filter(fits)
                .find_map(|piece| self.free_block(piece, peer, meta, patience, now));
            if let Some(block) = found {
                let owner = self.alone.get_mut(&block.piece.0);
                owner.into_iter().for_each(|owner| *owner = Some(conn));
                return Some(block);
            }
        }
        None
    }

    fn free_block(
        &self,
        piece: u32,
        peer: &Peer,
        meta: &Metainfo,
        patience: Option<Duration>,
        now: Instant,
    ) -> Option<BlockRef> {
        let geometry = meta.geometry();
        let index = PieceIndex(piece);
        (0..geometry.block_count(index)).find_map(|at| {
            let block = BlockRef {
                piece: index,
                begin: at * BLOCK_LEN,
                len: geometry.block_len(index, at),
            };
            let begun = self.begun.get(&piece);
            let is_there = begun.is_some_and(|begun| begun.from[at as usize].is_some());
            let is_free = match (self.asked.get(&block), patience) {
                (None, _) => true,
                (Some(_), None) => false,
                (Some(&(since, copies)), Some(patience)) => {
                    now - since > patience && copies < COPIES_MAX && !peer.open.contains(&block)
                }
            };
            (!is_there && is_free).then_some(block)
        })
    }

    fn ask(&mut self, block: BlockRef, now: Instant) {
        let asked = self.asked.entry(block).or_insert((now, 0));
        asked.0 = now;
        asked.1 += 1;
    }

    /// A request is open no longer.
    fn release(&mut self, block: BlockRef) {
        if let Some((_, copies)) = self.asked.get_mut(&block) {
            *copies -= 1;
            if *copies == 0 {
                self.asked.remove(&block);
            }
        }
    }

    /// A peer is gone, or will not deliver.
    pub fn forget(&mut self, conn: ConnId) {
        for (piece, owner) in &mut self.alone {
            if *owner == Some(conn) {
                *owner = None;
                self.begun.remove(piece);
            }
        }
    }

    /// Keeps a block.
    fn keep(
        &mut self,
        block: BlockRef,
        payload: &[u8],
        from: (ConnId, IpAddr),
        meta: &Metainfo,
        is_real: bool,
    ) -> Verdict {
        let (geometry, piece) = (meta.geometry(), block.piece.0);
        let owner = self.alone.get(&piece).copied().flatten();
        let is_elsewhere = owner.is_some_and(|owner| owner != from.0);
        if self.have.has(piece) || is_elsewhere {
            return Verdict::Unfinished;
        }
        let blocks = geometry.block_count(block.piece) as usize;
        let len = if is_real {
            geometry.piece_len(block.piece) as usize
        } else {
            blocks
        };
        let begun = self.begun.entry(piece).or_insert_with(|| Begun {
            bytes: vec![0; len],
            from: vec![None; blocks],
        });
        let at = (block.begin / BLOCK_LEN) as usize;
        if begun.from[at].is_some() {
            return Verdict::Unfinished;
        }
        begun.from[at] = Some(from);
        if is_real {
            let begin = block.begin as usize;
            begun.bytes[begin..begin + payload.len()].copy_from_slice(payload);
        } else {
            begun.bytes[at] = payload.first().copied().unwrap_or_default();
        }
        if begun.from.iter().any(Option::is_none) {
            return Verdict::Unfinished;
        }
        let is_right = if is_real {
            let text = meta.text().expect("a world's torrent has its text");
            sha1(&begun.bytes) == *text.piece_hash(block.piece)
        } else {
            begun.bytes.iter().all(|&byte| byte == 0)
        };
        let senders = begun.from.iter().flatten().map(|&(_, ip)| ip).collect();
        self.begun.remove(&piece);
        if is_right {
            self.have.set(piece);
            self.alone.remove(&piece);
            Verdict::Right
        } else {
            self.alone.insert(piece, None);
            Verdict::Wrong(senders)
        }
    }
}

impl Foreign {
    /// Tells the peer if it began or ceased to be of interest, and asks.
    pub(super) fn review(&mut self, conn: ConnId, hands: &mut Hands<'_>) {
        let Some(peer) = self.peers.get_mut(&conn) else {
            return;
        };
        let wants = self.manners.wants && peer.theirs.has_more_than(&self.fetch.have);
        let is_seed = peer.theirs.is_full();
        if peer.wanted != wants {
            peer.wanted = wants;
            let message = if wants {
                Outgoing::Interested
            } else {
                Outgoing::NotInterested
            };
            self.say(conn, &message, hands);
        }
        if self.manners.cuts_seeds && is_seed && self.claimed().is_full() {
            return self.drop_conn(conn, hands);
        }
        self.fill(conn, hands);
    }

    /// Asks a peer for as much as the pipeline takes.
    pub(super) fn fill(&mut self, conn: ConnId, hands: &mut Hands<'_>) {
        while let Some(peer) = self.peers.get(&conn)
            && peer.wanted
            && (!peer.chokes_us || !peer.allowed.is_empty())
            && peer.avoided_until <= hands.now
            && peer.open.len() < self.manners.pipeline
            && let Some(block) = self
                .fetch
                .pick(conn, peer, &self.meta, hands.rng, hands.now)
        {
            self.fetch.ask(block, hands.now);
            if let Some(peer) = self.peers.get_mut(&conn) {
                if peer.open.is_empty() {
                    peer.last_block = hands.now;
                }
                peer.open.push_back(block);
            }
            self.say(conn, &Outgoing::Request(block), hands);
        }
    }

    pub(super) fn fill_all(&mut self, hands: &mut Hands<'_>) {
        let conns: Vec<ConnId> = self.peers.keys().copied().collect();
        for conn in conns {
            self.fill(conn, hands);
        }
    }

    /// Forgets all requests to a peer.
    pub(super) fn give_up(&mut self, conn: ConnId) {
        if let Some(peer) = self.peers.get_mut(&conn) {
            for block in std::mem::take(&mut peer.open) {
                self.fetch.release(block);
            }
            self.fetch.forget(conn);
        }
    }

    pub(super) fn rejected(&mut self, conn: ConnId, block: BlockRef, hands: &mut Hands<'_>) {
        let Some(peer) = self.peers.get_mut(&conn) else {
            return;
        };
        peer.allowed.remove(&block.piece);
        if let Some(at) = peer.open.iter().position(|open| *open == block) {
            peer.open.remove(at);
            self.fetch.release(block);
            self.fetch.forget(conn);
            self.fill_all(hands);
        }
    }

    pub(super) fn block_came(
        &mut self,
        conn: ConnId,
        block: BlockRef,
        payload: Vec<u8>,
        hands: &mut Hands<'_>,
    ) {
        let Some(peer) = self.peers.get_mut(&conn) else {
            return;
        };
        self.counts.blocks_in += 1;
        peer.last_block = hands.now;
        peer.gave += payload.len() as u64;
        let from = (conn, peer.remote.ip());
        let Some(at) = peer.open.iter().position(|open| *open == block) else {
            return; // given up before, or never asked for
        };
        peer.open.remove(at);
        self.fetch.release(block);
        let is_real = matches!(self.payload, Payload::Real(_));
        let verdict = self.fetch.keep(block, &payload, from, &self.meta, is_real);
        match verdict {
            Verdict::Unfinished => {}
            Verdict::Right => self.tell(block.piece, hands),
            Verdict::Wrong(senders) => {
                self.counts.failed_pieces += 1;
                if senders.iter().all(|ip| *ip == from.1) {
                    self.refused.push(from.1);
                    return self.drop_conn(conn, hands);
                }
            }
        }
        self.fill(conn, hands);
    }

    /// There is a new piece.
    fn tell(&mut self, piece: PieceIndex, hands: &mut Hands<'_>) {
        let conns: Vec<ConnId> = self.peers.keys().copied().collect();
        for conn in conns {
            let Some(peer) = self.peers.get(&conn).filter(|peer| peer.is_met) else {
                continue;
            };
            if self.manners.redundant_haves || !peer.theirs.has(piece.0) {
                self.say(conn, &Outgoing::Have(piece), hands);
            }
            self.review(conn, hands);
        }
    }

    /// Gives up on peers that do not answer.
    pub(super) fn expire(&mut self, hands: &mut Hands<'_>) {
        let now = hands.now;
        let late: Vec<ConnId> = self
            .peers
            .iter()
            .filter(|(_, p)| !p.open.is_empty() && now - p.last_block > PATIENCE)
            .map(|(&conn, _)| conn)
            .collect();
        for &conn in &late {
            self.give_up(conn);
            if let Some(peer) = self.peers.get_mut(&conn) {
                peer.avoided_until = now + PATIENCE;
            }
        }
        self.fill_all(hands);
    }
}

/// A block that was asked for this long ago is asked of one more,
const COPY_AFTER: Duration = Duration::from_secs(5);
/// of so many at most.
const COPIES_MAX: u32 = 3;
/// Time without a block after which a peer's requests are given up.
const PATIENCE: Duration = Duration::from_secs(20);
