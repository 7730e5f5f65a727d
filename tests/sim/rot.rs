//! Bytes that change on a disk under a seed (hostile row 139).

use std::time::Duration;

use evpeer::engine::State;
use evpeer::sim::{Have, HostId, World};

use crate::world::{LAN, for_seeds, torrent};

const MINUTES: Duration = Duration::from_secs(600);
const PIECE_LEN: u32 = 64 * 1024;

/// A seed that does not look at its files any more, and in one of whose pieces a bit has changed.
fn rotten(rng_seed: u64) -> (World, HostId) {
    let (meta, content) = torrent(rng_seed, PIECE_LEN, &[700_000, 0, 300_001]);
    let mut world = World::new(rng_seed, LAN, meta, content);
    let seed = world.add_peer(Have::All, &[]);
    // What it hashed is in its memory; the next process knows it from the journal.
    world.run_until(MINUTES, |_| false);
    world.kill(seed);
    world.restart(seed);
    world.run_until(MINUTES, |_| false);
    let total = world.meta().geometry().length();
    assert_eq!(done(&mut world, seed), total);
    let at = (rng_seed as usize * 61_007) % 700_000;
    assert!(world.rot(seed, "content/file-0", |bytes| bytes[at] ^= 4));
    (world, seed)
}

fn done(world: &mut World, host: HostId) -> u64 {
    world.snapshot(host).map_or(0, |figures| figures.done_bytes)
}

/// A seed finds out by what its peers do, says no more that it has the piece, and gets it back.
#[test]
fn piece_that_rots_is_noticed_by_a_peer_and_fetched_again() {
    for_seeds(8, |rng_seed| {
        let (mut world, seed) = rotten(rng_seed);
        let total = world.meta().geometry().length();
        let reader = world.add_peer(Have::Nothing, &[seed]);
        let is_silent = |w: &mut World| {
            let figures = w.snapshot(seed).expect("it runs");
            figures.state == State::Downloading
                && figures.done_bytes == total - u64::from(PIECE_LEN)
        };
        assert!(world.run_until(MINUTES, is_silent), "it is not noticed");
        assert!(!world.is_complete(reader));
        // Who has the piece heals both.
        let friend = world.add_peer(Have::All, &[seed, reader]);
        let is_healed = |w: &mut World| {
            [seed, reader]
                .iter()
                .all(|&host| w.is_complete(host) && w.is_content_right(host))
        };
        assert!(world.run_until(MINUTES, is_healed), "it is not healed");
        assert!(world.is_complete(friend));
        let fetched = world.traffic(seed).1;
        assert!(fetched <= 2 * u64::from(PIECE_LEN), "{fetched} B fetched");
        world.audit().expect("nothing is left over");
    });
}

/// Peers that leave, or ask for what they have got, are no reason to lose anything.
#[test]
fn piece_that_is_right_stays_whatever_peers_do() {
    for_seeds(4, |rng_seed| {
        let (meta, content) = torrent(rng_seed, PIECE_LEN, &[2_000_000]);
        let total = meta.geometry().length();
        let mut world = World::new(rng_seed, LAN, meta, content);
        let seed = world.add_peer(Have::All, &[]);
        for _ in 0..3 {
            let reader = world.add_peer(Have::Nothing, &[seed]);
            assert!(world.run_until(MINUTES, |w| done(w, reader) > total / 3));
            world.kill(reader);
            world.run_until(Duration::from_secs(5), |_| false);
            assert_eq!(done(&mut world, seed), total);
        }
    });
}
