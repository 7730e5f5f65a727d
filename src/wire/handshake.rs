//! The first 68 bytes of a peer connection (BEP 3, BEP 4), and the guess that comes before them:
//! peers and HTTP clients share one TCP port.

use crate::base::id::{InfoHash, PeerId};

/// The handshake of BEP 3: 0x13, the protocol's name, reserved bits, info hash, peer id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// What the sender can do.
    pub reserved: Reserved,
    /// The swarm that the connection is for.
    pub info_hash: InfoHash,
    /// Who the sender is.
    pub peer_id: PeerId,
}

impl Handshake {
    /// The bytes to send.
    pub fn encode(&self) -> [u8; HANDSHAKE_LEN] {
        let mut bytes = [0; HANDSHAKE_LEN];
        bytes[..20].copy_from_slice(PROTOCOL);
        bytes[20..28].copy_from_slice(&self.reserved.to_bytes());
        bytes[28..48].copy_from_slice(&self.info_hash.0);
        bytes[48..].copy_from_slice(&self.peer_id.0);
        bytes
    }

    /// Reads what a peer sent; reserved bits that we do not know are ignored (BEP 4).
    ///
    /// # Errors
    /// If the first 20 bytes are not those of BEP 3.
    pub fn decode(bytes: &[u8; HANDSHAKE_LEN]) -> Result<Self, NotAHandshake> {
        let (protocol, rest) = split::<20>(bytes);
        let (reserved, rest) = split::<8>(rest);
        let (info_hash, peer_id) = split::<20>(rest);
        if protocol != PROTOCOL {
            return Err(NotAHandshake);
        }
        Ok(Self {
            reserved: Reserved::from_bytes(*reserved),
            info_hash: InfoHash(*info_hash),
            peer_id: PeerId(*split::<20>(peer_id).0),
        })
    }
}

fn split<const N: usize>(bytes: &[u8]) -> (&[u8; N], &[u8]) {
    bytes
        .split_first_chunk()
        .expect("the parts of a handshake add up to its length")
}

/// The stream does not begin like BEP 3's handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a BitTorrent handshake")]
pub struct NotAHandshake;

/// The reserved bits that we know (BEP 4); a feature is used if both sides set its bit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reserved {
    /// The fast extension (BEP 6): byte 7, 0x04.
    pub fast: bool,
    /// The extension protocol (BEP 10): byte 5, 0x10.
    pub extended: bool,
    /// A DHT node (BEP 5): byte 7, 0x01.
    pub dht: bool,
}

impl Reserved {
    /// As they stand in the handshake; all other bits are zero.
    pub fn to_bytes(self) -> [u8; 8] {
        let mut bytes = [0; 8];
        if self.extended {
            bytes[5] |= EXTENDED_BIT;
        }
        if self.fast {
            bytes[7] |= FAST_BIT;
        }
        if self.dht {
            bytes[7] |= DHT_BIT;
        }
        bytes
    }

    /// Picks the known bits out of `bytes`.
    pub fn from_bytes(bytes: [u8; 8]) -> Self {
        Self {
            fast: bytes[7] & FAST_BIT != 0,
            extended: bytes[5] & EXTENDED_BIT != 0,
            dht: bytes[7] & DHT_BIT != 0,
        }
    }
}

/// What an incoming stream is, as far as its first bytes tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sniff {
    /// A peer: the 20 bytes of BEP 3 are there.
    Peer,
    /// An HTTP client: a method and a space are there.
    Http,
    /// The bytes fit one of them so far.
    NeedMore,
    /// The bytes fit neither, and no further byte will change that.
    Unknown,
}

/// Says what the stream that begins with `prefix` is.
///
/// One byte decides nothing: an encrypted handshake (MSE) begins with random bytes, so 0x13 or
/// `G` may come from there. 20 bytes always suffice.
pub fn sniff(prefix: &[u8]) -> Sniff {
    if prefix.starts_with(PROTOCOL) {
        return Sniff::Peer;
    }
    if METHODS.iter().any(|method| prefix.starts_with(method)) {
        return Sniff::Http;
    }
    let mut tokens = METHODS.iter().copied().chain([&PROTOCOL[..]]);
    match tokens.any(|token| token.starts_with(prefix)) {
        true => Sniff::NeedMore,
        false => Sniff::Unknown,
    }
}

/// Bytes of a handshake (BEP 3).
pub const HANDSHAKE_LEN: usize = 68;

