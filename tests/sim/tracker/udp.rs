//! Trackers over UDP (BEP 15): that work, fail, dawdle, and are hard to reach.

use std::time::Duration;

use evpeer::sim::net::Link;
use evpeer::sim::tracker::{Answer, Terms, Tracker};
use evpeer::sim::udp_tracker::{UdpAnswer, UdpTracker};
use evpeer::sim::{Have, HostId};

use super::tiered::{Kind, Tiered, count};
use crate::world::{LAN, for_seeds};

fn every(interval: u32) -> UdpTracker {
    UdpTracker::new(UdpAnswer::Peers(interval))
}

/// `event_completed` over UDP: hosts that know a UDP tracker only find each other; events are
/// told as over HTTP, and connection ids are used for their minute.
#[test]
fn udp_tracker_brings_hosts_together() {
    for_seeds(4, |rng_seed| {
        let mut swarm = Tiered::new(rng_seed, LAN, vec![vec![Kind::Udp(every(5))]]);
        let seed = swarm.peer(Have::All);
        let hosts: Vec<HostId> = (0..4).map(|_| swarm.peer(Have::Nothing)).collect();
        swarm.finish(&hosts, "by UDP");
        swarm.wait(Duration::from_secs(300));
        for &host in hosts.iter().chain([&seed]) {
            let seen = swarm.asked(0, host);
            assert!((55..70).contains(&seen.len()), "{} announces", seen.len());
            assert_eq!(seen[0].event, "started");
            assert_eq!(count(&seen, "started"), 1);
            assert_eq!(count(&seen, "completed"), usize::from(host != seed));
            for announce in &seen {
                assert!(announce.event != "completed" || announce.left == 0);
                assert_eq!((announce.port, announce.numwant), (6881, 50));
            }
            let ip = swarm.world.addr(host).ip();
            let connected = swarm.udp(0).connected().iter();
            let connected = connected.filter(|(_, from)| from.ip() == ip).count();
            assert!((5..=8).contains(&connected), "{connected} connection ids");
        }
        assert_eq!(swarm.udp(0).refused(), 0);
    });
}

/// `announce_interval` over UDP.
#[test]
fn udp_tracker_is_asked_as_often_as_it_says() {
    for interval in [440, 1200, 1800] {
        let mut swarm = Tiered::new(1, LAN, vec![vec![Kind::Udp(every(interval))]]);
        let seed = swarm.peer(Have::All);
        swarm.wait(Duration::from_secs(7200));
        let seen = swarm.asked(0, seed);
        let pauses = seen
            .windows(2)
            .map(|pair| (pair[1].at - pair[0].at).as_secs());
        let pauses: Vec<u64> = pauses.collect();
        let interval = u64::from(interval);
        assert!(pauses.len() as u64 >= 7200 / interval - 1, "{pauses:?}");
        assert!(
            pauses
                .iter()
                .all(|pause| (interval..interval + 60).contains(pause)),
            "{interval}: {pauses:?}"
        );
    }
}

/// Row 84 of the hostile inputs, over a whole net: whatever a tracker answers at first, the swarm
/// meets once it answers rightly.
#[test]
fn udp_trackers_that_fail_are_borne_and_come_back() {
    let nobody = (0..40u8).map(|n| ([10, 200, 0, n], 6881).into()).collect();
    let cases = [
        ("an error", UdpAnswer::Error("no".to_owned())),
        ("a transaction of nobody", UdpAnswer::OtherTransaction),
        ("an empty datagram", UdpAnswer::Cut(0)),
        ("an action alone", UdpAnswer::Cut(4)),
        ("a head alone", UdpAnswer::Cut(8)),
        ("a cut reply", UdpAnswer::Cut(15)),
        ("another port", UdpAnswer::OtherPort),
        ("noise", UdpAnswer::Raw(vec![0xfe; 600])),
        ("silence", UdpAnswer::Silence),
        ("a lie", UdpAnswer::Lie(nobody)),
    ];
    for_seeds(1, |rng_seed| {
        for (name, answer) in &cases {
            for at_connect in [true, false] {
                let mut tracker = every(60);
                let first = vec![answer.clone(); 10].into();
                match at_connect {
                    true => tracker.connects = first,
                    false => tracker.first = first,
                }
                let mut swarm = Tiered::new(rng_seed, LAN, vec![vec![Kind::Udp(tracker)]]);
                swarm.peer(Have::All);
                let host = swarm.peer(Have::Nothing);
                // A lie is a good answer: the tracker is asked again after half an hour.
                if *name == "a lie" && !at_connect {
                    swarm.wait(Duration::from_secs(5 * 1800));
                }
                swarm.finish(&[host], name);
            }
        }
    });
}

/// A UDP tracker that is silent delays neither its tier nor another.
#[test]
fn silent_udp_tracker_delays_nobody() {
    for_seeds(3, |rng_seed| {
        let silent = || Kind::Udp(UdpTracker::new(UdpAnswer::Silence));
        let good = || Kind::Http(Tracker::new(Answer::Peers(Terms::every(60))));
        let mut swarm = Tiered::new(rng_seed, LAN, vec![vec![silent()], vec![good()]]);
        swarm.peer(Have::All);
        swarm.wait(Duration::from_secs(1));
        let host = swarm.peer(Have::Nothing);
        swarm.finish(&[host], "another tier");
        assert!(swarm.secs() < 3, "{} s", swarm.secs());

        let mut swarm = Tiered::new(rng_seed, LAN, vec![vec![silent(), good()]]);
        swarm.peer(Have::All);
        swarm.wait(Duration::from_secs(4));
        let host = swarm.peer(Have::Nothing);
        swarm.finish(&[host], "the same tier");
        assert!(swarm.secs() < 9, "{} s", swarm.secs());
    });
}

/// Three datagrams of ten are lost, one of ten comes twice: nobody is given up.
#[test]
fn lost_and_doubled_datagrams_are_borne() {
    let link = Link {
        loss_ppm: 300_000,
        doubles_ppm: 100_000,
        ..LAN
    };
    for_seeds(6, |rng_seed| {
        let mut swarm = Tiered::new(rng_seed, link, vec![vec![Kind::Udp(every(60))]]);
        let seed = swarm.peer(Have::All);
        let hosts: Vec<HostId> = (0..3).map(|_| swarm.peer(Have::Nothing)).collect();
        swarm.finish(&hosts, "on a bad line");
        assert!(swarm.secs() < 180, "{} s", swarm.secs());
        swarm.wait(Duration::from_secs(600));
        let seen = swarm.asked(0, seed);
        assert!(seen.len() > 6, "{} announces in ten minutes", seen.len());
    });
}
