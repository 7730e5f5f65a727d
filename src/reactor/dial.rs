//! A stream to somewhere, for who may wait for it: before the loop runs.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

/// Opens a blocking stream to `remote`, from the address `bind` if one is given.
///
/// # Errors
/// The system's, [`io::ErrorKind::TimedOut`] among them; `bind` is of the other family.
pub fn dial(remote: SocketAddr, bind: Option<IpAddr>, timeout: Duration) -> io::Result<TcpStream> {
    let socket = Socket::new(
        Domain::for_address(remote),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    bind_to(&socket, bind, remote)?;
    socket.connect_timeout(&remote.into(), timeout)?;
    Ok(socket.into())
}

/// Makes `socket`, which is to be connected to `remote`, leave from the address `bind`.
pub fn bind_to(socket: &Socket, bind: Option<IpAddr>, remote: SocketAddr) -> io::Result<()> {
    match bind {
        Some(ip) if ip.is_ipv4() != remote.is_ipv4() => Err(io::Error::new(
            io::ErrorKind::AddrNotAvailable,
            "the address to connect from is of the other family",
        )),
        Some(ip) => socket.bind(&SocketAddr::new(ip, 0).into()),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    #[test]
    fn stream_comes_from_the_address_that_is_wanted() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let remote = listener.local_addr().unwrap();
        let bind = Some(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9)));
        let _stream = dial(remote, bind, Duration::from_secs(20)).unwrap();
        let (_accepted, from) = listener.accept().unwrap();
        assert_eq!(Some(from.ip()), bind);
        let other = Some("::1".parse().unwrap());
        let error = dial(remote, other, Duration::from_secs(20)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
    }
}
