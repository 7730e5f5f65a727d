//! Datagrams between a client and a UDP tracker, both directions (BEP 15, options BEP 41).
//!
//! ```text
//! request:  connection 8 │ action 4 │ transaction 4 │ body
//! reply:                   action 4 │ transaction 4 │ body
//! ```
//!
//! All numbers are big-endian. Nothing here knows which connection ids are good, or whom a reply
//! was asked of. What a body has beyond its known part is ignored, so that options may follow.

use std::net::Ipv4Addr;

use super::announce::{Announce, Event};
use crate::base::id::{InfoHash, PeerId};

/// What a client asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// A connection id, which proves later that the client has the address it comes from.
    Connect {
        /// Comes back in the reply.
        transaction: u32,
    },
    /// To be listed, and to be told peers.
    Announce {
        /// What the tracker gave.
        connection: u64,
        /// Comes back in the reply.
        transaction: u32,
        /// Its parameters.
        announce: UdpAnnounce,
        /// Path and query of the tracker's address (BEP 41 `URLData`). Empty: none. Encoded
        /// only, at most [`URL_DATA_LEN_MAX`] bytes of it; a decoded request has none.
        url_data: &'a str,
    },
    /// The sizes of swarms.
    Scrape {
        /// What the tracker gave.
        connection: u64,
        /// Comes back in the reply.
        transaction: u32,
        /// The swarms, at most [`SCRAPE_HASHES_MAX`] when decoded.
        hashes: &'a [[u8; 20]],
    },
}

/// The parameters of an announce over UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpAnnounce {
    /// The swarm.
    pub info_hash: InfoHash,
    /// Who asks.
    pub peer_id: PeerId,
    /// Bytes of payload received since `started`.
    pub downloaded: u64,
    /// Bytes still missing; 0 makes a seed. Clients that do not know send `u64::MAX`.
    pub left: u64,
    /// Bytes of payload sent since `started`.
    pub uploaded: u64,
    /// What happened; numbers that BEP 15 does not have are none.
    pub event: Option<Event>,
    /// Nothing more is wanted, though bytes are left: told where nothing else happened. BEP 21 has
    /// `event=paused` for this; its number here is that of libtorrent. Most trackers ignore it, and
    /// some, as chihaya ("malformed event ID"), refuse the announce.
    pub is_paused: bool,
    /// An address to be listed instead of the sender's, which trackers rightly ignore.
    pub ip: Option<Ipv4Addr>,
    /// Names the client across changes of its address.
    pub key: u32,
    /// Peers to be told; `None` (−1, and every other negative number): as the tracker likes.
    pub numwant: Option<u32>,
    /// The port on which the client accepts peers.
    pub port: u16,
}

/// What a tracker answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply<'a> {
    /// A connection id.
    Connect {
        /// As in the request.
        transaction: u32,
        /// To be used for the next minute.
        connection: u64,
    },
    /// Peers.
    Announce {
        /// As in the request.
        transaction: u32,
        /// Seconds until the next announce.
        interval: u32,
        /// Peers that lack something.
        leechers: u32,
        /// Peers that have everything.
        seeders: u32,
        /// Compact peers: 6 bytes each if the datagram came by IPv4, 18 if by IPv6.
        peers: &'a [u8],
    },
    /// Sizes of swarms, in the order of the request.
    Scrape {
        /// As in the request.
        transaction: u32,
        /// See [`ScrapeEntry`].
        entries: &'a [[u8; ScrapeEntry::LEN]],
    },
    /// A refusal.
    Error {
        /// As in the request.
        transaction: u32,
        /// The tracker's words: any bytes.
        message: &'a [u8],
    },
}

/// The size of one swarm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScrapeEntry {
    /// Peers that have everything.
    pub seeders: u32,
    /// Downloads that ended, ever.
    pub completed: u32,
    /// Peers that lack something.
    pub leechers: u32,
}

