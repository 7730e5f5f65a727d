//! What a client tells a tracker, and what the tracker answers (BEP 3, 7, 15, 23, 24, 31).

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::base::id::{InfoHash, PeerId};
use crate::base::limits::{TRACKER_ID_LEN_MAX, TRACKER_PEERS_MAX, TRACKER_TEXT_LEN_MAX};
use crate::base::text::printable;

use super::bencode::{BencodeError, Limits, Value};
use super::compact;
use super::url::percent_encode;

/// The parameters of an announce.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announce {
    /// The swarm.
    pub info_hash: InfoHash,
    /// Who we are.
    pub peer_id: PeerId,
    /// The TCP port on which we accept peers.
    pub port: u16,
    /// Names us across changes of our address (BEP 7).
    pub key: u32,
    /// Bytes of payload sent since `started`.
    pub uploaded: u64,
    /// Bytes of payload received since `started`.
    pub downloaded: u64,
    /// Bytes still missing; 0 makes us a seed.
    pub left: u64,
    /// What happened; nothing in a regular announce.
    pub event: Option<Event>,
    /// Nothing more is wanted, though bytes are left: told where nothing else happened (BEP 21).
    pub is_paused: bool,
    /// Peers that we want to be told.
    pub numwant: u32,
    /// What the tracker called us in an earlier reply.
    pub tracker_id: Option<Vec<u8>>,
}

/// Why an announce is made out of turn (BEP 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The first announce.
    Started,
    /// The download has ended; never sent by those who began complete.
    Completed,
    /// The last announce.
    Stopped,
}

/// What a tracker answers to an announce that it accepts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnnounceReply {
    /// When to come again. Any length, from 0 to 2^63 s: for the caller to clamp.
    pub interval: Option<Duration>,
    /// What not to fall below, from 0 to 2^63 s too.
    pub min_interval: Option<Duration>,
    /// The first [`TRACKER_PEERS_MAX`] peers. Any addresses, but no port 0.
    pub peers: Vec<SocketAddr>,
    /// Seeds in the swarm.
    pub complete: Option<u32>,
    /// Leechers in the swarm.
    pub incomplete: Option<u32>,
    /// To be sent with later announces.
    pub tracker_id: Option<Vec<u8>>,
    /// For the user; safe to print.
    pub warning: Option<String>,
    /// Our own address as the tracker sees it (BEP 24). Any address: the tracker's word.
    pub external_ip: Option<IpAddr>,
}

/// Why there is no [`AnnounceReply`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnnounceError {
    /// The tracker refused.
    #[error("the tracker says: {reason}")]
    Refused {
        /// The tracker's words; safe to print.
        reason: String,
        /// When the tracker wants to be asked again, if it says so (BEP 31).
        retry: Option<Retry>,
    },
    /// The answer is something else: a web page, as a rule.
    #[error("the tracker's answer is not bencoded: {0}")]
    Bencode(#[from] BencodeError),
    /// The answer is bencoded, but no dictionary.
    #[error("the tracker's answer is no dictionary")]
    NotADictionary,
}

/// When a tracker that refused wants to be asked again (BEP 31).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// After this long: from 0 to 2^63 minutes, or to the longest time that there is.
    After(Duration),
    /// Not at all.
    Never,
}

impl Announce {
    /// The query of the request, without `?`.
    pub fn query(&self) -> String {
        let mut query = format!(
            "info_hash={}&peer_id={}&port={}&uploaded={}&downloaded={}&left={}\
             &compact=1&no_peer_id=1&numwant={}&key={:08X}",
            percent_encode(&self.info_hash.0),
            percent_encode(&self.peer_id.0),
            self.port,
            self.uploaded,
            self.downloaded,
            self.left,
            self.numwant,
            self.key,
        );
        let paused = self.is_paused.then_some("paused");
        if let Some(event) = self.event.map(Event::name).or(paused) {
            write!(query, "&event={event}").expect("a String takes all");
        }
        if let Some(id) = &self.tracker_id {
            write!(query, "&trackerid={}", percent_encode(id)).expect("a String takes all");
        }
        query
    }
}

