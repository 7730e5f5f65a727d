//! What a check of data on disk costs who is served meanwhile: a peer serves one torrent as fast as
//! it can, alone and while it checks another one of 1 GiB.
//!
//! `cargo bench --bench check`. Who is served takes 1 GiB over loopback and throws it away, so that
//! nothing slows it down. Beside each figure stands which part of a core the peer's thread had: the
//! rest of the time it waits for the helper that brings data into memory, or for a core. Both ways
//! take turns, each with a peer of its own, and the medians are compared. The data lies in the
//! folder for temporary files: `TMPDIR=/dev/shm` takes the disk out of the figures. Goal: 90 %.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evpeer::base::id::{PeerId, TorrentId};
use evpeer::base::limits::BLOCK_LEN;
use evpeer::config::StorageKind;
use evpeer::engine::{State, TorrentSpec};
use evpeer::meta::metainfo::Metainfo;
use evpeer::reactor::Reactor;
use evpeer::wire::handshake::{Handshake, Reserved};
use rustix::net::{RecvFlags, recv};
use rustix::time::{ClockId, clock_gettime};

use content::{content, content_named};
use peer::reactor;

#[path = "common/content.rs"]
mod content;
#[path = "common/peer.rs"]
mod peer;

/// Bytes of each torrent.
const LEN: u64 = 1 << 30;
/// Blocks that are asked for ahead, and how many at once.
const AHEAD: u64 = 512;
const AT_ONCE: u64 = 64;
const ROUNDS: usize = 21;
const MIB: f64 = 1024.0 * 1024.0;

fn main() {
    if std::env::args().any(|arg| arg == "--test") {
        return; // `cargo test --benches`: building it is the test
    }
    let root = tempfile::tempdir().expect("a temporary folder");
    let served = content(root.path(), LEN, None);
    let found = content_named(root.path(), "found", LEN, None);
    let mut rates = [const { Vec::new() }; 2];
    println!("             MiB/s  thread   checked");
    for _ in 0..ROUNDS {
        for (n, name) in ["alone", "beside"].iter().enumerate() {
            let beside = (n == 1).then_some(&found);
            let run = run(root.path(), &served, beside);
            println!(
                "{name:9} {:8.0} {:5.0} %  {:4.0} MiB/s{}",
                run.rate,
                run.thread * 100.0,
                run.checked,
                if run.is_checked { ", to its end" } else { "" }
            );
            rates[n].push(run.rate);
        }
    }
    let [alone, beside] = rates.map(|mut rates| {
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    });
    println!(
        "medians: {alone:.0} MiB/s alone, {beside:.0} MiB/s beside a check: {:.1} %",
        beside / alone * 100.0
    );
}

/// What came of one transfer.
struct Run {
    /// Served, MiB/s.
    rate: f64,
    /// The part of a core that the peer's thread had.
    thread: f64,
    /// Checked meanwhile, MiB/s.
    checked: f64,
    /// The check ended before the transfer.
    is_checked: bool,
}

/// A peer serves `served`, and checks `found` meanwhile.
fn run(root: &Path, served: &Arc<Metainfo>, found: Option<&Arc<Metainfo>>) -> Run {
    let mut peer = reactor(root, StorageKind::Auto);
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, peer.local_port()));
    let id = peer.add_torrent(spec(served)).expect("it is new");
    while peer.snapshot(id).is_none_or(|s| s.state != State::Seeding) {
        turn(&mut peer);
    }
    let found = found.map(|found| peer.add_torrent(spec(found)).expect("it is new"));
    if let Some(found) = found {
        while (peer.snapshot(found)).is_none_or(|s| s.state != State::Checking) {
            turn(&mut peer);
        }
    }
    let before = checked(&mut peer, found);
    let cpu = thread_time();
    let (time, spent) = std::thread::scope(|scope| {
        let taker = scope.spawn(|| take(address, served));
        while !taker.is_finished() {
            turn(&mut peer);
        }
        let time = taker.join().expect("it is served");
        (time, thread_time() - cpu)
    });
    let after = checked(&mut peer, found);
    let per_s = |bytes: u64| bytes as f64 / MIB / time.as_secs_f64();
    Run {
        rate: per_s(LEN),
        thread: spent.as_secs_f64() / time.as_secs_f64(),
        checked: per_s(after - before),
        is_checked: after == LEN,
    }
}

