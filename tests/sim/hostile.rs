//! Attackers: what they may cost, and that the honest finish all the same.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use evpeer::base::rng::Rng;
use evpeer::engine::Report;
use evpeer::meta::metainfo::Metainfo;
use evpeer::sim::foreign::{Flood, Foreign, Holds, Manners, Vice};
use evpeer::sim::{Have, HostId, Judged, Link, Payload, World, tagged_torrent};

use crate::world::{for_seeds, torrent};

/// A line on which attacks have time to unfold.
const SLOW: Link = Link::lan(1_000_000);
const LIMIT: Duration = Duration::from_secs(1800);

/// Attackers of every kind that need no data of their own to be a nuisance.
const PESTS: &[(&str, Vice)] = &[
    ("stalls", Vice::Stalls),
    ("claims all", Vice::ClaimsAll),
    ("floods haves", Vice::Floods(Flood::Haves, 200)),
    ("floods requests", Vice::Floods(Flood::Requests, 200)),
    ("floods unknown ids", Vice::Floods(Flood::Unknown, 100)),
    ("flaps its choke", Vice::Floods(Flood::Chokes, 100)),
    ("flaps its interest", Vice::Floods(Flood::Interest, 100)),
    ("floods keep-alives", Vice::Floods(Flood::KeepAlives, 200)),
    ("floods cancels", Vice::Floods(Flood::Cancels, 200)),
    ("floods rejects", Vice::Floods(Flood::Rejects, 200)),
    (
        "floods allowed fast",
        Vice::Floods(Flood::AllowedFast, 1000),
    ),
    ("sends unasked blocks", Vice::SendsUnasked),
    ("oversizes", Vice::Oversizes),
    ("overreaches", Vice::Overreaches),
    ("drips its handshake", Vice::Drips),
    ("rides free", Vice::FreeRides),
    ("comes with eight names", Vice::Sybil(8)),
    ("echoes", Vice::Echoes),
    ("babbles", Vice::Babbles),
];

/// Attackers that have everything and serve it badly.
const FALSE_SEEDS: &[(&str, Vice)] = &[
    ("corrupts every block", Vice::Corrupts(1)),
    ("corrupts some blocks", Vice::Corrupts(7)),
    ("cuts blocks short", Vice::CutsBlocks),
    ("breaks in the middle of blocks", Vice::Resets),
    ("leaves early", Vice::Leaves(20)),
];

struct Swarm {
    world: World,
    meta: Arc<Metainfo>,
    payload: Payload,
}

impl Swarm {
    /// A world with payload.
    fn real(rng_seed: u64, link: Link, len: u64) -> Self {
        let (meta, content) = torrent(rng_seed, 64 * 1024, &[len]);
        let world = World::new(rng_seed, link, Arc::clone(&meta), Arc::clone(&content));
        let payload = Payload::Real(content);
        Self {
            world,
            meta,
            payload,
        }
    }

    /// One without.
    fn tagged(rng_seed: u64, link: Link, len: u64, judged: Judged) -> Self {
        let meta = tagged_torrent(len, 64 * 1024, &mut Rng::new(rng_seed));
        Self {
            world: World::tagged(rng_seed, link, Arc::clone(&meta), judged),
            meta,
            payload: Payload::Tagged,
        }
    }

    fn attacker(&mut self, vice: Vice, holds: Holds, dials: &[HostId]) -> HostId {
        let dials: Vec<SocketAddr> = dials.iter().map(|&host| self.world.addr(host)).collect();
        let manners = Manners {
            holds,
            dials,
            ..Manners::default()
        };
        let meta = Arc::clone(&self.meta);
        let actor = Foreign::vicious(meta, self.payload.clone(), manners, vec![vice]);
        self.world.add_actor(Box::new(actor), None)
    }

