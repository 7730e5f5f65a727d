//! The registry from its public face: who is known, for how long, and who is told.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::base::address::Interface;
use crate::base::id::PeerId;
use crate::base::limits::{
    HEARSAY_MAX, OFF_LINK_NET6_MAX, OPEN_SWARMS_MAX, OPEN_SWARMS_NET_MAX, PEERS_PER_SWARM_MAX,
    PORTS_LOOPBACK_MAX, PORTS_OFF_LINK_MAX, PORTS_ON_LINK_MAX,
};
use crate::wire::query::Form;
use std::net::IpAddr;

const HASH: InfoHash = InfoHash([0x11; 20]);
const EVERY_ROAD: [Heard; 7] = [
    Heard::Handshake,
    Heard::Announce,
    Heard::Lsd,
    Heard::Gossip,
    Heard::Pex,
    Heard::Tracker,
    Heard::User,
];

fn interfaces() -> Interfaces {
    let of = |index, ip: &str, prefix_len| Interface {
        index,
        ip: ip.parse().unwrap(),
        prefix_len,
    };
    Interfaces::new(vec![of(2, "10.0.0.1", 8), of(2, "fd00::1", 64)])
}

fn registry() -> Registry {
    let mut registry = Registry::new(&Secret::new([5; 16]), Openness::Closed);
    registry.track(HASH, Terms::default(), at(0));
    registry
}

