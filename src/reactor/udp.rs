//! The UDP side of the port: datagrams in batches, each with the address that it came to, and
//! answers that leave from there.
//!
//! Answers to what came in one batch leave in one call where the socket has one address to leave
//! from. Nothing is kept beyond that: what cannot leave at once is dropped and counted, and what
//! comes faster than it is looked at is dropped by the kernel. Whoever asks by UDP asks again.

use std::io::{self, IoSliceMut};
use std::mem;
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use mio::net::UdpSocket;
use mio::{Interest, Registry};
use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSockRef, UdpSocketState};

use crate::base::time::Instant;

use super::ready::Budget;
use super::slots::Source;
use super::{Reactor, os};

/// One family's socket.
#[derive(Debug)]
pub struct Udp {
    socket: UdpSocket,
    state: UdpSocketState,
    local: SocketAddr,
    is_readable: bool,
    /// Datagrams that wait for company.
    outbox: Vec<(SocketAddr, Bytes)>,
    /// Datagrams that the system did not take.
    unsent: u64,
}

impl Udp {
    /// Takes a socket that is bound into service, as `source`.
    pub fn new(mut socket: UdpSocket, source: Source, registry: &Registry) -> io::Result<Self> {
        registry.register(&mut socket, source.token(), Interest::READABLE)?;
        Ok(Self {
            state: UdpSocketState::new(UdpSockRef::from(&socket))?,
            local: socket.local_addr()?,
            socket,
            is_readable: false,
            outbox: Vec::with_capacity(BATCH_SIZE),
            unsent: 0,
        })
    }

    /// The socket itself, for its options.
    pub fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// An event says that there are datagrams.
    pub fn set_readable(&mut self) {
        self.is_readable = true;
    }

    /// Whether there may be datagrams.
    pub fn is_readable(&self) -> bool {
        self.is_readable
    }

    /// Whether `to` is of this socket's family.
    pub fn reaches(&self, to: SocketAddr) -> bool {
        self.local.is_ipv4() == to.is_ipv4()
    }

    /// Takes what has arrived into `batch`, as much as that holds.
    pub fn receive(&mut self, batch: &mut Batch) {
        let received = self.socket.try_io(|| {
            let mut rooms = batch.bytes.chunks_exact_mut(ROOM_LEN);
            let mut rooms: [IoSliceMut<'_>; BATCH_SIZE] =
                std::array::from_fn(|_| IoSliceMut::new(rooms.next().unwrap_or_default()));
            let socket = UdpSockRef::from(&self.socket);
            self.state.recv(socket, &mut rooms, &mut batch.meta)
        });
        batch.filled = match received {
            Ok(filled) => {
                // A call that does not fill all rooms has found the socket dry.
                self.is_readable = !os::SHORT_MEANS_WAIT || filled == BATCH_SIZE;
                filled
            }
            Err(e) => {
                // Anything else belongs to one datagram, and the next may be fine.
                self.is_readable = e.kind() != io::ErrorKind::WouldBlock;
                0
            }
        };
    }

    /// Sends `bytes` to `to` at once, from the address `from` if this socket has several.
    ///
    /// # Errors
    /// The system did not take it; that is counted already.
    pub fn send(&mut self, to: SocketAddr, from: Option<IpAddr>, bytes: &[u8]) -> io::Result<()> {
        let result = match self.source(from) {
            None => self.socket.send_to(bytes, to).map(drop),
            from => {
                let transmit = Transmit {
                    destination: to,
                    ecn: None,
                    contents: bytes,
                    segment_size: None,
                    src_ip: from,
                };
                let socket = UdpSockRef::from(&self.socket);
                let send = || self.state.try_send(socket, &transmit);
                self.socket.try_io(send)
            }
        };
        if let Err(e) = &result {
            self.count_unsent(e, to, 1);
        }
        result
    }

    /// Sends `bytes` like [`Udp::send`], but may keep it until [`Udp::flush`].
    pub fn post(&mut self, to: SocketAddr, from: Option<IpAddr>, bytes: Bytes) {
        if self.source(from).is_some() {
            // Whoever waits for it asks again.
            let _ = self.send(to, from, &bytes);
            return;
        }
        self.outbox.push((to, bytes));
        if self.outbox.len() >= BATCH_SIZE {
            self.flush();
        }
    }

    /// Sends what waits.
    pub fn flush(&mut self) {
        let outbox = mem::take(&mut self.outbox);
        let mut left = &outbox[..];
        while let Some((to, _)) = left.first() {
            match os::send_many(&self.socket, left) {
                Ok(sent) => left = &left[sent.clamp(1, left.len())..],
                // Whoever is behind waits in vain too.
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.count_unsent(&e, *to, left.len());
                    break;
                }
                // That is about the first of them.
                Err(e) => {
                    self.count_unsent(&e, *to, 1);
                    left = &left[1..];
                }
            }
        }
        self.outbox = outbox;
        self.outbox.clear();
    }

