//! One TCP stream's protocol state.
//!
//! ```text
//!  outgoing                     incoming
//!  Dialling ──connected──┐      Undecided ── first bytes ──▶ (close)
//!     │ (tracker)        ▼          │ 68 B of a handshake
//!     │               Greeting      │
//!     │                  │ 68 B     │
//!     ▼                  ▼          ▼
//!  Announce           Exchange ◀────┘
//! ```
//!
//! A connection owns its decoder and what waits to be written; it holds no payload.

use std::net::{IpAddr, SocketAddr};

use super::announce::Announce;
use super::http::Http;
use super::link::Link;
use super::outbox::Outbox;
use super::pex::PexLink;
use crate::base::id::{PeerId, TorrentId};
use crate::base::time::Instant;
use crate::swarm::PeerKey;
use crate::wire::decoder::Decoder;
use crate::wire::handshake::HANDSHAKE_LEN;

/// A stream and what was agreed on it.
#[derive(Debug)]
pub struct Conn {
    /// The other end.
    pub remote: SocketAddr,
    /// Our end's address, once the stream is established.
    pub local: Option<IpAddr>,
    /// What the stream is at present.
    pub stage: Stage,
    /// What waits to be written.
    pub outbox: Outbox,
    /// When the stream was accepted or dialled.
    pub opened: Instant,
    /// When bytes last came in.
    pub last_in: Instant,
    /// When bytes last went out.
    pub last_out: Instant,
    /// The address at which the candidates know it: dialled, or told by the peer.
    pub listens: Option<SocketAddr>,
    /// The shell was told that something waits, and has not asked since.
    pub flushing: bool,
}

/// What a stream is.
#[derive(Debug)]
pub enum Stage {
    /// We are connecting.
    Dialling(Purpose),
    /// It came in and has not said what it is.
    Undecided(Box<Head>),
    /// We sent our handshake for this torrent and wait for the other one.
    Greeting(TorrentId, Box<Head>),
    /// We sent our handshake for links between evpeers and wait for the other one.
    Meeting(Box<Head>),
    /// An evpeer, for links alone.
    Link(Box<Link>),
    /// A peer of a torrent.
    Exchange(Box<Exchange>),
    /// Questions to our tracker.
    Http(Box<Http>),
    /// A question to a tracker.
    Announce(Box<Announce>),
    /// What it was for is done; it is being closed.
    Closing,
}

/// Why we are connecting.
#[derive(Debug)]
pub enum Purpose {
    /// To a peer of this torrent.
    Peer(TorrentId),
    /// To an evpeer, for links alone.
    Link,
    /// To a tracker, to ask this.
    Announce(Box<Announce>),
}

/// The state of a stream whose handshakes are done.
#[derive(Debug)]
pub struct Exchange {
    /// The torrent.
    pub torrent: TorrentId,
    /// The peer's place in the swarm.
    pub key: PeerKey,
    /// The id in its handshake.
    pub peer_id: PeerId,
    /// Both sides speak the extension protocol (BEP 10).
    pub extended: bool,
    /// The id under which it wants to hear `upload_only` messages; 0 if not at all.
    pub upload_only_id: u8,
    /// What it calls itself (BEP 10 `v`), safe to print.
    pub client: Option<Box<str>>,
    /// Peer exchange, if both sides want it.
    pub pex: Option<Box<PexLink>>,
    /// Messages from its bytes.
    pub decoder: Decoder,
    /// We dialled.
    pub dialled: bool,
}

/// The beginning of a stream, until a handshake is whole.
#[derive(Debug)]
pub struct Head {
    bytes: [u8; HANDSHAKE_LEN],
    len: usize,
}

impl Default for Head {
    fn default() -> Self {
        Self {
            bytes: [0; HANDSHAKE_LEN],
            len: 0,
        }
    }
}

impl Head {
    /// Takes what is still missing from the front of `input`; returns how much.
    pub fn fill(&mut self, input: &[u8]) -> usize {
        let n = input.len().min(HANDSHAKE_LEN - self.len);
        self.bytes[self.len..self.len + n].copy_from_slice(&input[..n]);
        self.len += n;
        n
    }

    /// What has come so far.
    pub fn so_far(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// The handshake, once it is whole.
    pub fn whole(&self) -> Option<&[u8; HANDSHAKE_LEN]> {
        (self.len == HANDSHAKE_LEN).then_some(&self.bytes)
    }
}

impl Conn {
    /// Whether the stream ends when the next `len` bytes have left.
    pub fn ends_after(&self, len: usize) -> bool {
        let is_ending = matches!(&self.stage, Stage::Http(http) if http.is_ending());
        is_ending && len == self.outbox.len()
    }

    /// A stream that begins at `now`.
    pub fn new(remote: SocketAddr, stage: Stage, now: Instant) -> Self {
        Self {
            remote,
            local: None,
            stage,
            outbox: Outbox::default(),
            opened: now,
            last_in: now,
            last_out: now,
            listens: None,
            flushing: false,
        }
    }

    /// The torrent and the peer, of a stream whose handshakes are done.
    pub fn exchange(&self) -> Option<&Exchange> {
        match &self.stage {
            Stage::Exchange(exchange) => Some(exchange),
            _ => None,
        }
    }

    /// The same, to be changed.
    pub fn exchange_mut(&mut self) -> Option<&mut Exchange> {
        match &mut self.stage {
            Stage::Exchange(exchange) => Some(exchange),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_small() {
        assert!(size_of::<Conn>() <= 256, "{} B", size_of::<Conn>());
    }

    #[test]
    fn head_takes_a_handshake_and_not_a_byte_more() {
        let mut head = Head::default();
        assert_eq!(head.fill(&[1; 60]), 60);
        assert!(head.whole().is_none());
        assert_eq!(head.fill(&[2; 60]), 8);
        assert!(head.whole().is_some());
        assert_eq!(head.fill(&[3; 60]), 0);
        assert_eq!(head.so_far().len(), 68);
    }
}
