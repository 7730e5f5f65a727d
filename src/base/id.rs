//! Identifiers that cross module borders, each a type of its own.

use std::fmt;
use std::str::FromStr;

/// SHA-1 of a torrent's info dictionary (BEP 3): the name of a swarm.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InfoHash(pub [u8; 20]);

impl InfoHash {
    /// The first eight hex digits, for log lines.
    pub fn short(&self) -> String {
        hex(&self.0[..4])
    }
}

impl fmt::Display for InfoHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for InfoHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InfoHash({self})")
    }
}

impl FromStr for InfoHash {
    type Err = NotAnInfoHash;

    /// Reads 40 hex digits of either case.
    fn from_str(text: &str) -> Result<Self, NotAnInfoHash> {
        let digits = text.as_bytes();
        if digits.len() != 40 {
            return Err(NotAnInfoHash);
        }
        let mut bytes = [0; 20];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let high = char::from(pair[0]).to_digit(16).ok_or(NotAnInfoHash)?;
            let low = char::from(pair[1]).to_digit(16).ok_or(NotAnInfoHash)?;
            *byte = (high * 16 + low) as u8;
        }
        Ok(Self(bytes))
    }
}

/// The text is not 40 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an info hash is 40 hex digits")]
pub struct NotAnInfoHash;

/// Names one of several requests of a kind, so that its answer is not taken for that of another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

impl Ticket {
    /// The next one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// The 20 bytes that name a running client (BEP 3, BEP 20); new for every process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub [u8; 20]);

impl PeerId {
    /// Our id: `-EV`, four version characters, `-`, and twelve random characters (BEP 20).
    pub fn ours(random: [u8; 12]) -> Self {
        const ALPHABET: &[u8; 64] =
            b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz.~";
        let mut id = *b"-EV0100-............";
        for (place, byte) in id[8..].iter_mut().zip(random) {
            *place = ALPHABET[usize::from(byte % 64)];
        }
        Self(id)
    }

    /// Whether it names an evpeer. Anybody may say so: good for manners, not for trust.
    pub fn is_evpeer(&self) -> bool {
        self.0.starts_with(b"-EV")
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for &byte in &self.0 {
            if byte.is_ascii_graphic() {
                write!(f, "{}", char::from(byte))?;
            } else {
                write!(f, "%{byte:02x}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerId({self})")
    }
}

/// One TCP stream, as the engine numbers them: a slab index and the generation of its use.
///
/// An id of a closed connection resolves to nothing, even after its index is used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId {
    /// Place in the slab; small and dense.
    pub index: u32,
    /// Which use of that place.
    pub generation: u32,
}

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.index, self.generation)
    }
}

/// One torrent of this process; never used again after the torrent is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TorrentId(pub u32);

impl fmt::Display for TorrentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Index of a piece, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PieceIndex(pub u32);

impl PieceIndex {
    /// For slice arithmetic.
    pub fn as_usize(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for PieceIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Lower-case hex digits of `bytes`.
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        write!(text, "{byte:02x}").expect("writing to a String cannot fail");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn info_hash_reads_what_it_prints() {
        let hash = InfoHash([0xa5; 20]);
        assert_eq!(hash.to_string().parse(), Ok(hash));
        assert_eq!(hash.to_string().to_uppercase().parse(), Ok(hash));
        assert_eq!("a5".parse::<InfoHash>(), Err(NotAnInfoHash));
        assert_eq!("zz".repeat(20).parse::<InfoHash>(), Err(NotAnInfoHash));
    }

    #[test]
    fn our_peer_id_names_client_and_version() {
        let id = PeerId::ours([255; 12]);
        assert!(id.to_string().starts_with("-EV0100-"));
        assert_eq!(id.to_string().len(), 20);
    }
}
