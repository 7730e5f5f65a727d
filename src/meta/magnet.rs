//! Magnet links (BEP 9): an info hash with hints where to begin.

use std::fmt;
use std::fmt::Write as _;

use super::metainfo::Metainfo;
use super::{paths, trackers};
use crate::base::id::InfoHash;
use crate::base::limits::{MAGNET_PEERS_MAX, TRACKERS_MAX};

/// What a magnet link says. `Display` writes it as a link again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Magnet {
    /// The torrent (`xt`).
    pub info_hash: InfoHash,
    /// What it is called until the metainfo is there (`dn`); for people, not a path.
    pub name: Option<String>,
    /// Tracker addresses (`tr`), each once and a tier of its own.
    pub trackers: Vec<String>,
    /// Peers to begin with (`x.pe`), each once.
    pub peers: Vec<MagnetPeer>,
}

/// The address of a peer as a link names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MagnetPeer {
    /// A name or an address; one of IPv6 without brackets.
    pub host: String,
    /// The port, not 0.
    pub port: u16,
}

/// Why a text is not a magnet link that we take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MagnetError {
    /// It begins with something else.
    #[error("not a magnet link: it does not begin with \"magnet:?\"")]
    NotAMagnet,
    /// There is no `xt` of a torrent.
    #[error("magnet link without \"xt=urn:btih:\" and an info hash")]
    NoInfoHash,
    /// What follows `urn:btih:` is no info hash.
    #[error("info hash in the magnet link is neither 40 hex digits nor 32 of base 32")]
    BadInfoHash,
    /// It names different torrents.
    #[error("magnet link with more than one info hash")]
    SeveralInfoHashes,
    /// It names a torrent of version 2 only.
    #[error("magnet link of a version 2 torrent (BEP 52), which this program does not read")]
    OnlyVersion2,
}

impl Magnet {
    /// Reads a link. What is not understood is left out, but for the info hash.
    ///
    /// # Errors
    /// If the link does not name exactly one torrent.
    pub fn parse(link: &str) -> Result<Self, MagnetError> {
        let prefix = link.get(..PREFIX.len()).unwrap_or_default();
        if !prefix.eq_ignore_ascii_case(PREFIX) {
            return Err(MagnetError::NotAMagnet);
        }
        let mut found = Found::default();
        for parameter in link[PREFIX.len()..].split('&') {
            let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            found.take(key, &percent_decoded(value))?;
        }
        let no_hash = match found.version_2 {
            true => MagnetError::OnlyVersion2,
            false => MagnetError::NoInfoHash,
        };
        Ok(Self {
            info_hash: found.info_hash.ok_or(no_hash)?,
            name: found.name,
            trackers: found.trackers,
            peers: found.peers,
        })
    }

    /// The link to a torrent: its hash, name and trackers.
    pub fn of(meta: &Metainfo) -> Self {
        Self {
            info_hash: meta.info_hash,
            name: Some(meta.name.clone()),
            trackers: meta.trackers.iter().flatten().cloned().collect(),
            peers: Vec::new(),
        }
    }
}

impl fmt::Display for Magnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}xt=urn:btih:{}", self.info_hash)?;
        if let Some(name) = &self.name {
            write!(f, "&dn={}", percent_encoded(name))?;
        }
        for url in &self.trackers {
            write!(f, "&tr={}", percent_encoded(url))?;
        }
        self.peers
            .iter()
            .try_for_each(|peer| write!(f, "&x.pe={peer}"))
    }
}

impl fmt::Display for MagnetPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl MagnetPeer {
    /// Reads `host:port`.
    fn parse(text: &[u8]) -> Option<Self> {
        let (host, port) = trackers::split_port(str::from_utf8(text).ok()?)?;
        let port = port
            .filter(|port| trackers::is_number(port))?
            .parse()
            .ok()?;
        if port == 0 || !trackers::is_host(host) {
            return None;
        }
        let host = host.trim_matches(['[', ']']).to_owned();
        Some(Self { host, port })
    }
}

/// The parameters seen so far.
#[derive(Default)]
struct Found {
    info_hash: Option<InfoHash>,
    version_2: bool,
    name: Option<String>,
    trackers: Vec<String>,
    peers: Vec<MagnetPeer>,
}

