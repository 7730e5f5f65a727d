//! What HTTP clients ask a tracker: the queries of announces and scrapes (BEP 3, 7, 21, 23, 48).

use std::net::{IpAddr, SocketAddr};

use super::announce::Event;
use super::udp_tracker::SCRAPE_HASHES_MAX;
use crate::base::digest::siphash;
use crate::base::id::{InfoHash, PeerId};

/// The parameters of an announce, as far as a tracker needs them. What a client sent and received
/// is not believed, so it is not even read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnnounceQuery {
    /// The swarm.
    pub info_hash: InfoHash,
    /// Who asks.
    pub peer_id: PeerId,
    /// The port on which it accepts peers; 0 if on none.
    pub port: u16,
    /// Bytes still missing, 0 makes a seed; `None` if it does not know.
    pub left: Option<u64>,
    /// What happened.
    pub event: Option<Event>,
    /// `event=paused` (BEP 21): it wants nothing more, though it does not have everything.
    pub is_paused: bool,
    /// Peers to be told; `None`: as the tracker likes.
    pub numwant: Option<u32>,
    /// Names the client across changes of its address. As in BEP 15, of which it is the hex form
    /// in most clients; any other text is folded.
    pub key: Option<u32>,
    /// How it wants to be told.
    pub form: Form,
    /// The addresses that it says it has (`ip`, `ipv4`, `ipv6`): anybody's, as a rule.
    pub claimed: [Option<IpAddr>; 3],
}

/// How peers are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// As one string (BEP 23): what every client of today reads.
    #[default]
    Compact,
    /// A dictionary each (BEP 3).
    Listed,
    /// The same without peer ids.
    ListedWithoutIds,
}

/// Why a query cannot be answered. The text is for the client (`failure reason`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// It does not say which swarm.
    #[error("info_hash is missing")]
    NoInfoHash,
    /// The name of the swarm is none.
    #[error("info_hash is not 20 bytes, percent-encoded")]
    BadInfoHash,
    /// An announce names two swarms.
    #[error("info_hash is given twice")]
    TwoInfoHashes,
    /// A scrape names more swarms than an answer holds.
    #[error("a scrape names at most {SCRAPE_HASHES_MAX} swarms")]
    TooManyInfoHashes,
    /// The client's id is missing or none.
    #[error("peer_id is not 20 bytes, percent-encoded")]
    BadPeerId,
    /// The client's port is missing or none.
    #[error("port is not a number from 0 to 65535")]
    BadPort,
}

impl AnnounceQuery {
    /// Reads what stands behind the `?`. Parameters that make no sense count as not given; of one
    /// that is given twice the last counts.
    ///
    /// # Errors
    /// If swarm, peer id or port are missing or malformed.
    pub fn decode(query: &str) -> Result<Self, QueryError> {
        let (mut info_hash, mut peer_id, mut port) = (None, None, None);
        let mut announce = Self {
            info_hash: InfoHash([0; 20]),
            peer_id: PeerId([0; 20]),
            port: 0,
            left: None,
            event: None,
            is_paused: false,
            numwant: None,
            key: None,
            form: Form::Compact,
            claimed: [None; 3],
        };
        let (mut is_compact, mut has_ids) = (true, true);
        for (name, value) in pairs(query) {
            match name {
                "info_hash" => {
                    let hash = decode_20(value).ok_or(QueryError::BadInfoHash)?;
                    if info_hash.replace(InfoHash(hash)).is_some() {
                        return Err(QueryError::TwoInfoHashes);
                    }
                }
                "peer_id" => peer_id = decode_20(value).map(PeerId),
                "port" => port = number(value).and_then(|port| u16::try_from(port).ok()),
                "left" => announce.left = number(value),
                "event" => {
                    announce.event = event_of(value);
                    announce.is_paused = value == "paused";
                }
                "numwant" | "num want" | "num_want" => {
                    announce.numwant = number(value).and_then(|count| u32::try_from(count).ok());
                }
                "key" => announce.key = key_of(value),
                "compact" => is_compact = value != "0",
                "no_peer_id" => has_ids = value == "0",
                "ip" => announce.claimed[0] = claimed_ip(value),
                "ipv4" => announce.claimed[1] = claimed_ip(value),
                "ipv6" => announce.claimed[2] = claimed_ip(value),
                _ => {}
            }
        }
        announce.form = match (is_compact, has_ids) {
            (true, _) => Form::Compact,
            (false, true) => Form::Listed,
            (false, false) => Form::ListedWithoutIds,
        };
        announce.info_hash = info_hash.ok_or(QueryError::NoInfoHash)?;
        announce.peer_id = peer_id.ok_or(QueryError::BadPeerId)?;
        announce.port = port.ok_or(QueryError::BadPort)?;
        Ok(announce)
    }
}

