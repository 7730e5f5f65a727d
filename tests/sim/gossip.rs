//! Evpeers that hear of each other at once: whole engines, their links on the streams that they
//! have and on streams for links alone.

use std::time::Duration;

use evpeer::sim::{Have, HostId, PeerSpec, World};

use crate::world::{LAN, for_seeds, torrent};

const MINUTE: Duration = Duration::from_secs(60);

/// A host that knows `peers` and takes part in the network of evpeers.
fn host(world: &mut World, have: Have, peers: &[HostId]) -> HostId {
    let mut spec = PeerSpec::new(have, peers);
    spec.config.broadcast = true;
    world.add(spec)
}

/// A chain of hosts: each is told of the one before it, and of no other.
fn chain(world: &mut World, count: usize) -> Vec<HostId> {
    let mut hosts: Vec<HostId> = Vec::new();
    for _ in 0..count {
        let known: Vec<HostId> = hosts.last().copied().into_iter().collect();
        let have = match hosts.len() {
            0 => Have::All,
            _ => Have::Nothing,
        };
        hosts.push(host(world, have, &known));
    }
    hosts
}

/// Whether each of `hosts` knows exactly the others, whatever they share.
fn all_know(world: &World, hosts: &[HostId]) -> bool {
    hosts.iter().all(|&at| {
        let mut known = world.engine(at).expect("it runs").evpeers();
        let others = hosts.iter().filter(|&&other| other != at);
        let mut truth: Vec<_> = others.map(|&other| world.addr(other)).collect();
        known.sort_unstable();
        truth.sort_unstable();
        known == truth
    })
}

/// Whether all others know that `subject` is a seed of the swarm.
fn all_know_seed(world: &World, hosts: &[HostId], subject: HostId) -> bool {
    let info_hash = world.meta().info_hash;
    let told = (world.addr(subject), true);
    let others = hosts.iter().filter(|&&other| other != subject);
    let mut others = others.map(|&at| world.engine(at).expect("it runs"));
    others.all(|engine| engine.known_in_swarm(info_hash).contains(&told))
}

fn news(world: &World, hosts: &[HostId]) -> u64 {
    let news = |&at: &HostId| world.engine(at).map_or(0, |engine| engine.news_sent());
    hosts.iter().map(news).sum()
}

/// Goal: a newcomer, a completion, a departure and a death are known to all, and then it is quiet.
/// Method: twelve hosts of which each was told of one other.
#[test]
fn all_hear_of_who_comes_completes_leaves_and_dies() {
    for_seeds(3, |rng_seed| {
        let (meta, content) = torrent(rng_seed, 16 * 1024, &[200_000]);
        let mut world = World::new(rng_seed, LAN, meta, content);
        let mut hosts = chain(&mut world, 12);
        let met = world.run_until(MINUTE, |w| all_know(w, &hosts));
        assert!(met, "a chain becomes a network");
        let all = |w: &mut World| hosts.iter().all(|&at| w.is_complete(at));
        assert!(world.run_until(10 * MINUTE, all), "the torrent is spread");
        for &subject in &hosts {
            let soon = Duration::from_secs(2);
            let told = world.run_until(soon, |w| all_know_seed(w, &hosts, subject));
            assert!(told, "completion of {subject:?}");
        }

        let newcomer = host(&mut world, Have::All, &[hosts[5]]);
        hosts.push(newcomer);
        let soon = Duration::from_secs(2);
        let told = world.run_until(soon, |w| all_know(w, &hosts));
        assert!(told, "a newcomer, a seed among seeds");

        world.leave(hosts.remove(3));
        assert!(world.run_until(soon, |w| all_know(w, &hosts)), "it left");

        world.kill(hosts.remove(0));
        let told = world.run_until(MINUTE, |w| all_know(w, &hosts));
        assert!(told, "the first of all died");

        let links = |&at: &HostId| world.engine(at).expect("it runs").link_count();
        assert!(hosts.iter().all(|at| (1..=16).contains(&links(at))));
        world.run_until(MINUTE, |_| false);
        let before = news(&world, &hosts);
        world.run_until(10 * MINUTE, |_| false);
        assert_eq!(news(&world, &hosts), before, "nothing is told twice");
    });
}

/// Goal: two halves that were apart, and changed, know all of each other again.
#[test]
fn halves_that_were_apart_know_each_other_again() {
    for_seeds(3, |rng_seed| {
        let (meta, content) = torrent(rng_seed, 16 * 1024, &[100_000]);
        let mut world = World::new(rng_seed, LAN, meta, content);
        let mut hosts = chain(&mut world, 8);
        assert!(world.run_until(MINUTE, |w| all_know(w, &hosts)));
        let half: Vec<HostId> = hosts[4..].to_vec();
        world.isolate(&half, 1);
        world.run_until(5 * MINUTE, |_| false);
        world.heal();
        let newcomer = host(&mut world, Have::Nothing, &[hosts[1]]);
        hosts.push(newcomer);
        let healed = world.run_until(10 * MINUTE, |w| all_know(w, &hosts));
        assert!(healed, "one network again");
    });
}
