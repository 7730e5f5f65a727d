//! Attackers that want others to fire: forged sources, and addresses of a victim. The judges
//! `amplify`, `dials` and `groups` count what every host of ours sends and dials.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use evpeer::sim::foreign::{Foreign, Manners, Vice};
use evpeer::sim::tracker::{Answer, Terms, Tracker};
use evpeer::sim::udp_tracker::{UdpAnswer, UdpTracker};
use evpeer::sim::{Have, HostId, Link, Payload, PeerSpec, World};

use crate::world::{for_seeds, torrent};

const SLOW: Link = Link::lan(1_000_000);
const LIMIT: Duration = Duration::from_secs(1800);

/// A seed, three leechers that know it, a pure tracker, and two attackers that know them all.
fn beset(rng_seed: u64, vice: Vice) -> (World, Vec<HostId>) {
    let (meta, content) = torrent(rng_seed, 32 * 1024, &[3_000_000]);
    let payload = Payload::Real(Arc::clone(&content));
    let mut world = World::new(rng_seed, SLOW, Arc::clone(&meta), content);
    let mut hosts = Vec::new();
    for index in 0..4 {
        let have = if index == 0 { Have::All } else { Have::Nothing };
        let mut spec = PeerSpec::new(have, &hosts);
        spec.config.lsd = true;
        hosts.push(world.add(spec));
    }
    let tracker = world.add(PeerSpec::tracker());
    let dials: Vec<SocketAddr> = hosts
        .iter()
        .chain([&tracker])
        .map(|&h| world.addr(h))
        .collect();
    for _ in 0..2 {
        let manners = Manners {
            dials: dials.clone(),
            ..Manners::default()
        };
        let meta = Arc::clone(&meta);
        let attacker = Foreign::vicious(meta, payload.clone(), manners, vec![vice]);
        world.add_actor(Box::new(attacker), None);
    }
    (world, hosts)
}

fn finish(world: &mut World, hosts: &[HostId], what: &str) {
    let is_done = |w: &mut World| hosts.iter().all(|&host| w.is_complete(host));
    if !world.run_until(LIMIT, is_done) {
        let late = hosts.iter().find(|&&host| !world.is_complete(host));
        let late = *late.expect("one is not");
        panic!(
            "{}",
            world.unfinished(late, format!("{what}: not complete"))
        );
    }
    world.run_until(Duration::from_secs(120), |_| false);
    world
        .audit()
        .unwrap_or_else(|failure| panic!("{what}: {failure}"));
}

/// Goal: no host of ours sends more to who did not ask than came in his name, nor dials off-link
/// at will, whatever comes by UDP, PEX and LSD; and the download goes on.
#[test]
fn nobody_is_made_a_weapon() {
    for_seeds(4, |rng_seed| {
        for vice in [Vice::Spoofs(5), Vice::AimsByPex, Vice::AimsByLsd] {
            let (mut world, hosts) = beset(rng_seed, vice);
            finish(&mut world, &hosts, &format!("{vice:?}"));
            let datagrams = world.network().datagram_ledger().delivered.count;
            assert!(
                vice == Vice::AimsByPex || datagrams > 100,
                "{datagrams} came"
            );
        }
    });
}

/// Goal: a tracker that names a victim gets him dialled a few times, not for ever (R54).
/// Method: an HTTP and a UDP tracker that name 200 ports of one host off-link and 200 hosts of its
/// network, every 30 seconds, for an hour.
#[test]
fn tracker_cannot_aim_a_swarm() {
    for_seeds(2, |rng_seed| {
        let victim = |n: u8| {
            let host = if n < 100 { 7 } else { n };
            SocketAddr::from(([198, 51, 100, host], 2000 + u16::from(n)))
        };
        let lie: Vec<SocketAddr> = (0..200).map(victim).collect();
        let (meta, content) = torrent(rng_seed, 32 * 1024, &[300_000]);
        let mut world = World::new(rng_seed, SLOW, meta, content);
        let http = Answer::Peers(Terms {
            lie: Some(lie.clone()),
            ..Terms::every(30)
        });
        let http = world.add_actor(Box::new(Tracker::new(http)), None);
        let udp = world.add_actor(Box::new(UdpTracker::new(UdpAnswer::Lie(lie))), None);
        let mut spec = PeerSpec::new(Have::Nothing, &[]);
        spec.trackers = vec![
            format!("http://{}/announce", world.addr(http)),
            format!("udp://{}/announce", world.addr(udp)),
        ];
        let host = world.add(spec);
        world.run_until(Duration::from_secs(3600), |_| false);
        world.audit().unwrap_or_else(|failure| panic!("{failure}"));
        let seed = world.add_peer(Have::All, &[host]);
        finish(&mut world, &[host, seed], "aimed");
    });
}