/// Reads the swarms that a scrape asks for (BEP 48), in ascending order and each once.
///
/// # Errors
/// If there is none, too many, or one that is no info hash.
pub fn decode_scrape(query: &str) -> Result<Vec<InfoHash>, QueryError> {
    let mut hashes = Vec::new();
    for (name, value) in pairs(query) {
        if name == "info_hash" {
            if hashes.len() == SCRAPE_HASHES_MAX {
                return Err(QueryError::TooManyInfoHashes);
            }
            hashes.push(InfoHash(decode_20(value).ok_or(QueryError::BadInfoHash)?));
        }
    }
    if hashes.is_empty() {
        return Err(QueryError::NoInfoHash);
    }
    hashes.sort_unstable();
    hashes.dedup();
    Ok(hashes)
}

fn pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    let parts = query.split('&');
    parts.map(|part| part.split_once('=').unwrap_or((part, "")))
}

/// The 20 bytes that `value` stands for, percent-encoded or as they are; `+` is a space, as forms
/// and most languages' libraries write it.
fn decode_20(value: &str) -> Option<[u8; 20]> {
    let mut out = [0; 20];
    let mut len = 0;
    let mut bytes = value.bytes();
    while let Some(byte) = bytes.next() {
        let decoded = match byte {
            b'%' => hex_digit(bytes.next()?)? << 4 | hex_digit(bytes.next()?)?,
            b'+' => b' ',
            byte => byte,
        };
        *out.get_mut(len)? = decoded;
        len += 1;
    }
    (len == out.len()).then_some(out)
}

fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// A number that is not negative. What exceeds 64 bits is the greatest of them.
fn number(value: &str) -> Option<u64> {
    if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(value.parse().unwrap_or(u64::MAX))
}

fn event_of(value: &str) -> Option<Event> {
    match value {
        "started" => Some(Event::Started),
        "completed" => Some(Event::Completed),
        "stopped" => Some(Event::Stopped),
        _ => None,
    }
}

fn key_of(value: &str) -> Option<u32> {
    match value.len() {
        0 => None,
        1..=8 if value.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            u32::from_str_radix(value, 16).ok()
        }
        _ => Some(siphash(&[0; 16], value.as_bytes()) as u32),
    }
}

/// An address as text, perhaps with a port, which BEP 7 allows; colons may be encoded.
fn claimed_ip(value: &str) -> Option<IpAddr> {
    if value.len() > CLAIMED_LEN_MAX {
        return None;
    }
    let text = value
        .replace("%3A", ":")
        .replace("%3a", ":")
        .replace("%5B", "[")
        .replace("%5b", "[")
        .replace("%5D", "]")
        .replace("%5d", "]");
    let with_port = || text.parse().map(|addr: SocketAddr| addr.ip());
    text.parse().or_else(|_| with_port()).ok()
}