impl Found {
    fn take(&mut self, key: &str, value: &[u8]) -> Result<(), MagnetError> {
        // Several of a kind may be numbered: `tr.1`, `xt.2`.
        let numbered = key
            .rsplit_once('.')
            .filter(|(_, number)| trackers::is_number(number));
        match numbered.map_or(key, |(key, _)| key) {
            "xt" => self.take_topic(value)?,
            "dn" if self.name.is_none() && !value.is_empty() => {
                self.name = Some(paths::printable(value));
            }
            "tr" => self.take_tracker(value),
            "x.pe" => self.take_peer(value),
            _ => {}
        }
        Ok(())
    }

    fn take_topic(&mut self, topic: &[u8]) -> Result<(), MagnetError> {
        if strip_prefix(topic, b"urn:btmh:").is_some() {
            self.version_2 = true;
        }
        let Some(digits) = strip_prefix(topic, b"urn:btih:") else {
            return Ok(());
        };
        let hash = info_hash(digits).ok_or(MagnetError::BadInfoHash)?;
        match self.info_hash.replace(hash) {
            Some(other) if other != hash => Err(MagnetError::SeveralInfoHashes),
            Some(_) | None => Ok(()),
        }
    }

    fn take_tracker(&mut self, url: &[u8]) {
        let has_room = self.trackers.len() < TRACKERS_MAX;
        if let Some(url) = trackers::accepted(url).filter(|_| has_room)
            && !self.trackers.iter().any(|known| known == url)
        {
            self.trackers.push(url.to_owned());
        }
    }

    fn take_peer(&mut self, address: &[u8]) {
        let has_room = self.peers.len() < MAGNET_PEERS_MAX;
        if let Some(peer) = MagnetPeer::parse(address).filter(|_| has_room)
            && !self.peers.contains(&peer)
        {
            self.peers.push(peer);
        }
    }
}

/// `text` after `prefix`, which may be in either case.
fn strip_prefix<'a>(text: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    let (front, rest) = text.split_at_checked(prefix.len())?;
    front.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// Reads 40 hex digits, or 32 digits of base 32 (RFC 4648), in either case.
fn info_hash(digits: &[u8]) -> Option<InfoHash> {
    if digits.len() != 32 {
        return str::from_utf8(digits).ok()?.parse().ok();
    }
    let mut hash = [0; 20];
    for (bytes, digits) in hash.chunks_exact_mut(5).zip(digits.chunks_exact(8)) {
        let bits = digits.iter().try_fold(0_u64, |bits, &digit| {
            let value = match digit.to_ascii_uppercase() {
                letter @ b'A'..=b'Z' => letter - b'A',
                number @ b'2'..=b'7' => number - b'2' + 26,
                _ => return None,
            };
            Some(bits << 5 | u64::from(value))
        })?;
        bytes.copy_from_slice(&bits.to_be_bytes()[3..]);
    }
    Some(InfoHash(hash))
}

/// Undoes the escapes of a query; a `%` that begins none stands for itself.
fn percent_decoded(text: &str) -> Vec<u8> {
    let hex = |byte: Option<&u8>| char::from(*byte?).to_digit(16);
    let mut rest = text.as_bytes();
    let mut bytes = Vec::with_capacity(rest.len());
    while let [first, after @ ..] = rest {
        rest = after;
        bytes.push(match first {
            b'+' => b' ',
            b'%' => match (hex(after.first()), hex(after.get(1))) {
                (Some(high), Some(low)) => {
                    rest = &after[2..];
                    (high * 16 + low) as u8
                }
                _ => b'%',
            },
            byte => *byte,
        });
    }
    bytes
}

fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "%{byte:02X}").expect("writing to a String cannot fail");
        }
    }
    encoded
}

