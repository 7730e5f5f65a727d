//! Lost neighbours, who are tried again.

use std::net::SocketAddr;
use std::time::Duration;

use super::{Cause, DIALS_MAX, FAILED_PAUSE, Overlay};
use crate::base::time::Instant;

/// Somebody to whom there was a link, or who is all that we know.
#[derive(Clone, Copy, Debug)]
pub(super) struct Anchor {
    pub at: Instant,
    pub pause: Duration,
}

impl Anchor {
    /// Of somebody whose link broke: at once.
    pub fn new(now: Instant) -> Self {
        Self {
            at: now,
            pause: FIRST_PAUSE / 2,
        }
    }
}

impl Overlay {
    /// A dial that we asked for led to no stream that is ready.
    pub fn dial_failed(&mut self, addr: SocketAddr, now: Instant) {
        self.next = self.next.min(now);
        match self.dialling.remove(&addr) {
            Some(Cause::Draw) => self.drew_in_vain(now),
            Some(Cause::Anchor | Cause::Audit) => {}
            None => return,
        }
        // What is left of a host that died may be open for a while.
        self.suspect_streams(addr);
        let is_alone = self.link_count() == 0;
        if let Some(anchor) = self.anchors.get_mut(&addr) {
            anchor.pause = (anchor.pause * 2).min(2 * ANCHOR_PAUSE_MAX);
            let most = if is_alone {
                ALONE_PAUSE
            } else {
                ANCHOR_PAUSE_MAX
            };
            if anchor.pause > ANCHOR_PAUSE_MAX && !is_alone {
                self.anchors.remove(&addr);
            } else {
                let pause = anchor.pause.min(most);
                anchor.at = now + pause + pause.mul_f64(f64::from(self.rng.below(256)) / 1024.0);
            }
        } else if is_alone {
            let pause = FIRST_PAUSE;
            let at = now + pause;
            self.anchor(addr, Anchor { at, pause });
        } else {
            self.addresses.remove(addr);
            self.addresses.pause(addr, now + FAILED_PAUSE);
        }
    }

    /// Tries an address again, from a moment on.
    pub(super) fn anchor(&mut self, addr: SocketAddr, anchor: Anchor) {
        if self.anchors.len() < ANCHORS_MAX || self.anchors.contains_key(&addr) {
            self.anchors.insert(addr, anchor);
            self.addresses.resume(addr);
        }
    }

    /// A neighbour said that it leaves the network.
    pub(super) fn parted_with(&mut self, addr: SocketAddr) {
        self.parted.retain(|known| *known != addr);
        if self.parted.len() >= PARTED_MAX {
            self.parted.pop_front();
        }
        self.parted.push_back(addr);
    }

    /// If that was the last link: all that were neighbours are tried, whether they broke or left,
    /// as they may come back and know nothing of us.
    pub(super) fn look_lonely(&mut self, now: Instant) {
        if self.link_count() > 0 {
            return;
        }
        for addr in std::mem::take(&mut self.parted) {
            let (at, pause) = (now + FIRST_PAUSE, FIRST_PAUSE);
            self.anchor(addr, Anchor { at, pause });
        }
        let anchors = self.anchors.values_mut();
        anchors.for_each(|anchor| anchor.at = anchor.at.min(now + ALONE_PAUSE));
    }

    /// Dials those that are due.
    pub(super) fn try_anchors(&mut self, now: Instant) {
        let due = self.anchors.iter().filter(|(addr, anchor)| {
            let is_due = anchor.at <= now && !self.dialling.contains_key(addr);
            is_due && self.addresses.may_dial(**addr, now)
        });
        let free = DIALS_MAX.saturating_sub(self.dialling.len());
        let due: Vec<_> = due.map(|(&addr, _)| addr).take(free).collect();
        due.into_iter()
            .for_each(|addr| self.dial(addr, Cause::Anchor, now));
    }
}

/// Lost neighbours that are tried again at most.
const ANCHORS_MAX: usize = 64;
/// Neighbours that left and are remembered for when nobody else is there, at most.
const PARTED_MAX: usize = 16;
/// First pause between two tries; it doubles.
pub(super) const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Pause after which a lost neighbour is given up.
const ANCHOR_PAUSE_MAX: Duration = Duration::from_secs(2 * 3600);
/// Longest pause of who has no link at all.
pub(super) const ALONE_PAUSE: Duration = Duration::from_secs(30);
