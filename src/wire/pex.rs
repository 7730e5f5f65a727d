//! Peer exchange (BEP 11): the body of a `ut_pex` message.

use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};

use crate::base::limits::{PEX_DECODED_MAX, PEX_FIRST_MAX};

use super::bencode::{Encoder, Limits, Value};
use super::compact;
use super::decoder::WireError;

/// What changed among the sender's connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pex {
    /// Peers that it is connected to now, and what it knows of each.
    pub added: Vec<(SocketAddr, Flags)>,
    /// Peers that it told of before and that are gone.
    pub dropped: Vec<SocketAddr>,
}

/// What the sender knows of a peer (BEP 11, `added.f`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub u8);

impl Flags {
    /// It has everything, or wants nothing.
    pub const SEED: Self = Self(0x02);
    /// The sender has dialled it, so it can be reached. Says nothing if absent.
    pub const REACHABLE: Self = Self(0x10);

    /// Both sets.
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` are set.
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl Pex {
    /// Reads a body. Of `added` and of `dropped` the first [`PEX_DECODED_MAX`] are taken, IPv4
    /// before IPv6; of a list that ends inside an address, those before; flags that are not one
    /// byte a peer say nothing of any. Addresses may be of any kind, ports may be 0.
    ///
    /// # Errors
    /// If the body is no bencoded dictionary, or one nested too deep.
    pub fn decode(body: &[u8]) -> Result<Self, WireError> {
        let dict = Value::decode(body, Limits::WIRE)?;
        let entries = dict.as_dict().ok_or(WireError::NotADictionary)?;
        let [
            mut added,
            mut flags,
            mut added6,
            mut flags6,
            mut dropped,
            mut dropped6,
        ] = [&b""[..]; 6];
        for (key, value) in entries {
            let place = match key {
                b"added" => &mut added,
                b"added.f" => &mut flags,
                b"added6" => &mut added6,
                b"added6.f" => &mut flags6,
                b"dropped" => &mut dropped,
                b"dropped6" => &mut dropped6,
                _ => continue,
            };
            *place = value.as_bytes().unwrap_or_default();
        }
        let added = with_flags(compact::peers(added), flags)
            .into_iter()
            .chain(with_flags(compact::peers6(added6), flags6))
            .take(PEX_DECODED_MAX);
        let dropped = compact::peers(dropped)
            .chain(compact::peers6(dropped6))
            .take(PEX_DECODED_MAX);
        Ok(Self {
            added: added.collect(),
            dropped: dropped.collect(),
        })
    }

    /// The body of a message. Every key is there, and `added.f` has one byte a peer: libtorrent
    /// takes no `added` without it, although BEP 11 calls it optional.
    ///
    /// # Panics
    /// If there are more peers in a list than a first message may have.
    pub fn encode(&self) -> Vec<u8> {
        assert!(self.added.len() <= PEX_FIRST_MAX, "the sender counts");
        assert!(self.dropped.len() <= PEX_FIRST_MAX, "the sender counts");
        let (mut added, mut flags) = (Compact::default(), [Vec::new(), Vec::new()]);
        for &(addr, flag) in &self.added {
            flags[added.push(addr)].push(flag.0);
        }
        let mut dropped = Compact::default();
        for &addr in &self.dropped {
            dropped.push(addr);
        }
        let mut encoder = Encoder::default();
        encoder.dict_begin();
        encoder.key(b"added").bytes(&added.v4);
        encoder.key(b"added.f").bytes(&flags[0]);
        encoder.key(b"added6").bytes(&added.v6);
        encoder.key(b"added6.f").bytes(&flags[1]);
        encoder.key(b"dropped").bytes(&dropped.v4);
        encoder.key(b"dropped6").bytes(&dropped.v6);
        encoder.end();
        encoder.finish()
    }

    /// Whether it tells nothing.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.dropped.is_empty()
    }
}

/// Each peer with its flags.
fn with_flags(peers: impl Iterator<Item = SocketAddr>, flags: &[u8]) -> Vec<(SocketAddr, Flags)> {
    let peers: Vec<SocketAddr> = peers.collect();
    let flags = match flags.len() == peers.len() {
        true => flags,
        false => &vec![0; peers.len()],
    };
    let flags = flags.iter().copied().map(Flags);
    peers.into_iter().zip(flags).collect()
}

/// A list of peers in its two strings.
#[derive(Default)]
struct Compact {
    v4: Vec<u8>,
    v6: Vec<u8>,
}

impl Compact {
    /// Writes a peer; says into which of the two.
    fn push(&mut self, addr: SocketAddr) -> usize {
        match addr.ip().to_canonical() {
            IpAddr::V4(ip) => {
                let addr = SocketAddrV4::new(ip, addr.port());
                self.v4.extend(compact::encode_peer(addr));
                0
            }
            IpAddr::V6(ip) => {
                let addr = SocketAddrV6::new(ip, addr.port(), 0, 0);
                self.v6.extend(compact::encode_peer6(addr));
                1
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    type Peer = (SocketAddr, Flags);

    fn addr(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    fn example() -> Pex {
        Pex {
            added: vec![
                (addr("10.0.0.5:6881"), Flags::SEED.with(Flags::REACHABLE)),
                (addr("[fd00::5]:6881"), Flags(0)),
                (addr("10.0.0.6:6882"), Flags(0)),
            ],
            dropped: vec![addr("10.0.0.7:80"), addr("[fd00::7]:80")],
        }
    }

    /// BEP 11: compact addresses, a byte of flags for each, IPv6 apart.
    #[test]
    fn message_is_laid_out_as_in_bep_11() {
        let expected = b"d5:added12:\x0a\0\0\x05\x1a\xe1\x0a\0\0\x06\x1a\xe27:added.f2:\x12\0\
            6:added618:\xfd\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x05\x1a\xe18:added6.f1:\0\
            7:dropped6:\x0a\0\0\x07\0P8:dropped618:\xfd\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x07\0Pe";
        let body = example().encode();
        assert_eq!(
            body.escape_ascii().to_string(),
            expected.escape_ascii().to_string()
        );
        let mut told = example();
        told.added.swap(1, 2); // IPv4 comes first
        assert_eq!(Pex::decode(&body), Ok(told));
        let nothing =
            b"d5:added0:7:added.f0:6:added60:8:added6.f0:7:dropped0:8:dropped60:e".to_vec();
        assert_eq!(Pex::default().encode(), nothing);
        let mapped = Pex {
            dropped: vec![addr("[::ffff:10.0.0.7]:80")],
            ..Pex::default()
        };
        assert_eq!(
            Pex::decode(&mapped.encode()).map(|told| told.dropped),
            Ok(vec![addr("10.0.0.7:80")])
        );
    }

    #[test]
    fn odd_messages_give_what_is_whole() {
        let peer = (addr("10.0.0.5:6881"), Flags(0));
        let seed = (peer.0, Flags::SEED);
        #[rustfmt::skip]
        let cases: [(&str, &[u8], Vec<Peer>, usize); 11] = [
            ("empty",             b"de",                                            vec![],     0),
            ("flags",             b"d5:added6:\x0a\0\0\x05\x1a\xe17:added.f1:\x02e", vec![seed], 0),
            ("no flags",          b"d5:added6:\x0a\0\0\x05\x1a\xe1e",               vec![peer], 0),
            ("too many flags",    b"d5:added6:\x0a\0\0\x05\x1a\xe17:added.f2:\x02\x02e",
                                                                                    vec![peer], 0),
            ("too few flags",     b"d5:added6:\x0a\0\0\x05\x1a\xe17:added.f0:e",    vec![peer], 0),
            ("a tail of 5 bytes", b"d5:added11:\x0a\0\0\x05\x1a\xe112345e",         vec![peer], 0),
            ("a byte short",      b"d5:added5:\x0a\0\0\x05\x1ae",                   vec![],     0),
            ("17 bytes of IPv6",  b"d6:added617:0123456789abcdefge",                vec![],     0),
            ("other types",       b"d5:addedi5e7:added.fle7:droppeddee",            vec![],     0),
            ("dropped alone",     b"d7:dropped12:aaaaaabbbbbbe",                    vec![],     2),
            ("unknown keys",      b"d1:xi1e5:zeroslee",                             vec![],     0),
        ];
        for (name, body, added, dropped) in cases {
            let told = Pex::decode(body).expect(name);
            assert_eq!(told.added, added, "{name}");
            assert_eq!(told.dropped.len(), dropped, "{name}");
        }
        assert_eq!(Pex::decode(b"le"), Err(WireError::NotADictionary));
        assert!(matches!(Pex::decode(b"d"), Err(WireError::Bencode(_))));
    }

    #[test]
    fn peers_beyond_the_limit_are_not_read() {
        let v4: Vec<u8> = (0..40_u8).flat_map(|n| [10, 0, 0, n, 1, 1]).collect();
        let v6 = [7; 18 * 40];
        let mut encoder = Encoder::default();
        encoder.dict_begin();
        for (key, bytes) in [(&b"added"[..], &v4[..]), (b"added.f", &[2; 40])] {
            encoder.key(key).bytes(bytes);
        }
        encoder.key(b"added6").bytes(&v6);
        encoder.key(b"dropped").bytes(&v4.repeat(2));
        encoder.end();
        let told = Pex::decode(&encoder.finish()).expect("bencode");
        assert_eq!(told.added.len(), PEX_DECODED_MAX);
        let is_seed = |&(_, flags): &Peer| flags == Flags::SEED;
        assert_eq!(told.added.iter().filter(|peer| is_seed(peer)).count(), 40);
        assert_eq!(told.dropped.len(), PEX_DECODED_MAX);
    }

    #[test]
    fn no_cut_of_a_message_is_a_message() {
        let body = example().encode();
        for len in 0..body.len() {
            assert!(Pex::decode(&body[..len]).is_err(), "{len} B");
        }
    }

    #[test]
    fn random_and_mutated_messages_never_panic() {
        let whole = example().encode();
        let mut rng = Rng::new(11);
        let mut accepted = 0;
        for _ in 0..20_000 {
            let mut body = whole.clone();
            for _ in 0..=rng.below(3) {
                let at = rng.below(body.len() as u32) as usize;
                body[at] = rng.next_u64() as u8;
            }
            if let Ok(told) = Pex::decode(&body) {
                accepted += 1;
                let again = Pex::decode(&told.encode()).expect("ours is bencode");
                assert_eq!(again.added.len(), told.added.len());
                assert_eq!(again.dropped.len(), told.dropped.len());
            }
        }
        assert!(accepted > 2000, "only {accepted} accepted");
    }
}
