//! What the registry is told and tells: plain values.

use std::net::SocketAddr;

use crate::base::id::PeerId;
use crate::base::time::Instant;

/// How a peer was heard of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Heard {
    /// It is we.
    Ourselves,
    /// A connection to it finished its handshake; its port is the one it was dialled on, or the
    /// one it told (BEP 10 `p`).
    Handshake,
    /// It announced itself to our tracker.
    Announce,
    /// A host of a link called it out (BEP 14); the address is the sender's.
    Lsd,
    /// An evpeer passed it on.
    Gossip,
    /// A connected peer passed it on (BEP 11).
    Pex,
    /// A tracker told us.
    Tracker,
    /// The user did.
    User,
}

impl Heard {
    /// Whether this peer saw it itself: somebody who is there, and in that swarm.
    pub fn is_first_hand(self) -> bool {
        match self {
            Self::Ourselves | Self::Handshake | Self::Announce => true,
            Self::Lsd | Self::Gossip | Self::Pex | Self::Tracker | Self::User => false,
        }
    }
}

/// What is to be known of a swarm before its peers are told to anybody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// Peers come from the torrent's own trackers alone (BEP 27).
    pub is_private: bool,
    /// Our tracker is one of the torrent's own.
    pub names_us: bool,
}

/// News of one peer.
#[derive(Clone, Copy, Debug)]
pub struct Sighting {
    /// Where it accepts peers. Of ourselves: the unspecified address of each family, and our
    /// port; every asker is told the address that it came in on.
    pub addr: SocketAddr,
    /// What it calls itself.
    pub peer_id: Option<PeerId>,
    /// What it proves with that it is the one it was (BEP 7).
    pub key: Option<u32>,
    /// Whether it has everything; `None` if nobody said.
    pub is_seed: Option<bool>,
    /// Whether it wants nothing more, though it does not have everything (BEP 21).
    pub is_paused: bool,
    /// How it was heard of.
    pub heard: Heard,
}

/// What is known of one peer.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Where it accepts peers.
    pub addr: SocketAddr,
    /// What it calls itself.
    pub peer_id: Option<PeerId>,
    /// What it proves with that it is the one it was.
    pub key: Option<u32>,
    /// Whether it has everything.
    pub is_seed: bool,
    /// Whether it wants nothing more, though it does not have everything.
    pub is_paused: bool,
    /// How it was heard of last; once it was first hand, hearsay changes that no more.
    pub heard: Heard,
    /// Whether we are connected to it now; if so, it does not expire.
    pub is_connected: bool,
    /// When it was heard of first.
    pub first_at: Instant,
    /// When it was heard of last.
    pub last_at: Instant,
    /// When it is forgotten, unless it is connected or heard of again.
    pub expires_at: Instant,
}

/// One change of a swarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The peer.
    pub addr: SocketAddr,
    /// What happened.
    pub kind: ChangeKind,
    /// How it was heard of.
    pub heard: Heard,
}

/// What happens to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// It is new; or it was hearsay and was now seen at first hand.
    Joined,
    /// It has everything now.
    Completed,
    /// It left, or was silent for too long.
    Left,
}

/// The size of a swarm, in clients seen at first hand. One with several addresses is one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Those that have everything.
    pub complete: u32,
    /// Those that lack something.
    pub incomplete: u32,
    /// Those of them that want nothing more (BEP 21).
    pub paused: u32,
    /// Downloads that ended here, ever.
    pub downloaded: u32,
}

impl Counts {
    /// Those that lack something and want it.
    pub fn wanting(&self) -> u32 {
        self.incomplete - self.paused
    }
}

/// Who wants to be told peers.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Under which address it is listed itself, so that it is not told of itself.
    pub listed: Option<SocketAddr>,
    /// What it calls itself, for the same reason.
    pub peer_id: Option<PeerId>,
    /// How many.
    pub count: usize,
    /// Whether seeds are of use to it.
    pub seeds: Seeds,
    /// Which addresses its answer can hold.
    pub families: Families,
}

/// Whether seeds are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seeds {
    /// To those that lack something, and to evpeers.
    Told,
    /// From foreign seeds.
    Withheld,
}

/// Which addresses are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Families {
    /// Those of the asker's own.
    Own,
    /// First those of the asker's own, then the others.
    Both,
}