/// What every magnet link begins with.
const PREFIX: &str = "magnet:?";

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "0123456789abcdef0123456789abcdef01234567";
    /// The same hash by Python's `base64.b32encode`.
    const BASE_32: &str = "AERUKZ4JVPG66AJDIVTYTK6N54ASGRLH";

    #[test]
    fn exactly_one_info_hash_is_read() {
        let upper = HEX.to_uppercase();
        let lower_32 = BASE_32.to_lowercase();
        let v2 = format!("xt=urn:btmh:1220{HEX}{}", &HEX[..24]);
        let good = Ok(HEX.parse().unwrap());
        let cases = [
            // what it shows      parameters                                        outcome
            ("hex", format!("xt=urn:btih:{HEX}"), good),
            ("upper case", format!("xt=urn:btih:{upper}"), good),
            ("upper case urn", format!("xt=URN:BTIH:{HEX}"), good),
            ("escaped urn", format!("xt=urn%3Abtih%3a{HEX}"), good),
            ("base 32", format!("xt=urn:btih:{BASE_32}"), good),
            ("lower base 32", format!("xt=urn:btih:{lower_32}"), good),
            ("numbered", format!("xt.1=urn:btih:{HEX}"), good),
            ("last", format!("dn=x&xt=urn:btih:{HEX}"), good),
            (
                "same twice",
                format!("xt=urn:btih:{HEX}&xt=urn:btih:{BASE_32}"),
                good,
            ),
            ("hybrid", format!("{v2}&xt=urn:btih:{HEX}"), good),
            ("version 2", v2, Err(MagnetError::OnlyVersion2)),
            (
                "two",
                format!("xt=urn:btih:{HEX}&xt=urn:btih:{}", "0".repeat(40)),
                Err(MagnetError::SeveralInfoHashes),
            ),
            ("none", "dn=x".to_owned(), Err(MagnetError::NoInfoHash)),
            (
                "another urn",
                "xt=urn:sha1:x".to_owned(),
                Err(MagnetError::NoInfoHash),
            ),
            ("nothing", String::new(), Err(MagnetError::NoInfoHash)),
            (
                "short",
                format!("xt=urn:btih:{}", &HEX[1..]),
                Err(MagnetError::BadInfoHash),
            ),
            (
                "not base 32",
                format!("xt=urn:btih:{}1", &BASE_32[1..]),
                Err(MagnetError::BadInfoHash),
            ),
            (
                "escaped zero",
                format!("xt=urn:btih:{HEX}%00"),
                Err(MagnetError::BadInfoHash),
            ),
        ];
        for (name, parameters, outcome) in cases {
            let found = Magnet::parse(&format!("magnet:?{parameters}"));
            assert_eq!(found.map(|magnet| magnet.info_hash), outcome, "{name}");
        }
        for link in ["", "magnet:", "http://a", "magnét:?", HEX] {
            assert_eq!(Magnet::parse(link), Err(MagnetError::NotAMagnet), "{link}");
        }
    }

    #[test]
    fn hints_are_read_and_the_bad_ones_left_out() {
        let link = format!(
            "MAGNET:?xt=urn:btih:{HEX}&dn=a+b%00%e4%zz&dn=second&tr=http%3A%2F%2Fa%3A1%2Fx\
             &tr.1=udp://b:2&tr=http://a:1/x&tr=file:///x&x.pe=127.0.0.1:6881&x.pe=[::1]:1\
             &x.pe=host:0&x.pe=host&x.pe=%5B::1%5D:1&x.pe=:1&so=0-2&&=&x"
        );
        let magnet = Magnet::parse(&link).unwrap();
        assert_eq!(magnet.name.as_deref(), Some("a b\\u{0}\\xe4%zz"));
        assert_eq!(magnet.trackers, ["http://a:1/x", "udp://b:2"]);
        let peers: Vec<_> = magnet.peers.iter().map(MagnetPeer::to_string).collect();
        assert_eq!(peers, ["127.0.0.1:6881", "[::1]:1"]);
        assert_eq!(magnet.peers[1].host, "::1");
    }

    #[test]
    fn a_link_reads_as_it_was_written() {
        let magnet = Magnet {
            info_hash: HEX.parse().unwrap(),
            name: Some("a &=#%+ü".to_owned()),
            trackers: vec!["http://a/x?y=1&z".to_owned()],
            peers: vec![MagnetPeer {
                host: "::1".to_owned(),
                port: 9,
            }],
        };
        assert_eq!(Magnet::parse(&magnet.to_string()), Ok(magnet));
    }

    #[test]
    fn hints_are_bounded() {
        let mut link = format!("magnet:?xt=urn:btih:{HEX}");
        for i in 1..=10_000 {
            write!(link, "&tr=http://host{i}/&x.pe=host:{i}").unwrap();
        }
        let magnet = Magnet::parse(&link).unwrap();
        assert_eq!(magnet.trackers.len(), TRACKERS_MAX);
        assert_eq!(magnet.peers.len(), MAGNET_PEERS_MAX);
    }
}
