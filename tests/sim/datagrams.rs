//! What becomes of datagrams: the network alone, and engines that hear them.

use std::time::Duration;

use evpeer::base::rng::Rng;
use evpeer::sim::net::Datagram;
use evpeer::sim::net::datagram::Amount;
use evpeer::sim::postman::{Letter, Postman};
use evpeer::sim::{Have, HostId, Judged, Link, PeerSpec, Uplink, World, tagged_torrent};

use crate::world::{LAN, for_seeds};

const MINUTE: Duration = Duration::from_secs(60);

fn world(rng_seed: u64, link: Link) -> World {
    let meta = tagged_torrent(1 << 20, 16 * 1024, &mut Rng::new(rng_seed));
    World::tagged(rng_seed, link, meta, Judged::Strictly)
}

/// So many numbered letters to a host, a millisecond apart.
fn letters(to: HostId, world: &World, count: u32) -> Vec<(Duration, Letter)> {
    let to = world.addr(to);
    let letter = |number: u32| Letter::To(to, number.to_be_bytes().to_vec());
    let at = |number: u32| Duration::from_millis(number.into());
    (0..count)
        .map(|number| (at(number), letter(number)))
        .collect()
}

fn heard(world: &World, host: HostId) -> Vec<u32> {
    let postman: &Postman = world.actor(host).expect("a postman");
    let number = |datagram: &Datagram| u32::from_be_bytes(datagram.bytes[..4].try_into().unwrap());
    postman.heard().iter().map(|(_, d)| number(d)).collect()
}

/// Goal: what a line does to datagrams is what was asked for, and nothing else.
/// Method: 10,000 numbered ones over lines of each kind; the ledger has to balance.
#[test]
fn datagrams_are_lost_doubled_and_late_as_the_link_says() {
    for_seeds(5, |rng_seed| {
        let worse = [
            ("a good line", LAN),
            (
                "loss",
                Link {
                    loss_ppm: 100_000,
                    ..LAN
                },
            ),
            (
                "doubles",
                Link {
                    doubles_ppm: 100_000,
                    ..LAN
                },
            ),
            (
                "jitter",
                Link {
                    jitter: Duration::from_millis(20),
                    ..LAN
                },
            ),
        ];
        for (what, link) in worse {
            let mut world = world(rng_seed, link);
            let hearer = world.add_actor(Box::new(Postman::default()), None);
            let all = letters(hearer, &world, 10_000);
            world.add_actor(Box::new(Postman::new(all)), None);
            world.run_until(MINUTE, |_| false);
            world.audit().expect("the ledger balances");
            let heard = heard(&world, hearer);
            let ledger = world.network().datagram_ledger();
            assert_eq!(
                ledger.sent,
                Amount {
                    count: 10_000,
                    bytes: 40_000
                },
                "{what}"
            );
            assert_eq!(heard.len() as u64, ledger.delivered.count, "{what}");
            let overtaken = heard.windows(2).filter(|two| two[0] > two[1]).count();
            let (lost, doubled) = (ledger.lost.count, ledger.doubled.count);
            let expected = match what {
                "loss" => (800..1_200).contains(&lost) && doubled == 0 && overtaken == 0,
                "doubles" => lost == 0 && (800..1_200).contains(&doubled),
                "jitter" => lost == 0 && doubled == 0 && overtaken > 1_000,
                _ => lost == 0 && doubled == 0 && overtaken == 0,
            };
            assert!(expected, "{what}: {ledger:?}, {overtaken} overtaken");
        }
    });
}

/// Goal: islands and one-way cuts stop datagrams, and what is stopped never comes.
/// Method: an echo is asked before, during and after the ways are cut.
#[test]
fn a_cut_way_carries_no_datagram() {
    for_seeds(5, |rng_seed| {
        let mut world = world(rng_seed, LAN);
        let echo = world.add_actor(Box::new(Postman::echo()), None);
        let all = letters(echo, &world, 4_000);
        let asker = world.add_actor(Box::new(Postman::new(all)), None);
        let second = Duration::from_secs(1);
        world.run_until(second, |_| false);
        world.isolate(&[echo], 1);
        world.run_until(second, |_| false);
        world.heal();
        world.cut_way(echo, asker);
        world.run_until(second, |_| false);
        world.heal();
        world.run_until(MINUTE, |_| false);
        world.audit().expect("the ledger balances");
        let answered = |from: u32, to| {
            let heard = heard(&world, asker);
            heard.iter().filter(|&&n| (from..to).contains(&n)).count()
        };
        assert_eq!(answered(0, 990), 990, "before");
        assert_eq!(answered(1_010, 1_990), 0, "island");
        assert_eq!(answered(2_010, 2_990), 0, "no way back");
        assert_eq!(answered(3_010, 4_000), 990, "healed");
        let asked = self::heard(&world, echo).len();
        assert!(
            (2_990..=3_010).contains(&asked),
            "the way there was open: {asked}"
        );
    });
}

