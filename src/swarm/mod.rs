//! One torrent's exchange: applies one peer's event and says what has to be done.
//!
//! The swarm owns the set of verified pieces, the [`Picker`](picker::Picker) (what to ask for), the
//! [`Choker`](choker::Choker) (whom to serve), the [`Blame`](blame::Blame) (who sent what), all
//! three while there is something to do (`live.rs`), and the state of every [`Peer`]. It knows no
//! stream: what shall be sent, stored or hashed leaves as [`Effect`]s, in order, which the caller
//! drains after each input.
//!
//! ```text
//!  message ──▶ peer state ──┬──▶ upload.rs    requests in, blocks out, choking; spare.rs
//!  payload ──▶ block ───────┼──▶ download.rs  requests out, receptions, endgame; timeouts.rs
//!             ──▶ queue ────┼──▶ ask.rs       what is asked of whom; near.rs, relieve.rs
//!             ──▶ order ────┼──▶ suggest.rs   what a seed gives first; step_back.rs
//!  verdict ──▶ pieces ──────┴──▶ pieces.rs    verified pieces, blame, fetching alone; doubt.rs
//! ```

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use slab::Slab;

use crate::base::bits::Bitfield;
use crate::base::id::{ConnId, PieceIndex, TorrentId};
use crate::base::rate::{self, Rate};
use crate::base::rng::Rng;
use crate::base::time::Instant;
use crate::meta::geometry::Geometry;
use crate::meta::metainfo::Metainfo;
use crate::wire::message::{BlockRef, Message, Outgoing};

mod ask;
mod audit;
pub mod blame;
pub mod choker;
mod choose;
mod doubt;
mod download;
pub mod effect;
mod live;
mod near;
mod news;
pub mod peer;
pub mod picker;
mod pieces;
mod relieve;
mod spare;
mod step_back;
mod suggest;
mod timeouts;
mod upload;

#[cfg(test)]
mod tests;

pub use effect::{Departure, Effect, Fault};
pub use peer::{Caps, Origin, Peer, PeerKey};
pub use timeouts::DownLimit;

use live::Live;

/// The exchange of one torrent.
#[derive(Debug)]
pub struct Swarm {
    torrent: TorrentId,
    /// Pieces that the user wants; `None`: all.
    wanted: Option<Bitfield>,
    /// Pieces that the user wants and that are not verified.
    lacking: u32,
    live: Live,
    peers: Slab<Peer>,
    /// Those that are not on our own link.
    far_count: usize,
    effects: VecDeque<Effect>,
    /// Whether pieces may be asked for.
    exchange: Exchange,
    /// Blocks became free: every peer's queue has to be looked at.
    refill_all: bool,
    /// What limits of rate let come in from the peers to whom they apply.
    down_limit: Option<DownLimit>,
    down: Rate,
    up: Rate,
    wasted_bytes: u64,
}

/// Whether the exchange asks for pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exchange {
    /// Serve what is verified, ask for nothing: data on disk is still being checked.
    ServeOnly,
    /// Serve and fetch.
    Full,
}

/// The connection that writes a block.
#[derive(Clone, Copy, Debug)]
struct Writer {
    peer: PeerKey,
    wrote: Instant,
}

impl Swarm {
    /// The exchange of `torrent`, with no piece and no peer.
    pub fn new(torrent: TorrentId, meta: Arc<Metainfo>, rng: Rng, now: Instant) -> Self {
        let piece_count = meta.geometry().piece_count();
        Self {
            torrent,
            wanted: None,
            lacking: piece_count,
            live: Live::new(meta, rng, now),
            peers: Slab::new(),
            far_count: 0,
            effects: VecDeque::new(),
            exchange: Exchange::ServeOnly,
            refill_all: false,
            down_limit: None,
            down: Rate::new(now),
            up: Rate::new(now),
            wasted_bytes: 0,
        }
    }

    /// What the torrent is.
    pub fn meta(&self) -> &Arc<Metainfo> {
        self.live.meta()
    }

    /// The verified pieces.
    pub fn pieces(&self) -> &Bitfield {
        &self.live.ours
    }

    /// Whether every piece is verified.
    pub fn is_complete(&self) -> bool {
        self.live.ours.is_full()
    }

    /// A connected peer.
    pub fn peer(&self, key: PeerKey) -> &Peer {
        &self.peers[key.0 as usize]
    }

    /// Payload a second from a peer and to it, bytes.
    pub fn peer_rates(&mut self, key: PeerKey, now: Instant) -> (u64, u64) {
        let peer = self.peer_mut(key);
        (peer.down.bytes_per_sec(now), peer.up.bytes_per_sec(now))
    }

    /// All connected peers.
    pub fn peers(&self) -> impl Iterator<Item = (PeerKey, &Peer)> {
        self.peers
            .iter()
            .map(|(key, peer)| (PeerKey(key as u32), peer))
    }