fn at(secs: u64) -> Instant {
    Instant::from_micros(secs * 1_000_000)
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// The `n`-th host on our link.
fn neighbour(n: u32) -> SocketAddr {
    SocketAddr::new(IpAddr::from((0x0a01_0000 + n).to_be_bytes()), 6881)
}

/// The `n`-th host off our links, in a /24 of its own.
fn stranger(n: u32) -> SocketAddr {
    SocketAddr::new(IpAddr::from((0xc000_0001 + (n << 8)).to_be_bytes()), 6881)
}

fn sighting(addr: SocketAddr, heard: Heard) -> Sighting {
    let mut id = *b"-LT2000-............";
    let text = format!("{addr:>12}");
    id[8..].copy_from_slice(&text.as_bytes()[text.len() - 12..]);
    Sighting {
        addr,
        peer_id: Some(PeerId(id)),
        key: None,
        is_seed: Some(false),
        is_paused: false,
        heard,
    }
}

fn seed(addr: SocketAddr, heard: Heard) -> Sighting {
    Sighting {
        is_seed: Some(true),
        ..sighting(addr, heard)
    }
}

fn evpeer(addr: SocketAddr, heard: Heard) -> Sighting {
    let mut id = *b"-EV0100-............";
    id[8..12].copy_from_slice(&addr.port().to_be_bytes().repeat(2));
    Sighting {
        peer_id: Some(PeerId(id)),
        ..sighting(addr, heard)
    }
}

impl Registry {
    fn hear(&mut self, sighting: &Sighting, secs: u64) -> Option<ChangeKind> {
        let change = self.heard(HASH, sighting, &interfaces(), at(secs));
        change.map(|change| change.kind)
    }

    fn told(&mut self, count: usize, remote: &str) -> Vec<SocketAddr> {
        let wanted = Wanted {
            listed: None,
            peer_id: None,
            count,
            seeds: Seeds::Told,
            families: Families::Both,
        };
        self.told_of(&wanted, remote)
    }

    fn told_of(&mut self, wanted: &Wanted, remote: &str) -> Vec<SocketAddr> {
        let interfaces = interfaces();
        let asker = Asker {
            remote: addr(remote),
            local: None,
            interfaces: &interfaces,
            links: None,
        };
        let mut told = Peers::default();
        told.begin(Form::Listed);
        self.sample(HASH, &asker, wanted, &mut told);
        told.listed().iter().map(|told| told.addr).collect()
    }

    fn sizes(&self) -> [u32; 3] {
        let counts = self.counts(HASH).expect("a tracked swarm");
        [counts.complete, counts.incomplete, counts.downloaded]
    }
}

#[test]
fn peers_come_change_and_go() {
    use ChangeKind::{Completed, Joined, Left};
    let mut registry = registry();
    let leecher = sighting(neighbour(1), Heard::Announce);
    let with_all = seed(neighbour(1), Heard::Announce);
    assert_eq!(registry.hear(&leecher, 1), Some(Joined));
    assert_eq!(registry.hear(&leecher, 2), None);
    assert_eq!(registry.sizes(), [0, 1, 0]);
    assert_eq!(registry.hear(&with_all, 3), Some(Completed));
    assert_eq!(registry.sizes(), [1, 0, 0]);
    assert_eq!(registry.hear(&with_all, 4), None);
    let left = registry.left(HASH, neighbour(1), Heard::Announce, at(5));
    assert_eq!(left.map(|change| change.kind), Some(Left));
    assert_eq!(
        registry.left(HASH, neighbour(1), Heard::Announce, at(6)),
        None
    );
    assert_eq!(registry.sizes(), [0, 0, 0]);

    assert_eq!(registry.peer_count(), 0);
}

#[test]
fn what_is_not_tracked_is_not_kept() {
    let mut registry = registry();
    let other = InfoHash([9; 20]);
    let peer = sighting(neighbour(1), Heard::Announce);
    assert_eq!(registry.heard(other, &peer, &interfaces(), at(1)), None);
    assert_eq!(registry.counts(other), None);
    registry.hear(&peer, 1);
    registry.untrack(HASH);
    assert!(!registry.is_tracked(HASH));
    assert_eq!(registry.peer_count(), 0);
    assert_eq!(registry.next_deadline(), None);
}

#[test]
fn hearsay_is_kept_but_neither_told_nor_counted() {
    for heard in EVERY_ROAD {
        let mut registry = registry();
        let change = registry.hear(&sighting(neighbour(1), heard), 1);
        assert_eq!(change, Some(ChangeKind::Joined), "{heard:?}");
        assert_eq!(registry.peers(HASH).count(), 1, "{heard:?}");
        let is_told = registry.told(10, "10.0.0.9:5") == [neighbour(1)];
        assert_eq!(is_told, heard.is_first_hand(), "{heard:?}");
        assert_eq!(
            registry.sizes(),
            [0, heard.is_first_hand().into(), 0],
            "{heard:?}"
        );
    }
}

#[test]
fn first_hand_outdoes_hearsay_and_not_the_other_way_round() {
    let mut registry = registry();
    let rumour = seed(neighbour(1), Heard::Pex);
    let word = sighting(neighbour(1), Heard::Announce);
    assert_eq!(registry.hear(&rumour, 1), Some(ChangeKind::Joined));
    assert_eq!(registry.hear(&word, 2), Some(ChangeKind::Joined));
    assert_eq!(registry.hear(&rumour, 3), None);
    assert_eq!(registry.left(HASH, neighbour(1), Heard::Pex, at(4)), None);
    let entry = registry.peer(HASH, neighbour(1)).expect("a peer");
    assert_eq!((entry.heard, entry.is_seed), (Heard::Announce, false));
    assert_eq!((entry.first_at, entry.last_at), (at(1), at(2)));

    let other = sighting(neighbour(2), Heard::Pex);
    registry.hear(&other, 5);
    assert!(
        registry
            .left(HASH, neighbour(2), Heard::Pex, at(6))
            .is_some()
    );
}

#[test]
fn address_that_nobody_has_is_not_kept() {
    let mut registry = registry();
    let cases = [
        "10.1.0.1:0",
        "0.0.0.0:1",
        "224.0.0.1:1",
        "255.255.255.255:1",
        "[::]:1",
    ];
    for text in cases {
        for heard in EVERY_ROAD {
            assert_eq!(
                registry.hear(&sighting(addr(text), heard), 1),
                None,
                "{text}"
            );
        }
    }
    // A mapped address is the one that it maps.
    registry.hear(&sighting(addr("[::ffff:10.1.0.1]:7"), Heard::Announce), 1);
    assert_eq!(registry.told(5, "10.0.0.9:5"), [addr("10.1.0.1:7")]);
    assert!(registry.peer(HASH, addr("10.1.0.1:7")).is_some());
}

#[test]
fn private_swarm_keeps_nothing_that_peers_say_of_each_other() {
    let mut registry = registry();
    let terms = Terms {
        is_private: true,
        names_us: true,
    };
    registry.track(HASH, terms, at(0));
    for (n, heard) in (0..).zip(EVERY_ROAD) {
        let change = registry.hear(&sighting(neighbour(n), heard), 1);
        let is_gossip = matches!(heard, Heard::Lsd | Heard::Gossip | Heard::Pex);
        assert_eq!(change.is_none(), is_gossip, "{heard:?}");
    }
}

#[test]
fn client_with_two_addresses_is_counted_once_and_not_told_to_itself() {
    let mut registry = registry();
    let v4 = sighting(addr("10.1.0.1:7"), Heard::Announce);
    let v6 = Sighting {
        addr: addr("[fd00::7]:7"),
        ..v4
    };
    registry.hear(&v4, 1);
    registry.hear(&v6, 1);
    registry.hear(&sighting(neighbour(9), Heard::Announce), 1);
    assert_eq!(registry.sizes(), [0, 2, 0]);
    let wanted = Wanted {
        listed: Some(v4.addr),
        peer_id: v4.peer_id,
        count: 50,
        seeds: Seeds::Told,
        families: Families::Both,
    };
    assert_eq!(registry.told_of(&wanted, "10.1.0.1:5"), [neighbour(9)]);
    // One address has all: the client has.
    registry.hear(
        &Sighting {
            is_seed: Some(true),
            ..v6
        },
        2,
    );
    assert_eq!(registry.sizes(), [1, 1, 0]);
    registry.left(HASH, v6.addr, Heard::Announce, at(3));
    assert_eq!(registry.sizes(), [0, 2, 0]);
}

#[test]
fn we_are_told_as_the_asker_reaches_us_and_never_twice() {
    let mut registry = registry();
    let us = Sighting {
        peer_id: Some(PeerId(*b"-EV0100-ourselves...")),
        ..seed(addr("0.0.0.0:6881"), Heard::Ourselves)
    };
    assert!(registry.hear(&us, 1).is_some());
    let us6 = Sighting {
        addr: addr("[::]:6881"),
        ..us
    };
    registry.hear(&us6, 1);
    // Our own announces, and what others say, change nothing.
    for (text, heard) in [
        ("10.0.0.1:6881", Heard::Announce),
        ("127.0.0.1:6881", Heard::Announce),
        ("10.0.0.1:6881", Heard::Pex),
    ] {
        let echo = Sighting {
            addr: addr(text),
            heard,
            ..us
        };
        assert_eq!(registry.hear(&echo, 2), None, "{text}");
    }
    assert_eq!(registry.sizes(), [1, 0, 0]);
    assert_eq!(registry.told(9, "10.0.0.9:5"), [addr("10.0.0.1:6881")]);
    assert_eq!(registry.told(9, "127.0.0.1:5"), [addr("127.0.0.1:6881")]);
    assert_eq!(registry.told(9, "[fd00::9]:5"), [addr("[fd00::1]:6881")]);
    // We do not expire, and only we say that we leave.
    registry.expire(at(1_000_000));
    assert_eq!(registry.left(HASH, us.addr, Heard::Announce, at(3)), None);
    assert_eq!(registry.sizes(), [1, 0, 0]);
    assert!(
        registry
            .left(HASH, us.addr, Heard::Ourselves, at(3))
            .is_some()
    );
}

/// Goal: a swarm in which nobody is but us takes little room; nobody can see that it wakes and
/// rests.
#[test]
fn swarm_rests_while_nobody_else_is_in_it() {
    use ChangeKind::{Completed, Joined, Left};
    let is_resting = |registry: &Registry| {
        let mut swarms = registry.swarms.iter();
        swarms.all(|(_, swarm)| matches!(swarm, Tracked::Resting(_)))
    };
    let mut registry = registry();
    let us = Sighting {
        peer_id: Some(PeerId(*b"-EV0100-ourselves...")),
        key: Some(7),
        ..sighting(addr("0.0.0.0:6881"), Heard::Ourselves)
    };
    let us6 = Sighting {
        addr: addr("[::]:6881"),
        ..us
    };
    assert_eq!(registry.sizes(), [0, 0, 0]);
    assert_eq!(registry.hear(&us, 1), Some(Joined));
    assert_eq!(registry.hear(&us6, 1), Some(Joined));
    assert_eq!(registry.hear(&us, 2), None);
    assert_eq!(registry.sizes(), [0, 1, 0]);
    let partial = Sighting {
        is_paused: true,
        ..us
    };
    registry.hear(&partial, 3);
    assert_eq!(registry.counts(HASH).expect("tracked").wanting(), 0);
    let with_all = Sighting {
        is_seed: Some(true),
        ..us
    };
    assert_eq!(registry.hear(&with_all, 4), Some(Completed));
    assert_eq!((registry.sizes(), registry.peer_count()), ([1, 0, 0], 2));
    assert_eq!(registry.left(HASH, us.addr, Heard::Pex, at(5)), None);
    assert_eq!(registry.completed(HASH, us.addr, at(5)), None);
    assert_eq!(registry.told(9, "10.0.0.9:5"), [addr("10.0.0.1:6881")]);
    assert!(is_resting(&registry) && registry.next_deadline().is_none());
    let calm = registry.interval(HASH, at(5000));

    // Somebody comes, who is counted and told of us, and goes, by any way there is.
    let guest = sighting(neighbour(1), Heard::Announce);
    for (round, way) in ["said", "silent", "hearsay"].into_iter().enumerate() {
        let now = 6000 + 10_000 * round as u64;
        let guest = match way {
            "hearsay" => sighting(neighbour(1), Heard::Pex),
            _ => guest,
        };
        assert_eq!(registry.hear(&guest, now), Some(Joined));
        assert!(!is_resting(&registry));
        assert_eq!(registry.peers(HASH).count(), 1, "ourselves aside");
        let is_counted = u32::from(way != "hearsay");
        assert_eq!(registry.sizes(), [1, is_counted, round.min(1) as u32]);
        assert!(
            registry
                .told(9, "10.0.0.9:5")
                .contains(&addr("10.0.0.1:6881"))
        );
        let kind = match way {
            "said" => {
                registry.completed(HASH, neighbour(1), at(now));
                let left = registry.left(HASH, neighbour(1), Heard::Announce, at(now));
                left.map(|change| change.kind)
            }
            _ => {
                let gone = registry.expire(at(now + 9000));
                gone.first().map(|(_, changes)| changes[0].kind)
            }
        };
        assert_eq!(kind, Some(Left), "{way}");
        assert!(is_resting(&registry), "{way}");
        assert_eq!(registry.next_deadline(), None, "{way}");
        assert_eq!((registry.sizes(), registry.peer_count()), ([1, 0, 1], 2));
    }
    let changed = 26_000 + 9000;
    assert_eq!(registry.interval(HASH, at(changed + 4996)), calm);
    for us in [us, us6] {
        let left = registry.left(HASH, us.addr, Heard::Ourselves, at(changed));
        assert_eq!(left.map(|change| change.kind), Some(Left));
        assert_eq!(
            registry.left(HASH, us.addr, Heard::Ourselves, at(changed)),
            None
        );
    }
    assert_eq!((registry.sizes(), registry.peer_count()), ([0, 0, 1], 0));
}

#[test]
fn addresses_that_the_asker_cannot_use_are_left_out() {
    let mut registry = registry();
    for text in [
        "127.0.0.1:1",
        "127.0.0.5:2",
        "169.254.1.1:3",
        "[fe80::1]:4",
        "10.1.0.1:5",
    ] {
        registry.hear(&sighting(addr(text), Heard::Announce), 1);
    }
    let mut told = |remote| {
        let told = registry.told(50, remote);
        told.iter().map(|addr| addr.port()).collect::<BTreeSet<_>>()
    };
    assert_eq!(told("127.0.0.1:9"), [1, 2, 5].into());
    assert_eq!(told("10.0.0.9:9"), [1, 5].into());
    assert_eq!(told("169.254.7.7:9"), [3, 5].into());
    assert_eq!(told("198.51.100.1:9"), [5].into());
}

#[test]
fn sample_is_random_of_the_size_wanted_and_of_the_askers_family_first() {
    let mut registry = registry();
    for n in 0..300 {
        registry.hear(&sighting(neighbour(n), Heard::Announce), 1);
    }
    for port in 1..=20 {
        let v6 = SocketAddr::new("fd00::7".parse().unwrap(), port);
        registry.hear(&sighting(v6, Heard::Announce), 1);
    }
    let mut times: BTreeMap<SocketAddr, u32> = BTreeMap::new();
    for _ in 0..600 {
        let told = registry.told(50, "10.0.0.9:5");
        assert_eq!(told.iter().collect::<BTreeSet<_>>().len(), 50);
        told.iter()
            .for_each(|addr| *times.entry(*addr).or_default() += 1);
    }
    // 100 times each is expected, with a standard deviation of 9.
    assert_eq!(times.len(), 300);
    assert!(
        times.values().all(|count| (60..140).contains(count)),
        "{times:?}"
    );
    let told = registry.told(310, "10.0.0.9:5");
    assert_eq!(told.iter().filter(|addr| addr.is_ipv6()).count(), 10);
    let told = registry.told(50, "[fd00::9]:5");
    assert_eq!(told.iter().filter(|addr| addr.is_ipv6()).count(), 20);
    let own = Wanted {
        listed: None,
        peer_id: None,
        count: 50,
        seeds: Seeds::Told,
        families: Families::Own,
    };
    assert_eq!(registry.told_of(&own, "[fd00::9]:5").len(), 20);
    assert!(registry.told(0, "10.0.0.9:5").is_empty());
}

#[test]
fn seeds_are_withheld_if_that_is_wanted() {
    let mut registry = registry();
    registry.hear(&seed(neighbour(1), Heard::Announce), 1);
    registry.hear(&sighting(neighbour(2), Heard::Announce), 1);
    let wanted = |seeds| Wanted {
        listed: None,
        peer_id: None,
        count: 50,
        seeds,
        families: Families::Own,
    };
    let told = registry.told_of(&wanted(Seeds::Withheld), "10.0.0.9:5");
    assert_eq!(told, [neighbour(2)]);
    let told = registry.told_of(&wanted(Seeds::Told), "10.0.0.9:5");
    assert_eq!(told.len(), 2);
}

#[test]
fn silent_peers_expire_when_their_kind_may() {
    #[rustfmt::skip]
    let cases = [
        // what                                               listed, gone after, seconds
        ("foreign, announced",     sighting(neighbour(1), Heard::Announce),  659,  666),
        ("evpeer, announced",      evpeer(neighbour(1), Heard::Announce),    24,   31),
        ("hearsay",                sighting(neighbour(1), Heard::Pex),       1799, 1806),
    ];
    for (name, sighting, listed, gone) in cases {
        let mut registry = registry();
        registry.hear(&sighting, 100);
        assert_eq!(registry.expire(at(100 + listed)), [], "{name}");
        assert!(registry.peer(HASH, sighting.addr).is_some(), "{name}");
        assert!(registry.next_deadline() <= Some(at(100 + gone)), "{name}");
        let left = Change {
            addr: sighting.addr,
            kind: ChangeKind::Left,
            heard: sighting.heard,
        };
        let expired = registry.expire(at(100 + gone));
        assert_eq!(expired, [(HASH, vec![left])], "{name}");
        assert!(registry.peer(HASH, sighting.addr).is_none(), "{name}");
        assert_eq!(registry.next_deadline(), None, "{name}");
        assert_eq!(registry.peer_count(), 0, "{name}");
    }
}

/// The `n`-th neighbour, an evpeer that lacks something, announces itself.
fn announcer(n: u32) -> Sighting {
    let mut id = *b"-EV0100-............";
    id[8..12].copy_from_slice(&n.to_be_bytes());
    Sighting {
        peer_id: Some(PeerId(id)),
        ..sighting(neighbour(n), Heard::Announce)
    }
}

/// A swarm of the seeds 1 and 2 and the leecher 3, all of them evpeers.
fn seeds_and_leecher(secs: u64) -> (Registry, [Sighting; 3]) {
    let mut registry = registry();
    let listed = [1, 2, 3].map(|n| Sighting {
        is_seed: Some(n < 3),
        ..announcer(n)
    });
    for sighting in &listed {
        registry.hear(sighting, secs);
    }
    (registry, listed)
}

#[test]
fn swarm_in_which_nobody_lacks_anything_is_left_alone() {
    let (mut registry, [_, _, leecher]) = seeds_and_leecher(100);
    let interval = |registry: &Registry, secs| registry.interval(HASH, at(secs)).as_secs();
    assert_eq!(interval(&registry, 100), 5);
    let partial = Sighting {
        is_paused: true,
        ..leecher
    };
    registry.hear(&partial, 101);
    assert_eq!(interval(&registry, 101), 300, "it wants nothing more");
    registry.hear(&leecher, 102);
    assert_eq!(interval(&registry, 102), 5, "it wants something again");
    registry.left(HASH, leecher.addr, Heard::Announce, at(103));
    assert_eq!(interval(&registry, 103), 300, "it left");
    registry.hear(&announcer(4), 104);
    assert_eq!(interval(&registry, 104), 5, "another came");
}

/// Goal: nobody vanishes who comes when it was told to, whatever happens meanwhile.
/// Method: after a promise of 300 s, each kind of news of the peer or its swarm.
#[test]
fn announcer_is_listed_for_as_long_as_it_was_promised() {
    type News = fn(&mut Registry, &Sighting);
    let cases: [(&str, News); 4] = [
        ("nothing", |_, _| {}),
        ("a link that ended", |registry, peer| {
            let link = Sighting {
                heard: Heard::Handshake,
                ..*peer
            };
            registry.hear(&link, 110);
            registry.disconnected(HASH, peer.addr, at(111));
        }),
        (
            "a leecher, and an answer to another announce",
            |registry, peer| {
                registry.hear(&announcer(9), 110);
                registry.hear(peer, 111);
            },
        ),
        ("hearsay", |registry, peer| {
            let hearsay = Sighting {
                heard: Heard::Pex,
                ..*peer
            };
            registry.hear(&hearsay, 110);
        }),
    ];
    for (name, news) in cases {
        let (mut registry, [_, _, leecher]) = seeds_and_leecher(100);
        let done = Sighting {
            is_seed: Some(true),
            ..leecher
        };
        registry.hear(&done, 105); // the last one: from now on 300 s
        news(&mut registry, &done);
        registry.expire(at(105 + 2 * 300));
        assert!(registry.peer(HASH, done.addr).is_some(), "{name}");
        registry.expire(at(105 + 2 * 300 + 30));
        assert!(registry.peer(HASH, done.addr).is_none(), "{name}");
    }
}

#[test]
fn promise_is_for_the_client_that_it_was_made_to() {
    let (mut registry, [first, ..]) = seeds_and_leecher(100);
    registry.left(HASH, neighbour(3), Heard::Announce, at(101));
    registry.hear(&first, 102);
    registry.hear(&announcer(4), 103);
    let mut other = first;
    other.peer_id = Some(PeerId(*b"-EV0100-another.one."));
    registry.hear(&other, 104);
    registry.expire(at(104 + 31));
    assert!(registry.peer(HASH, first.addr).is_none());
    let (mut registry, hearsay) = (self::registry(), evpeer(neighbour(1), Heard::Pex));
    registry.hear(&hearsay, 100);
    let link = Sighting {
        heard: Heard::Handshake,
        ..hearsay
    };
    registry.hear(&link, 101);
    registry.disconnected(HASH, link.addr, at(102));
    registry.expire(at(102 + 66));
    assert!(registry.peer(HASH, link.addr).is_none());
}

#[test]
fn announces_keep_a_peer_listed_and_so_does_a_connection() {
    let mut registry = registry();
    let peer = sighting(neighbour(1), Heard::Announce);
    for secs in (0..6000).step_by(600) {
        registry.hear(&peer, secs);
        registry.expire(at(secs + 599));
        assert!(registry.peer(HASH, peer.addr).is_some(), "{secs}");
    }
    let evpeer = evpeer(neighbour(2), Heard::Handshake);
    registry.hear(&evpeer, 6000);
    registry.expire(at(100_000));
    assert!(registry.peer(HASH, evpeer.addr).is_some());
    registry.disconnected(HASH, evpeer.addr, at(100_000));
    registry.expire(at(100_059));
    assert!(registry.peer(HASH, evpeer.addr).is_some());
    assert!(registry.next_deadline() <= Some(at(100_066)));
    registry.expire(at(100_066));
    assert!(registry.peer(HASH, evpeer.addr).is_none());
}

#[test]
fn interval_is_short_while_the_swarm_changes_and_long_when_it_is_calm() {
    let mut registry = registry();
    registry.hear(&sighting(neighbour(1), Heard::Announce), 0);
    let cases = [
        (0, 5),
        (60, 5),
        (120, 10),
        (600, 50),
        (7200, 600),
        (1 << 40, 600),
    ];
    for (secs, expected) in cases {
        let interval = registry.interval(HASH, at(secs)).as_secs();
        assert_eq!(interval, expected, "after {secs} s");
    }
    for n in 0..10_000 {
        registry.hear(&sighting(neighbour(n), Heard::Announce), 0);
    }
    assert_eq!(registry.interval(HASH, at(0)).as_secs(), 20, "10,000 peers");
}

#[test]
fn download_is_counted_once() {
    let mut registry = registry();
    registry.hear(&sighting(neighbour(1), Heard::Announce), 1);
    let completed = |registry: &mut Registry, n| registry.completed(HASH, neighbour(n), at(2));
    assert!(completed(&mut registry, 1).is_some());
    assert!(completed(&mut registry, 1).is_none());
    assert_eq!(registry.sizes(), [1, 0, 1]);
    // Who came as a seed has downloaded elsewhere; who is not listed, nothing.
    registry.hear(&seed(neighbour(2), Heard::Announce), 3);
    assert!(completed(&mut registry, 2).is_none());
    assert!(completed(&mut registry, 3).is_none());
    assert_eq!(registry.sizes(), [2, 0, 1]);
}

/// Row 93 of the hostile inputs, and "On-link is not the internet".
#[test]
fn ports_of_one_host_are_limited_by_how_near_it_is() {
    #[rustfmt::skip]
    let cases = [
        ("198.51.100.1", PORTS_OFF_LINK_MAX),  ("2001:db8::1",  PORTS_OFF_LINK_MAX),
        ("10.7.0.1",     PORTS_ON_LINK_MAX),   ("fd00::7",      PORTS_ON_LINK_MAX),
        ("127.0.0.1",    PORTS_LOOPBACK_MAX),  ("10.0.0.1",     PORTS_LOOPBACK_MAX),
    ];
    for (ip, max) in cases {
        let mut registry = registry();
        let peer = |port| {
            let addr = SocketAddr::new(ip.parse().unwrap(), port);
            sighting(addr, Heard::Announce)
        };
        for port in 1..2000 {
            registry.hear(&peer(port), 1);
        }
        assert_eq!(registry.peers(HASH).count(), max, "{ip}");
        // Those that are silent give way, one for one.
        assert_eq!(registry.hear(&peer(5000), 60), None, "{ip}");
        assert_eq!(
            registry.hear(&peer(5000), 61),
            Some(ChangeKind::Joined),
            "{ip}"
        );
        assert_eq!(registry.peers(HASH).count(), max, "{ip}");
        assert_eq!(registry.peer_count(), max, "{ip}");
    }
}

#[test]
fn hearsay_gives_way_to_first_hand_and_never_takes_its_place() {
    let mut registry = registry();
    let of = |port, heard| {
        let addr = SocketAddr::new("198.51.100.1".parse().unwrap(), port);
        sighting(addr, heard)
    };
    for port in 1..100 {
        registry.hear(&of(port, Heard::Pex), 1);
    }
    assert_eq!(registry.peers(HASH).count(), PORTS_OFF_LINK_MAX);
    for port in 100..103 {
        let change = registry.hear(&of(port, Heard::Announce), 1);
        assert_eq!(change, Some(ChangeKind::Joined));
    }
    assert_eq!(registry.hear(&of(103, Heard::Pex), 1000), None);
    let roads: Vec<_> = registry.peers(HASH).map(|entry| entry.heard).collect();
    assert_eq!(roads, [Heard::Announce; PORTS_OFF_LINK_MAX]);
}

#[test]
fn household_has_one_v6_net() {
    let mut registry = registry();
    let net = 0x2001_0db8_u128 << 96;
    for host in 1..1000_u128 {
        let addr = SocketAddr::new(IpAddr::from((net + host).to_be_bytes()), 6881);
        registry.hear(&sighting(addr, Heard::Announce), 1);
    }
    assert_eq!(registry.peers(HASH).count(), OFF_LINK_NET6_MAX);
}

/// Row 93 of the hostile inputs: a million strangers; those on our links still find room.
#[test]
fn swarm_is_limited_and_its_last_quarter_is_for_neighbours() {
    let mut registry = registry();
    for n in 0..60_000 {
        registry.hear(&sighting(stranger(n), Heard::Announce), 1);
    }
    assert_eq!(registry.peers(HASH).count(), PEERS_PER_SWARM_MAX / 4 * 3);
    for n in 0..60_000 {
        registry.hear(&sighting(neighbour(n), Heard::Announce), 1);
    }
    assert_eq!(registry.peers(HASH).count(), PEERS_PER_SWARM_MAX);
    // All that is there goes when its time has come, in turns, each once.
    let mut gone = BTreeSet::new();
    for secs in (2000..2030).step_by(5) {
        for (_, left) in registry.expire(at(secs)) {
            assert!((1..PEERS_PER_SWARM_MAX).contains(&left.len()));
            gone.extend(left.into_iter().map(|change| change.addr));
        }
    }
    assert_eq!(gone.len(), PEERS_PER_SWARM_MAX);
    assert_eq!(registry.peer_count(), 0);
    assert_eq!(registry.next_deadline(), None);
}

#[test]
fn hearsay_is_limited_and_so_are_the_peers_of_all_swarms() {
    let mut registry = registry();
    for n in 0..20_000 {
        registry.hear(&sighting(neighbour(n), Heard::Pex), 1);
    }
    assert_eq!(registry.peers(HASH).count(), HEARSAY_MAX);
    let hashes: Vec<_> = (0..6).map(|n| InfoHash([n; 20])).collect();
    for hash in &hashes {
        registry.track(*hash, Terms::default(), at(0));
        for n in 0..PEERS_PER_SWARM_MAX as u32 {
            let sighting = sighting(neighbour(n), Heard::Announce);
            registry.heard(*hash, &sighting, &interfaces(), at(1));
        }
    }
    assert_eq!(registry.peer_count(), PEERS_KNOWN_MAX);
    hashes.iter().for_each(|hash| registry.untrack(*hash));
    assert_eq!(registry.peer_count(), HEARSAY_MAX);
}

/// Goal: the registry never contradicts a plain list of what it was told.
/// Method: random news of few peers by every road; counts, samples and totals are compared with
/// what the entries themselves say.
#[test]
fn counts_and_samples_agree_with_the_entries_after_every_step() {
    for rng_seed in 0..20 {
        let mut rng = Rng::new(rng_seed);
        let mut registry = registry();
        let mut secs = 0;
        for step in 0..2000 {
            secs += u64::from(rng.below(20));
            let addr = match rng.below(2) {
                0 => neighbour(rng.below(12)),
                _ => SocketAddr::new("fd00::7".parse().unwrap(), 1 + rng.below(6) as u16),
            };
            let heard = EVERY_ROAD[rng.below(7) as usize];
            let mut news = sighting(addr, heard);
            news.is_seed = [None, Some(true), Some(false)][rng.below(3) as usize];
            news.is_paused = rng.below(5) == 0;
            if rng.below(3) == 0 {
                news.peer_id = Some(PeerId([b'a' + rng.below(4) as u8; 20]));
            }
            match rng.below(8) {
                0 => drop(registry.left(HASH, addr, heard, at(secs))),
                1 => drop(registry.completed(HASH, addr, at(secs))),
                2 => registry.disconnected(HASH, addr, at(secs)),
                3 => drop(registry.expire(at(secs))),
                _ => drop(registry.hear(&news, secs)),
            }
            check(&mut registry, &format!("rng_seed {rng_seed}, step {step}"));
        }
    }
}

fn check(registry: &mut Registry, name: &str) {
    let first_hand: Vec<Entry> = (registry.peers(HASH))
        .filter(|entry| entry.heard.is_first_hand())
        .cloned()
        .collect();
    let mut clients: BTreeMap<PeerId, bool> = BTreeMap::new();
    for entry in &first_hand {
        let id = entry.peer_id.expect("every peer here has an id");
        *clients.entry(id).or_default() |= entry.is_seed;
    }
    let complete = clients.values().filter(|is_seed| **is_seed).count() as u32;
    let counts = registry.counts(HASH).expect("a tracked swarm");
    assert_eq!(counts.complete, complete, "{name}");
    assert_eq!(counts.incomplete, clients.len() as u32 - complete, "{name}");
    assert!(counts.paused <= counts.incomplete, "{name}");
    let told: BTreeSet<_> = registry.told(100, "10.0.0.9:5").into_iter().collect();
    let expected: BTreeSet<_> = first_hand.iter().map(|entry| entry.addr).collect();
    assert_eq!(told, expected, "{name}");
    assert_eq!(
        registry.peer_count(),
        registry.peers(HASH).count(),
        "{name}"
    );
    let has_mortals = registry.peers(HASH).any(|entry| !entry.is_connected);
    assert!(!has_mortals || registry.next_deadline().is_some(), "{name}");
}

fn open() -> Registry {
    Registry::new(&Secret::new([5; 16]), Openness::Open)
}

fn announce(registry: &mut Registry, hash: u32, from: SocketAddr, secs: u64) -> bool {
    let interfaces = interfaces();
    let asker = Asker {
        remote: from,
        local: None,
        interfaces: &interfaces,
        links: None,
    };
    let announced = Announced {
        sighting: sighting(from, Heard::Announce),
        event: None,
        count: 10,
        families: Families::Own,
    };
    let who = (&asker.ears(), asker.nearness());
    let outcome = registry.announced(
        hash_of(hash),
        &announced,
        who,
        at(secs),
        &mut Peers::default(),
    );
    outcome.is_some_and(|outcome| outcome.is_listed)
}

fn hash_of(n: u32) -> InfoHash {
    let mut hash = [0; 20];
    hash[..4].copy_from_slice(&n.to_be_bytes());
    InfoHash(hash)
}

/// Row 92 of the hostile inputs.
#[test]
fn flood_of_info_hashes_costs_its_sender_its_own_swarms() {
    let mut registry = open();
    let honest = stranger(7);
    for n in 0..50 {
        assert!(announce(&mut registry, n, honest, 1));
    }
    let flooder = stranger(8);
    for n in 1000..101_000 {
        assert!(announce(&mut registry, n, flooder, 2));
    }
    assert_eq!(registry.swarms().count(), 50 + OPEN_SWARMS_NET_MAX);
    assert!((0..50).all(|n| registry.is_tracked(hash_of(n))));
    // What is used stays, what is not goes.
    assert!(registry.is_tracked(hash_of(100_999)));
    assert!(announce(&mut registry, 100_500, flooder, 20));
    for n in 200_000..200_499 {
        announce(&mut registry, n, flooder, 21);
    }
    assert!(registry.is_tracked(hash_of(100_500)));
    assert!(!registry.is_tracked(hash_of(100_999)));
}

#[test]
fn flood_of_info_hashes_from_our_link_ends_at_the_limit_of_all() {
    let mut registry = open();
    for n in 0..50 {
        announce(&mut registry, n, stranger(7), 1);
        announce(&mut registry, 50 + n, neighbour(7), 1);
    }
    for n in 1000..101_000 {
        announce(&mut registry, n, neighbour(8), 2);
    }
    assert_eq!(registry.swarms().count(), OPEN_SWARMS_MAX);
    assert!((0..100).all(|n| registry.is_tracked(hash_of(n))));
    assert_eq!(registry.peer_count(), OPEN_SWARMS_MAX);
}

#[test]
fn open_swarm_goes_with_its_last_peer_and_a_tracked_one_stays() {
    let mut registry = open();
    announce(&mut registry, 1, stranger(1), 1);
    announce(&mut registry, 2, stranger(1), 1);
    registry.track(hash_of(2), Terms::default(), at(1));
    assert_eq!(registry.open.len(), 1);
    registry.expire(at(700));
    assert!(!registry.is_tracked(hash_of(1)));
    assert!(registry.is_tracked(hash_of(2)));
    assert_eq!(registry.open.len(), 0);
    assert_eq!(registry.next_deadline(), None);
}

#[test]
fn who_cannot_be_listed_leaves_no_swarm_behind() {
    let mut registry = open();
    assert!(!announce(&mut registry, 1, addr("198.51.100.1:0"), 1));
    assert!(registry.is_tracked(hash_of(1)));
    registry.expire(at(602));
    assert_eq!(registry.swarms().count(), 0);
}
