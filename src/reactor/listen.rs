//! Opens the one port: TCP and UDP, IPv4 and IPv6, four sockets on one number.
//!
//! The families have a socket each (V6ONLY), so that a machine without one of them still
//! starts, and every remote address is of the family that it came by.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use mio::net::{TcpListener, UdpSocket};
use socket2::{Domain, Protocol, Socket, Type};

use super::os;

/// The open port.
#[derive(Debug)]
pub struct Port {
    /// Its number, the same for all sockets.
    pub number: u16,
    /// One listening socket a family.
    pub tcp: Vec<TcpListener>,
    /// One socket a family.
    pub udp: Vec<UdpSocket>,
}

/// Why the port could not be opened, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another process has it.
    #[error(
        "port {} is in use ({transport} {address}): stop the other program or choose another \
         with -p",
        address.port()
    )]
    InUse {
        /// TCP or UDP.
        transport: Transport,
        /// The address that was asked for.
        address: SocketAddr,
    },
    /// Ports below 1024 are for the administrator.
    #[error(
        "not allowed to open port {} ({transport} {address}): choose one above 1023 with -p",
        address.port()
    )]
    NotAllowed {
        /// TCP or UDP.
        transport: Transport,
        /// The address that was asked for.
        address: SocketAddr,
    },
    /// The address given with `--bind` is of no interface of this machine.
    #[error(
        "no interface of this machine has the address {address}: \
         give one that it has to --bind"
    )]
    NotHere {
        /// The address that was asked for.
        address: IpAddr,
    },
    /// No number was free for all four sockets, many times over.
    #[error(
        "no port is free for TCP and UDP at once after {attempts} attempts: choose one with -p"
    )]
    NoneFree {
        /// Numbers that were tried.
        attempts: u32,
    },
    /// The machine has neither IPv4 nor IPv6.
    #[error("this machine offers neither IPv4 nor IPv6: configure a network interface")]
    NoFamily,
    /// Anything else that the system says.
    #[error("cannot open {transport} {address}: {source}")]
    Other {
        /// TCP or UDP.
        transport: Transport,
        /// The address that was asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

/// The two protocols that share the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Peers and tracker announces.
    Tcp,
    /// Datagrams.
    Udp,
}

impl std::fmt::Display for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        })
    }
}

/// Opens `port` on `bind`, or on every address of the machine. Port 0 takes a number that is
/// free for all sockets.
///
/// # Errors
/// See [`ListenError`]; sockets that were open already are closed again.
pub fn open(port: u16, bind: Option<IpAddr>) -> Result<Port, ListenError> {
    if port != 0 {
        return open_number(port, bind);
    }
    for _ in 0..ATTEMPTS_MAX {
        match open_number(0, bind) {
            // The number was free for the first socket, but not for another.
            Err(ListenError::InUse { .. }) => {}
            other => return other,
        }
    }
    Err(ListenError::NoneFree {
        attempts: ATTEMPTS_MAX,
    })
}

/// Opens all sockets on one number: on `number` or, if that is 0, on what the first one gets.
fn open_number(number: u16, bind: Option<IpAddr>) -> Result<Port, ListenError> {
    let mut port = Port {
        number,
        tcp: Vec::new(),
        udp: Vec::new(),
    };
    let all = [
        IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    ];
    let given = bind.map(|ip| [ip]);
    let addresses = given.as_ref().map_or(&all[..], |ip| &ip[..]);
    for &ip in addresses {
        let address = SocketAddr::new(ip, port.number);
        let listener = match open_socket(Transport::Tcp, address) {
            Ok(socket) => TcpListener::from_std(socket.into()),
            Err(e) if bind.is_none() && os::is_family_missing(&e) => {
                log::info!("address family missing address={ip} error={e}");
                continue;
            }
            Err(e) => return Err(named(e, Transport::Tcp, address)),
        };
        let address = listener
            .local_addr()
            .map_err(|e| named(e, Transport::Tcp, address))?;
        let udp =
            open_socket(Transport::Udp, address).map_err(|e| named(e, Transport::Udp, address))?;
        port.number = address.port();
        port.tcp.push(listener);
        port.udp.push(UdpSocket::from_std(udp.into()));
    }
    if port.tcp.is_empty() {
        return Err(ListenError::NoFamily);
    }
    Ok(port)
}

