//! Fetching: requests out, blocks in, time-outs and the endgame.

use bytes::Bytes;
use std::time::Duration;

use super::peer::{Incoming, PeerKey, Reception, Request};
use super::picker::BlockState;
use super::{Effect, Exchange, Fault, Swarm, Writer};
use crate::base::id::PieceIndex;
use crate::base::limits;
use crate::base::slot::Slot;
use crate::base::time::Instant;
use crate::wire::message::BlockRef;

impl Swarm {
    pub(super) fn choked_us(&mut self, key: PeerKey, now: Instant) -> Result<(), Fault> {
        self.flip(key, now)?;
        let peer = self.peer_mut(key);
        if peer.chokes_us {
            return Ok(());
        }
        peer.chokes_us = true;
        peer.suggestions.clear();
        let is_near = peer.is_near;
        // With the fast extension each open request is still answered, by a block or a reject.
        if !peer.caps.fast {
            let conn = peer.conn;
            self.effects.push_back(Effect::DropRequests(conn));
            self.release_requests(key, now);
        }
        self.abandon_alone(key, now);
        if is_near {
            self.near_changed();
        }
        Ok(())
    }

    pub(super) fn unchoked_us(&mut self, key: PeerKey, now: Instant) -> Result<(), Fault> {
        self.flip(key, now)?;
        let peer = self.peer_mut(key);
        if peer.chokes_us {
            peer.chokes_us = false;
            peer.latency = None; // nothing is queued
            peer.heard = now;
            if peer.is_near {
                self.near_changed();
            }
            self.fill(key, now);
        }
        Ok(())
    }

    pub(super) fn rejected(
        &mut self,
        key: PeerKey,
        block: BlockRef,
        now: Instant,
    ) -> Result<(), Fault> {
        self.check_fast(key)?;
        let peer = self.peer_mut(key);
        // Each request is answered once, in order (BEP 6): this answers what was taken back, which
        // may be much (see `relieve`).
        if peer.take_withdrawn(|gone| gone == block).is_some() {
            return Ok(());
        }
        if peer.nuisance.rejects(now) {
            return Err(Fault::RejectFlood);
        }
        peer.allowed_fast.retain(|piece| *piece != block.piece);
        if let Some(place) = peer.requests.iter().position(|r| r.block == block) {
            peer.requests.remove(place);
            self.release(key, block, now);
        } else if self.check_block(block).is_ok() {
            self.complained(key, block.piece);
        }
        Ok(())
    }

    pub(super) fn allowed_fast(
        &mut self,
        key: PeerKey,
        piece: PieceIndex,
        now: Instant,
    ) -> Result<(), Fault> {
        self.check_fast(key)?;
        self.check_index(piece)?;
        let allowed = &mut self.peer_mut(key).allowed_fast;
        if allowed.len() < ALLOWED_FAST_MAX && !allowed.contains(&piece) {
            allowed.push(piece);
            self.fill(key, now);
        }
        Ok(())
    }

    /// A block's head arrived; decides where its payload goes.
    ///
    /// # Errors
    /// A block outside the torrent, of another length than asked for, or one too many that
    /// nobody asked for.
    pub fn block_begins(
        &mut self,
        key: PeerKey,
        block: BlockRef,
        now: Instant,
    ) -> Result<(), Fault> {
        self.peer_mut(key).opening = false;
        self.check_index(block.piece)?;
        if block.len == 0 {
            return self.refused_by_nothing(key, block, now);
        }
        self.check_block(block)?;
        let asked = self.take_request(key, block, now)?;
        let reception = match asked {
            Asked::Never => {
                self.count_unasked(key, block)?;
                Reception::Drop
            }
            Asked::Late if self.live.alone.contains_key(&block.piece) => Reception::Drop,
            Asked::Now | Asked::Late if self.is_stored(block) => Reception::Drop,
            Asked::Now | Asked::Late if !self.is_wanted(block.piece) => Reception::Drop,
            Asked::Now | Asked::Late => self.receive(key, block, now),
        };
        let counted = asked == Asked::Now;
        let full = counted && matches!(reception, Reception::Drop);
        self.peer_mut(key).incoming = Some(Incoming {
            block,
            since: now,
            reception,
            counted,
        });
        if full {
            self.release_incoming(key, now);
        }
        Ok(())
    }

