//! One torrent as the engine runs it: its exchange, its addresses, its tracker, its state.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use super::action::{Snapshot, State};
use super::goals::Seeded;
use super::plight::{Cure, Plight};
use super::view::Heard;
pub use crate::base::address::HostPort;
use crate::base::bits::Bitfield;
use crate::base::choice::Choice;
use crate::base::id::{PieceIndex, Ticket};
use crate::base::seldom::{Blank, Seldom};
use crate::base::time::Instant;
use crate::discovery::candidates::Candidates;
use crate::discovery::pex::Roster;
use crate::meta::metainfo::Metainfo;
use crate::swarm::Swarm;
use crate::tracker::client::Client;

/// What a user wants of a torrent.
#[derive(Clone, Debug)]
pub struct TorrentSpec {
    /// What it is.
    pub meta: Arc<Metainfo>,
    /// Peers to connect to.
    pub peers: Vec<HostPort>,
    /// Trackers beside those of the metainfo, each a tier of its own.
    pub trackers: Vec<String>,
    /// Which of its files are wanted.
    pub choice: Choice,
}

/// What storage found of a torrent.
#[derive(Clone, Debug)]
pub struct OnDisk {
    /// Pieces that may be there and have to be hashed.
    pub candidates: Bitfield,
    /// Pieces that are there.
    pub vouched: Bitfield,
    /// Blocks of other pieces that are there, unverified.
    pub filled: Vec<(PieceIndex, Bitfield)>,
}

impl OnDisk {
    /// Nothing is remembered of the pieces that are worth checking.
    pub fn unknown(candidates: Bitfield) -> Self {
        Self {
            vouched: Bitfield::new(candidates.len()),
            candidates,
            filled: Vec::new(),
        }
    }
}

/// A torrent that cannot be added.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddError {
    /// The same info hash is there already.
    #[error("torrent \"{name}\" ({info_hash}) was added already")]
    Duplicate {
        /// Its name.
        name: String,
        /// Its info hash.
        info_hash: crate::base::id::InfoHash,
    },
    /// It would write a file of another torrent.
    #[error("torrents \"{name}\" and \"{other}\" both have the file {path}")]
    SamePath {
        /// Its name.
        name: String,
        /// The name of the other.
        other: String,
        /// The file.
        path: crate::meta::paths::SafePath,
    },
}

/// A running torrent.
#[derive(Debug)]
pub struct Torrent {
    /// The exchange of pieces.
    pub swarm: Swarm,
    /// What it does at present.
    pub state: State,
    /// Why it stopped.
    pub reason: Option<String>,
    /// The check of what was on disk, while it runs.
    pub check: Option<Box<Check>>,
    /// Addresses to dial.
    pub candidates: Candidates,
    /// When it last called somebody though it had enough peers, or was added.
    pub mixed_at: Instant,
    /// The peers that we are connected to, for the others.
    pub roster: Roster,
    /// Who is there beside what the metainfo names.
    pub contacts: Seldom<Contacts>,
    /// When to announce, and where.
    pub tracker: Client,
    /// Its user was told that everything is durable.
    pub durable: bool,
    /// What storage was asked with last, whether all is with the kernel, and on the disk. Answers
    /// to what was asked before say nothing of what was stored since.
    pub settling: Ticket,
    /// See there.
    pub syncing: Ticket,
    /// When its files were last found changed, or a sync failed.
    pub lapsed_at: Option<Instant>,
    /// Its files cannot be written at present.
    pub plight: Option<Box<Plight>>,
    /// The end of the last such time.
    pub cure: Option<Cure>,
    /// When the exchange was last told the time.
    pub ticked: Instant,
    /// When its earliest timer fires.
    pub armed: Instant,
    /// While it is paused: what it did before.
    pub paused_from: Option<State>,
    /// Which of its files are wanted.
    pub choice: Choice,
    /// Storage has its files.
    pub is_open: bool,
    /// What was transferred before the present exchange, in this run.
    pub before: Transferred,
    /// What was transferred in former runs.
    pub former: Transferred,
    /// It was complete once: its trackers hear of the end of a download no more.
    pub was_complete: bool,
    /// For how long it was seeded.
    pub seeded: Seeded,
}

