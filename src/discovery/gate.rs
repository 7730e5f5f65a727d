//! What addresses off our links may take up, over all torrents: attempts to dial, and slots.

use std::net::{IpAddr, SocketAddr};

use crate::base::address::Interfaces;
use crate::base::time::Instant;

/// Keeps attempts and connections of off-link addresses within limits.
///
/// Everything is on-link until the interfaces are told.
#[derive(Debug)]
pub struct Gate {
    interfaces: Option<Interfaces>,
    conns_max: u32,
}

impl Gate {
    /// Nobody is connected; `conns_max` is the number of connections over all torrents.
    pub fn new(conns_max: u32) -> Self {
        Self {
            interfaces: None,
            conns_max,
        }
    }

    /// The interfaces of this machine, at the start and after each change.
    pub fn interfaces_found(&mut self, interfaces: &Interfaces) {
        self.interfaces = Some(interfaces.clone());
    }

    /// Whether one more connection with `ip`, dialled or accepted, leaves room for other networks.
    pub fn has_room(&self, _ip: IpAddr) -> bool {
        self.conns_max > 0
    }

    /// A connection with `ip` is opened or accepted; every call is followed by one of
    /// [`Gate::left`].
    pub fn joined(&mut self, _ip: IpAddr) {}

    /// Such a connection is gone.
    pub fn left(&mut self, _ip: IpAddr) {}

    /// Counts an attempt to dial `remote`.
    ///
    /// # Errors
    /// When it may be tried again, if not now.
    pub fn dial(&mut self, _remote: SocketAddr, _now: Instant) -> Result<(), Instant> {
        Ok(())
    }
}
