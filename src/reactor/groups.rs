//! The two multicast groups of local discovery (BEP 14): one socket a family, a member on every
//! interface that can do it.
//!
//! Interfaces come and go; membership is brought in line with them whenever they are looked at,
//! and what failed is tried again then. Other programs of this machine may listen on the same
//! port, and each gets its copy.

use std::collections::BTreeMap;
use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use mio::Registry;
use mio::net::UdpSocket;
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, SockRef, Socket, Type};

use crate::base::time::Instant;
use crate::engine::action::Family;

use super::interfaces::Found;
use super::ready::Budget;
use super::slots::Source;
use super::stream::reason;
use super::udp::Udp;
use super::{Reactor, os};

/// The groups that are in service: none, if local discovery is off or its port not to be had.
#[derive(Debug, Default)]
pub struct Groups {
    all: Vec<Group>,
}

/// One family's group.
#[derive(Debug)]
struct Group {
    family: Family,
    udp: Udp,
    /// Interfaces that we are a member on, with their addresses.
    members: BTreeMap<u32, Vec<IpAddr>>,
}

/// What does not work on an interface.
#[derive(Debug)]
pub struct Failure {
    /// The interface's index.
    pub interface: u32,
    /// Which group.
    pub family: Family,
    /// What the system said.
    pub error: io::Error,
}

impl Groups {
    /// Opens the groups of both families, or of that of `bind`.
    pub fn open(bind: Option<IpAddr>, registry: &Registry) -> Self {
        let mut all = Vec::new();
        for family in [Family::V4, Family::V6] {
            if bind.is_some_and(|ip| family_of(ip) != family) {
                continue;
            }
            match Group::open(family, Source::Group(all.len()), registry) {
                Ok(group) => all.push(group),
                Err(e) if os::is_family_missing(&e) => {}
                Err(e) => log::warn!(
                    "local discovery is off family={family:?} error={e}: \
                     another program may hold port {PORT} for itself"
                ),
            }
        }
        Self { all }
    }

    /// An event says that there are datagrams for the group in `place`.
    pub fn set_readable(&mut self, place: usize) {
        self.all[place].udp.set_readable();
    }

    /// Whether a turn would find something.
    pub fn is_readable(&self) -> bool {
        self.all.iter().any(|group| group.udp.is_readable())
    }

    /// Brings membership in line with the interfaces that are up; returns where that failed.
    pub fn join(&mut self, found: &[Found]) -> Vec<Failure> {
        let groups = self.all.iter_mut();
        groups.flat_map(|group| group.join(found)).collect()
    }

    /// Sends `bytes` to a group, out of one interface. Without a membership there nothing leaves.
    ///
    /// # Errors
    /// The system's.
    pub fn send(&mut self, interface: u32, family: Family, bytes: &[u8]) -> io::Result<()> {
        let group = self.all.iter_mut().find(|group| group.family == family);
        group.map_or(Ok(()), |group| group.send(interface, bytes))
    }
}

impl Group {
    fn open(family: Family, source: Source, registry: &Registry) -> io::Result<Self> {
        let address = group(family);
        let domain = Domain::for_address(address);
        let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_reuse_address(true)?;
        #[cfg(unix)]
        socket.set_reuse_port(true)?;
        // Who sends hears himself, too: other peers of this machine are to hear it.
        match family {
            Family::V4 => {
                socket.set_multicast_loop_v4(true)?;
                socket.set_multicast_ttl_v4(HOPS)?;
            }
            Family::V6 => {
                socket.set_only_v6(true)?;
                socket.set_multicast_loop_v6(true)?;
                socket.set_multicast_hops_v6(HOPS)?;
            }
        }
        os::hear_own_memberships_only(&socket, family);
        socket.set_nonblocking(true)?;
        socket.bind(&os::group_bind_address(address).into())?;
        Ok(Self {
            family,
            udp: Udp::new(UdpSocket::from_std(socket.into()), source, registry)?,
            members: BTreeMap::new(),
        })
    }

    fn join(&mut self, found: &[Found]) -> Vec<Failure> {
        let wanted = wanted(found, self.family);
        let members = mem::take(&mut self.members);
        for (interface, ips) in members {
            if wanted.get(&interface) == Some(&ips) {
                self.members.insert(interface, ips);
            } else {
                // An address that is gone may have taken the membership along. If the whole
                // interface is gone, there is nothing to leave.
                let _ = self.set_member(interface, Membership::Leave);
            }
        }
        let mut failures = Vec::new();
        for (interface, ips) in wanted {
            if self.members.contains_key(&interface) {
                continue;
            }
            match self.set_member(interface, Membership::Join) {
                Ok(()) => {
                    log::debug!(
                        "group joined family={:?} interface={interface}",
                        self.family
                    );
                    self.members.insert(interface, ips);
                }
                Err(error) => failures.push(Failure {
                    interface,
                    family: self.family,
                    error,
                }),
            }
        }
        failures
    }

