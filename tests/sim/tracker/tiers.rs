//! Tiers (BEP 12), and who is asked when all of them are silent.

use std::time::Duration;

use evpeer::engine::Report;
use evpeer::sim::tracker::{Answer, Terms, Tracker};
use evpeer::sim::udp_tracker::{UdpAnswer, UdpTracker};
use evpeer::sim::{Have, HostId, PeerSpec, World};

use super::tiered::{Kind, Tiered, count};
use crate::world::{LAN, for_seeds, torrent};

fn good() -> Kind {
    Kind::Http(Tracker::new(Answer::Peers(Terms::every(60))))
}

fn silent() -> Kind {
    Kind::Http(Tracker::new(Answer::Silence))
}

/// Fails some times, then works.
fn late(failures: usize) -> Kind {
    let first = vec![Answer::Failure("not yet".to_owned(), None); failures];
    Kind::Http(Tracker::after(first, Answer::Peers(Terms::every(60))))
}

/// `tracker_tiers_all_tiers`: of each tier one tracker is asked, the same one as long as it works;
/// it hears of the start, and of the end once.
#[test]
fn tracker_tiers_all_tiers() {
    for_seeds(4, |rng_seed| {
        let tiers = vec![vec![good(), good(), good()], vec![good()]];
        let mut swarm = Tiered::new(rng_seed, LAN, tiers);
        let seed = swarm.peer(Have::All);
        let hosts: Vec<HostId> = (0..3).map(|_| swarm.peer(Have::Nothing)).collect();
        swarm.finish(&hosts, "by two tiers");
        swarm.wait(Duration::from_secs(600));
        for &host in hosts.iter().chain([&seed]) {
            let asked: Vec<_> = (0..4).map(|tracker| swarm.asked(tracker, host)).collect();
            let used = asked[..3].iter().filter(|seen| !seen.is_empty()).count();
            assert_eq!(used, 1, "one of the first tier");
            for seen in asked.iter().filter(|seen| !seen.is_empty()) {
                assert!(
                    (9..14).contains(&seen.len()),
                    "{} in ten minutes",
                    seen.len()
                );
                assert_eq!(seen[0].event, "started");
                assert_eq!(count(seen, "started"), 1);
                assert_eq!(count(seen, "completed"), usize::from(host != seed));
            }
        }
    });
}

/// `tracker_tiers_unreachable_tracker`: one that is not there delays its tier by next to nothing.
#[test]
fn tracker_tiers_unreachable_tracker() {
    for_seeds(4, |rng_seed| {
        for dead in [|| Kind::Nobody, || Kind::NoName, silent] {
            let tiers = vec![vec![dead(), good(), dead()]];
            let mut swarm = Tiered::new(rng_seed, LAN, tiers);
            swarm.peer(Have::All);
            let host = swarm.peer(Have::Nothing);
            swarm.finish(&[host], "beside a dead one");
            // The two may have asked in another order; the seed is named at the next announce.
            assert!(swarm.secs() < 70, "{} s", swarm.secs());
            swarm.wait(Duration::from_secs(1800));
            let seen = swarm.asked(1, host);
            assert!(seen.len() >= 25, "the working one is kept: {}", seen.len());
            assert_eq!(count(&seen, "started"), 1);
        }
    });
}

/// A first tier that is dead, in whatever way, delays the second by nothing at all.
#[test]
fn dead_tier_delays_nobody() {
    for_seeds(3, |rng_seed| {
        for dead in [|| Kind::Nobody, || Kind::NoName, silent] {
            let mut swarm = Tiered::new(rng_seed, LAN, vec![vec![dead()], vec![good()]]);
            let seed = swarm.peer(Have::All);
            swarm.wait(Duration::from_secs(1));
            let host = swarm.peer(Have::Nothing);
            swarm.finish(&[host], "the second tier");
            assert!(swarm.secs() < 3, "{} s", swarm.secs());
            assert_eq!(swarm.asked(1, seed).len(), 1);
        }
    });
}

/// What the user adds is asked beside the torrent's own trackers, which work.
#[test]
fn trackers_of_the_user_are_asked_beside_the_torrents() {
    for_seeds(2, |rng_seed| {
        let mut swarm = Tiered::new(rng_seed, LAN, vec![vec![good()]]);
        let user = Tracker::new(Answer::Peers(Terms::every(60)));
        let user = swarm.world.add_actor(Box::new(user), None);
        let mut spec = PeerSpec::new(Have::All, &[]);
        let addr = swarm.world.addr(user);
        spec.trackers = vec![format!("http://{addr}/announce")];
        let peer = swarm.world.add(spec);
        swarm.wait(Duration::from_secs(1));
        let user: &Tracker = swarm.world.actor(user).expect("a tracker");
        assert_eq!(user.seen().len(), 1);
        assert_eq!(swarm.asked(0, peer).len(), 1);
    });
}

/// `tracker_tiers_retry_all`, `tracker_tiers_retry_all_multiple_trackers_per_tier`: where all have
/// failed all are tried again, until one works.
#[test]
fn tracker_tiers_retry_all() {
    for_seeds(3, |rng_seed| {
        let single = || vec![vec![late(5)], vec![late(6)]];
        let several = || vec![vec![late(6), late(7), Kind::Nobody], vec![late(6)]];
        for (name, tiers) in [("single", single()), ("several", several())] {
            let mut swarm = Tiered::new(rng_seed, LAN, tiers);
            let kinds = swarm.trackers.clone();
            let seed = swarm.peer(Have::All);
            let host = swarm.peer(Have::Nothing);
            swarm.finish(&[host], name);
            for (tracker, &kind) in kinds.iter().enumerate() {
                let asked = swarm.asked(tracker, seed).len() + swarm.asked(tracker, host).len();
                let is_there = kind != HostId(u32::MAX);
                assert!(
                    !is_there || asked >= 4,
                    "{name}, tracker {tracker}: {asked}"
                );
            }
        }
    });
}