/// Why a datagram is no request, or no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UdpTrackerError {
    /// Less than its action needs.
    #[error("tracker datagram of {len} B is cut short")]
    TooShort {
        /// Bytes that it has.
        len: usize,
    },
    /// A request to connect that does not begin with BEP 15's number.
    #[error("a connect request without the protocol's number")]
    WrongProtocol,
    /// An action that BEP 15 does not have in this direction.
    #[error("tracker action {action}")]
    UnknownAction {
        /// Its number.
        action: u32,
    },
    /// A scrape of nothing, or of more than fits.
    #[error("a scrape of {count} swarms, limit {SCRAPE_HASHES_MAX}")]
    WrongScrape {
        /// Whole info hashes in it.
        count: usize,
    },
}

impl<'a> Request<'a> {
    /// Reads a datagram that came to a tracker.
    ///
    /// # Errors
    /// If it is no request of BEP 15.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, UdpTrackerError> {
        let mut fields = Fields::new(bytes);
        let connection = fields.u64()?;
        let action = fields.u32()?;
        let transaction = fields.u32()?;
        match action {
            CONNECT if connection == PROTOCOL_ID => Ok(Self::Connect { transaction }),
            CONNECT => Err(UdpTrackerError::WrongProtocol),
            ANNOUNCE => Ok(Self::Announce {
                connection,
                transaction,
                announce: UdpAnnounce::decode(&mut fields)?,
                url_data: "",
            }),
            SCRAPE => {
                let (hashes, _tail) = fields.rest.as_chunks();
                if !(1..=SCRAPE_HASHES_MAX).contains(&hashes.len()) {
                    let count = hashes.len();
                    return Err(UdpTrackerError::WrongScrape { count });
                }
                Ok(Self::Scrape {
                    connection,
                    transaction,
                    hashes,
                })
            }
            _ => Err(UdpTrackerError::UnknownAction { action }),
        }
    }

    /// Appends the datagram to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut head = |connection: u64, action: u32, transaction: u32| {
            out.extend_from_slice(&connection.to_be_bytes());
            put(out, &[action, transaction]);
        };
        match *self {
            Self::Connect { transaction } => head(PROTOCOL_ID, CONNECT, transaction),
            Self::Announce {
                connection,
                transaction,
                announce,
                url_data,
            } => {
                head(connection, ANNOUNCE, transaction);
                announce.encode(out);
                put_url_data(out, url_data);
            }
            Self::Scrape {
                connection,
                transaction,
                hashes,
            } => {
                head(connection, SCRAPE, transaction);
                out.extend_from_slice(hashes.as_flattened());
            }
        }
    }
}

impl UdpAnnounce {
    /// The same announce as an HTTP tracker would get, without the tracker's id.
    pub fn of(announce: &Announce) -> Self {
        Self {
            info_hash: announce.info_hash,
            peer_id: announce.peer_id,
            downloaded: announce.downloaded,
            left: announce.left,
            uploaded: announce.uploaded,
            event: announce.event,
            is_paused: announce.is_paused,
            ip: None,
            key: announce.key,
            numwant: Some(announce.numwant),
            port: announce.port,
        }
    }

    /// Whether it has the event that BEP 15 does not have.
    pub fn says_paused(&self) -> bool {
        self.event.is_none() && self.is_paused
    }

    fn decode(fields: &mut Fields<'_>) -> Result<Self, UdpTrackerError> {
        let info_hash = InfoHash(*fields.array()?);
        let peer_id = PeerId(*fields.array()?);
        let [downloaded, left, uploaded] = [fields.u64()?, fields.u64()?, fields.u64()?];
        let event = fields.u32()?;
        Ok(Self {
            info_hash,
            peer_id,
            downloaded,
            left,
            uploaded,
            event: event_of(event),
            is_paused: event == PAUSED,
            ip: Some(Ipv4Addr::from(*fields.array::<4>()?)).filter(|ip| !ip.is_unspecified()),
            key: fields.u32()?,
            numwant: Some(fields.u32()?).filter(|&count| i32::try_from(count).is_ok()),
            port: u16::from_be_bytes(*fields.array()?),
        })
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.info_hash.0);
        out.extend_from_slice(&self.peer_id.0);
        for count in [self.downloaded, self.left, self.uploaded] {
            out.extend_from_slice(&count.to_be_bytes());
        }
        let ip = self.ip.map_or(0, Ipv4Addr::to_bits);
        let numwant = self
            .numwant
            .map_or(-1, |count| i32::try_from(count).unwrap_or(i32::MAX));
        let event = match self.event {
            None if self.says_paused() => PAUSED,
            event => number_of(event),
        };
        put(out, &[event, ip, self.key, numwant as u32]);
        out.extend_from_slice(&self.port.to_be_bytes());
    }
}

