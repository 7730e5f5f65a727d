//! A BitTorrent client that is not ours: polite, odd or malicious.
//!
//! [`Manners`] are what shipped clients differ in, [`Vice`]s are what attackers do. Either way it
//! is one program that dials, shakes hands, downloads, hashes and serves through [`Hands`], and
//! knows of the engines only what they say.
//!
//! | file | what is done there |
//! |---|---|
//! | `mod` | the dispatch of messages, the end of a stream |
//! | `meet` | dialling, handshakes, saying what there is |
//! | `manners` | what shipped clients differ in |
//! | `reader` | bytes to messages |
//! | `peer` | what is known of the other end of a stream |
//! | `fetch` | what to ask for, hashing |
//! | `serve` | whom to serve, blocks out |
//! | `vice` | everything that breaks the rules |
//! | `aim` | what makes others fire at a victim |
//! | `lies` | what is told to evpeers of evpeers, and is not so |
//! | `script` | a peer that follows a script |

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::actor::{Actor, Hands, Input};
use super::spec::Payload;
use crate::base::bits::Bitfield;
use crate::base::id::{ConnId, PeerId};
use crate::base::time::Instant;
use crate::meta::metainfo::Metainfo;
use crate::wire::extended::EV_PEERS_ID;
use crate::wire::message::Outgoing;

mod aim;
mod fetch;
mod lies;
mod manners;
mod meet;
mod peer;
pub mod reader;
pub mod script;
mod serve;
mod vice;

pub use lies::{LIES, Liar, Lie, VICTIMS};
pub use manners::{Holds, Manners, Opening};
pub use vice::{Flood, Vice};

use fetch::Fetch;
use peer::Peer;
use reader::Heard;

/// A client on a host.
#[derive(Debug)]
pub struct Foreign {
    meta: Arc<Metainfo>,
    payload: Payload,
    manners: Manners,
    vices: Vec<Vice>,
    /// What of its vices are lies to evpeers.
    liars: Vec<Liar>,
    peer_id: PeerId,
    peers: BTreeMap<ConnId, Peer>,
    dials: BTreeMap<SocketAddr, Dial>,
    refused: Vec<IpAddr>,
    fetch: Fetch,
    next_round: Instant,
    next_tick: Instant,
    next_act: Instant,
    /// Millionths of bytes that may leave, of a client with a limit.
    credit: u64,
    credited: Instant,
    counts: Counts,
    is_gone: bool,
}

/// What a client has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Streams that came up.
    pub streams: u32,
    /// Blocks that it sent, wrong ones among them.
    pub blocks_out: u32,
    /// Blocks that it received.
    pub blocks_in: u32,
    /// Pieces that failed their hash.
    pub failed_pieces: u32,
    /// Rejects that it heard.
    pub rejects_in: u32,
}

/// The state of an address to dial.
#[derive(Clone, Copy, Debug)]
struct Dial {
    conn: Option<ConnId>,
    at: Instant,
    failures: u32,
}

impl Foreign {
    /// A client of the torrent `meta`, whose content is `payload`.
    pub fn new(meta: Arc<Metainfo>, payload: Payload, manners: Manners) -> Self {
        Self::vicious(meta, payload, manners, Vec::new())
    }

    /// An attacker; what its vices do not say it does as its manners are.
    pub fn vicious(
        meta: Arc<Metainfo>,
        payload: Payload,
        manners: Manners,
        vices: Vec<Vice>,
    ) -> Self {
        let count = meta.geometry().piece_count();
        let have = match &manners.holds {
            Holds::Nothing => Bitfield::new(count),
            Holds::All => Bitfield::full(count),
            Holds::Pieces(pieces) => {
                let mut have = Bitfield::new(count);
                pieces.iter().for_each(|&piece| {
                    have.set(piece);
                });
                have
            }
        };
        let dial = Dial {
            conn: None,
            at: Instant::ZERO,
            failures: 0,
        };
        let lie_of = |vice: &Vice| match *vice {
            Vice::Lies(lie) if !manners.dials.is_empty() => Some(lie),
            _ => None,
        };
        let lies = vices.iter().filter_map(lie_of);
        Self {
            liars: lies
                .map(|lie| Liar::new(lie, manners.dials.clone()))
                .collect(),
            dials: manners.dials.iter().map(|&addr| (addr, dial)).collect(),
            fetch: Fetch::new(have),
            meta,
            payload,
            manners,
            vices,
            peer_id: PeerId([0; 20]),
            peers: BTreeMap::new(),
            refused: Vec::new(),
            next_round: Instant::ZERO,
            next_tick: Instant::ZERO,
            next_act: Instant::NEVER,
            credit: 0,
            credited: Instant::ZERO,
            counts: Counts::default(),
            is_gone: false,
        }
    }

