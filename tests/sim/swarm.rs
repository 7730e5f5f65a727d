//! What users do to a peer while it runs, and what it owes the others (libtorrent's simulations
//! `swarm`, `optimistic_unchoke`, `pause` and `torrent_status`, by name as far as they apply).

use std::sync::Arc;
use std::time::Duration;

use evpeer::engine::State;
use evpeer::sim::foreign::{Foreign, Holds, Manners};
use evpeer::sim::tracker::{Answer, Terms, Tracker};
use evpeer::sim::{Have, HostId, Link, Payload, PeerSpec, World};

use crate::world::{LAN, for_seeds, torrent};

const MINUTES: Duration = Duration::from_secs(600);
const SLOW: Link = Link::lan(1_000_000);

/// A seed and two leechers on slow lines.
fn swarm(rng_seed: u64) -> (World, [HostId; 3]) {
    let (meta, content) = torrent(rng_seed, 16 * 1024, &[900_000]);
    let mut world = World::new(rng_seed, SLOW, meta, content);
    let seed = world.add_peer(Have::All, &[]);
    let first = world.add_peer(Have::Nothing, &[seed]);
    let second = world.add_peer(Have::Nothing, &[seed, first]);
    (world, [seed, first, second])
}

fn finish(world: &mut World, hosts: &[HostId], what: &str) {
    let is_done = |w: &mut World| {
        hosts
            .iter()
            .all(|&h| w.is_complete(h) && w.is_content_right(h))
    };
    if !world.run_until(MINUTES, is_done) {
        let late = hosts.iter().find(|&&host| !world.is_complete(host));
        let late = *late.unwrap_or(&hosts[0]);
        panic!(
            "{}",
            world.unfinished(late, format!("{what}: not complete"))
        );
    }
    world.audit().unwrap_or_else(|failure| panic!("{failure}"));
}

/// `stop_start_download`, `stop_start_seed`, each also `_graceful`, and `_graceful_no_peers`: a
/// peer that is stopped in the middle goes on where it was, and the others do without it.
#[test]
fn stop_start() {
    for_seeds(6, |rng_seed| {
        for stopped in 0..3 {
            for is_graceful in [false, true] {
                let what = format!("host {stopped}, graceful: {is_graceful}");
                let (mut world, hosts) = swarm(rng_seed);
                let victim = hosts[stopped];
                assert!(
                    world.run_until(MINUTES, |w| w.progress(hosts[1]) > 0.4),
                    "{what}"
                );
                let before = world.progress(victim);
                if is_graceful {
                    world.leave(victim);
                    let is_gone = |w: &mut World| w.engine(victim).is_none();
                    assert!(world.run_until(Duration::from_secs(2), is_gone), "{what}");
                } else {
                    world.kill(victim);
                }
                world.run_until(Duration::from_secs(1), |_| false);
                world.restart(victim);
                let is_up = |w: &mut World| {
                    let state = w.snapshot(victim).map(|figures| figures.state);
                    !matches!(state, None | Some(State::Checking))
                };
                assert!(world.run_until(MINUTES, is_up), "{what}");
                let after = world.progress(victim);
                // Whoever is killed has not written yet what came last.
                let lost = if is_graceful { 0.0 } else { 0.1 };
                assert!(
                    after >= before - lost,
                    "{what}: {before} before, {after} after"
                );
                finish(&mut world, &hosts, &what);
            }
        }
        // Nobody to say goodbye to.
        let (mut world, hosts) = swarm(rng_seed);
        world.isolate(&[hosts[1]], 1);
        world.leave(hosts[1]);
        let is_gone = |w: &mut World| w.engine(hosts[1]).is_none();
        assert!(world.run_until(Duration::from_secs(2), is_gone), "no peers");
        world.restart(hosts[1]);
        world.heal();
        finish(&mut world, &hosts, "no peers");
    });
}

/// `shutdown`, `omit_stop_event`: a peer that ends says so to a tracker that lists it, not to one
/// that refused it, and waits for none of them longer than a second.
#[test]
fn shutdown() {
    for_seeds(4, |rng_seed| {
        let truth = || Answer::Peers(Terms::every(60));
        for (what, then) in [("answers", truth()), ("is silent", Answer::Silence)] {
            let (meta, content) = torrent(rng_seed, 16 * 1024, &[300_000]);
            let mut world = World::new(rng_seed, LAN, meta, content);
            let heard = world.add_actor(Box::new(Tracker::after([truth()], then)), None);
            let refuses = Answer::Failure("no".to_owned(), None);
            let other = world.add_actor(Box::new(Tracker::new(refuses)), None);
            let mut spec = PeerSpec::new(Have::All, &[]);
            let url = |host| format!("http://{}/announce", world.addr(host));
            spec.trackers = vec![url(heard), url(other)];
            let host = world.add(spec);
            world.run_until(Duration::from_secs(30), |_| false);
            let begin = world.now();
            world.leave(host);
            let is_gone = |w: &mut World| w.engine(host).is_none();
            assert!(world.run_until(MINUTES, is_gone), "{what}");
            let took = world.now() - begin;
            assert!(took <= Duration::from_millis(1100), "{what}: {took:?}");
            let events = |tracker| world.actor::<Tracker>(tracker).expect("one").events(None);
            assert_eq!(events(heard), ["started", "stopped"], "{what}");
            assert!(!events(other).contains(&"stopped".to_owned()), "{what}");
        }
    });
}

