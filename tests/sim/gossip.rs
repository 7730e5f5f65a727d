//! Evpeers that hear of each other at once: whole engines, their links on the streams that they
//! have and on streams for links alone.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use evpeer::base::rng::Rng;
use evpeer::sim::foreign::{Foreign, Holds, LIES, Lie, Manners, Vice};
use evpeer::sim::{Have, HostId, Judged, Payload, PeerSpec, World, tagged_torrent};

use crate::world::{LAN, for_seeds, private_torrent, torrent};

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

        let links = |&at: &HostId| world.engine(at).expect("it runs").links().len();
        assert!(hosts.iter().all(|at| (1..=16).contains(&links(at))));
        world.run_until(MINUTE, |_| false);
        let before = sent(&world, &hosts);
        world.run_until(10 * MINUTE, |_| false);
        assert_eq!(sent(&world, &hosts), before, "it is quiet");
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

/// How hosts that are up are linked.
#[derive(Debug)]
struct Graph {
    /// Hosts that reach the first one.
    reached: usize,
    /// The longest of the shortest ways.
    diameter: usize,
    links_max: usize,
}

fn graph(world: &World, hosts: &[HostId]) -> Graph {
    let place_of: BTreeMap<SocketAddr, usize> = (0..)
        .zip(hosts)
        .map(|(n, &at)| (world.addr(at), n))
        .collect();
    let mut ends = vec![Vec::new(); hosts.len()];
    let mut links_max = 0;
    for (n, &at) in hosts.iter().enumerate() {
        let links = world.engine(at).expect("it runs").links();
        links_max = links_max.max(links.len());
        for &other in links.iter().filter_map(|addr| place_of.get(addr)) {
            ends[n].push(other);
            ends[other].push(n);
        }
    }
    let depths = |start: usize| {
        let mut depths = BTreeMap::from([(start, 0)]);
        let mut queue = VecDeque::from([start]);
        while let Some(n) = queue.pop_front() {
            for &other in &ends[n] {
                if !depths.contains_key(&other) {
                    depths.insert(other, depths[&n] + 1);
                    queue.push_back(other);
                }
            }
        }
        depths
    };
    let starts = (0..hosts.len()).step_by(hosts.len().div_ceil(16));
    let deepest = |start| depths(start).into_values().max().unwrap_or(0);
    Graph {
        reached: depths(0).len(),
        diameter: starts.map(deepest).max().unwrap_or(0),
        links_max,
    }
}

/// What is wrong with what `hosts`, which are all that are up and all seeds, know; an example.
fn error(world: &World, hosts: &[HostId]) -> Option<String> {
    let info_hash = world.meta().info_hash;
    let up: BTreeSet<SocketAddr> = hosts.iter().map(|&at| world.addr(at)).collect();
    hosts.iter().find_map(|&at| {
        let engine = world.engine(at).expect("it runs");
        let mut others = up.clone();
        others.remove(&world.addr(at));
        let network: BTreeSet<_> = engine.evpeers().into_iter().collect();
        let swarm = engine.known_in_swarm(info_hash);
        let swarm: BTreeMap<_, _> = swarm.into_iter().collect();
        // What others are told of; hearsay is told to nobody and forgotten in half an hour.
        let listed = engine.registry().peers(info_hash);
        let seen = listed.filter(|entry| entry.heard.is_first_hand());
        let ghost = seen.map(|entry| entry.addr).find(|addr| {
            let is_it = addr.ip().is_unspecified() || *addr == world.addr(at);
            !is_it && !up.contains(addr)
        });
        if network != others {
            let (more, less) = (&network - &others, &others - &network);
            Some(format!("{at:?} lists {more:?}, and not {less:?}"))
        } else if !swarm.keys().eq(&others) || swarm.values().any(|is_seed| !is_seed) {
            Some(format!("{at:?} knows the swarm as {swarm:?}"))
        } else {
            ghost.map(|ghost| format!("{at:?} has {ghost} in its registry"))
        }
    })
}

fn sent(world: &World, hosts: &[HostId]) -> u64 {
    let sent = |&at: &HostId| world.engine(at).map_or(0, |engine| engine.gossip_sent().0);
    hosts.iter().map(sent).sum()
}

