//! Clients that abuse the tracker that every peer is: rows 87 to 98, at the server itself.
//!
//! Requests go in as the bytes that come from the network, answers are read as clients read them.
//! Beside each attack an honest peer of the LAN announces itself: it is answered before, while and
//! after.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use evpeer::base::address::{Interface, Interfaces};
use evpeer::base::id::{InfoHash, PeerId};
use evpeer::base::limits::{
    OPEN_SWARMS_MAX, PEERS_PER_SWARM_MAX, PORTS_OFF_LINK_MAX, PORTS_ON_LINK_MAX,
    REQUEST_HEAD_LEN_MAX, TOLD_PEERS_DEFAULT, TOLD_PEERS_MAX,
};
use evpeer::base::rng::Rng;
use evpeer::base::time::Instant;
use evpeer::tracker::asker::Asker;
use evpeer::tracker::budget::Rates;
use evpeer::tracker::registry::{Openness, Terms};
use evpeer::tracker::secret::Secret;
use evpeer::tracker::server::{HttpReply, Server};
use evpeer::wire::announce::{AnnounceError, AnnounceReply, Event};
use evpeer::wire::request::{RequestError, RequestReader};
use evpeer::wire::udp_tracker::{Reply, Request, UdpAnnounce};
use evpeer::wire::url::percent_encode;

const HASH: InfoHash = InfoHash([0x11; 20]);
const HONEST: &str = "10.0.0.2:6881";
const ATTACKER: &str = "198.51.100.66:6881";
const VICTIM: &str = "203.0.113.7";

/// A tracker on 10.0.0.1/8, with a clock.
struct Stage {
    server: Server,
    interfaces: Interfaces,
    now: Instant,
}

impl Stage {
    fn new(openness: Openness) -> Self {
        let mut server = Server::new(Secret::new([0x5a; 16]), openness);
        let now = Instant::from_micros(1_000_000_000);
        server.registry.track(HASH, Terms::default(), now);
        let interface = Interface {
            index: 2,
            ip: IpAddr::from([10, 0, 0, 1]),
            prefix_len: 8,
        };
        let mut stage = Self {
            server,
            interfaces: Interfaces::new(vec![interface]),
            now,
        };
        stage.assert_serves();
        stage
    }

    /// Without limits of requests a second, to reach the others.
    fn boundless(openness: Openness) -> Self {
        let mut stage = Self::new(openness);
        stage.server.set_rates(Rates {
            off_link_host: u32::MAX,
            on_link_host: u32::MAX,
            off_link: u32::MAX,
            on_link: u32::MAX,
        });
        stage
    }

    /// Answers to all requests in `stream`; the last may be the refusal that ends it.
    fn stream(&mut self, from: &str, stream: &[u8]) -> Vec<Vec<u8>> {
        let mut reader = RequestReader::default();
        let mut answers = Vec::new();
        let mut bytes = stream;
        while !bytes.is_empty() {
            match reader.received(bytes) {
                Ok((used, request)) => {
                    bytes = &bytes[used..];
                    let Some(request) = request else {
                        continue;
                    };
                    match self
                        .server
                        .http(&request, &asker(&self.interfaces, from), self.now)
                    {
                        HttpReply::Whole { bytes, .. } => answers.push(bytes.to_vec()),
                        HttpReply::Torrent(info_hash) => panic!("the torrent {info_hash}"),
                    }
                }
                Err(error) => {
                    answers.push(error.respond().to_vec());
                    break;
                }
            }
        }
        while self.server.poll_event().is_some() {}
        answers
    }

    /// The body of the answer to a GET.
    fn get(&mut self, from: &str, target: &str) -> Vec<u8> {
        let request = format!("GET {target} HTTP/1.1\r\n\r\n");
        let answers = self.stream(from, request.as_bytes());
        assert_eq!(answers.len(), 1, "{target}");
        let end = answers[0].windows(4).position(|part| part == b"\r\n\r\n");
        answers[0][end.expect("a head") + 4..].to_vec()
    }

    fn announce(&mut self, from: &str, rest: &str) -> AnnounceReply {
        let body = self.get(from, &target(&percent_encode(&HASH.0), rest));
        AnnounceReply::decode(&body).unwrap_or_else(|error| panic!("{rest}: {error}"))
    }

    fn datagram(&mut self, from: &str, bytes: &[u8]) -> Option<Vec<u8>> {
        let asker = asker(&self.interfaces, from);
        let reply = self.server.datagram(bytes, &asker, self.now);
        while self.server.poll_event().is_some() {}
        reply.map(|reply| reply.to_vec())
    }

