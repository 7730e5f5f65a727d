//! Streams by connection, and the tokens that stand for them in mio.
//!
//! A token is the engine's [`ConnId`] in one `usize`, so an event that arrives after its
//! connection was closed resolves to nothing, even if the index is in use again:
//!
//! ```text
//! 63          32 31           0
//! ┌─────────────┬─────────────┐
//! │ generation  │ index       │   index ≥ SPECIAL_FIRST: a listener, the waker, …
//! └─────────────┴─────────────┘
//! ```
//!
//! Owns the sockets of all connections.

use mio::Token;
use mio::net::TcpStream;

use crate::base::id::ConnId;

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A connection; it may be closed by now.
    Conn(ConnId),
    /// A helper thread has answered.
    Waker,
    /// A signal arrived.
    Signals,
    /// A listening TCP socket, by its place.
    Listener(usize),
    /// A UDP socket, by its place.
    Udp(usize),
    /// A socket of a multicast group, by its place.
    Group(usize),
    /// The control socket.
    Control,
    /// A client of the control socket, by its place.
    ControlClient(usize),
}

impl Source {
    /// The token to register the source under.
    ///
    /// # Panics
    /// If a place or an index is beyond what is ever used.
    pub fn token(self) -> Token {
        let special = |number: usize| {
            assert!(number < SPECIAL_COUNT as usize, "few special sources");
            Token(SPECIAL_FIRST as usize + number)
        };
        match self {
            Self::Conn(conn) => {
                assert!(conn.index < SPECIAL_FIRST, "connections are few and dense");
                Token(((conn.generation as usize) << 32) | conn.index as usize)
            }
            Self::Waker => special(0),
            Self::Signals => special(1),
            Self::Listener(place) => special(2 + 3 * place),
            Self::Udp(place) => special(3 + 3 * place),
            Self::Group(place) => special(4 + 3 * place),
            Self::Control => special(CONTROL_FIRST as usize),
            Self::ControlClient(place) => special(CONTROL_FIRST as usize + 1 + place),
        }
    }

    /// The source that `token` was made for.
    pub fn from_token(token: Token) -> Self {
        let index = token.0 as u32;
        if index < SPECIAL_FIRST {
            return Self::Conn(ConnId {
                index,
                generation: (token.0 >> 32) as u32,
            });
        }
        match index - SPECIAL_FIRST {
            0 => Self::Waker,
            1 => Self::Signals,
            CONTROL_FIRST => Self::Control,
            number if number > CONTROL_FIRST => {
                Self::ControlClient((number - CONTROL_FIRST - 1) as usize)
            }
            number => {
                let place = ((number - 2) / 3) as usize;
                match number % 3 {
                    2 => Self::Listener(place),
                    0 => Self::Udp(place),
                    _ => Self::Group(place),
                }
            }
        }
    }
}

/// How far a stream has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// We called; the other side has not answered.
    Connecting,
    /// Bytes may pass.
    Open,
}

/// One socket and what is known of its readiness.
#[derive(Debug)]
pub struct Stream {
    /// The socket, non-blocking.
    pub socket: TcpStream,
    /// Whether it is established.
    pub phase: Phase,
    /// There may be bytes to read: no read has found the socket dry since the last event.
    pub is_readable: bool,
    /// The socket may take bytes: no write has found it full since the last event.
    pub is_writable: bool,
    /// The other side has ended its direction: read on until there is nothing left.
    pub is_read_closed: bool,
    /// The end was read and told to the engine.
    pub has_ended: bool,
    /// The engine has something to send.
    pub wants_write: bool,
    /// Events tell of it. One that came in has its first turn before that: what asks a short
    /// question often has it answered and is gone by then.
    pub is_registered: bool,
    generation: u32,
}

impl Stream {
    /// Whether a read may find something.
    pub fn may_read(&self) -> bool {
        self.phase == Phase::Open && self.is_readable
    }

    /// Whether there is something to write, and room for it.
    pub fn may_write(&self) -> bool {
        self.phase == Phase::Open && self.is_writable && self.wants_write
    }
}

