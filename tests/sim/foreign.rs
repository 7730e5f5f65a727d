//! Clients that are not ours, polite and odd, in one swarm with ours.

use std::sync::Arc;
use std::time::Duration;

use evpeer::sim::foreign::{Foreign, Holds, Manners, Opening};
use evpeer::sim::{Have, HostId, Payload, World};

use crate::world::{LAN, for_seeds, torrent};

const LIMIT: Duration = Duration::from_secs(900);

/// A way to be odd, by name.
type Oddity = (&'static str, fn(&mut Manners));

/// What shipped clients differ in.
const ODDITIES: &[Oddity] = &[
    ("polite", |_| {}),
    ("no fast extension", |m| m.fast = false),
    ("no extensions at all", |m| {
        m.fast = false;
        m.extended = false;
    }),
    ("one request at a time", |m| m.pipeline = 1),
    ("lazy bitfield", |m| m.opening = Opening::Lazy),
    ("late bitfield", |m| m.opening = Opening::Late),
    ("redundant haves", |m| m.redundant_haves = true),
    ("chokes after three blocks", |m| m.chokes_after = Some(3)),
    ("chokes without rejects", |m| {
        m.fast = false;
        m.chokes_after = Some(2);
    }),
    ("one slot", |m| m.slots = 1),
    ("serves everybody", |m| m.slots = usize::MAX),
    ("slow upload", |m| m.up_bytes_s = Some(100_000)),
    ("keeps seeds", |m| m.cuts_seeds = false),
    ("queues five requests", |m| m.reqq = Some(5)),
];

fn manners(oddity: &Oddity, holds: Holds, dials: &[std::net::SocketAddr]) -> Manners {
    let mut manners = Manners {
        holds,
        dials: dials.to_vec(),
        ..Manners::default()
    };
    (oddity.1)(&mut manners);
    manners
}

fn finish(world: &mut World, hosts: &[HostId], what: &str) {
    let done = world.run_until(LIMIT, |w| hosts.iter().all(|&h| w.is_complete(h)));
    let progress: Vec<f64> = hosts.iter().map(|&h| world.progress(h)).collect();
    assert!(
        done,
        "{what}: not complete at {}: {progress:?}",
        world.now()
    );
    world.audit().unwrap_or_else(|failure| panic!("{failure}"));
}

/// Goal: whatever a seed of another make is like, ours download from it and from each other.
/// Method: one foreign seed of each kind, three hosts of ours that know it.
#[test]
fn every_kind_of_foreign_seed_serves_us() {
    for_seeds(2, |rng_seed| {
        for oddity in ODDITIES {
            let (meta, content) = torrent(rng_seed, 64 * 1024, &[1_000_001]);
            let mut world = World::new(rng_seed, LAN, Arc::clone(&meta), Arc::clone(&content));
            let seed = Foreign::new(
                meta,
                Payload::Real(content),
                manners(oddity, Holds::All, &[]),
            );
            let seed = world.add_actor(Box::new(seed), None);
            let hosts: Vec<HostId> = (0..3)
                .map(|_| world.add_peer(Have::Nothing, &[seed]))
                .collect();
            finish(&mut world, &hosts, oddity.0);
            assert!(
                hosts.iter().all(|&h| world.is_content_right(h)),
                "{}",
                oddity.0
            );
        }
    });
}

/// Goal: whatever a leecher of another make is like, it downloads from ours, and serves.
/// Method: a seed of ours, two foreign leechers of each kind that dial it and each other, one
/// host of ours.
#[test]
fn every_kind_of_foreign_leecher_is_served_by_us() {
    for_seeds(2, |rng_seed| {
        for oddity in ODDITIES {
            let (meta, content) = torrent(rng_seed, 64 * 1024, &[1_000_001]);
            let mut world = World::new(rng_seed, LAN, Arc::clone(&meta), Arc::clone(&content));
            let seed = world.add_peer(Have::All, &[]);
            let mut hosts = Vec::new();
            let mut known = vec![world.addr(seed)];
            for _ in 0..2 {
                let manners = manners(oddity, Holds::Nothing, &known);
                let payload = Payload::Real(Arc::clone(&content));
                let foreign = Foreign::new(Arc::clone(&meta), payload, manners);
                let host = world.add_actor(Box::new(foreign), None);
                known.push(world.addr(host));
                hosts.push(host);
            }
            hosts.push(world.add_peer(Have::Nothing, &[seed, hosts[0], hosts[1]]));
            finish(&mut world, &hosts, oddity.0);
        }
    });
}

/// Goal: a swarm of all makes finishes when the data is spread and nobody has it all.
/// Method: foreign peers of every kind with a random half each, the rest with one of them; five
/// hosts of ours; everybody knows everybody before it.
#[test]
fn swarm_of_all_makes_finishes_though_nobody_has_everything() {
    for_seeds(4, |rng_seed| {
        let (meta, content) = torrent(rng_seed, 32 * 1024, &[2_000_000]);
        let count = meta.geometry().piece_count();
        let mut world = World::new(rng_seed, LAN, Arc::clone(&meta), Arc::clone(&content));
        let (mut hosts, mut known): (Vec<HostId>, Vec<_>) = (Vec::new(), Vec::new());
        for (index, oddity) in (0..).zip(ODDITIES) {
            let mine = (0..count).filter(|piece| (piece + index) % 7 < 2);
            let manners = manners(oddity, Holds::Pieces(mine.collect()), &known);
            let payload = Payload::Real(Arc::clone(&content));
            let foreign = Foreign::new(Arc::clone(&meta), payload, manners);
            let host = world.add_actor(Box::new(foreign), None);
            known.push(world.addr(host));
            hosts.push(host);
        }
        for _ in 0..5 {
            let host = world.add_peer(Have::Nothing, &hosts);
            hosts.push(host);
        }
        finish(&mut world, &hosts, "all makes");
    });
}

/// Goal: the same in a world without payload.
/// Method: a foreign seed and a foreign leecher, ten hosts of ours, tagged blocks.
#[test]
fn foreign_peers_take_part_in_worlds_without_payload() {
    use evpeer::base::rng::Rng;
    use evpeer::sim::{Judged, tagged_torrent};
    for_seeds(3, |rng_seed| {
        let meta = tagged_torrent(4_000_000, 64 * 1024, &mut Rng::new(rng_seed));
        let mut world = World::tagged(rng_seed, LAN, Arc::clone(&meta), Judged::Strictly);
        let polite = |holds, dials: &[_]| manners(&ODDITIES[0], holds, dials);
        let seed = Foreign::new(Arc::clone(&meta), Payload::Tagged, polite(Holds::All, &[]));
        let seed = world.add_actor(Box::new(seed), None);
        let known = [world.addr(seed)];
        let leecher = Foreign::new(meta, Payload::Tagged, polite(Holds::Nothing, &known));
        let leecher = world.add_actor(Box::new(leecher), None);
        let mut hosts = vec![seed, leecher];
        for _ in 0..10 {
            let host = world.add_peer(Have::Nothing, &hosts);
            hosts.push(host);
        }
        finish(&mut world, &hosts, "tagged");
    });
}
