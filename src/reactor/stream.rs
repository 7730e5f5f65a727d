//! A connection's turn: finish connecting, read, write.
//!
//! mio reports an edge once. A turn therefore goes on until the socket says that it is dry or
//! full, or puts the connection back into the ring.

use std::io::{self, Read, Write};
use std::mem;
use std::net::SocketAddr;

use mio::net::TcpStream;
use socket2::{Domain, Protocol, Socket, Type};

use crate::base::id::ConnId;
use crate::base::plan::WritePlan;
use crate::base::time::Instant;
use crate::engine;
use crate::storage::Lent;

use super::accept::BOTH;
use super::dial::bind_to;
use super::ready::Budget;
use super::slots::{Phase, Source};
use super::{Reactor, os};

impl Reactor {
    /// Gives turns to connections until all are served or the pass is spent; returns the bytes
    /// that were received, and sent.
    pub(super) fn conn_turns(&mut self) -> (usize, usize) {
        let mut budget = Budget::pass();
        let (mut received, mut sent) = (0, 0);
        while !budget.is_spent() {
            let Some(conn) = self.ready.pop() else { break };
            let (read, written) = self.conn_turn(conn);
            budget.spend_turn(read + written);
            received += read;
            sent += written;
        }
        (received, sent)
    }

    /// One turn of `conn`; returns the bytes read and written.
    fn conn_turn(&mut self, conn: ConnId) -> (usize, usize) {
        let now = self.clock.now();
        self.finish_connect(conn, now);
        let mut moved = (0, 0);
        if self.slots.get_mut(conn).is_some_and(|s| s.may_read()) {
            if self.is_reading_paused() {
                self.paused.push(conn);
            } else {
                moved.0 = self.read_turn(conn, now);
            }
        }
        if self.slots.get_mut(conn).is_some_and(|s| s.may_write()) {
            moved.1 = self.write_turn(conn, now);
        }
        self.watch(conn, now);
        moved
    }

    /// Registers a stream that has had its first turn. Events tell of what came meanwhile, too.
    fn watch(&mut self, conn: ConnId, now: Instant) {
        let Some(stream) = self.slots.get_mut(conn) else {
            return;
        };
        if mem::replace(&mut stream.is_registered, true) {
            return;
        }
        let token = Source::Conn(conn).token();
        let registry = self.poll.registry();
        if let Err(e) = registry.register(&mut stream.socket, token, BOTH) {
            stream.is_registered = false;
            self.lost(conn, &e, now);
        }
    }

    /// Opens a stream to `remote` in the background.
    pub(super) fn connect(&mut self, conn: ConnId, remote: SocketAddr, now: Instant) {
        let opened = self.open_stream(remote).and_then(|mut socket| {
            let token = Source::Conn(conn).token();
            self.poll.registry().register(&mut socket, token, BOTH)?;
            Ok(socket)
        });
        match opened {
            Ok(socket) => self.slots.insert(conn, socket, Phase::Connecting),
            Err(e) => self.engine.closed(conn, &reason(&e), now),
        }
    }

    /// A socket that is on its way to `remote`, from the address that the user wants.
    fn open_stream(&self, remote: SocketAddr) -> io::Result<TcpStream> {
        let domain = Domain::for_address(remote);
        let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        bind_to(&socket, self.bind, remote)?;
        match socket.connect(&remote.into()) {
            Ok(()) => {}
            Err(e) if os::is_connecting(&e) => {}
            Err(e) => return Err(e),
        }
        Ok(TcpStream::from_std(socket.into()))
    }

    /// Looks whether a stream that is connecting has got there.
    fn finish_connect(&mut self, conn: ConnId, now: Instant) {
        let Some(stream) = self.slots.get_mut(conn) else {
            return;
        };
        if stream.phase == Phase::Open || !stream.is_writable {
            return;
        }
        let established = match stream.socket.take_error() {
            Ok(Some(e)) | Err(e) => Err(e),
            Ok(None) => stream
                .socket
                .peer_addr()
                .and_then(|_| stream.socket.local_addr()),
        };
        match established {
            Ok(local) => {
                stream.phase = Phase::Open;
                self.engine.connected(conn, local, now);
                self.run_actions(now);
            }
            // A spurious event: the real one is still to come.
            Err(e) if e.kind() == io::ErrorKind::NotConnected => stream.is_writable = false,
            Err(e) => self.lost(conn, &e, now),
        }
    }

    /// Reads `conn` until the socket is dry or the turn is spent; returns the bytes read.
    fn read_turn(&mut self, conn: ConnId, now: Instant) -> usize {
        let mut buffer = mem::take(&mut self.receive_buffer);
        let len = self.read_into(&mut buffer, conn, now);
        self.receive_buffer = buffer;
        len
    }