    fn finish(&mut self, hosts: &[HostId], what: &str) {
        let done = |w: &mut World| hosts.iter().all(|&h| w.is_complete(h));
        let done = self.world.run_until(LIMIT, done);
        if !done {
            let late = hosts.iter().find(|&&h| !self.world.is_complete(h));
            let text = format!("{what}: not complete");
            panic!(
                "{}",
                self.world.unfinished(*late.expect("one is not"), text)
            );
        }
        if let Err(failure) = self.world.audit() {
            panic!("{failure}");
        }
    }

    /// Payload that a host received in vain, of all that it received.
    fn waste(&mut self, hosts: &[HostId]) -> f64 {
        let (mut wasted, mut down) = (0, 0);
        for &host in hosts {
            let snapshot = self.world.snapshot(host).expect("it runs");
            wasted += snapshot.wasted_bytes;
            down += snapshot.down_bytes;
        }
        wasted as f64 / down as f64
    }

    fn foreign(&self, host: HostId) -> &Foreign {
        self.world.actor(host).expect("a foreign peer")
    }

    /// Addresses that a host has banned.
    fn banned(&self, host: HostId) -> Vec<SocketAddr> {
        let banned = |report: &Report| match report {
            Report::PeerBanned { remote, .. } => Some(*remote),
            _ => None,
        };
        self.world.reports(host).iter().filter_map(banned).collect()
    }
}

/// A seed, four leechers that know each other, and three attackers that know everybody.
fn beset(rng_seed: u64, vice: Option<Vice>, holds: &Holds) -> (Swarm, Vec<HostId>, Vec<HostId>) {
    let mut swarm = Swarm::real(rng_seed, SLOW, 6_000_000);
    let mut all = vec![swarm.world.add_peer(Have::All, &[])];
    for _ in 0..4 {
        all.push(swarm.world.add_peer(Have::Nothing, &all));
    }
    let attackers = (vice.into_iter().cycle().take(3))
        .map(|vice| swarm.attacker(vice, holds.clone(), &all))
        .collect();
    all.remove(0);
    (swarm, all, attackers)
}

/// Goal: each attack alone keeps nobody from finishing, and costs a bounded time and few bytes.
/// Method: a seed, four leechers, three attackers of one kind that dial all of them; the time
/// until the last leecher is complete, with and without them.
#[test]
fn no_single_kind_of_attack_keeps_anybody_from_finishing() {
    for_seeds(2, |rng_seed| {
        let (mut swarm, hosts, _) = beset(rng_seed, None, &Holds::Nothing);
        swarm.finish(&hosts, "clean");
        let clean = swarm.world.now().as_micros();
        for &(name, vice) in PESTS.iter().chain(FALSE_SEEDS) {
            let is_seed = FALSE_SEEDS.iter().any(|(_, v)| *v == vice);
            let holds = if is_seed { Holds::All } else { Holds::Nothing };
            let (mut swarm, hosts, attackers) = beset(rng_seed, Some(vice), &holds);
            swarm.finish(&hosts, name);
            let (time, waste) = (swarm.world.now().as_micros(), swarm.waste(&hosts));
            assert!(time < 3 * clean, "{name}: {time} us instead of {clean} us");
            // Whoever sends what nobody asked for does so twice before it is kept out.
            let most = if vice == Vice::SendsUnasked {
                0.35
            } else {
                0.12
            };
            assert!(waste < most, "{name}: {waste:.3} of all payload is waste");
            for &host in &hosts {
                assert!(swarm.world.is_content_right(host), "{name}");
                let banned = swarm.banned(host);
                // After half a block the next message is taken for its other half.
                let is_liar = matches!(vice, Vice::Corrupts(_) | Vice::CutsBlocks | Vice::Resets);
                assert!(
                    is_liar || banned.is_empty(),
                    "{name}: {banned:?} are banned"
                );
            }
            let met = |&&host: &&HostId| swarm.foreign(host).counts().streams > 0;
            assert_eq!(
                attackers.iter().filter(met).count(),
                3,
                "{name}: they took part"
            );
        }
    });
}

