//! A slot more while our line has nothing to do.
//!
//! The slots are few, so that each carries much. But those who have them may all ask for nothing at
//! times: they have what we have, or have asked others for it, and a new piece of ours is fetched
//! within a moment. Then somebody who wants something and has no slot gets one more, by chance, as
//! nobody knows what others were asked for. So no line is idle while somebody could be served, and
//! a host that chance gave few slots elsewhere does not fall behind for a whole round.

use std::time::Duration;

use super::Swarm;
use super::choker::Role;
use super::peer::{Peer, PeerKey};
use crate::base::time::Instant;

impl Swarm {
    /// Something left for this peer: if nobody waits for anything of ours now, somebody on our own
    /// link without a slot gets one, and this is `true`. The lines to others may be narrow, and
    /// what has left is still in the system's buffers then.
    pub(super) fn ran_dry(&mut self, key: PeerKey, now: Instant) -> bool {
        let is_soon = self.live.spared_at.is_some_and(|at| now - at < PAUSE);
        let waits = |peer: &Peer| !peer.uploads.is_empty() || peer.leaving > 0;
        if is_soon || waits(self.peer(key)) || self.peers.iter().any(|(_, peer)| waits(peer)) {
            return false;
        }
        self.live.spared_at = Some(now);
        let served = self.peers.iter().filter(|(_, p)| p.wants_us && !p.choked);
        if served.count() < self.live.choker.slot_count() {
            return false;
        }
        let (is_seed, credit) = (self.role() == Role::Seed, self.credit());
        let is_fair = |p: &Peer| is_seed || !(p.snubbed || p.owes(credit));
        let may_wait = |p: &Peer| self.is_ours_to_serve(p) && p.choked && p.is_near && is_fair(p);
        let waiting = self.peers.iter().filter(|(_, p)| may_wait(p));
        let waiting: Vec<PeerKey> = waiting.map(|(key, _)| PeerKey(key as u32)).collect();
        let lucky = self.live.choker.one_more(&waiting);
        if let Some(key) = lucky {
            self.unchoke(key, now);
        }
        lucky.is_some()
    }

    /// What a peer that lets us have nothing may have of us, more than it gave, before it
    /// [owes](super::choker::Candidate::owes) us something, bytes. A seed wants nothing back.
    pub(super) fn credit(&self) -> u64 {
        match self.role() {
            Role::Leecher if self.is_flat() => self.geometry().length() / CREDIT_PARTS_FLAT,
            Role::Leecher => self.geometry().length() / CREDIT_PARTS,
            Role::Seed => u64::MAX,
        }
    }
}

/// One of so many parts of the data is given on credit.
const CREDIT_PARTS: u64 = 64;
/// The same where all are on our own link. In such a crowd each has more of some than it gives
/// them, by chance, and gives it to others: that is no debt. With a sixteenth each of a thousand
/// hosts refuses many others, from two thirds of the data on, while its line has nothing to do.
const CREDIT_PARTS_FLAT: u64 = 4;
/// How often it is seen whether somebody gets a slot: one on our own link asks for something within
/// that time.
const PAUSE: Duration = Duration::from_millis(2);