/// Whom a torrent has to do with, beside what its metainfo names.
#[derive(Debug, Default)]
pub struct Contacts {
    /// Trackers that the user named.
    pub trackers: Vec<String>,
    /// Peers that the user named.
    pub peers: Vec<HostPort>,
    /// Evpeers of the swarm that were met: each of them is a tracker too.
    pub evpeers: BTreeSet<SocketAddr>,
    /// What each of its trackers said last, by its address.
    pub heard: BTreeMap<String, Heard>,
}

impl Blank for Contacts {
    const BLANK: &'static Self = &Self {
        trackers: Vec::new(),
        peers: Vec::new(),
        evpeers: BTreeSet::new(),
        heard: BTreeMap::new(),
    };

    fn is_blank(&self) -> bool {
        let is_named = !self.trackers.is_empty() || !self.peers.is_empty();
        !is_named && self.evpeers.is_empty() && self.heard.is_empty()
    }
}

/// Payload that was transferred, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transferred {
    /// Sent.
    pub up: u64,
    /// Received.
    pub down: u64,
    /// Received in vain.
    pub wasted: u64,
}

impl Transferred {
    /// What an exchange has transferred.
    pub fn of(swarm: &Swarm) -> Self {
        Self {
            up: swarm.uploaded_bytes(),
            down: swarm.downloaded_bytes(),
            wasted: swarm.wasted_bytes(),
        }
    }

    /// Adds what was transferred elsewhere.
    pub fn add(&mut self, other: &Self) {
        self.up += other.up;
        self.down += other.down;
        self.wasted += other.wasted;
    }
}

/// Progress of checking what was on disk.
#[derive(Debug)]
pub struct Check {
    /// Pieces whose files are there.
    pub candidates: Bitfield,
    /// Blocks that are taken up when it is over.
    pub filled: Vec<(PieceIndex, Bitfield)>,
    /// First piece that was not looked at.
    pub next: u32,
    /// Pieces that storage is hashing.
    pub running: u32,
    /// Bytes that were looked at.
    pub bytes: u64,
}

impl Check {
    /// The next piece to be hashed.
    pub fn take_next(&mut self) -> Option<PieceIndex> {
        while self.next < self.candidates.len() {
            let piece = self.next;
            self.next += 1;
            if self.candidates.has(piece) {
                return Some(PieceIndex(piece));
            }
        }
        None
    }
}

impl Torrent {
    /// What was transferred for it in all runs.
    pub fn totals(&self) -> Transferred {
        let mut all = self.former;
        all.add(&self.before);
        all.add(&Transferred::of(&self.swarm));
        all
    }

    /// Whether it has all that is wanted of it, and that is not everything (BEP 21).
    pub fn is_partial_seed(&self) -> bool {
        self.state == State::Seeding && !self.swarm.is_complete()
    }

    /// Its figures.
    pub fn snapshot(&mut self, now: Instant) -> Snapshot {
        let meta = Arc::clone(self.swarm.meta());
        let seeds = self
            .swarm
            .peers()
            .filter(|(_, peer)| peer.is_seed())
            .count();
        let mut all = self.before;
        all.add(&Transferred::of(&self.swarm));
        Snapshot {
            name: meta.name.clone(),
            info_hash: meta.info_hash,
            state: self.state,
            reason: self.reason.clone(),
            retry_in: self.retry_in(now),
            length: meta.geometry().length(),
            wanted_bytes: self.swarm.wanted_bytes(),
            left_bytes: self.swarm.left_bytes(),
            done_bytes: self.swarm.done_bytes(),
            checked_bytes: self.check.as_ref().map_or(0, |check| check.bytes),
            up_bytes: all.up,
            down_bytes: all.down,
            up_bytes_s: self.swarm.up().bytes_per_sec(now),
            down_bytes_s: self.swarm.down().bytes_per_sec(now),
            wasted_bytes: all.wasted,
            peers: self.swarm.peer_count() as u32,
            seeds: seeds as u32,
        }
    }
}