/// `settings_stress_test`: whatever is set anew at whatever moment, the rules hold and all get
/// everything.
/// Method: each host is told to end and comes back with other settings, twenty times in turn.
#[test]
fn settings_stress_test() {
    for_seeds(6, |rng_seed| {
        let (mut world, hosts) = swarm(rng_seed);
        for turn in 0..20_u32 {
            let host = hosts[turn as usize % 3];
            let pause = Duration::from_millis(u64::from(turn * 37 % 200) + 20);
            world.run_until(pause, |_| false);
            world.leave(host);
            let config = world.config_mut(host).expect("it runs an engine");
            config.fast = turn % 2 == 0;
            config.pex = turn % 3 == 0;
            config.lsd = turn % 5 == 0;
            config.trackers = turn % 7 == 0;
            config.conns_max = [1, 2, 30, 500][turn as usize % 4];
            world.run_until(pause, |_| false);
            world.restart(host);
        }
        for host in hosts {
            world.config_mut(host).expect("it runs an engine").conns_max = 30;
            world.leave(host);
            world.run_until(Duration::from_secs(2), |_| false);
            world.restart(host);
        }
        finish(&mut world, &hosts, "other settings");
    });
}

/// `optimistic_unchoke`: everybody who asks has a turn, also at a host that is served by others.
/// Method: 20 foreign peers that give nothing want what a host of ours has, a seed and a leecher
/// that gets the rest from two peers that give; each has a block within so many turns.
#[test]
fn optimistic_unchoke() {
    for_seeds(2, |rng_seed| {
        for is_seed in [true, false] {
            let (meta, content) = torrent(rng_seed, 16 * 1024, &[40_000_000]);
            let count = meta.geometry().piece_count();
            let link = Link::lan(200_000);
            let mut world = World::new(rng_seed, link, Arc::clone(&meta), Arc::clone(&content));
            let add = |world: &mut World, manners| {
                let payload = Payload::Real(Arc::clone(&content));
                let foreign = Foreign::new(Arc::clone(&meta), payload, manners);
                world.add_actor(Box::new(foreign), None)
            };
            let giving = |pieces: std::ops::Range<u32>| Manners {
                holds: Holds::Pieces(pieces.collect()),
                ..Manners::default()
            };
            let givers = [
                add(&mut world, giving(0..count / 2)),
                add(&mut world, giving(count / 2..count)),
            ];
            let have = if is_seed { Have::All } else { Have::Nothing };
            let host = world.add_peer(have, &givers);
            let taking = Manners {
                slots: 0,
                dials: vec![world.addr(host)],
                ..Manners::default()
            };
            let takers: Vec<HostId> = (0..20).map(|_| add(&mut world, taking.clone())).collect();
            let got = |world: &World, taker: HostId| {
                let taker: &Foreign = world.actor(taker).expect("a foreign peer");
                taker.counts().blocks_in
            };
            // One slot at least is given by chance or by turn, for half a minute.
            let bound = Duration::from_secs(30 * 20 * 2);
            let all = |w: &mut World| {
                w.steps().is_multiple_of(512) && takers.iter().all(|&taker| got(w, taker) > 0)
            };
            let all_had = world.run_until(bound, all);
            let had: Vec<u32> = takers.iter().map(|&taker| got(&world, taker)).collect();
            assert!(all_had, "seed: {is_seed}: blocks of each {had:?}");
        }
    });
}

/// `status_timers_time_shift_with_active_torrent`, `finish_time_shift_active`: figures stay sane
/// when a clock jumps by hours in the middle.
#[test]
fn figures_survive_a_time_shift() {
    for_seeds(6, |rng_seed| {
        let (mut world, hosts) = swarm(rng_seed);
        assert!(world.run_until(MINUTES, |w| w.progress(hosts[1]) > 0.3));
        let before = world.snapshot(hosts[1]).expect("it runs");
        world.clock_jump(hosts[1], Duration::from_secs(5 * 3600));
        let after = world.snapshot(hosts[1]).expect("it runs");
        assert!(after.down_bytes >= before.down_bytes);
        assert!(
            after.down_bytes_s <= before.down_bytes_s,
            "no rate out of nothing"
        );
        finish(&mut world, &hosts, "time shift");
        let end = world.snapshot(hosts[1]).expect("it runs");
        assert!(end.down_bytes >= end.length && end.wasted_bytes < end.length);
    });
}
