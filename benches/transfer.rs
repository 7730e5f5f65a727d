//! Piece throughput end to end: one seed, one leecher, loopback, fresh files, every piece hashed.
//!
//! `cargo bench --bench transfer`. A run's time is from adding the torrent at the leecher to its
//! report that every byte is verified and with the kernel. Both peers run in this process, each
//! on a thread of its own, with real sockets and files.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

use evpeer::config::StorageKind;
use evpeer::engine::{HostPort, Report, State, TorrentSpec};
use evpeer::meta::metainfo::Metainfo;
use evpeer::reactor::Reactor;

use content::content;
use peer::reactor;

#[path = "common/content.rs"]
mod content;
#[path = "common/peer.rs"]
mod peer;

/// Bytes of the torrent.
const LEN: u64 = 256 * 1024 * 1024;
const PIECE_LEN: u32 = 1024 * 1024;

fn spec(meta: &Arc<Metainfo>, peers: Vec<HostPort>) -> TorrentSpec {
    TorrentSpec {
        meta: Arc::clone(meta),
        peers,
        trackers: Vec::new(),
        choice: evpeer::base::choice::Choice::default(),
    }
}

/// Turns until `is_it` holds for a report.
fn run_until(reactor: &mut Reactor, is_it: impl Fn(&Report) -> bool) {
    loop {
        reactor
            .turn(Duration::from_millis(100))
            .expect("the loop goes on");
        while let Some(report) = reactor.poll_report() {
            if is_it(&report) {
                return;
            }
            if let Report::State {
                state: State::Error,
                reason,
                ..
            } = report
            {
                panic!("the torrent failed: {reason:?}");
            }
        }
    }
}

/// One transfer into a fresh folder.
fn transfer(meta: &Arc<Metainfo>, seed_port: u16, storage: StorageKind) -> Duration {
    let root = tempfile::tempdir().expect("a temporary folder");
    let mut leecher = reactor(root.path(), storage);
    let start = Instant::now();
    let seed = HostPort {
        host: "127.0.0.1".to_owned(),
        port: seed_port,
    };
    leecher
        .add_torrent(spec(meta, vec![seed]))
        .expect("the torrent is new");
    run_until(&mut leecher, |report| {
        matches!(report, Report::Complete { .. })
    });
    start.elapsed()
}

fn bench(c: &mut Criterion) {
    let root = tempfile::tempdir().expect("a temporary folder");
    let meta = content(root.path(), LEN, Some(PIECE_LEN));
    let mut seed = reactor(root.path(), StorageKind::Auto);
    let port = seed.local_port();
    seed.add_torrent(spec(&meta, Vec::new()))
        .expect("the torrent is new");
    let seeding = |r: &Report| {
        matches!(
            r,
            Report::State {
                state: State::Seeding,
                ..
            }
        )
    };
    run_until(&mut seed, seeding);

    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                seed.turn(Duration::from_millis(20))
                    .expect("the loop goes on");
                while seed.poll_report().is_some() {}
            }
        });
        let mut group = c.benchmark_group("transfer");
        group.sample_size(10).throughput(Throughput::Bytes(LEN));
        for (name, storage) in [("map", StorageKind::Map), ("pwrite", StorageKind::Pwrite)] {
            group.bench_function(name, |b| {
                b.iter_custom(|n| (0..n).map(|_| transfer(&meta, port, storage)).sum());
            });
        }
        group.finish();
        stop.store(true, Ordering::Relaxed);
    });
}

criterion_group!(benches, bench);
criterion_main!(benches);
