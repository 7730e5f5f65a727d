//! How hosts find each other: on their link, by what peers tell, by trackers of both kinds, by
//! evpeers that are trackers themselves. Judges watch what is told of private swarms, who is
//! dialled, and that no address is sent more than it proved to want.

use std::sync::Arc;
use std::time::Duration;

use evpeer::sim::tracker::{Answer, Tracker};
use evpeer::sim::udp_tracker::{UdpAnswer, UdpTracker};
use evpeer::sim::{Have, HostId, Link, PeerSpec, Uplink, World};

use crate::world::{LAN, for_seeds, private_torrent, torrent};

const SECONDS: Duration = Duration::from_secs(30);
const MINUTES: Duration = Duration::from_secs(600);
/// A line on which a download takes minutes.
const SLOW: Link = Link::lan(100_000);

fn world(rng_seed: u64, link: Link, len: u64) -> World {
    let (meta, content) = torrent(rng_seed, 16 * 1024, &[len]);
    World::new(rng_seed, link, meta, content)
}

/// A host that is told of nobody, and of these trackers.
fn host(world: &mut World, have: Have, trackers: &[String]) -> HostId {
    let mut spec = PeerSpec::new(have, &[]);
    spec.config.pex = false;
    spec.trackers = trackers.to_vec();
    world.add(spec)
}

fn by_lsd(world: &mut World, have: Have) -> HostId {
    let mut spec = PeerSpec::new(have, &[]);
    spec.config.lsd = true;
    world.add(spec)
}

fn finish(world: &mut World, limit: Duration, hosts: &[HostId], what: &str) {
    let is_done = |w: &mut World| hosts.iter().all(|&host| w.is_complete(host));
    if !world.run_until(limit, is_done) {
        let late = hosts.iter().find(|&&host| !world.is_complete(host));
        let text = format!("{what}: not complete after {limit:?}");
        panic!("{}", world.unfinished(*late.expect("one is not"), text));
    }
    world
        .audit()
        .unwrap_or_else(|failure| panic!("{what}: {failure}"));
}

fn are_connected(world: &World, a: HostId, b: HostId) -> bool {
    let Some(engine) = world.engine(a) else {
        return false;
    };
    let swarms = engine
        .torrents()
        .filter_map(|torrent| engine.swarm(torrent));
    let mut peers = swarms.flat_map(|swarm| swarm.peers());
    peers.any(|(_, peer)| peer.origin.remote.ip() == world.addr(b).ip())
}

/// Goal: hosts of one link need nothing to find each other, and are not loud about it.
/// Method: a seed and 20 leechers that nobody told of anybody, at once and one by one.
#[test]
fn neighbours_find_each_other() {
    for_seeds(4, |rng_seed| {
        for pause in [Duration::ZERO, Duration::from_secs(1)] {
            let mut world = world(rng_seed, LAN, 300_000);
            let mut hosts = vec![by_lsd(&mut world, Have::All)];
            for _ in 0..20 {
                world.run_until(pause, |_| false);
                hosts.push(by_lsd(&mut world, Have::Nothing));
            }
            finish(&mut world, Duration::from_secs(10), &hosts, "on a link");
            world.run_until(Duration::from_secs(60), |_| false);
            let sent = world.network().datagram_ledger().sent.count / 21;
            // Three each at the start, and few answers.
            assert!(sent <= 5 * 21, "{sent} packets to the group");
        }
    });
}

/// Goal: a group that loses most of what is said there still brings hosts together.
#[test]
fn neighbours_find_each_other_though_packets_are_lost() {
    for_seeds(4, |rng_seed| {
        let lossy = Link {
            loss_ppm: 600_000,
            ..LAN
        };
        let mut world = world(rng_seed, lossy, 300_000);
        let hosts = [Have::All, Have::Nothing, Have::Nothing].map(|have| by_lsd(&mut world, have));
        finish(&mut world, MINUTES, &hosts, "lossy link");
    });
}

/// Goal: what is said on a link stays there, and islands that meet hear of each other.
/// Method: a rack with a seed, another without; then a host that was cut off comes back.
#[test]
fn links_are_apart_and_islands_meet() {
    for_seeds(4, |rng_seed| {
        let mut world = world(rng_seed, LAN, 300_000);
        let uplink = Uplink {
            up_bytes_s: 1_000_000_000,
            down_bytes_s: 1_000_000_000,
            latency: Duration::from_micros(50),
        };
        let racks = [world.add_rack(uplink), world.add_rack(uplink)];
        let mut add = |have, rack| {
            let mut spec = PeerSpec::new(have, &[]);
            spec.config.lsd = true;
            spec.rack = Some(racks[rack]);
            world.add(spec)
        };
        let seed = add(Have::All, 0);
        let near = [add(Have::Nothing, 0), add(Have::Nothing, 0)];
        let far = add(Have::Nothing, 1);
        world.isolate(&[near[1]], 1);
        finish(&mut world, SECONDS, &[seed, near[0]], "its rack");
        assert!(!world.run_until(Duration::from_secs(60), |w| w.is_complete(far)));
        assert!(!world.is_complete(near[1]), "it is on an island");
        world.heal();
        finish(&mut world, MINUTES, &[near[1]], "back on the link");
        assert_eq!(world.progress(far), 0.0, "another link hears nothing");
    });
}