    /// Number of connected peers.
    pub fn peer_count(&self) -> usize {
        self.peers.len()
    }

    /// Payload received, all peers together.
    pub fn down(&mut self) -> &mut Rate {
        &mut self.down
    }

    /// Payload sent, all peers together.
    pub fn up(&mut self) -> &mut Rate {
        &mut self.up
    }

    /// Whether nothing moves, though peers had time for it: nothing comes, as long as we want
    /// something.
    pub fn is_quiet(&self, now: Instant) -> bool {
        let is_old = |peer: &Peer| peer.joined + rate::WINDOW <= now;
        let rate = match self.has_all_wanted() {
            true => &self.up,
            false => &self.down,
        };
        !rate.is_moving(now) && self.peers.iter().any(|(_, peer)| is_old(peer))
    }

    /// Payload received since the start, bytes.
    pub fn downloaded_bytes(&self) -> u64 {
        self.down.total()
    }

    /// Payload sent since the start, bytes.
    pub fn uploaded_bytes(&self) -> u64 {
        self.up.total()
    }

    /// Payload received in vain.
    pub fn wasted_bytes(&self) -> u64 {
        self.wasted_bytes
    }

    /// The next thing to be done. The caller drains these after each input.
    pub fn poll_effect(&mut self, now: Instant) -> Option<Effect> {
        if self.effects.is_empty() && self.refill_all {
            self.refill_all = false;
            self.fill_all(now);
        }
        self.effects.pop_front()
    }

    /// A peer finished its handshake; what we have is sent to it first.
    pub fn joined(&mut self, conn: ConnId, origin: Origin, caps: Caps, now: Instant) -> PeerKey {
        let piece_count = self.geometry().piece_count();
        let mut peer = Peer::new(conn, origin, caps, piece_count, now);
        peer.news_told = self.live.news.len();
        peer.lacks = self.live.ours.count_ones();
        peer.counted = self.live.picker.peer_joined(&peer.have);
        let opening = match self.live.ours.count_ones() {
            0 if caps.fast => Some(Outgoing::HaveNone),
            0 => None,
            n if caps.fast && n == piece_count => Some(Outgoing::HaveAll),
            _ => Some(Outgoing::Bitfield(Bytes::copy_from_slice(
                self.live.ours.as_bytes(),
            ))),
        };
        self.effects
            .extend(opening.map(|message| Effect::Send(conn, message)));
        self.far_count += 1; // until it is said that it is near
        PeerKey(self.peers.insert(peer) as u32)
    }

    /// There is a limit of rate on what comes in, or none.
    pub fn set_down_limit(&mut self, limit: Option<DownLimit>) {
        let blocks = |limit: Option<DownLimit>| limit.map(|limit| limit.blocks);
        self.refill_all |= blocks(self.down_limit) != blocks(limit);
        self.down_limit = limit;
    }

    /// Whether limits of rate apply to this peer; they do until this is said.
    pub fn set_limited(&mut self, key: PeerKey, is_limited: bool) {
        let before = std::mem::replace(&mut self.peer_mut(key).is_limited, is_limited);
        self.refill_all |= before != is_limited;
    }

    /// Whether there is a peer that may be asked now, and to whom limits of rate apply.
    pub fn is_asking(&self) -> bool {
        let mut peers = self.peers.iter();
        peers.any(|(_, peer)| peer.is_limited && peer.may_be_asked())
    }

    /// The stream of a peer is gone.
    pub fn left(&mut self, key: PeerKey, now: Instant) {
        self.release_requests(key, now);
        self.drop_incoming(key, now);
        self.abandon_alone(key, now);
        self.left_us(key, now);
        self.take_back_suggestions(key);
        let peer = self.peers.remove(key.0 as usize);
        self.far_count -= usize::from(!peer.is_near);
        self.live.picker.peer_left(&peer.have, peer.counted);
        if self.peers.is_empty() {
            self.live.news.forget();
            self.live.picker.last_peer_left();
        }
        if peer.is_near {
            self.neighbours_changed();
        }
        self.look_back(now);
        if !peer.choked {
            self.rechoke(now);
        }
        self.rest_if_idle();
    }

    /// Peers that are served at a time at most, at present.
    pub fn slot_count(&self) -> usize {
        self.live.choker.slot_count()
    }

