//! Who may be gone without anybody having noticed, and the further addresses of hosts.
//!
//! Whoever has a link to a host sees it go. Of any other address it takes a look: by chance
//! (*audits*), or because something speaks for its being gone (*suspects*). A host that is known by
//! two addresses (it has two interfaces, or something in between has one) has one link at most, so
//! nobody has a link at the other address: that one is looked at when the link ends.

use std::net::SocketAddr;
use std::time::Duration;

use super::{Cause, DIALS_MAX, Overlay};
use crate::base::time::Instant;

impl Overlay {
    /// An evpeer is gone.
    pub fn departed(&mut self, addr: SocketAddr, now: Instant) {
        self.addresses.remove(addr);
        let present = u32::try_from(self.addresses.present()).unwrap_or(u32::MAX);
        if self.audits.len() < AUDITS_MAX
            && self.rng.below(present.max(1)) < AUDITS_A_DEPARTURE
            && let Some(suspect) = self.addresses.any(&mut self.rng)
        {
            let _ = self.doubted(suspect, now); // there is room, as looked up above
        }
    }

    /// Whether an address is alive is of interest. Says whether it will be tried, as far as that
    /// may be: not if too many wait already.
    #[must_use]
    pub fn doubted(&mut self, addr: SocketAddr, now: Instant) -> bool {
        let has_room = self.audits.len() < AUDITS_MAX;
        if has_room {
            self.audits.push_back(addr);
            self.next = self.next.min(now);
        }
        has_room
    }

    /// An evpeer may be gone although it was heard of lately, or seems to be gone although it is
    /// not: it is dialled at once, or when the stream that we have to it ends.
    pub fn disputed(&mut self, addr: SocketAddr, now: Instant) {
        self.addresses.resume(addr);
        self.suspect(addr, now);
    }

    /// An evpeer was there that is in no list, and is gone before it said whether it wants links.
    /// It may know of nobody, not even of us, so it is dialled: once it is linked with anybody, it
    /// is known to all.
    pub fn strange(&mut self, addr: SocketAddr, now: Instant) {
        self.suspect(addr, now);
    }

    fn suspect(&mut self, addr: SocketAddr, now: Instant) {
        if self.suspects.len() < SUSPECTS_MAX && !self.suspects.contains(&addr) {
            self.suspects.push_back(addr);
            self.next = self.next.min(now);
        }
    }

    /// The host at `addr` is the one that we have a link with at `linked`: nobody dials it there
    /// as long as that link holds.
    pub(super) fn twin(&mut self, addr: SocketAddr, linked: SocketAddr, now: Instant) {
        self.twins.remove(&linked);
        let others = self.twins.values_mut().filter(|of| **of == addr);
        others.for_each(|of| *of = linked);
        if addr == linked {
            return;
        }
        self.addresses.pause(addr, now + TWIN_PAUSE);
        if self.twins.len() < TWINS_MAX || self.twins.contains_key(&addr) {
            self.twins.insert(addr, linked);
        }
    }

    /// The link at `linked` has ended: the other addresses of its host, which may be dialled again.
    pub(super) fn twins_of(&mut self, linked: SocketAddr) -> Vec<SocketAddr> {
        let its = self.twins.iter().filter(|(_, of)| **of == linked);
        let its: Vec<_> = its.map(|(&addr, _)| addr).collect();
        for addr in &its {
            self.twins.remove(addr);
            self.addresses.resume(*addr);
        }
        its
    }

    /// Marks the streams to an address, if there are any: says whether.
    pub(super) fn suspect_streams(&mut self, addr: SocketAddr) -> bool {
        let streams = self.streams.values_mut();
        let mut is_held = false;
        for held in streams.filter(|held| held.stream.addr == addr) {
            held.is_suspect = true;
            is_held = true;
        }
        is_held
    }

    pub(super) fn try_suspects(&mut self, now: Instant) {
        while self.dialling.len() < DIALS_MAX {
            let is_held = if let Some(&addr) = self.suspects.front() {
                self.suspect_streams(addr)
            } else if let Some(addr) = self.audits.front() {
                self.streams.values().any(|held| held.stream.addr == *addr)
            } else {
                return;
            };
            let next = self.suspects.pop_front();
            let next = next.or_else(|| self.audits.pop_front());
            let addr = next.expect("looked at above");
            let is_busy = is_held || self.dialling.contains_key(&addr);
            if !is_busy && self.addresses.may_dial(addr, now) {
                self.dial(addr, Cause::Audit, now);
            }
        }
    }
}

/// Addresses at most that are tried because somebody else departed, a departure, all hosts
/// together.
const AUDITS_A_DEPARTURE: u32 = 8;
/// Addresses that wait to be tried at most.
const AUDITS_MAX: usize = 8;
/// Addresses that are looked at for a reason at most.
pub(super) const SUSPECTS_MAX: usize = 64;
/// Further addresses of neighbours that are remembered at most.
const TWINS_MAX: usize = 64;
/// Pause of an address of a host that we have a link with by another.
pub(super) const TWIN_PAUSE: Duration = Duration::from_secs(3600);
