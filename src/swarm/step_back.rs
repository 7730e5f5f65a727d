//! A seed steps back once every piece has left it.
//!
//! In a crowd on one link the seed's line is one of hundreds, and what it would send after each
//! piece has left it once these can give as well. So from then on it serves those alone that it
//! has named a piece (see [`suggest`](super::suggest)), and names again what too few of the others
//! have a while after it was named: fewer than two of those that it sees and that gained something
//! lately. So it goes on for as long as there is anything that only it can give,
//! whoever dies with what he was given. It serves everybody again when few are left that want
//! anything, when the crowd gets nowhere, or when somebody from afar is in it.
//!
//! Who gains nothing for a while is served by it as before from then on: it may know of nobody
//! else, or be a client that does not tell a seed what it got, or there was somebody who said that
//! he has what he has not. Whoever could not be named a piece is served all the time.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use super::peer::{Peer, PeerKey};
use super::{Exchange, Swarm};
use crate::base::bits::Bitfield;
use crate::base::id::PieceIndex;
use crate::base::time::Instant;
use crate::wire::message::BlockRef;

/// Whether a seed steps back.
#[derive(Debug, Default)]
pub(super) struct StepBack {
    is_back: bool,
    /// When the first piece was named.
    began: Option<Instant>,
    /// The time until all were, and we stepped back for the first time.
    took: Option<Duration>,
    /// Pieces that were named lately, and when.
    named: VecDeque<(PieceIndex, Instant)>,
    /// Not looked at again before this moment.
    next_look: Instant,
    /// Not again before this moment.
    rests_until: Instant,
}

impl StepBack {
    /// A piece is named to somebody.
    pub fn named(&mut self, piece: PieceIndex, now: Instant) {
        self.began.get_or_insert(now);
        self.forget_named(GRACE_MAX, now);
        self.named.push_back((piece, now));
    }

    pub fn is_back(&self) -> bool {
        self.is_back
    }

    /// These pieces will not come to whom they were named.
    pub fn not_named(&mut self, pieces: &[PieceIndex]) {
        self.named.retain(|(piece, _)| !pieces.contains(piece));
    }

    /// All is to be named anew, if at all. Whether we are back shows at the next look.
    pub fn begin_anew(&mut self) {
        let is_back = self.is_back;
        *self = Self {
            is_back,
            ..Self::default()
        };
    }

    fn forget_named(&mut self, age: Duration, now: Instant) {
        while self.named.front().is_some_and(|(_, at)| *at + age <= now) {
            self.named.pop_front();
        }
    }

    /// A part of the time that the spreading took so far, within bounds.
    fn part(&self, parts: u32, min: Duration, max: Duration, now: Instant) -> Duration {
        let so_far = now - self.began.unwrap_or(now);
        (self.took.unwrap_or(so_far) / parts).clamp(min, max)
    }

    /// Who was named a piece has so much time to get it and to pass it on.
    fn grace(&self, now: Instant) -> Duration {
        self.part(GRACE_PARTS, GRACE_MIN, GRACE_MAX, now)
    }

    /// Who gained nothing for so long is late.
    fn late(&self, now: Instant) -> Duration {
        self.part(LATE_PARTS, LATE_MIN, LATE_MAX, now)
    }
}

impl Swarm {
    /// A peer has got a piece that we have, from us or from others.
    pub(super) fn gained(&mut self, key: PeerKey, piece: PieceIndex, now: Instant) {
        let peer = self.peer_mut(key);
        peer.gained_at = now;
        peer.firsts.retain(|(first, _)| *first != piece);
        peer.suggested.retain(|named| *named != piece);
        self.suggest(key, now);
        self.leave_to_others(key);
        self.look_back(now);
    }

    /// A block leaves for a peer.
    pub(super) fn gave(&mut self, key: PeerKey, block: BlockRef) {
        let firsts = &mut self.peer_mut(key).firsts;
        if let Some((_, left)) = firsts.iter_mut().find(|(first, _)| *first == block.piece) {
            *left = left.saturating_sub(block.len);
            firsts.retain(|(_, left)| *left > 0);
        }
    }

