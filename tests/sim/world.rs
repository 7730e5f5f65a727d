//! What the scenarios share: torrents with content, and lines to carry them.

use std::sync::Arc;
use std::time::Duration;

use evpeer::base::rng::Rng;
use evpeer::meta::create::{CreateOptions, Creator, NewFile};
use evpeer::meta::metainfo::Metainfo;
use evpeer::sim::Link;

/// A torrent of files of these lengths, with random content.
pub fn torrent(rng_seed: u64, piece_len: u32, lengths: &[u64]) -> (Arc<Metainfo>, Arc<[u8]>) {
    create(rng_seed, lengths, |options| {
        options.piece_len = Some(piece_len)
    })
}

/// The same as a private torrent (BEP 27).
pub fn private_torrent(
    rng_seed: u64,
    piece_len: u32,
    lengths: &[u64],
) -> (Arc<Metainfo>, Arc<[u8]>) {
    create(rng_seed, lengths, |options| {
        options.piece_len = Some(piece_len);
        options.private = true;
    })
}

fn create(
    rng_seed: u64,
    lengths: &[u64],
    set: impl FnOnce(&mut CreateOptions),
) -> (Arc<Metainfo>, Arc<[u8]>) {
    let mut rng = Rng::new(rng_seed);
    let total: u64 = lengths.iter().sum();
    let content: Vec<u8> = (0..total).map(|_| rng.next_u64() as u8).collect();
    let file = |(i, &len): (usize, &u64)| NewFile {
        path: vec![format!("file-{i}")],
        len,
        executable: false,
    };
    let mut options = CreateOptions {
        name: "content".to_owned(),
        files: lengths.iter().enumerate().map(file).collect(),
        ..CreateOptions::default()
    };
    set(&mut options);
    let mut creator = Creator::new(options).expect("the options are sound");
    creator.feed(&content).expect("as long as said");
    let bytes = creator.finish().expect("all of it was fed");
    let meta = Metainfo::from_bytes(&bytes).expect("what is created can be read");
    (Arc::new(meta), content.into())
}

/// A LAN: 1 ms and 100 MB/s.
pub const LAN: Link = Link {
    latency: Duration::from_millis(1),
    ..Link::lan(100_000_000)
};

/// Runs `scenario` with the seeds below `count`, or only with that of `EVPEER_SIM_SEED`; says how
/// to repeat a failure.
pub fn for_seeds(count: u64, scenario: impl Fn(u64)) {
    let only = std::env::var("EVPEER_SIM_SEED").ok();
    let seeds = match only.map(|seed| seed.parse::<u64>()) {
        Some(Ok(seed)) => seed..seed + 1,
        Some(Err(error)) => panic!("EVPEER_SIM_SEED is no number: {error}"),
        None => 0..count,
    };
    for rng_seed in seeds {
        let replay = Replay { rng_seed };
        scenario(rng_seed);
        std::mem::forget(replay);
    }
}

/// Dropped only when a scenario panics.
struct Replay {
    rng_seed: u64,
}

impl Drop for Replay {
    fn drop(&mut self) {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or_default();
        let seed = self.rng_seed;
        eprintln!("replay: EVPEER_SIM_SEED={seed} cargo test --test sim {name} -- --exact");
    }
}