impl<'a> Reply<'a> {
    /// Reads a datagram that came from a tracker.
    ///
    /// # Errors
    /// If it is no reply of BEP 15.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, UdpTrackerError> {
        let mut fields = Fields::new(bytes);
        let action = fields.u32()?;
        let transaction = fields.u32()?;
        match action {
            CONNECT => Ok(Self::Connect {
                transaction,
                connection: fields.u64()?,
            }),
            ANNOUNCE => Ok(Self::Announce {
                transaction,
                interval: fields.u32()?,
                leechers: fields.u32()?,
                seeders: fields.u32()?,
                peers: fields.rest,
            }),
            SCRAPE => Ok(Self::Scrape {
                transaction,
                entries: fields.rest.as_chunks().0,
            }),
            ERROR => Ok(Self::Error {
                transaction,
                message: fields.rest,
            }),
            _ => Err(UdpTrackerError::UnknownAction { action }),
        }
    }

    /// Appends the datagram to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match *self {
            Self::Connect {
                transaction,
                connection,
            } => {
                put(out, &[CONNECT, transaction]);
                out.extend_from_slice(&connection.to_be_bytes());
            }
            Self::Announce {
                transaction,
                interval,
                leechers,
                seeders,
                peers,
            } => {
                put(out, &[ANNOUNCE, transaction, interval, leechers, seeders]);
                out.extend_from_slice(peers);
            }
            Self::Scrape {
                transaction,
                entries,
            } => {
                put(out, &[SCRAPE, transaction]);
                out.extend_from_slice(entries.as_flattened());
            }
            Self::Error {
                transaction,
                message,
            } => {
                put(out, &[ERROR, transaction]);
                out.extend_from_slice(message);
            }
        }
    }

    /// Which request is answered.
    pub fn transaction(&self) -> u32 {
        match *self {
            Self::Connect { transaction, .. }
            | Self::Announce { transaction, .. }
            | Self::Scrape { transaction, .. }
            | Self::Error { transaction, .. } => transaction,
        }
    }
}

impl ScrapeEntry {
    /// Bytes of an entry.
    pub const LEN: usize = 12;

    /// Reads an entry.
    pub fn from_bytes(bytes: &[u8; Self::LEN]) -> Self {
        let &[a, b, c, d, e, f, g, h, i, j, k, l] = bytes;
        Self {
            seeders: u32::from_be_bytes([a, b, c, d]),
            completed: u32::from_be_bytes([e, f, g, h]),
            leechers: u32::from_be_bytes([i, j, k, l]),
        }
    }

    /// Writes an entry.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..4].copy_from_slice(&self.seeders.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.completed.to_be_bytes());
        bytes[8..].copy_from_slice(&self.leechers.to_be_bytes());
        bytes
    }
}

/// Takes fixed fields from the front of a datagram.
struct Fields<'a> {
    rest: &'a [u8],
    len: usize,
}

impl<'a> Fields<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self {
            rest: bytes,
            len: bytes.len(),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<&'a [u8; N], UdpTrackerError> {
        let too_short = UdpTrackerError::TooShort { len: self.len };
        let (field, rest) = self.rest.split_first_chunk().ok_or(too_short)?;
        self.rest = rest;
        Ok(field)
    }

    fn u32(&mut self) -> Result<u32, UdpTrackerError> {
        self.array().map(|bytes| u32::from_be_bytes(*bytes))
    }

    fn u64(&mut self) -> Result<u64, UdpTrackerError> {
        self.array().map(|bytes| u64::from_be_bytes(*bytes))
    }
}

fn put(out: &mut Vec<u8>, numbers: &[u32]) {
    for number in numbers {
        out.extend_from_slice(&number.to_be_bytes());
    }
}

