//! Streams and datagrams between hosts, and the lines that carry them.
//!
//! A stream is two pipes of chunks, each in order. A chunk leaves when its sender's line is free,
//! crosses the lines of the racks if the hosts stand in two, and waits for the receiver's line:
//! each line carries one chunk after the other (`line`). A pipe takes only so many bytes at a
//! time, at first few (slow start), later up to its window.
//!
//! What TCP repairs is not simulated packet by packet: bytes are never lost while both ends live,
//! but where the way is cut they wait, and where an end is gone they end in a reset.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use super::HostId;
use crate::base::id::ConnId;
use crate::base::rng::Rng;
use crate::base::slot::Slot;
use crate::base::time::Instant;

pub mod datagram;
pub mod line;

pub use datagram::{Datagram, DatagramLedger, ParcelId};
pub use line::{Lines, Link, RackId, Uplink};

/// A stream, from dialling on; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamId(pub u32);

/// An end of a stream: who receives there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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

/// Bytes that travel together.
#[derive(Debug, Default)]
pub struct Chunk {
    /// All bytes that are not tags.
    pub bytes: Vec<u8>,
    /// What the chunk consists of, in order.
    pub parts: Vec<Part>,
    /// Bytes of all parts.
    pub len: usize,
}

/// A part of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// So many of the chunk's bytes.
    Bytes(usize),
    /// Payload of this place that is not carried along: only whether it is right.
    Tag(Slot, bool),
}

impl Chunk {
    /// Empties the chunk, keeping its buffers.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.parts.clear();
        self.len = 0;
    }

    /// Appends bytes.
    pub fn push_bytes(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.len += bytes.len();
        match self.parts.last_mut() {
            Some(Part::Bytes(len)) => *len += bytes.len(),
            _ => self.parts.push(Part::Bytes(bytes.len())),
        }
    }

    /// Appends payload as a tag.
    pub fn push_tag(&mut self, slot: Slot, is_right: bool) {
        self.len += slot.len as usize;
        self.parts.push(Part::Tag(slot, is_right));
    }
}

/// Bytes of all streams, counted where they leave and where they arrive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Left a host.
    pub sent: u64,
    /// Arrived at a host.
    pub delivered: u64,
    /// Were under way to a host that is gone.
    pub lost: u64,
}

/// All streams and lines.
#[derive(Debug)]
pub struct Network {
    /// What carries the chunks.
    pub lines: Lines,
    streams: Vec<Stream>,
    ledger: Ledger,
    post: datagram::Post,
    rng: Rng,
    /// Emptied chunks, for their buffers.
    spare: Vec<Chunk>,
}

#[derive(Debug)]
struct Stream {
    ends: [End; 2],
    /// Chunks on their way to each end.
    pipes: [Pipe; 2],
    dialler_address: SocketAddr,
}

#[derive(Clone, Copy, Debug)]
struct End {
    host: HostId,
    /// `None`: it has not accepted yet, or has let go.
    conn: Option<ConnId>,
}

#[derive(Debug)]
struct Pipe {
    chunks: VecDeque<Chunk>,
    in_flight: usize,
    /// Bytes that may be in flight.
    window: usize,
    last_arrival: Instant,
    /// The sender has more and waits for room.
    is_full: bool,
    /// Chunks wait for the way to be open again; and the end of the stream, if that waits too.
    is_parked: bool,
    is_ended: bool,
}

impl Default for Pipe {
    fn default() -> Self {
        Self {
            chunks: VecDeque::new(),
            in_flight: 0,
            window: WINDOW_FIRST,
            last_arrival: Instant::ZERO,
            is_full: false,
            is_parked: false,
            is_ended: false,
        }
    }
}

/// What came of sending a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It arrives then.
    Arrives(Instant),
    /// The way is cut: it waits.
    Parked,
    /// Nobody is there any more; the sender hears of it then, if at all.
    Lost(Option<Instant>),
}

/// What happens to a stream when its way is open again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resumed {
    /// The front chunk towards the side arrives then.
    Chunk(StreamId, Side, Instant),
    /// The end of the stream arrives then.
    End(StreamId, Side, Instant),
}

