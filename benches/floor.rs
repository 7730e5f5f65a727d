//! What a peer on one thread must pay to receive a torrent, step by step and all together.
//!
//! No protocol, no engine: blocks of 16 KiB with the 13 B that a `piece` message puts before
//! each come over loopback, are copied into a fresh, allocated, mapped and populated file, and
//! every piece of 1 MiB is hashed and compared. A peer that costs as much is as fast as it can
//! be; what it costs more is its own. CPU time is that of the thread which does the work, the
//! sender is a thread of its own and has a line of its own.
//!
//! ```text
//! cargo bench --bench floor               256 MiB, median of 5 rounds
//! cargo bench --bench floor -- 1024 3     1024 MiB, median of 3 rounds
//! ```
//!
//! The steps take turns within a round, because machines have fast and slow spells: only
//! figures of one run can be compared.
#![expect(unsafe_code, reason = "memmap2 makes maps by unsafe functions only")]

use std::fs::File;
use std::io::{self, IoSlice, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use evpeer::base::rng::Rng;
use evpeer::storage::lanes::{Sha1State, update_lanes};
use memmap2::{Advice, Mmap, MmapMut, MmapOptions};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::time::{ClockId, clock_gettime};

/// A row of the table.
struct Step {
    name: &'static str,
    run: fn(&Torrent) -> io::Result<Cost>,
}

const STEPS: &[Step] = &[
    Step {
        name: "send from a map by writev",
        run: |t| Ok(transfer(t, discard(64 * KIB))?.1),
    },
    Step {
        name: "receive, reads of 16 KiB",
        run: |t| Ok(transfer(t, discard(16 * KIB))?.0),
    },
    Step {
        name: "receive, reads of 64 KiB",
        run: |t| Ok(transfer(t, discard(64 * KIB))?.0),
    },
    Step {
        name: "receive, reads of 256 KiB",
        run: |t| Ok(transfer(t, discard(256 * KIB))?.0),
    },
    Step {
        name: "allocate, map, populate, unmap",
        run: prepare_only,
    },
    Step {
        name: "hash, one stream",
        run: |t| measure(|| hash(t, 1)),
    },
    Step {
        name: "hash, four streams",
        run: |t| measure(|| hash(t, 4)),
    },
    Step {
        name: "receive into the map",
        run: |t| Ok(transfer(t, store(t, 0))?.0),
    },
    Step {
        name: "the floor, one stream",
        run: |t| Ok(transfer(t, store(t, 1))?.0),
    },
    Step {
        name: "the floor, four streams",
        run: |t| Ok(transfer(t, store(t, 4))?.0),
    },
];

fn main() -> io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let is_bench = args.iter().any(|arg| arg == "--bench");
    let mut numbers = args.iter().filter_map(|arg| arg.parse::<usize>().ok());
    // `cargo test --benches` only wants to know that it runs.
    let (mib, rounds) = if is_bench { (256, 5) } else { (8, 1) };
    let mib = numbers
        .next()
        .unwrap_or(mib)
        .next_multiple_of(WINDOW_LEN / PIECE_LEN);
    let rounds = numbers.next().unwrap_or(rounds).max(1);

    let torrent = Torrent::create(mib * PIECE_LEN)?;
    let mut costs: Vec<Vec<Cost>> = STEPS.iter().map(|_| Vec::new()).collect();
    for _ in 0..rounds {
        for (step, costs) in STEPS.iter().zip(&mut costs) {
            costs.push((step.run)(&torrent)?);
        }
    }

    println!("{mib} MiB over loopback, median of {rounds} (least–most)\n");
    println!("{:32} {:>22} {:>8}", "step", "CPU s/GiB", "MiB/s");
    for (step, costs) in STEPS.iter().zip(&costs) {
        let gib = mib as f64 / 1024.0;
        let cpu = sorted(costs.iter().map(|cost| cost.cpu.as_secs_f64() / gib));
        let rate = sorted(
            costs
                .iter()
                .map(|cost| mib as f64 / cost.wall.as_secs_f64()),
        );
        let (middle, most) = (rounds / 2, rounds - 1);
        let spread = format!("{:.3} ({:.3}–{:.3})", cpu[middle], cpu[0], cpu[most]);
        println!("{:32} {spread:>22} {:8.0}", step.name, rate[middle]);
    }
    Ok(())
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

/// What one step took.
struct Cost {
    cpu: Duration,
    wall: Duration,
}

fn measure(work: impl FnOnce() -> io::Result<()>) -> io::Result<Cost> {
    let (cpu, wall) = (thread_cpu(), Instant::now());
    work()?;
    Ok(Cost {
        cpu: thread_cpu() - cpu,
        wall: wall.elapsed(),
    })
}

fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The data that is sent, and the folder that it is received into.
struct Torrent {
    folder: tempfile::TempDir,
    source: PathBuf,
    len: usize,
    piece_hashes: Vec<[u8; 20]>,
}

impl Torrent {
    fn create(len: usize) -> io::Result<Self> {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        let source = folder.path().join("source");
        let mut rng = Rng::new(1);
        let mut file = File::create(&source)?;
        let mut piece_hashes = Vec::new();
        for _ in 0..len / PIECE_LEN {
            let words = (0..PIECE_LEN / 8).flat_map(|_| rng.next_u64().to_le_bytes());
            let piece: Vec<u8> = words.collect();
            piece_hashes.push(Sha1State::new().finish(&piece));
            file.write_all(&piece)?;
        }
        // What is not written back yet would be written while the first step runs.
        file.sync_all()?;
        Ok(Self {
            folder,
            source,
            len,
            piece_hashes,
        })
    }

    /// Hashes `window` in `lanes` streams at once and compares the pieces from `first` on.
    fn check(&self, first: usize, window: &[u8], lanes: usize) {
        let pieces: Vec<&[u8]> = window.chunks(PIECE_LEN).collect();
        let mut states = vec![Sha1State::new(); pieces.len()];
        let mut together: Vec<_> = states.iter_mut().collect();
        for (states, pieces) in together.chunks_mut(lanes).zip(pieces.chunks(lanes)) {
            update_lanes(states, pieces);
        }
        for (piece, state) in (first..).zip(states) {
            assert_eq!(state.finish(&[]), self.piece_hashes[piece], "piece {piece}");
        }
    }
}

/// Sends the torrent over loopback to `receive`; what that cost the receiver and the sender.
fn transfer(
    torrent: &Torrent,
    receive: impl FnOnce(TcpStream) -> io::Result<()>,
) -> io::Result<(Cost, Cost)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let source = torrent.source.clone();
    let sender: JoinHandle<io::Result<Cost>> = thread::spawn(move || {
        let data = map_to_read(&File::open(source)?)?;
        let mut stream = TcpStream::connect(address)?;
        measure(|| send(&data, &mut stream))
    });
    let (stream, _) = listener.accept()?;
    let received = measure(|| receive(stream))?;
    let sent = sender.join().expect("the sender does not panic")?;
    Ok((received, sent))
}

