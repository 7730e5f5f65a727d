//! The UDP side of the port. Nothing of ours speaks UDP yet: datagrams are read and dropped, so
//! that they do not fill the kernel's buffers, and the number stays ours.

use std::io;

use mio::net::UdpSocket;

/// One family's socket.
#[derive(Debug)]
pub struct Udp {
    socket: UdpSocket,
    is_readable: bool,
}

impl Udp {
    /// Takes a socket that is bound and registered.
    pub fn new(socket: UdpSocket) -> Self {
        Self {
            socket,
            is_readable: false,
        }
    }

    /// An event says that there are datagrams.
    pub fn set_readable(&mut self) {
        self.is_readable = true;
    }

    /// Whether a turn would find something.
    pub fn is_readable(&self) -> bool {
        self.is_readable
    }

    /// Drops what has arrived, [`DATAGRAMS_MAX`] at most.
    pub fn turn(&mut self, buffer: &mut [u8]) {
        for _ in 0..DATAGRAMS_MAX {
            if !self.is_readable {
                return;
            }
            match self.socket.recv_from(buffer) {
                Ok((len, remote)) => log::trace!("datagram dropped remote={remote} len={len}"),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.is_readable = false,
                // Interrupted, or the answer of some host to what was sent earlier.
                Err(_) => {}
            }
        }
    }
}

/// Datagrams of one socket that are read in a pass of the loop at most.
const DATAGRAMS_MAX: u32 = 64;

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use mio::{Events, Interest, Poll, Token};

    use super::*;

    #[test]
    fn flood_is_drained_in_turns_of_bounded_length() {
        let mut poll = Poll::new().unwrap();
        let mut socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let address = socket.local_addr().unwrap();
        poll.registry()
            .register(&mut socket, Token(0), Interest::READABLE)
            .unwrap();
        let sender = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        for _ in 0..=DATAGRAMS_MAX {
            sender.send_to(b"x", address).unwrap();
        }
        let mut events = Events::with_capacity(4);
        poll.poll(&mut events, Some(Duration::from_secs(20)))
            .unwrap();
        assert!(!events.is_empty());

        let mut udp = Udp::new(socket);
        udp.set_readable();
        let mut buffer = [0; 2048];
        udp.turn(&mut buffer);
        assert!(udp.is_readable(), "one is left");
        udp.turn(&mut buffer);
        assert!(!udp.is_readable());
    }
}
