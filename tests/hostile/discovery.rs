//! Rows 65, 73 to 77 and 112 to 115: who is found, at the pure parts that decide it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use evpeer::base::address::{Family, Interface, Interfaces};
use evpeer::base::id::InfoHash;
use evpeer::base::limits::{CANDIDATES_MAX, LSD_HASHES_MAX};
use evpeer::base::rng::Rng;
use evpeer::base::time::Instant;
use evpeer::discovery::Privacy;
use evpeer::discovery::candidates::{Candidates, End, Reach, Source};
use evpeer::discovery::gate::Gate;
use evpeer::discovery::lsd::Lsd;
use evpeer::discovery::pex::{Ourselves, PexFault, PexIn, PexOut, Roster};
use evpeer::wire::bencode::Encoder;
use evpeer::wire::lsd::{Announcement, LsdError};
use evpeer::wire::pex::{Flags, Pex};

const PORT: u16 = 6881;
const HASH: InfoHash = InfoHash([0xab; 20]);
const SENDER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 9));

fn secs(secs: u64) -> Instant {
    Instant::ZERO + Duration::from_secs(secs)
}

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// A machine with one interface, 10.0.0.1/24.
fn interfaces() -> Interfaces {
    Interfaces::new(vec![Interface {
        index: 2,
        ip: [10, 0, 0, 1].into(),
        prefix_len: 24,
    }])
}

fn found(privacy: Privacy) -> (Candidates, Gate) {
    let mut candidates = Candidates::new(privacy, Rng::new(1));
    let mut gate = Gate::new(500);
    candidates.interfaces_found(&interfaces());
    gate.interfaces_found(&interfaces());
    (candidates, gate)
}

/// The body of a `ut_pex` message with these lists of IPv4 peers.
fn pex_body(added: &[u8], flags: &[u8], dropped: &[u8]) -> Vec<u8> {
    let mut encoder = Encoder::default();
    encoder.dict_begin();
    encoder.key(b"added").bytes(added);
    encoder.key(b"added.f").bytes(flags);
    encoder.key(b"dropped").bytes(dropped);
    encoder.end();
    encoder.finish()
}

fn compact(count: u16) -> Vec<u8> {
    let one = |n: u16| [203, 0, (n >> 8) as u8, n as u8, 0x1a, 0xe1];
    (0..count).flat_map(one).collect()
}

/// What is believed of a message's body, sent to a peer that heard nothing before.
fn believed(body: &[u8], sender: IpAddr) -> Vec<SocketAddr> {
    let pex = Pex::decode(body).expect("bencode");
    let interfaces = interfaces();
    let ourselves = Ourselves {
        interfaces: &interfaces,
        port: PORT,
    };
    let given = PexIn::default().received(&pex, sender, ourselves, secs(1));
    let given = given.expect("one message is not too many");
    given.into_iter().map(|(addr, _)| addr).collect()
}

fn lsd() -> Lsd {
    let mut lsd = Lsd::new(PORT, Rng::new(1));
    lsd.interfaces_found(&interfaces());
    lsd.add(HASH, Privacy::Public);
    lsd
}

fn search(fields: &str) -> Vec<u8> {
    format!("BT-SEARCH * HTTP/1.1\r\nHost: 239.192.152.143:6771\r\n{fields}\r\n\r\n").into_bytes()
}

#[test]
fn hostile_065_one_off_link_network_gets_a_quarter_of_the_slots() {
    let mut gate = Gate::new(500);
    gate.interfaces_found(&interfaces());
    let mut let_in = BTreeMap::new();
    for n in 0..2000_u16 {
        // 95 of 100 come from one network, the others from networks of their own or from the link.
        let ip = match n % 40 {
            0 => IpAddr::from([203, (n >> 8) as u8, n as u8, 1]),
            1 => IpAddr::from([10, 0, 0, (n / 40) as u8]),
            _ => IpAddr::from([198, 51, 100, n as u8]),
        };
        if gate.has_room(ip) {
            gate.joined(ip);
            let first = match ip {
                IpAddr::V4(ip) => ip.octets()[0],
                IpAddr::V6(_) => panic!("none is there"),
            };
            *let_in.entry(first).or_insert(0) += 1;
        }
    }
    assert_eq!(let_in, BTreeMap::from([(10, 50), (198, 125), (203, 50)]));
}