/// `pex`: who is connected to the same peer hears of each other, unless that is switched off.
#[test]
fn pex() {
    for_seeds(3, |rng_seed| {
        for pex in [true, false] {
            let mut world = world(rng_seed, SLOW, 60_000_000);
            let seed = world.add_peer(Have::All, &[]);
            let hosts = [(); 3].map(|()| {
                let mut spec = PeerSpec::new(Have::Nothing, &[seed]);
                spec.config.pex = pex;
                // Evpeers are trackers of each other too.
                spec.config.trackers = false;
                world.add(spec)
            });
            let all = |w: &mut World| {
                let pairs = hosts
                    .iter()
                    .flat_map(|&a| hosts.iter().map(move |&b| (a, b)));
                pairs
                    .filter(|(a, b)| a < b)
                    .all(|(a, b)| are_connected(w, a, b))
            };
            let met = world.run_until(Duration::from_secs(150), all);
            assert_eq!(met, pex);
            world.audit().unwrap_or_else(|failure| panic!("{failure}"));
        }
    });
}

/// Goal: a private swarm is found by its tracker alone (BEP 27).
/// Method: LSD and PEX are on everywhere; one host that knows nobody, three that know the seed;
/// the judge `private` reads what they say. Then a tracker of the torrent's.
#[test]
fn private_swarm_is_not_told_of() {
    for_seeds(3, |rng_seed| {
        let (meta, content) = private_torrent(rng_seed, 16 * 1024, &[30_000_000]);
        let mut world = World::new(rng_seed, SLOW, Arc::clone(&meta), content);
        let seed = by_lsd(&mut world, Have::All);
        let known = [(); 2].map(|()| {
            let mut spec = PeerSpec::new(Have::Nothing, &[seed]);
            spec.config.lsd = true;
            world.add(spec)
        });
        let stranger = by_lsd(&mut world, Have::Nothing);
        world.run_until(Duration::from_secs(200), |_| false);
        world.audit().unwrap_or_else(|failure| panic!("{failure}"));
        assert!(known.iter().all(|&host| are_connected(&world, host, seed)));
        assert!(
            !are_connected(&world, known[0], known[1]),
            "nobody told them"
        );
        assert_eq!(
            world.engine(stranger).map(|engine| engine.conn_count()),
            Some(0)
        );
    });
}

/// Goal: an evpeer that is in no swarm brings one together, over both protocols; what it is told
/// of peers ends with it, and what is left of the swarm does without.
#[test]
fn evpeer_is_the_tracker() {
    for_seeds(4, |rng_seed| {
        for scheme in ["http", "udp"] {
            let mut world = world(rng_seed, LAN, 300_000);
            let tracker = world.add(PeerSpec::tracker());
            let url = [format!("{scheme}://{}/announce", world.addr(tracker))];
            let seed = host(&mut world, Have::All, &url);
            let mut hosts: Vec<HostId> = (0..5)
                .map(|_| host(&mut world, Have::Nothing, &url))
                .collect();
            finish(&mut world, SECONDS, &hosts, scheme);
            // Its memory goes with it; who announces again is found again.
            world.kill(tracker);
            world.run_until(Duration::from_secs(60), |_| false);
            world.restart(tracker);
            hosts.push(host(&mut world, Have::Nothing, &url));
            finish(
                &mut world,
                3 * MINUTES,
                &hosts,
                &format!("{scheme}, new tracker"),
            );
            assert!(world.is_complete(seed) && world.is_complete(tracker));
        }
    });
}

/// Goal: lost, doubled and late datagrams cost a UDP tracker's users time and nothing else.
#[test]
fn udp_tracker_over_a_bad_line() {
    for_seeds(6, |rng_seed| {
        let bad = Link {
            loss_ppm: 150_000,
            doubles_ppm: 100_000,
            jitter: Duration::from_millis(300),
            ..LAN
        };
        let mut world = world(rng_seed, bad, 300_000);
        let tracker = world.add(PeerSpec::tracker());
        let url = [format!("udp://{}", world.addr(tracker))];
        host(&mut world, Have::All, &url);
        let hosts: Vec<HostId> = (0..5)
            .map(|_| host(&mut world, Have::Nothing, &url))
            .collect();
        finish(&mut world, MINUTES, &hosts, "bad line");
    });
}

