//! One torrent, from those who have it to those who do not.

use std::time::Duration;

use evpeer::engine::{Report, State};
use evpeer::sim::disk::DiskFaults;
use evpeer::sim::{Have, HostId, World};

use crate::world::{LAN, for_seeds, torrent};

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

/// Goal: every shape of files and pieces arrives (libtorrent: `odd_piece_size`, `small_pieces`,
/// `small_file_large_piece`, `empty_file`, `piece_extent_affinity`).
/// Method: a seed and two leechers for each shape.
#[test]
fn files_and_pieces_of_every_shape() {
    type Shape = (&'static str, u32, &'static [u64]);
    const SHAPES: &[Shape] = &[
        ("one byte", 16 * 1024, &[1]),
        ("less than a block", 16 * 1024, &[16_383]),
        ("a block and a byte", 16 * 1024, &[16_385]),
        ("one piece, full", 64 * 1024, &[65_536]),
        ("one piece, a byte short", 64 * 1024, &[65_535]),
        ("small file, large piece", 4 << 20, &[70_000]),
        ("many files in a piece", 256 * 1024, &[1; 300]),
        (
            "empty files at every place",
            16 * 1024,
            &[0, 0, 20_000, 0, 0, 20_000, 0],
        ),
        (
            "files that end with their pieces",
            32 * 1024,
            &[32_768, 65_536, 32_768],
        ),
        (
            "files that end a byte past",
            32 * 1024,
            &[32_769, 65_537, 3],
        ),
        ("large pieces", 1 << 20, &[2_500_001, 1_700_003]),
    ];
    for_seeds(2, |rng_seed| {
        for &(name, piece_len, lengths) in SHAPES {
            let (meta, content) = torrent(rng_seed, piece_len, lengths);
            let mut world = World::new(rng_seed, LAN, meta, content);
            let seed = world.add_peer(Have::All, &[]);
            let first = world.add_peer(Have::Nothing, &[seed]);
            let second = world.add_peer(Have::Nothing, &[seed, first]);
            let all_right = |w: &mut World| [first, second].iter().all(|&h| w.is_content_right(h));
            if !world.run_until(MINUTES, all_right) {
                panic!("{}", world.unfinished(first, format!("{name}: not there")));
            }
            world
                .audit()
                .unwrap_or_else(|failure| panic!("{name}: {failure}"));
        }
    });
}

/// Goal: a full disk stops the torrent with a reason and loses nothing; with room, the next start
/// goes on (libtorrent: `disk_full`, `disk_full_recover`).
/// Method: room for two files of three at first.
#[test]
fn disk_full_and_recover() {
    for_seeds(4, |rng_seed| {
        let (meta, content) = torrent(rng_seed, 32 * 1024, &[400_000, 300_000, 500_000]);
        let mut world = World::new(rng_seed, LAN, meta, content);
        let seed = world.add_peer(Have::All, &[]);
        let host = world.add_peer(Have::Nothing, &[seed]);
        let full = DiskFaults {
            capacity: Some(800_000),
            ..DiskFaults::default()
        };
        world.disk(host).expect("it has one").set_faults(full);
        let is_error = |w: &mut World| {
            let snapshot = w.snapshot(host).expect("it runs");
            snapshot.state == State::Error
        };
        assert!(
            world.run_until(MINUTES, is_error),
            "a full disk is no error"
        );
        let reason = world.snapshot(host).and_then(|snapshot| snapshot.reason);
        assert!(reason.is_some_and(|reason| reason.contains("space")));

        world.kill(host);
        let disk = world.disk(host).expect("it has one");
        disk.set_faults(DiskFaults::default());
        world.restart(host);
        assert!(world.run_until(MINUTES, |w| w.is_content_right(host)));
    });
}
