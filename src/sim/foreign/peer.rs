//! What a foreign client knows of the other end of a stream.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;

use super::reader::Reader;
use crate::base::bits::Bitfield;
use crate::base::id::{PeerId, PieceIndex};
use crate::base::time::Instant;
use crate::wire::message::BlockRef;

/// The other end.
#[derive(Debug)]
pub(super) struct Peer {
    pub remote: SocketAddr,
    pub dialled: bool,
    /// Who we say that we are, and who it says that it is.
    pub our_id: PeerId,
    pub their_id: PeerId,
    pub reader: Reader,
    /// Both handshakes are done.
    pub is_met: bool,
    pub fast: bool,
    /// Its number for messages that tell of peers; 0 if it wants none.
    pub pex: u8,
    /// Whether there is a link on which it listens to lies.
    pub is_told_lies: bool,
    pub since: Instant,
    pub last_in: Instant,
    pub last_out: Instant,
    /// Pieces that it has.
    pub theirs: Bitfield,
    pub chokes_us: bool,
    pub wants_us: bool,
    pub choked: bool,
    pub wanted: bool,
    /// Our requests, oldest first, and when it last sent a block.
    pub open: VecDeque<BlockRef>,
    pub last_block: Instant,
    /// Nothing is asked of it until then: it let requests time out.
    pub avoided_until: Instant,
    /// Pieces that we may ask for while choked.
    pub allowed: BTreeSet<PieceIndex>,
    /// Its requests.
    pub queue: VecDeque<BlockRef>,
    /// Blocks sent since it was unchoked, and when that, or the choke, was.
    pub served: u32,
    pub turned: Instant,
    /// Bytes that it sent since the last round.
    pub gave: u64,
    /// Bytes for it that wait for their time.
    pub paced: VecDeque<u8>,
    /// Bytes of a handshake that were sent, of one that comes byte by byte.
    pub dripped: usize,
}

impl Peer {
    /// Nothing is known.
    pub fn new(
        remote: SocketAddr,
        dialled: bool,
        our_id: PeerId,
        pieces: u32,
        now: Instant,
    ) -> Self {
        Self {
            remote,
            dialled,
            our_id,
            their_id: PeerId([0; 20]),
            reader: Reader::default(),
            is_met: false,
            fast: false,
            pex: 0,
            is_told_lies: false,
            since: now,
            last_in: now,
            last_out: now,
            theirs: Bitfield::new(pieces),
            chokes_us: true,
            wants_us: false,
            choked: true,
            wanted: false,
            open: VecDeque::new(),
            last_block: now,
            avoided_until: Instant::ZERO,
            allowed: BTreeSet::new(),
            queue: VecDeque::new(),
            served: 0,
            turned: now,
            gave: 0,
            paced: VecDeque::new(),
            dripped: 0,
        }
    }

    /// Whether it may be asked for `piece` now.
    pub fn may_ask(&self, piece: u32) -> bool {
        self.theirs.has(piece) && (!self.chokes_us || self.allowed.contains(&PieceIndex(piece)))
    }
}