    /// The pieces that it has, by its own hashing.
    pub fn pieces(&self) -> &Bitfield {
        &self.fetch.have
    }

    /// What it has done so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Streams whose handshakes are done.
    pub fn peer_count(&self) -> usize {
        self.peers.values().filter(|peer| peer.is_met).count()
    }

    fn received(&mut self, conn: ConnId, bytes: &[u8], hands: &mut Hands<'_>) {
        if self.hears_nothing(conn, bytes, hands) {
            return;
        }
        let Some(peer) = self.peers.get_mut(&conn) else {
            return;
        };
        peer.last_in = hands.now;
        peer.reader.received(bytes);
        while let Some(peer) = self.peers.get_mut(&conn)
            && let Some(heard) = peer.reader.poll()
        {
            self.hear(conn, heard, hands);
        }
    }

    fn hear(&mut self, conn: ConnId, heard: Heard, hands: &mut Hands<'_>) {
        let now = hands.now;
        let Some(peer) = self.peers.get_mut(&conn) else {
            return;
        };
        if !peer.is_met {
            return self.met(conn, &heard, hands);
        }
        match heard {
            Heard::Choke => {
                peer.chokes_us = true;
                if !peer.fast {
                    self.give_up(conn);
                }
            }
            Heard::Unchoke => {
                peer.chokes_us = false;
                peer.last_block = now;
                self.fill(conn, hands);
            }
            Heard::Interested => {
                peer.wants_us = true;
                self.interest(hands);
            }
            Heard::NotInterested => peer.wants_us = false,
            Heard::Have(piece) if piece.0 < peer.theirs.len() => {
                peer.theirs.set(piece.0);
                self.review(conn, hands);
            }
            Heard::Bitfield(bytes) => match Bitfield::from_bytes(&bytes, peer.theirs.len()) {
                Some(bits) => {
                    peer.theirs = bits;
                    self.review(conn, hands);
                }
                None => self.drop_conn(conn, hands),
            },
            Heard::HaveAll if peer.fast => {
                peer.theirs = Bitfield::full(peer.theirs.len());
                self.review(conn, hands);
            }
            Heard::Request(block) => self.requested(conn, block, hands),
            Heard::Block(block, payload) => self.block_came(conn, block, payload, hands),
            Heard::Cancel(block) => self.cancelled(conn, block, hands),
            Heard::Reject(block) if peer.fast => {
                self.counts.rejects_in += 1;
                self.rejected(conn, block, hands);
            }
            Heard::AllowedFast(piece) if peer.fast => {
                peer.allowed.insert(piece);
                self.fill(conn, hands);
            }
            Heard::HaveNone if peer.fast => {}
            Heard::Extended(0, body) => {
                peer.pex = aim::pex_id(&body).unwrap_or(peer.pex);
                self.offer_lies(conn, &body, hands);
            }
            Heard::Extended(EV_PEERS_ID, body) => self.hear_of_evpeers(conn, &body, hands),
            Heard::KeepAlive | Heard::Extended(..) | Heard::Other(_) => {}
            Heard::Handshake { .. }
            | Heard::Broken
            | Heard::Have(_)
            | Heard::HaveAll
            | Heard::HaveNone
            | Heard::Reject(_)
            | Heard::AllowedFast(_) => self.drop_conn(conn, hands),
        }
    }

    fn say(&mut self, conn: ConnId, message: &Outgoing, hands: &mut Hands<'_>) {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        self.say_bytes(conn, &bytes, hands);
    }

    fn say_bytes(&mut self, conn: ConnId, bytes: &[u8], hands: &mut Hands<'_>) {
        let Some(peer) = self.peers.get_mut(&conn) else {
            return;
        };
        peer.last_out = hands.now;
        if self.manners.up_bytes_s.is_some() {
            peer.paced.extend(bytes);
        } else {
            hands.send(conn, bytes);
        }
    }