/// BEP 41: options of at most 255 bytes each, which the tracker joins.
fn put_url_data(out: &mut Vec<u8>, url_data: &str) {
    let data = url_data.as_bytes();
    let data = &data[..data.len().min(URL_DATA_LEN_MAX)];
    for part in data.chunks(usize::from(u8::MAX)) {
        out.extend_from_slice(&[OPTION_URL_DATA, part.len() as u8]);
        out.extend_from_slice(part);
    }
    if !data.is_empty() {
        out.push(OPTION_END);
    }
}

fn event_of(number: u32) -> Option<Event> {
    match number {
        1 => Some(Event::Completed),
        2 => Some(Event::Started),
        3 => Some(Event::Stopped),
        _ => None,
    }
}

fn number_of(event: Option<Event>) -> u32 {
    match event {
        None => 0,
        Some(Event::Completed) => 1,
        Some(Event::Started) => 2,
        Some(Event::Stopped) => 3,
    }
}

/// The event of a client that wants nothing more though it does not have everything (libtorrent).
const PAUSED: u32 = 4;
/// What a request to connect begins with (BEP 15).
pub const PROTOCOL_ID: u64 = 0x0417_2710_1980;
/// Bytes of a request to connect, and of what every request begins with.
pub const CONNECT_LEN: usize = 16;
/// Bytes of the reply to it.
pub const CONNECT_REPLY_LEN: usize = 16;
/// Bytes of an announce without options.
pub const ANNOUNCE_LEN: usize = 98;
/// Bytes of the reply to it before the peers.
pub const ANNOUNCE_REPLY_LEN_MIN: usize = 20;
/// Info hashes in one scrape at most (BEP 15: about 74).
pub const SCRAPE_HASHES_MAX: usize = 74;
/// Bytes of an address' path and query that are sent at most: the datagram stays in one packet.
pub const URL_DATA_LEN_MAX: usize = 1020;

const CONNECT: u32 = 0;
const ANNOUNCE: u32 = 1;
const SCRAPE: u32 = 2;
const ERROR: u32 = 3;
const OPTION_END: u8 = 0;
const OPTION_URL_DATA: u8 = 2;