    /// Looks whether we step back or serve everybody again, and what has to be named once more.
    pub(super) fn look_back(&mut self, now: Instant) {
        if self.live.back.next_look > now {
            return;
        }
        // A look at all that all have is a small part of the time.
        let cost = LOOK_COST * self.live.ours.as_bytes().len() as u32;
        let cost = cost.saturating_mul(self.peers.len() as u32);
        self.live.back.next_look = now + cost.max(LOOK_PAUSE);
        let may = self.may_step_back(now);
        let was = std::mem::replace(&mut self.live.back.is_back, may);
        if was && !may {
            self.live.back.rests_until = now + PAUSE;
            self.name_again(Vec::new());
            return self.interest_changed(now);
        }
        if !may {
            return;
        }
        let back = &mut self.live.back;
        let so_far = now - back.began.unwrap_or(now);
        back.took.get_or_insert(so_far);
        let late = self.live.back.late(now);
        for key in self.keys() {
            let peer = self.peer_mut(key);
            let is_late = now - peer.gained_at >= late;
            // The first time counts until we serve everybody again.
            peer.is_late = is_late || (was && peer.is_late);
            let moved_at = peer.gained_at.max(peer.served_at);
            let moved_at = peer.unchoked_at.map_or(moved_at, |at| moved_at.max(at));
            if peer.is_named() && !peer.is_late && now - moved_at >= late / 2 {
                self.choke(key); // it takes nothing of what was named to it
            }
            self.leave_to_others(key);
        }
        self.interest_changed(now); // of those who are late
        self.spread_scarce(now);
    }

    /// Whether a peer wants something of us, and we do not leave it to others to give it.
    pub(super) fn is_ours_to_serve(&self, peer: &Peer) -> bool {
        let is_back = !self.live.is_at_rest() && self.live.back.is_back;
        peer.wants_us && (!is_back || peer.is_named() || peer.is_late || !peer.caps.fast)
    }

    /// Takes a peer's slot if its service is left to others.
    pub(super) fn leave_to_others(&mut self, key: PeerKey) {
        let peer = self.peer(key);
        if self.live.back.is_back && !peer.choked && !self.is_ours_to_serve(peer) {
            self.choke(key);
        }
    }

    fn may_step_back(&self, now: Instant) -> bool {
        let is_seed = self.is_complete() && self.exchange == Exchange::Full;
        if !is_seed || !self.is_flat() || self.is_spreading() {
            return false;
        }
        if self.live.back.rests_until > now {
            return false;
        }
        let wanting = || self.peers.iter().filter(|(_, peer)| peer.wants_us);
        if wanting().count() < CROWD_MIN {
            return false;
        }
        let late = self.live.back.late(now);
        wanting().any(|(_, peer)| now - peer.gained_at < late / 2)
    }

    /// Names what too few have to some that wait, or are served.
    fn spread_scarce(&mut self, now: Instant) {
        let scarce = self.scarce(now);
        if scarce.is_empty() {
            return;
        }
        self.name_again(scarce);
        let late = self.live.back.late(now);
        let mut keys = self.keys();
        self.live.spread.shuffle(&mut keys);
        let slots = self.live.choker.slot_count();
        let mut served = self.peers.iter().filter(|(_, peer)| !peer.choked).count();
        for key in keys {
            let peer = self.peer(key);
            let is_moving = now - peer.gained_at < late / 2;
            let is_of_use = is_moving && self.live.spread.has_for(peer);
            if !peer.choked {
                self.suggest(key, now);
            } else if is_of_use && served < slots {
                served += 1;
                self.unchoke(key, now);
            }
        }
    }

    /// Pieces that too few others have, and that were named to nobody lately.
    fn scarce(&mut self, now: Instant) -> Vec<PieceIndex> {
        let back = &mut self.live.back;
        let (grace, late) = (back.grace(now), back.late(now));
        back.forget_named(grace, now);
        let named: BTreeSet<PieceIndex> = back.named.iter().map(|(piece, _)| *piece).collect();
        let count = self.live.ours.len();
        let (mut once, mut twice) = (Bitfield::new(count), Bitfield::new(count));
        for (_, peer) in &self.peers {
            if now - peer.gained_at < late / 2 {
                twice.add_common(&once, &peer.have);
                once.add(&peer.have);
            }
        }
        let scarce = (0..count).filter(|&piece| !twice.has(piece));
        let scarce = scarce.map(PieceIndex);
        scarce.filter(|piece| !named.contains(piece)).collect()
    }
}

/// Peers that want something, at least: our line is a small part of all then.
const CROWD_MIN: usize = 32;
/// How often it is looked at, at most, and the time for a peer and eight pieces.
const LOOK_PAUSE: Duration = Duration::from_millis(10);
const LOOK_COST: Duration = Duration::from_nanos(10);
/// [`StepBack::grace`]: time for what is named ahead to leave, and to be fetched by another.
const GRACE_PARTS: u32 = 8;
const GRACE_MIN: Duration = Duration::from_millis(100);
const GRACE_MAX: Duration = Duration::from_secs(5);
/// [`StepBack::late`]: many times what a piece takes.
const LATE_PARTS: u32 = 16;
const LATE_MIN: Duration = Duration::from_secs(1);
const LATE_MAX: Duration = Duration::from_secs(30);
/// Time before we step back again after we served everybody: who comes and goes shall not make us
/// choke and unchoke the others.
const PAUSE: Duration = Duration::from_secs(10);
