//! Peer exchange (BEP 11): what each peer is told of the others, and what we believe of it.

use std::net::{IpAddr, SocketAddr};

use crate::base::address::Interfaces;
use crate::base::rng::Rng;
use crate::base::time::Instant;
use crate::wire::pex::{Flags, Pex};

use super::Privacy;

/// The peers of one torrent that we are connected to, as all of them may hear of.
#[derive(Debug)]
pub struct Roster {
    privacy: Privacy,
}

/// Why a peer is no longer connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Departure {
    /// It may be listed as recently seen.
    Usual,
    /// It is not to be recommended.
    Banned,
}

impl Roster {
    /// Nobody is connected.
    pub fn new(privacy: Privacy) -> Self {
        Self { privacy }
    }

    /// A peer that is connected accepts others at `listens`.
    pub fn joined(&mut self, _listens: SocketAddr, _flags: Flags, _now: Instant) {}

    /// No connection with this peer is left.
    pub fn left(&mut self, _listens: SocketAddr, _departure: Departure, _now: Instant) {}
}

/// What one peer was told.
#[derive(Debug)]
pub struct PexOut {
    due: Instant,
}

impl PexOut {
    /// The peer has said that it wants `ut_pex`; it is told in a few seconds.
    pub fn new(_rng: &mut Rng, now: Instant) -> Self {
        Self { due: now }
    }

    /// When [`PexOut::next`] has something, if nothing else happens.
    pub fn next_deadline(&self, _roster: &Roster) -> Option<Instant> {
        Some(self.due)
    }

    /// What the peer at `remote`, which accepts others at `listens`, shall be told now.
    pub fn next(
        &mut self,
        roster: &Roster,
        _remote: IpAddr,
        _listens: Option<SocketAddr>,
        _now: Instant,
    ) -> Option<Pex> {
        let _ = roster.privacy;
        None
    }
}

/// What one peer told us.
#[derive(Debug, Default)]
pub struct PexIn {}

/// Why a connection is closed for its PEX messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PexFault {
    /// The seventh message within a minute (libtorrent closes there too).
    #[error("too many PEX messages")]
    TooMany,
}

/// Who we are, to know what is told of ourselves and of our links.
#[derive(Clone, Copy, Debug)]
pub struct Ourselves<'a> {
    /// The interfaces of this machine.
    pub interfaces: &'a Interfaces,
    /// The port on which we accept peers.
    pub port: u16,
}

impl PexIn {
    /// The peer at `sender` told of others; gives those that may be dialled.
    ///
    /// # Errors
    /// If the peer tells too often: the connection shall be closed.
    pub fn received(
        &mut self,
        pex: &Pex,
        _sender: IpAddr,
        _ourselves: Ourselves<'_>,
        _now: Instant,
    ) -> Result<Vec<(SocketAddr, Flags)>, PexFault> {
        Ok(pex.added.clone())
    }
}
