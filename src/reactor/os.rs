//! What differs between operating systems, with fallbacks that are right everywhere.

use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr};

use bytes::Bytes;
use mio::net::{TcpStream, UdpSocket};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{SockRef, Socket};

use crate::engine::action::Family;

/// Whether a read that does not fill its buffer, or a write that is not taken whole, says that
/// the socket is dry or full, so that the next event will tell when to go on (epoll(7), question
/// 9). Elsewhere another call finds out.
pub const SHORT_MEANS_WAIT: bool = cfg!(target_os = "linux");

/// Whether accepted streams have TCP_NODELAY from their listener.
pub const ACCEPTED_INHERIT_NODELAY: bool = cfg!(target_os = "linux");

/// Whether a socket that is closed leaves the poll by itself: epoll and kqueue let go of a
/// descriptor that nobody else has.
pub const CLOSING_DEREGISTERS: bool = cfg!(unix);

/// Writes the last bytes of `stream`, and ends it if all of them were taken: they leave with its
/// end in one segment where the system can hold them back for that.
///
/// # Errors
/// As of a write.
pub fn write_last(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    #[cfg(target_os = "linux")]
    let written = stream.try_io(|| {
        use rustix::net::{SendFlags, send};
        Ok(send(
            &*stream,
            bytes,
            SendFlags::MORE | SendFlags::NOSIGNAL,
        )?)
    });
    #[cfg(not(target_os = "linux"))]
    let written = io::Write::write(stream, bytes);
    if written.as_ref().is_ok_and(|&len| len == bytes.len()) {
        // It fails for a stream that is gone, of which the next event tells.
        let _ = stream.shutdown(Shutdown::Write);
    }
    written
}

/// Sends the first of `datagrams`, as many as the system takes in one call; says how many it took.
///
/// # Errors
/// As of the first of them, which has not left.
pub fn send_many(socket: &UdpSocket, datagrams: &[(SocketAddr, Bytes)]) -> io::Result<usize> {
    #[cfg(target_os = "linux")]
    {
        use rustix::net::addr::SocketAddrArg;
        use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, sendmmsg};
        if datagrams.len() > 1 {
            let to: Vec<_> = datagrams.iter().map(|(to, _)| to.as_any()).collect();
            let parts: Vec<_> = datagrams.iter().map(|(_, b)| [IoSlice::new(b)]).collect();
            let mut controls: Vec<_> = to.iter().map(|_| SendAncillaryBuffer::default()).collect();
            let mut heads: Vec<_> = to
                .iter()
                .zip(&parts)
                .zip(&mut controls)
                .map(|((to, parts), control)| MMsgHdr::new_with_addr(to, parts, control))
                .collect();
            let send = || Ok(sendmmsg(socket, &mut heads, SendFlags::NOSIGNAL)?);
            return socket.try_io(send);
        }
    }
    match datagrams.first() {
        Some((to, bytes)) => socket.send_to(bytes, *to).map(|_| 1),
        None => Ok(0),
    }
}

/// Where a socket binds to hear `group`. Where the system can, nothing else gets in there.
pub fn group_bind_address(group: SocketAddr) -> SocketAddr {
    if cfg!(target_os = "linux") {
        return group;
    }
    match group {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, group.port()).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, group.port()).into(),
    }
}

/// Lets `socket` hear a group on those interfaces only on which it is a member itself, not on
/// those of other programs. Elsewhere than on Linux that goes without saying.
pub fn hear_own_memberships_only(socket: &Socket, family: Family) {
    #[cfg(target_os = "linux")]
    {
        // Kernels that do not know the option are older than any that we run on.
        let _ = match family {
            Family::V4 => socket.set_multicast_all_v4(false),
            Family::V6 => socket.set_multicast_all_v6(false),
        };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (socket, family);
}

/// Has the system keep about `most` bytes of `stream` at most until they are read; `None`: much, as
/// it cannot be told again to find out itself.
pub fn bound_receive_buffer(stream: &TcpStream, most: Option<usize>) {
    let socket = SockRef::from(stream);
    // What it does not grant is its own measure, which is no failure.
    if let Err(error) = socket.set_recv_buffer_size(most.unwrap_or(RECEIVE_BUFFER_MAX)) {
        log::debug!("receive buffer not set error={error}");
    }
}

/// Raises the soft limit of descriptors to `wanted` or as near as the system allows; returns the
/// limit that holds now.
pub fn raise_descriptor_limit(wanted: u64) -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let soft = limit.current.unwrap_or(u64::MAX);
    if soft >= wanted {
        return soft;
    }
    let raised = limit.maximum.unwrap_or(u64::MAX).min(wanted);
    let new = Rlimit {
        current: Some(raised),
        maximum: limit.maximum,
    };
    match setrlimit(Resource::Nofile, new) {
        Ok(()) => raised,
        Err(_) => soft,
    }
}

/// Whether the process or the machine has no descriptor left.
pub fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::MFILE | Errno::NFILE)
    )
}

/// Whether the machine does not speak the address family at all: switched off at build, at boot
/// or by an administrator.
pub fn is_family_missing(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL | Errno::PROTONOSUPPORT)
    )
}

/// Whether `connect` goes on in the background.
pub fn is_connecting(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
        || Errno::from_io_error(error) == Some(Errno::INPROGRESS)
}

/// Whether the system could not read the bytes that it was to send: a mapped file was cut.
pub fn is_of_memory(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::FAULT)
}

/// Whether an error of `accept` belongs to the one connection that was taken from the queue, and
/// the next may be fine (accept(2)).
pub fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(
            Errno::CONNABORTED
                | Errno::CONNRESET
                | Errno::INTR
                | Errno::PROTO
                | Errno::NOPROTOOPT
                | Errno::NETDOWN
                | Errno::NETUNREACH
                | Errno::HOSTDOWN
                | Errno::HOSTUNREACH
                | Errno::OPNOTSUPP
                | Errno::TIMEDOUT
                | Errno::PERM
        )
    )
}

/// A receive buffer that never is what limits, bytes (Linux `tcp_rmem`: 6 MiB).
const RECEIVE_BUFFER_MAX: usize = 6 << 20;

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn receive_buffer_is_bounded_and_let_go_again() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let granted = |stream: &TcpStream| SockRef::from(stream).recv_buffer_size().unwrap();
        bound_receive_buffer(&stream, Some(16 * 1024));
        let bounded = granted(&stream);
        assert!((16 * 1024..=2 * 16 * 1024).contains(&bounded), "{bounded}");
        bound_receive_buffer(&stream, None);
        assert!(granted(&stream) >= 4 * bounded, "{}", granted(&stream));
    }
}
