//! What leaves when and where, and what comes of what is heard.

use super::*;
use crate::base::address::Interface;

const PORT: u16 = 6881;
const V4: Family = Family::V4;
const V6: Family = Family::V6;

fn ms(ms: u64) -> Instant {
    Instant::from_micros(ms * 1000)
}

fn secs(secs: u64) -> Instant {
    ms(secs * 1000)
}

fn hash(n: u16) -> InfoHash {
    let mut bytes = [0; 20];
    bytes[..2].copy_from_slice(&n.to_be_bytes());
    InfoHash(bytes)
}

fn interfaces(all: &[(u32, &str, u8)]) -> Interfaces {
    let interface = |&(index, ip, prefix_len): &(u32, &str, u8)| Interface {
        index,
        ip: ip.parse().expect("an address"),
        prefix_len,
    };
    Interfaces::new(all.iter().map(interface).collect())
}

/// One interface of IPv4 with one torrent that has been announced three times.
fn settled() -> Lsd {
    let mut lsd = Lsd::new(PORT, Rng::new(1));
    lsd.interfaces_found(&interfaces(&[(2, "10.0.0.1", 24)]));
    lsd.add(hash(1), Privacy::Public);
    assert_eq!(sent(&mut lsd, secs(0), secs(10)).len(), 3);
    lsd
}

/// What leaves in a span, polled as a loop does: at the deadlines.
fn sent(lsd: &mut Lsd, from: Instant, until: Instant) -> Vec<(Instant, Packet)> {
    let mut all = Vec::new();
    let mut now = from;
    loop {
        while let Some(packet) = lsd.poll(now) {
            all.push((now, packet));
        }
        match lsd.next_deadline() {
            Some(at) if at <= until => {
                assert!(at > now, "poll leaves nothing that is due");
                now = at;
            }
            _ => return all,
        }
    }
}

fn moments(sent: &[(Instant, Packet)]) -> Vec<u64> {
    sent.iter().map(|(at, _)| at.as_micros() / 1000).collect()
}

/// Another client's packet.
fn said(port: u16, info_hash: InfoHash) -> Vec<u8> {
    let packet = encode(V4, port, info_hash, Cookie::new(0));
    let text = String::from_utf8(packet).expect("ASCII");
    text.replace("cookie: 100000000", "cookie: fvZ2q@!8Zp0-")
        .into_bytes()
}

fn from(ip: &str) -> SocketAddr {
    SocketAddr::new(ip.parse().expect("an address"), 6771)
}

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

#[test]
fn torrent_is_announced_thrice_at_the_start_and_then_every_five_minutes() {
    let mut lsd = Lsd::new(PORT, Rng::new(1));
    assert_eq!(lsd.next_deadline(), None);
    lsd.add(hash(1), Privacy::Public);
    assert_eq!(lsd.next_deadline(), None, "there is no link");
    lsd.interfaces_found(&interfaces(&[(2, "10.0.0.1", 24)]));
    let all = sent(&mut lsd, secs(0), secs(700));
    assert_eq!(moments(&all), [0, 2000, 6000, 306_000, 606_000]);
    let told = Announcement::decode(&all[0].1.bytes).expect("it is one");
    assert_eq!((told.port, told.info_hashes), (PORT, vec![hash(1)]));
    assert_eq!((all[0].1.interface, all[0].1.family), (2, V4));

    lsd.remove(hash(1));
    assert_eq!(lsd.next_deadline(), None);
}

#[test]
fn nothing_is_said_of_a_private_torrent_nor_without_a_port() {
    let mut lsd = Lsd::new(0, Rng::new(1));
    lsd.interfaces_found(&interfaces(&[(2, "10.0.0.1", 24)]));
    lsd.add(hash(1), Privacy::Private);
    assert_eq!(lsd.next_deadline(), None);
    lsd.add(hash(2), Privacy::Public);
    assert_eq!((lsd.next_deadline(), lsd.poll(secs(1))), (None, None));
    lsd.listening(PORT);
    let all = sent(&mut lsd, secs(5), secs(1000));
    let of_public = encode(V4, PORT, hash(2), lsd.cookie);
    assert!(all.iter().all(|(_, packet)| packet.bytes == of_public));
}