/// So many seeds of a torrent, each told of up to three of the others.
fn seeds(world: &mut World, rng: &mut Rng, count: u32) -> Vec<HostId> {
    let mut hosts = Vec::new();
    for n in 0..count {
        let known: BTreeSet<u32> = (0..3).map(|_| rng.below(count)).collect();
        let known = known.into_iter().filter(|&other| other != n);
        let known: Vec<HostId> = known.map(HostId).collect();
        hosts.push(host(world, Have::All, &known));
        world.run_until(Duration::from_millis(20), |_| false);
    }
    hosts
}

/// Goal: hosts that are all complete, whose swarm needs no connection, stay one network of few
/// hops, while a fifth of them goes and comes back each minute, and when half of them dies at
/// once; then all lists and registries are the truth, and it is quiet. By night with more numbers,
/// each of which is a seed.
#[test]
fn network_of_idle_seeds_outlives_churn_and_the_death_of_half() {
    let by_night = (30..60).chain([100, 150, 250, 300]);
    let nightly = std::env::var_os("NIGHTLY").map(|_| by_night);
    for count in [10, 200].into_iter().chain(nightly.into_iter().flatten()) {
        let rng_seed = u64::from(count);
        let mut rng = Rng::new(rng_seed);
        let meta = tagged_torrent(16 * 1024, 16 * 1024, &mut rng);
        let mut world = World::tagged(rng_seed, LAN, meta, Judged::Loosely);
        let mut up = seeds(&mut world, &mut rng, count);
        let grown = time_until(&mut world, 5 * MINUTE, |w| error(w, &up).is_none());
        assert!(grown.is_some(), "{count} hosts: {:?}", error(&world, &up));

        let mut down = VecDeque::new();
        let (mut apart, mut looks, mut diameter) = (0, 0, 0);
        let pause = MINUTE / (count / 5);
        let end = world.now() + 3 * MINUTE;
        while world.now() < end {
            let victim = up.swap_remove(rng.below(up.len() as u32) as usize);
            match rng.below(3) {
                0 => world.leave(victim),
                1 => world.kill(victim),
                _ => world.cut(victim),
            }
            down.push_back(victim);
            if down.len() > count as usize / 10 {
                let back = down.pop_front().expect("somebody is down");
                world.restart(back);
                up.push(back);
            }
            world.run_until(pause, |_| false);
            let graph = graph(&world, &up);
            looks += 1;
            apart += usize::from(graph.reached < up.len());
            diameter = diameter.max(graph.diameter);
            assert!(graph.links_max <= 16, "{graph:?}");
        }
        println!("{count} hosts: apart at {apart} of {looks} looks, diameter {diameter}");
        assert!(
            diameter <= 6 && apart * 10 <= looks,
            "{diameter}, {apart} of {looks}"
        );
        let right = time_until(&mut world, 10 * MINUTE, |w| error(w, &up).is_none());
        assert!(right.is_some(), "{count} hosts: {:?}", error(&world, &up));
        println!("{count} hosts: lists right after {right:?}");

        let half = up.split_off(up.len() / 2);
        half.iter().for_each(|&host| world.kill(host));
        let one = time_until(&mut world, MINUTE, |w| graph(w, &up).reached == up.len());
        assert!(one.is_some(), "{:?}", graph(&world, &up));
        let right = time_until(&mut world, 15 * MINUTE, |w| error(w, &up).is_none());
        assert!(right.is_some(), "{count} hosts: {:?}", error(&world, &up));
        println!("{count} hosts: one again after {one:?}, lists right {right:?} later");

        world.run_until(3 * MINUTE, |_| false);
        let before = sent(&world, &up);
        world.run_until(15 * MINUTE, |_| false);
        assert_eq!(sent(&world, &up), before, "{count} hosts: it is quiet");
    }
}

/// How long it takes until `is_so`, looking four times a second; `None` if it is not within
/// `most`.
fn time_until(
    world: &mut World,
    most: Duration,
    is_so: impl Fn(&World) -> bool,
) -> Option<Duration> {
    let began = world.now();
    while !is_so(world) {
        if world.now() - began >= most {
            return None;
        }
        world.run_until(Duration::from_millis(250), |_| false);
    }
    Some(world.now() - began)
}