    fn set_member(&self, interface: u32, membership: Membership) -> io::Result<()> {
        let socket = SockRef::from(self.udp.socket());
        let by_index = InterfaceIndexOrAddress::Index(interface);
        match (self.family, membership) {
            (Family::V4, Membership::Join) => socket.join_multicast_v4_n(&GROUP_V4, &by_index),
            (Family::V4, Membership::Leave) => socket.leave_multicast_v4_n(&GROUP_V4, &by_index),
            (Family::V6, Membership::Join) => socket.join_multicast_v6(&GROUP_V6, interface),
            (Family::V6, Membership::Leave) => socket.leave_multicast_v6(&GROUP_V6, interface),
        }
    }

    /// Sends `bytes` out of `interface`. With IPv4 once from each of its first addresses: hosts
    /// of one subnet do not listen to another's.
    fn send(&mut self, interface: u32, bytes: &[u8]) -> io::Result<()> {
        let Some(ips) = self.members.get(&interface) else {
            return Ok(());
        };
        let to = group(self.family);
        let mut result = Ok(());
        for &ip in &ips[..ips.len().min(SOURCES_MAX)] {
            let socket = SockRef::from(self.udp.socket());
            result = match ip {
                IpAddr::V4(ip) => socket.set_multicast_if_v4(&ip),
                IpAddr::V6(_) => socket.set_multicast_if_v6(interface),
            };
            result = result.and_then(|()| self.udp.send(to, None, bytes));
            if ip.is_ipv6() {
                break; // the system chooses one of them
            }
        }
        result
    }
}

#[derive(Clone, Copy, Debug)]
enum Membership {
    Join,
    Leave,
}

impl Reactor {
    /// Sends to a group; the engine hears of it if that fails.
    pub(super) fn send_to_group(
        &mut self,
        interface: u32,
        family: Family,
        bytes: &[u8],
        now: Instant,
    ) {
        if let Err(e) = self.groups.send(interface, family, bytes) {
            let why = reason(&e);
            self.engine.multicast_failed(interface, family, &why, now);
        }
    }

    /// Joins the groups on the interfaces that are up; the engine hears of it where that fails.
    pub(super) fn join_groups(&mut self, now: Instant) {
        for failure in self.groups.join(self.interfaces.found()) {
            let Failure {
                interface,
                family,
                error,
            } = failure;
            let why = reason(&error);
            self.engine.multicast_failed(interface, family, &why, now);
            self.run_actions(now);
        }
    }

    /// Shows the engine what has come to the groups, as far as a pass allows.
    pub(super) fn group_turns(&mut self, now: Instant) {
        let mut batch = mem::take(&mut self.batch);
        for place in 0..self.groups.all.len() {
            let mut budget = Budget::group();
            while self.groups.all[place].udp.is_readable() && !budget.is_spent() {
                let to_group = group(self.groups.all[place].family).ip();
                self.groups.all[place].udp.receive(&mut batch);
                budget.spend_turn(0);
                for datagram in batch.datagrams() {
                    if budget.is_spent() {
                        break;
                    }
                    budget.spend_turn(datagram.bytes.len());
                    if datagram.to.is_some_and(|to| to != to_group) {
                        continue; // somebody else's group, or none
                    }
                    let from = datagram.from;
                    let interface = datagram.interface.or_else(|| self.interface_of(from.ip()));
                    if let Some(interface) = interface {
                        self.engine.multicast(from, interface, datagram.bytes, now);
                        self.run_actions(now);
                    }
                }
            }
        }
        self.batch = batch;
    }
}

/// The interfaces with an address of `family` on which to be a member. Loopback counts only if it
/// is said to be able to, or if there is no other.
fn wanted(found: &[Found], family: Family) -> BTreeMap<u32, Vec<IpAddr>> {
    let of_family = || {
        let all = found.iter();
        all.filter(|f| family_of(f.interface.ip) == family)
    };
    let is_able = |f: &&Found| f.has_multicast;
    let has_network = of_family().any(|f| f.has_multicast && !f.is_loopback);
    let is_last_resort = |f: &&Found| f.is_loopback && !has_network;
    let mut wanted: BTreeMap<u32, Vec<IpAddr>> = BTreeMap::new();
    for f in of_family().filter(|f| is_able(f) || is_last_resort(f)) {
        let index = f.interface.index;
        if wanted.len() < INTERFACES_MAX || wanted.contains_key(&index) {
            wanted.entry(index).or_default().push(f.interface.ip);
        }
    }
    wanted
}

fn family_of(ip: IpAddr) -> Family {
    if ip.is_ipv4() { Family::V4 } else { Family::V6 }
}

fn group(family: Family) -> SocketAddr {
    match family {
        Family::V4 => (GROUP_V4, PORT).into(),
        Family::V6 => (GROUP_V6, PORT).into(),
    }
}