impl Network {
    /// No hosts and no streams yet.
    pub fn new(rng: Rng) -> Self {
        Self {
            lines: Lines::default(),
            streams: Vec::new(),
            ledger: Ledger::default(),
            post: datagram::Post::default(),
            rng,
            spare: Vec::new(),
        }
    }

    /// Bytes so far.
    pub fn ledger(&self) -> Ledger {
        self.ledger
    }

    /// Bytes under way, counted anew.
    pub fn in_flight(&self) -> u64 {
        let pipes = self.streams.iter().flat_map(|stream| &stream.pipes);
        let chunks = pipes.flat_map(|pipe| &pipe.chunks);
        chunks.map(|chunk| chunk.len as u64).sum()
    }

    /// An empty chunk.
    pub fn chunk(&mut self) -> Chunk {
        self.spare.pop().unwrap_or_default()
    }

    /// Takes a chunk back.
    pub fn recycle(&mut self, mut chunk: Chunk) {
        if self.spare.len() < SPARE_MAX {
            chunk.clear();
            self.spare.push(chunk);
        }
    }

    /// `host` dials `to`; nobody has accepted yet.
    pub fn open(
        &mut self,
        host: HostId,
        conn: ConnId,
        to: HostId,
        dialler_address: SocketAddr,
    ) -> StreamId {
        let id = StreamId(self.streams.len() as u32);
        // A port of its own, as a dialled stream has.
        let port = 32_768 + (id.0 % 28_000) as u16;
        self.streams.push(Stream {
            ends: [
                End {
                    host,
                    conn: Some(conn),
                },
                End {
                    host: to,
                    conn: None,
                },
            ],
            pipes: [Pipe::default(), Pipe::default()],
            dialler_address: SocketAddr::new(dialler_address.ip(), port),
        });
        id
    }

    /// The address from which a stream comes.
    pub fn dialler_address(&self, stream: StreamId) -> SocketAddr {
        self.streams[stream.0 as usize].dialler_address
    }

    /// The dialled host takes the stream.
    pub fn accept(&mut self, stream: StreamId, conn: ConnId) {
        self.streams[stream.0 as usize].ends[Side::Acceptor as usize].conn = Some(conn);
    }

    /// Who is at an end, if it has not let go.
    pub fn end_of(&self, stream: StreamId, side: Side) -> Option<(HostId, ConnId)> {
        let end = self.streams.get(stream.0 as usize)?.ends[side as usize];
        end.conn.map(|conn| (end.host, conn))
    }

    /// The host of an end, whether it still holds the stream or not.
    pub fn host_of(&self, stream: StreamId, side: Side) -> HostId {
        self.streams[stream.0 as usize].ends[side as usize].host
    }

    /// The end at which `host` is.
    pub fn side_of(&self, stream: StreamId, host: HostId, conn: ConnId) -> Option<Side> {
        let both = [Side::Dialler, Side::Acceptor];
        both.into_iter()
            .find(|&side| self.end_of(stream, side) == Some((host, conn)))
    }

    /// Bytes that fit into the pipe towards `side` at present; at zero the sender is remembered.
    pub fn room(&mut self, stream: StreamId, side: Side) -> usize {
        let pipe = &mut self.streams[stream.0 as usize].pipes[side as usize];
        let room = pipe.window.saturating_sub(pipe.in_flight);
        pipe.is_full = room == 0;
        room
    }

    /// Sends a chunk over the lines towards `side`, at a moment when the sender's is free.
    pub fn send(&mut self, stream: StreamId, side: Side, chunk: Chunk, now: Instant) -> Sent {
        let ends = self.streams[stream.0 as usize].ends;
        let (from, to) = (ends[side.other() as usize].host, ends[side as usize]);
        self.ledger.sent += chunk.len as u64;
        let is_open = self.lines.is_open(from, to.host);
        let left = self.lines.leave(from, chunk.len, now);
        if to.conn.is_none() {
            self.ledger.lost += chunk.len as u64;
            let hears = is_open && self.lines.is_up(to.host);
            let back = self.lines.delay(from, to.host) * 2;
            return Sent::Lost(hears.then(|| left + back));
        }
        let arrival = if is_open {
            let jitter = self.lines.jitter(from, to.host, &mut self.rng);
            Some(self.lines.arrive(from, to.host, chunk.len, left) + jitter)
        } else {
            None
        };
        let pipe = &mut self.streams[stream.0 as usize].pipes[side as usize];
        pipe.in_flight += chunk.len;
        pipe.chunks.push_back(chunk);
        pipe.is_parked |= arrival.is_none();
        let Some(at) = arrival.filter(|_| !pipe.is_parked) else {
            return Sent::Parked;
        };
        pipe.last_arrival = pipe.last_arrival.max(at);
        Sent::Arrives(pipe.last_arrival)
    }

