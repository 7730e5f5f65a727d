//! The server from its public face: requests in, answers out.

use super::*;
use crate::base::address::{Interface, Interfaces};
use crate::base::rng::Rng;
use crate::tracker::registry::Terms;
use crate::wire::announce::{AnnounceError, AnnounceReply};
use crate::wire::bencode::{Limits, Value};
use crate::wire::request::{Request, RequestReader};
use crate::wire::udp_tracker::{self as udp, Reply, ScrapeEntry, UdpAnnounce};
use crate::wire::url::percent_encode;

const HASH: InfoHash = InfoHash([0x11; 20]);
const OTHER: InfoHash = InfoHash([0x22; 20]);
const PRIVATE: InfoHash = InfoHash([0x33; 20]);
const FOREIGN: &[u8; 20] = b"-LT2000-abcdefghijkl";
const OURS: &[u8; 20] = b"-EV0100-abcdefghijkl";

/// A server, its interfaces, and a clock.
struct Stage {
    server: Server,
    interfaces: Interfaces,
    now: Instant,
}

impl Stage {
    fn new() -> Self {
        let mut server = Server::new(Secret::new([3; 16]), Openness::Closed);
        let now = Instant::from_micros(1_000_000_000);
        server.registry.track(HASH, Terms::default(), now);
        let private = Terms {
            is_private: true,
            names_us: false,
        };
        server.registry.track(PRIVATE, private, now);
        let of = |ip: &str, prefix_len| Interface {
            index: 2,
            ip: ip.parse().unwrap(),
            prefix_len,
        };
        Self {
            server,
            interfaces: Interfaces::new(vec![of("10.0.0.1", 8), of("fd00::1", 64)]),
            now,
        }
    }