/// The group's port (BEP 14).
const PORT: u16 = 6771;
/// IPv4's group (BEP 14).
const GROUP_V4: Ipv4Addr = Ipv4Addr::new(239, 192, 152, 143);
/// IPv6's group (BEP 14), site-local.
const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff15, 0, 0, 0, 0, 0, 0xefc0, 0x988f);
/// Links that an announce passes: one. Routers do not carry it on.
const HOPS: u32 = 1;
/// Interfaces of a family on which we are a member at most (Linux allows a socket 20 groups).
const INTERFACES_MAX: usize = 16;
/// Addresses of an interface from which an announce is sent at most.
const SOURCES_MAX: usize = 2;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mio::{Events, Poll};

    use super::super::udp::Batch;
    use super::*;
    use crate::base::address::Interface;

    fn found(index: u32, ip: &str) -> Found {
        let ip: IpAddr = ip.parse().unwrap();
        Found {
            name: String::new(),
            interface: Interface {
                index,
                ip,
                prefix_len: 8,
            },
            is_loopback: ip.is_loopback(),
            has_multicast: !ip.is_loopback(),
        }
    }

    #[test]
    fn loopback_is_joined_only_where_there_is_nothing_else() {
        let (lo, lo6) = (found(1, "127.0.0.1"), found(1, "::1"));
        let (lan, lan6) = (found(2, "10.0.0.5"), found(2, "fe80::5"));
        let second = found(2, "10.1.0.5");
        let tunnel = Found {
            has_multicast: false,
            ..found(3, "10.9.0.1")
        };
        let wanted = |found: &[&Found], family| -> Vec<(u32, usize)> {
            let found: Vec<Found> = found.iter().map(|&f| f.clone()).collect();
            let wanted = super::wanted(&found, family).into_iter();
            wanted.map(|(index, ips)| (index, ips.len())).collect()
        };
        let all = [&lan, &lan6, &second, &tunnel, &lo, &lo6];
        assert_eq!(wanted(&all, Family::V4), [(2, 2)]);
        assert_eq!(wanted(&all, Family::V6), [(2, 1)]);
        assert_eq!(wanted(&[&tunnel, &lo, &lo6], Family::V4), [(1, 1)]);
        assert_eq!(wanted(&[&lan, &lo6], Family::V6), [(1, 1)]);
        let many: Vec<Found> = (0..100).map(|index| found(index, "10.0.0.5")).collect();
        assert_eq!(super::wanted(&many, Family::V4).len(), INTERFACES_MAX);
    }

    /// Two peers of one machine, each with its socket on the one port.
    #[test]
    fn what_one_sends_the_other_hears_with_its_interface() {
        let lo = super::super::interfaces::find(Some(Ipv4Addr::LOCALHOST.into())).unwrap();
        let index = lo[0].interface.index;
        let mut poll = Poll::new().unwrap();
        let mut ours = Groups::open(Some(lo[0].interface.ip), poll.registry());
        let other_poll = Poll::new().unwrap();
        let mut theirs = Groups::open(Some(lo[0].interface.ip), other_poll.registry());
        assert_eq!(
            (ours.all.len(), theirs.all.len()),
            (1, 1),
            "port 6771 is free"
        );
        for groups in [&mut ours, &mut theirs] {
            assert!(groups.join(&lo).is_empty());
            assert!(groups.join(&lo).is_empty(), "a member already");
        }

        let said = format!("a test of process {}", std::process::id());
        for (interface, family, bytes) in [
            (index, Family::V6, &b"no such group here"[..]),
            (index + 1000, Family::V4, b"no such interface"),
            (index, Family::V4, said.as_bytes()),
        ] {
            theirs.send(interface, family, bytes).unwrap();
        }
        let mut batch = Batch::new();
        let mut events = Events::with_capacity(4);
        // Other programs may speak meanwhile.
        loop {
            poll.poll(&mut events, Some(Duration::from_secs(20)))
                .unwrap();
            assert!(!events.is_empty(), "nothing came");
            ours.all[0].udp.receive(&mut batch);
            let mut all = batch.datagrams();
            if let Some(heard) = all.find(|d| d.bytes == said.as_bytes()) {
                assert_eq!(heard.interface, Some(index));
                assert_eq!(heard.to, Some(GROUP_V4.into()));
                assert_eq!(heard.from.ip(), lo[0].interface.ip);
                return;
            }
        }
    }

    #[test]
    fn interface_that_fails_is_named_and_tried_again() {
        let poll = Poll::new().unwrap();
        let mut groups = Groups::open(Some(Ipv4Addr::LOCALHOST.into()), poll.registry());
        let nowhere = [found(4_000_000, "10.0.0.5")];
        for _ in 0..2 {
            let failures = groups.join(&nowhere);
            assert_eq!(failures.len(), 1);
            assert_eq!(failures[0].interface, 4_000_000);
            assert!(groups.all[0].members.is_empty());
        }
        let lo = super::super::interfaces::find(Some(Ipv4Addr::LOCALHOST.into())).unwrap();
        assert!(groups.join(&lo).is_empty());
        assert_eq!(groups.all[0].members.len(), 1);
        assert_eq!(groups.join(&nowhere).len(), 1);
        assert!(groups.all[0].members.is_empty(), "left");
        assert!(groups.join(&lo).is_empty(), "joined again");
    }
}
