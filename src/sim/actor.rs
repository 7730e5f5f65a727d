//! Hosts that run no engine: foreign clients, trackers, attackers.
//!
//! An [`Actor`] is told what happens on its streams and acts through [`Hands`], as any program
//! would on sockets: it sees the same bytes and the same lines as the engines do.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt::Debug;
use std::net::SocketAddr;

use bytes::Bytes;

use super::net::{Datagram, StreamId};
use crate::base::id::ConnId;
use crate::base::rng::Rng;
use crate::base::time::Instant;
use crate::engine::action::Family;

/// Something that happens to an actor.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// It has joined the world.
    Joined,
    /// A stream came in.
    Accepted {
        /// Its id from now on.
        conn: ConnId,
        /// The other end.
        from: SocketAddr,
    },
    /// A stream that was dialled is established.
    Connected {
        /// The stream.
        conn: ConnId,
    },
    /// Bytes came in.
    Received {
        /// The stream.
        conn: ConnId,
        /// All of them; they are not given again.
        bytes: &'a [u8],
    },
    /// A stream is gone: ended by the other side, reset, or never established.
    Ended {
        /// The stream.
        conn: ConnId,
    },
    /// A datagram came in.
    Datagram(&'a Datagram),
    /// A datagram came in on the group of local discovery.
    Multicast(&'a Datagram),
    /// The time that was asked for has come.
    Timer,
}

/// What an actor can do.
#[derive(Debug)]
pub struct Hands<'a> {
    /// Virtual time.
    pub now: Instant,
    /// Where it is reached.
    pub addr: SocketAddr,
    /// Its share of chance.
    pub rng: &'a mut Rng,
    pub(super) conns: &'a mut Vec<Option<Line>>,
    pub(super) deeds: &'a mut VecDeque<Deed>,
    pub(super) wake_at: &'a mut Instant,
}

/// A stream of an actor.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// Bytes that wait to leave.
    pub out: VecDeque<u8>,
    /// It is closed once they have left.
    pub is_closing: bool,
}

/// What an actor did, for the world to carry out.
#[derive(Clone, Debug)]
pub(super) enum Deed {
    Connect(ConnId, SocketAddr),
    Write(ConnId),
    Close(ConnId),
    Reset(ConnId),
    Datagram(Datagram),
    Multicast(Family, Bytes),
}

impl Hands<'_> {
    /// Dials `remote`; [`Input::Connected`] or [`Input::Ended`] follows.
    pub fn connect(&mut self, remote: SocketAddr) -> ConnId {
        let conn = open_line(self.conns);
        self.deeds.push_back(Deed::Connect(conn, remote));
        conn
    }

    /// Sends bytes; nothing happens if the stream is gone.
    pub fn send(&mut self, conn: ConnId, bytes: &[u8]) {
        if let Some(Some(line)) = self.conns.get_mut(conn.index as usize) {
            line.out.extend(bytes);
            self.deeds.push_back(Deed::Write(conn));
        }
    }

    /// Bytes that wait to leave on a stream.
    pub fn unsent(&self, conn: ConnId) -> usize {
        let line = self.conns.get(conn.index as usize).and_then(Option::as_ref);
        line.map_or(0, |line| line.out.len())
    }

    /// Closes a stream at once; what has not left is dropped.
    pub fn close(&mut self, conn: ConnId) {
        self.deeds.push_back(Deed::Close(conn));
    }

    /// Lets a stream break: the other end is told that, and not that it ended.
    pub fn reset(&mut self, conn: ConnId) {
        self.deeds.push_back(Deed::Reset(conn));
    }

    /// Closes a stream as soon as everything has left.
    pub fn finish(&mut self, conn: ConnId) {
        if let Some(Some(line)) = self.conns.get_mut(conn.index as usize) {
            line.is_closing = true;
            self.deeds.push_back(Deed::Write(conn));
        }
    }

    /// Sends a datagram from the port that it is reached at.
    pub fn send_datagram(&mut self, to: SocketAddr, bytes: &[u8]) {
        self.send_datagram_as(self.addr, to, bytes);
    }

    /// Sends a datagram that says it comes from `from`: another port of its own, or a lie.
    pub fn send_datagram_as(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        self.deeds.push_back(Deed::Datagram(Datagram {
            from,
            to,
            bytes: Bytes::copy_from_slice(bytes),
        }));
    }

    /// Sends a datagram to the group of local discovery on its LAN.
    pub fn multicast(&mut self, family: Family, bytes: &[u8]) {
        let bytes = Bytes::copy_from_slice(bytes);
        self.deeds.push_back(Deed::Multicast(family, bytes));
    }

    /// Asks for [`Input::Timer`] at `at`, or sooner if it was asked for sooner.
    pub fn wake_at(&mut self, at: Instant) {
        *self.wake_at = (*self.wake_at).min(at);
    }
}

/// A new stream's id: never used twice.
pub(super) fn open_line(conns: &mut Vec<Option<Line>>) -> ConnId {
    conns.push(Some(Line::default()));
    ConnId {
        index: conns.len() as u32 - 1,
        generation: 0,
    }
}

/// A program on a host.
pub trait Actor: Debug + Any {
    /// Something happened.
    fn handle(&mut self, input: Input<'_>, hands: &mut Hands<'_>);

    /// Whether the judges hold it to the rules: it is no attacker.
    fn is_honest(&self) -> bool;

    /// Whether it has everything that it wants.
    fn is_complete(&self) -> bool {
        true
    }
}

/// An actor and its streams.
#[derive(Debug)]
pub(super) struct Stage {
    pub actor: Box<dyn Actor>,
    pub conns: Vec<Option<Line>>,
    pub deeds: VecDeque<Deed>,
    pub wake_at: Instant,
    pub rng: Rng,
}

impl Stage {
    /// An actor that has not begun.
    pub fn new(actor: Box<dyn Actor>, rng: Rng) -> Self {
        Self {
            actor,
            conns: Vec::new(),
            deeds: VecDeque::new(),
            wake_at: Instant::NEVER,
            rng,
        }
    }

    /// Lets the actor act.
    pub fn handle(&mut self, input: Input<'_>, addr: SocketAddr, now: Instant) {
        let mut hands = Hands {
            now,
            addr,
            rng: &mut self.rng,
            conns: &mut self.conns,
            deeds: &mut self.deeds,
            wake_at: &mut self.wake_at,
        };
        self.actor.handle(input, &mut hands);
    }
}

/// Which stream of the network a connection of a host is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub generation: u32,
    pub stream: StreamId,
    /// It waits in the ring for its turn on the line.
    pub queued: bool,
}
