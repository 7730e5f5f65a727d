//! Local service discovery (BEP 14): the packet that says who has which torrent.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use crate::base::address::Family;
use crate::base::id::InfoHash;
use crate::base::limits::{LSD_HASHES_MAX, LSD_PACKET_LEN_MAX};

/// What a packet says; who said it is the sender of the datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// The TCP port on which the sender accepts peers, not 0.
    pub port: u16,
    /// The torrents that it has, the first [`LSD_HASHES_MAX`] of them.
    pub info_hashes: Vec<InfoHash>,
    /// Whatever it put into its packets to know them again, if that could be ours.
    pub cookie: Option<Cookie>,
}

/// Tells our own packets from those of others.
///
/// A decimal number of nine digits, which every client bears: libtorrent reads hex, rqbit decimal,
/// Transmission any twelve characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cookie(u32);

/// Why a packet says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LsdError {
    /// It does not begin as BEP 14 says, or not as text of lines.
    #[error("no BT-SEARCH request")]
    NotASearch,
    /// There is no port, or one that is no number from 1 to 65535.
    #[error("no port from 1 to 65535")]
    BadPort,
    /// No line has an info hash of 40 hex digits.
    #[error("no info hash of 40 hex digits")]
    NoInfoHash,
}

impl Announcement {
    /// Reads a packet. Lines that are malformed or of no known name are skipped; the first `Port`
    /// and the first `cookie` count.
    ///
    /// # Errors
    /// If it says nothing of use.
    pub fn decode(packet: &[u8]) -> Result<Self, LsdError> {
        let packet = &packet[..packet.len().min(LSD_PACKET_LEN_MAX)];
        let (first, mut rest) = line(packet).ok_or(LsdError::NotASearch)?;
        if !matches!(first, b"BT-SEARCH * HTTP/1.1" | b"BT-SEARCH * HTTP/1.0") {
            return Err(LsdError::NotASearch);
        }
        let (mut port, mut cookie, mut info_hashes) = (None, None, Vec::new());
        while let Some((field, after)) = line(rest)
            && !field.is_empty()
        {
            rest = after;
            let Some((name, value)) = named(field) else {
                continue;
            };
            if name.eq_ignore_ascii_case("port") {
                port.get_or_insert(value);
            } else if name.eq_ignore_ascii_case("cookie") {
                cookie.get_or_insert(value);
            } else if name.eq_ignore_ascii_case("infohash")
                && info_hashes.len() < LSD_HASHES_MAX
                && let Ok(info_hash) = value.parse()
                && !info_hashes.contains(&info_hash)
            {
                info_hashes.push(info_hash);
            }
        }
        let port = port.and_then(listen_port).ok_or(LsdError::BadPort)?;
        if info_hashes.is_empty() {
            return Err(LsdError::NoInfoHash);
        }
        let cookie = cookie.and_then(Cookie::read);
        Ok(Self {
            port,
            info_hashes,
            cookie,
        })
    }
}

/// The packet that says to the group of `family` that a peer on `port` has `info_hash`.
///
/// One hash a packet, since rqbit reads but the last; `Host` is there, since it demands one.
pub fn encode(family: Family, port: u16, info_hash: InfoHash, cookie: Cookie) -> Vec<u8> {
    let host = group(family);
    format!(
        "BT-SEARCH * HTTP/1.1\r\nHost: {host}\r\nPort: {port}\r\nInfohash: {info_hash}\r\n\
        cookie: {cookie}\r\n\r\n\r\n"
    )
    .into_bytes()
}

/// The multicast group and port of local discovery.
pub fn group(family: Family) -> SocketAddr {
    match family {
        Family::V4 => SocketAddr::V4(GROUP_V4),
        Family::V6 => SocketAddr::V6(GROUP_V6),
    }
}

impl Cookie {
    /// The cookie that belongs to a random number.
    pub fn new(random: u32) -> Self {
        Self(COOKIE_MIN + random % (COOKIE_END - COOKIE_MIN))
    }

    fn read(text: &str) -> Option<Self> {
        let is_one = text.len() == COOKIE_LEN && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = is_one.then(|| text.parse().ok()).flatten();
        number.filter(|&number| number >= COOKIE_MIN).map(Self)
    }
}

impl fmt::Display for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The first line of `text` without its end, and what follows; `None` if it does not end.
fn line(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let len = text.windows(2).position(|pair| pair == b"\r\n")?;
    Some((&text[..len], &text[len + 2..]))
}

/// The name and the value of a line.
fn named(line: &[u8]) -> Option<(&str, &str)> {
    let (name, value) = str::from_utf8(line).ok()?.split_once(':')?;
    Some((name, value.trim_matches([' ', '\t'])))
}

fn listen_port(text: &str) -> Option<u16> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    let port = is_number.then(|| text.parse().ok()).flatten();
    port.filter(|&port| port != 0)
}

const PORT: u16 = 6771;
const GROUP_V4: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(239, 192, 152, 143), PORT);
const GROUP_V6: SocketAddrV6 = SocketAddrV6::new(
    Ipv6Addr::new(0xff15, 0, 0, 0, 0, 0, 0xefc0, 0x988f),
    PORT,
    0,
    0,
);
const COOKIE_LEN: usize = 9;
const COOKIE_MIN: u32 = 100_000_000;
const COOKIE_END: u32 = 1_000_000_000;
