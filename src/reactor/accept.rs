//! Takes in connections, some in each pass of the loop.
//!
//! When descriptors run out, a connection that is not accepted would stay in the kernel's queue
//! and keep the socket ready: the loop would spin. So one descriptor is held in reserve, to
//! accept such a connection and close it at once.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry};
use socket2::{Domain, Socket, Type};

use crate::base::time::Instant;

use super::slots::{Phase, Source};
use super::{Reactor, os};

/// The listening sockets.
#[derive(Debug)]
pub struct Acceptor {
    listeners: Vec<TcpListener>,
    /// By listener: the local address of all that it accepts, if it listens on one only.
    locals: Vec<Option<SocketAddr>>,
    /// By listener: no `accept` has found it empty since the last event.
    acceptable: Vec<bool>,
    /// Until then nothing is accepted: the system lacks what that takes.
    paused_until: Option<Instant>,
    reserve: Option<Socket>,
    /// When it was last logged that connections are turned away.
    warned_at: Option<Instant>,
    /// Somebody on another machine has connected.
    was_reached: bool,
}

impl Acceptor {
    /// Takes `listeners` into service.
    pub fn new(mut listeners: Vec<TcpListener>, registry: &Registry) -> io::Result<Self> {
        let mut locals = Vec::new();
        for (place, listener) in listeners.iter_mut().enumerate() {
            let token = Source::Listener(place).token();
            registry.register(listener, token, Interest::READABLE)?;
            let local = listener.local_addr()?;
            locals.push((!local.ip().is_unspecified()).then_some(local));
        }
        Ok(Self {
            locals,
            acceptable: vec![false; listeners.len()],
            listeners,
            paused_until: None,
            reserve: Some(reserve()?),
            warned_at: None,
            was_reached: false,
        })
    }

    /// An event says that connections wait at the listener in `place`.
    pub fn set_acceptable(&mut self, place: usize) {
        self.acceptable[place] = true;
    }

    /// Whether a turn now would find something.
    pub fn has_work(&self) -> bool {
        self.paused_until.is_none() && self.acceptable.contains(&true)
    }

    /// When to look again after a pause.
    pub fn resumes_at(&self) -> Option<Instant> {
        self.paused_until
    }

    /// Takes the next connection; `None` if there is none, or none can be taken now.
    fn accept(&mut self, place: usize, now: Instant) -> Option<(TcpStream, SocketAddr)> {
        if !self.acceptable[place] || self.paused_until.is_some() {
            return None;
        }
        match self.listeners[place].accept() {
            Ok(accepted) => return Some(accepted),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.acceptable[place] = false,
            Err(e) if os::is_out_of_descriptors(&e) => self.shed(place, now),
            Err(e) if os::is_of_one_connection(&e) => {}
            Err(e) => {
                log::warn!("accept failed error={e}");
                self.paused_until = Some(now + PAUSE);
            }
        }
        None
    }

    /// Turns the next connection away by means of the reserve.
    fn shed(&mut self, place: usize, now: Instant) {
        if self.warned_at.is_none_or(|at| now - at >= WARNING_INTERVAL) {
            self.warned_at = Some(now);
            log::warn!("connections turned away cause=\"no file descriptor left\"");
        }
        if self.reserve.take().is_some() {
            match self.listeners[place].accept() {
                Ok((_, remote)) => log::debug!("connection turned away remote={remote}"),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.acceptable[place] = false,
                Err(_) => self.paused_until = Some(now + PAUSE),
            }
        }
        self.reserve = reserve().ok();
        if self.reserve.is_none() {
            self.paused_until = Some(now + PAUSE);
        }
    }
}

impl Reactor {
    /// Whether somebody on another machine has ever connected to this peer: its port is open
    /// there, whatever stands in between.
    pub fn was_reached(&self) -> bool {
        self.acceptor.was_reached
    }

    /// Gives each listener its turn.
    pub(super) fn accept_turns(&mut self, now: Instant) {
        if self.acceptor.paused_until.is_some_and(|at| at <= now) {
            self.acceptor.paused_until = None;
        }
        for place in 0..self.acceptor.listeners.len() {
            let local = self.acceptor.locals[place];
            for _ in 0..ACCEPTS_MAX {
                let Some((socket, remote)) = self.acceptor.accept(place, now) else {
                    if self.acceptor.acceptable[place] && self.acceptor.paused_until.is_none() {
                        continue; // that one failed, the next may be fine
                    }
                    break;
                };
                let local = local.map_or_else(|| socket.local_addr(), Ok);
                // Without a local address it is gone already.
                if let Ok(local) = local {
                    self.accepted(socket, remote, local, now);
                }
            }
        }
    }

    /// Shows a new connection to the engine and, if that wants it, gives it a turn: what it has
    /// to say is often there already.
    fn accepted(&mut self, socket: TcpStream, remote: SocketAddr, local: SocketAddr, now: Instant) {
        if !self.acceptor.was_reached {
            self.acceptor.was_reached = !self.is_own(remote.ip());
        }
        let conn = self.engine.accepted(remote, local, now);
        if let Some(conn) = conn {
            if !os::ACCEPTED_INHERIT_NODELAY {
                // Fails only on sockets that are gone, which the next read will tell.
                let _ = socket.set_nodelay(true);
            }
            self.slots.insert(conn, socket, Phase::Open);
            self.ready.push(conn);
        }
        self.run_actions(now);
    }
}

/// A descriptor to give up when there is no other.
fn reserve() -> io::Result<Socket> {
    Socket::new(Domain::IPV4, Type::DGRAM, None)
}

/// Every stream is registered once, for reading and writing.
pub const BOTH: Interest = Interest::READABLE.add(Interest::WRITABLE);
/// Connections that one listener accepts in a pass of the loop at most. All of them have a turn in
/// that pass, so this bounds how many there are that nobody has looked at yet.
const ACCEPTS_MAX: u32 = 64;
/// How long to leave the listeners alone when the system lacks memory or descriptors.
const PAUSE: Duration = Duration::from_millis(100);
/// How often an operator is told that connections are turned away.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);