    fn read_into(&mut self, buffer: &mut [u8], conn: ConnId, now: Instant) -> usize {
        let mut budget = Budget::turn();
        let mut len = 0;
        while !budget.is_spent() {
            let room = budget.left().min(buffer.len());
            let room = room.min(self.engine.read_room(conn));
            if room == 0 {
                return len; // it is put into the ring when it may go on
            }
            let Some(stream) = self.slots.get_mut(conn) else {
                return len; // the engine has closed it
            };
            match stream.socket.read(&mut buffer[..room]) {
                Ok(0) => {
                    stream.is_readable = false;
                    if !mem::replace(&mut stream.has_ended, true) {
                        self.engine.end_of_stream(conn, now);
                        self.run_actions(now);
                    }
                    return len;
                }
                Ok(n) => {
                    // What comes later is another event, except an end that is known of.
                    let is_dry = os::SHORT_MEANS_WAIT && n < room && !stream.is_read_closed;
                    stream.is_readable = !is_dry;
                    budget.spend(n);
                    len += n;
                    self.feed(&buffer[..n], conn, now);
                    if is_dry {
                        return len;
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    stream.is_readable = false;
                    return len;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => {
                    self.lost(conn, &e, now);
                    return len;
                }
            }
        }
        if self.slots.contains(conn) {
            self.ready.push(conn);
        }
        len
    }

    /// Shows `bytes` to the engine, step by step, and stores the payload in them.
    fn feed(&mut self, mut bytes: &[u8], conn: ConnId, now: Instant) {
        while !bytes.is_empty() {
            let taken = self.engine.received(conn, bytes, now);
            if let Some(slot) = taken.store {
                let payload = &bytes[taken.used - slot.len as usize..taken.used];
                self.store(slot, payload);
            }
            self.run_actions(now);
            if !self.slots.contains(conn) {
                return; // what it sent after its fault is of no interest
            }
            if taken.used == 0 {
                debug_assert!(false, "the engine takes something in every step");
                return self.lost(conn, &io::Error::other("its bytes are not understood"), now);
            }
            bytes = &bytes[taken.used..];
        }
    }

    /// Notes that the engine has something to send.
    pub(super) fn flush(&mut self, conn: ConnId) {
        if let Some(stream) = self.slots.get_mut(conn) {
            stream.wants_write = true;
            if stream.may_write() {
                self.ready.push(conn);
            }
        }
    }

    /// Writes what the engine has for `conn` until there is no more, the socket is full or the
    /// turn is spent; returns the bytes written.
    fn write_turn(&mut self, conn: ConnId, now: Instant) -> usize {
        let mut plan = mem::take(&mut self.plan);
        let len = self.write_planned(&mut plan, conn, now);
        self.plan = plan;
        len
    }

    fn write_planned(&mut self, plan: &mut WritePlan, conn: ConnId, now: Instant) -> usize {
        let mut budget = Budget::turn();
        let mut len = 0;
        while !budget.is_spent() {
            let Some(stream) = self.slots.get_mut(conn) else {
                return len; // the engine has closed it
            };
            plan.clear();
            self.engine.write_plan(conn, engine::PLAN_LEN, plan);
            if plan.is_empty() {
                stream.wants_write = false;
                return len;
            }
            let is_last = plan.is_last;
            let write = |slices: &[io::IoSlice<'_>]| {
                let offered = slices.iter().map(|s| s.len()).sum::<usize>();
                let written = match slices {
                    [last] if is_last => os::write_last(&mut stream.socket, last),
                    [one] => stream.socket.write(one),
                    all => stream.socket.write_vectored(all),
                };
                (written, offered)
            };
            let (result, offered) = match self.storage.lend(plan, write) {
                Lent::Done(done) => done,
                Lent::NotReady => {
                    self.parked.push(conn);
                    return len;
                }
            };
            match result {
                Ok(n) => {
                    // A short write leaves the socket full; the next event says when it is not.
                    stream.is_writable = !(os::SHORT_MEANS_WAIT && n < offered);
                    let is_full = !stream.is_writable;
                    budget.spend(n);
                    len += n;
                    self.engine.sent(conn, n, now);
                    self.run_actions(now);
                    if is_full {
                        return len;
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    stream.is_writable = false;
                    return len;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => {
                    if os::is_of_memory(&e) {
                        self.storage.not_lent(plan);
                    }
                    self.lost(conn, &e, now);
                    return len;
                }
            }
        }
        if self.slots.contains(conn) {
            self.ready.push(conn);
        }
        len
    }

    /// Drops the socket of `conn`, as the engine wishes.
    pub(super) fn drop_stream(&mut self, conn: ConnId) {
        if let Some(mut stream) = self.slots.remove(conn)
            && stream.is_registered
            && !os::CLOSING_DEREGISTERS
            && let Err(e) = self.poll.registry().deregister(&mut stream.socket)
        {
            log::debug!("deregister failed conn={conn} error={e}");
        }
    }

    /// Drops a socket that has failed, and tells the engine.
    fn lost(&mut self, conn: ConnId, error: &io::Error, now: Instant) {
        self.drop_stream(conn);
        self.engine.closed(conn, &reason(error), now);
        self.run_actions(now);
    }
}

/// What the system said, without the number behind it.
pub fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_lowercase(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reason_is_the_fact_without_its_number() {
        let refused = io::Error::from_raw_os_error(rustix::io::Errno::CONNREFUSED.raw_os_error());
        assert_eq!(reason(&refused), "connection refused");
        assert_eq!(reason(&io::Error::other("no idea")), "no idea");
    }
}