/// Goal: a seed that was told of nobody is known to all once a seed has dialled it, though these
/// two close their stream before the newcomer has heard where the other one can be reached.
/// Method: twelve seeds, of which the last is told of the newcomer, who starts when they are
/// linked.
#[test]
fn seed_that_was_told_of_nobody_is_known_to_all_once_a_seed_dialled_it() {
    for_seeds(5, |rng_seed| {
        let (meta, content) = torrent(1, 16 * 1024, &[100_000]);
        let mut world = World::new(rng_seed, LAN, meta, content);
        let newcomer = host(&mut world, Have::All, &[]);
        world.kill(newcomer);
        let mut hosts: Vec<HostId> = Vec::new();
        for _ in 0..12 {
            let mut known: Vec<HostId> = hosts.last().copied().into_iter().collect();
            if hosts.len() == 11 {
                known.push(newcomer);
            }
            hosts.push(host(&mut world, Have::All, &known));
        }
        assert!(world.run_until(MINUTE, |w| all_know(w, &hosts)));
        world.run_until(MINUTE, |_| false);
        world.restart(newcomer);
        hosts.push(newcomer);
        let bound = 2 * MINUTE; // who dials has a pause of half a minute
        assert!(
            world.run_until(bound, |w| all_know(w, &hosts)),
            "seed {rng_seed}"
        );
    });
}

/// Goal: a host without a torrent, which met one evpeer in a former run, hears of newcomers of
/// swarms that it is not in; and nobody hears of a private swarm's.
#[test]
fn network_list_is_for_all_and_private_swarms_stay_out_of_it() {
    let (meta, content) = torrent(1, 16 * 1024, &[100_000]);
    let mut world = World::new(1, LAN, meta, content);
    let first = host(&mut world, Have::All, &[]);
    let idle = host(&mut world, Have::NoTorrent, &[first]);
    let other = host(&mut world, Have::Nothing, &[first]);
    let all = [first, idle, other];
    assert!(world.run_until(MINUTE, |w| all_know(w, &all)));
    let info_hash = world.meta().info_hash;
    let engine = world.engine(idle).expect("it runs");
    assert_eq!(engine.known_in_swarm(info_hash), []);

    let (meta, content) = private_torrent(2, 16 * 1024, &[100_000]);
    let mut world = World::new(2, LAN, meta, content);
    let first = host(&mut world, Have::All, &[]);
    let hosts = [
        first,
        host(&mut world, Have::All, &[first]),
        host(&mut world, Have::Nothing, &[first]),
    ];
    assert!(world.run_until(MINUTE, |w| hosts.iter().all(|&at| w.is_complete(at))));
    world.run_until(MINUTE, |_| false);
    for at in hosts {
        let engine = world.engine(at).expect("it runs");
        assert_eq!((engine.evpeers(), engine.links()), (vec![], vec![]));
        assert_eq!(engine.gossip_sent(), (0, 0));
    }
}

/// Goal: the tracker of an evpeer serves the swarms of those that it has links with, whatever it is
/// in itself.
/// Method: a leecher that is in no network and is told of one tracker only: a host without a
/// torrent that has a link with the seed.
#[test]
fn tracker_serves_the_swarms_of_linked_evpeers() {
    for scheme in ["http", "udp"] {
        let (meta, content) = torrent(1, 16 * 1024, &[100_000]);
        let mut world = World::new(1, LAN, meta, content);
        let seed = host(&mut world, Have::All, &[]);
        let idle = host(&mut world, Have::NoTorrent, &[seed]);
        assert!(world.run_until(MINUTE, |w| all_know(w, &[seed, idle])));
        let mut spec = PeerSpec::new(Have::Nothing, &[]);
        spec.trackers = vec![format!("{scheme}://{}/announce", world.addr(idle))];
        let leecher = world.add(spec);
        let is_complete = world.run_until(MINUTE, |w| w.is_complete(leecher));
        assert!(is_complete, "{scheme}: it was told of nobody");
    }
}

