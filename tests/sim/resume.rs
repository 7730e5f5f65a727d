//! What is on disk when a peer starts, and calls that fail (libtorrent's simulations `checking`,
//! `transfer_partial_valid`, `transfer_full_invalid` and `error_handling`, by name).

use std::time::Duration;

use evpeer::engine::State;
use evpeer::sim::disk::DiskFaults;
use evpeer::sim::{Have, HostId, World};

use crate::world::{LAN, for_seeds, torrent};

const MINUTES: Duration = Duration::from_secs(600);
const LENGTHS: [u64; 4] = [100_000, 0, 70_001, 50_000];

/// A seed, and a host that had everything until its files were changed.
fn damaged(
    rng_seed: u64,
    piece_len: u32,
    change: impl FnOnce(&mut World, HostId),
) -> (World, HostId) {
    let (meta, content) = torrent(rng_seed, piece_len, &LENGTHS);
    let mut world = World::new(rng_seed, LAN, meta, content);
    let seed = world.add_peer(Have::All, &[]);
    let host = world.add_peer(Have::All, &[seed]);
    world.kill(host);
    change(&mut world, host);
    world.restart(host);
    (world, host)
}

fn edit(world: &mut World, host: HostId, file: u32, change: impl FnOnce(&mut Vec<u8>)) {
    let disk = world.disk(host).expect("it has one");
    assert!(
        disk.edit(&format!("content/file-{file}"), change),
        "file {file}"
    );
}

fn finish(world: &mut World, host: HostId, what: &str) {
    if !world.run_until(MINUTES, |w| w.is_complete(host) && w.is_content_right(host)) {
        let text = format!("{what}: not complete");
        panic!("{}", world.unfinished(host, text));
    }
    world
        .audit()
        .unwrap_or_else(|failure| panic!("{what}: {failure}"));
}

/// Bytes that were fetched.
fn fetched(world: &mut World, host: HostId) -> u64 {
    world.snapshot(host).expect("it runs").down_bytes
}

/// `checking`, `checking_first_piece_missing`, `partial_valid`, `full_invalid`: what is right is
/// kept, what is wrong is fetched, nothing else.
/// Method: every damage with every piece length; what comes from the seed is counted.
#[test]
fn partial_valid() {
    type Damage = (
        &'static str,
        fn(&mut World, HostId),
        std::ops::RangeInclusive<u64>,
    );
    let total: u64 = LENGTHS.iter().sum();
    let damages: [Damage; 7] = [
        ("nothing", |_, _| {}, 0..=0),
        ("the first byte", |w, h| edit(w, h, 0, |b| b[0] ^= 1), 1..=1),
        (
            "the last byte",
            |w, h| edit(w, h, 3, |b| b[49_999] ^= 1),
            1..=1,
        ),
        (
            "a byte at a border",
            |w, h| edit(w, h, 2, |b| b[0] ^= 1),
            1..=1,
        ),
        (
            "a file cut short",
            |w, h| edit(w, h, 2, |b| b.truncate(9)),
            1..=70_001,
        ),
        (
            "a file of zeros",
            |w, h| edit(w, h, 0, |b| b.fill(0)),
            1..=100_000,
        ),
        (
            "everything",
            |w, h| {
                for file in [0, 2, 3] {
                    edit(w, h, file, |bytes| {
                        bytes.iter_mut().for_each(|b| *b ^= 0x55)
                    });
                }
            },
            total..=total,
        ),
    ];
    let mut cells = 0;
    for_seeds(2, |rng_seed| {
        for piece_len in [16 * 1024, 32 * 1024, 64 * 1024, 256 * 1024] {
            for (what, damage, wrong) in &damages {
                let what = format!("{what}, pieces of {piece_len}");
                let (mut world, host) = damaged(rng_seed, piece_len, damage);
                finish(&mut world, host, &what);
                let fetched = fetched(&mut world, host);
                // Whole pieces, and those at the ends of what is wrong.
                let most = wrong.end() + 2 * u64::from(piece_len) * u64::from(*wrong.end() > 0);
                assert!(
                    (*wrong.start()..=most.min(total)).contains(&fetched),
                    "{what}: {fetched} B fetched"
                );
            }
        }
    });
    cells += damages.len() * 4;
    assert_eq!(cells, 28, "no cell of the matrix is left out");
}

/// `no_truncate_checking`: what is longer than the torrent says stays as long as it is.
#[test]
fn no_truncate_checking() {
    for_seeds(3, |rng_seed| {
        let longer = |world: &mut World, host| {
            edit(world, host, 2, |bytes| {
                bytes[5] ^= 1;
                bytes.extend_from_slice(&[9; 333]);
            });
        };
        let (mut world, host) = damaged(rng_seed, 16 * 1024, longer);
        let is_done = |w: &mut World| w.is_complete(host);
        assert!(world.run_until(MINUTES, is_done), "it is mended");
        world.run_until(MINUTES, |_| false);
        let len = world.disk(host).expect("it has one").len("content/file-2");
        assert_eq!(len, Some(70_001 + 333));
    });
}

/// `error_handling`: whichever call of the disk fails, the host either goes on or stops with a
/// reason, and has everything after the next start.
/// Method: the first call fails, in another run the second, and so on until a run has no call left
/// that could.
#[test]
fn error_handling() {
    for have in [Have::Nothing, Have::All] {
        let mut stopped = 0;
        for call in 0.. {
            let (meta, content) = torrent(7, 32 * 1024, &LENGTHS);
            let mut world = World::new(7, LAN, meta, content);
            let seed = world.add_peer(Have::All, &[]);
            let host = world.add_peer(have, &[seed]);
            world.kill(host);
            let faults = DiskFaults {
                fails_at: Some(call),
                ..DiskFaults::default()
            };
            world.disk(host).expect("it has one").set_faults(faults);
            world.restart(host);
            let other = world.add_peer(Have::Nothing, &[host]);
            let is_settled = |w: &mut World| {
                let state = w.snapshot(host).map(|figures| figures.state);
                state == Some(State::Error) || (w.is_complete(host) && w.is_complete(other))
            };
            assert!(world.run_until(MINUTES, is_settled), "call {call}");
            world.run_until(Duration::from_secs(30), |_| false);
            let figures = world.snapshot(host).expect("it runs");
            if figures.state == State::Error {
                let reason = figures.reason.unwrap_or_default();
                assert!(
                    reason.contains("input/output error"),
                    "call {call}: {reason}"
                );
                stopped += 1;
                world.kill(host);
                world.restart(host);
            }
            for host in [host, other] {
                finish(&mut world, host, &format!("call {call}"));
            }
            if world.disk(host).expect("it has one").tally().errors == 0 {
                assert!(call > 5, "{have:?}: only {call} calls");
                break;
            }
        }
        assert!(stopped > 0, "{have:?}: no call mattered");
    }
}
