//! When a peer shall come again, and for how long it is listed meanwhile.

use std::net::SocketAddr;
use std::time::Duration;

use super::{Swarm, is_evpeer, key_of};
use crate::base::time::Instant;
use crate::tracker::registry::news::{Counts, Heard};

impl Swarm {
    /// When a peer shall announce itself again, see [`interval`].
    pub fn interval(&self, by_load: Duration, now: Instant) -> Duration {
        interval(self.counts(), self.changed_at, by_load, now)
    }

    /// The connection to a peer has ended.
    pub fn disconnected(&mut self, addr: SocketAddr, now: Instant) {
        if let Some(&slot) = self.by_addr.get(&key_of(addr)) {
            self.peers[slot as usize].entry.is_connected = false;
            self.prolong(
                slot,
                lifetime(Heard::Handshake, self.kind(slot), Duration::ZERO),
                now,
            );
        }
    }

    /// Lets a peer live on, by how it was heard of. To be called when the swarm is as the news
    /// makes it: an announce is answered with the interval that follows from that.
    pub(super) fn heard_of(&mut self, slot: u32, by_load: Duration, now: Instant) {
        let heard = self.peers[slot as usize].entry.heard;
        let lifetime = lifetime(heard, self.kind(slot), self.interval(by_load, now));
        self.prolong(slot, lifetime, now);
    }

    /// What was promised before holds: whoever comes when it was told to is still listed.
    fn prolong(&mut self, slot: u32, lifetime: Duration, now: Instant) {
        let entry = &mut self.peers[slot as usize].entry;
        entry.expires_at = entry.expires_at.max(now + lifetime);
        if !entry.is_connected {
            self.earliest = self.earliest.min(entry.expires_at);
        }
    }

    fn kind(&self, slot: u32) -> Kind {
        match is_evpeer(&self.peers[slot as usize].entry) {
            true => Kind::Evpeer,
            false => Kind::Foreign,
        }
    }
}

/// When a peer of a swarm shall announce itself again: seconds while the swarm changes, minutes
/// when it is calm, or when nobody in it lacks anything. `by_load` is the least for all swarms.
pub(in crate::tracker::registry) fn interval(
    counts: Counts,
    changed_at: Instant,
    by_load: Duration,
    now: Instant,
) -> Duration {
    // Who wants nothing misses nothing: a newcomer is told of everybody, and calls them.
    let shortest = match counts.wanting() {
        0 => INTERVAL_AT_REST,
        _ => INTERVAL_MIN,
    };
    // What changes now may change again soon; what was calm for an hour can wait.
    let calm = (now - changed_at) / CALM_PER_INTERVAL;
    let interval = calm.max(by_load).clamp(shortest, INTERVAL_MAX);
    Duration::from_secs(interval.as_secs())
}

/// Whose promises are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// It comes when it is told to.
    Evpeer,
    /// It may come every 300 s whatever it is told (wire-facts: libtorrent).
    Foreign,
}

/// For how long a peer that is not connected is listed after it was heard of, if its swarm has
/// this `interval`.
fn lifetime(heard: Heard, kind: Kind, interval: Duration) -> Duration {
    match (heard, kind) {
        (Heard::Ourselves, _) => Duration::MAX,
        (Heard::Announce, Kind::Evpeer) => 2 * interval + Duration::from_secs(15),
        (Heard::Announce, Kind::Foreign) => {
            2 * interval.max(FOREIGN_INTERVAL) + Duration::from_secs(60)
        }
        (Heard::Handshake, Kind::Evpeer) => Duration::from_secs(60),
        (Heard::Handshake, Kind::Foreign) => 2 * FOREIGN_INTERVAL + Duration::from_secs(60),
        (Heard::Lsd | Heard::Gossip | Heard::Pex | Heard::Tracker | Heard::User, _) => {
            HEARSAY_LIFETIME
        }
    }
}

/// Shortest interval: while a swarm changes.
const INTERVAL_MIN: Duration = Duration::from_secs(5);
/// Shortest interval while nobody in the swarm lacks anything.
const INTERVAL_AT_REST: Duration = Duration::from_secs(300);
/// Longest interval: when a swarm is calm, or the peers are very many.
pub(in crate::tracker::registry) const INTERVAL_MAX: Duration = Duration::from_secs(600);
/// An interval is this part of how long a swarm was calm: the shortest for one minute.
const CALM_PER_INTERVAL: u32 = 12;
/// How rarely a foreign client may come.
const FOREIGN_INTERVAL: Duration = Duration::from_secs(300);
/// How long hearsay is worth keeping.
const HEARSAY_LIFETIME: Duration = Duration::from_secs(30 * 60);

const _: () = assert!(INTERVAL_AT_REST.as_secs() <= INTERVAL_MAX.as_secs());