    /// Takes in one message of a peer.
    ///
    /// # Errors
    /// What the protocol forbids; the connection has to be closed.
    pub fn message(
        &mut self,
        key: PeerKey,
        message: Message<'_>,
        now: Instant,
    ) -> Result<(), Fault> {
        let opens = matches!(
            message,
            Message::Bitfield(_) | Message::HaveAll | Message::HaveNone
        );
        let result = match message {
            Message::KeepAlive | Message::Port(_) | Message::Extended { .. } => return Ok(()),
            Message::Choke => self.choked_us(key, now),
            Message::Unchoke => self.unchoked_us(key, now),
            Message::Interested => self.interest(key, true, now),
            Message::NotInterested => self.interest(key, false, now),
            Message::Have(piece) => self.has(key, piece, now),
            Message::Bitfield(bytes) => self.has_bits(key, bytes, now),
            Message::HaveAll => self.has_all(key, now),
            Message::HaveNone => self.has_none(key),
            Message::Request(block) => self.requested(key, block, now),
            Message::Cancel(block) => self.cancelled(key, block),
            Message::Suggest(piece) => self.suggested(key, piece),
            Message::Reject(block) => self.rejected(key, block, now),
            Message::AllowedFast(piece) => self.allowed_fast(key, piece, now),
            Message::Unknown { .. } => self.unknown(key, now),
        };
        if !opens {
            self.peer_mut(key).opening = false;
        }
        result
    }

    /// The peer said in its extension handshake how many requests it queues (BEP 10 `reqq`).
    pub fn queue_limit_told(&mut self, key: PeerKey, requests: u32) {
        self.peer_mut(key).requests_max = requests.max(1);
    }

    /// The peer said whether it will download nothing (BEP 21).
    pub fn upload_only_told(&mut self, key: PeerKey, upload_only: bool) {
        let peer = self.peer_mut(key);
        peer.upload_only = upload_only;
        if upload_only {
            peer.served.all_arrived(); // or of no use to it
        }
        self.roles_changed(key);
    }

    /// Time passes; to be called about once a second while there are peers.
    pub fn tick(&mut self, now: Instant) {
        if self.live.is_at_rest() {
            return;
        }
        let usual = (self.limited_turn(), self.usual_gap(now));
        for key in self.keys() {
            self.expire_requests(key, usual, now);
        }
        self.near_tick();
        self.look_back(now);
        if self.live.choker.next_round() <= now {
            self.rechoke(now);
        }
    }

    fn geometry(&self) -> &Geometry {
        self.meta().geometry()
    }

    fn peer_mut(&mut self, key: PeerKey) -> &mut Peer {
        &mut self.peers[key.0 as usize]
    }

    fn keys(&self) -> Vec<PeerKey> {
        self.peers
            .iter()
            .map(|(key, _)| PeerKey(key as u32))
            .collect()
    }

    fn send(&mut self, key: PeerKey, message: Outgoing) {
        let conn = self.peer(key).conn;
        self.effects.push_back(Effect::Send(conn, message));
    }

    fn flush(&mut self, key: PeerKey) {
        let conn = self.peer(key).conn;
        self.effects.push_back(Effect::Flush(conn));
    }

    /// A peer, or we, may have everything now, or want no more: says so once, and ends what is of
    /// no use to either side.
    fn roles_changed(&mut self, key: PeerKey) {
        let peer = self.peer_mut(key);
        if peer.is_seed() && !std::mem::replace(&mut peer.seed_told, true) {
            let conn = peer.conn;
            self.effects.push_back(Effect::PeerComplete(conn));
        }
        let peer = self.peer(key);
        if self.exchange == Exchange::Full
            && self.has_all_wanted()
            && (peer.is_seed() || peer.upload_only)
        {
            self.effects
                .push_back(Effect::Close(peer.conn, Departure::Redundant));
        }
    }

    fn check_index(&self, piece: PieceIndex) -> Result<(), Fault> {
        let count = self.geometry().piece_count();
        if piece.0 < count {
            Ok(())
        } else {
            Err(Fault::PieceOutOfRange {
                index: piece.0,
                count,
            })
        }
    }

    fn check_block(&self, block: BlockRef) -> Result<(), Fault> {
        self.check_index(block.piece)?;
        if self
            .geometry()
            .contains(block.piece, block.begin, block.len)
        {
            Ok(())
        } else {
            Err(Fault::BlockOutOfRange {
                piece: block.piece.0,
                begin: block.begin,
                len: block.len,
            })
        }
    }

    fn unknown(&mut self, key: PeerKey, now: Instant) -> Result<(), Fault> {
        if self.peer_mut(key).nuisance.unknown(now) {
            Err(Fault::UnknownFlood)
        } else {
            Ok(())
        }
    }

    fn flip(&mut self, key: PeerKey, now: Instant) -> Result<(), Fault> {
        if self.peer_mut(key).nuisance.flip(now) {
            Err(Fault::Flapping)
        } else {
            Ok(())
        }
    }

    fn check_fast(&self, key: PeerKey) -> Result<(), Fault> {
        if self.peer(key).caps.fast {
            Ok(())
        } else {
            Err(Fault::FastNotAgreed)
        }
    }
}