/// Goal: multicast stays on its link, and costs its sender one datagram.
/// Method: hosts in two racks, in none, and one that was put on another LAN than its rack's.
#[test]
fn multicast_reaches_the_hosts_of_one_link() {
    for_seeds(5, |rng_seed| {
        let mut world = world(rng_seed, LAN);
        let uplink = Uplink {
            up_bytes_s: 1_000_000_000,
            down_bytes_s: 1_000_000_000,
            latency: Duration::from_millis(1),
        };
        let racks = [world.add_rack(uplink), world.add_rack(uplink)];
        let group = |word: &[u8; 4]| (Duration::from_secs(1), Letter::Group(word.to_vec()));
        let outside = world.add_actor(Box::new(Postman::new([group(b"free")])), None);
        let other = world.add_actor(Box::new(Postman::default()), None);
        let peer = |rack, lan| PeerSpec {
            rack: Some(rack),
            lan,
            ..PeerSpec::new(Have::Nothing, &[])
        };
        world.add(peer(racks[0], None));
        world.add(peer(racks[1], Some(0)));
        world.run_until(MINUTE, |_| false);
        world.audit().expect("the ledger balances");
        let heard = |host| heard(&world, host).len();
        assert_eq!(heard(outside), 1, "its own comes back to it");
        assert_eq!(heard(other), 1);
        let hosts = [outside, other, HostId(2), HostId(3)];
        let near: Vec<HostId> = world.network().lines.neighbours(outside).collect();
        assert_eq!(near, [hosts[0], hosts[1], hosts[3]]);
    });
}

/// Goal: nobody hears a datagram who could not on a real network.
/// Method: one to a host that is down, to one behind a router, to an address without a host, and
/// one that is too long; a pure tracker hears its own.
#[test]
fn datagrams_that_nobody_can_hear_are_lost() {
    let mut world = world(1, LAN);
    let tracker = world.add(PeerSpec::tracker());
    assert!(world.is_complete(tracker), "it wants nothing");
    assert_eq!(world.engine(tracker).map(|e| e.torrents().count()), Some(0));
    let down = world.add_peer(Have::Nothing, &[]);
    world.cut(down);
    let mut hidden = PeerSpec::new(Have::Nothing, &[]);
    hidden.is_reachable = false;
    let hidden = world.add(hidden);
    let addr = |host| world.addr(host);
    let nobody = "10.9.9.9:6881".parse().expect("an address");
    let letters = [
        (addr(tracker), 1472),
        (addr(tracker), 1473),
        (addr(down), 1),
        (addr(hidden), 1),
        (nobody, 1),
    ];
    let letter = |(to, len)| (Duration::from_secs(1), Letter::To(to, vec![0xff; len]));
    let sender = Postman::new(letters.map(letter));
    world.add_actor(Box::new(sender), None);
    let before = world.network().datagram_ledger();
    world.run_until(Duration::from_secs(2), |_| false);
    world.audit().expect("the ledger balances");
    let ledger = world.network().datagram_ledger();
    assert_eq!(ledger.sent.count - before.sent.count, 5);
    assert_eq!(ledger.lost.count - before.lost.count, 4);
}

/// Goal: chance among datagrams is the seed's alone.
/// Method: the same lossy talk twice, and once with another seed.
#[test]
fn same_seed_loses_the_same_datagrams() {
    let digest = |rng_seed| {
        let link = Link {
            loss_ppm: 200_000,
            doubles_ppm: 200_000,
            jitter: Duration::from_millis(5),
            ..LAN
        };
        let mut world = world(rng_seed, link);
        let echo = world.add_actor(Box::new(Postman::echo()), None);
        let all = letters(echo, &world, 500);
        let asker = world.add_actor(Box::new(Postman::new(all)), None);
        world.run_until(MINUTE, |_| false);
        (world.digest(), heard(&world, asker))
    };
    assert_eq!(digest(7), digest(7));
    assert_ne!(digest(7).1, digest(8).1);
}
