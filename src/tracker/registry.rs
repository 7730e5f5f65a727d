//! Who is in which swarm: fed by every road, read by our tracker, and soon by broadcasts.
//!
//! The registry owns all that is known of other peers by address. Every road leads here:
//! handshakes, announces, PEX, LSD, what the user said. It keeps apart what this peer saw itself
//! (*first hand*) from what others said (*hearsay*): strangers are told first-hand entries only,
//! so that no liar can aim them at a victim.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::asker::Asker;
use super::secret::Secret;
use crate::base::address::Interfaces;
use crate::base::id::{InfoHash, PeerId};
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

/// One change of a swarm, numbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its number in its swarm, from 1.
    pub version: u64,
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

/// One peer, as it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// Its address, as the asker can use it.
    pub addr: SocketAddr,
    /// What it calls itself.
    pub peer_id: Option<PeerId>,
}

/// All swarms that are tracked here.
#[derive(Debug)]
pub struct Registry {
    secret: Secret,
}

impl Registry {
    /// Without swarms.
    pub fn new(secret: &Secret) -> Self {
        Self {
            secret: secret.clone(),
        }
    }

    /// Tracks the swarm from now on, or changes its terms.
    pub fn track(&mut self, info_hash: InfoHash, terms: Terms) {
        let _ = (info_hash, terms);
        todo!()
    }

    /// Forgets the swarm and its peers.
    pub fn untrack(&mut self, info_hash: InfoHash) {
        let _ = (info_hash, &self.secret);
        todo!()
    }

    /// Whether the swarm is tracked here, or was announced to an open tracker.
    pub fn is_tracked(&self, info_hash: InfoHash) -> bool {
        let _ = info_hash;
        todo!()
    }

    /// Takes note of news of a peer. Returns what changed by it: nothing if it was known as it
    /// is, if the swarm is not tracked, or if a limit forbids.
    ///
    /// A connection is told by [`Heard::Handshake`] and makes the entry connected, until
    /// [`Registry::disconnected`].
    pub fn heard(
        &mut self,
        info_hash: InfoHash,
        sighting: &Sighting,
        interfaces: &Interfaces,
        now: Instant,
    ) -> Option<Change> {
        let _ = (info_hash, sighting, interfaces, now);
        todo!()
    }

    /// The peer's connection has ended; it may be dialled again until it expires.
    pub fn disconnected(&mut self, info_hash: InfoHash, addr: SocketAddr, now: Instant) {
        let _ = (info_hash, addr, now);
        todo!()
    }

    /// The peer left, as `heard` tells. Hearsay does not remove what was seen at first hand.
    pub fn left(
        &mut self,
        info_hash: InfoHash,
        addr: SocketAddr,
        heard: Heard,
        now: Instant,
    ) -> Option<Change> {
        let _ = (info_hash, addr, heard, now);
        todo!()
    }

    /// The peer has everything now: its download ended here, and is counted once.
    pub fn completed(
        &mut self,
        info_hash: InfoHash,
        addr: SocketAddr,
        now: Instant,
    ) -> Option<Change> {
        let _ = (info_hash, addr, now);
        todo!()
    }

    /// Forgets who was silent for too long, in one bounded turn. The changes are in the logs.
    /// To be called again at [`Registry::next_deadline`].
    pub fn expire(&mut self, now: Instant) {
        let _ = now;
        todo!()
    }

    /// When [`Registry::expire`] has something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        todo!()
    }

    /// Appends to `told` a random sample of the peers that the asker can use, all different and
    /// none of them the asker. Costs what is wanted, not what is there.
    pub fn sample(
        &mut self,
        info_hash: InfoHash,
        asker: &Asker<'_>,
        wanted: &Wanted,
        told: &mut Vec<Told>,
    ) {
        let _ = (info_hash, asker, wanted, told);
        todo!()
    }

    /// The size of the swarm, if it is tracked.
    pub fn counts(&self, info_hash: InfoHash) -> Option<Counts> {
        let _ = info_hash;
        todo!()
    }

    /// When a peer of the swarm shall announce itself again: seconds while the swarm changes,
    /// minutes when it is calm.
    pub fn interval(&self, info_hash: InfoHash, now: Instant) -> Duration {
        let _ = (info_hash, now);
        todo!()
    }

    /// What is known of all peers of the swarm.
    pub fn peers(&self, info_hash: InfoHash) -> impl Iterator<Item = &Entry> {
        let _ = info_hash;
        std::iter::empty()
    }

    /// What is known of one peer.
    pub fn peer(&self, info_hash: InfoHash, addr: SocketAddr) -> Option<&Entry> {
        let _ = (info_hash, addr);
        todo!()
    }

    /// All swarms.
    pub fn swarms(&self) -> impl Iterator<Item = InfoHash> {
        std::iter::empty()
    }

    /// The number of the swarm's latest change; 0 if there was none.
    pub fn version(&self, info_hash: InfoHash) -> u64 {
        let _ = info_hash;
        todo!()
    }

    /// The changes after number `version`, or `None` if some of them are forgotten: then the
    /// whole list is what is to be told.
    pub fn changes_after(
        &self,
        info_hash: InfoHash,
        version: u64,
    ) -> Option<impl Iterator<Item = &Change>> {
        let _ = (info_hash, version);
        Some(std::iter::empty())
    }
}

/// Unused until the body is there.
pub type Ip = IpAddr;
