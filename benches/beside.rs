//! What announces cost a transfer: 256 MiB from a seed to a leecher over a line of 100 MiB/s, while
//! the seed's tracker is asked 10,000 times a second by UDP, or 2,000 times by HTTP with a
//! connection each.
//!
//! `cargo bench --bench beside`. The line is a relay that lets bytes pass by the clock; everything
//! runs in this process, each part on a thread of its own. The kinds of load take turns, and the
//! medians are compared.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use evpeer::config::StorageKind;
use evpeer::engine::{HostPort, Report, State, TorrentSpec};
use evpeer::meta::metainfo::Metainfo;
use evpeer::reactor::Reactor;

use content::content;
use line::Line;
use peer::reactor;

#[path = "common/content.rs"]
mod content;
#[path = "common/line.rs"]
mod line;
#[path = "common/peer.rs"]
mod peer;

/// Bytes of the torrent.
const LEN: u64 = 256 * 1024 * 1024;
/// What the line lets pass in a second.
const LINE_BYTES_S: f64 = 100.0 * 1024.0 * 1024.0;
const UDP_PER_SEC: f64 = 10_000.0;
const HTTP_PER_SEC: f64 = 2000.0;
const ROUNDS: usize = 5;

fn main() {
    if std::env::args().any(|arg| arg == "--test") {
        return; // `cargo test --benches`: building it is the test
    }
    let root = tempfile::tempdir().expect("a temporary folder");
    let meta = content(root.path(), LEN, None);
    let mut seed = reactor(root.path(), StorageKind::Auto);
    let tracker = SocketAddr::from((Ipv4Addr::LOCALHOST, seed.local_port()));
    seed.add_torrent(spec(&meta, Vec::new()))
        .expect("the torrent is new");
    let is_seeding = |report: &Report| {
        let Report::State { state, .. } = report else {
            return false;
        };
        *state == State::Seeding
    };
    run_until(&mut seed, is_seeding);

    let (stop, asked) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let wait = Duration::from_millis(20);
                seed.turn(wait).expect("the loop goes on");
                while seed.poll_report().is_some() {}
            }
        });
        let mut times = [const { Vec::new() }; LOADS.len()];
        let mut answers = [const { Vec::new() }; LOADS.len()];
        for _ in 0..ROUNDS {
            for (n, (_, load)) in LOADS.iter().enumerate() {
                let (line, ends) = (Line::start(tracker, LINE_BYTES_S), AtomicBool::new(false));
                asked.store(0, Ordering::Relaxed);
                std::thread::scope(|scope| {
                    scope.spawn(|| load(tracker, &meta, &ends, &asked));
                    let time = transfer(&meta, line.port);
                    ends.store(true, Ordering::Relaxed);
                    times[n].push(time.as_secs_f64());
                    let count = asked.load(Ordering::Relaxed) as f64;
                    answers[n].push(count / time.as_secs_f64());
                });
            }
        }
        stop.store(true, Ordering::Relaxed);
        let alone = median(&mut times[0]);
        for (n, (name, _)) in LOADS.iter().enumerate() {
            let time = median(&mut times[n]);
            println!(
                "{name:24} {:6.1} MiB/s, {:+5.1} %, {:6.0} answers/s ({:.2?} s)",
                LEN as f64 / 1024.0 / 1024.0 / time,
                (alone / time - 1.0) * 100.0,
                median(&mut answers[n]),
                times[n],
            );
        }
    });
}

/// Asks the tracker until it is told to end; counts the answers.
type Load = fn(SocketAddr, &Metainfo, &AtomicBool, &AtomicU64);
const LOADS: [(&str, Load); 3] = [
    ("alone", |_, _, _, _| {}),
    ("beside UDP announces", udp),
    ("beside HTTP announces", http),
];

fn udp(tracker: SocketAddr, meta: &Metainfo, ends: &AtomicBool, answers: &AtomicU64) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    socket.connect(tracker).expect("loopback");
    let mut answer = [0; 2048];
    let connect = [
        0, 0, 4, 0x17, 0x27, 0x10, 0x19, 0x80, 0, 0, 0, 0, 0, 0, 0, 1,
    ];
    socket.send(&connect).expect("loopback takes it");
    let len = socket.recv(&mut answer).expect("an answer to connect");
    assert_eq!(len, 16);
    let mut announce = [0; 98];
    announce[..8].copy_from_slice(&answer[8..16]);
    announce[11] = 1;
    announce[16..36].copy_from_slice(&meta.info_hash.0);
    announce[64..72].copy_from_slice(&9u64.to_be_bytes());
    announce[92..96].copy_from_slice(&50u32.to_be_bytes());
    socket.set_nonblocking(true).expect("a flag");
    let begin = Instant::now();
    let mut sent = 0;
    while !ends.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(1));
        while f64::from(sent) < begin.elapsed().as_secs_f64() * UDP_PER_SEC {
            let port = port_of(sent);
            announce[36..56].copy_from_slice(format!("-XX0001-{port:012}").as_bytes());
            announce[96..98].copy_from_slice(&port.to_be_bytes());
            let _ = socket.send(&announce);
            sent += 1;
        }
        while socket.recv(&mut answer).is_ok() {
            answers.fetch_add(u64::from(answer[3] == 1), Ordering::Relaxed);
        }
    }
}

fn http(tracker: SocketAddr, meta: &Metainfo, ends: &AtomicBool, answers: &AtomicU64) {
    let hash: String = meta.info_hash.0.map(|byte| format!("%{byte:02x}")).concat();
    let begin = Instant::now();
    let mut sent = 0;
    let mut answer = Vec::new();
    while !ends.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(1));
        while f64::from(sent) < begin.elapsed().as_secs_f64() * HTTP_PER_SEC {
            let mut stream = TcpStream::connect(tracker).expect("it accepts");
            let port = port_of(sent);
            let request = format!(
                "GET /announce?info_hash={hash}&peer_id=-XX0001-{port:012}&port={port}&left=9\
                 &compact=1&numwant=50 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
            );
            stream.write_all(request.as_bytes()).expect("it reads");
            answer.clear();
            let is_read = stream.read_to_end(&mut answer).is_ok();
            answers.fetch_add(
                u64::from(is_read && answer.starts_with(b"HTTP/1.1 200")),
                Ordering::Relaxed,
            );
            sent += 1;
        }
    }
}

/// The ports of a hundred peers, at all of which nobody listens.
fn port_of(sent: u32) -> u16 {
    2 + (sent % 100) as u16
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

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
        let wait = Duration::from_millis(100);
        reactor.turn(wait).expect("the loop goes on");
        while let Some(report) = reactor.poll_report() {
            if is_it(&report) {
                return;
            }
        }
    }
}

/// One transfer into a fresh folder.
fn transfer(meta: &Arc<Metainfo>, port: u16) -> Duration {
    let root = tempfile::tempdir().expect("a temporary folder");
    let mut leecher = reactor(root.path(), StorageKind::Auto);
    let start = Instant::now();
    let host = Ipv4Addr::LOCALHOST.to_string();
    leecher
        .add_torrent(spec(meta, vec![HostPort { host, port }]))
        .expect("the torrent is new");
    let is_complete = |report: &Report| matches!(report, Report::Complete { .. });
    run_until(&mut leecher, is_complete);
    start.elapsed()
}