#[test]
fn both_families_of_every_link_hear_of_it() {
    #[rustfmt::skip]
    let cases = [
        // what                addresses                                        links
        ("two interfaces",   vec![(2, "10.0.0.1", 24), (3, "10.1.0.1", 24)],
                                                                  vec![(2, V4), (3, V4)]),
        ("both families",    vec![(2, "10.0.0.1", 24), (2, "fe80::1", 64)],
                                                                  vec![(2, V4), (2, V6)]),
        ("three addresses",  vec![(2, "fd00::1", 64), (2, "2001:db8::1", 64), (2, "fe80::1", 64)],
                                                                  vec![(2, V6)]),
        ("loopback aside",   vec![(1, "127.0.0.1", 8), (1, "::1", 128), (2, "10.0.0.1", 24)],
                                                                  vec![(2, V4)]),
        ("loopback alone",   vec![(1, "127.0.0.1", 8), (1, "::1", 128)],
                                                                  vec![(1, V4), (1, V6)]),
        ("nothing",          vec![(2, "0.0.0.0", 0)],             vec![]),
    ];
    for (name, addresses, links) in cases {
        let mut lsd = Lsd::new(PORT, Rng::new(1));
        lsd.add(hash(1), Privacy::Public);
        lsd.interfaces_found(&interfaces(&addresses));
        let all = sent(&mut lsd, secs(0), secs(1));
        let mut used: Vec<_> = all
            .iter()
            .map(|(_, packet)| (packet.interface, packet.family))
            .collect();
        used.sort_unstable();
        assert_eq!(used, links, "{name}");
    }
}

/// Goal: no interface sees more than five packets in any second, and all torrents get their turn.
/// Method: a hundred torrents on two interfaces, one of them with two families.
#[test]
fn packets_are_paced_by_interface_and_go_round_all_torrents() {
    let mut lsd = Lsd::new(PORT, Rng::new(1));
    lsd.interfaces_found(&interfaces(&[
        (2, "10.0.0.1", 24),
        (2, "fe80::1", 64),
        (3, "10.1.0.1", 24),
    ]));
    for n in 0..100 {
        lsd.add(hash(n), Privacy::Public);
    }
    let all = sent(&mut lsd, secs(0), secs(40));
    for interface in [2, 3] {
        let times: Vec<_> = all
            .iter()
            .filter(|(_, packet)| packet.interface == interface)
            .map(|(at, _)| *at)
            .collect();
        assert_eq!(times.len(), 201, "5 packets/s for 40 s");
        for six in times.windows(6) {
            assert!(six[5] - six[0] >= Duration::from_secs(1), "{six:?}");
        }
    }
    // On the first interface 40 s are just enough for every torrent once, in both families.
    for family in [V4, V6] {
        let on_first = |packet: &Packet| (packet.interface, packet.family) == (2, family);
        let heard: BTreeSet<_> = all
            .iter()
            .filter(|(_, packet)| on_first(packet))
            .map(|(_, packet)| packet.bytes.clone())
            .collect();
        assert_eq!(heard.len(), 100, "{family:?}");
    }
    // A torrent that is added now does not wait for the repetitions of the others.
    lsd.add(hash(500), Privacy::Public);
    let next = sent(&mut lsd, secs(41), ms(41_100));
    let expected = encode(V4, PORT, hash(500), lsd.cookie);
    assert!(next.iter().all(|(_, packet)| packet.bytes == expected));
    assert_eq!(next.len(), 2, "once on each interface");
}

#[test]
fn new_link_and_new_address_hear_of_every_torrent_and_known_ones_are_spared() {
    let mut lsd = settled();
    lsd.interfaces_found(&interfaces(&[(2, "10.0.0.1", 24)]));
    assert_eq!(sent(&mut lsd, secs(20), secs(100)).len(), 0, "no change");
    lsd.interfaces_found(&interfaces(&[(2, "10.0.0.1", 24), (3, "10.1.0.1", 24)]));
    let all = sent(&mut lsd, secs(100), secs(110));
    assert_eq!(moments(&all), [100_000, 102_000, 106_000]);
    assert!(all.iter().all(|(_, packet)| packet.interface == 3));
    lsd.interfaces_found(&interfaces(&[(2, "10.0.0.7", 24)]));
    let all = sent(&mut lsd, secs(200), secs(210));
    assert_eq!(moments(&all), [200_000, 202_000, 206_000]);
    assert!(all.iter().all(|(_, packet)| packet.interface == 2));
    assert_eq!(lsd.ready.len(), 1);
}

#[test]
fn who_has_our_torrent_is_found_at_the_port_it_names() {
    let mut lsd = settled();
    let packet = said(7000, hash(1));
    let found = lsd.received(from("10.0.0.9"), 2, &packet, secs(20));
    assert_eq!(found, [(hash(1), addr("10.0.0.9:7000"))]);
    let foreign = said(7000, hash(2));
    assert_eq!(
        lsd.received(from("10.0.0.8"), 2, &foreign, secs(20)),
        [],
        "not one of ours"
    );
}