    fn connect(&mut self, from: &str) -> u64 {
        let reply = self.datagram(from, &connect()).expect("a connection id");
        match Reply::decode(&reply) {
            Ok(Reply::Connect { connection, .. }) => connection,
            other => panic!("{other:?}"),
        }
    }

    /// An honest peer of the LAN is answered by HTTP and by UDP, and is listed.
    fn assert_serves(&mut self) {
        let id = percent_encode(b"-TR3000-honestpeer..");
        let hash = percent_encode(&HASH.0);
        let target = format!("/announce?info_hash={hash}&peer_id={id}&port=6881&left=1");
        let body = self.get(HONEST, &target);
        let reply = AnnounceReply::decode(&body).expect("the honest peer is answered");
        assert!(reply.incomplete >= Some(1));
        let connection = self.connect(HONEST);
        let announce = UdpAnnounce {
            peer_id: PeerId(*b"-TR3000-honestpeer.."),
            ..udp_announce(1)
        };
        let reply = self.datagram(HONEST, &udp_request(connection, announce));
        let reply = reply.expect("the honest peer is answered");
        assert!(matches!(Reply::decode(&reply), Ok(Reply::Announce { .. })));
        let honest = HONEST.parse().unwrap();
        assert!(self.server.registry.peer(HASH, honest).is_some());
    }

    fn listed(&self) -> Vec<SocketAddr> {
        let entries = self.server.registry.peers(HASH);
        entries.map(|entry| entry.addr).collect()
    }
}

fn asker<'a>(interfaces: &'a Interfaces, from: &str) -> Asker<'a> {
    Asker {
        remote: from.parse().unwrap(),
        local: Some(IpAddr::from([10, 0, 0, 1])),
        interfaces,
        links: None,
    }
}

fn target(hash: &str, rest: &str) -> String {
    format!("/announce?info_hash={hash}&peer_id=-LT2000-attacker....&port=6881&{rest}")
}

fn connect() -> Vec<u8> {
    let mut bytes = Vec::new();
    Request::Connect { transaction: 1 }.encode(&mut bytes);
    bytes
}

fn udp_request(connection: u64, announce: UdpAnnounce) -> Vec<u8> {
    let mut bytes = Vec::new();
    Request::Announce {
        connection,
        transaction: 2,
        announce,
        url_data: "",
    }
    .encode(&mut bytes);
    bytes
}

fn udp_announce(left: u64) -> UdpAnnounce {
    UdpAnnounce {
        info_hash: HASH,
        peer_id: PeerId(*b"-LT2000-attacker...."),
        downloaded: 0,
        left,
        uploaded: 0,
        event: None,
        is_paused: false,
        ip: None,
        key: 7,
        numwant: None,
        port: 6881,
    }
}

fn scrape(connection: u64, count: usize) -> Vec<u8> {
    let hashes = vec![HASH.0; count];
    let mut bytes = Vec::new();
    Request::Scrape {
        connection,
        transaction: 3,
        hashes: &hashes,
    }
    .encode(&mut bytes);
    bytes
}

#[test]
fn hostile_087_malformed_info_hash_is_refused_in_few_bytes() {
    let mut stage = Stage::boundless(Openness::Open);
    let twenty = "a".repeat(20);
    let twice = format!("{twenty}&info_hash={twenty}");
    let twenty_one = "a".repeat(21);
    let refused = [
        "",
        "%",
        "%zz",
        "%0",
        "%%%%",
        &twenty[1..],
        &twenty_one,
        &twice,
        "ü",
    ];
    for hash in refused {
        let body = stage.get(ATTACKER, &target(hash, "left=1"));
        assert!(body.len() <= 128, "{hash}: {} B", body.len());
        let reply = AnnounceReply::decode(&body);
        assert!(
            matches!(reply, Err(AnnounceError::Refused { .. })),
            "{hash}: {reply:?}"
        );
    }
    let body = stage.get(ATTACKER, "/announce?peer_id=-LT2000-attacker....&port=1");
    assert!(body.starts_with(b"d14:failure reason") && body.len() <= 128);
    assert_eq!(stage.server.registry.swarms().count(), 1);
    // Either case of hex digits is the same swarm.
    for hash in ["%ab".repeat(20), "%AB".repeat(20)] {
        let body = stage.get(ATTACKER, &target(&hash, "left=1"));
        assert!(AnnounceReply::decode(&body).is_ok(), "{hash}");
    }
    assert_eq!(stage.server.registry.swarms().count(), 2);
    stage.assert_serves();
}

