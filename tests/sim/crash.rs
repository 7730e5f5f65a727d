//! Hosts that die at every moment there is, and come back.

use std::time::Duration;

use evpeer::sim::{Have, HostId, World};

use crate::world::{LAN, for_seeds, torrent};

const MINUTES: Duration = Duration::from_secs(600);

/// How a host dies.
#[derive(Clone, Copy)]
enum Death {
    Kill,
    PowerCut,
}

fn swarm(rng_seed: u64) -> (World, HostId, HostId, HostId) {
    let (meta, content) = torrent(rng_seed, 32 * 1024, &[100_001, 0, 60_000]);
    let mut world = World::new(rng_seed, LAN, meta, content);
    let seed = world.add_peer(Have::All, &[]);
    let first = world.add_peer(Have::Nothing, &[seed]);
    let second = world.add_peer(Have::Nothing, &[seed, first]);
    (world, seed, first, second)
}

fn all_complete(world: &World) -> bool {
    (0..world.host_count()).all(|host| world.is_complete(HostId(host)))
}

/// Lets the world take `steps` events, kills `victim`, brings it back, and lets all end.
fn die_after(steps: u64, victim: impl Fn(HostId, HostId) -> HostId, death: Death) -> bool {
    let (mut world, seed, first, _) = swarm(7);
    let was_over =
        world.run_until(MINUTES, |w| w.steps() >= steps || all_complete(w)) && all_complete(&world);
    let victim = victim(seed, first);
    match death {
        Death::Kill => world.kill(victim),
        Death::PowerCut => world.cut(victim),
    }
    world.run_until(Duration::from_millis(300), |_| false);
    world.restart(victim);
    assert!(
        world.run_until(MINUTES, |w| all_complete(w)),
        "not complete after a death at step {steps}"
    );
    let is_right = |w: &mut World| (0..3).all(|host| w.is_content_right(HostId(host)));
    assert!(
        world.run_until(MINUTES, is_right),
        "wrong files after a death at step {steps}"
    );
    was_over
}

/// Goal: at whatever step a process is killed, it goes on where it was.
/// Method: a leecher, and in another run the seed, dies after 1, 2, 3, … events, until a run was
/// over before.
#[test]
fn crash_at_every_step() {
    for victim in [|_, first| first, |seed, _| seed] {
        let mut steps = 1;
        while !die_after(steps, victim, Death::Kill) {
            steps += 1;
        }
        assert!(steps > 50, "only {steps} steps");
    }
}

/// Goal: the same with the power gone: what was not synced may be torn, and nothing false is
/// claimed (the judges compare every byte that is served).
#[test]
fn power_cut_at_every_step() {
    for victim in [|_, first| first, |seed, _| seed] {
        let mut steps = 1;
        while !die_after(steps, victim, Death::PowerCut) {
            steps += 1;
        }
        assert!(steps > 50, "only {steps} steps");
    }
}

/// Goal: clocks may jump at any moment, by seconds or by days.
#[test]
fn clock_jumps_do_no_harm() {
    for_seeds(20, |rng_seed| {
        let (mut world, seed, first, second) = swarm(rng_seed);
        for (steps, host) in (1..).zip([first, seed, second, first, first, second]) {
            world.run_until(MINUTES, |w| w.steps() >= steps * 20 || all_complete(w));
            world.clock_jump(host, Duration::from_secs(1 << (steps * 3)));
        }
        assert!(
            world.run_until(MINUTES, |w| all_complete(w)),
            "not complete"
        );
    });
}

/// Goal: a host that stands still for an hour, as a suspended machine does, goes on afterwards.
#[test]
fn suspended_host_goes_on() {
    for_seeds(10, |rng_seed| {
        let (mut world, _, first, second) = swarm(rng_seed);
        world.run_until(MINUTES, |w| w.steps() >= 40);
        world.suspend(first, Duration::from_secs(3600));
        assert!(
            world.run_until(MINUTES, |w| w.is_complete(second)),
            "the others do not wait for it"
        );
        let hours = Duration::from_secs(2 * 3600);
        assert!(
            world.run_until(hours, |w| w.is_complete(first)),
            "it goes on"
        );
    });
}
