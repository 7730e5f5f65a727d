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
        let added = with_flags(
            compact::peers(added),
            added.len() / compact::PEER_LEN,
            flags,
        )
        .chain(with_flags(
            compact::peers6(added6),
            added6.len() / compact::PEER6_LEN,
            flags6,
        ))
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

/// Pairs each of `count` peers with its flags.
fn with_flags<'a>(
    peers: impl Iterator<Item = SocketAddr> + 'a,
    count: usize,
    flags: &'a [u8],
) -> impl Iterator<Item = (SocketAddr, Flags)> + 'a {
    let flags = if flags.len() == count { flags } else { &[] };
    peers.enumerate().map(|(i, addr)| {
        let flag = flags.get(i).copied().unwrap_or_default();
        (addr, Flags(flag))
    })
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
