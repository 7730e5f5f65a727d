//! A slot more while our line has nothing to do.
//!
//! The slots are few, so that each carries much. But those who have them may all ask for nothing at
//! times: they have what we have, or have asked others for it, and a new piece of ours is fetched
//! within a moment. Then somebody who wants something and has no slot gets one beside the others,
//! of a few by chance the one that lacks most of what we have: so a line is not idle while somebody
//! could be served, and a host that chance gave few slots elsewhere does not fall behind for a
//! whole round. The next round takes back what is too much.

use std::time::Duration;

use super::Swarm;
use super::choker::{Role, SLOTS_MAX};
use super::peer::{Peer, PeerKey};
use crate::base::time::Instant;

/// The slots beside the others.
#[derive(Debug, Default)]
pub(super) struct Spare {
    /// Slots given since the last round.
    pub slots: usize,
    /// When the last was.
    given_at: Option<Instant>,
}

impl Swarm {
    /// All that was queued for this peer has left: if nobody waits for anything of ours, somebody
    /// without a slot gets one.
    pub(super) fn ran_dry(&mut self, key: PeerKey, now: Instant) {
        let is_soon = self.spare.given_at.is_some_and(|at| now - at < PAUSE);
        if is_soon || !self.peer(key).uploads.is_empty() {
            return;
        }
        if self.peers.iter().any(|(_, peer)| !peer.uploads.is_empty()) {
            return;
        }
        if self.peers.iter().filter(|(_, p)| !p.choked).count() >= SLOTS_MAX {
            return;
        }
        let is_leecher = self.role() == Role::Leecher;
        let may_wait = |p: &Peer| p.wants_us && p.choked && !(is_leecher && p.snubbed);
        let waiting = self.peers.iter().filter(|(_, p)| may_wait(p));
        // What a far one gets over a slot more would have to cross the uplinks once more.
        let has_near = self.peers.iter().any(|(_, p)| p.is_near && p.wants_us);
        let waiting = waiting.filter(|(_, p)| p.is_near || !has_near);
        let (keys, lacks): (Vec<PeerKey>, Vec<u32>) = waiting
            .map(|(key, peer)| (PeerKey(key as u32), peer.lacks))
            .unzip();
        let neediest = self.choker.neediest(&lacks, SAMPLE);
        if let Some(key) = neediest.and_then(|place| keys.get(place)) {
            self.spare.given_at = Some(now);
            self.spare.slots += 1;
            self.unchoke(*key, now);
        }
    }
}

/// So many of those who wait are looked at: if all hosts chose from all, they would choose the
/// same.
const SAMPLE: usize = 4;
/// Until whoever got a slot has asked for something, nobody else gets one.
const PAUSE: Duration = Duration::from_millis(2);
