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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    const HASH: InfoHash = InfoHash([0xab; 20]);

    fn hash(n: u8) -> InfoHash {
        InfoHash([n; 20])
    }

    fn packet(fields: &str) -> Vec<u8> {
        format!("BT-SEARCH * HTTP/1.1\r\n{fields}\r\n\r\n").into_bytes()
    }

    /// Laid out as the clients' sources do; wire-facts of libtorrent 2.1, Transmission 4, rqbit 9.
    #[test]
    fn packets_of_other_clients_are_read() {
        let [a, b] = [hash(0xab), hash(0x12)];
        #[rustfmt::skip]
        let cases = [
            // client, fields                                                 port   hashes
            ("libtorrent",   format!("Host: 239.192.152.143:6771\r\nPort: 6881\r\nInfohash: {a}\r\n\
                                      cookie: 5f3a1c2b\r\n"),                  6881,  vec![a]),
            ("Transmission", format!("Host: 239.192.152.143:6771\r\nPort: 51413\r\n\
                                      Infohash: {a}\r\nInfohash: {b}\r\n\
                                      cookie: fvZ2q@!8Zp0-\r\n"),              51413, vec![a, b]),
            ("rqbit",        format!("Host: [ff15::efc0:988f]:6771\r\nPort: 4240\r\n\
                                      Infohash: {a}\r\ncookie: 4294967295\r\n"), 4240, vec![a]),
            ("aria2",        format!("Host: 239.192.152.143:6771\r\nPort: 6999\r\n\
                                      Infohash: {a}\r\n"),                     6999,  vec![a]),
        ];
        for (client, fields, port, info_hashes) in cases {
            let expected = Announcement {
                port,
                info_hashes,
                cookie: None,
            };
            assert_eq!(
                Announcement::decode(&packet(&fields)),
                Ok(expected),
                "{client}"
            );
        }
    }

    #[test]
    fn ours_is_laid_out_as_every_client_reads_it() {
        let cookie = Cookie::new(0);
        let expected = "BT-SEARCH * HTTP/1.1\r\nHost: 239.192.152.143:6771\r\nPort: 6881\r\n\
            Infohash: abababababababababababababababababababab\r\ncookie: 100000000\r\n\r\n\r\n";
        assert_eq!(encode(Family::V4, 6881, HASH, cookie), expected.as_bytes());
        let v6 = String::from_utf8(encode(Family::V6, 6881, HASH, cookie)).expect("ASCII");
        assert!(v6.contains("\r\nHost: [ff15::efc0:988f]:6771\r\n"), "{v6}");
    }

    #[test]
    fn cookie_has_nine_digits_and_is_known_again() {
        for random in [0, 1, 899_999_999, 900_000_000, u32::MAX] {
            let cookie = Cookie::new(random);
            assert_eq!(cookie.to_string().len(), COOKIE_LEN, "{random}");
            let told = Announcement::decode(&encode(Family::V6, 1, HASH, cookie));
            assert_eq!(told.map(|told| told.cookie), Ok(Some(cookie)));
        }
    }

    #[test]
    fn odd_packets_are_read_or_refused_for_the_right_reason() {
        let a = hash(0xab);
        let good = Announcement {
            port: 6881,
            info_hashes: vec![a],
            cookie: None,
        };
        #[rustfmt::skip]
        let cases = [
            // what                     fields                                            told
            ("names of any case",       format!("PORT:6881\r\ninfohash:\t{a} \r\n"),      None),
            ("upper-case digits",       format!("Port: 6881\r\nInfohash: {}\r\n",
                                                a.to_string().to_uppercase()),            None),
            ("a bad line among good",   format!("x\r\nPort: 6881\r\n\u{fffd}: 1\r\n\
                                                 Infohash: {a}\r\n"),                     None),
            ("a bad hash among good",   format!("Port: 6881\r\nInfohash: {}g\r\n\
                                                 Infohash: {a}\r\nInfohash: ab\r\n",
                                                "a".repeat(39)),                          None),
            ("the same hash twice",     format!("Port: 6881\r\nInfohash: {a}\r\n\
                                                 Infohash: {a}\r\n"),                     None),
            ("two ports: the first",    format!("Port: 6881\r\nPort: 1\r\n\
                                                 Infohash: {a}\r\n"),                     None),
            ("no port",                 format!("Infohash: {a}\r\n"),   Some(LsdError::BadPort)),
            ("port 0",                  format!("Port: 0\r\nInfohash: {a}\r\n"),
                                                                        Some(LsdError::BadPort)),
            ("port 65536",              format!("Port: 65536\r\nInfohash: {a}\r\n"),
                                                                        Some(LsdError::BadPort)),
            ("port 99999",              format!("Port: 99999\r\nInfohash: {a}\r\n"),
                                                                        Some(LsdError::BadPort)),
            ("port with a sign",        format!("Port: +6881\r\nInfohash: {a}\r\n"),
                                                                        Some(LsdError::BadPort)),
            ("empty port",              format!("Port: \r\nInfohash: {a}\r\n"),
                                                                        Some(LsdError::BadPort)),
            ("no hash",                 "Port: 6881\r\n".to_owned(), Some(LsdError::NoInfoHash)),
            ("only a bad hash",         "Port: 6881\r\nInfohash: xyz\r\n".to_owned(),
                                                                     Some(LsdError::NoInfoHash)),
            ("lines end with LF",       format!("Port: 6881\nInfohash: {a}\n"),
                                                                        Some(LsdError::BadPort)),
            ("hash after the end",      format!("Port: 6881\r\n\r\nInfohash: {a}\r\n"),
                                                                     Some(LsdError::NoInfoHash)),
        ];
        for (name, fields, refusal) in cases {
            let expected = refusal.map_or(Ok(good.clone()), Err);
            assert_eq!(Announcement::decode(&packet(&fields)), expected, "{name}");
        }
        let firsts = [
            &b""[..],
            b"\r\n",
            b"GET / HTTP/1.1\r\n",
            b"M-SEARCH * HTTP/1.1\r\n",
        ];
        for first in firsts {
            let packet = [first, b"Port: 1\r\n"].concat();
            assert_eq!(Announcement::decode(&packet), Err(LsdError::NotASearch));
        }
        let largest = packet(&format!("Port: 65535\r\nInfohash: {a}\r\n"));
        assert_eq!(
            Announcement::decode(&largest).map(|told| told.port),
            Ok(65535)
        );
    }

    #[test]
    fn hashes_beyond_the_limit_are_not_read() {
        let hashes: String = (0..200)
            .map(|n| format!("Infohash: {}\r\n", hash(n)))
            .collect();
        let told = Announcement::decode(&packet(&format!("Port: 1\r\n{hashes}")));
        let first: Vec<_> = (0..LSD_HASHES_MAX as u8).map(hash).collect();
        assert_eq!(told.map(|told| told.info_hashes), Ok(first));
    }

    /// A line that does not end is none: no cut of a packet tells of another port or hash.
    #[test]
    fn every_cut_of_a_packet_tells_the_same_or_nothing() {
        let cookie = Cookie::new(77);
        let whole = encode(Family::V4, 6881, HASH, cookie);
        let (mut told, mut silent) = (0, 0);
        for len in 0..=whole.len() {
            match Announcement::decode(&whole[..len]) {
                Ok(part) => {
                    assert_eq!((part.port, part.info_hashes), (6881, vec![HASH]), "{len} B");
                    told += 1;
                }
                Err(_) => silent += 1,
            }
        }
        // From the end of the hash's line on: the cookie's line and the end.
        assert_eq!(told, 1 + "cookie: 100000077\r\n\r\n\r\n".len());
        assert_eq!(silent, whole.len() + 1 - told);
        let long = [&whole[..22], "x".repeat(1400).as_bytes(), &whole[22..]].concat();
        assert_eq!(Announcement::decode(&long), Err(LsdError::BadPort));
    }

    #[test]
    fn random_and_mutated_packets_never_panic() {
        let whole = encode(Family::V4, 6881, HASH, Cookie::new(1));
        let mut rng = Rng::new(14);
        let mut accepted = 0;
        for _ in 0..20_000 {
            let mut packet = whole.clone();
            for _ in 0..rng.below(4) {
                let at = rng.below(packet.len() as u32) as usize;
                packet[at] = rng.next_u64() as u8;
            }
            if let Ok(told) = Announcement::decode(&packet) {
                accepted += 1;
                assert!(told.port != 0 && told.info_hashes.len() == 1);
            }
            let noise: Vec<u8> = (0..rng.below(300)).map(|_| rng.next_u64() as u8).collect();
            assert!(Announcement::decode(&noise).is_err());
        }
        assert!((5000..20_000).contains(&accepted), "{accepted} accepted");
    }
}