/// How much of a torrent was checked, bytes.
fn checked(peer: &mut Reactor, torrent: Option<TorrentId>) -> u64 {
    let snapshot = torrent.and_then(|torrent| peer.snapshot(torrent));
    snapshot.map_or(0, |snapshot| match snapshot.state {
        State::Checking => snapshot.checked_bytes,
        _ => snapshot.length,
    })
}

/// Takes all of a torrent, as fast as it comes, and keeps nothing.
fn take(from: SocketAddr, meta: &Metainfo) -> Duration {
    let begin = Instant::now();
    let mut stream = TcpStream::connect(from).expect("it listens");
    stream.set_nodelay(true).expect("a flag");
    let hello = Handshake {
        reserved: Reserved::default(),
        info_hash: meta.info_hash,
        peer_id: PeerId(*b"-XX0001-000000000000"),
    };
    stream.write_all(&hello.encode()).expect("it reads");
    stream.read_exact(&mut [0; 68]).expect("it answers");
    stream
        .write_all(&[0, 0, 0, 1, INTERESTED])
        .expect("it reads");
    let piece_len = u64::from(meta.geometry().nominal_piece_len());
    let (mut asked, mut came) = (0, 0);
    let mut room = vec![0; 1 << 20];
    while next_message(&mut stream, &mut room) != UNCHOKE {}
    while came < BLOCKS {
        while asked < BLOCKS && asked + AT_ONCE <= came + AHEAD {
            let mut requests = Vec::new();
            for block in asked..asked + AT_ONCE {
                let offset = block * u64::from(BLOCK_LEN);
                requests.extend([0, 0, 0, 13, REQUEST]);
                for word in [offset / piece_len, offset % piece_len] {
                    requests.extend((word as u32).to_be_bytes());
                }
                requests.extend(BLOCK_LEN.to_be_bytes());
            }
            stream.write_all(&requests).expect("it reads");
            asked += AT_ONCE;
        }
        came += u64::from(next_message(&mut stream, &mut room) == PIECE);
    }
    begin.elapsed()
}

/// The next message that is no keep-alive: its id. What it carries is dropped by the kernel,
/// uncopied, so that who serves is the slower one.
fn next_message(stream: &mut TcpStream, room: &mut [u8]) -> u8 {
    loop {
        let mut head = [0; 4];
        stream.read_exact(&mut head).expect("it is open");
        let Some(mut rest) = (u32::from_be_bytes(head) as usize).checked_sub(1) else {
            continue;
        };
        let mut id = [0];
        stream.read_exact(&mut id).expect("it is open");
        while rest > 0 {
            let room = &mut room[..rest];
            let (_, count) = recv(&*stream, room, RecvFlags::TRUNC).expect("it is open");
            assert!(count > 0, "it was closed");
            rest -= count;
        }
        return id[0];
    }
}

fn spec(meta: &Arc<Metainfo>) -> TorrentSpec {
    TorrentSpec {
        meta: Arc::clone(meta),
        peers: Vec::new(),
        trackers: Vec::new(),
        choice: evpeer::base::choice::Choice::default(),
    }
}

fn turn(peer: &mut Reactor) {
    peer.turn(Duration::from_millis(10))
        .expect("the loop goes on");
    while peer.poll_report().is_some() {}
}

/// CPU time of this thread.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Blocks of a torrent.
const BLOCKS: u64 = LEN / BLOCK_LEN as u64;
const _: () = assert!(BLOCKS.is_multiple_of(AT_ONCE));
/// Messages of BEP 3.
const UNCHOKE: u8 = 1;
const INTERESTED: u8 = 2;
const REQUEST: u8 = 6;
const PIECE: u8 = 7;