impl Event {
    fn name(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Completed => "completed",
            Self::Stopped => "stopped",
        }
    }
}

impl AnnounceReply {
    /// Reads the body of a tracker's response. Parts that make no sense are left out.
    ///
    /// # Errors
    /// If the tracker refused, or the body is no bencoded dictionary.
    pub fn decode(body: &[u8]) -> Result<Self, AnnounceError> {
        let dict = Value::decode(body, Limits::WIRE)?;
        let entries = dict.as_dict().ok_or(AnnounceError::NotADictionary)?;
        let mut reply = Self::default();
        let (mut peers, mut peers6) = (None, None);
        let (mut refusal, mut retry) = (None, None);
        for (key, value) in entries {
            match key {
                b"complete" => reply.complete = count(value),
                b"external ip" => reply.external_ip = external_ip(value),
                b"failure reason" => refusal = Some(text(value).unwrap_or_default()),
                b"incomplete" => reply.incomplete = count(value),
                b"interval" => reply.interval = duration(value, 1),
                b"min interval" => reply.min_interval = duration(value, 1),
                b"peers" => peers = Some(value),
                b"peers6" => peers6 = value.as_bytes(),
                b"retry in" => retry = retry_in(value),
                b"tracker id" => reply.tracker_id = tracker_id(value),
                b"warning message" => reply.warning = text(value),
                _ => {}
            }
        }
        if let Some(reason) = refusal {
            return Err(AnnounceError::Refused { reason, retry });
        }
        let listed = peers.into_iter().flat_map(all_peers);
        let listed6 = peers6.into_iter().flat_map(compact::peers6);
        reply.peers = usable(listed.chain(listed6));
        Ok(reply)
    }

    /// What the reply of a UDP tracker at `from` says (BEP 15): its peers are of the same family.
    pub fn from_udp(
        from: IpAddr,
        interval: u32,
        leechers: u32,
        seeders: u32,
        peers: &[u8],
    ) -> Self {
        Self {
            interval: Some(Duration::from_secs(interval.into())),
            complete: Some(seeders),
            incomplete: Some(leechers),
            peers: match from.to_canonical() {
                IpAddr::V4(_) => usable(compact::peers(peers)),
                IpAddr::V6(_) => usable(compact::peers6(peers)),
            },
            ..Self::default()
        }
    }
}

fn usable(peers: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let usable = peers.filter(|addr| addr.port() != 0);
    usable.take(TRACKER_PEERS_MAX).collect()
}