#[test]
fn hostile_088_absurd_numwant_is_clamped() {
    let mut stage = Stage::boundless(Openness::Closed);
    for n in 0..1000_u32 {
        let [_, _, high, low] = n.to_be_bytes();
        let id = format!("peer_id=-LT2000-{n:012}");
        stage.announce(&format!("10.2.{high}.{low}:6881"), &id);
    }
    #[rustfmt::skip]
    let cases = [
        ("numwant=-1",                    TOLD_PEERS_DEFAULT),
        ("numwant=0",                     0),
        ("numwant=9223372036854775808",   TOLD_PEERS_DEFAULT),
        ("numwant=-9223372036854775809",  TOLD_PEERS_DEFAULT),
        ("numwant=1000000000",            TOLD_PEERS_MAX),
    ];
    for (rest, expected) in cases {
        let reply = stage.announce(ATTACKER, rest);
        assert_eq!(reply.peers.len(), expected, "{rest}");
    }
    stage.assert_serves();
}

#[test]
fn hostile_089_nobody_is_listed_by_a_victims_address() {
    let mut stage = Stage::boundless(Openness::Closed);
    let connection = stage.connect(ATTACKER);
    for name in ["ip", "ipv4", "ipv6"] {
        for value in [
            VICTIM,
            "::ffff:203.0.113.7",
            "203.0.113.7:80",
            "10.0.0.2",
            "127.0.0.1",
        ] {
            stage.announce(ATTACKER, &format!("{name}={value}"));
            // A program on this machine, or a page in its browser, is believed no more.
            stage.announce("127.0.0.1:6881", &format!("{name}={value}"));
        }
    }
    let request = format!(
        "GET {} HTTP/1.1\r\nX-Forwarded-For: {VICTIM}\r\nForwarded: for={VICTIM}\r\n\r\n",
        target(&percent_encode(&HASH.0), "")
    );
    stage.stream(ATTACKER, request.as_bytes());
    let announce = UdpAnnounce {
        ip: VICTIM.parse().ok(),
        ..udp_announce(1)
    };
    stage
        .datagram(ATTACKER, &udp_request(connection, announce))
        .expect("a reply");

    let mut listed = stage.listed();
    listed.sort();
    let expected = [HONEST, "127.0.0.1:6881", ATTACKER].map(|addr| addr.parse().unwrap());
    assert_eq!(listed, expected);
    stage.assert_serves();
}

#[test]
fn hostile_090_absurd_amounts_do_no_harm() {
    let mut stage = Stage::boundless(Openness::Closed);
    let values = [
        "-1",
        "-9223372036854775809",
        "9223372036854775808",
        "99999999999999999999999",
    ];
    for value in values {
        for name in ["left", "uploaded", "downloaded"] {
            stage.announce(ATTACKER, &format!("{name}={value}"));
        }
        let counts = stage.server.registry.counts(HASH).expect("the swarm");
        assert_eq!((counts.complete, counts.incomplete), (0, 2), "{value}");
    }
    for port in ["-1", "65536", "99999999999999999999999"] {
        let hash = percent_encode(&HASH.0);
        let target = format!("/announce?info_hash={hash}&peer_id=-LT2000-attacker....&port={port}");
        assert!(
            stage
                .get(ATTACKER, &target)
                .starts_with(b"d14:failure reason")
        );
    }
    let connection = stage.connect(ATTACKER);
    for count in [u64::MAX, 1 << 63] {
        let announce = UdpAnnounce {
            downloaded: count,
            uploaded: count,
            ..udp_announce(count)
        };
        assert!(
            stage
                .datagram(ATTACKER, &udp_request(connection, announce))
                .is_some()
        );
    }
    let counts = stage.server.registry.counts(HASH).expect("the swarm");
    assert_eq!((counts.complete, counts.incomplete), (0, 2));
    stage.assert_serves();
}