    fn drop_conn(&mut self, conn: ConnId, hands: &mut Hands<'_>) {
        hands.close(conn);
        self.ended(conn, hands);
    }

    /// A stream is gone.
    fn ended(&mut self, conn: ConnId, hands: &mut Hands<'_>) {
        self.give_up(conn);
        let Some(peer) = self.peers.remove(&conn) else {
            return;
        };
        self.fetch.forget(conn);
        let now = hands.now;
        for dial in self.dials.values_mut().filter(|d| d.conn == Some(conn)) {
            dial.conn = None;
            let was_short = now - peer.since < STEADY;
            dial.failures = if was_short { dial.failures + 1 } else { 0 };
            let doubled = REDIAL_MIN * (1 << dial.failures.min(8));
            let jitter = Duration::from_millis(u64::from(hands.rng.below(1000)));
            dial.at = now + doubled.min(REDIAL_MAX) + jitter;
        }
        self.fill_all(hands);
    }

    /// Everything that only time does.
    fn tick(&mut self, hands: &mut Hands<'_>) {
        let now = hands.now;
        self.dial(hands);
        let idle = |p: &Peer| {
            let is_stuck = !p.is_met && now - p.since > HANDSHAKE_TIMEOUT;
            is_stuck || now - p.last_in > IDLE_TIMEOUT
        };
        let conns: Vec<ConnId> = self.peers.keys().copied().collect();
        for conn in conns {
            let Some(peer) = self.peers.get(&conn) else {
                continue;
            };
            if idle(peer) && !self.is_patient() {
                self.drop_conn(conn, hands);
            } else if peer.is_met && now - peer.last_out > KEEPALIVE {
                self.say(conn, &Outgoing::KeepAlive, hands);
            }
        }
        self.expire(hands);
        if self.next_round <= now {
            self.next_round = now + ROUND;
            self.rechoke(hands);
        }
    }

    /// Does what is due and asks to be woken for what is next.
    fn look_ahead(&mut self, hands: &mut Hands<'_>) {
        let now = hands.now;
        if self.next_tick <= now {
            self.next_tick = now + TICK;
            self.tick(hands);
        }
        if self.next_act <= now {
            self.next_act = now + vice::ACT;
            self.act(hands);
        }
        self.let_leave(hands);
        let backlog = self.backlog(hands);
        let next = self.next_tick.min(self.next_act);
        hands.wake_at(backlog.map_or(next, |at| next.min(at)));
    }
}

impl Actor for Foreign {
    fn handle(&mut self, input: Input<'_>, hands: &mut Hands<'_>) {
        match input {
            Input::Joined => self.joined(hands),
            Input::Accepted { conn, from } => self.accepted(conn, from, hands),
            Input::Connected { conn } => self.connected(conn, hands),
            Input::Received { conn, bytes } => self.received(conn, bytes, hands),
            Input::Ended { conn } => self.ended(conn, hands),
            Input::Datagram(_) | Input::Multicast(_) | Input::Timer => {}
        }
        self.look_ahead(hands);
    }

    fn is_honest(&self) -> bool {
        self.vices.is_empty()
    }

    fn is_complete(&self) -> bool {
        !self.vices.is_empty() || !self.manners.wants || self.fetch.have.is_full()
    }
}

/// How often it looks after streams.
const TICK: Duration = Duration::from_secs(1);
/// Time between two choices of whom to serve (BEP 3).
const ROUND: Duration = Duration::from_secs(10);
/// Silence after which it closes a stream (libtorrent: 120 s).
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);
/// Time for a handshake (libtorrent: 10 s).
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Its own silence after which it says that it is there (Transmission: 100 s).
const KEEPALIVE: Duration = Duration::from_secs(100);
/// Pauses before it dials again.
const REDIAL_MIN: Duration = Duration::from_secs(2);
const REDIAL_MAX: Duration = Duration::from_secs(60);
/// A stream that lasted this long was a good one.
const STEADY: Duration = Duration::from_secs(30);
/// Pieces that a lazy bitfield leaves out.
const LAZY_MAX: usize = 3;
