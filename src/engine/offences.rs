//! Peers that broke the rules, and for how long they are refused.
//!
//! Who sent wrong data is banned for good. Any other peer that breaks a rule is closed; if it may
//! come back at once, closing is no defence: each new stream may cost us as much as the last. So
//! each offence doubles the time for which the address is not let in, and a long time without one
//! wipes them out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::{Ending, Engine, Report};
use crate::base::id::{ConnId, PeerId, PieceIndex, TorrentId};
use crate::base::time::Instant;
use crate::swarm::Origin;

/// Who broke the rules.
#[derive(Debug, Default)]
pub(super) struct Offences {
    known: BTreeMap<IpAddr, Offence>,
    banned: BTreeSet<Banned>,
}

/// Who is banned: an address, or where honest peers share it, a peer id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Banned {
    Ip(IpAddr),
    Id(PeerId),
}

#[derive(Clone, Copy, Debug)]
struct Offence {
    count: u32,
    at: Instant,
}

impl Offence {
    /// The first may be a mishap.
    fn refused_until(self) -> Instant {
        match self.count.checked_sub(2) {
            None => self.at,
            Some(doublings) => self.at + (PAUSE_MIN * (1 << doublings.min(16))).min(PAUSE_MAX),
        }
    }
}

impl Offences {
    /// A peer at `ip` broke a rule.
    pub fn add(&mut self, ip: IpAddr, now: Instant) {
        let ip = ip.to_canonical();
        if self.known.len() >= OFFENCES_MAX && !self.known.contains_key(&ip) {
            self.known.retain(|_, offence| now - offence.at < MEMORY);
            if self.known.len() >= OFFENCES_MAX {
                return;
            }
        }
        let offence = self
            .known
            .entry(ip)
            .or_insert(Offence { count: 0, at: now });
        if now - offence.at >= MEMORY {
            offence.count = 0;
        }
        offence.count = offence.count.saturating_add(1);
        offence.at = now;
    }

    /// Whether streams from `ip` are not let in.
    pub fn is_refused(&self, ip: IpAddr, now: Instant) -> bool {
        let ip = ip.to_canonical();
        let known = self.known.get(&ip);
        self.banned.contains(&Banned::Ip(ip))
            || known.is_some_and(|offence| now < offence.refused_until())
    }

    /// Whether a peer is banned.
    pub fn is_banned(&self, ip: IpAddr, peer_id: PeerId) -> bool {
        let banned = [Banned::Ip(ip.to_canonical()), Banned::Id(peer_id)];
        banned.iter().any(|banned| self.banned.contains(banned))
    }

    /// Bans somebody; false if that is not news.
    fn ban(&mut self, banned: Banned) -> bool {
        if self.banned.contains(&banned) {
            return false;
        }
        if self.banned.len() < OFFENCES_MAX {
            self.banned.insert(banned);
        }
        true
    }
}

impl Engine {
    /// A peer sent wrong data: it is not dealt with again.
    pub(super) fn ban(
        &mut self,
        torrent: TorrentId,
        origin: Origin,
        piece: PieceIndex,
        now: Instant,
    ) {
        let ip = origin.remote.ip().to_canonical();
        let banned = if self.is_shared(ip, origin.peer_id) {
            Banned::Id(origin.peer_id)
        } else {
            Banned::Ip(ip)
        };
        if !self.offences.ban(banned) {
            return; // several of its pieces turn out wrong, one after the other
        }
        log::warn!(
            "peer banned remote={} piece={piece}: wrong data",
            origin.remote
        );
        self.report(Report::PeerBanned {
            torrent,
            remote: origin.remote,
            piece,
        });
        for id in self.conn_ids() {
            let is_it = |c: &super::Conn| {
                c.exchange().is_some_and(|e| e.peer_id == origin.peer_id)
                    && c.remote.ip() == origin.remote.ip()
            };
            if self.conn(id).is_some_and(is_it) {
                self.close(id, Ending::Fault("sent wrong data"), now);
            }
        }
    }

    /// Whether honest peers of the same machine, or behind the same router, have this address
    /// beside the peer of this id.
    fn is_shared(&self, ip: IpAddr, peer_id: PeerId) -> bool {
        let is_other = |c: &super::Conn| {
            c.remote.ip().to_canonical() == ip && c.exchange().is_some_and(|e| e.peer_id != peer_id)
        };
        [LOOPBACK, LOOPBACK_V6].contains(&ip)
            || self.conns.iter().any(|(_, (_, conn))| is_other(conn))
    }

    /// The peer of a stream broke a rule.
    pub(super) fn offended(&mut self, id: ConnId, now: Instant) {
        let Some(conn) = self.conn(id) else { return };
        let ip = conn.remote.ip().to_canonical();
        if let Some(exchange) = conn.exchange()
            && !self.is_shared(ip, exchange.peer_id)
        {
            self.offences.add(ip, now);
        }
    }
}

/// Where the peers of this machine are.
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const LOOPBACK_V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// How long the second offence keeps an address out; each further one doubles that.
const PAUSE_MIN: Duration = Duration::from_secs(10);
/// How long an address is kept out at most.
const PAUSE_MAX: Duration = Duration::from_secs(3600);
/// Time after which an address that did nothing wrong begins anew.
const MEMORY: Duration = Duration::from_secs(2 * 3600);
/// Addresses that are remembered at most.
const OFFENCES_MAX: usize = 10_000;

const _: () = assert!(MEMORY.as_secs() > PAUSE_MAX.as_secs());

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(n: u32) -> IpAddr {
        IpAddr::from(n.to_be_bytes())
    }

    #[test]
    fn each_offence_after_the_first_keeps_an_address_out_for_twice_as_long() {
        let mut offences = Offences::default();
        let mut now = Instant::from_micros(5);
        for pause in [0, 10, 20, 40] {
            offences.add(ip(1), now);
            let end = now + Duration::from_secs(pause);
            let just_before = Instant::from_micros(end.as_micros() - 1).max(now);
            assert_eq!(offences.is_refused(ip(1), just_before), pause > 0);
            assert!(!offences.is_refused(ip(1), end));
            assert!(!offences.is_refused(ip(2), now), "another one");
            now = end;
        }
        for _ in 0..40 {
            offences.add(ip(1), now);
        }
        assert!(!offences.is_refused(ip(1), now + PAUSE_MAX));
        offences.add(ip(1), now + MEMORY);
        assert!(!offences.is_refused(ip(1), now + MEMORY), "forgiven");
    }

    #[test]
    fn number_of_offenders_is_bounded_and_old_ones_make_room() {
        let mut offences = Offences::default();
        for n in 0..2 * OFFENCES_MAX as u32 {
            offences.add(ip(n), Instant::ZERO);
        }
        assert_eq!(offences.known.len(), OFFENCES_MAX);
        offences.add(ip(u32::MAX), Instant::ZERO + MEMORY);
        assert_eq!(offences.known.len(), 1);
    }
}
