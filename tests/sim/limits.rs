//! Limits of rate: how long what they let through takes.

use std::time::Duration;

use evpeer::config::RateLimits;
use evpeer::sim::spec::PeerSpec;
use evpeer::sim::{Have, World};

use crate::world::{LAN, for_seeds, torrent};

const MINUTES: Duration = Duration::from_secs(600);
const MIB: u64 = 1 << 20;

fn limited(have: Have, peers: &[evpeer::sim::HostId], up: u64, down: u64) -> PeerSpec {
    let mut spec = PeerSpec::new(have, peers);
    spec.config.limits = RateLimits { up, down };
    spec
}

/// Goal: data comes as fast as the limits of both sides let it, whoever has them.
/// Method: a seed and a leecher on a fast line; when the leecher is complete.
#[test]
fn data_comes_as_fast_as_the_limits_let_it() {
    #[rustfmt::skip]
    let rows = [
        // bytes/s      seed up   leecher down   seed down  leecher up
        (64 * 1024,     true,     false,         false,     false),
        (64 * 1024,     false,    true,          false,     false),
        (2 * MIB,       true,     false,         false,     false),
        (2 * MIB,       false,    true,          false,     false),
        (16 * MIB,      true,     true,          true,      true),
    ];
    for_seeds(2, |rng_seed| {
        for (rate, seed_up, leecher_down, seed_down, leecher_up) in rows {
            let rate_if = |given| if given { rate } else { 0 };
            let seconds = if rate < 4 * MIB { 20 } else { 4 };
            let len = seconds * rate;
            let (meta, content) = torrent(rng_seed, 64 * 1024, &[len]);
            let mut world = World::new(rng_seed, LAN, meta, content);
            let spec = limited(Have::All, &[], rate_if(seed_up), rate_if(seed_down));
            let seed = world.add(spec);
            let spec = limited(
                Have::Nothing,
                &[seed],
                rate_if(leecher_up),
                rate_if(leecher_down),
            );
            let leecher = world.add(spec);
            assert!(
                world.run_until(MINUTES, |w| w.is_complete(leecher)),
                "rng_seed {rng_seed}"
            );
            let took = world
                .completed_at(leecher)
                .expect("it is complete")
                .as_micros();
            let ratio = took as f64 / (seconds as f64 * 1e6);
            assert!(
                (0.98..1.03).contains(&ratio),
                "rng_seed {rng_seed}, {rate} B/s: {ratio}"
            );
            assert!(world.is_content_right(leecher), "rng_seed {rng_seed}");
        }
    });
}

/// Goal: a limit is for all streams together, and each of them gets its part.
/// Method: a limited seed and five leechers that are told of nobody else; ten seconds.
#[test]
fn limit_is_for_all_streams_together() {
    let (meta, content) = torrent(1, 64 * 1024, &[32 * MIB]);
    let mut world = World::new(1, LAN, meta, content);
    let seed = world.add(limited(Have::All, &[], MIB, 0));
    let leechers: Vec<_> = (0..5)
        .map(|_| world.add_peer(Have::Nothing, &[seed]))
        .collect();
    assert!(!world.run_until(Duration::from_secs(10), |_| false));
    let (up, _) = world.traffic(seed);
    let ratio = up as f64 / (10 * MIB) as f64;
    assert!((0.95..1.02).contains(&ratio), "{ratio}");
    for leecher in leechers {
        assert!(world.progress(leecher) > 0.1, "{leecher:?}");
    }
}

/// Goal: limits change while a peer runs, in both directions, and can be taken away.
/// Method: a leecher at 64 KiB/s, then at 1 MiB/s, then without.
#[test]
fn limits_change_while_a_peer_runs() {
    let (meta, content) = torrent(1, 64 * 1024, &[64 * MIB]);
    let mut world = World::new(1, LAN, meta, content);
    let seed = world.add_peer(Have::All, &[]);
    let leecher = world.add(limited(Have::Nothing, &[seed], 0, 64 * 1024));
    let mut before = 0;
    for (rate, seconds) in [(64 * 1024, 20), (MIB, 20), (64 * 1024, 20)] {
        world.limit(leecher, RateLimits { up: 0, down: rate });
        world.run_until(Duration::from_secs(2), |_| false); // what was asked for before
        let (_, from) = world.traffic(leecher);
        world.run_until(Duration::from_secs(seconds), |_| false);
        let (_, to) = world.traffic(leecher);
        let ratio = (to - from) as f64 / (rate * seconds) as f64;
        assert!((0.97..1.03).contains(&ratio), "{rate} B/s: {ratio}");
        assert!(to > before, "it goes on");
        before = to;
    }
    world.limit(leecher, RateLimits::default());
    assert!(world.run_until(Duration::from_secs(5), |w| w.is_complete(leecher)));
    assert!(world.is_content_right(leecher));
}

/// Goal: a world of limited hosts is the same run with the same seed.
#[test]
fn limited_world_is_the_same_run_with_the_same_seed() {
    let run = || {
        let (meta, content) = torrent(1, 32 * 1024, &[4 * MIB]);
        let mut world = World::new(7, LAN, meta, content);
        let seed = world.add(limited(Have::All, &[], 2 * MIB, MIB));
        let first = world.add(limited(Have::Nothing, &[seed], MIB, 2 * MIB));
        let second = world.add(limited(Have::Nothing, &[seed, first], MIB, 2 * MIB));
        assert!(world.run_until(MINUTES, |w| w.is_complete(first) && w.is_complete(second)));
        world.digest()
    };
    assert_eq!(run(), run());
}