/// As a peer answers requests: the head of a message and its block, several in a call.
fn send(data: &[u8], stream: &mut TcpStream) -> io::Result<()> {
    for blocks in data.chunks(BLOCKS_A_CALL * BLOCK_LEN) {
        let head = [7; HEAD_LEN];
        let parts = blocks
            .chunks(BLOCK_LEN)
            .flat_map(|block| [&head[..], block]);
        let mut slices: Vec<IoSlice> = parts.map(IoSlice::new).collect();
        let mut left = &mut slices[..];
        while !left.is_empty() {
            let count = stream.write_vectored(left)?;
            IoSlice::advance_slices(&mut left, count);
        }
    }
    Ok(())
}

/// A receiver that reads into one buffer of `len` bytes and forgets.
fn discard(len: usize) -> impl FnOnce(TcpStream) -> io::Result<()> {
    move |mut stream| {
        let mut buffer = vec![0; len];
        while stream.read(&mut buffer)? > 0 {}
        Ok(())
    }
}

/// A receiver that does it all, hashing by `lanes` streams; with none it does not hash.
fn store(torrent: &Torrent, lanes: usize) -> impl FnOnce(TcpStream) -> io::Result<()> {
    move |mut stream| {
        let target = Target::create(torrent.folder.path(), torrent.len)?;
        let mut buffer = vec![0; 64 * KIB];
        let mut unread = 0..0;
        let mut frame_at = 0;
        for offset in (0..torrent.len).step_by(WINDOW_LEN) {
            let mut window = target.window(offset)?;
            let mut filled = 0;
            while filled < WINDOW_LEN {
                if unread.is_empty() {
                    unread = 0..stream.read(&mut buffer)?;
                    assert!(!unread.is_empty(), "the sender sends all");
                }
                if frame_at < HEAD_LEN {
                    let count = unread.len().min(HEAD_LEN - frame_at);
                    unread.start += count;
                    frame_at += count;
                    continue;
                }
                let count = unread.len().min(FRAME_LEN - frame_at);
                let bytes = &buffer[unread.start..][..count];
                window[filled..][..count].copy_from_slice(bytes);
                unread.start += count;
                filled += count;
                frame_at = (frame_at + count) % FRAME_LEN;
            }
            if lanes > 0 {
                torrent.check(offset / PIECE_LEN, &window, lanes);
            }
        }
        Ok(())
    }
}

