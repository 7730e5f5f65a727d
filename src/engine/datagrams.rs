//! Datagrams: what comes in on the port's UDP side and on the multicast groups.
//!
//! The shell tells the engine of every datagram as it came; what is to leave are actions. None of
//! it is a stream: nothing here may cost more than the datagram that asked for it.

use std::net::{IpAddr, SocketAddr};

use super::Engine;
use crate::base::address::Interfaces;
use crate::base::time::Instant;

impl Engine {
    /// A datagram came in on our port: from whom, and to which of our addresses if the system
    /// says so.
    pub fn datagram(
        &mut self,
        from: SocketAddr,
        local: Option<IpAddr>,
        bytes: &[u8],
        now: Instant,
    ) {
        let _ = local;
        if self.udp_tracker_reply(from, bytes, now) {
            return;
        }
        log::trace!("datagram dropped remote={from} len={}", bytes.len());
    }

    /// A datagram came in on a multicast group of local discovery (BEP 14), by the interface with
    /// this index.
    pub fn multicast(&mut self, from: SocketAddr, interface: u32, bytes: &[u8], now: Instant) {
        let _ = (interface, bytes, now);
        log::trace!("multicast dropped remote={from} len={}", bytes.len());
    }

    /// The interfaces of this machine, at the start and after each change.
    pub fn interfaces_found(&mut self, interfaces: Interfaces, now: Instant) {
        let _ = now;
        self.interfaces = interfaces;
    }
}
