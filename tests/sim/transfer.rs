//! One torrent, from those who have it to those who do not.

use std::time::Duration;

use evpeer::engine::{Report, State};
use evpeer::sim::{Have, HostId, World};

use crate::world::{LAN, torrent};

const MINUTES: Duration = Duration::from_secs(600);

/// Goal: what one host has, all get, and each says so once it is true.
/// Method: one seed, five leechers that know the seed only; the disks are compared at the end.
#[test]
fn five_leechers_get_everything_from_one_seed() {
    for rng_seed in 0..8 {
        let (meta, content) = torrent(rng_seed, 32 * 1024, &[700_001, 0, 300_000, 5]);
        let mut world = World::new(rng_seed, LAN, meta, content);
        let seed = world.add_peer(Have::All, &[]);
        let leechers: Vec<HostId> = (0..5)
            .map(|_| world.add_peer(Have::Nothing, &[seed]))
            .collect();
        let is_complete = |world: &World, host: HostId| {
            world
                .reports(host)
                .iter()
                .any(|r| matches!(r, Report::Complete { .. }))
        };
        let done = world.run_until(MINUTES, |w| leechers.iter().all(|&l| is_complete(w, l)));
        assert!(done, "rng_seed {rng_seed}: not complete at {}", world.now());
        for &leecher in &leechers {
            assert!(
                world.is_content_right(leecher),
                "rng_seed {rng_seed}: {leecher:?}"
            );
        }
        assert!(
            !is_complete(&world, seed),
            "the seed did not become complete, it was"
        );
    }
}

/// Goal: every run with the same seed is the same run.
/// Method: two worlds with the same seed and one with another; their digests.
#[test]
fn same_seed_is_the_same_run() {
    let run = |rng_seed| {
        let (meta, content) = torrent(1, 16 * 1024, &[400_000]);
        let mut world = World::new(rng_seed, LAN, meta, content);
        let seed = world.add_peer(Have::All, &[]);
        let first = world.add_peer(Have::Nothing, &[seed]);
        let second = world.add_peer(Have::Nothing, &[seed, first]);
        assert!(world.run_until(MINUTES, |w| w.progress(first) + w.progress(second) == 2.0));
        (world.digest(), world.steps())
    };
    assert_eq!(run(3), run(3));
    assert_ne!(run(3), run(4));
}

/// Goal: leechers serve each other what they have.
/// Method: the seed's power goes when the first leecher is complete; the second knows it.
#[test]
fn download_goes_on_without_the_first_seed() {
    for rng_seed in 0..8 {
        let (meta, content) = torrent(rng_seed, 16 * 1024, &[2_000_000]);
        let mut world = World::new(rng_seed, LAN, meta, content);
        let seed = world.add_peer(Have::All, &[]);
        let first = world.add_peer(Have::Nothing, &[seed]);
        assert!(world.run_until(MINUTES, |w| w.progress(first) == 1.0));
        world.cut(seed);
        let second = world.add_peer(Have::Nothing, &[seed, first]);
        assert!(
            world.run_until(MINUTES, |w| w.progress(second) == 1.0),
            "rng_seed {rng_seed}"
        );
        let seeds = |r: &Report| {
            matches!(
                r,
                Report::State {
                    state: State::Seeding,
                    ..
                }
            )
        };
        assert!(world.run_until(MINUTES, |w| w.reports(second).iter().any(seeds)));
        assert!(world.is_content_right(second), "rng_seed {rng_seed}");
    }
}
