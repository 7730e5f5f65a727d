//! How many peers a swarm has room for: in all, of a host, of a net.
//!
//! On-link is not the internet: a LAN of a thousand hosts is served, and a machine with a thousand
//! peers; a stranger with ten thousand ports is not.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::{Key, News, Swarm};
use crate::base::limits::{
    HEARSAY_MAX, OFF_LINK_NET6_MAX, PEERS_PER_SWARM_MAX, PORTS_LOOPBACK_MAX, PORTS_OFF_LINK_MAX,
    PORTS_ON_LINK_MAX,
};
use crate::base::time::Instant;
use crate::tracker::asker::Nearness;
use crate::tracker::registry::news::Heard;
use crate::tracker::secret::ip_bits;

impl Swarm {
    /// Whether there is room for one more, or can be made.
    pub(super) fn has_room(&mut self, news: &News<'_>, now: Instant) -> bool {
        let heard = news.sighting.heard;
        if heard == Heard::Ourselves {
            return true;
        }
        if !news.has_room || (!heard.is_first_hand() && self.hearsay_count >= HEARSAY_MAX) {
            return false;
        }
        // The last quarter is for those on our links.
        let (len_max, ports_max) = match news.nearness {
            Nearness::ThisHost => (PEERS_PER_SWARM_MAX, PORTS_LOOPBACK_MAX),
            Nearness::OnLink => (PEERS_PER_SWARM_MAX, PORTS_ON_LINK_MAX),
            Nearness::OffLink => (PEERS_PER_SWARM_MAX / 4 * 3, PORTS_OFF_LINK_MAX),
        };
        if self.len() >= len_max {
            return false;
        }
        let ip = ip_bits(news.sighting.addr.ip());
        if !self.has_room_in(
            Key::new(ip, 0)..=Key::new(ip, u16::MAX),
            ports_max,
            heard,
            now,
        ) {
            return false;
        }
        let is_ipv6 = ip >> 32 != 0xffff;
        if !is_ipv6 || news.nearness != Nearness::OffLink {
            return true;
        }
        // A household has 2^64 IPv6 addresses.
        let net = ip >> 64 << 64;
        let last = net | u128::from(u64::MAX);
        let hosts = Key::new(net, 0)..=Key::new(last, u16::MAX);
        self.has_room_in(hosts, OFF_LINK_NET6_MAX, heard, now)
    }

    /// Whether there are less than `max` addresses in a range, or one can go: hearsay, or the one
    /// silent for longest, if that is a minute.
    fn has_room_in(
        &mut self,
        range: RangeInclusive<Key>,
        max: usize,
        heard: Heard,
        now: Instant,
    ) -> bool {
        if self.len() < max {
            return true;
        }
        let slots = || self.by_addr.range(range.clone()).map(|(_, &slot)| slot);
        if slots().count() < max {
            return true;
        }
        if !heard.is_first_hand() {
            return false;
        }
        let rank = |slot: &u32| {
            let entry = &self.peers[*slot as usize].entry;
            (entry.heard.is_first_hand(), entry.last_at)
        };
        let may_go = |slot: &u32| {
            let entry = &self.peers[*slot as usize].entry;
            let is_silent = now - entry.last_at >= REPLACED_AFTER;
            !entry.is_connected && (!entry.heard.is_first_hand() || is_silent)
        };
        let oldest = slots().filter(may_go).min_by_key(rank);
        match oldest {
            Some(slot) => {
                self.remove(slot, now);
                true
            }
            None => false,
        }
    }
}

/// Silence after which an address may be forgotten for another of its host.
pub(super) const REPLACED_AFTER: Duration = Duration::from_secs(60);