    /// What has to be said of the source: nothing if the socket has one address only.
    fn source(&self, from: Option<IpAddr>) -> Option<IpAddr> {
        from.filter(|_| self.local.ip().is_unspecified())
    }

    /// Counts `datagrams`, of which the first was for `to`.
    fn count_unsent(&mut self, error: &io::Error, to: SocketAddr, datagrams: usize) {
        self.unsent += datagrams as u64;
        log::trace!(
            "datagrams lost to={to} error={error} unsent={}",
            self.unsent
        );
    }
}

/// A datagram that has arrived.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// Who sent it, as far as that can be believed.
    pub from: SocketAddr,
    /// The address that it was sent to: one of ours or a group's.
    pub to: Option<IpAddr>,
    /// The index of the interface that it came by.
    pub interface: Option<u32>,
    /// What it says; not empty.
    pub bytes: &'a [u8],
}

/// Room for the datagrams of one call. All sockets share it.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Box<[u8]>,
    meta: Vec<RecvMeta>,
    /// Rooms that the last call filled.
    filled: usize,
}

impl Batch {
    /// Room for [`BATCH_SIZE`] datagrams of any length.
    pub fn new() -> Self {
        Self {
            bytes: vec![0; BATCH_SIZE * ROOM_LEN].into(),
            meta: vec![RecvMeta::default(); BATCH_SIZE],
            filled: 0,
        }
    }

    /// What the last call brought. The system may hand over several datagrams of one sender as
    /// one, all of one length but the last.
    pub fn datagrams(&self) -> impl Iterator<Item = Datagram<'_>> {
        let rooms = self.bytes.chunks_exact(ROOM_LEN).zip(&self.meta);
        rooms.take(self.filled).flat_map(|(bytes, meta)| {
            let parts = bytes[..meta.len.min(ROOM_LEN)].chunks(meta.stride.max(1));
            parts.map(|bytes| Datagram {
                from: meta.addr,
                to: meta.dst_ip,
                interface: meta.interface_index,
                bytes,
            })
        })
    }
}

impl Reactor {
    /// Shows the engine what has come to the port, as far as a pass allows: a flood leaves the
    /// rest of the loop its time, and is dropped by the kernel.
    pub(super) fn udp_turns(&mut self, now: Instant) {
        let mut batch = mem::take(&mut self.batch);
        for place in 0..self.udp.len() {
            let mut budget = Budget::turn();
            while self.udp[place].is_readable() && !budget.is_spent() {
                self.udp[place].receive(&mut batch);
                budget.spend_turn(0);
                for datagram in batch.datagrams() {
                    if budget.is_spent() {
                        break; // one sender's datagrams, many in one room
                    }
                    budget.spend_turn(datagram.bytes.len());
                    if datagram.to.is_some_and(|to| to.is_multicast()) {
                        continue; // not meant for us
                    }
                    let Datagram {
                        from, to, bytes, ..
                    } = datagram;
                    self.engine.datagram(from, to, bytes, now);
                    self.take_actions(now);
                }
                self.flush_datagrams();
            }
        }
        self.batch = batch;
    }

    /// Sends a datagram from the port, at the next [`Reactor::flush_datagrams`] if not before.
    pub(super) fn send_datagram(&mut self, to: SocketAddr, from: Option<IpAddr>, bytes: Bytes) {
        if let Some(udp) = self.udp.iter_mut().find(|udp| udp.reaches(to)) {
            udp.post(to, from, bytes);
        }
    }

    /// Sends all datagrams that wait for company.
    pub(super) fn flush_datagrams(&mut self) {
        for udp in &mut self.udp {
            udp.flush();
        }
    }
}