#[test]
fn only_what_comes_from_the_link_is_heard() {
    let ours = interfaces(&[
        (2, "10.0.0.1", 24),
        (2, "fd00::1", 64),
        (3, "10.1.0.1", 24),
        (3, "fe80::1", 64),
    ]);
    #[rustfmt::skip]
    let cases = [
        // sender                    interface   found at
        ("10.0.0.9:6771",            2,          Some("10.0.0.9:7000")),
        ("10.0.0.9:1",               2,          Some("10.0.0.9:7000")),
        ("10.1.0.9:6771",            2,          None),
        ("10.0.0.9:6771",            3,          None),
        ("10.0.0.9:6771",            4,          None),
        ("198.51.100.1:6771",        2,          None),
        ("127.0.0.1:6771",           2,          None),
        ("169.254.1.1:6771",         2,          None),
        ("[::ffff:10.0.0.9]:6771",   2,          Some("10.0.0.9:7000")),
        ("[fd00::9]:6771",           2,          Some("[fd00::9]:7000")),
        ("[fd00:0:0:1::9]:6771",     2,          None),
        ("[fe80::9%3]:6771",         3,          Some("[fe80::9%3]:7000")),
        ("[fe80::9]:6771",           3,          Some("[fe80::9%3]:7000")),
        ("[2001:db8::9]:6771",       3,          None),
        ("0.0.0.0:6771",             2,          None),
        // Our own machine: another process, and ourselves.
        ("10.0.0.1:6771",            2,          Some("10.0.0.1:7000")),
    ];
    for (sender, interface, remote) in cases {
        let mut lsd = Lsd::new(PORT, Rng::new(1));
        lsd.interfaces_found(&ours);
        lsd.add(hash(1), Privacy::Public);
        let packet = said(7000, hash(1));
        let found = lsd.received(addr(sender), interface, &packet, secs(1));
        let expected: Vec<_> = remote
            .iter()
            .map(|remote| (hash(1), addr(remote)))
            .collect();
        assert_eq!(found, expected, "{sender} on {interface}");
        let ourselves = said(PORT, hash(1));
        let found = lsd.received(addr("10.0.0.1:6771"), 2, &ourselves, secs(1));
        assert_eq!(found, [], "it is us");
    }
}

#[test]
fn host_is_given_once_a_minute_and_every_port_of_our_own_machine_is_a_host() {
    let mut lsd = settled();
    let mut count = |ip: &str, port, at| {
        lsd.received(from(ip), 2, &said(port, hash(1)), secs(at))
            .len()
    };
    #[rustfmt::skip]
    let cases = [
        // ip          port   second   given
        ("10.0.0.9",   7000,  20,      1),
        ("10.0.0.9",   7000,  22,      0),
        ("10.0.0.9",   7001,  26,      0),
        ("10.0.0.8",   7000,  26,      1),
        ("10.0.0.9",   7001,  79,      0),
        ("10.0.0.9",   7001,  80,      1),
        ("10.0.0.1",   7000,  90,      1),
        ("10.0.0.1",   7001,  90,      1),
        ("10.0.0.1",   7001,  91,      0),
    ];
    for (ip, port, at, given) in cases {
        assert_eq!(count(ip, port, at), given, "{ip}:{port} at {at} s");
    }
}

#[test]
fn newcomer_is_answered_within_five_seconds_but_once_a_minute() {
    let mut lsd = settled();
    lsd.received(from("10.0.0.9"), 2, &said(7000, hash(1)), secs(20));
    let all = sent(&mut lsd, secs(20), secs(200));
    assert_eq!(all.len(), 1);
    let answered = all[0].0;
    assert!(answered >= secs(20) && answered < secs(25), "{answered}");

    let soon = answered + Duration::from_secs(30);
    lsd.received(from("10.0.0.8"), 2, &said(7000, hash(1)), soon);
    assert_eq!(
        sent(&mut lsd, soon, secs(200)).len(),
        0,
        "a minute has not passed"
    );
    let later = answered + Duration::from_secs(60);
    lsd.received(from("10.0.0.7"), 2, &said(7000, hash(1)), later);
    assert_eq!(sent(&mut lsd, later, secs(200)).len(), 1);
    // Who was here before is no newcomer.
    lsd.received(from("10.0.0.8"), 2, &said(7000, hash(1)), secs(250));
    assert_eq!(sent(&mut lsd, secs(250), secs(260)).len(), 0);
}