/// One socket, non-blocking and closed on exec, bound to `address`.
fn open_socket(transport: Transport, address: SocketAddr) -> io::Result<Socket> {
    let (kind, protocol) = match transport {
        Transport::Tcp => (Type::STREAM, Protocol::TCP),
        Transport::Udp => (Type::DGRAM, Protocol::UDP),
    };
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if transport == Transport::Tcp {
        // A restart must not wait for the last run's connections to leave TIME_WAIT. For UDP the
        // same option would let two processes share the port.
        socket.set_reuse_address(true)?;
        // Without it a block's last segment can wait 40 ms for an acknowledgement. What is
        // accepted inherits it on some systems (see `os`).
        socket.set_tcp_nodelay(true)?;
    } else {
        // As much as the system allows: the loop may be busy with payload for some milliseconds.
        let _ = socket.set_recv_buffer_size(UDP_BUFFER_LEN);
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    if transport == Transport::Tcp {
        socket.listen(BACKLOG)?;
    }
    Ok(socket)
}

/// Gives the system's refusal its name and remedy.
fn named(source: io::Error, transport: Transport, address: SocketAddr) -> ListenError {
    match source.kind() {
        io::ErrorKind::AddrInUse => ListenError::InUse { transport, address },
        io::ErrorKind::PermissionDenied => ListenError::NotAllowed { transport, address },
        io::ErrorKind::AddrNotAvailable => ListenError::NotHere {
            address: address.ip(),
        },
        _ => ListenError::Other {
            transport,
            address,
            source,
        },
    }
}

/// Connections that the kernel completes before we accept them; it cuts this down to its own
/// limit (net.core.somaxconn, 4096).
const BACKLOG: i32 = 4096;
/// Bytes of datagrams that the kernel keeps for us, its own bookkeeping among them; it cuts this
/// down to its own limit (net.core.rmem_max).
const UDP_BUFFER_LEN: usize = 4 * 1024 * 1024;
/// Numbers tried for port 0.
const ATTEMPTS_MAX: u32 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_zero_gives_all_sockets_one_number() {
        let port = open(0, None).unwrap();
        assert_ne!(port.number, 0);
        assert_eq!(port.tcp.len(), port.udp.len());
        for (tcp, udp) in port.tcp.iter().zip(&port.udp) {
            assert_eq!(tcp.local_addr().unwrap().port(), port.number);
            assert_eq!(udp.local_addr().unwrap(), tcp.local_addr().unwrap());
        }
    }

    #[test]
    fn accepted_streams_do_not_hold_back_short_segments() {
        let port = open(0, Some(IpAddr::V4(Ipv4Addr::LOCALHOST))).unwrap();
        let address = port.tcp[0].local_addr().unwrap();
        let _stream = std::net::TcpStream::connect(address).unwrap();
        let (accepted, _) = port.tcp[0].accept().unwrap();
        assert_eq!(
            accepted.nodelay().unwrap(),
            os::ACCEPTED_INHERIT_NODELAY,
            "or the reactor has to set it"
        );
    }

    #[test]
    fn bind_opens_that_address_only() {
        let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let port = open(0, Some(ip)).unwrap();
        assert_eq!((port.tcp.len(), port.udp.len()), (1, 1));
        assert_eq!(port.tcp[0].local_addr().unwrap().ip(), ip);
    }

    #[test]
    fn port_in_use_is_named_with_its_remedy() {
        let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let first = open(0, Some(ip)).unwrap();
        let number = first.number;
        let error = open(number, Some(ip)).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "port {number} is in use (TCP 127.0.0.1:{number}): stop the other program or \
                 choose another with -p"
            )
        );
    }

    #[test]
    fn port_in_use_by_udp_alone_is_refused_too() {
        let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let udp = std::net::UdpSocket::bind((ip, 0)).unwrap();
        let number = udp.local_addr().unwrap().port();
        // Another test may have got the TCP side of that number; then that is named.
        let error = open(number, Some(ip)).unwrap_err();
        assert!(matches!(error, ListenError::InUse { .. }), "{error}");
        assert!(error.to_string().contains(&format!("127.0.0.1:{number}")));
    }

    #[test]
    fn address_of_another_machine_is_named() {
        let ip: IpAddr = "192.0.2.1".parse().unwrap(); // TEST-NET-1, RFC 5737
        let error = open(0, Some(ip)).unwrap_err();
        assert!(matches!(error, ListenError::NotHere { address } if address == ip));
    }
}
