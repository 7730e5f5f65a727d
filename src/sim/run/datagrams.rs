//! Datagrams: who sends them to whom, and who hears them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::Bytes;

use crate::engine::action::Family;
use crate::sim::actor::Input;
use crate::sim::event::Event;
use crate::sim::host::{INTERFACE, Node, host_of_ip};
use crate::sim::net::{Datagram, ParcelId};
use crate::sim::{HostId, World};

impl World {
    /// An engine sends a datagram from its port.
    pub(super) fn send_datagram(
        &mut self,
        id: HostId,
        from: Option<IpAddr>,
        to: SocketAddr,
        bytes: Bytes,
    ) {
        let host = &mut self.hosts[id.0 as usize];
        let (own, clock) = (host.addr, host.clock(self.now));
        if let Node::Peer(peer) = &mut host.node {
            peer.posted_to.insert(to);
        }
        let datagram = Datagram {
            from: SocketAddr::new(from.unwrap_or(own.ip()), own.port()),
            to,
            bytes,
        };
        self.judges.datagram_sent(id, own, &datagram, clock);
        self.post(id, &datagram);
    }

    /// An engine sends to the group of local discovery.
    pub(super) fn multicast(&mut self, id: HostId, interface: u32, family: Family, bytes: Bytes) {
        let clock = self.hosts[id.0 as usize].clock(self.now);
        let is_known = interface == INTERFACE;
        self.judges.multicast_sent(id, is_known, &bytes, clock);
        self.multicast_of(id, family, bytes);
    }

    /// A host sends to the group of local discovery. There are IPv4 addresses only: who sends to
    /// the other group is not heard.
    pub(super) fn multicast_of(&mut self, id: HostId, family: Family, bytes: Bytes) {
        let datagram = Datagram {
            from: self.hosts[id.0 as usize].addr,
            to: group(family),
            bytes,
        };
        let receivers: Vec<HostId> = match family {
            Family::V4 => self.network.lines.neighbours(id).collect(),
            Family::V6 => Vec::new(),
        };
        self.post_to(id, &receivers, &datagram);
    }

    /// A datagram leaves a host for where it says.
    pub(super) fn post(&mut self, id: HostId, datagram: &Datagram) {
        let receiver = host_of_ip(datagram.to.ip());
        let receiver = receiver.filter(|host| (host.0 as usize) < self.hosts.len());
        self.post_to(id, receiver.as_slice(), datagram);
    }

    fn post_to(&mut self, id: HostId, receivers: &[HostId], datagram: &Datagram) {
        let mut arrivals = Vec::new();
        self.network
            .post(id, receivers, datagram, self.now, &mut arrivals);
        for (at, parcel) in arrivals {
            self.events.push(at, Event::Datagram(parcel));
        }
    }

    pub(super) fn datagram_arrives(&mut self, parcel: ParcelId) {
        if !self.is_heard(parcel) {
            return self.network.drop_parcel(parcel);
        }
        let parcel = self.network.take_parcel(parcel);
        let (id, datagram) = (parcel.receiver, &parcel.datagram);
        let is_multicast = datagram.to.ip().is_multicast();
        self.trace.bytes(&datagram.bytes);
        let host = &mut self.hosts[id.0 as usize];
        let now = host.clock(self.now);
        match &mut host.node {
            Node::Peer(peer) => {
                let Some(engine) = &mut peer.engine else {
                    return;
                };
                self.inputs += 1;
                let (from, bytes) = (datagram.from, &datagram.bytes[..]);
                if is_multicast {
                    engine.multicast(from, INTERFACE, bytes, now);
                } else {
                    self.judges.datagram_heard(id, datagram);
                    engine.datagram(from, Some(datagram.to.ip()), bytes, now);
                }
                self.attend(id);
            }
            Node::Actor(_) if is_multicast => self.act_on(id, Input::Multicast(datagram)),
            Node::Actor(_) => self.act_on(id, Input::Datagram(datagram)),
        }
    }

    /// Whether somebody is there to hear a datagram that arrives. Actors hear all their ports.
    fn is_heard(&self, parcel: ParcelId) -> bool {
        let parcel = self.network.parcel(parcel);
        let (id, datagram) = (parcel.receiver, &parcel.datagram);
        let host = &self.hosts[id.0 as usize];
        if !self.network.lines.is_up(id) {
            return false;
        }
        let Node::Peer(peer) = &host.node else {
            return true;
        };
        let is_own = parcel.sender == id;
        let gets_in = peer.spec.is_reachable || is_own || peer.posted_to.contains(&datagram.from);
        let is_ours = datagram.to == host.addr || datagram.to.ip().is_multicast();
        peer.engine.is_some() && gets_in && is_ours
    }
}

/// The group of local discovery (BEP 14).
fn group(family: Family) -> SocketAddr {
    let ip: IpAddr = match family {
        Family::V4 => Ipv4Addr::new(239, 192, 152, 143).into(),
        Family::V6 => Ipv6Addr::new(0xff15, 0, 0, 0, 0, 0, 0xefc0, 0x988f).into(),
    };
    SocketAddr::new(ip, 6771)
}