/// Goal: who poisons is found and banned by everybody it served, though each of its pieces has
/// blocks of honest peers; no honest peer is, and nobody takes long (libtorrent: `transfer`,
/// banned peer).
/// Method: two honest seeds, one poisoner of every seventh block, two colluding poisoners that
/// send the same wrong bytes; the judge of bans watches.
#[test]
fn poisoners_are_banned_and_honest_peers_never() {
    for_seeds(6, |rng_seed| {
        let mut swarm = Swarm::real(rng_seed, SLOW, 6_000_000);
        let seeds = [(); 2].map(|()| swarm.world.add_peer(Have::All, &[]));
        let poisoners = [7, 2, 2].map(|n| swarm.attacker(Vice::Corrupts(n), Holds::All, &[]));
        let known = [&seeds[..], &poisoners[..]].concat();
        let hosts: Vec<HostId> = (0..3)
            .map(|_| swarm.world.add_peer(Have::Nothing, &known))
            .collect();
        swarm.finish(&hosts, "poisoners");
        for &host in &hosts {
            assert!(swarm.world.is_content_right(host));
            for &poisoner in &poisoners {
                let addr = swarm.world.addr(poisoner);
                assert!(
                    swarm.banned(host).contains(&addr),
                    "{host:?} let {addr} off"
                );
            }
        }
        let failed = |&host: &HostId| swarm.banned(host).len() as u64;
        assert!(
            hosts.iter().map(failed).sum::<u64>() <= 9,
            "each is banned once"
        );
    });
}

/// Goal: a swarm of which three in ten are malicious finishes, no slower than half as much
/// again, and the attackers waste at most a twentieth of the payload.
/// Method: three seeds, 20 leechers, ten attackers, each kind in turn; no payload is carried.
#[test]
fn three_in_ten_are_malicious_and_the_honest_finish() {
    for_seeds(3, |rng_seed| {
        let run = |besieged: bool| {
            let mut swarm = Swarm::tagged(rng_seed, SLOW, 32 << 20, Judged::Loosely);
            let mut all: Vec<HostId> = (0..3)
                .map(|_| swarm.world.add_peer(Have::All, &[]))
                .collect();
            let kinds = PESTS.iter().cycle().skip(rng_seed as usize * 6).take(6);
            let mut attackers = Vec::new();
            if besieged {
                for (_, vice) in kinds {
                    attackers.push(swarm.attacker(*vice, Holds::Nothing, &all));
                }
                for (_, vice) in &FALSE_SEEDS[..4] {
                    attackers.push(swarm.attacker(*vice, Holds::All, &all));
                }
            }
            let known = [&all[..], &attackers[..]].concat();
            let mut hosts = Vec::new();
            for _ in 0..20 {
                let known = [&known[..], &hosts[..]].concat();
                hosts.push(swarm.world.add_peer(Have::Nothing, &known));
            }
            all.extend(&hosts);
            swarm.finish(&hosts, "mix");
            (swarm.world.now().as_micros(), swarm.waste(&hosts))
        };
        let (clean, clean_waste) = run(false);
        let (time, waste) = run(true);
        assert!(2 * time <= 3 * clean, "{time} us instead of {clean} us");
        let by_attack = waste - clean_waste;
        assert!(
            by_attack <= 0.05,
            "attacks wasted {by_attack:.3} of all payload"
        );
    });
}

/// Goal: three attackers that only take from the seeds hardly slow the swarm down (Adamsky 2014:
/// elsewhere they slow it down to a quarter).
/// Method: a seed, 24 leechers that know each other, three free riders that come to the seed
/// alone, five seconds later; with and without them.
#[test]
fn three_takers_do_not_steal_the_seed_from_the_swarm() {
    for_seeds(2, |rng_seed| {
        let run = |takers: usize| {
            let mut swarm = Swarm::tagged(rng_seed, SLOW, 32 << 20, Judged::Loosely);
            let seed = swarm.world.add_peer(Have::All, &[]);
            let mut hosts = Vec::new();
            for _ in 0..24 {
                let known = [&[seed], &hosts[..]].concat();
                hosts.push(swarm.world.add_peer(Have::Nothing, &known));
            }
            swarm.world.run_until(Duration::from_secs(5), |_| false);
            let takers: Vec<HostId> = (0..takers)
                .map(|_| swarm.attacker(Vice::FreeRides, Holds::Nothing, &[seed]))
                .collect();
            swarm.finish(&hosts, "takers");
            let took = |&taker: &HostId| swarm.foreign(taker).counts().blocks_in;
            let took: u32 = takers.iter().map(took).sum();
            (swarm.world.now().as_micros(), took)
        };
        let ((clean, _), (beset, took)) = (run(0), run(3));
        assert!(took > 0, "they were served");
        assert!(5 * beset <= 6 * clean, "{beset} us instead of {clean} us");
    });
}