    fn http(&mut self, from: &str, target: &str) -> (u16, Vec<u8>, Then) {
        self.request(from, &format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"))
    }

    fn request(&mut self, from: &str, text: &str) -> (u16, Vec<u8>, Then) {
        match self.reply(from, text) {
            HttpReply::Whole { bytes, then } => {
                let text = bytes.escape_ascii().to_string();
                let end = bytes.windows(4).position(|part| part == b"\r\n\r\n");
                let end = end.unwrap_or_else(|| panic!("no head: {text}")) + 4;
                let status = str::from_utf8(&bytes[9..12]).unwrap().parse().unwrap();
                (status, bytes[end..].to_vec(), then)
            }
            HttpReply::Torrent(info_hash) => panic!("the torrent of {info_hash}"),
        }
    }

    fn reply(&mut self, from: &str, text: &str) -> HttpReply {
        let (used, request) = RequestReader::default()
            .received(text.as_bytes())
            .expect("a request");
        assert_eq!(used, text.len());
        self.answer(from, &request.expect("a whole request"))
    }

    fn answer(&mut self, from: &str, request: &Request) -> HttpReply {
        let asker = Asker {
            remote: SocketAddr::new(from.parse().unwrap(), 50_000),
            local: None,
            interfaces: &self.interfaces,
            links: None,
        };
        self.server.http(request, &asker, self.now)
    }

    /// An announce over HTTP that is to be accepted.
    fn announce(&mut self, from: &str, id: &[u8; 20], rest: &str) -> AnnounceReply {
        let (status, body, _) = self.http(from, &target(HASH, id, rest));
        assert_eq!(status, 200);
        AnnounceReply::decode(&body).unwrap_or_else(|error| panic!("{error}"))
    }

    fn datagram(&mut self, from: &str, bytes: &[u8]) -> Option<Bytes> {
        let asker = Asker {
            remote: SocketAddr::new(from.parse().unwrap(), 50_000),
            local: None,
            interfaces: &self.interfaces,
            links: None,
        };
        self.server.datagram(bytes, &asker, self.now)
    }

    fn connect(&mut self, from: &str) -> u64 {
        let mut request = Vec::new();
        udp::Request::Connect { transaction: 7 }.encode(&mut request);
        let reply = self.datagram(from, &request).expect("a connection id");
        assert!(reply.len() <= request.len());
        match Reply::decode(&reply) {
            Ok(Reply::Connect {
                transaction: 7,
                connection,
            }) => connection,
            other => panic!("{other:?}"),
        }
    }

    fn udp_announce(
        &mut self,
        from: &str,
        connection: u64,
        announce: UdpAnnounce,
    ) -> Option<Bytes> {
        self.datagram(from, &udp_request(connection, announce))
    }

    fn events(&mut self) -> Vec<ServerEvent> {
        std::iter::from_fn(|| self.server.poll_event()).collect()
    }

    fn sizes(&self) -> [u32; 3] {
        let counts = self.server.registry.counts(HASH).expect("a tracked swarm");
        [counts.complete, counts.incomplete, counts.downloaded]
    }
}

fn target(hash: InfoHash, id: &[u8; 20], rest: &str) -> String {
    let hash = percent_encode(&hash.0);
    let id = percent_encode(id);
    format!("/announce?info_hash={hash}&peer_id={id}&{rest}")
}

fn udp_request(connection: u64, announce: UdpAnnounce) -> Vec<u8> {
    let mut request = Vec::new();
    udp::Request::Announce {
        connection,
        transaction: 8,
        announce,
        url_data: "",
    }
    .encode(&mut request);
    request
}

fn udp_announce(port: u16) -> UdpAnnounce {
    UdpAnnounce {
        info_hash: HASH,
        peer_id: PeerId(*FOREIGN),
        downloaded: 0,
        left: 1,
        uploaded: 0,
        event: None,
        is_paused: false,
        ip: None,
        key: 0,
        numwant: None,
        port,
    }
}

fn addrs(reply: &AnnounceReply) -> Vec<String> {
    reply.peers.iter().map(ToString::to_string).collect()
}

#[test]
fn peers_find_each_other_over_http_and_udp() {
    let mut stage = Stage::new();
    let first = stage.announce("10.0.0.2", FOREIGN, "port=1&left=5&event=started");
    assert_eq!(addrs(&first), [""; 0]);
    assert_eq!((first.complete, first.incomplete), (Some(0), Some(1)));
    assert_eq!(first.interval, Some(Duration::from_secs(5)));
    let expected = ServerEvent::Announced {
        info_hash: HASH,
        addr: "10.0.0.2:1".parse().unwrap(),
        peer_id: PeerId(*FOREIGN),
        is_seed: false,
        event: Some(Event::Started),
        is_new: true,
    };
    assert_eq!(stage.events(), [expected]);

    let connection = stage.connect("10.0.0.3");
    let announce = UdpAnnounce {
        left: 0,
        peer_id: PeerId(*OURS),
        ..udp_announce(2)
    };
    let reply = stage.udp_announce("10.0.0.3", connection, announce);
    match Reply::decode(&reply.expect("a reply")) {
        Ok(Reply::Announce {
            transaction: 8,
            interval: 5,
            leechers: 1,
            seeders: 1,
            peers,
        }) => assert_eq!(peers, [10, 0, 0, 2, 0, 1]),
        other => panic!("{other:?}"),
    }
    let again = stage.announce("10.0.0.2", FOREIGN, "port=1&left=5");
    assert_eq!(addrs(&again), ["10.0.0.3:2"]);
    let is_new =
        |event: &ServerEvent| matches!(event, ServerEvent::Announced { is_new, .. } if *is_new);
    let news: Vec<bool> = stage.events().iter().map(is_new).collect();
    assert_eq!(news, [true, false]);
    // Whoever it was meant for, it is not told to us from afar.
    assert_eq!(stage.sizes(), [1, 1, 0]);
}

#[test]
fn peers_are_told_in_the_form_that_is_asked_for() {
    let mut stage = Stage::new();
    stage.announce("10.0.0.2", b"-LT2000-2...........", "port=1");
    stage.announce("fd00::2", b"-LT2000-3...........", "port=1");
    let (_, body, _) = stage.http("10.0.0.9", &target(HASH, FOREIGN, "port=9&compact=0"));
    let reply = Value::decode(&body, Limits::WIRE).expect("bencode");
    let peers: Vec<_> = reply
        .get(b"peers")
        .and_then(Value::as_list)
        .unwrap()
        .collect();
    assert_eq!(peers.len(), 2);
    let text = |peer: Value<'_>, key: &[u8]| Some(peer.get(key)?.as_bytes()?.to_vec());
    assert_eq!(text(peers[0], b"ip"), Some(b"10.0.0.2".to_vec()));
    assert_eq!(
        text(peers[0], b"peer id"),
        Some(b"-LT2000-2...........".to_vec())
    );
    assert_eq!(text(peers[1], b"ip"), Some(b"fd00::2".to_vec()));
    assert_eq!(text(reply, b"external ip"), Some(vec![10, 0, 0, 9]));
    let compact = stage.announce("10.0.0.9", FOREIGN, "port=9&compact=1");
    assert_eq!(addrs(&compact), ["10.0.0.2:1", "[fd00::2]:1"]);
    let (_, body, _) = stage.http(
        "10.0.0.9",
        &target(HASH, FOREIGN, "port=9&compact=0&no_peer_id=1"),
    );
    assert!(!body.windows(7).any(|part| part == b"peer id"));
}

#[test]
fn seeds_are_told_to_leechers_and_evpeers_only() {
    let mut stage = Stage::new();
    stage.announce("10.0.0.2", b"-LT2000-2...........", "port=1&left=0");
    stage.announce("10.0.0.3", b"-LT2000-3...........", "port=1&left=9");
    #[rustfmt::skip]
    let cases = [
        ("a leecher",       FOREIGN, "left=1",              2),
        ("no word of left", FOREIGN, "uploaded=0",          2),
        ("a foreign seed",  FOREIGN, "left=0",              1),
        ("a paused one",    FOREIGN, "left=1&event=paused", 1),
        ("an evpeer seed",  OURS,    "left=0",              2),
    ];
    for (name, id, rest, expected) in cases {
        let reply = stage.announce("10.0.0.9", id, &format!("port=9&{rest}"));
        assert_eq!(reply.peers.len(), expected, "{name}");
    }
    let connection = stage.connect("10.0.0.9");
    let announce = UdpAnnounce {
        is_paused: true,
        ..udp_announce(9)
    };
    let reply = stage.udp_announce("10.0.0.9", connection, announce);
    match Reply::decode(&reply.expect("a reply")) {
        Ok(Reply::Announce { peers, .. }) => assert_eq!(peers, [10, 0, 0, 3, 0, 1]),
        other => panic!("{other:?}"),
    }
}

/// Row 88 of the hostile inputs.
#[test]
fn number_of_peers_is_what_is_wanted_within_limits() {
    let mut stage = Stage::new();
    for n in 0..300_u16 {
        let id = format!("-LT2000-{n:012}");
        let id = id.as_bytes().try_into().unwrap();
        let [high, low] = n.to_be_bytes();
        stage.announce(&format!("10.1.{high}.{low}"), id, "port=1&left=1");
        stage.announce(&format!("fd00::1:{n:x}"), id, "port=1&left=1");
    }
    assert_eq!(stage.sizes(), [0, 300, 0]);
    #[rustfmt::skip]
    let cases = [
        ("",                              50), ("numwant=0",           0),
        ("numwant=1",                     1),  ("numwant=-1",          50),
        ("numwant=200",                   200), ("numwant=1000000000", 200),
        ("numwant=9223372036854775808",   50), ("numwant=x",           50),
    ];
    for (rest, expected) in cases {
        let reply = stage.announce("10.0.0.9", FOREIGN, &format!("port=9&left=1&{rest}"));
        assert_eq!(reply.peers.len(), expected, "{rest}");
    }
    let [v4, v6] = ["10.0.0.9", "fd00::9"].map(|from| stage.connect(from));
    #[rustfmt::skip]
    let cases = [
        (None,            50, 50), (Some(0),        0,   0),
        (Some(100),       100, 76), (Some(i32::MAX as u32), 200, 76),
    ];
    for (numwant, peers4, peers6) in cases {
        let announce = UdpAnnounce {
            numwant,
            ..udp_announce(9)
        };
        let reply = stage
            .udp_announce("10.0.0.9", v4, announce)
            .expect("a reply");
        assert_eq!(reply.len(), 20 + 6 * peers4, "{numwant:?}");
        let reply = stage
            .udp_announce("fd00::9", v6, announce)
            .expect("a reply");
        assert_eq!(reply.len(), 20 + 18 * peers6, "{numwant:?}");
        assert!(reply.len() < 1400);
    }
}

/// Row 87 of the hostile inputs.
#[test]
fn refusals_are_short_and_bencoded() {
    let mut stage = Stage::new();
    let peer_id = "peer_id=-LT2000-abcdefghijkl";
    let all = percent_encode(&HASH.0);
    #[rustfmt::skip]
    let cases = [
        ("no query",        "/announce".to_owned(),                                "missing"),
        ("no info hash",    format!("/announce?{peer_id}&port=1"),                 "missing"),
        ("19 bytes",        format!("/announce?info_hash={}&{peer_id}&port=1", "a".repeat(19)),
                                                                                   "20 bytes"),
        ("`%zz`",           format!("/announce?info_hash=%zz&{peer_id}&port=1"),   "20 bytes"),
        ("twice",           format!("/announce?info_hash={all}&info_hash={all}&{peer_id}&port=1"),
                                                                                   "twice"),
        ("no peer id",      format!("/announce?info_hash={all}&port=1"),           "peer_id"),
        ("no port",         format!("/announce?info_hash={all}&{peer_id}"),        "port"),
        ("not tracked",     target(OTHER, FOREIGN, "port=1"),                      "not track"),
        ("private",         target(PRIVATE, FOREIGN, "port=1"),                    "not track"),
        ("scrape of all",   "/scrape".to_owned(),                                  "missing"),
        ("scrape, broken",  "/scrape?info_hash=%".to_owned(),                      "20 bytes"),
    ];
    for (name, target, expected) in cases {
        let (status, body, then) = stage.http("10.0.0.9", &target);
        assert_eq!((status, then), (200, Then::KeepAlive), "{name}");
        assert!(body.len() <= 128, "{name}: {} B", body.len());
        match AnnounceReply::decode(&body) {
            Err(AnnounceError::Refused { reason, .. }) => {
                assert!(reason.contains(expected), "{name}: {reason}");
            }
            other => panic!("{name}: {other:?}"),
        }
    }
    assert!(stage.events().is_empty());
}

#[test]
fn private_swarm_is_served_if_its_torrent_names_us() {
    let mut stage = Stage::new();
    let announce = target(PRIVATE, FOREIGN, "port=1");
    let names_us = Terms {
        is_private: true,
        names_us: true,
    };
    stage.server.registry.track(PRIVATE, names_us, stage.now);
    let (_, body, _) = stage.http("10.0.0.9", &announce);
    assert!(AnnounceReply::decode(&body).is_ok());
    let file = format!("/torrents/{PRIVATE}.torrent");
    assert_eq!(stage.http("10.0.0.9", &file).0, 404);
}

#[test]
fn paths_and_methods_are_answered() {
    let mut stage = Stage::new();
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\n\r\n");
    let hash = HASH.to_string();
    #[rustfmt::skip]
    let cases = [
        (get("/"),                                        404, Then::KeepAlive),
        (get("/announce/"),                               404, Then::KeepAlive),
        (get("/../etc/passwd"),                           404, Then::KeepAlive),
        (get("/torrents/../x.torrent"),                   404, Then::KeepAlive),
        (get(&format!("/torrents/{OTHER}.torrent")),      404, Then::KeepAlive),
        (get(&format!("/torrents/{PRIVATE}.torrent")),    404, Then::KeepAlive),
        (get(&format!("/torrents/{}.torrent", &hash[1..])), 404, Then::KeepAlive),
        ("POST /announce HTTP/1.1\r\n\r\n".to_owned(),    405, Then::KeepAlive),
        ("GET /announce HTTP/1.0\r\n\r\n".to_owned(),     200, Then::Close),
        ("GET /scrape HTTP/1.1\r\nConnection: close\r\n\r\n".to_owned(), 200, Then::Close),
    ];
    for (text, status, then) in cases {
        let (got, _, got_then) = stage.request("10.0.0.9", &text);
        assert_eq!((got, got_then), (status, then), "{text}");
    }
    for name in [hash.clone(), hash.to_uppercase()] {
        let reply = stage.reply("10.0.0.9", &get(&format!("/torrents/{name}.torrent")));
        assert_eq!(reply, HttpReply::Torrent(HASH));
    }
    let announce = target(HASH, FOREIGN, "port=1");
    let (status, body, _) = stage.request("10.0.0.9", &format!("HEAD {announce} HTTP/1.1\r\n\r\n"));
    assert_eq!((status, body.len()), (200, 0));
}

#[test]
fn scrape_gives_the_sizes_of_what_is_tracked() {
    let mut stage = Stage::new();
    stage.announce(
        "10.0.0.2",
        b"-LT2000-2...........",
        "port=1&left=0&event=completed",
    );
    stage.announce(
        "10.0.0.3",
        b"-LT2000-3...........",
        "port=1&left=9&event=paused",
    );
    stage.announce("10.0.0.4", b"-LT2000-4...........", "port=1&left=9");
    let hashes = [OTHER, HASH, HASH, PRIVATE].map(|hash| percent_encode(&hash.0));
    let (_, body, _) = stage.http(
        "10.0.0.9",
        &format!("/scrape?info_hash={}", hashes.join("&info_hash=")),
    );
    let expected = [
        b"d5:filesd20:",
        &HASH.0[..],
        b"d8:completei1e10:downloadedi1e11:downloadersi1e10:incompletei2eeee",
    ];
    assert_eq!(body, expected.concat());

    let connection = stage.connect("10.0.0.9");
    let mut request = Vec::new();
    udp::Request::Scrape {
        connection,
        transaction: 9,
        hashes: &[OTHER.0, HASH.0, PRIVATE.0],
    }
    .encode(&mut request);
    let reply = stage.datagram("10.0.0.9", &request).expect("a reply");
    let Ok(Reply::Scrape { entries, .. }) = Reply::decode(&reply) else {
        panic!("{reply:?}");
    };
    let entries: Vec<_> = entries.iter().map(ScrapeEntry::from_bytes).collect();
    let here = ScrapeEntry {
        seeders: 1,
        completed: 1,
        leechers: 2,
    };
    assert_eq!(
        entries,
        [ScrapeEntry::default(), here, ScrapeEntry::default()]
    );
}

/// Row 98 of the hostile inputs.
#[test]
fn replays_and_another_clients_word_change_no_counts() {
    let mut stage = Stage::new();
    let steps = [
        (
            "a leecher starts",
            FOREIGN,
            "left=5&event=started&key=1",
            [0, 1, 0],
        ),
        (
            "it completes",
            FOREIGN,
            "left=0&event=completed&key=1",
            [1, 0, 1],
        ),
        (
            "and says so again",
            FOREIGN,
            "left=0&event=completed&key=1",
            [1, 0, 1],
        ),
        (
            "another client stops",
            OURS,
            "left=5&event=stopped&key=2",
            [1, 0, 1],
        ),
        ("it stops", FOREIGN, "left=0&event=stopped&key=1", [0, 0, 1]),
        (
            "and says so again",
            FOREIGN,
            "left=0&event=stopped&key=1",
            [0, 0, 1],
        ),
        (
            "it starts as a seed",
            FOREIGN,
            "left=0&event=started&key=1",
            [1, 0, 1],
        ),
        (
            "its id changes, its key does not",
            OURS,
            "left=0&event=stopped&key=1",
            [0, 0, 1],
        ),
        ("a seed appears", FOREIGN, "left=0", [1, 0, 1]),
        ("which loses data", FOREIGN, "left=5", [0, 1, 1]),
    ];
    for (name, id, rest, expected) in steps {
        stage.announce("10.0.0.2", id, &format!("port=1&{rest}"));
        assert_eq!(stage.sizes(), expected, "{name}");
    }
}

#[test]
fn who_stops_is_told_nobody_and_the_engine_hears_of_it() {
    let mut stage = Stage::new();
    stage.announce("10.0.0.2", b"-LT2000-2...........", "port=1");
    stage.announce("10.0.0.3", FOREIGN, "port=1");
    stage.events();
    let reply = stage.announce("10.0.0.3", FOREIGN, "port=1&event=stopped&numwant=50");
    assert!(reply.peers.is_empty());
    let stopped = |event: &ServerEvent| {
        let ServerEvent::Announced { event, is_new, .. } = event;
        (*event, *is_new)
    };
    let events: Vec<_> = stage.events().iter().map(stopped).collect();
    assert_eq!(events, [(Some(Event::Stopped), false)]);
    stage.announce("10.0.0.3", FOREIGN, "port=1&event=stopped");
    assert!(stage.events().is_empty(), "it had left before");
}

#[test]
fn peer_without_a_port_is_answered_and_not_listed() {
    let mut stage = Stage::new();
    stage.announce("10.0.0.2", b"-LT2000-2...........", "port=1");
    let reply = stage.announce("10.0.0.3", FOREIGN, "port=0");
    assert_eq!(addrs(&reply), ["10.0.0.2:1"]);
    assert_eq!(stage.sizes(), [0, 1, 0]);
}

/// BEP 41: options follow the 98 bytes.
#[test]
fn options_behind_an_announce_are_borne() {
    let mut stage = Stage::new();
    let connection = stage.connect("10.0.0.2");
    let mut request = udp_request(connection, udp_announce(1));
    request.extend_from_slice(b"\x02\x09/announce\x00");
    assert!(stage.datagram("10.0.0.2", &request).is_some());
    assert_eq!(stage.sizes(), [0, 1, 0]);
    let request = udp_request(
        connection,
        UdpAnnounce {
            info_hash: OTHER,
            ..udp_announce(1)
        },
    );
    let reply = stage.datagram("10.0.0.2", &request).expect("a refusal");
    let expected = Reply::Error {
        transaction: 8,
        message: NOT_TRACKED.as_bytes(),
    };
    assert_eq!(Reply::decode(&reply), Ok(expected));
}

#[test]
fn who_asks_too_often_is_told_to_go() {
    let mut stage = Stage::new();
    let announce = target(HASH, FOREIGN, "port=1");
    let mut statuses = (0..200).map(|_| stage.http("198.51.100.1", &announce));
    let (status, _, then) = statuses
        .find(|(status, ..)| *status != 200)
        .expect("a limit");
    assert_eq!((status, then), (503, Then::Close));
    assert_eq!(stage.http("10.0.0.9", &announce).0, 200);
    // The same limit over UDP: silence.
    let connection = stage.connect("198.51.100.1");
    assert_eq!(
        stage.udp_announce("198.51.100.1", connection, udp_announce(1)),
        None
    );
    stage.now += Duration::from_secs(30);
    assert!(
        stage
            .udp_announce("198.51.100.1", connection, udp_announce(1))
            .is_some()
    );
}

#[test]
fn events_that_nobody_polls_are_limited() {
    let mut stage = Stage::new();
    for port in 1..=EVENTS_MAX + 10 {
        stage.announce("127.0.0.1", FOREIGN, &format!("port={}", 1 + port % 900));
    }
    assert_eq!(stage.events().len(), EVENTS_MAX);
}

#[test]
fn random_datagrams_are_answered_or_dropped() {
    let mut stage = Stage::new();
    stage.server.set_rates(Rates {
        on_link: 1_000_000,
        ..Rates::BESIDE_TORRENTS
    });
    let connection = stage.connect("127.0.0.1");
    let mut rng = Rng::new(96);
    let mut answered = 0;
    for _ in 0..20_000 {
        let mut bytes = udp_request(connection, udp_announce(1));
        bytes.truncate(rng.below(bytes.len() as u32 + 1) as usize);
        for _ in 0..rng.below(4) {
            if !bytes.is_empty() {
                let at = rng.below(bytes.len() as u32) as usize;
                bytes[at] = rng.next_u64() as u8;
            }
        }
        answered += u32::from(stage.datagram("127.0.0.1", &bytes).is_some());
    }
    assert!((1..10_000).contains(&answered), "{answered}");
}