#[test]
fn hostile_091_heads_without_end_are_cut_and_pipelined_requests_answered_in_order() {
    let mut stage = Stage::boundless(Openness::Closed);
    let line = [
        b"GET /".as_slice(),
        &vec![b'a'; 1 << 20],
        b" HTTP/1.1\r\n\r\n",
    ]
    .concat();
    let fields = [
        b"GET / HTTP/1.1\r\n".as_slice(),
        &b"a: b\r\n".repeat(10_000),
        b"\r\n",
    ]
    .concat();
    #[rustfmt::skip]
    let cases = [
        ("request line of 1 MiB", line,                                      "431"),
        ("10,000 fields",         fields,                                    "431"),
        ("NUL",                   b"GET /\0 HTTP/1.1\r\n\r\n".to_vec(),      "400"),
        ("bare LF",               b"GET /x HTTP/1.1\nHost: x\n\n".to_vec(),  "404"),
        ("not HTTP",              b"\x13BitTorrent protocol\n\n".to_vec(),   "400"),
    ];
    for (name, stream, status) in cases {
        let answers = stage.stream(ATTACKER, &stream);
        assert_eq!(answers.len(), 1, "{name}");
        assert_eq!(&answers[0][9..12], status.as_bytes(), "{name}");
    }
    // One byte after the other: the memory for a head is never more than a head.
    let mut reader = RequestReader::default();
    let mut fed = 0;
    let error = loop {
        fed += 1;
        match reader.received(b"a") {
            Ok((1, None)) => assert!(reader.is_within()),
            Ok(other) => panic!("{other:?}"),
            Err(error) => break error,
        }
    };
    assert_eq!(
        (error, fed),
        (RequestError::HeadTooLong, REQUEST_HEAD_LEN_MAX)
    );

    let requests: Vec<String> = (0..1000)
        .map(|n| match n % 3 {
            0 => "GET /nowhere HTTP/1.1\r\n\r\n".to_owned(),
            1 => "GET /scrape HTTP/1.1\r\n\r\n".to_owned(),
            _ => "PUT / HTTP/1.1\r\nContent-Length: 4\r\n\r\nGET ".to_owned(),
        })
        .collect();
    let answers = stage.stream(ATTACKER, requests.concat().as_bytes());
    let statuses: Vec<_> = answers
        .iter()
        .map(|answer| answer[9..12].to_vec())
        .collect();
    let expected: Vec<_> = ["404", "200", "405"]
        .into_iter()
        .cycle()
        .take(1000)
        .collect();
    assert_eq!(
        statuses,
        expected.iter().map(|s| s.as_bytes()).collect::<Vec<_>>()
    );
    stage.assert_serves();
}

#[test]
fn hostile_092_million_info_hashes_of_one_host_cost_only_that_host() {
    let mut stage = Stage::boundless(Openness::Open);
    let friend = "192.0.2.1:6881";
    let of_friend = InfoHash([0xee; 20]);
    let body = stage.get(friend, &target(&percent_encode(&of_friend.0), "left=1"));
    assert!(AnnounceReply::decode(&body).is_ok());
    for attacker in [ATTACKER, "10.66.66.66:6881"] {
        let connection = stage.connect(attacker);
        for n in 0..500_000_u32 {
            let mut announce = udp_announce(1);
            announce.info_hash.0[..4].copy_from_slice(&n.to_be_bytes());
            let request = udp_request(connection, announce);
            assert!(stage.datagram(attacker, &request).is_some());
        }
    }
    assert!(stage.server.registry.swarms().count() <= OPEN_SWARMS_MAX + 1);
    assert!(stage.server.registry.is_tracked(of_friend));
    stage.assert_serves();

    // A tracker that is not open keeps nothing of it at all.
    let mut stage = Stage::boundless(Openness::Closed);
    let connection = stage.connect(ATTACKER);
    for n in 0..1000_u32 {
        let mut announce = udp_announce(1);
        announce.info_hash.0[..4].copy_from_slice(&n.to_be_bytes());
        stage.datagram(ATTACKER, &udp_request(connection, announce));
    }
    assert_eq!(stage.server.registry.swarms().count(), 1);
}

