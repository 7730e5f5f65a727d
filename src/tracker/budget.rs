//! How many requests a second are answered: of one host, and of all.
//!
//! What is beyond is dropped before it costs anything. Those on our links have a budget of their
//! own, so that no stranger's flood takes it from them; and who cannot have sent what it seems to
//! have sent (UDP before a connection id) never spends another's.

use std::net::IpAddr;
use std::time::Duration;

use super::asker::Nearness;
use super::secret::{Secret, ip_bits};
use crate::base::limits::{
    TRACKED_ALONE_FACTOR, TRACKED_OFF_LINK_HOST_PER_SEC, TRACKED_OFF_LINK_PER_SEC,
    TRACKED_ON_LINK_HOST_PER_SEC, TRACKED_ON_LINK_PER_SEC,
};
use crate::base::time::Instant;

/// Requests a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// Of one host off our links, with five seconds' worth at once.
    pub off_link_host: u32,
    /// Of one host on our links, with a second's worth at once; programs on this machine are not
    /// told apart and have only the limit of all.
    pub on_link_host: u32,
    /// Of all hosts off our links.
    pub off_link: u32,
    /// Of this machine and all hosts on our links.
    pub on_link: u32,
}

impl Rates {
    /// Of a peer that transfers data too.
    pub const BESIDE_TORRENTS: Self = Self {
        off_link_host: TRACKED_OFF_LINK_HOST_PER_SEC,
        on_link_host: TRACKED_ON_LINK_HOST_PER_SEC,
        off_link: TRACKED_OFF_LINK_PER_SEC,
        on_link: TRACKED_ON_LINK_PER_SEC,
    };
    /// Of one that only tracks.
    pub const ALONE: Self = Self {
        on_link_host: TRACKED_ON_LINK_HOST_PER_SEC * TRACKED_ALONE_FACTOR,
        on_link: TRACKED_ON_LINK_PER_SEC * TRACKED_ALONE_FACTOR,
        ..Self::BESIDE_TORRENTS
    };
}

/// What is left of it.
#[derive(Debug)]
pub(super) struct Budget {
    rates: Rates,
    /// Requests of all whose address is proved, by nearness: on our links, off them.
    proved: [Meter; 2],
    /// The same of those whose address is not.
    unproved: [Meter; 2],
    /// A meter for each host, and for all others that fall on the same place.
    hosts: Box<[Meter]>,
}

/// The moment up to which a rate is used up.
#[derive(Clone, Copy, Debug, Default)]
struct Meter(Instant);

impl Meter {
    /// Takes one of `per_sec`, if it is not more than `burst` ahead.
    fn take(&mut self, per_sec: u32, burst: Duration, now: Instant) -> bool {
        let used = self.0.max(now);
        if per_sec == 0 || used - now > burst {
            return false;
        }
        self.0 = used + Duration::from_secs(1) / per_sec;
        true
    }
}

impl Budget {
    pub fn new(rates: Rates) -> Self {
        Self {
            rates,
            proved: [Meter::default(); 2],
            unproved: [Meter::default(); 2],
            hosts: vec![Meter::default(); HOSTS].into(),
        }
    }

    /// From now on these are the rates; what is used up stays so.
    pub fn set_rates(&mut self, rates: Rates) {
        self.rates = rates;
    }

    /// Takes one request of a host that has this address.
    pub fn take(&mut self, ip: IpAddr, nearness: Nearness, secret: &Secret, now: Instant) -> bool {
        let (host_rate, host_burst) = match nearness {
            Nearness::ThisHost => return self.take_of_all(nearness, now),
            Nearness::OnLink => (self.rates.on_link_host, ON_LINK_BURST),
            Nearness::OffLink => (self.rates.off_link_host, OFF_LINK_BURST),
        };
        let host = match ip.to_canonical() {
            // Who has one address of a /64 has them all.
            IpAddr::V6(ip) if nearness == Nearness::OffLink => ip.to_bits() >> 64 << 64,
            ip => ip_bits(ip),
        };
        let meter = &mut self.hosts[secret.place(host, HOSTS)];
        meter.take(host_rate, host_burst, now) && self.take_of_all(nearness, now)
    }

    /// Takes one request of somebody who may not have the address that it seems to have.
    pub fn take_unproved(&mut self, nearness: Nearness, now: Instant) -> bool {
        let meter = &mut self.unproved[usize::from(nearness == Nearness::OffLink)];
        meter.take(self.rates.of_all(nearness), ALL_BURST, now)
    }

