//! One host of the world, and how its engine and its storage hear of each other.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use super::HostId;
use super::actor::{Held, Stage};
use super::net::{Side, StreamId};
use super::spec::PeerSpec;
use super::store::Store;
use crate::base::address::{Interface, Interfaces};
use crate::base::id::{ConnId, TorrentId};
use crate::base::time::Instant;
use crate::engine::{Engine, OnDisk, Report};
use crate::storage;

/// A host, switched on or off.
pub(super) struct Host {
    pub addr: SocketAddr,
    pub node: Node,
    /// How often it was started.
    pub life: u32,
    /// Which stream a connection is, by the connection's index.
    pub conns: Vec<Option<Held>>,
    /// Connections that want the line, in the order of their turns.
    pub ring: VecDeque<ConnId>,
    /// An event tells when the line is free.
    pub awaits_line: bool,
    /// When its earliest timer fires.
    pub timer: Instant,
    /// How much further its clock is than the world's.
    pub skew: Duration,
    /// It stands still until then.
    pub still_until: Instant,
    /// What came for connections that their engine does not read at present.
    pub unread: BTreeMap<ConnId, Unread>,
    pub reports: Vec<Report>,
    /// When it said that it has everything.
    pub completed_at: Option<Instant>,
}

/// What waits at the end of a stream until it is read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unread {
    pub stream: StreamId,
    pub side: Side,
    /// Chunks at the front of the stream.
    pub chunks: u32,
    /// Behind them is the end of the stream.
    pub has_ended: bool,
}

/// What runs on a host.
pub(super) enum Node {
    /// An engine.
    Peer(Box<PeerNode>),
    /// Another program.
    Actor(Box<Stage>),
}

/// An engine and what is below it.
pub(super) struct PeerNode {
    pub spec: PeerSpec,
    /// `None` while the host is down.
    pub engine: Option<Engine>,
    pub store: Store,
    pub torrent: TorrentId,
    /// It was told to end.
    pub is_leaving: bool,
    /// Streams that wait for data from storage.
    pub waiting: Vec<ConnId>,
    /// Where it has sent datagrams: from there they come back through its router.
    pub posted_to: BTreeSet<SocketAddr>,
}

impl Host {
    /// A host on which nothing has happened.
    pub fn new(addr: SocketAddr, node: Node) -> Self {
        Self {
            addr,
            node,
            life: 0,
            conns: Vec::new(),
            ring: VecDeque::new(),
            awaits_line: false,
            timer: Instant::NEVER,
            skew: Duration::ZERO,
            still_until: Instant::ZERO,
            unread: BTreeMap::new(),
            reports: Vec::new(),
            completed_at: None,
        }
    }

    /// What its own clock shows.
    pub fn clock(&self, now: Instant) -> Instant {
        now + self.skew
    }

    /// The engine, if the host runs one.
    pub fn engine(&self) -> Option<&Engine> {
        match &self.node {
            Node::Peer(peer) => peer.engine.as_ref(),
            Node::Actor(_) => None,
        }
    }

    /// The stream that `conn` is.
    pub fn held(&mut self, conn: ConnId) -> Option<&mut Held> {
        let held = self.conns.get_mut(conn.index as usize)?.as_mut()?;
        (held.generation == conn.generation).then_some(held)
    }

    /// Remembers which stream `conn` is.
    pub fn hold(&mut self, conn: ConnId, stream: StreamId) {
        let index = conn.index as usize;
        if self.conns.len() <= index {
            self.conns.resize(index + 1, None);
        }
        self.conns[index] = Some(Held {
            generation: conn.generation,
            stream,
            queued: false,
        });
    }

    /// Forgets `conn`; the stream that it was.
    pub fn let_go(&mut self, conn: ConnId) -> Option<StreamId> {
        let stream = self.held(conn)?.stream;
        self.conns[conn.index as usize] = None;
        self.unread.remove(&conn);
        Some(stream)
    }

    /// Forgets all streams that it holds.
    pub fn let_all_go(&mut self) -> Vec<(ConnId, StreamId)> {
        let streams = self.streams();
        self.conns.clear();
        self.unread.clear();
        streams
    }

    /// All streams that it holds.
    pub fn streams(&self) -> Vec<(ConnId, StreamId)> {
        let stream = |(index, held): (usize, &Option<Held>)| {
            let held = held.as_ref()?;
            let conn = ConnId {
                index: index as u32,
                generation: held.generation,
            };
            Some((conn, held.stream))
        };
        self.conns.iter().enumerate().filter_map(stream).collect()
    }

    /// Gives `conn` a turn on the line, unless it waits for one already.
    pub fn queue(&mut self, conn: ConnId) {
        if let Some(held) = self.held(conn)
            && !std::mem::replace(&mut held.queued, true)
        {
            self.ring.push_back(conn);
        }
    }
}

/// Hands what storage says to the engine.
pub(super) fn tell(engine: &mut Engine, event: storage::Event, now: Instant) {
    use storage::Event;
    match event {
        Event::Scanned {
            torrent,
            candidates,
            vouched,
            filled,
        } => {
            let found = OnDisk {
                candidates,
                vouched,
                filled,
            };
            engine.scanned(torrent, found, now);
        }
        Event::Lost { torrent, piece } => engine.piece_lost(torrent, piece, now),
        Event::Lapsed { torrent, error } => {
            engine.storage_lapsed(torrent, error.trouble(), now);
        }
        Event::Checked {
            torrent,
            piece,
            verdict,
        } => engine.piece_checked(torrent, piece, verdict, now),
        Event::Probed { torrent, result } => {
            let result = result.map_err(|error| error.trouble());
            engine.storage_probed(torrent, result, now);
        }
        Event::Text { info_hash, result } => {
            let result = result.map_err(|error| error.to_string());
            engine.text_read(info_hash, result, now);
        }
        Event::Readable => {}
        Event::Settled { torrent, ticket } => engine.settled(torrent, ticket, now),
        Event::Durable { torrent, ticket } => engine.durable(torrent, ticket, now),
        Event::Failed { torrent, error } => engine.storage_failed(torrent, error.trouble(), now),
    }
}

/// Where a host listens.
pub(super) fn address(host: HostId) -> SocketAddr {
    let [_, b, c, d] = (host.0 + 1).to_be_bytes();
    ([10, b, c, d], PORT).into()
}

/// What a host's system says of its interfaces.
pub(super) fn interfaces(host: HostId, prefix_len: u8) -> Interfaces {
    Interfaces::new(vec![Interface {
        index: INTERFACE,
        ip: address(host).ip(),
        prefix_len,
    }])
}

/// The host with this address, whatever the port.
pub(super) fn host_of_ip(ip: std::net::IpAddr) -> Option<HostId> {
    host_at(SocketAddr::new(ip, PORT))
}

/// The host that listens there, if there are that many.
pub(super) fn host_at(addr: SocketAddr) -> Option<HostId> {
    let std::net::IpAddr::V4(ip) = addr.ip() else {
        return None;
    };
    let [a, b, c, d] = ip.octets();
    let is_ours = a == 10 && addr.port() == PORT;
    let number = u32::from_be_bytes([0, b, c, d]).checked_sub(1)?;
    is_ours.then_some(HostId(number))
}

/// The port of every host.
const PORT: u16 = 6881;
/// The system's number of every host's only interface.
pub(super) const INTERFACE: u32 = 2;