#[test]
fn hostile_093_million_peers_and_the_ports_of_one_end_at_their_limits() {
    let mut stage = Stage::boundless(Openness::Closed);
    for (attacker, ports_max) in [
        ("198.51.100.66", PORTS_OFF_LINK_MAX),
        ("10.66.66.66", PORTS_ON_LINK_MAX),
    ] {
        let from = format!("{attacker}:5");
        let connection = stage.connect(&from);
        for port in 1..=u16::MAX {
            let announce = UdpAnnounce {
                port,
                ..udp_announce(1)
            };
            stage
                .datagram(&from, &udp_request(connection, announce))
                .expect("a reply");
        }
        let ip: IpAddr = attacker.parse().unwrap();
        let count = stage.listed().iter().filter(|addr| addr.ip() == ip).count();
        assert_eq!(count, ports_max, "{attacker}");
    }
    let mut rng = Rng::new(93);
    for _ in 0..1_000_000 {
        // Any address off our link: the first byte is not 10, and is no host's nowhere.
        let [a, b, c, d, ..] = rng.next_u64().to_be_bytes();
        let from = format!("{}.{b}.{c}.{d}:6881", 11 + a % 100);
        let connection = stage.connect(&from);
        let announce = UdpAnnounce {
            peer_id: PeerId([a; 20]),
            ..udp_announce(1)
        };
        stage
            .datagram(&from, &udp_request(connection, announce))
            .expect("a reply");
    }
    assert!(stage.listed().len() <= PEERS_PER_SWARM_MAX);
    assert!(stage.listed().len() > PEERS_PER_SWARM_MAX / 2);
    stage.assert_serves();
    // All of it is forgotten, in bounded turns.
    stage.now += Duration::from_secs(3600);
    for _ in 0..20 {
        let before = stage.server.registry.peer_count();
        stage.server.registry.expire(stage.now);
        let forgotten = before - stage.server.registry.peer_count();
        assert!(forgotten <= 10_000, "{forgotten} in one turn");
        stage.now += Duration::from_secs(5);
    }
    assert_eq!(stage.listed(), []);
}

#[test]
fn hostile_094_flood_of_connects_is_answered_without_memory_and_within_budget() {
    let mut stage = Stage::new(Openness::Open);
    let mut rng = Rng::new(94);
    let mut replied = 0;
    for _ in 0..1_000_000 {
        let [a, b, c, d, ..] = rng.next_u64().to_be_bytes();
        let from = format!("{}.{b}.{c}.{d}:53", 11 + a % 100);
        if let Some(reply) = stage.datagram(&from, &connect()) {
            assert!(reply.len() <= connect().len());
            replied += 1;
        }
        stage.now += Duration::from_micros(1);
    }
    // A second's worth, and that of the burst.
    assert!(replied < 3 * Rates::BESIDE_TORRENTS.off_link, "{replied}");
    assert_eq!(stage.server.registry.swarms().count(), 1);
    assert_eq!(stage.server.registry.peer_count(), 1);
    stage.assert_serves();
}

#[test]
fn hostile_095_connection_ids_that_were_not_given_to_the_asker_are_dropped() {
    let mut stage = Stage::boundless(Openness::Closed);
    let issued = stage.now;
    let own = stage.connect(ATTACKER);
    let others = stage.connect("198.51.100.67:6881");
    stage.now += Duration::from_secs(120);
    let future = stage.connect(ATTACKER);
    stage.now = issued;
    let mut rng = Rng::new(95);
    let forged = (0..10_000).map(|_| rng.next_u64());
    let ids = forged.chain([others, future, 0, u64::MAX, own ^ 1, 0x0417_2710_1980]);
    for id in ids.collect::<Vec<_>>() {
        assert_eq!(
            stage.datagram(ATTACKER, &udp_request(id, udp_announce(1))),
            None
        );
        assert_eq!(stage.datagram(ATTACKER, &scrape(id, 1)), None);
    }
    let attacker: SocketAddr = ATTACKER.parse().unwrap();
    assert!(!stage.listed().contains(&attacker));
    stage.now = issued + Duration::from_secs(60);
    assert!(
        stage
            .datagram(ATTACKER, &udp_request(own, udp_announce(1)))
            .is_some()
    );
    stage.now = issued + Duration::from_secs(121);
    assert_eq!(
        stage.datagram(ATTACKER, &udp_request(own, udp_announce(1))),
        None
    );
    stage.assert_serves();
}

#[test]
fn hostile_096_scrapes_of_too_much_and_short_datagrams_are_dropped() {
    let mut stage = Stage::boundless(Openness::Closed);
    let connection = stage.connect(ATTACKER);
    #[rustfmt::skip]
    let cases = [(0, None), (1, Some(20)), (74, Some(8 + 74 * 12)), (75, None), (1000, None)];
    for (count, expected) in cases {
        let reply = stage.datagram(ATTACKER, &scrape(connection, count));
        assert_eq!(reply.map(|reply| reply.len()), expected, "{count} hashes");
    }
    let announce = udp_request(connection, udp_announce(1));
    for len in 0..announce.len() {
        let reply = stage.datagram(ATTACKER, &announce[..len]);
        assert_eq!(reply, None, "announce of {len} B");
    }
    let one = scrape(connection, 1);
    for len in 0..one.len() {
        assert_eq!(
            stage.datagram(ATTACKER, &one[..len]),
            None,
            "scrape of {len} B"
        );
        assert_eq!(stage.datagram(ATTACKER, &connect()[..len.min(15)]), None);
    }
    let hashes = (0..1000).map(|_| format!("info_hash={}", percent_encode(&HASH.0)));
    let target = format!("/scrape?{}", hashes.take(110).collect::<Vec<_>>().join("&"));
    assert!(
        stage
            .get(ATTACKER, &target)
            .starts_with(b"d14:failure reason")
    );
    stage.assert_serves();
}