#[test]
fn hostile_073_pex_floods_are_cut_and_contradictions_ignored() {
    let many = compact(10_000);
    let first = believed(&pex_body(&many, &[0; 10_000], &[]), SENDER);
    assert_eq!(first.len(), 50);
    let expected: Vec<_> = (0..50).map(|n| ([203, 0, 0, n], PORT).into()).collect();
    assert_eq!(first, expected, "the first of them");
    let list = compact(10);
    #[rustfmt::skip]
    let cases = [
        // what                         added         flags       dropped       believed
        ("a tail of 5 bytes",           &list[..59],  &[0; 9][..], &[][..],     9),
        ("a tail of 1 byte",            &list[..55],  &[0; 9],     &[],         9),
        ("5 bytes",                     &list[..5],   &[],         &[],         0),
        ("one flag too few",            &list[..],    &[0x12; 9],  &[],         10),
        ("10,000 flags",                &list[..],    &[0x12; 10_000], &[],     10),
        ("all added and dropped",       &list[..],    &[0; 10],    &list[..],   0),
        ("half added and dropped",      &list[..],    &[0; 10],    &list[..30], 5),
    ];
    for (name, added, flags, dropped, count) in cases {
        let body = pex_body(added, flags, dropped);
        assert_eq!(believed(&body, SENDER).len(), count, "{name}");
    }
}

#[test]
fn hostile_073_pex_too_often_is_ignored_and_then_closes() {
    let pex = Pex::decode(&pex_body(&compact(3), &[0; 3], &[])).expect("bencode");
    let interfaces = interfaces();
    let ourselves = Ourselves {
        interfaces: &interfaces,
        port: PORT,
    };
    let mut peer = PexIn::default();
    for (at, count) in [(0, 3), (5, 0), (14, 0), (15, 3), (20, 0), (25, 0)] {
        let given = peer.received(&pex, SENDER, ourselves, secs(at));
        assert_eq!(given.map(|given| given.len()), Ok(count), "at {at} s");
    }
    let seventh = peer.received(&pex, SENDER, ourselves, secs(59));
    assert_eq!(seventh, Err(PexFault::TooMany));
}