const _: () = assert!(ANNOUNCE_LEN + URL_DATA_LEN_MAX + 2 * 4 < 1200, "one packet");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    fn announce() -> UdpAnnounce {
        UdpAnnounce {
            info_hash: InfoHash([0xaa; 20]),
            peer_id: PeerId([0xbb; 20]),
            downloaded: 1,
            left: 2,
            uploaded: 3,
            event: Some(Event::Started),
            is_paused: false,
            ip: None,
            key: 0xbeef,
            numwant: None,
            port: 6881,
        }
    }

    fn announce_request(announce: UdpAnnounce, url_data: &str) -> Request<'_> {
        Request::Announce {
            connection: 0x0102_0304_0506_0708,
            transaction: 0x1122_3344,
            announce,
            url_data,
        }
    }

    fn bytes_of(encode: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = b"before".to_vec();
        encode(&mut out);
        assert!(out.starts_with(b"before"), "it is appended");
        out.split_off(6)
    }

    /// Offsets and numbers of the tables in BEP 15.
    fn requests() -> Vec<(&'static str, Vec<u8>, Request<'static>)> {
        let connect = b"\0\0\x04\x17\x27\x10\x19\x80\0\0\0\0\x11\x22\x33\x44".to_vec();
        let mut asked = b"\x01\x02\x03\x04\x05\x06\x07\x08\0\0\0\x01\x11\x22\x33\x44".to_vec();
        asked.extend([[0xaa; 20], [0xbb; 20]].concat());
        asked.extend(b"\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x03");
        asked.extend(b"\0\0\0\x02\0\0\0\0\0\0\xbe\xef\xff\xff\xff\xff\x1a\xe1");
        let mut scrape = b"\x01\x02\x03\x04\x05\x06\x07\x08\0\0\0\x02\x11\x22\x33\x44".to_vec();
        scrape.extend([[1; 20], [2; 20]].concat());
        let transaction = 0x1122_3344;
        vec![
            ("connect", connect, Request::Connect { transaction }),
            ("announce", asked, announce_request(announce(), "")),
            (
                "scrape",
                scrape,
                Request::Scrape {
                    connection: 0x0102_0304_0506_0708,
                    transaction,
                    hashes: &[[1; 20], [2; 20]],
                },
            ),
        ]
    }

    fn replies() -> Vec<(&'static str, Vec<u8>, Reply<'static>)> {
        let transaction = 0x1122_3344;
        vec![
            (
                "connect",
                b"\0\0\0\0\x11\x22\x33\x44\x01\x02\x03\x04\x05\x06\x07\x08".to_vec(),
                Reply::Connect {
                    transaction,
                    connection: 0x0102_0304_0506_0708,
                },
            ),
            (
                "announce",
                b"\0\0\0\x01\x11\x22\x33\x44\0\0\x07\x08\0\0\0\x05\0\0\0\x06\x0a\0\0\x01\x1a\xe1"
                    .to_vec(),
                Reply::Announce {
                    transaction,
                    interval: 1800,
                    leechers: 5,
                    seeders: 6,
                    peers: b"\x0a\0\0\x01\x1a\xe1",
                },
            ),
            (
                "scrape",
                b"\0\0\0\x02\x11\x22\x33\x44\0\0\0\x01\0\0\0\x02\0\0\0\x03".to_vec(),
                Reply::Scrape {
                    transaction,
                    entries: &[[0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3]],
                },
            ),
            (
                "error",
                b"\0\0\0\x03\x11\x22\x33\x44no".to_vec(),
                Reply::Error {
                    transaction,
                    message: b"no",
                },
            ),
        ]
    }

    #[test]
    fn datagrams_are_laid_out_as_the_bep_says() {
        for (name, bytes, request) in requests() {
            assert_eq!(Request::decode(&bytes), Ok(request), "{name}");
            assert_eq!(bytes_of(|out| request.encode(out)), bytes, "{name}");
        }
        for (name, bytes, reply) in replies() {
            assert_eq!(Reply::decode(&bytes), Ok(reply), "{name}");
            assert_eq!(bytes_of(|out| reply.encode(out)), bytes, "{name}");
            assert_eq!(reply.transaction(), 0x1122_3344, "{name}");
        }
        let (_, connect, _) = &requests()[0];
        let (_, asked, _) = &requests()[1];
        assert_eq!((connect.len(), asked.len()), (CONNECT_LEN, ANNOUNCE_LEN));
        assert_eq!(replies()[0].1.len(), CONNECT_REPLY_LEN);
    }

    /// Row 84 of the hostile inputs: short by each length.
    #[test]
    fn what_is_cut_short_is_refused() {
        for (name, bytes, _) in requests() {
            for len in 0..bytes.len() {
                let whole = (name == "scrape" && len >= 36).then_some(());
                let decoded = Request::decode(&bytes[..len]);
                assert_eq!(decoded.is_ok(), whole.is_some(), "{name}, {len} B");
            }
        }
        for (name, bytes, _) in replies() {
            let fixed = match name {
                "connect" => CONNECT_REPLY_LEN,
                "announce" => ANNOUNCE_REPLY_LEN_MIN,
                _ => 8,
            };
            for len in 0..bytes.len() {
                let decoded = Reply::decode(&bytes[..len]);
                let error = UdpTrackerError::TooShort { len };
                assert_eq!(
                    decoded.err(),
                    (len < fixed).then_some(error),
                    "{name}, {len} B"
                );
            }
        }
    }

    #[test]
    fn what_is_no_request_is_refused_with_its_reason() {
        let mut foreign = requests()[0].1.clone();
        foreign[0] = 1;
        let error = UdpTrackerError::WrongProtocol;
        assert_eq!(Request::decode(&foreign), Err(error));
        for action in [3, 4, u32::MAX] {
            let mut bytes = requests()[1].1.clone();
            bytes[8..12].copy_from_slice(&action.to_be_bytes());
            let error = UdpTrackerError::UnknownAction { action };
            assert_eq!(Request::decode(&bytes), Err(error));
        }
        let error = UdpTrackerError::UnknownAction { action: 4 };
        assert_eq!(Reply::decode(b"\0\0\0\x04\0\0\0\0"), Err(error));
        for count in [0, SCRAPE_HASHES_MAX, SCRAPE_HASHES_MAX + 1] {
            let mut bytes = requests()[2].1[..16].to_vec();
            bytes.resize(16 + 20 * count + 19, 7);
            let is_wrong = !(1..=SCRAPE_HASHES_MAX).contains(&count);
            let error = is_wrong.then_some(UdpTrackerError::WrongScrape { count });
            assert_eq!(Request::decode(&bytes).err(), error);
        }
    }

    #[test]
    fn numbers_of_an_announce_mean_what_the_bep_says() {
        let (_, plain, _) = &requests()[1];
        let with = |at: usize, bytes: &[u8]| {
            let mut changed = plain.clone();
            changed[at..at + bytes.len()].copy_from_slice(bytes);
            match Request::decode(&changed) {
                Ok(Request::Announce { announce, .. }) => announce,
                other => panic!("{other:?}"),
            }
        };
        let events = [
            None,
            Some(Event::Completed),
            Some(Event::Started),
            Some(Event::Stopped),
        ];
        for (number, event) in (0u8..).zip(events).chain([(4, None), (255, None)]) {
            let read = with(80, &[0, 0, 0, number]);
            assert_eq!(
                (read.event, read.is_paused),
                (event, number == 4),
                "{number}"
            );
        }
        let written = |event| {
            let announce = UdpAnnounce {
                event,
                is_paused: true,
                ..announce()
            };
            let mut out = Vec::new();
            announce.encode(&mut out);
            out[67]
        };
        assert_eq!((written(None), written(Some(Event::Stopped))), (4, 3));
        assert_eq!(
            with(84, &[10, 0, 0, 1]).ip,
            Some(Ipv4Addr::new(10, 0, 0, 1))
        );
        let wanted = [
            ([0xff; 4], None),
            ([0x80, 0, 0, 0], None),
            ([0; 4], Some(0)),
            ([0x7f, 0xff, 0xff, 0xff], Some(i32::MAX as u32)),
        ];
        for (bytes, numwant) in wanted {
            assert_eq!(with(92, &bytes).numwant, numwant, "{bytes:?}");
        }
        assert_eq!(with(64, &[0xff; 8]).left, u64::MAX);
    }

    /// BEP 41; the known part stays what it is, whatever follows.
    #[test]
    fn path_and_query_follow_as_options() {
        let asked =
            |url_data: &str| bytes_of(|out| announce_request(announce(), url_data).encode(out));
        let short = asked("/dir?a=b");
        assert_eq!(short[ANNOUNCE_LEN..], *b"\x02\x08/dir?a=b\0");
        let long = "/".repeat(3000);
        let options = &asked(&long)[ANNOUNCE_LEN..];
        assert_eq!(options.len(), URL_DATA_LEN_MAX + 2 * 4 + 1);
        for part in options[..options.len() - 1].chunks(257) {
            assert_eq!(part[..2], [2, 255]);
            assert!(part[2..].iter().all(|&byte| byte == b'/'));
        }
        let decoded = Request::decode(&short);
        assert_eq!(decoded, Ok(announce_request(announce(), "")));
    }

    #[test]
    fn random_datagrams_come_back_or_are_refused() {
        let mut rng = Rng::new(15);
        for round in 0..50_000 {
            let len = rng.below(140) as usize;
            let mut bytes: Vec<u8> = (0..len).map(|_| rng.next_u64() as u8).collect();
            let at = if round % 2 == 0 { 0 } else { 8 };
            if let Some(action) = bytes.get_mut(at..at + 4) {
                action.copy_from_slice(&rng.below(5).to_be_bytes());
            }
            if let Ok(request) = Request::decode(&bytes) {
                let again = bytes_of(|out| request.encode(out));
                assert_eq!(Request::decode(&again), Ok(request));
            }
            if let Ok(reply) = Reply::decode(&bytes) {
                let again = bytes_of(|out| reply.encode(out));
                assert_eq!(Reply::decode(&again), Ok(reply));
                assert!(bytes.starts_with(&again));
            }
        }
    }

    #[test]
    fn scrape_entries_come_back() {
        let bytes = *b"\0\0\0\x01\0\0\0\x02\0\0\0\x03";
        let entry = ScrapeEntry {
            seeders: 1,
            completed: 2,
            leechers: 3,
        };
        assert_eq!(ScrapeEntry::from_bytes(&bytes), entry);
        assert_eq!(entry.to_bytes(), bytes);
    }
}
