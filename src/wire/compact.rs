//! Compact peer lists: 6 bytes an IPv4 peer (BEP 23), 18 bytes an IPv6 peer (BEP 7).

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// The peers in a `peers` (BEP 23) or `added` (BEP 11) string, in order.
///
/// Bytes after the last whole peer are ignored. Addresses may be of any kind, ports may be 0.
pub fn peers(bytes: &[u8]) -> impl Iterator<Item = SocketAddr> + '_ {
    let (peers, _tail) = bytes.as_chunks::<PEER_LEN>();
    peers.iter().map(|&[a, b, c, d, high, low]| {
        let port = u16::from_be_bytes([high, low]);
        SocketAddrV4::new(Ipv4Addr::new(a, b, c, d), port).into()
    })
}

/// The peers in a `peers6` (BEP 7) or `added6` (BEP 11) string, in order, as [`peers`].
pub fn peers6(bytes: &[u8]) -> impl Iterator<Item = SocketAddr> + '_ {
    let (peers, _tail) = bytes.as_chunks::<PEER6_LEN>();
    peers.iter().map(|peer| {
        let (ip, port) = peer.split_at(16);
        let ip: [u8; 16] = ip.try_into().expect("16 of 18 bytes");
        let port = u16::from_be_bytes([port[0], port[1]]);
        SocketAddrV6::new(Ipv6Addr::from(ip), port, 0, 0).into()
    })
}

/// One entry of a `peers` string.
pub fn encode_peer(addr: SocketAddrV4) -> [u8; PEER_LEN] {
    let [a, b, c, d] = addr.ip().octets();
    let [high, low] = addr.port().to_be_bytes();
    [a, b, c, d, high, low]
}

/// One entry of a `peers6` string.
pub fn encode_peer6(addr: SocketAddrV6) -> [u8; PEER6_LEN] {
    let mut bytes = [0; PEER6_LEN];
    bytes[..16].copy_from_slice(&addr.ip().octets());
    bytes[16..].copy_from_slice(&addr.port().to_be_bytes());
    bytes
}

/// Bytes of an IPv4 peer (BEP 23).
pub const PEER_LEN: usize = 6;
/// Bytes of an IPv6 peer (BEP 7).
pub const PEER6_LEN: usize = 18;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    /// Address and port in network byte order, as BEP 23 and BEP 7 say.
    #[test]
    fn addresses_are_in_network_byte_order() {
        let v4 = [10, 0, 0, 5, 0x1a, 0xe1, 127, 0, 0, 1, 0, 80];
        let expected = ["10.0.0.5:6881", "127.0.0.1:80"];
        assert_eq!(
            peers(&v4).map(|a| a.to_string()).collect::<Vec<_>>(),
            expected
        );

        let mut v6 = [0; 18];
        v6[..2].copy_from_slice(&[0xfd, 0x00]);
        v6[15..].copy_from_slice(&[5, 0x1a, 0xe1]);
        let expected = ["[fd00::5]:6881"];
        assert_eq!(
            peers6(&v6).map(|a| a.to_string()).collect::<Vec<_>>(),
            expected
        );
    }

    /// Row 81 of the hostile inputs: every cut of a list gives the peers that are whole.
    #[test]
    fn a_tail_is_ignored() {
        let bytes: Vec<u8> = (0..90).collect();
        for len in 0..=bytes.len() {
            assert_eq!(peers(&bytes[..len]).count(), len / 6);
            assert_eq!(peers6(&bytes[..len]).count(), len / 18);
        }
    }

    #[test]
    fn random_lists_encode_back_to_the_same_bytes() {
        let mut rng = Rng::new(23);
        for _ in 0..1000 {
            let len = rng.below(200) as usize;
            let bytes: Vec<u8> = (0..len).map(|_| rng.next_u64() as u8).collect();
            let mut v4 = Vec::new();
            for addr in peers(&bytes) {
                match addr {
                    SocketAddr::V4(addr) => v4.extend(encode_peer(addr)),
                    SocketAddr::V6(_) => panic!("{addr} out of a list of IPv4"),
                }
            }
            assert_eq!(v4, bytes[..len - len % 6]);
            let mut v6 = Vec::new();
            for addr in peers6(&bytes) {
                match addr {
                    SocketAddr::V6(addr) => v6.extend(encode_peer6(addr)),
                    SocketAddr::V4(_) => panic!("{addr} out of a list of IPv6"),
                }
            }
            assert_eq!(v6, bytes[..len - len % 18]);
        }
    }
}