fn prepare_only(torrent: &Torrent) -> io::Result<Cost> {
    measure(|| {
        let target = Target::create(torrent.folder.path(), torrent.len)?;
        for offset in (0..torrent.len).step_by(WINDOW_LEN) {
            target.window(offset)?;
        }
        Ok(())
    })
}

fn hash(torrent: &Torrent, lanes: usize) -> io::Result<()> {
    let data = map_to_read(&File::open(&torrent.source)?)?;
    for (index, window) in data.chunks(WINDOW_LEN).enumerate() {
        torrent.check(index * WINDOW_LEN / PIECE_LEN, window, lanes);
    }
    Ok(())
}

/// A fresh file with its space allocated.
struct Target {
    file: File,
}

impl Target {
    fn create(folder: &Path, len: usize) -> io::Result<Self> {
        let file = tempfile::tempfile_in(folder)?;
        fallocate(&file, FallocateFlags::empty(), 0, len as u64)?;
        Ok(Self { file })
    }

    /// The window at `offset`, with its pages in memory.
    fn window(&self, offset: usize) -> io::Result<MmapMut> {
        let mut options = MmapOptions::new();
        options.offset(offset as u64).len(WINDOW_LEN);
        // SAFETY: the file has no name, so nobody else can change or truncate it, and the
        // bench holds one window of it at a time.
        let window = unsafe { options.map_mut(&self.file)? };
        for start in (0..WINDOW_LEN).step_by(POPULATE_LEN) {
            window.advise_range(Advice::PopulateWrite, start, POPULATE_LEN)?;
        }
        Ok(window)
    }
}

fn map_to_read(file: &File) -> io::Result<Mmap> {
    // SAFETY: the file lies in a folder of this process alone and is not written any more.
    unsafe { Mmap::map(file) }
}

const KIB: usize = 1024;
const BLOCK_LEN: usize = 16 * KIB;
/// Length, id, piece and begin of a `piece` message (BEP 3).
const HEAD_LEN: usize = 13;
const FRAME_LEN: usize = HEAD_LEN + BLOCK_LEN;
/// Blocks that a seed hands to one `writev`.
const BLOCKS_A_CALL: usize = 16;
const PIECE_LEN: usize = 1024 * KIB;
/// Four pieces, so that four streams can be hashed.
const WINDOW_LEN: usize = 4 * PIECE_LEN;
/// Bytes that are paged in by one call.
const POPULATE_LEN: usize = 1024 * KIB;