/// Goal: foreign peers are told of by their witness, and their silence is told too.
#[test]
fn foreign_peer_that_fell_silent_is_gone_for_all() {
    let (meta, content) = torrent(3, 16 * 1024, &[100_000]);
    let payload = Payload::Real(Arc::clone(&content));
    let mut world = World::new(3, LAN, Arc::clone(&meta), content);
    let hosts = chain(&mut world, 4);
    assert!(world.run_until(MINUTE, |w| all_know(w, &hosts)));
    let manners = Manners {
        dials: vec![world.addr(hosts[3])],
        holds: Holds::Nothing,
        wants: true,
        ..Manners::default()
    };
    let foreign = Foreign::new(Arc::clone(&meta), payload, manners);
    let foreign = world.add_actor(Box::new(foreign), None);
    let addr = world.addr(foreign);
    let known = |w: &World, is_seed| {
        let told = |&at: &HostId| {
            let known = w
                .engine(at)
                .expect("it runs")
                .known_in_swarm(meta.info_hash);
            known.contains(&(addr, is_seed))
        };
        hosts.iter().filter(|at| told(at)).count()
    };
    assert!(world.run_until(MINUTE, |w| known(w, true) == hosts.len()));
    world.kill(foreign);
    world.run_until(Duration::from_secs(5), |_| false);
    assert_eq!(known(&world, true), hosts.len(), "a close is no departure");
    let silent = world.run_until(15 * MINUTE, |w| known(w, true) + known(w, false) == 0);
    assert!(silent, "somebody lists it still");
}

/// Three liars on seven honest hosts cost the honest ones neither their links nor each other; once
/// they are gone all honest ones are listed.
fn third_of_liars_cannot_take_the_network_apart(lies: &[Lie]) {
    let mut wrong = Vec::new();
    let rng_seed = LIES.iter().position(|lie| lies == [*lie]);
    let rng_seed = rng_seed.unwrap_or(LIES.len()) as u64;
    let (meta, content) = torrent(rng_seed, 16 * 1024, &[100_000]);
    let payload = Payload::Real(Arc::clone(&content));
    let mut world = World::new(rng_seed, LAN, Arc::clone(&meta), content);
    let mut rng = Rng::new(rng_seed);
    let mut honest = seeds(&mut world, &mut rng, 14);
    assert!(world.run_until(MINUTE, |w| all_know(w, &honest)));
    let dials: Vec<SocketAddr> = honest.iter().map(|&at| world.addr(at)).collect();
    let liars: Vec<HostId> = (0..6)
        .map(|n| {
            let manners = Manners {
                dials: dials.clone(),
                holds: Holds::Nothing,
                wants: false,
                ..Manners::default()
            };
            let lie = Vice::Lies(lies[n % lies.len()]);
            let (meta, payload) = (Arc::clone(&meta), payload.clone());
            let liar = Foreign::vicious(meta, payload, manners, vec![lie]);
            world.add_actor(Box::new(liar), None)
        })
        .collect();
    for _ in 0..3 {
        world.run_until(Duration::from_secs(20), |_| false);
        let graph = graph(&world, &honest);
        if graph.reached != honest.len() {
            wrong.push(format!("{lies:?}: {graph:?} of {}", honest.len()));
        }
        let known = honest[rng.below(honest.len() as u32) as usize];
        let newcomer = host(&mut world, Have::All, &[known]);
        let addr = world.addr(newcomer);
        let is_known = |w: &World| {
            let knows = |&&at: &&HostId| w.engine(at).expect("it runs").evpeers().contains(&addr);
            honest.iter().filter(knows).count() * 10 >= honest.len() * 9
        };
        let soon = Duration::from_secs(20);
        if time_until(&mut world, soon, is_known).is_none() {
            wrong.push(format!("{lies:?}: a newcomer is not heard of"));
        }
        honest.push(newcomer);
    }
    liars.iter().for_each(|&liar| world.kill(liar));
    let missing = |w: &World| {
        let others = |at: HostId| honest.iter().filter(move |&&other| other != at);
        let is_whole = |&at: &HostId| {
            let known = w.engine(at).expect("it runs").evpeers();
            others(at).all(|&other| known.contains(&w.addr(other)))
        };
        !honest.iter().all(is_whole)
    };
    let whole = time_until(&mut world, 5 * MINUTE, |w| !missing(w));
    if whole.is_none() {
        wrong.push(format!("{lies:?}: an honest host is not listed"));
    }
    println!("{lies:?}: all are listed after {whole:?}");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn departures_that_liars_tell_do_not_take_the_network_apart() {
    third_of_liars_cannot_take_the_network_apart(&[Lie::Buries]);
}

/// Goal: no other lie does either, nor all of them together.
#[test]
fn nothing_that_liars_tell_takes_the_network_apart() {
    let others = LIES.iter().filter(|lie| **lie != Lie::Buries);
    let kinds = others.map(|lie| vec![*lie]).chain([LIES.to_vec()]);
    std::thread::scope(|scope| {
        for lies in kinds {
            scope.spawn(move || third_of_liars_cannot_take_the_network_apart(&lies));
        }
    });
}