    /// Takes the chunk that has arrived, and says whether its sender waits for room.
    pub fn take(&mut self, stream: StreamId, side: Side) -> Option<(Chunk, bool)> {
        let pipe = &mut self.streams[stream.0 as usize].pipes[side as usize];
        let chunk = pipe.chunks.pop_front()?;
        pipe.in_flight -= chunk.len;
        pipe.window = (pipe.window + chunk.len).min(WINDOW_MAX);
        self.ledger.delivered += chunk.len as u64;
        Some((chunk, std::mem::take(&mut pipe.is_full)))
    }

    /// One end lets go of the stream: what is under way to it is lost. Returns when the other
    /// end, if it is still there and can hear of it, does.
    pub fn shut(&mut self, stream: StreamId, side: Side, now: Instant) -> Option<Instant> {
        let of = &mut self.streams[stream.0 as usize];
        of.ends[side as usize].conn = None;
        let lost = std::mem::take(&mut of.pipes[side as usize].chunks);
        self.ledger.lost += lost.iter().map(|chunk| chunk.len as u64).sum::<u64>();
        let ends = of.ends;
        let (from, to) = (ends[side as usize].host, ends[side.other() as usize]);
        to.conn?;
        let is_open = self.lines.is_open(from, to.host);
        let at = now + self.lines.delay(from, to.host);
        let pipe = &mut self.streams[stream.0 as usize].pipes[side.other() as usize];
        pipe.is_ended = true;
        pipe.is_parked |= !is_open;
        (!pipe.is_parked).then(|| pipe.last_arrival.max(at))
    }

    /// The power of `host` is gone: it lets go of a stream and nobody hears of it.
    pub fn vanish(&mut self, stream: StreamId, side: Side) {
        let of = &mut self.streams[stream.0 as usize];
        of.ends[side as usize].conn = None;
        let lost = std::mem::take(&mut of.pipes[side as usize].chunks);
        self.ledger.lost += lost.iter().map(|chunk| chunk.len as u64).sum::<u64>();
    }

    /// Ways were opened: everything that waits and can go now is under way again.
    pub fn resume(&mut self, now: Instant) -> Vec<Resumed> {
        let mut resumed = Vec::new();
        for (index, stream) in self.streams.iter_mut().enumerate() {
            for side in [Side::Dialler, Side::Acceptor] {
                let (from, to) = (
                    stream.ends[side.other() as usize].host,
                    stream.ends[side as usize],
                );
                let pipe = &mut stream.pipes[side as usize];
                if !pipe.is_parked || to.conn.is_none() || !self.lines.is_open(from, to.host) {
                    continue;
                }
                pipe.is_parked = false;
                let id = StreamId(index as u32);
                let sent = now + RETRANSMISSION;
                for chunk in &pipe.chunks {
                    let at = self.lines.arrive(from, to.host, chunk.len, sent);
                    pipe.last_arrival = pipe.last_arrival.max(at);
                    resumed.push(Resumed::Chunk(id, side, pipe.last_arrival));
                }
                if pipe.is_ended {
                    let at = pipe
                        .last_arrival
                        .max(sent + self.lines.delay(from, to.host));
                    resumed.push(Resumed::End(id, side, at));
                }
            }
        }
        resumed
    }
}

/// Bytes that a new stream may have under way: ten segments (RFC 6928).
const WINDOW_FIRST: usize = 14_600;
/// Bytes that a stream may have under way at most.
const WINDOW_MAX: usize = 256 * 1024;
/// Time until the sender tries again after the way was cut.
const RETRANSMISSION: Duration = Duration::from_millis(200);
/// Emptied chunks that are kept for their buffers.
const SPARE_MAX: usize = 4096;