    /// `len` more bytes of the block that this peer is in the middle of arrived, `done` before
    /// them. Returns where storage shall put them, if it shall.
    pub fn payload(&mut self, key: PeerKey, done: u32, bytes: &[u8], now: Instant) -> Option<Slot> {
        let torrent = self.torrent;
        let len = bytes.len() as u32;
        self.down.add(u64::from(len), now);
        let peer = &mut self.peers[key.0 as usize];
        peer.down.add(u64::from(len), now);
        peer.heard = now;
        let is_back = std::mem::replace(&mut peer.snubbed, false) && peer.is_near;
        let incoming = peer
            .incoming
            .as_mut()
            .expect("a block's head comes before its payload");
        let block = incoming.block;
        let mut store = None;
        match &mut incoming.reception {
            Reception::Write => {
                store = Some(Slot {
                    torrent,
                    piece: block.piece,
                    begin: block.begin + done,
                    len,
                });
                let writer = self
                    .live
                    .writers
                    .get_mut(&block)
                    .expect("a writer is registered");
                writer.wrote = now;
            }
            Reception::Aside(buffer) => buffer.extend_from_slice(bytes),
            Reception::Drop => self.wasted_bytes += u64::from(len),
        }
        if is_back {
            self.near_changed();
        }
        if done + len == block.len {
            self.block_arrived(key, now);
        }
        store
    }

    /// The last byte of a block arrived.
    fn block_arrived(&mut self, key: PeerKey, now: Instant) {
        let peer = self.peer_mut(key);
        let Some(Incoming {
            block,
            reception,
            counted,
            ..
        }) = peer.incoming.take()
        else {
            return;
        };
        match reception {
            Reception::Write => {
                self.live.writers.remove(&block);
                self.block_stored(key, block, counted, now);
            }
            Reception::Aside(buffer) => {
                self.live.aside_count -= 1;
                if self.is_stored(block) {
                    self.wasted_bytes += u64::from(block.len);
                } else {
                    self.depose_writer(block, now);
                    self.effects
                        .push_back(Effect::Store(self.slot(block), Bytes::from(buffer)));
                    self.block_stored(key, block, counted, now);
                }
            }
            Reception::Drop => {}
        }
        match self.down_limit {
            // Who was too late for a share of them gets it now.
            Some(_) => self.refill_all = true,
            None => self.fill(key, now),
        }
    }

    /// A block is whole, in storage; nobody else needs to send it. `counted`: the picker counts
    /// this sender's request for it.
    fn block_stored(&mut self, key: PeerKey, block: BlockRef, counted: bool, now: Instant) {
        let geometry = self.geometry();
        let index = geometry.block_at(block.begin);
        let blocks = geometry.block_count(block.piece);
        let origin = self.peer(key).origin;
        self.live.blame.received(block.piece, index, blocks, origin);
        let (complete, copies) = match self.live.alone.get_mut(&block.piece) {
            Some(alone) => {
                alone.done.set(index);
                (alone.done.is_full(), true)
            }
            None => {
                let copies = match self.live.picker.block_state(block) {
                    BlockState::Requested { by } | BlockState::Begun { by } => {
                        by > u32::from(counted)
                    }
                    BlockState::Free | BlockState::Done => false,
                };
                (self.live.picker.block_done(block).piece_complete, copies)
            }
        };
        if copies {
            self.cancel_copies(key, block, now);
        }
        if complete && self.live.hashing.insert(block.piece) {
            self.effects.push_back(Effect::Check(block.piece));
        }
    }

    /// Takes back the requests for `block` that others still have.
    fn cancel_copies(&mut self, but: PeerKey, block: BlockRef, now: Instant) {
        for key in self.keys() {
            if key == but {
                continue;
            }
            let peer = self.peer_mut(key);
            if let Some(place) = peer.requests.iter().position(|r| r.block == block) {
                let request = peer.requests.remove(place).expect("found above");
                self.withdraw(key, request, now);
                self.refill_all = true;
            }
        }
    }

    /// Registers the connection as the block's writer, or has it collect the block aside.
    fn receive(&mut self, key: PeerKey, block: BlockRef, now: Instant) -> Reception {
        match self.live.writers.get(&block) {
            Some(writer) if now - writer.wrote < WRITER_SILENCE_MAX => {
                if self.live.aside_count >= ASIDE_MAX {
                    return Reception::Drop;
                }
                self.live.aside_count += 1;
                Reception::Aside(Vec::with_capacity(block.len as usize))
            }
            _ => {
                self.depose_writer(block, now);
                self.live.writers.insert(
                    block,
                    Writer {
                        peer: key,
                        wrote: now,
                    },
                );
                if !self.live.alone.contains_key(&block.piece) {
                    self.live.picker.block_begun(block);
                }
                Reception::Write
            }
        }
    }

    /// What the present writer of `block` still sends goes nowhere.
    fn depose_writer(&mut self, block: BlockRef, now: Instant) {
        let Some(writer) = self.live.writers.get(&block) else {
            return;
        };
        let key = writer.peer;
        self.stop_receiving(key, now);
    }

    /// Nothing of the block that the peer is in the middle of is used: others may be asked.
    pub(super) fn stop_receiving(&mut self, key: PeerKey, now: Instant) {
        let Some(incoming) = &mut self.peer_mut(key).incoming else {
            return;
        };
        let block = incoming.block;
        match std::mem::replace(&mut incoming.reception, Reception::Drop) {
            Reception::Write => {
                self.live.writers.remove(&block);
                if !self.live.alone.contains_key(&block.piece) && !self.is_stored(block) {
                    self.live.picker.block_abandoned(block);
                }
            }
            Reception::Aside(_) => self.live.aside_count -= 1,
            Reception::Drop => {}
        }
        self.release_incoming(key, now);
    }