/// Goal: who spoofs a victim's address cannot make us send it more than it sends us.
/// Method: every request, whole, cut, changed and with options behind it, from an address that
/// proved nothing; bytes are counted both ways, for each datagram alone.
#[test]
fn hostile_097_nothing_is_amplified_before_an_address_is_proved() {
    let mut stage = Stage::boundless(Openness::Open);
    let kinds = [
        connect(),
        udp_request(0x0417_2710_1980, udp_announce(1)),
        udp_request(u64::MAX, udp_announce(0)),
        scrape(0x0417_2710_1980, 74),
        scrape(7, 1),
        b"d1:ad2:id20:aaaaaaaaaaaaaaaaaaaae1:q4:ping1:t2:aa1:y1:qe".to_vec(),
    ];
    let mut rng = Rng::new(97);
    let (mut bytes_in, mut bytes_out) = (0, 0);
    let victim = format!("{VICTIM}:53");
    for _ in 0..200_000 {
        let mut bytes = kinds[rng.below(kinds.len() as u32) as usize].clone();
        match rng.below(4) {
            0 => bytes.truncate(rng.below(bytes.len() as u32 + 1) as usize),
            1 => bytes.resize(bytes.len() + rng.below(1000) as usize, 2),
            2 => {
                let at = rng.below(bytes.len() as u32) as usize;
                bytes[at] = rng.next_u64() as u8;
            }
            _ => {}
        }
        let reply = stage
            .datagram(&victim, &bytes)
            .map_or(0, |reply| reply.len());
        assert!(
            reply <= bytes.len(),
            "{} B for {}",
            reply,
            bytes.escape_ascii()
        );
        bytes_in += bytes.len();
        bytes_out += reply;
    }
    assert!(bytes_out > 0 && bytes_out < bytes_in);
    assert_eq!(stage.server.registry.peer_count(), 1);
    stage.assert_serves();
}

#[test]
fn hostile_098_replays_leave_the_counts_right() {
    let mut stage = Stage::boundless(Openness::Closed);
    let connection = stage.connect(ATTACKER);
    let mut rng = Rng::new(98);
    let announce = |stage: &mut Stage, event, left, key, id: u8| {
        let mut announce = UdpAnnounce {
            event,
            key,
            ..udp_announce(left)
        };
        announce.peer_id.0[19] = id;
        stage
            .datagram(ATTACKER, &udp_request(connection, announce))
            .expect("a reply");
        let counts = stage.server.registry.counts(HASH).expect("the swarm");
        let honest = 1;
        let attackers = counts.complete + counts.incomplete - honest;
        assert!(attackers <= 1, "{counts:?}");
        (attackers, counts.downloaded)
    };
    for _ in 0..100 {
        announce(&mut stage, Some(Event::Started), 5, 1, 0);
        let downloaded = announce(&mut stage, Some(Event::Completed), 0, 1, 0).1;
        for _ in 0..10 {
            // Replayed, and by another client that has neither this one's id nor its key.
            assert_eq!(
                announce(&mut stage, Some(Event::Completed), 0, 1, 0),
                (1, downloaded)
            );
            assert_eq!(
                announce(&mut stage, Some(Event::Stopped), 0, 2, 9),
                (1, downloaded)
            );
        }
        for _ in 0..10 {
            assert_eq!(
                announce(&mut stage, Some(Event::Stopped), 0, 1, 0),
                (0, downloaded)
            );
        }
    }
    let events = [
        None,
        Some(Event::Started),
        Some(Event::Completed),
        Some(Event::Stopped),
    ];
    for _ in 0..20_000 {
        let event = events[rng.below(4) as usize];
        let (left, key) = (rng.below(2).into(), rng.below(3));
        announce(&mut stage, event, left, key, rng.below(3) as u8);
    }
    stage.assert_serves();
}