/// Room for a datagram: the longest that there is, and the longest row of them that Linux joins.
/// Not a power of two, so that not every room begins at the same place of the processor's caches.
const ROOM_LEN: usize = 64 * 1024 + 512;

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use mio::{Events, Poll};

    use super::*;

    /// A socket in service at `ip`, and its poll.
    fn udp(ip: &str) -> (Udp, Poll) {
        let poll = Poll::new().unwrap();
        let address = SocketAddr::new(ip.parse().unwrap(), 0);
        let socket = UdpSocket::bind(address).unwrap();
        let udp = Udp::new(socket, Source::Udp(0), poll.registry()).unwrap();
        (udp, poll)
    }

    fn wait(udp: &mut Udp, poll: &mut Poll) {
        let mut events = Events::with_capacity(4);
        poll.poll(&mut events, Some(Duration::from_secs(20)))
            .unwrap();
        assert!(!events.is_empty());
        udp.set_readable();
    }

    #[test]
    fn answer_leaves_from_the_address_that_was_asked() {
        for (bound, asked) in [
            ("0.0.0.0", "127.0.0.9"),
            ("0.0.0.0", "127.0.0.1"),
            ("127.0.0.7", "127.0.0.7"),
            ("::", "::1"),
        ] {
            let asked: IpAddr = asked.parse().unwrap();
            let (mut udp, mut poll) = udp(bound);
            let asker = std::net::UdpSocket::bind((asked, 0)).unwrap();
            let limit = Some(Duration::from_secs(20));
            asker.set_read_timeout(limit).unwrap();
            let port = udp.local.port();
            asker.send_to(b"question", (asked, port)).unwrap();
            wait(&mut udp, &mut poll);

            let mut batch = Batch::new();
            udp.receive(&mut batch);
            let all: Vec<Datagram<'_>> = batch.datagrams().collect();
            assert_eq!(all.len(), 1);
            assert_eq!(all[0].bytes, b"question");
            assert_eq!(all[0].from, asker.local_addr().unwrap());
            assert_eq!(all[0].to, Some(asked), "{bound}");
            assert!(!udp.is_readable(), "one was all");

            udp.post(all[0].from, all[0].to, Bytes::from_static(b"answer"));
            udp.flush();
            let mut buffer = [0; 64];
            let (len, from) = asker.recv_from(&mut buffer).unwrap();
            assert_eq!(
                (&buffer[..len], from),
                (&b"answer"[..], (asked, port).into())
            );
        }
    }

    #[test]
    fn flood_is_read_in_batches_until_the_socket_is_dry() {
        let (mut udp, mut poll) = udp("127.0.0.1");
        let sender = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        for number in 0..=BATCH_SIZE {
            let bytes = vec![number as u8; number * 61];
            sender.send_to(&bytes, udp.local).unwrap();
            if number == 0 {
                wait(&mut udp, &mut poll);
            }
        }
        let mut batch = Batch::new();
        let mut lens = Vec::new();
        udp.receive(&mut batch);
        assert!(udp.is_readable(), "one is left");
        lens.extend(batch.datagrams().map(|d| d.bytes.len()));
        udp.receive(&mut batch);
        assert!(!udp.is_readable());
        lens.extend(batch.datagrams().map(|d| d.bytes.len()));
        let expected: Vec<usize> = (1..=BATCH_SIZE).map(|number| number * 61).collect();
        assert_eq!(lens, expected, "the empty one says nothing");
    }

    #[test]
    fn datagrams_that_the_system_has_joined_are_taken_apart() {
        let mut batch = Batch::new();
        batch.bytes[..10].copy_from_slice(b"aaaabbbbcc");
        (batch.meta[0].len, batch.meta[0].stride) = (10, 4);
        batch.filled = 1;
        let parts: Vec<&[u8]> = batch.datagrams().map(|d| d.bytes).collect();
        assert_eq!(parts, [&b"aaaa"[..], b"bbbb", b"cc"]);
    }

    #[test]
    fn datagrams_that_cannot_leave_are_counted_and_forgotten() {
        let (mut udp, mut poll) = udp("127.0.0.1");
        let to = |port| (Ipv4Addr::LOCALHOST, port).into();
        let short = || Bytes::from_static(b"x");
        udp.post(to(0), None, short());
        udp.post(udp.local, None, short());
        udp.post(to(9), None, vec![0; 70_000].into());
        udp.post(to(0), None, short());
        udp.post(udp.local, None, short());
        udp.flush();
        assert_eq!(udp.unsent, 3);
        wait(&mut udp, &mut poll);
        let mut batch = Batch::new();
        udp.receive(&mut batch);
        assert_eq!(batch.datagrams().count(), 2, "those between them leave");
        assert!(udp.outbox.is_empty());
    }

    #[test]
    fn more_datagrams_than_a_batch_leave_in_their_order() {
        let (mut udp, mut poll) = udp("127.0.0.1");
        let count = 3 * BATCH_SIZE + 1;
        for number in 0..count {
            udp.post(udp.local, None, vec![number as u8].into());
        }
        udp.flush();
        wait(&mut udp, &mut poll);
        let mut batch = Batch::new();
        let mut heard = Vec::new();
        while udp.is_readable() {
            udp.receive(&mut batch);
            heard.extend(batch.datagrams().map(|d| d.bytes[0]));
        }
        let sent: Vec<u8> = (0..count).map(|number| number as u8).collect();
        assert_eq!(heard, sent);
        assert_eq!(udp.unsent, 0);
    }
}
