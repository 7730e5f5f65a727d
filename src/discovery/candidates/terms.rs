//! What is said of an address: where it was heard of, whether it is within reach, how a connection
//! with it ended.

use std::net::IpAddr;

/// Where an address was heard of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The user named it; it is tried for as long as the torrent runs.
    User,
    /// A tracker named it.
    Tracker,
    /// It connected to us and named its port.
    Incoming,
    /// It was heard on one of our links (BEP 14).
    Lsd,
    /// A peer told of it (BEP 11).
    Pex {
        /// Which.
        sender: IpAddr,
    },
    /// Another evpeer told of it.
    Evpeer {
        /// Which.
        sender: IpAddr,
    },
    /// A former run of this peer was connected to it.
    Session,
}

impl Source {
    /// The word for it in every output.
    pub fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Tracker => "tracker",
            Self::Incoming => "incoming",
            Self::Lsd => "lsd",
            Self::Pex { .. } => "pex",
            Self::Evpeer { .. } => "evpeer",
            Self::Session => "session",
        }
    }
}

/// Which addresses may be dialled, beside those that the user named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// All.
    Everywhere,
    /// Those on our own links.
    OnLink,
    /// The others.
    OffLink,
    /// None.
    Nowhere,
}

/// How many addresses there are of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// All.
    pub known: usize,
    /// Those that wait for another attempt after a failed one.
    pub failed: usize,
    /// Those that are not dialled again.
    pub never: usize,
}

/// How a connection ended, for the decision when to dial again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It was never established.
    Unreachable,
    /// It was lost, or the peer closed it.
    Lost,
    /// It was of no use to either side.
    Redundant,
    /// The peer broke the rules, or is this very process: never again.
    Never,
}
