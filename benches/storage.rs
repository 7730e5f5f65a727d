//! Storage without sockets: 64 MiB stored in blocks and checked, and 64 MiB found and checked.
//!
//! Jobs run on two lane threads, as in the reactor; files lie in the temporary folder.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use evpeer::base::id::{PieceIndex, Ticket, TorrentId};
use evpeer::base::limits::{BLOCK_LEN, HASH_BACKLOG_MAX, WAITING_LEN_MAX, WINDOWS_LEN_MAX};
use evpeer::base::slot::Slot;
use evpeer::base::verdict::Verdict;
use evpeer::config::StorageKind;
use evpeer::meta::metainfo::Metainfo;
use evpeer::storage::jobs::{self, Done, Job, Lane};
use evpeer::storage::{Access, Event, Pace, Storage, StorageOptions};
use sha1::{Digest, Sha1};

const PIECE_LEN: usize = 1 << 20;
const PIECES: usize = 64;
const TORRENT: TorrentId = TorrentId(0);

/// Storage with its two lanes.
struct Shell {
    storage: Storage,
    lanes: [Sender<Job>; 2],
    done: Receiver<Done>,
    good: usize,
    /// `Settled` events seen.
    settled: usize,
}

impl Shell {
    fn new(root: &Path, kind: StorageKind, meta: &Arc<Metainfo>) -> Self {
        let (done_in, done) = channel();
        let lane = || {
            let (jobs_in, jobs) = channel::<Job>();
            let done = done_in.clone();
            thread::spawn(move || {
                jobs.into_iter()
                    .try_for_each(|job| done.send(jobs::run(job)).ok())
            });
            jobs_in
        };
        let mut shell = Self {
            storage: Storage::new(StorageOptions {
                root: root.to_owned(),
                kind,
                access: Access::ReadWrite,
                windows_len_max: WINDOWS_LEN_MAX,
                state_dir: None,
            }),
            lanes: [lane(), lane()],
            done,
            good: 0,
            settled: 0,
        };
        shell.storage.add(TORRENT, Arc::clone(meta));
        shell
    }

    /// One turn of the loop; sleeps if there is nothing to do.
    fn turn(&mut self) {
        let hashed = self.storage.work(4 << 20, Pace::AtOnce);
        while let Some(job) = self.storage.poll_job() {
            let lane = match job.lane() {
                Lane::Paging => &self.lanes[0],
                // Journals are not kept here.
                Lane::Disk | Lane::Journal => &self.lanes[1],
            };
            lane.send(job).expect("a lane that runs");
        }
        if hashed == 0
            && !self.storage.has_work()
            && let Ok(done) = self.done.recv_timeout(Duration::from_millis(1))
        {
            self.storage.job_done(done);
        }
        while let Ok(done) = self.done.try_recv() {
            self.storage.job_done(done);
        }
        while let Some(event) = self.storage.poll_event() {
            match event {
                Event::Checked { verdict, .. } => {
                    assert!(matches!(verdict, Verdict::Good { .. }));
                    self.good += 1;
                }
                Event::Settled { .. } => self.settled += 1,
                Event::Failed { error, .. } => panic!("{error}"),
                _ => {}
            }
        }
    }

    fn is_congested(&self) -> bool {
        let status = self.storage.status();
        status.waiting_bytes > WAITING_LEN_MAX || status.hash_backlog_bytes > HASH_BACKLOG_MAX
    }

    /// Blocks in order, four pieces at a time as from four peers.
    fn download(&mut self, data: &[u8]) {
        let block_len = BLOCK_LEN as usize;
        for group in 0..PIECES / 4 {
            for piece in group * 4..group * 4 + 4 {
                self.storage
                    .prepare(TORRENT, PieceIndex(piece as u32 + 4).min(LAST));
            }
            for begin in (0..PIECE_LEN).step_by(block_len) {
                for piece in group * 4..group * 4 + 4 {
                    let at = piece * PIECE_LEN + begin;
                    let slot = Slot {
                        torrent: TORRENT,
                        piece: PieceIndex(piece as u32),
                        begin: begin as u32,
                        len: BLOCK_LEN,
                    };
                    self.storage.store(slot, &data[at..at + block_len]);
                }
                if (begin / block_len).is_multiple_of(4) {
                    self.turn();
                }
                while self.is_congested() {
                    self.turn();
                }
            }
            for piece in group * 4..group * 4 + 4 {
                self.storage.check(TORRENT, PieceIndex(piece as u32));
            }
        }
        self.storage.settle(TORRENT, Ticket(0));
        while self.good < PIECES || self.settled == 0 {
            self.turn();
        }
    }

    fn check_all(&mut self) {
        (0..PIECES).for_each(|piece| self.storage.check(TORRENT, PieceIndex(piece as u32)));
        while self.good < PIECES {
            self.turn();
        }
    }
}

const LAST: PieceIndex = PieceIndex(PIECES as u32 - 1);

fn torrent(data: &[u8]) -> Arc<Metainfo> {
    let hashes: Vec<u8> = data.chunks(PIECE_LEN).flat_map(Sha1::digest).collect();
    let mut bytes = format!(
        "d4:infod6:lengthi{}e4:name1:t12:piece lengthi{PIECE_LEN}e6:pieces{}:",
        data.len(),
        hashes.len()
    )
    .into_bytes();
    bytes.extend(hashes);
    bytes.extend(b"ee");
    Arc::new(Metainfo::from_bytes(&bytes).expect("a torrent"))
}

fn storage(c: &mut Criterion) {
    let data: Vec<u8> = (0..PIECES * PIECE_LEN)
        .map(|i| (i.wrapping_mul(0x9e37_79b9) >> 13) as u8)
        .collect();
    let meta = torrent(&data);
    let mut group = c.benchmark_group("storage");
    group.throughput(Throughput::Bytes(data.len() as u64));
    group.sample_size(10);
    for (name, kind) in [("map", StorageKind::Map), ("pwrite", StorageKind::Pwrite)] {
        group.bench_function(BenchmarkId::new("store and check", name), |b| {
            b.iter_custom(|count| {
                let mut took = Duration::ZERO;
                for _ in 0..count {
                    let dir = tempfile::tempdir().expect("a temporary folder");
                    let begun = Instant::now();
                    Shell::new(dir.path(), kind, &meta).download(&data);
                    took += begun.elapsed();
                }
                took
            });
        });
        let dir = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(dir.path().join("t"), &data).expect("a file");
        group.bench_function(BenchmarkId::new("check", name), |b| {
            b.iter(|| Shell::new(dir.path(), kind, &meta).check_all());
        });
    }
    group.finish();
}

criterion_group!(benches, storage);
criterion_main!(benches);