/// The sockets of all connections, by id.
#[derive(Debug, Default)]
pub struct Slots {
    streams: Vec<Option<Stream>>,
}

impl Slots {
    /// Takes the socket of `conn`; its place must be free. One that connects is registered with
    /// the poll, one that is open is not yet.
    ///
    /// # Panics
    /// If another connection is in that place: its close was forgotten.
    pub fn insert(&mut self, conn: ConnId, socket: TcpStream, phase: Phase) {
        let index = conn.index as usize;
        if index >= self.streams.len() {
            self.streams.resize_with(index + 1, || None);
        }
        let place = &mut self.streams[index];
        assert!(place.is_none(), "the place of {conn} is in use");
        *place = Some(Stream {
            socket,
            phase,
            is_readable: phase == Phase::Open,
            is_writable: phase == Phase::Open,
            is_read_closed: false,
            has_ended: false,
            wants_write: false,
            is_registered: phase == Phase::Connecting,
            generation: conn.generation,
        });
    }

    /// The stream of `conn`, unless it is closed.
    pub fn get_mut(&mut self, conn: ConnId) -> Option<&mut Stream> {
        self.streams
            .get_mut(conn.index as usize)?
            .as_mut()
            .filter(|stream| stream.generation == conn.generation)
    }

    /// Whether `conn` is still open.
    pub fn contains(&self, conn: ConnId) -> bool {
        let stream = self.streams.get(conn.index as usize);
        stream.is_some_and(|s| s.as_ref().is_some_and(|s| s.generation == conn.generation))
    }

    /// Takes the stream of `conn` out, unless it is closed already.
    pub fn remove(&mut self, conn: ConnId) -> Option<Stream> {
        if !self.contains(conn) {
            return None;
        }
        self.streams[conn.index as usize].take()
    }
}

/// First index that is no connection.
const SPECIAL_FIRST: u32 = u32::MAX - SPECIAL_COUNT;
/// Indices that are no connections.
const SPECIAL_COUNT: u32 = 256;
/// Of them the first that belongs to the control socket.
const CONTROL_FIRST: u32 = 128;

const _: () = assert!(usize::BITS == 64, "a token holds an index and a generation");

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;
    use crate::base::limits::CONTROL_CLIENTS_MAX;

    /// A stream to a listener on loopback that nobody serves.
    fn socket(listener: &TcpListener) -> TcpStream {
        TcpStream::connect(listener.local_addr().unwrap()).unwrap()
    }

    #[test]
    fn every_source_is_found_again_by_its_token() {
        let conn = |index, generation| Source::Conn(ConnId { index, generation });
        let sources = [
            conn(0, 0),
            conn(0, 1),
            conn(1, 0),
            conn(SPECIAL_FIRST - 1, u32::MAX),
            Source::Waker,
            Source::Signals,
            Source::Listener(0),
            Source::Listener(1),
            Source::Udp(0),
            Source::Udp(1),
            Source::Group(0),
            Source::Group(1),
            Source::Control,
            Source::ControlClient(0),
            Source::ControlClient(CONTROL_CLIENTS_MAX - 1),
        ];
        for (place, source) in sources.into_iter().enumerate() {
            assert_eq!(Source::from_token(source.token()), source);
            for other in &sources[..place] {
                assert_ne!(source.token(), other.token(), "{source:?} and {other:?}");
            }
        }
    }

    #[test]
    fn token_of_a_closed_connection_resolves_to_nothing_when_its_index_is_used_again() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let old = ConnId {
            index: 3,
            generation: 7,
        };
        let new = ConnId {
            generation: 8,
            ..old
        };
        let mut slots = Slots::default();
        slots.insert(old, socket(&listener), Phase::Connecting);
        assert!(slots.contains(old) && !slots.contains(new));

        assert!(slots.remove(old).is_some());
        assert!(slots.remove(old).is_none());
        slots.insert(new, socket(&listener), Phase::Open);
        assert!(!slots.contains(old) && slots.contains(new));
        assert!(slots.get_mut(old).is_none() && slots.remove(old).is_none());
        assert!(slots.get_mut(new).is_some());
    }
}