/// Goal: who serves nobody is served last, and does not hold up the others for long.
/// Method: a slow seed, 24 leechers, eight free riders that come five seconds later, all knowing
/// each other; what the riders have when three of four leechers are complete, in four swarms.
#[test]
fn free_riders_finish_after_those_who_serve() {
    for_seeds(1, |rng_seed| {
        let run = |rng_seed, riders: usize| {
            let mut swarm = Swarm::tagged(rng_seed, SLOW, 16 << 20, Judged::Loosely);
            let seed = swarm.world.add_peer(Have::All, &[]);
            let mut hosts = Vec::new();
            for _ in 0..24 {
                let known = [&[seed], &hosts[..]].concat();
                hosts.push(swarm.world.add_peer(Have::Nothing, &known));
            }
            swarm.world.run_until(Duration::from_secs(5), |_| false);
            let known = [&[seed], &hosts[..]].concat();
            let riders: Vec<HostId> = (0..riders)
                .map(|_| swarm.attacker(Vice::FreeRides, Holds::Nothing, &known))
                .collect();
            let most = |w: &mut World| hosts.iter().filter(|&&h| w.is_complete(h)).count() >= 18;
            assert!(swarm.world.run_until(LIMIT, most), "most leechers complete");
            let count = |&host: &HostId| u64::from(swarm.foreign(host).pieces().count_ones());
            let got: u64 = riders.iter().map(count).sum();
            let all = u64::from(swarm.meta.geometry().piece_count()) * riders.len() as u64;
            swarm.finish(&hosts, "free riders");
            (swarm.world.now().as_micros(), got, all)
        };
        let (mut clean, mut time, mut got, mut all) = (0, 0, 0, 0);
        for swarm in 0..4 {
            let rng_seed = rng_seed + 1000 * swarm;
            clean += run(rng_seed, 0).0;
            let (took, theirs, whole) = run(rng_seed, 8);
            time += took;
            got += theirs;
            all += whole;
            println!("free riders have {theirs} of {whole} pieces");
        }
        assert!(2 * time <= 3 * clean, "{time} us instead of {clean} us");
        assert!(10 * got < 9 * all, "free riders have {got} of {all} pieces");
    });
}

/// Goal: seeds that leave early do no harm while the others together have everything.
/// Method: three seeds that go after 60 blocks each, one peer with every other piece and one with
/// the rest; four leechers.
#[test]
fn seeds_that_leave_early_are_replaced_by_those_who_have_the_pieces() {
    for_seeds(4, |rng_seed| {
        let mut swarm = Swarm::real(rng_seed, SLOW, 6_000_000);
        let count = swarm.meta.geometry().piece_count();
        let mut known: Vec<HostId> = (0..3)
            .map(|_| swarm.attacker(Vice::Leaves(60), Holds::All, &[]))
            .collect();
        for parity in 0..2 {
            let manners = Manners {
                holds: Holds::Pieces((0..count).filter(|p| p % 2 == parity).collect()),
                wants: false,
                ..Manners::default()
            };
            let (meta, payload) = (Arc::clone(&swarm.meta), swarm.payload.clone());
            let actor = Box::new(Foreign::new(meta, payload, manners));
            known.push(swarm.world.add_actor(actor, None));
        }
        for _ in 0..4 {
            let host = swarm.world.add_peer(Have::Nothing, &known);
            known.push(host);
        }
        swarm.finish(&known[5..], "leaving seeds");
    });
}