/// The peers of a compact string (BEP 23) or of a list of dictionaries (BEP 3).
fn all_peers(peers: Value<'_>) -> impl Iterator<Item = SocketAddr> + '_ {
    let compact = peers.as_bytes().into_iter().flat_map(compact::peers);
    let listed = peers
        .as_list()
        .into_iter()
        .flatten()
        .filter_map(listed_peer);
    compact.chain(listed)
}

/// A peer with its address as text; names of hosts are not looked up.
fn listed_peer(peer: Value<'_>) -> Option<SocketAddr> {
    let ip = str::from_utf8(peer.get(b"ip")?.as_bytes()?).ok()?;
    let ip: IpAddr = ip.parse().ok()?;
    let port = u16::try_from(peer.get(b"port")?.as_int()?).ok()?;
    Some(SocketAddr::new(ip, port))
}

fn count(value: Value<'_>) -> Option<u32> {
    value.as_int().and_then(|count| u32::try_from(count).ok())
}

/// So many `unit` seconds; negative ones are none.
fn duration(value: Value<'_>, unit: u64) -> Option<Duration> {
    let count = u64::try_from(value.as_int()?).unwrap_or(0);
    Some(Duration::from_secs(count.saturating_mul(unit)))
}

/// BEP 31: minutes, or the word `never`.
fn retry_in(value: Value<'_>) -> Option<Retry> {
    match value.as_bytes() {
        Some(b"never") => Some(Retry::Never),
        Some(minutes) => {
            let minutes: u64 = str::from_utf8(minutes).ok()?.parse().ok()?;
            Some(Retry::After(Duration::from_secs(
                minutes.saturating_mul(60),
            )))
        }
        None => duration(value, 60).map(Retry::After),
    }
}

/// BEP 24: the address in network byte order.
fn external_ip(value: Value<'_>) -> Option<IpAddr> {
    let bytes = value.as_bytes()?;
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    let v6 = <[u8; 16]>::try_from(bytes).map(IpAddr::from);
    v4.or(v6).ok()
}

fn text(value: Value<'_>) -> Option<String> {
    value
        .as_bytes()
        .map(|bytes| printable(bytes, TRACKER_TEXT_LEN_MAX))
}

fn tracker_id(value: Value<'_>) -> Option<Vec<u8>> {
    let id = value.as_bytes().filter(|id| id.len() <= TRACKER_ID_LEN_MAX);
    id.map(<[u8]>::to_vec)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    fn announce() -> Announce {
        Announce {
            info_hash: InfoHash(*b"\x124Vx\x9a\xbc\xde\xf1#Eg\x89\xab\xcd\xef\x124Vx\x9a"),
            peer_id: PeerId(*b"-EV0100-abcdefghij~."),
            port: 6881,
            key: 0xbeef,
            uploaded: 1,
            downloaded: 2,
            left: 3,
            event: None,
            is_paused: false,
            numwant: 200,
            tracker_id: None,
        }
    }

    #[test]
    fn partial_seed_says_that_it_waits_where_nothing_else_happened() {
        let paused = Announce {
            is_paused: true,
            ..announce()
        };
        assert!(paused.query().contains("&left=3&"), "{}", paused.query());
        assert!(paused.query().ends_with("&event=paused"));
        let stopped = Announce {
            event: Some(Event::Stopped),
            ..paused
        };
        assert!(stopped.query().ends_with("&event=stopped"));
        assert!(!announce().query().contains("event"));
    }

    fn decode(body: &[u8]) -> Result<AnnounceReply, AnnounceError> {
        AnnounceReply::decode(body)
    }

    fn peers(body: &[u8]) -> Vec<String> {
        let reply = decode(body).expect("a reply");
        reply.peers.iter().map(SocketAddr::to_string).collect()
    }

    /// The info hash is the well-known example of the tracker protocol's description.
    #[test]
    fn raw_bytes_and_event_stand_in_the_query() {
        let start = "info_hash=%124Vx%9A%BC%DE%F1%23Eg%89%AB%CD%EF%124Vx%9A\
                     &peer_id=-EV0100-abcdefghij~.&port=6881&uploaded=1&downloaded=2&left=3\
                     &compact=1&no_peer_id=1&numwant=200&key=0000BEEF";
        assert_eq!(announce().query(), start);
        let started = Announce {
            event: Some(Event::Started),
            tracker_id: Some(b"a&b".to_vec()),
            ..announce()
        };
        assert_eq!(
            started.query(),
            format!("{start}&event=started&trackerid=a%26b")
        );
    }

    /// Laid out as BEP 3, 7, 23 and 24 say, in the form that opentracker and chihaya send.
    #[test]
    fn replies_of_trackers_are_read() {
        let compact = b"d8:completei1e10:downloadedi5e10:incompletei2e8:intervali1800e\
            12:min intervali900e5:peers12:\x0a\0\0\x05\x1a\xe1\x7f\0\0\x01\0\x50\
            6:peers618:\xfd\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x05\x1a\xe1\
            10:tracker id2:id15:warning message4:slowe";
        let expected = AnnounceReply {
            interval: Some(Duration::from_secs(1800)),
            min_interval: Some(Duration::from_secs(900)),
            peers: ["10.0.0.5:6881", "127.0.0.1:80", "[fd00::5]:6881"]
                .map(|addr| addr.parse().expect("an address"))
                .into(),
            complete: Some(1),
            incomplete: Some(2),
            tracker_id: Some(b"id".to_vec()),
            warning: Some("slow".to_owned()),
            external_ip: None,
        };
        assert_eq!(decode(compact), Ok(expected));

        let listed = b"d8:intervali60e5:peersl\
            d2:ip8:10.0.0.57:peer id20:-XX0000-0123456789ab4:porti6881ee\
            d2:ip7:fd00::54:porti80eeee";
        assert_eq!(peers(listed), ["10.0.0.5:6881", "[fd00::5]:80"]);
    }

    /// BEP 24; other lengths are no address.
    #[test]
    fn tracker_says_where_it_sees_us() {
        let cases: [(&[u8], Option<&str>); 5] = [
            (b"d11:external ip4:\x0a\0\0\x05e", Some("10.0.0.5")),
            (
                b"d11:external ip16:\xfd\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x05e",
                Some("fd00::5"),
            ),
            (b"d11:external ip8:10.0.0.5e", None),
            (b"d11:external ip0:e", None),
            (b"d11:external ipi1ee", None),
        ];
        for (body, expected) in cases {
            let ip = decode(body).expect("a reply").external_ip;
            assert_eq!(ip.map(|ip| ip.to_string()).as_deref(), expected);
        }
    }

    /// BEP 15: 6 bytes a peer where the tracker was asked by IPv4, 18 where by IPv6.
    #[test]
    fn peers_of_a_udp_tracker_are_of_its_family() {
        let mut list = [10, 0, 0, 5, 0x1a, 0xe1].repeat(3);
        list[16..].fill(0);
        list.push(9);
        let of = |from: &str| AnnounceReply::from_udp(from.parse().expect(from), 60, 2, 1, &list);
        let reply = of("10.0.0.1");
        let expected = "10.0.0.5:6881".parse().expect("an address");
        assert_eq!(reply.peers, [expected; 2], "no port 0, no tail");
        assert_eq!(reply.interval, Some(Duration::from_secs(60)));
        assert_eq!((reply.complete, reply.incomplete), (Some(1), Some(2)));
        assert_eq!(of("::ffff:10.0.0.1"), reply);
        list[17] = 80;
        let of = |from: &str| AnnounceReply::from_udp(from.parse().expect(from), 60, 2, 1, &list);
        assert_eq!(of("fd00::1").peers.len(), 1);
        let many = [1; 6 * (TRACKER_PEERS_MAX + 1)];
        let reply = AnnounceReply::from_udp(IpAddr::from([1; 4]), 60, 2, 1, &many);
        assert_eq!(reply.peers.len(), TRACKER_PEERS_MAX);
    }

    /// Row 81 of the hostile inputs.
    #[test]
    fn odd_peers_are_left_out_and_the_others_kept() {
        let cases: [(&[u8], &[&str]); 10] = [
            (b"d5:peers7:\x0a\0\0\x05\0\x01xe", &["10.0.0.5:1"]),
            (b"d5:peers6:\x0a\0\0\x05\0\0e", &[]),
            (
                b"d6:peers619:\xfd\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x05\0\x01xe",
                &["[fd00::5]:1"],
            ),
            (b"d6:peers65:shorte", &[]),
            (b"d5:peersd2:ip3:::14:porti1eee", &[]),
            (b"d5:peersi1e6:peers6lee", &[]),
            (b"d5:peersld2:ip3:::14:port1:1eee", &[]),
            (
                b"d5:peersld2:ip3:::14:porti65536eed2:ip3:::14:porti9eeee",
                &["[::1]:9"],
            ),
            (b"d5:peersld2:ip9:localhost4:porti1eei1el1:ae0:ee", &[]),
            (b"de", &[]),
        ];
        for (body, expected) in cases {
            assert_eq!(peers(body), expected, "{}", body.escape_ascii());
        }
    }

    /// Row 81 of the hostile inputs: a million peers in either form.
    #[test]
    fn peers_beyond_the_limit_are_left_out() {
        let mut compact = b"d5:peers6000000:".to_vec();
        compact.extend((0..1_000_000).flat_map(|_| [10, 0, 0, 1, 0, 1]));
        compact.push(b'e');
        assert_eq!(peers(&compact).len(), TRACKER_PEERS_MAX);

        let mut listed = b"d5:peersl".to_vec();
        listed.extend((0..70_000).flat_map(|_| *b"d2:ip7:1.2.3.44:porti1ee"));
        listed.extend(b"ee");
        assert_eq!(peers(&listed).len(), TRACKER_PEERS_MAX);
    }

    /// Row 80 of the hostile inputs.
    #[test]
    fn intervals_of_any_size_are_read() {
        let cases: [(&[u8], Option<u64>); 5] = [
            (b"d8:intervali0ee", Some(0)),
            (b"d8:intervali-1ee", Some(0)),
            (b"d8:intervali-9223372036854775808ee", Some(0)),
            (b"d8:intervali9223372036854775807ee", Some(i64::MAX as u64)),
            (b"d8:interval2:60e", None),
        ];
        for (body, secs) in cases {
            let reply = decode(body).expect("a reply");
            assert_eq!(
                reply.interval,
                secs.map(Duration::from_secs),
                "{}",
                body.escape_ascii()
            );
        }
        assert_eq!(decode(b"d8:completei-1ee").expect("a reply").complete, None);
    }

    /// Rows 82 and 86 of the hostile inputs.
    #[test]
    fn refusals_are_shown_escaped_and_cut() {
        let refused = |reason: &str, retry| {
            let reason = reason.to_owned();
            Err(AnnounceError::Refused { reason, retry })
        };
        let minutes = |n: u64| Some(Retry::After(Duration::from_secs(n * 60)));
        let cases: [(&[u8], Result<AnnounceReply, AnnounceError>); 8] = [
            (b"d14:failure reason4:banne", refused("bann", None)),
            (
                b"d14:failure reason5:\x1b[2J\ne",
                refused("\\u{1b}[2J\\u{a}", None),
            ),
            (b"d14:failure reasoni1ee", refused("", None)),
            (
                b"d14:failure reason1:x5:peers0:8:retry in5:nevere",
                refused("x", Some(Retry::Never)),
            ),
            (
                b"d14:failure reason1:x8:retry in1:5e",
                refused("x", minutes(5)),
            ),
            (
                b"d14:failure reason1:x8:retry ini5ee",
                refused("x", minutes(5)),
            ),
            (b"d14:failure reason1:x8:retry in2:-5e", refused("x", None)),
            (b"d8:retry in5:nevere", Ok(AnnounceReply::default())),
        ];
        for (body, expected) in cases {
            assert_eq!(decode(body), expected, "{}", body.escape_ascii());
        }
        let mut long = b"d14:failure reason1048576:".to_vec();
        long.resize(long.len() + (1 << 20), b'x');
        long.push(b'e');
        let Err(AnnounceError::Refused { reason, .. }) = decode(&long) else {
            panic!("a refusal was expected");
        };
        assert_eq!(reason, format!("{}…", "x".repeat(TRACKER_TEXT_LEN_MAX)));
    }

    #[test]
    fn cut_and_random_bodies_are_refused_without_panic() {
        let whole = b"d8:completei1e8:intervali1800e5:peers6:\x0a\0\0\x05\x1a\xe1e";
        for len in 0..whole.len() {
            assert!(decode(&whole[..len]).is_err(), "{len} B");
        }
        assert!(matches!(
            decode(b"<html></html>"),
            Err(AnnounceError::Bencode(_))
        ));
        assert_eq!(decode(b"le"), Err(AnnounceError::NotADictionary));
        let mut rng = Rng::new(31);
        for _ in 0..20_000 {
            let mut body = whole.to_vec();
            for _ in 0..=rng.below(3) {
                let at = rng.below(body.len() as u32) as usize;
                body[at] = rng.next_u64() as u8;
            }
            if let Ok(reply) = decode(&body) {
                assert!(reply.peers.len() <= 1, "{}", body.escape_ascii());
            }
        }
    }
}