/// The name's length and the name (BEP 3).
const PROTOCOL: &[u8; 20] = b"\x13BitTorrent protocol";
/// BEP 10, in byte 5.
const EXTENDED_BIT: u8 = 0x10;
/// BEP 6, in byte 7.
const FAST_BIT: u8 = 0x04;
/// BEP 5, in byte 7.
const DHT_BIT: u8 = 0x01;
/// RFC 9110, section 9, and RFC 5789: also those that we answer with "not allowed".
const METHODS: [&[u8]; 9] = [
    b"GET ",
    b"HEAD ",
    b"POST ",
    b"PUT ",
    b"DELETE ",
    b"CONNECT ",
    b"OPTIONS ",
    b"TRACE ",
    b"PATCH ",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    fn example() -> Handshake {
        Handshake {
            reserved: Reserved {
                fast: true,
                extended: true,
                dht: false,
            },
            info_hash: InfoHash([0xaa; 20]),
            peer_id: PeerId(*b"-EV0100-abcdefghijkl"),
        }
    }

    /// Written out by hand from the layouts of BEP 3, 6 and 10.
    #[test]
    fn handshake_is_laid_out_as_in_bep_3() {
        let mut expected = b"\x13BitTorrent protocol\0\0\0\0\0\x10\0\x04".to_vec();
        expected.extend_from_slice(&[0xaa; 20]);
        expected.extend_from_slice(b"-EV0100-abcdefghijkl");
        assert_eq!(example().encode()[..], expected);
        assert_eq!(Handshake::decode(&example().encode()), Ok(example()));
    }

    #[test]
    fn unknown_reserved_bits_are_ignored() {
        // wire-facts of libtorrent: v2 upgrade, NAT traversal; of Azureus: byte 0.
        let bits = Reserved::from_bytes([0x80, 0, 0, 0, 0, 0x11, 0, 0x18]);
        let extended = Reserved {
            extended: true,
            ..Reserved::default()
        };
        assert_eq!(bits, extended);
        let dht = Reserved {
            dht: true,
            ..Reserved::default()
        };
        assert_eq!(dht.to_bytes(), [0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(Reserved::from_bytes(dht.to_bytes()), dht);
    }

    /// Row 51 of the hostile inputs.
    #[test]
    fn any_other_protocol_name_is_refused() {
        for at in 0..20 {
            let mut bytes = example().encode();
            bytes[at] ^= 0x20;
            assert_eq!(Handshake::decode(&bytes), Err(NotAHandshake), "byte {at}");
        }
    }

    #[test]
    fn a_stream_is_told_as_early_as_its_bytes_allow() {
        let cases: [(&[u8], Sniff); 16] = [
            (b"", Sniff::NeedMore),
            (b"\x13", Sniff::NeedMore),
            (b"\x13BitTorrent protoco", Sniff::NeedMore),
            (b"\x13BitTorrent protocol", Sniff::Peer),
            (b"\x13BitTorrent protocol\0\0", Sniff::Peer),
            (b"\x13bit", Sniff::Unknown),
            (b"\x14", Sniff::Unknown),
            (b"G", Sniff::NeedMore),
            (b"GET", Sniff::NeedMore),
            (b"GET ", Sniff::Http),
            (b"GET /announce?", Sniff::Http),
            (b"GETX", Sniff::Unknown),
            (b"P", Sniff::NeedMore),
            (b"POST /", Sniff::Http),
            (b"get /", Sniff::Unknown),
            (b"\xff", Sniff::Unknown),
        ];
        for (prefix, expected) in cases {
            assert_eq!(sniff(prefix), expected, "{}", prefix.escape_ascii());
        }
    }

    /// A verdict never changes once given, and 20 bytes always give one.
    #[test]
    fn further_bytes_change_no_verdict() {
        let mut rng = Rng::new(0x5a1f);
        let starts: [&[u8]; 4] = [PROTOCOL, b"OPTIONS * HTTP/1.1\r\n", b"GET / HTTP/1.1", b""];
        for round in 0..4000 {
            let mut stream = starts[round % 4].to_vec();
            stream.truncate(rng.below(stream.len() as u32 + 1) as usize);
            stream.extend((0..20).map(|_| rng.next_u64() as u8));
            let mut verdict = Sniff::NeedMore;
            for len in 0..=stream.len() {
                let next = sniff(&stream[..len]);
                assert!(verdict == Sniff::NeedMore || verdict == next, "{stream:x?}");
                verdict = next;
            }
            assert_ne!(verdict, Sniff::NeedMore, "{stream:x?}");
        }
    }

    #[test]
    fn random_handshakes_decode_without_panic_and_encode_back() {
        let mut rng = Rng::new(68);
        for _ in 0..1000 {
            let mut bytes = example().encode();
            let from = 20 * (rng.below(2) as usize);
            bytes[from..].fill_with(|| rng.next_u64() as u8);
            if let Ok(handshake) = Handshake::decode(&bytes) {
                let mut known = bytes;
                known[20..28].copy_from_slice(&handshake.reserved.to_bytes());
                assert_eq!(handshake.encode(), known);
            }
        }
    }
}
