//! Local service discovery (BEP 14): when we say on which link what we have, and what we make of
//! what others say.

use std::net::SocketAddr;

use crate::base::address::{Family, Interfaces};
use crate::base::id::InfoHash;
use crate::base::rng::Rng;
use crate::base::time::Instant;
use crate::wire::lsd::Cookie;

use super::Privacy;

/// Local discovery for all torrents on all links.
#[derive(Debug)]
pub struct Lsd {
    port: u16,
    cookie: Cookie,
    rng: Rng,
}

/// A packet that shall leave for the group of its family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Out of which interface: its index.
    pub interface: u32,
    /// To which group.
    pub family: Family,
    /// What.
    pub bytes: Vec<u8>,
}

impl Lsd {
    /// Nothing is known yet. `port` is where others reach us, not 0.
    pub fn new(port: u16, mut rng: Rng) -> Self {
        let cookie = Cookie::new(rng.next_u64() as u32);
        Self { port, cookie, rng }
    }

    /// The interfaces of this machine, at the start and after each change.
    pub fn interfaces_found(&mut self, _interfaces: &Interfaces, _now: Instant) {}

    /// A torrent to be announced and looked for; a private one never is (BEP 27).
    pub fn add(&mut self, _info_hash: InfoHash, _privacy: Privacy, _now: Instant) {}

    /// A torrent is no longer to be announced.
    pub fn remove(&mut self, _info_hash: InfoHash) {}

    /// When [`Lsd::poll`] has something next.
    pub fn next_deadline(&self) -> Option<Instant> {
        None
    }

    /// A packet that shall leave now; `None` until the next deadline.
    pub fn poll(&mut self, _now: Instant) -> Option<Packet> {
        None
    }

    /// A packet came in by the interface with this index; says who has which of our torrents: each
    /// is an address to dial.
    pub fn received(
        &mut self,
        _from: SocketAddr,
        _interface: u32,
        _packet: &[u8],
        _now: Instant,
    ) -> Vec<(InfoHash, SocketAddr)> {
        Vec::new()
    }

    /// Joining the group on an interface or sending to it failed: nothing is sent there for a
    /// while.
    pub fn failed(&mut self, _interface: u32, _family: Family, _why: &str, _now: Instant) {}
}