#[test]
fn hostile_074_pex_addresses_that_cannot_be_are_dropped() {
    #[rustfmt::skip]
    let cases = [
        // told of                    by a peer of the link   by one of the internet
        ("203.0.113.1:6881",          true,                   true),
        ("10.0.0.7:6881",             true,                   false),
        ("192.168.1.1:6881",          true,                   false),
        ("[fd00::7]:6881",            true,                   false),
        ("0.0.0.0:6881",              false,                  false),
        ("127.0.0.1:6881",            false,                  false),
        ("169.254.1.1:6881",          false,                  false),
        ("239.192.152.143:6771",      false,                  false),
        ("255.255.255.255:6881",      false,                  false),
        ("203.0.113.1:0",             false,                  false),
        ("203.0.113.1:53",            false,                  false),
        ("203.0.113.1:1023",          false,                  false),
        ("10.0.0.1:6881",             false,                  false), // our own
        ("[::ffff:203.0.113.1]:6881", false,                  false),
        ("[fe80::7]:6881",            false,                  false),
    ];
    for (text, on_link, off_link) in cases {
        let told = addr(text);
        let octets = match told.ip() {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        let peer = [&octets[..], &told.port().to_be_bytes()].concat();
        let mut encoder = Encoder::default();
        encoder.dict_begin();
        let key: &[u8] = if told.is_ipv4() { b"added" } else { b"added6" };
        encoder.key(key).bytes(&peer);
        encoder.end();
        let body = encoder.finish();
        for (sender, is_believed) in [("10.0.0.9", on_link), ("198.51.100.7", off_link)] {
            let given = believed(&body, sender.parse().expect("an address"));
            let expected = if is_believed { vec![told] } else { vec![] };
            assert_eq!(given, expected, "{text} from {sender}");
        }
    }
    let loopback = pex_body(&[127, 0, 0, 1, 0x1a, 0xe2], &[0], &[]);
    let expected = [addr("127.0.0.1:6882")];
    assert_eq!(believed(&loopback, [127, 0, 0, 1].into()), expected);
}

#[test]
fn hostile_075_victim_of_pex_is_dialled_thrice_in_ten_minutes() {
    let (mut first, mut gate) = found(Privacy::Public);
    let mut second = first_of_another_torrent();
    for port in 1..=u16::MAX {
        let sender = IpAddr::from([10, 0, 0, (port % 50) as u8]);
        let victim = ([203, 0, 113, 1], port).into();
        for candidates in [&mut first, &mut second] {
            candidates.add(victim, Source::Pex { sender }, secs(0));
        }
    }
    let mut attempts = Vec::new();
    for second_no in 0..1800 {
        let now = secs(second_no);
        for candidates in [&mut first, &mut second] {
            while let Some(remote) = candidates.take_due(Reach::Everywhere, &mut gate, now) {
                assert!(remote.port() >= 1024, "{remote}");
                attempts.push(now);
                candidates.ended(remote, End::Unreachable, Duration::ZERO, now);
            }
        }
    }
    for four in attempts.windows(4) {
        assert!(four[3] - four[0] >= Duration::from_secs(600), "{four:?}");
    }
    assert!((7..=9).contains(&attempts.len()), "{attempts:?}");
}

fn first_of_another_torrent() -> Candidates {
    found(Privacy::Public).0
}

#[test]
fn hostile_076_private_torrent_neither_tells_nor_believes() {
    let (mut candidates, mut gate) = found(Privacy::Private);
    for source in [
        Source::Lsd,
        Source::Pex { sender: SENDER },
        Source::Evpeer { sender: SENDER },
    ] {
        assert!(!candidates.add(addr("10.0.0.7:6881"), source, secs(0)));
    }
    assert_eq!(
        candidates.take_due(Reach::Everywhere, &mut gate, secs(1)),
        None
    );

    let mut roster = Roster::new(Privacy::Private);
    roster.joined(addr("10.0.0.7:6881"), Flags(0), secs(0));
    let mut out = PexOut::new(&mut Rng::new(1), secs(0));
    assert_eq!(out.next(&roster, SENDER, None, secs(100)), None);

    let mut lsd = Lsd::new(PORT, Rng::new(1));
    lsd.interfaces_found(&interfaces());
    lsd.add(HASH, Privacy::Private);
    assert_eq!(lsd.poll(secs(100)), None);
}

#[test]
fn hostile_077_one_liar_has_three_of_ten_places_and_the_dead_give_way() {
    let (mut candidates, mut gate) = found(Privacy::Public);
    let liar = Source::Pex { sender: SENDER };
    let dead = |n: u16| SocketAddr::from(([203, (n >> 8) as u8, n as u8, 1], PORT));
    for n in 0..10_000 {
        candidates.add(dead(n), liar, secs(0));
    }
    assert_eq!(candidates.len(), CANDIDATES_MAX * 30 / 100);
    for other in 0..10 {
        let sender = [10, 0, 0, 100 + other].into();
        for n in 0..600 {
            let told = dead(10_000 + u16::from(other) * 600 + n);
            candidates.add(told, Source::Pex { sender }, secs(0));
        }
    }
    assert_eq!(candidates.len(), CANDIDATES_MAX);
    for n in 0..200 {
        let honest = ([10, 0, 0, n], PORT).into();
        assert!(candidates.add(honest, Source::Tracker, secs(0)), "{honest}");
    }
    // And they are dialled before all of that.
    for _ in 0..200 {
        let taken = candidates
            .take_due(Reach::Everywhere, &mut gate, secs(1))
            .expect("one is due");
        assert!(taken.to_string().starts_with("10.0.0."), "{taken}");
    }
}

#[test]
fn hostile_112_malformed_local_discovery_is_dropped_and_floods_are_cut() {
    let hashes: String = (0..1000)
        .map(|n| format!("Infohash: {:040x}\r\n", n + 1))
        .collect();
    let told = Announcement::decode(&search(&format!("Port: 6881\r\n{hashes}")));
    let told = told.expect("it is one");
    assert_eq!(told.info_hashes.len(), LSD_HASHES_MAX);

    let a = HASH;
    let long = "x".repeat(64 * 1024);
    #[rustfmt::skip]
    let cases = [
        ("no CRLF",           format!("BT-SEARCH * HTTP/1.1 Port: 6881 Infohash: {a}").into_bytes(),
                                                                          LsdError::NotASearch),
        ("only LF",           format!("BT-SEARCH * HTTP/1.1\nPort: 6881\nInfohash: {a}\n\n")
                                  .into_bytes(),                          LsdError::NotASearch),
        ("64 KiB of a line",  search(&format!("X: {long}\r\nPort: 6881\r\nInfohash: {a}\r\n")),
                                                                          LsdError::BadPort),
        ("64 KiB of noise",   vec![0xff; 64 * 1024],                      LsdError::NotASearch),
        ("port 0",            search(&format!("Port: 0\r\nInfohash: {a}\r\n")), LsdError::BadPort),
        ("port 99999",        search(&format!("Port: 99999\r\nInfohash: {a}\r\n")),
                                                                          LsdError::BadPort),
        ("bad hex",           search(&format!("Port: 6881\r\nInfohash: {}\r\n", "xy".repeat(20))),
                                                                          LsdError::NoInfoHash),
        ("41 digits",         search(&format!("Port: 6881\r\nInfohash: {a}0\r\n")),
                                                                          LsdError::NoInfoHash),
    ];
    for (name, packet, refusal) in cases {
        assert_eq!(Announcement::decode(&packet), Err(refusal), "{name}");
        let heard = lsd().received(addr("10.0.0.9:6771"), 2, &packet, secs(1));
        assert_eq!(heard, [], "{name}");
    }
}

#[test]
fn hostile_113_local_discovery_is_local_and_replays_give_one_dial_a_minute() {
    let packet = search(&format!("Port: 7000\r\nInfohash: {HASH}\r\n"));
    for (sender, interface) in [
        ("198.51.100.1:6771", 2),
        ("10.0.1.9:6771", 2),
        ("127.0.0.1:6771", 2),
        ("10.0.0.9:6771", 3),
    ] {
        let heard = lsd().received(addr(sender), interface, &packet, secs(1));
        assert_eq!(heard, [], "{sender} by {interface}");
    }
    let mut lsd = lsd();
    let own = lsd.poll(secs(0)).expect("it is announced").bytes;
    assert_eq!(lsd.received(addr("10.0.0.9:6771"), 2, &own, secs(1)), []);

    let mut heard = 0;
    let mut answers = 0;
    for n in 0..100_000 {
        let now = Instant::from_micros(n * 1200); // for two minutes
        heard += lsd.received(addr("10.0.0.9:6771"), 2, &packet, now).len();
        while lsd.poll(now).is_some() {
            answers += 1;
        }
    }
    assert_eq!(heard, 2);
    assert_eq!(
        answers, 2,
        "the rest of the beginning, which was the answer"
    );
}

#[test]
fn hostile_114_spoofed_announces_of_private_torrents_are_not_heard() {
    let mut lsd = Lsd::new(PORT, Rng::new(1));
    lsd.interfaces_found(&interfaces());
    for n in 0..100 {
        lsd.add(InfoHash([n; 20]), Privacy::Private);
    }
    for n in 0..100 {
        let packet = search(&format!(
            "Port: 7000\r\nInfohash: {}\r\n",
            InfoHash([n; 20])
        ));
        let heard = lsd.received(addr("10.0.0.9:6771"), 2, &packet, secs(1));
        assert_eq!(heard, []);
    }
    assert_eq!(lsd.next_deadline(), None, "nor are they answered");
}

#[test]
fn hostile_115_failing_or_vanished_interface_is_left_alone_and_tried_again() {
    let mut lsd = lsd();
    assert!(lsd.poll(secs(0)).is_some());
    for round in 0..5 {
        let now = secs(1 + round * 60);
        lsd.failed(2, Family::V4, "no such device", now);
        assert_eq!(lsd.poll(now + Duration::from_secs(59)), None);
        let at = now + Duration::from_secs(60);
        assert_eq!(lsd.next_deadline(), Some(at));
        assert!(lsd.poll(at).is_some(), "tried again");
    }
    lsd.interfaces_found(&Interfaces::default());
    assert_eq!(lsd.next_deadline(), None);
    let packet = search(&format!("Port: 7000\r\nInfohash: {HASH}\r\n"));
    assert_eq!(
        lsd.received(addr("10.0.0.9:6771"), 2, &packet, secs(1000)),
        []
    );
    lsd.interfaces_found(&interfaces());
    assert!(lsd.poll(secs(1000)).is_some());
    assert_eq!(
        lsd.received(addr("10.0.0.9:6771"), 2, &packet, secs(1000))
            .len(),
        1
    );
}