/// `tracker_tiers_v4_and_v6_same_tier` and its like, as far as one name has several addresses: it's
/// one tracker, asked where it answers.
#[test]
fn tracker_with_a_dead_address_is_asked_at_the_other() {
    for_seeds(2, |rng_seed| {
        for udp in [false, true] {
            let kind = match udp {
                false => good(),
                true => Kind::Udp(UdpTracker::new(UdpAnswer::Peers(60))),
            };
            let mut swarm = Tiered::new(rng_seed, LAN, vec![vec![kind]]);
            let deaf = swarm
                .world
                .add_actor(Box::new(Tracker::new(Answer::HangUp)), None);
            let tracker = swarm.trackers[0];
            swarm.world.isolate(&[deaf], 1);
            swarm.world.set_name("t1", &[deaf, tracker]);
            let seed = swarm.peer(Have::All);
            let host = swarm.peer(Have::Nothing);
            swarm.finish(&[host], "at the other address");
            swarm.wait(Duration::from_secs(30));
            for peer in [seed, host] {
                assert_eq!(count(&swarm.asked(0, peer), "started"), 1, "udp {udp}");
            }
        }
    });
}

/// `tracker_key_argument`, `announce_ip_port`: every tracker is told the same key and port by one
/// peer, and no address.
#[test]
fn key_and_port_are_the_same_everywhere() {
    for_seeds(2, |rng_seed| {
        let udp = Kind::Udp(UdpTracker::new(UdpAnswer::Peers(60)));
        let mut swarm = Tiered::new(rng_seed, LAN, vec![vec![good()], vec![udp]]);
        let peers = [swarm.peer(Have::All), swarm.peer(Have::Nothing)];
        swarm.finish(&peers, "by both");
        swarm.wait(Duration::from_secs(300));
        let keys = peers.map(|peer| {
            let (http, udp) = (swarm.asked(0, peer), swarm.asked(1, peer));
            assert!(http.len() > 3 && udp.len() > 3);
            let all = || http.iter().chain(&udp);
            assert!(all().all(|seen| seen.port == 6881 && seen.key == http[0].key));
            http[0].key
        });
        assert_ne!(keys[0], keys[1]);
        let tracker: &Tracker = swarm.world.actor(swarm.trackers[0]).expect("a tracker");
        for key in ["ip", "ipv4", "ipv6"] {
            assert!(tracker.seen().iter().all(|a| !a.pairs.contains_key(key)));
        }
        assert!(swarm.udp(1).seen().iter().all(|announce| announce.ip == 0));
    });
}

/// `test_warning`, `test_error`: the tracker's words reach the user.
#[test]
fn warnings_and_errors_are_told() {
    let terms = Terms {
        warning: Some("too\nslow".to_owned()),
        ..Terms::every(60)
    };
    let warns = Kind::Http(Tracker::new(Answer::Peers(terms)));
    let refuses = Kind::Http(Tracker::new(Answer::Failure("banned".to_owned(), None)));
    let by_udp = Kind::Udp(UdpTracker::new(UdpAnswer::Error("off\u{7}".to_owned())));
    let mut swarm = Tiered::new(1, LAN, vec![vec![warns], vec![refuses], vec![by_udp]]);
    let peer = swarm.peer(Have::All);
    swarm.wait(Duration::from_secs(5));
    let reports = swarm.world.reports(peer);
    let warned = reports.iter().any(|report| {
        let expected = Some("too\\u{a}slow");
        matches!(report, Report::TrackerAnswered { warning, .. } if warning.as_deref() == expected)
    });
    assert!(warned, "{reports:?}");
    for words in ["the tracker says: banned", "the tracker says: off\\u{7}"] {
        let told = reports.iter().any(|report| {
            matches!(report, Report::TrackerFailed { message, .. } if message.starts_with(words))
        });
        assert!(told, "{words}: {reports:?}");
    }
}

/// Goal: a newcomer finds the others by an evpeer that it knows, where no tracker answers.
/// Method: c knows b, b knows a; addresses are not exchanged by PEX or LSD. What a serves only c
/// can have from a, as b is cut off once it has told.
#[test]
fn evpeers_are_trackers_of_last_resort() {
    for_seeds(3, |rng_seed| {
        for tracker in [None, Some("http://10.250.0.1/announce")] {
            let (meta, content) = torrent(rng_seed, 32 * 1024, &[600_000]);
            let mut world = World::new(rng_seed, LAN, meta, content);
            let add = |world: &mut World, have, known: &[HostId]| {
                let mut spec = PeerSpec::new(have, known);
                spec.config.pex = false;
                spec.trackers = tracker.into_iter().map(str::to_owned).collect();
                world.add(spec)
            };
            let a = add(&mut world, Have::Nothing, &[]);
            let b = add(&mut world, Have::Nothing, &[a]);
            world.run_until(Duration::from_secs(10), |_| false);
            let c = add(&mut world, Have::Nothing, &[b]);
            let addr = world.addr(a);
            let has_met = |w: &mut World| {
                w.reports(c).iter().any(|report| match report {
                    Report::PeerJoined { remote, .. } => remote.ip() == addr.ip(),
                    _ => false,
                })
            };
            let met = world.run_until(Duration::from_secs(60), has_met);
            assert!(met, "{tracker:?}: they did not meet");
            world.audit().unwrap_or_else(|failure| panic!("{failure}"));
        }
    });
}
