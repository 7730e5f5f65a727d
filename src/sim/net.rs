//! Streams between hosts: bytes in order, each host's line sends one chunk after the other.

use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use slab::Slab;

use super::{HostId, Link};
use crate::base::id::ConnId;
use crate::base::time::Instant;

/// A stream, from dialling until both ends have let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamId(pub u64);

/// An end of a stream: who receives there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The end that dialled.
    Dialler,
    /// The end that accepted.
    Acceptor,
}

impl Side {
    /// The opposite end.
    pub fn other(self) -> Self {
        match self {
            Self::Dialler => Self::Acceptor,
            Self::Acceptor => Self::Dialler,
        }
    }
}

/// All streams and lines.
#[derive(Debug)]
pub struct Network {
    link: Link,
    streams: Slab<Stream>,
    /// When each host's line is free, by host.
    line_free: Vec<Instant>,
    gone: BTreeSet<HostId>,
}

#[derive(Debug)]
struct Stream {
    dialler: Option<(HostId, ConnId)>,
    dialler_address: SocketAddr,
    acceptor: Option<(HostId, ConnId)>,
    /// Chunks on their way to the dialler and to the acceptor.
    to_dialler: Pipe,
    to_acceptor: Pipe,
}

#[derive(Debug, Default)]
struct Pipe {
    chunks: VecDeque<Vec<u8>>,
    in_flight: usize,
    last_arrival: Instant,
}

impl Network {
    /// No streams yet.
    pub fn new(link: Link) -> Self {
        Self {
            link,
            streams: Slab::new(),
            line_free: Vec::new(),
            gone: BTreeSet::new(),
        }
    }

    /// Time from one host to another.
    pub fn latency(&self) -> Duration {
        self.link.latency
    }

    /// The host that listens at `addr`.
    pub fn host_at(&self, addr: SocketAddr) -> Option<HostId> {
        let IpAddr::V4(ip) = addr.ip() else {
            return None;
        };
        let [_, b, c, d] = ip.octets();
        let host = HostId(u32::from_be_bytes([0, b, c, d]).checked_sub(1)?);
        (!self.gone.contains(&host)).then_some(host)
    }

    /// A host answers no more.
    pub fn vanish(&mut self, addr: SocketAddr) {
        self.gone.extend(self.host_at(addr));
    }

    /// `host` dials; nobody has accepted yet.
    pub fn open(&mut self, host: HostId, conn: ConnId, from: SocketAddr) -> StreamId {
        let entry = self.streams.vacant_entry();
        let id = StreamId(entry.key() as u64);
        // A port of its own, as a dialled stream has.
        let port = 40_000 + (id.0 % 20_000) as u16;
        entry.insert(Stream {
            dialler: Some((host, conn)),
            dialler_address: SocketAddr::new(from.ip(), port),
            acceptor: None,
            to_dialler: Pipe::default(),
            to_acceptor: Pipe::default(),
        });
        id
    }

    /// Who dialled.
    ///
    /// # Panics
    /// If the dialler has let go.
    pub fn dialler(&self, stream: StreamId) -> (HostId, ConnId) {
        self.streams[stream.0 as usize]
            .dialler
            .expect("the dialler waits for an answer")
    }

    /// The address from which a stream comes.
    pub fn dialler_address(&self, stream: StreamId) -> SocketAddr {
        self.streams[stream.0 as usize].dialler_address
    }

    /// The dialled host takes the stream.
    pub fn accept(&mut self, stream: StreamId, host: HostId, conn: ConnId) {
        self.streams[stream.0 as usize].acceptor = Some((host, conn));
    }

    /// Nobody took the stream.
    pub fn close(&mut self, stream: StreamId) {
        let stream = &mut self.streams[stream.0 as usize];
        (stream.dialler, stream.acceptor) = (None, None);
    }

    /// Who is at an end.
    pub fn end_of(&self, stream: StreamId, side: Side) -> Option<(HostId, ConnId)> {
        let stream = self.streams.get(stream.0 as usize)?;
        match side {
            Side::Dialler => stream.dialler,
            Side::Acceptor => stream.acceptor,
        }
    }

    /// The end that hears what `host` writes.
    pub fn side_towards_other(&self, stream: StreamId, host: HostId, conn: ConnId) -> Option<Side> {
        let stream = self.streams.get(stream.0 as usize)?;
        if stream.dialler == Some((host, conn)) {
            Some(Side::Acceptor)
        } else if stream.acceptor == Some((host, conn)) {
            Some(Side::Dialler)
        } else {
            None
        }
    }

    /// Bytes that fit into the stream towards `side` at present.
    pub fn room(&self, stream: StreamId, side: Side) -> usize {
        BUFFER_LEN
            .saturating_sub(self.pipe(stream, side).in_flight)
            .min(CHUNK_LEN)
    }

    /// Sends a chunk over the sender's line; when it arrives.
    pub fn send(
        &mut self,
        stream: StreamId,
        side: Side,
        sender: HostId,
        bytes: Vec<u8>,
        now: Instant,
    ) -> Instant {
        let index = sender.0 as usize;
        if self.line_free.len() <= index {
            self.line_free.resize(index + 1, Instant::ZERO);
        }
        let micros = bytes.len() as u64 * 1_000_000 / self.link.bytes_per_sec;
        let sent = self.line_free[index].max(now) + Duration::from_micros(micros);
        self.line_free[index] = sent;
        let latency = self.link.latency;
        let pipe = self.pipe_mut(stream, side);
        pipe.in_flight += bytes.len();
        pipe.chunks.push_back(bytes);
        pipe.last_arrival = pipe.last_arrival.max(sent + latency);
        pipe.last_arrival
    }

    /// Takes the chunk that has arrived.
    pub fn take(&mut self, stream: StreamId, side: Side) -> Option<Vec<u8>> {
        let pipe = self.pipe_mut(stream, side);
        let bytes = pipe.chunks.pop_front()?;
        pipe.in_flight -= bytes.len();
        Some(bytes)
    }

    /// `by` lets go of the stream; the end that has to hear of it.
    pub fn shut(&mut self, stream: StreamId, by: HostId) -> Option<Side> {
        let stream = self.streams.get_mut(stream.0 as usize)?;
        if stream.dialler.is_some_and(|(host, _)| host == by) {
            stream.dialler = None;
            stream.acceptor.map(|_| Side::Acceptor)
        } else {
            stream.acceptor = None;
            stream.dialler.map(|_| Side::Dialler)
        }
    }

    /// When everything that was sent towards `side` has arrived.
    pub fn last_arrival(&self, stream: StreamId, side: Side, now: Instant) -> Instant {
        self.pipe(stream, side)
            .last_arrival
            .max(now + self.link.latency)
    }

    fn pipe(&self, stream: StreamId, side: Side) -> &Pipe {
        let stream = &self.streams[stream.0 as usize];
        match side {
            Side::Dialler => &stream.to_dialler,
            Side::Acceptor => &stream.to_acceptor,
        }
    }

    fn pipe_mut(&mut self, stream: StreamId, side: Side) -> &mut Pipe {
        let stream = &mut self.streams[stream.0 as usize];
        match side {
            Side::Dialler => &mut stream.to_dialler,
            Side::Acceptor => &mut stream.to_acceptor,
        }
    }
}

/// Bytes on their way in one direction of a stream at most.
const BUFFER_LEN: usize = 256 * 1024;
/// Bytes that go over a line in one go.
const CHUNK_LEN: usize = 32 * 1024;
