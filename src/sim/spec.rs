//! What a world and its hosts are made of.

use std::net::SocketAddr;
use std::sync::Arc;

use super::HostId;
use super::host::address;
use super::net::{Link, RackId};
use crate::base::rng::Rng;
use crate::config::{Config, StorageKind};
use crate::meta::metainfo::Metainfo;
use crate::wire::bencode::Encoder;

/// What a host has of the torrent when it joins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Have {
    /// Every byte.
    All,
    /// No file.
    Nothing,
    /// It does not take part: it runs an engine without a torrent, as a pure tracker does.
    NoTorrent,
}

/// How payload is simulated.
#[derive(Clone, Debug)]
pub enum Payload {
    /// Real bytes, real hashes: these are the torrent's.
    Real(Arc<[u8]>),
    /// No bytes: each block is known to be right or wrong. For worlds of more than some 200
    /// hosts.
    Tagged,
}

/// How strictly a world is judged while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judged {
    /// Every byte on every stream, every store, every verdict; engines are audited now and then.
    Strictly,
    /// Only what costs nothing: bans, and the conservation of bytes.
    Loosely,
}

/// A host that runs an engine.
#[derive(Clone, Debug)]
pub struct PeerSpec {
    /// What it has of the torrent.
    pub have: Have,
    /// Peers that it is told of; without a torrent, evpeers that it met in a former run.
    pub peers: Vec<SocketAddr>,
    /// Trackers beside those of the torrent.
    pub trackers: Vec<String>,
    /// What its user has set.
    pub config: Config,
    /// Its line; the world's if not given.
    pub link: Option<Link>,
    /// The rack in which it stands.
    pub rack: Option<RackId>,
    /// The LAN that its multicast reaches; its rack's own if not given, and one for all hosts that
    /// stand in no rack.
    pub lan: Option<u32>,
    /// Leading bits of its address that its link shares: 8 makes every host one of its link, 32
    /// none.
    pub prefix_len: u8,
    /// Whether streams and datagrams from elsewhere reach it: those behind a router without a way
    /// in only dial, and hear from those alone to whom they have sent.
    pub is_reachable: bool,
}

impl PeerSpec {
    /// A host on the world's line that is told of `peers`, and does not look around on its LAN:
    /// most scenarios are about who knows whom.
    pub fn new(have: Have, peers: &[HostId]) -> Self {
        Self {
            have,
            peers: peers.iter().map(|&peer| address(peer)).collect(),
            trackers: Vec::new(),
            config: Config {
                storage: StorageKind::Pwrite,
                lsd: false,
                broadcast: false,
                ..Config::default()
            },
            link: None,
            rack: None,
            lan: None,
            prefix_len: 8,
            is_reachable: true,
        }
    }

    /// A host that serves any swarm as a tracker, and is in none.
    pub fn tracker() -> Self {
        let mut spec = Self::new(Have::NoTorrent, &[]);
        spec.config.open_tracker = true;
        spec
    }
}

/// A torrent of one file whose bytes nobody knows, for worlds without payload.
///
/// # Panics
/// If there is no such torrent: no bytes, or too many pieces.
pub fn tagged_torrent(length: u64, piece_len: u32, rng: &mut Rng) -> Arc<Metainfo> {
    let pieces = length.div_ceil(u64::from(piece_len));
    let hashes: Vec<u8> = (0..pieces * 20).map(|_| rng.next_u64() as u8).collect();
    let mut encoder = Encoder::default();
    encoder.dict_begin();
    encoder.key(b"info");
    encoder.dict_begin();
    encoder.key(b"length");
    encoder.int(length as i64);
    encoder.key(b"name");
    encoder.bytes(b"content");
    encoder.key(b"piece length");
    encoder.int(i64::from(piece_len));
    encoder.key(b"pieces");
    encoder.bytes(&hashes);
    encoder.end();
    encoder.end();
    let bytes = encoder.finish();
    Arc::new(Metainfo::from_bytes(&bytes).expect("the torrent is sound"))
}
