//! Many hosts at once, and hosts that go when they are needed.

use std::time::Duration;

use evpeer::sim::forecast::Forecast;
use evpeer::sim::{Have, HostId, Judged, Link, PeerSpec, Uplink, World};

use crate::world::{LAN, for_seeds, torrent};

const MINUTES: Duration = Duration::from_secs(600);
const BLOCK: u64 = 16 * 1024;

/// Goal: a thousand hosts that come at once are all served.
/// Method: tags instead of payload; one seed; every host is judged at the end.
#[test]
fn flash_crowd_of_a_thousand() {
    let forecast = Forecast {
        hosts: 1000,
        length: 48 * BLOCK,
        piece_len: BLOCK as u32,
        link: Link::lan(12_500_000),
        ..Forecast::default()
    };
    let outcome = forecast.run(|_, _| {}).unwrap_or_else(|f| panic!("{f}"));
    assert_eq!((outcome.completed.len(), outcome.unfinished), (999, 0));
    let all = 999 * 48 * BLOCK;
    let in_vain = outcome.duplicate_bytes;
    // With 48 blocks in all, almost everything is asked for at once, and copied in the endgame.
    assert!(in_vain < all / 3, "{in_vain} of {all} B came in vain");
}

/// Goal: the rules hold among a hundred hosts without payload just as among few with it.
#[test]
fn crowd_without_payload_keeps_every_rule() {
    for_seeds(2, |rng_seed| {
        let forecast = Forecast {
            rng_seed,
            hosts: 100,
            length: 40 * BLOCK + 77,
            piece_len: 4 * BLOCK as u32,
            link: Link::lan(12_500_000),
            killed: 10,
            judged: Judged::Strictly,
            ..Forecast::default()
        };
        let outcome = forecast.run(|_, _| {}).unwrap_or_else(|f| panic!("{f}"));
        assert_eq!(outcome.unfinished, 0);
        assert!(outcome.completed.len() >= 89);
    });
}

/// Goal: once every piece has left the seed, the swarm does without it.
/// Method: the seed's power goes as soon as the leechers together have every piece.
#[test]
fn seed_leaves_at_one_copy() {
    for_seeds(10, |rng_seed| {
        let (meta, content) = torrent(rng_seed, 16 * 1024, &[900_000]);
        let count = meta.geometry().piece_count();
        let slow = Link {
            latency: Duration::from_millis(2),
            ..Link::lan(1_000_000)
        };
        let mut world = World::new(rng_seed, slow, meta, content);
        let seed = world.add_peer(Have::All, &[]);
        let mut leechers: Vec<HostId> = Vec::new();
        for _ in 0..8 {
            let known: Vec<HostId> = leechers.iter().copied().chain([seed]).collect();
            leechers.push(world.add_peer(Have::Nothing, &known));
        }
        let has_copy = |world: &World| {
            let holds = |&host: &HostId, piece| {
                let engine = world.engine(host).expect("it runs");
                let torrent = engine.torrents().next().expect("one torrent");
                engine
                    .swarm(torrent)
                    .expect("it is there")
                    .pieces()
                    .has(piece)
            };
            (0..count).all(|piece| leechers.iter().any(|host| holds(host, piece)))
        };
        assert!(world.run_until(MINUTES, |w| has_copy(w)), "the seed serves");
        world.cut(seed);
        let all = |w: &mut World| leechers.iter().all(|&host| w.is_complete(host));
        assert!(
            world.run_until(MINUTES, all),
            "the others have all there is"
        );
    });
}

/// Goal: what nobody has stays missing, everything else is spread, and nobody gives up: when
/// the missing piece comes, all become complete.
#[test]
fn missing_piece_comes_late() {
    for_seeds(10, |rng_seed| {
        let (meta, content) = torrent(rng_seed, 16 * 1024, &[400_000]);
        let count = meta.geometry().piece_count();
        let mut world = World::new(rng_seed, LAN, meta, content);
        let seed = world.add_peer(Have::All, &[]);
        // A bit that rots on the platter: one piece is nowhere when the seed comes back.
        world.kill(seed);
        assert!(world.disk(seed).expect("a disk").rot());
        world.restart(seed);
        let leechers: Vec<HostId> = (0..4)
            .map(|_| world.add_peer(Have::Nothing, &[seed]))
            .collect();
        let most = f64::from(count - 1) / f64::from(count) - 0.05;
        let spread = |w: &mut World| leechers.iter().all(|&host| w.progress(host) > most);
        assert!(world.run_until(MINUTES, spread), "the rest is spread");
        assert!(!world.run_until(Duration::from_secs(60), |w| w.completed() > 0));
        let other = world.add_peer(Have::All, &leechers);
        let all = |w: &mut World| leechers.iter().all(|&host| w.is_complete(host));
        assert!(
            world.run_until(MINUTES, all),
            "another seed {other:?} brings the piece"
        );
        assert!(
            world.run_until(MINUTES, |w| w.is_complete(seed)),
            "the first one is mended"
        );
    });
}