#[test]
fn answer_is_spared_when_three_others_are_heard() {
    #[rustfmt::skip]
    let cases = [
        // who is heard after the newcomer                                 answers
        (vec![],                                                           1),
        (vec!["10.0.0.9", "10.0.0.9", "10.0.0.9"],                         1),
        (vec!["10.0.0.2", "10.0.0.2", "10.0.0.2"],                         1),
        (vec!["10.0.0.2", "10.0.0.3", "10.0.0.9"],                         1),
        (vec!["10.0.0.2", "10.0.0.3", "10.0.0.4"],                         0),
    ];
    for (others, answers) in cases {
        let mut lsd = settled();
        let packet = said(7000, hash(1));
        lsd.received(from("10.0.0.9"), 2, &packet, secs(20));
        for other in &others {
            lsd.received(from(other), 2, &packet, secs(20));
        }
        let all = sent(&mut lsd, secs(20), secs(30));
        assert_eq!(all.len(), answers, "{others:?}");
    }
}

#[test]
fn what_is_announced_anyway_is_the_answer() {
    let mut lsd = Lsd::new(PORT, Rng::new(1));
    lsd.interfaces_found(&interfaces(&[(2, "10.0.0.1", 24)]));
    lsd.add(hash(1), Privacy::Public);
    lsd.received(from("10.0.0.9"), 2, &said(7000, hash(1)), secs(0));
    let all = sent(&mut lsd, secs(0), secs(100));
    assert_eq!(moments(&all), [0, 2000, 6000]);
}

#[test]
fn answer_stands_in_for_a_regular_announcement_but_for_none_of_the_start() {
    for seed in 0..50 {
        let mut lsd = Lsd::new(PORT, Rng::new(seed));
        lsd.interfaces_found(&interfaces(&[(2, "10.0.0.1", 24)]));
        lsd.add(hash(1), Privacy::Public);
        assert!(lsd.poll(secs(0)).is_some());
        lsd.received(from("10.0.0.9"), 2, &said(7000, hash(1)), ms(1));
        let start = moments(&sent(&mut lsd, ms(1), secs(100)));
        let has = |from, to| start.iter().any(|at| (from..=to).contains(at));
        assert!(has(2000, 2200) && has(6000, 6200), "{start:?}");

        lsd.received(from("10.0.0.8"), 2, &said(7000, hash(1)), secs(100));
        let later = moments(&sent(&mut lsd, secs(100), secs(500)));
        let pauses: Vec<u64> = later.windows(2).map(|two| two[1] - two[0]).collect();
        assert_eq!(pauses, [300_000], "{later:?}");
    }
}

#[test]
fn link_that_fails_is_left_alone_for_a_minute_and_then_begun_anew() {
    let mut lsd = Lsd::new(PORT, Rng::new(1));
    lsd.interfaces_found(&interfaces(&[(2, "10.0.0.1", 24), (3, "10.1.0.1", 24)]));
    lsd.add(hash(1), Privacy::Public);
    assert_eq!(sent(&mut lsd, secs(0), secs(1)).len(), 2);
    lsd.failed(2, V4, "no route", secs(1));
    lsd.failed(9, V6, "no such link", secs(1));
    assert!(lsd.links[&(2, V4)].has_failed);
    let all = sent(&mut lsd, secs(1), secs(60));
    assert_eq!(moments(&all), [2000, 6000], "the other goes on");
    let all = sent(&mut lsd, secs(60), secs(100));
    assert_eq!(moments(&all), [61_000, 63_000, 67_000]);
    assert!(all.iter().all(|(_, packet)| packet.interface == 2));
}

#[test]
fn memory_of_hosts_is_bounded_and_forgets() {
    let mut heard = Heard::default();
    let host = |n: u32| (hash(1), SocketAddr::new(n.to_be_bytes().into(), 0));
    for n in 0..HEARD_MAX as u32 {
        assert_eq!(heard.note(host(n), secs(1)), Hearing::First);
    }
    assert_eq!(heard.note(host(u32::MAX), secs(2)), Hearing::Again);
    assert_eq!(heard.note(host(7), secs(40)), Hearing::Again);
    assert_eq!(heard.note(host(u32::MAX), secs(60)), Hearing::Again);
    assert_eq!(heard.note(host(7), secs(61)), Hearing::Known);
    assert_eq!(heard.note(host(u32::MAX), secs(61)), Hearing::First);
    assert_eq!(heard.hosts.len(), 2, "who may be given again gives way");
    assert_eq!(heard.note(host(7), secs(661)), Hearing::First);
}

#[test]
fn links_beyond_the_limit_are_not_used() {
    let many: Vec<Interface> = (0..200_u32)
        .map(|n| Interface {
            index: n,
            ip: [10, 0, n as u8, 1].into(),
            prefix_len: 24,
        })
        .collect();
    let mut lsd = Lsd::new(PORT, Rng::new(1));
    lsd.interfaces_found(&Interfaces::new(many));
    let used: Vec<u32> = lsd.links.keys().map(|&(index, _)| index).collect();
    let preferred: Vec<u32> = (0..LINKS_MAX as u32).collect();
    assert_eq!(used, preferred);
}