    fn take_of_all(&mut self, nearness: Nearness, now: Instant) -> bool {
        let meter = &mut self.proved[usize::from(nearness == Nearness::OffLink)];
        meter.take(self.rates.of_all(nearness), ALL_BURST, now)
    }
}

impl Rates {
    fn of_all(&self, nearness: Nearness) -> u32 {
        match nearness {
            Nearness::ThisHost | Nearness::OnLink => self.on_link,
            Nearness::OffLink => self.off_link,
        }
    }
}

/// Meters of hosts: 32 KiB of them.
const HOSTS: usize = 4096;
const ON_LINK_BURST: Duration = Duration::from_secs(1);
/// A household behind one address may start together.
const OFF_LINK_BURST: Duration = Duration::from_secs(5);
const ALL_BURST: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    const RATES: Rates = Rates {
        off_link_host: 10,
        on_link_host: 100,
        off_link: 200,
        on_link: 500,
    };

    /// How many of `count` requests, spread over `over`, `take` lets through.
    fn passed(count: u32, over: Duration, mut take: impl FnMut(u32, Instant) -> bool) -> u32 {
        let at = |i: u32| Instant::from_micros(1_000_000) + over / count * i;
        (0..count).map(|i| u32::from(take(i, at(i)))).sum()
    }

    #[test]
    fn each_kind_of_host_has_its_rate() {
        let second = Duration::from_secs(1);
        #[rustfmt::skip]
        let cases = [
            // who                 hosts  nearness              in     passed, burst included
            ("one off-link",       1,     Nearness::OffLink,  second,       50..=62),
            ("one off-link, long", 1,     Nearness::OffLink,  10 * second,  150..=152),
            ("an on-link one",     1,     Nearness::OnLink,   second,       200..=202),
            ("this host",          1,     Nearness::ThisHost, second,       1000..=1002),
            ("many off-link",      5000,  Nearness::OffLink,  second,       400..=402),
            ("many on-link",       5000,  Nearness::OnLink,   second,       1000..=1002),
        ];
        for (name, hosts, nearness, over, expected) in cases {
            let mut budget = Budget::new(RATES);
            let secret = Secret::new([1; 16]);
            let passed = passed(10_000, over, |i, now| {
                let ip = IpAddr::from((0x0a00_0000 + i % hosts).to_be_bytes());
                budget.take(ip, nearness, &secret, now)
            });
            assert!(expected.contains(&passed), "{name}: {passed}");
        }
    }

    #[test]
    fn who_is_within_its_rate_is_never_dropped() {
        let mut budget = Budget::new(RATES);
        let secret = Secret::new([1; 16]);
        let ip = IpAddr::from([198, 51, 100, 1]);
        let passed = passed(1000, Duration::from_secs(101), |_, now| {
            budget.take(ip, Nearness::OffLink, &secret, now)
        });
        assert_eq!(passed, 1000);
    }

    #[test]
    fn neighbours_in_one_v6_net_are_one_host() {
        let mut budget = Budget::new(RATES);
        let secret = Secret::new([1; 16]);
        let net = 0x2001_0db8_u128 << 96;
        let passed = passed(1000, Duration::from_millis(1), |i, now| {
            let ip = IpAddr::from((net + u128::from(i)).to_be_bytes());
            budget.take(ip, Nearness::OffLink, &secret, now)
        });
        assert!((50..=52).contains(&passed), "{passed}");
    }

    #[test]
    fn flood_from_nowhere_takes_nothing_from_those_who_are_there() {
        let mut budget = Budget::new(RATES);
        let secret = Secret::new([1; 16]);
        let now = Instant::from_micros(1_000_000);
        while budget.take_unproved(Nearness::OffLink, now) {}
        let stranger = IpAddr::from([198, 51, 100, 1]);
        while budget.take(stranger, Nearness::OffLink, &secret, now) {}
        assert!(budget.take_unproved(Nearness::OnLink, now));
        let other = IpAddr::from([198, 51, 100, 2]);
        assert!(budget.take(other, Nearness::OffLink, &secret, now));
        let neighbour = IpAddr::from([10, 0, 0, 2]);
        assert!(budget.take(neighbour, Nearness::OnLink, &secret, now));
    }
}