    /// The request behind the arriving block is open no longer.
    fn release_incoming(&mut self, key: PeerKey, now: Instant) {
        let Some(incoming) = &mut self.peer_mut(key).incoming else {
            return;
        };
        let block = incoming.block;
        if std::mem::replace(&mut incoming.counted, false) {
            self.release(key, block, now);
        }
    }

    /// The stream ended, perhaps in the middle of a block.
    pub(super) fn drop_incoming(&mut self, key: PeerKey, now: Instant) {
        self.stop_receiving(key, now);
        self.peer_mut(key).incoming = None;
    }

    /// Takes the request that `block` answers.
    fn take_request(
        &mut self,
        key: PeerKey,
        block: BlockRef,
        now: Instant,
    ) -> Result<Asked, Fault> {
        let peer = self.peer_mut(key);
        let same = |r: &Request| r.block.piece == block.piece && r.block.begin == block.begin;
        if let Some(place) = peer.requests.iter().position(same) {
            let asked = peer.requests[place].block.len;
            if asked != block.len {
                return Err(Fault::WrongBlockLen {
                    len: block.len,
                    asked,
                });
            }
            let took = now - peer.requests[place].at;
            peer.latency = Some(peer.latency.map_or(took, |least| least.min(took)));
            peer.requests.remove(place);
            return Ok(Asked::Now);
        }
        let late = peer.take_withdrawn(|gone| gone == block);
        Ok(if late.is_some_and(|at| now - at <= LATE_MAX) {
            Asked::Late
        } else {
            Asked::Never
        })
    }

    fn count_unasked(&mut self, key: PeerKey, block: BlockRef) -> Result<(), Fault> {
        let nuisance = &mut self.peer_mut(key).nuisance;
        nuisance.unasked += 1;
        nuisance.unasked_bytes += u64::from(block.len);
        let (blocks, bytes) = (nuisance.unasked, nuisance.unasked_bytes);
        if blocks > UNASKED_MAX || bytes > UNASKED_LEN_MAX {
            return Err(Fault::Unasked { blocks, bytes });
        }
        Ok(())
    }

    /// BitComet's way to reject: a block without bytes.
    fn refused_by_nothing(
        &mut self,
        key: PeerKey,
        block: BlockRef,
        now: Instant,
    ) -> Result<(), Fault> {
        let peer = self.peer_mut(key);
        let same = |asked: BlockRef| asked.piece == block.piece && asked.begin == block.begin;
        if let Some(place) = peer.requests.iter().position(|r| same(r.block)) {
            let request = peer.requests.remove(place).expect("found above");
            self.release(key, request.block, now);
        } else if peer.take_withdrawn(same).is_none() {
            self.count_unasked(key, block)?;
        }
        Ok(())
    }

    /// Whether the bytes of `block` are in storage already.
    pub(super) fn is_stored(&self, block: BlockRef) -> bool {
        if self.live.ours.has(block.piece.0) || self.live.hashing.contains(&block.piece) {
            return true;
        }
        match self.live.alone.get(&block.piece) {
            Some(alone) => alone.done.has(self.geometry().block_at(block.begin)),
            None => self.live.picker.block_state(block) == BlockState::Done,
        }
    }

    fn slot(&self, block: BlockRef) -> Slot {
        Slot {
            torrent: self.torrent,
            piece: block.piece,
            begin: block.begin,
            len: block.len,
        }
    }

    /// Whether anything is asked for at all.
    pub fn is_fetching(&self) -> bool {
        self.exchange == Exchange::Full && !self.has_all_wanted()
    }
}

/// Whether a block was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    /// It answers an open request.
    Now,
    /// It answers a request that was given up.
    Late,
    /// It answers nothing.
    Never,
}

/// A writer that was silent for this long loses its role.
const WRITER_SILENCE_MAX: Duration = Duration::from_secs(2);
/// An answer to a request that was given up is welcome for this long.
const LATE_MAX: Duration = Duration::from_secs(60);
/// Blocks collected aside at a time at most, over all peers of a torrent.
const ASIDE_MAX: usize = 64;
/// Pieces that a peer may name as allowed-fast; further ones are ignored.
const ALLOWED_FAST_MAX: usize = 32;
/// Blocks that nobody asked for, and their bytes, before the peer is closed.
const UNASKED_MAX: u32 = 20;
const UNASKED_LEN_MAX: u64 = 1024 * 1024;

const _: () = assert!(ASIDE_MAX as u64 * limits::BLOCK_LEN as u64 <= 1024 * 1024);