/// Longest text of an address, bytes: IPv6 in full with brackets, port, and all of it encoded.
const CLAIMED_LEN_MAX: usize = 80;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;
    use crate::wire::url::percent_encode;

    const HASH: &str = "info_hash=%12%34%56%78%9a%bc%de%f1%23%45%67%89%ab%cd%ef%124Vx%9A";
    const REST: &str = "peer_id=-EV0100-abcdefghijkl&port=6881";

    fn announce(rest: &str) -> Result<AnnounceQuery, QueryError> {
        AnnounceQuery::decode(&format!("{HASH}&{REST}&{rest}"))
    }

    /// The info hash is the example of BEP 3's older text, as clients encode it.
    #[test]
    fn announce_of_a_client_is_read() {
        let query = announce(
            "uploaded=1&downloaded=2&left=3&corrupt=0&key=0A1B2C3D&event=started&numwant=80\
             &compact=1&no_peer_id=1&supportcrypto=1&redundant=0&ipv6=fd00%3A%3A5",
        );
        let expected = AnnounceQuery {
            info_hash: "123456789abcdef123456789abcdef123456789a".parse().unwrap(),
            peer_id: PeerId(*b"-EV0100-abcdefghijkl"),
            port: 6881,
            left: Some(3),
            event: Some(Event::Started),
            is_paused: false,
            numwant: Some(80),
            key: Some(0x0a1b_2c3d),
            form: Form::Compact,
            claimed: [None, None, Some("fd00::5".parse().unwrap())],
        };
        assert_eq!(query, Ok(expected));
    }

    /// Row 87 of the hostile inputs.
    #[test]
    fn info_hash_is_20_bytes_or_an_error() {
        let hash = |value: &str| AnnounceQuery::decode(&format!("info_hash={value}&{REST}"));
        let all: Vec<u8> = (0..20).collect();
        #[rustfmt::skip]
        let cases = [
            ("lower hex",     hash(&"%ab".repeat(20)),           Ok([0xab; 20])),
            ("upper hex",     hash(&"%AB".repeat(20)),           Ok([0xab; 20])),
            ("as it is",      hash(&"a".repeat(20)),             Ok([b'a'; 20])),
            ("plus",          hash(&"+".repeat(20)),             Ok([b' '; 20])),
            ("mixed", hash(&percent_encode(&all)),       Ok(all.clone().try_into().unwrap())),
            ("19 bytes",      hash(&"a".repeat(19)),             Err(QueryError::BadInfoHash)),
            ("21 bytes",      hash(&"a".repeat(21)),             Err(QueryError::BadInfoHash)),
            ("40 hex digits", hash(&"ab".repeat(20)),            Err(QueryError::BadInfoHash)),
            ("empty",         hash(""),                          Err(QueryError::BadInfoHash)),
            ("`%`",           hash(&format!("{}%", "a".repeat(19))), Err(QueryError::BadInfoHash)),
            ("`%0`",          hash(&format!("{}%0", "a".repeat(19))), Err(QueryError::BadInfoHash)),
            ("`%zz`", hash(&format!("{}%zz", "a".repeat(19))), Err(QueryError::BadInfoHash)),
            ("`%+1`", hash(&format!("{}%+1", "a".repeat(19))), Err(QueryError::BadInfoHash)),
            ("twice",         hash(&format!("{0}&info_hash={0}", "a".repeat(20))),
                                                                 Err(QueryError::TwoInfoHashes)),
            ("missing",       AnnounceQuery::decode(REST),       Err(QueryError::NoInfoHash)),
            ("no query",      AnnounceQuery::decode(""),         Err(QueryError::NoInfoHash)),
        ];
        for (name, query, expected) in cases {
            let query = query.map(|query| query.info_hash.0);
            assert_eq!(query, expected, "{name}");
        }
    }

    #[test]
    fn peer_id_and_port_have_to_be_there() {
        let cases = [
            ("peer_id=-EV0100-abcdefghijkl", QueryError::BadPort),
            ("port=1", QueryError::BadPeerId),
            ("peer_id=short&port=1", QueryError::BadPeerId),
            ("peer_id=-EV0100-abcdefghijkl&port=", QueryError::BadPort),
            (
                "peer_id=-EV0100-abcdefghijkl&port=65536",
                QueryError::BadPort,
            ),
            ("peer_id=-EV0100-abcdefghijkl&port=-1", QueryError::BadPort),
            (
                "peer_id=-EV0100-abcdefghijkl&port=99999999999999999999",
                QueryError::BadPort,
            ),
        ];
        for (rest, expected) in cases {
            let query = AnnounceQuery::decode(&format!("{HASH}&{rest}"));
            assert_eq!(query, Err(expected), "{rest}");
        }
    }

    /// Rows 88 and 90 of the hostile inputs: what exceeds the numbers is clamped or not given.
    #[test]
    fn numbers_that_make_no_sense_are_clamped() {
        let cases = [
            ("left=0", Some(0), None),
            ("left=-1", None, None),
            ("left=99999999999999999999999", Some(u64::MAX), None),
            ("left=x&numwant=", None, None),
            ("numwant=-1", None, None),
            ("numwant=0", None, Some(0)),
            ("numwant=1000000000", None, Some(1_000_000_000)),
            ("numwant=9223372036854775808", None, None),
            ("uploaded=-5&downloaded=99999999999999999999999", None, None),
        ];
        for (rest, left, numwant) in cases {
            let query = announce(rest).expect("an announce");
            assert_eq!((query.left, query.numwant), (left, numwant), "{rest}");
        }
    }

    #[test]
    fn rare_parameters_are_understood() {
        let event = |rest: &str| announce(rest).map(|query| (query.event, query.is_paused));
        assert_eq!(
            event("event=completed"),
            Ok((Some(Event::Completed), false))
        );
        assert_eq!(event("event=stopped"), Ok((Some(Event::Stopped), false)));
        assert_eq!(event("event=paused"), Ok((None, true)));
        assert_eq!(event("event="), Ok((None, false)));
        assert_eq!(event("event=exploded"), Ok((None, false)));

        let form = |rest: &str| announce(rest).map(|query| query.form);
        assert_eq!(form(""), Ok(Form::Compact));
        assert_eq!(form("compact=0"), Ok(Form::Listed));
        assert_eq!(form("no_peer_id=1&compact=0"), Ok(Form::ListedWithoutIds));
        assert_eq!(form("no_peer_id=1"), Ok(Form::Compact));

        let key = |rest: &str| announce(rest).expect("an announce").key;
        assert_eq!(key("key="), None);
        assert_eq!(key("key=ff"), Some(255));
        assert_ne!(key("key=a_long_key"), key("key=another_key"));
        assert!(key("key=a_long_key").is_some());

        let claimed = |rest: &str| announce(rest).expect("an announce").claimed;
        let ip = |text: &str| Some(text.parse().unwrap());
        assert_eq!(claimed("ip=10.0.0.1"), [ip("10.0.0.1"), None, None]);
        assert_eq!(claimed("ipv4=10.0.0.1%3A80"), [None, ip("10.0.0.1"), None]);
        assert_eq!(
            claimed("ipv6=%5Bfd00::1%5d:80"),
            [None, None, ip("fd00::1")]
        );
        assert_eq!(claimed("ip=host.example"), [None; 3]);
        assert_eq!(claimed(&format!("ip={}", "1".repeat(8000))), [None; 3]);
    }

    #[test]
    fn scrape_names_swarms_in_order_and_once() {
        let of = |letters: &str| {
            let hash = |letter: char| format!("info_hash={}", letter.to_string().repeat(20));
            letters.chars().map(hash).collect::<Vec<_>>().join("&")
        };
        let first = |hashes: Vec<InfoHash>| hashes.iter().map(|hash| hash.0[0]).collect::<Vec<_>>();
        assert_eq!(decode_scrape(&of("bab")).map(first), Ok(b"ab".to_vec()));
        let limit = "a".repeat(SCRAPE_HASHES_MAX);
        assert_eq!(decode_scrape(&of(&limit)).map(first), Ok(b"a".to_vec()));
        let beyond = decode_scrape(&of(&(limit + "a")));
        assert_eq!(beyond, Err(QueryError::TooManyInfoHashes));
        assert_eq!(decode_scrape("a=b"), Err(QueryError::NoInfoHash));
        assert_eq!(decode_scrape("info_hash=a"), Err(QueryError::BadInfoHash));
    }

    #[test]
    fn random_queries_are_read_or_refused() {
        #[rustfmt::skip]
        let alphabet = [
            HASH, REST, "&", "=", "%", "%4", "info_hash", "peer_id=", "port=", "numwant=", "-1",
            "99999999999999999999", "ip=", "key=", "ü", "event=", "\u{0}",
        ];
        let mut rng = Rng::new(87);
        let mut read = 0;
        for _ in 0..20_000 {
            let parts: Vec<&str> = (0..rng.below(14))
                .map(|_| alphabet[rng.below(alphabet.len() as u32) as usize])
                .collect();
            let query = parts.concat();
            read += u32::from(AnnounceQuery::decode(&query).is_ok());
            read += u32::from(decode_scrape(&query).is_ok());
        }
        assert!(read > 100, "only {read} queries were read");
    }
}
