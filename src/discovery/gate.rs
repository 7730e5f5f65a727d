//! What addresses off our links may take up, over all torrents: attempts to dial, and slots.
//!
//! Swarms were aimed at victims by naming them as peers, and filled from one network. Both need an
//! address that is not on our links: many peers on the ports of one machine, or in one office, are
//! what a LAN looks like.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::base::address::Interfaces;
use crate::base::time::Instant;

/// Keeps attempts and connections of off-link addresses within limits.
///
/// Everything is on-link until the interfaces are told.
#[derive(Debug)]
pub struct Gate {
    interfaces: Option<Interfaces>,
    conns_max: u32,
    /// Connections by network; none is 0.
    conns: BTreeMap<IpAddr, u32>,
    by_address: Window,
    by_network: Window,
}

impl Gate {
    /// Nobody is connected; `conns_max` is the number of connections over all torrents.
    pub fn new(conns_max: u32) -> Self {
        Self {
            interfaces: None,
            conns_max,
            conns: BTreeMap::new(),
            by_address: Window::new(ADDRESS_SPAN, ADDRESS_ATTEMPTS_MAX),
            by_network: Window::new(NETWORK_SPAN, NETWORK_ATTEMPTS_MAX),
        }
    }

    /// The interfaces of this machine, at the start and after each change.
    pub fn interfaces_found(&mut self, interfaces: &Interfaces) {
        self.interfaces = Some(interfaces.clone());
    }

    /// Whether one more connection with `ip`, dialled or accepted, leaves room for other networks:
    /// an off-link network has a quarter of the slots.
    pub fn has_room(&self, ip: IpAddr) -> bool {
        let taken = self.conns.get(&network(ip)).copied().unwrap_or(0);
        self.is_on_link(ip) || taken < (self.conns_max / NETWORK_SHARE).max(1)
    }

    /// A connection with `ip` is opened or accepted; every call is followed by one of
    /// [`Gate::left`].
    pub fn joined(&mut self, ip: IpAddr) {
        *self.conns.entry(network(ip)).or_insert(0) += 1;
    }

    /// Such a connection is gone.
    ///
    /// # Panics
    /// If there was none.
    pub fn left(&mut self, ip: IpAddr) {
        let network = network(ip);
        let count = self.conns.get_mut(&network);
        let count = count.expect("a connection that ends has begun");
        *count -= 1;
        if *count == 0 {
            self.conns.remove(&network);
        }
    }

    /// Counts an attempt to dial `remote`.
    ///
    /// # Errors
    /// When it may be tried again, which is later than `now`, if it may not be tried now.
    pub fn dial(&mut self, remote: SocketAddr, now: Instant) -> Result<(), Instant> {
        let ip = remote.ip().to_canonical();
        if self.is_on_link(ip) {
            return Ok(());
        }
        if !self.has_room(ip) {
            return Err(now + FULL_PAUSE);
        }
        self.by_address.has_room(ip, now)?;
        self.by_network.has_room(network(ip), now)?;
        self.by_address.count(ip, now);
        self.by_network.count(network(ip), now);
        Ok(())
    }

    fn is_on_link(&self, ip: IpAddr) -> bool {
        let interfaces = self.interfaces.as_ref();
        interfaces.is_none_or(|interfaces| interfaces.is_on_link(ip))
    }
}

/// The network that `ip` is counted with: its first 24 bits, or 56 of an IPv6 address.
fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4((ip.to_bits() & (u32::MAX << 8)).into()),
        IpAddr::V6(ip) => IpAddr::V6((ip.to_bits() & (u128::MAX << 72)).into()),
    }
}

/// Attempts of the recent past, by address or network.
#[derive(Debug)]
struct Window {
    span: Duration,
    count_max: usize,
    /// The moments of attempts, the oldest first; those of the last `span` are all there.
    recent: BTreeMap<IpAddr, VecDeque<Instant>>,
    swept: Instant,
}

impl Window {
    fn new(span: Duration, count_max: usize) -> Self {
        Self {
            span,
            count_max,
            recent: BTreeMap::new(),
            swept: Instant::ZERO,
        }
    }

    /// Whether one more attempt may be made; when, if not now.
    fn has_room(&mut self, key: IpAddr, now: Instant) -> Result<(), Instant> {
        if let Some(times) = self.recent.get_mut(&key) {
            while times.front().is_some_and(|&at| at + self.span <= now) {
                times.pop_front();
            }
            return match times.front() {
                Some(&first) if times.len() >= self.count_max => Err(first + self.span),
                _ => Ok(()),
            };
        }
        if self.recent.len() >= WINDOW_KEYS_MAX && now >= self.swept + SWEEP_PAUSE {
            self.swept = now;
            let span = self.span;
            let is_recent =
                |times: &VecDeque<Instant>| times.back().is_some_and(|&t| t + span > now);
            self.recent.retain(|_, times| is_recent(times));
        }
        match self.recent.len() < WINDOW_KEYS_MAX {
            true => Ok(()),
            false => Err(now + FULL_PAUSE),
        }
    }

    fn count(&mut self, key: IpAddr, now: Instant) {
        self.recent.entry(key).or_default().push_back(now);
    }
}