/// Answers that help nobody, by name.
fn failures() -> Vec<(&'static str, UdpAnswer)> {
    vec![
        ("an error", UdpAnswer::Error("no".to_owned())),
        (
            "an error of noise",
            UdpAnswer::Error("\u{1}\u{7f}".repeat(700)),
        ),
        ("another transaction", UdpAnswer::OtherTransaction),
        ("nothing but a head", UdpAnswer::Cut(8)),
        ("a part of the answer", UdpAnswer::Cut(18)),
        ("an empty datagram", UdpAnswer::Cut(0)),
        ("another port", UdpAnswer::OtherPort),
        ("noise", UdpAnswer::Raw(vec![0xfe; 1400])),
        ("silence", UdpAnswer::Silence),
    ]
}

/// `tracker` over UDP: whatever goes wrong, with the connection or with the announce, the tracker
/// is asked again, not too often, and used once it works.
#[test]
fn failing_udp_trackers_are_borne_and_come_back() {
    for_seeds(1, |rng_seed| {
        for (name, answer) in failures() {
            for fails_to_connect in [true, false] {
                let mut tracker = UdpTracker::new(UdpAnswer::Peers(60));
                let first = vec![answer.clone(); 4].into();
                if fails_to_connect {
                    tracker.connects = first;
                } else {
                    tracker.first = first;
                }
                let mut world = world(rng_seed, LAN, 300_000);
                let tracker = world.add_actor(Box::new(tracker), None);
                let url = [format!("udp://{}/announce", world.addr(tracker))];
                host(&mut world, Have::All, &url);
                let leecher = host(&mut world, Have::Nothing, &url);
                finish(&mut world, MINUTES, &[leecher], name);
                let tracker: &UdpTracker = world.actor(tracker).expect("a tracker");
                let ours = world.addr(leecher);
                let seen = tracker.seen().iter().filter(|a| a.from == ours);
                let events: Vec<u32> = seen.map(|announce| announce.event).collect();
                assert_eq!(events.first(), Some(&2), "{name}: started first");
                assert!(events.len() < 12, "{name}: {events:?}");
            }
        }
    });
}

/// `tracker_tiers`, `tracker_tiers_unreachable_tracker`, `try_next`: dead trackers before, beside
/// and behind one that works do not keep a swarm apart, whatever each of them speaks.
#[test]
fn tracker_tiers() {
    for_seeds(2, |rng_seed| {
        for (first, then) in [
            ("http", "udp"),
            ("udp", "http"),
            ("udp", "udp"),
            ("http", "http"),
        ] {
            let mut world = world(rng_seed, LAN, 300_000);
            let alive = world.add(PeerSpec::tracker());
            let silent = match first {
                "http" => world.add_actor(Box::new(Tracker::new(Answer::Silence)), None),
                _ => world.add_actor(Box::new(UdpTracker::new(UdpAnswer::Silence)), None),
            };
            let gone = world.add(PeerSpec::tracker());
            world.cut(gone);
            let url = |scheme, host| format!("{scheme}://{}/announce", world.addr(host));
            let nowhere = format!("{first}://10.200.1.1:6881/announce");
            let urls = [
                url(first, silent),
                nowhere,
                url(first, gone),
                url(then, alive),
                url(first, gone),
            ];
            host(&mut world, Have::All, &urls);
            let hosts: Vec<HostId> = (0..3)
                .map(|_| host(&mut world, Have::Nothing, &urls))
                .collect();
            finish(
                &mut world,
                SECONDS,
                &hosts,
                &format!("{first}, then {then}"),
            );
        }
    });
}

/// Goal: when all trackers are silent, evpeers that are known stand in for them.
/// Method: the leechers are told of the first of them and of a dead tracker; it alone knows the
/// seed. PEX and LSD are off.
#[test]
fn known_evpeers_are_trackers_of_last_resort() {
    for_seeds(3, |rng_seed| {
        let mut world = world(rng_seed, SLOW, 60_000_000);
        let seed = host(&mut world, Have::All, &[]);
        let dead = ["http://10.200.1.1:6881/announce".to_owned()];
        let mut add = |known: &[HostId]| {
            let mut spec = PeerSpec::new(Have::Nothing, known);
            spec.config.pex = false;
            spec.trackers = dead.to_vec();
            world.add(spec)
        };
        let first = add(&[seed]);
        let others = [add(&[first]), add(&[first]), add(&[first])];
        let met = |w: &mut World| {
            let knows = |&other: &HostId| others.iter().any(|&b| are_connected(w, other, b));
            others.iter().all(knows)
        };
        assert!(world.run_until(MINUTES, met), "they hear of each other");
        world.audit().unwrap_or_else(|failure| panic!("{failure}"));
    });
}
