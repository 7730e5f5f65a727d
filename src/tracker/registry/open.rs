//! The swarms of an open tracker that nobody told us to track: who made them, and which go when
//! there are too many.
//!
//! One host can announce a million info hashes. So every net has its own line of swarms, in which
//! its latest use counts; who makes too many loses his own, never another's.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use super::news::{Sighting, Terms};
use super::resting::Tracked;
use super::swarm::Swarm;
use super::{INTERVAL_MAX, Registry};
use crate::base::address::Interfaces;
use crate::base::id::InfoHash;
use crate::base::limits::{OPEN_SWARMS_MAX, OPEN_SWARMS_NET_MAX};
use crate::base::time::Instant;
use crate::tracker::asker::Nearness;
use crate::tracker::secret::ip_bits;

/// Whose announce made a swarm, and when it was used last, to [`USED_STEP`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Opened {
    net: Net,
    used_at: Instant,
}

/// Those who share a line: a host on our links; a net off them (IPv4 /24, IPv6 /48).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Net {
    is_off_link: bool,
    bits: u128,
}

impl Net {
    /// The net of `ip`.
    pub fn of(ip: IpAddr, nearness: Nearness) -> Self {
        let bits = ip_bits(ip);
        let host_bits = match ip.to_canonical() {
            _ if nearness != Nearness::OffLink => 0,
            IpAddr::V4(_) => 8,
            IpAddr::V6(_) => 80,
        };
        Self {
            is_off_link: nearness == Nearness::OffLink,
            bits: bits >> host_bits << host_bits,
        }
    }
}

/// The lines of all nets. Swarms are numbers here.
#[derive(Debug, Default)]
pub(super) struct OpenSwarms {
    lines: BTreeMap<Net, BTreeSet<(Instant, u32)>>,
    /// The nets by the length of their lines.
    by_len: BTreeSet<(usize, Net)>,
    len: usize,
}

impl OpenSwarms {
    /// The swarm that has to go before `net` may make one more, if any.
    pub fn victim(&self, net: Net) -> Option<u32> {
        let line = self.lines.get(&net);
        let is_long = |line: &&BTreeSet<_>| net.is_off_link && line.len() >= OPEN_SWARMS_NET_MAX;
        let line = match line.filter(is_long) {
            Some(line) => line,
            None if self.len < OPEN_SWARMS_MAX => return None,
            None => {
                let (_, longest) = self.by_len.last()?;
                self.lines.get(longest)?
            }
        };
        line.first().map(|&(_, swarm)| swarm)
    }

    /// Puts a new swarm at the end of its net's line.
    pub fn add(&mut self, swarm: u32, net: Net, now: Instant) -> Opened {
        let line = self.lines.entry(net).or_default();
        self.by_len.remove(&(line.len(), net));
        line.insert((now, swarm));
        self.by_len.insert((line.len(), net));
        self.len += 1;
        Opened { net, used_at: now }
    }

    /// Moves a swarm to the end of its line, if it was not there just now.
    pub fn used(&mut self, swarm: u32, opened: &mut Opened, now: Instant) {
        if now - opened.used_at < USED_STEP {
            return;
        }
        let line = self.lines.get_mut(&opened.net).expect("the swarm's line");
        line.remove(&(opened.used_at, swarm));
        line.insert((now, swarm));
        opened.used_at = now;
    }

    /// Takes a swarm out of its line.
    pub fn remove(&mut self, swarm: u32, opened: Opened) {
        let line = self.lines.get_mut(&opened.net).expect("the swarm's line");
        self.by_len.remove(&(line.len(), opened.net));
        line.remove(&(opened.used_at, swarm));
        match line.len() {
            0 => {
                self.lines.remove(&opened.net);
            }
            len => {
                self.by_len.insert((len, opened.net));
            }
        }
        self.len -= 1;
    }

    /// How many there are.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.len
    }
}

impl Registry {
    /// Whether it may be asked who else is in a swarm that we were not told to track: not again and
    /// again.
    pub(in crate::tracker) fn may_ask(&self, info_hash: InfoHash, now: Instant) -> bool {
        match self.swarm(info_hash) {
            None => true,
            Some(Tracked::Resting(_)) => false,
            Some(Tracked::Awake(swarm)) => {
                swarm.opened.is_some() && swarm.asked_at + ASK_PAUSE <= now
            }
        }
    }

    /// A peer is in a swarm that a host at `ip` asks for, which is tracked from now on as if it had
    /// been announced to an open tracker.
    pub(in crate::tracker) fn named(
        &mut self,
        info_hash: InfoHash,
        sighting: &Sighting,
        ip: IpAddr,
        interfaces: &Interfaces,
        now: Instant,
    ) {
        let index = match self.by_hash.get(&info_hash) {
            Some(&index) => index,
            None => self.open_for(info_hash, Net::of(ip, Nearness::of(ip, interfaces)), now),
        };
        self.swarms[index as usize].wake(&self.secret).asked_at = now;
        let nearness = Nearness::of(sighting.addr.ip(), interfaces);
        self.heard_in(index, sighting, None, nearness, now);
    }

    /// Makes a swarm that `net` announces to an open tracker.
    pub(super) fn open_for(&mut self, info_hash: InfoHash, net: Net, now: Instant) -> u32 {
        if let Some(victim) = self.open.victim(net) {
            self.remove(victim);
        }
        let rng_seed = self.rng.next_u64();
        let mut swarm = Box::new(Swarm::new(info_hash, Terms::default(), rng_seed, now));
        // If nobody can be listed, it goes.
        swarm.earliest = now + INTERVAL_MAX;
        let index = self.swarms.vacant_key() as u32;
        swarm.opened = Some(Box::new(self.open.add(index, net, now)));
        self.add(info_hash, Tracked::Awake(swarm));
        self.schedule(index, now);
        index
    }
}

/// How exactly the latest use of a swarm is known.
const USED_STEP: Duration = Duration::from_secs(10);
/// Time between two questions who else is in a swarm.
const ASK_PAUSE: Duration = Duration::from_secs(60);