/// One of so many parts of all slots is what an off-link network may have.
const NETWORK_SHARE: u32 = 4;
/// Attempts to dial one off-link address, in so much time.
const ADDRESS_ATTEMPTS_MAX: usize = 3;
const ADDRESS_SPAN: Duration = Duration::from_secs(600);
/// The same for one off-link network.
const NETWORK_ATTEMPTS_MAX: usize = 20;
const NETWORK_SPAN: Duration = Duration::from_secs(60);
/// Addresses or networks of which attempts are remembered at most; no others are dialled then.
const WINDOW_KEYS_MAX: usize = 8192;
/// Pause before it is looked again whether there is room.
const FULL_PAUSE: Duration = Duration::from_secs(30);
/// Pause between two searches for what may be forgotten.
const SWEEP_PAUSE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::address::Interface;

    fn gate() -> Gate {
        let mut gate = Gate::new(100);
        gate.interfaces_found(&Interfaces::new(vec![Interface {
            index: 2,
            ip: [10, 0, 0, 1].into(),
            prefix_len: 24,
        }]));
        gate
    }

    fn addr(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    fn secs(secs: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(secs)
    }

    #[test]
    fn off_link_address_is_dialled_three_times_in_ten_minutes() {
        let mut gate = gate();
        for at in [0, 100, 200] {
            assert_eq!(gate.dial(addr("198.51.100.1:6881"), secs(at)), Ok(()));
        }
        for port in [6881, 7000, 7001] {
            let victim = ([198, 51, 100, 1], port).into();
            assert_eq!(gate.dial(victim, secs(300)), Err(secs(600)), "any port");
        }
        let mapped = addr("[::ffff:198.51.100.1]:6881");
        assert_eq!(gate.dial(mapped, secs(300)), Err(secs(600)), "any form");
        assert_eq!(gate.dial(addr("198.51.100.2:6881"), secs(300)), Ok(()));
        assert_eq!(gate.dial(addr("198.51.100.1:6881"), secs(600)), Ok(()));
        assert_eq!(
            gate.dial(addr("198.51.100.1:6881"), secs(600)),
            Err(secs(700))
        );
    }

    #[test]
    fn off_link_network_is_dialled_twenty_times_a_minute() {
        #[rustfmt::skip]
        let cases = [
            // the network, and one beside it
            ("198.51.100.", ":1024",  "198.51.101.1:1024"),
            ("[2001:db8:0:1", "::1]:1024", "[2001:db8:0:200::1]:1024"),
        ];
        for (front, back, beside) in cases {
            let mut gate = gate();
            for n in 10..30 {
                let one = addr(&format!("{front}{n}{back}"));
                assert_eq!(gate.dial(one, secs(n)), Ok(()), "{one}");
            }
            let next = addr(&format!("{front}30{back}"));
            assert_eq!(gate.dial(next, secs(30)), Err(secs(70)), "{next}");
            assert_eq!(gate.dial(addr(beside), secs(30)), Ok(()), "{beside}");
            assert_eq!(gate.dial(next, secs(70)), Ok(()), "{next}");
        }
    }

    #[test]
    fn links_have_no_limits_and_nothing_is_off_link_before_they_are_known() {
        let mut gates = [gate(), Gate::new(100)];
        for text in ["127.0.0.1:1", "10.0.0.9:1", "[fe80::1]:1", "[::1]:1"] {
            for gate in &mut gates {
                for _ in 0..200 {
                    assert_eq!(gate.dial(addr(text), secs(1)), Ok(()), "{text}");
                    gate.joined(addr(text).ip());
                    assert!(gate.has_room(addr(text).ip()), "{text}");
                }
            }
        }
        for _ in 0..200 {
            assert_eq!(gates[1].dial(addr("198.51.100.1:1"), secs(1)), Ok(()));
        }
    }

    #[test]
    fn off_link_network_has_a_quarter_of_the_slots() {
        let mut gate = gate();
        for n in 0..25 {
            let ip = IpAddr::from([198, 51, 100, n]);
            assert!(gate.has_room(ip));
            gate.joined(ip);
        }
        assert!(!gate.has_room([198, 51, 100, 200].into()));
        let refused = gate.dial(addr("198.51.100.200:6881"), secs(5));
        assert_eq!(refused, Err(secs(35)), "nor is it dialled");
        assert!(gate.has_room([198, 51, 101, 1].into()));
        gate.left([198, 51, 100, 3].into());
        assert!(gate.has_room([198, 51, 100, 200].into()));
    }

    #[test]
    fn memory_of_attempts_is_bounded_and_forgets() {
        let mut gate = gate();
        let ip = |n: u32| IpAddr::from((0xc633_0000 + n * 256).to_be_bytes());
        let max = WINDOW_KEYS_MAX as u32;
        for n in 0..max {
            assert_eq!(gate.dial((ip(n), 6881).into(), secs(2)), Ok(()), "{n}");
        }
        let one_more = (ip(max), 6881).into();
        assert_eq!(gate.dial(one_more, secs(3)), Err(secs(33)));
        assert_eq!(gate.dial((ip(0), 6881).into(), secs(3)), Ok(()), "known");
        assert_eq!(gate.by_address.recent.len(), WINDOW_KEYS_MAX);
        assert_eq!(gate.dial(one_more, secs(602)), Ok(()));
        assert_eq!(gate.by_address.recent.len(), 2);
    }
}