/// Goal: two islands that each have a part become one swarm when they meet.
#[test]
fn two_islands_meet() {
    for_seeds(10, |rng_seed| {
        let (meta, content) = torrent(rng_seed, 16 * 1024, &[600_000]);
        let mut world = World::new(rng_seed, LAN, meta, content);
        let seed = world.add_peer(Have::All, &[]);
        let near = world.add_peer(Have::Nothing, &[seed]);
        let far: Vec<HostId> = (0..3)
            .map(|_| world.add_peer(Have::Nothing, &[seed, near]))
            .collect();
        world.isolate(&far, 1);
        assert!(world.run_until(MINUTES, |w| w.is_complete(near)));
        assert!(!world.run_until(Duration::from_secs(120), |w| w.is_complete(far[0])));
        world.heal();
        let all = |w: &mut World| far.iter().all(|&host| w.is_complete(host));
        assert!(world.run_until(MINUTES, all), "they meet");
    });
}

/// Goal: a rack that dies as a whole, in the middle, costs the others nothing but its help.
#[test]
fn whole_rack_dies() {
    for_seeds(6, |rng_seed| {
        let (meta, content) = torrent(rng_seed, 16 * 1024, &[1_500_000]);
        let link = Link::lan(2_000_000);
        let mut world = World::new(rng_seed, link, meta, content);
        let uplink = Uplink {
            up_bytes_s: 4_000_000,
            down_bytes_s: 4_000_000,
            latency: Duration::from_micros(100),
        };
        let racks = [world.add_rack(uplink), world.add_rack(uplink)];
        let mut hosts: Vec<HostId> = Vec::new();
        for index in 0..10 {
            let have = if index == 0 { Have::All } else { Have::Nothing };
            let mut spec = PeerSpec::new(have, &hosts);
            spec.rack = Some(racks[index % 2]);
            hosts.push(world.add(spec));
        }
        let (alive, dying): (Vec<_>, Vec<_>) = hosts.iter().partition(|host| host.0 % 2 == 0);
        assert!(world.run_until(MINUTES, |w| w.progress(hosts[2]) > 0.3));
        dying.iter().for_each(|&host| world.cut(host));
        let all = |w: &mut World| alive.iter().all(|&host| w.is_complete(host));
        assert!(world.run_until(MINUTES, all), "the other rack goes on");
    });
}

/// Goal: what comes over the uplink of a rack comes about once, however many hosts stand in it.
/// Method: four racks of ten; nine hosts of each would otherwise fetch most of it from afar.
#[test]
fn rack_fetches_each_piece_about_once() {
    for_seeds(3, |rng_seed| {
        let forecast = Forecast {
            rng_seed,
            hosts: 40,
            length: 512 * 4 * BLOCK,
            piece_len: 4 * BLOCK as u32,
            link: Link::lan(12_500_000),
            racks: 4,
            uplink: Uplink {
                up_bytes_s: 50_000_000,
                down_bytes_s: 50_000_000,
                latency: Duration::from_micros(50),
            },
            ..Forecast::default()
        };
        let outcome = forecast.run(|_, _| {}).unwrap_or_else(|f| panic!("{f}"));
        assert_eq!(outcome.unfinished, 0);
        let copies = outcome.uplink_copies;
        assert!(copies < 4.0 * 1.5, "{copies:.2} copies over four uplinks");
    });
}

/// Goal: a slow neighbour is no reason to leave a wide line idle.
/// Method: two seeds on the leecher's link, 10.0.0.4/30, that would take minutes, and three
/// elsewhere.
#[test]
fn slow_neighbours_do_not_keep_from_far_seeds() {
    for_seeds(4, |rng_seed| {
        let (meta, content) = torrent(rng_seed, 64 * 1024, &[30_000_000]);
        let mut world = World::new(rng_seed, LAN, meta, content);
        let slow = Link {
            up_bytes_s: 100_000,
            ..LAN
        };
        let mut seeds = Vec::new();
        for link in [LAN, LAN, LAN, slow, slow] {
            let mut spec = PeerSpec::new(Have::All, &[]);
            spec.link = Some(link);
            spec.prefix_len = 30;
            spec.config.trackers = false; // it has none, and asks evpeers instead
            seeds.push(world.add(spec));
        }
        let mut spec = PeerSpec::new(Have::Nothing, &seeds);
        spec.prefix_len = 30;
        let leecher = world.add(spec);
        let all = |w: &mut World| w.is_complete(leecher);
        assert!(world.run_until(Duration::from_secs(60), all));
    });
}

/// Goal: hosts that nobody can dial get everything too, as they dial.
#[test]
fn unreachable_hosts_dial() {
    for_seeds(6, |rng_seed| {
        let (meta, content) = torrent(rng_seed, 16 * 1024, &[300_000]);
        let mut world = World::new(rng_seed, LAN, meta, content);
        let seed = world.add_peer(Have::All, &[]);
        let mut hidden = PeerSpec::new(Have::Nothing, &[seed]);
        hidden.is_reachable = false;
        let hidden = world.add(hidden);
        let other = world.add_peer(Have::Nothing, &[hidden, seed]);
        let all = |w: &mut World| w.is_complete(hidden) && w.is_complete(other);
        assert!(world.run_until(MINUTES, all));
    });
}
