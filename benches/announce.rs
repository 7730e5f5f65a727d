//! Announces that a tracker answers in a second of its own CPU time, in real processes: evpeer
//! beside opentracker, if that is installed, in turns.
//!
//! `cargo bench --bench announce [-- LOAD]`. The load is 1,000 swarms of up to 100 peers on loopback,
//! 50 peers wanted, as much as the tracker takes: by UDP (one socket) and by HTTP with a connection
//! each, 64 announces under way, and by HTTP on eight streams that stay open (which opentracker
//! does not offer). `EVPEER_BEFORE=PROGRAM` names another build, measured in the same turns. CPU
//! time is the process's, user and system, from `/proc`; the load comes from this process.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long each kind of load lasts.
const LOAD_TIME: Duration = Duration::from_millis(500);
const ROUNDS: u32 = 21;
const SERVERS: [&str; 3] = ["evpeer", "evpeer before", "opentracker"];
const SWARMS: u32 = 1000;
const PEERS: u32 = 100;
/// Announces that wait for their answers.
const UNDER_WAY: u64 = 64;
const STREAMS: usize = 8;

fn main() {
    if std::env::args().any(|arg| arg == "--test") {
        return; // `cargo test --benches`: building it is the test
    }
    let started = SERVERS.map(|server| (server, Tracker::start(server)));
    let mut loads: Vec<(&str, &str, Vec<f64>)> = Vec::new();
    for _ in 0..ROUNDS {
        for (load, run) in LOADS.iter().filter(|load| is_wanted(load.0)) {
            for (server, tracker) in &started {
                let Some(tracker) = tracker else { continue };
                if *server == "opentracker" && *load == "HTTP, kept open" {
                    continue;
                }
                let before = tracker.cpu_time();
                let answers = run(tracker.address);
                let spent = tracker.cpu_time() - before;
                let rate = answers as f64 / spent.as_secs_f64().max(0.001);
                let known = loads.iter_mut().find(|l| l.0 == *server && l.1 == *load);
                match known {
                    Some((.., rates)) => rates.push(rate),
                    None => loads.push((server, load, vec![rate])),
                }
            }
        }
    }
    println!(
        "{:14} {:16} announces per CPU second: median, quarters",
        "tracker", "load"
    );
    for (server, load, rates) in &mut loads {
        rates.sort_by(f64::total_cmp);
        let [low, median, high] = [1, 2, 3].map(|quarter| rates[rates.len() * quarter / 4]);
        println!("{server:14} {load:16} {median:10.0} {low:10.0} {high:10.0}");
    }
    for (server, tracker) in started {
        if tracker.is_none() {
            println!("left out: {server} is not there");
        }
    }
}

/// Whether the command line names this load, or part of its name, or none at all.
fn is_wanted(load: &str) -> bool {
    let mut names = std::env::args().skip(1).filter(|arg| !arg.starts_with('-'));
    let is_first = |name: String| load.contains(&name);
    match names.next() {
        None => true,
        Some(name) => is_first(name) || names.any(is_first),
    }
}

/// A way to ask for [`LOAD_TIME`]; gives the number of answers.
type Load = fn(SocketAddr) -> u64;
const LOADS: [(&str, Load); 3] = [
    ("UDP", udp),
    ("HTTP, one each", http_one_each),
    ("HTTP, kept open", http_kept_open),
];

/// A tracker in a process of its own.
struct Tracker {
    child: Child,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Tracker {
    fn start(server: &str) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let ip = Ipv4Addr::LOCALHOST;
        let free = TcpListener::bind((ip, 0)).expect("loopback has a free port");
        let port = free.local_addr().expect("it is bound").port();
        drop(free);
        let port_text = port.to_string();
        let mut command = match server {
            "evpeer" | "evpeer before" => {
                let program = match server {
                    "evpeer" => env!("CARGO_BIN_EXE_evpeer").into(),
                    _ => std::env::var_os("EVPEER_BEFORE")?,
                };
                let mut command = Command::new(program);
                command.args(["--open-tracker", "--no-lsd", "-q", "-p", &port_text]);
                command
                    .args(["--bind", "127.0.0.1", "-o"])
                    .arg(folder.path());
                command
            }
            _ => {
                // Debian's build tracks what its list names, and answers with errors otherwise.
                let hash = |n| who(n).0.map(|byte| format!("{byte:02x}")).concat() + "\n";
                let hashes: String = (0..SWARMS).map(hash).collect();
                fs::write(folder.path().join("hashes"), hashes).expect("the folder is ours");
                let readable = fs::Permissions::from_mode(0o755);
                fs::set_permissions(folder.path(), readable).expect("the folder is ours");
                let mut command = Command::new("opentracker");
                command.args(["-i", "127.0.0.1", "-p", &port_text, "-P", &port_text]);
                command.args(["-w", "hashes", "-d"]).arg(folder.path());
                command
            }
        };
        let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
        let child = quiet.stdin(Stdio::null()).spawn().ok()?;
        let address = SocketAddr::V4(SocketAddrV4::new(ip, port));
        let deadline = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(address).is_err() {
            assert!(Instant::now() < deadline, "{server} listens");
            std::thread::yield_now();
        }
        Some(Self {
            child,
            address,
            _folder: folder,
        })
    }

    /// User and system time so far of all its threads: `/proc/PID/stat` has it in steps of 10 ms.
    fn cpu_time(&self) -> Duration {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id()));
        let tasks = tasks.expect("the process runs").flatten();
        let nanos = tasks.map(|task| {
            let stat = fs::read_to_string(task.path().join("schedstat")).expect("a thread");
            let on_cpu = stat.split_whitespace().next().expect("a field");
            on_cpu.parse::<u64>().expect("nanoseconds")
        });
        Duration::from_nanos(nanos.sum())
    }
}

impl Drop for Tracker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The swarm and the port of announce `n`.
fn who(n: u32) -> ([u8; 20], u16) {
    let mut info_hash = [0x5a; 20];
    info_hash[..4].copy_from_slice(&(n % SWARMS).to_be_bytes());
    (info_hash, 2000 + (n / SWARMS % PEERS) as u16)
}

fn udp(tracker: SocketAddr) -> u64 {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    socket.connect(tracker).expect("loopback");
    let limit = Some(Duration::from_millis(200));
    socket.set_read_timeout(limit).expect("a timeout");
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
    announce[64..72].copy_from_slice(&9u64.to_be_bytes());
    announce[92..96].copy_from_slice(&50u32.to_be_bytes());
    let begin = Instant::now();
    let (mut sent, mut answers, mut under_way) = (0u32, 0u64, 0u64);
    while begin.elapsed() < LOAD_TIME {
        while under_way < UNDER_WAY {
            let (info_hash, port) = who(sent);
            announce[12..16].copy_from_slice(&sent.to_be_bytes());
            announce[16..36].copy_from_slice(&info_hash);
            announce[36..56].copy_from_slice(format!("-XX0001-{port:012}").as_bytes());
            announce[96..98].copy_from_slice(&port.to_be_bytes());
            socket.send(&announce).expect("loopback takes it");
            sent += 1;
            under_way += 1;
        }
        match socket.recv(&mut answer) {
            Ok(len) if len >= 20 && answer[3] == 1 => {
                answers += 1;
                under_way -= 1;
            }
            // The tracker has changed its mind about connection ids.
            Ok(_) => {
                under_way = 0;
                announce[..8].copy_from_slice(&connected(&socket));
            }
            Err(_) => under_way = 0, // some were lost
        }
    }
    answers
}

/// A connection id (BEP 15).
fn connected(socket: &UdpSocket) -> [u8; 8] {
    let connect = [
        0, 0, 4, 0x17, 0x27, 0x10, 0x19, 0x80, 0, 0, 0, 0, 0, 0, 0, 1,
    ];
    let mut answer = [0; 2048];
    loop {
        socket.send(&connect).expect("loopback takes it");
        while let Ok(len) = socket.recv(&mut answer) {
            if len == 16 && answer[3] == 0 {
                return answer[8..16].try_into().expect("eight bytes");
            }
        }
    }
}

fn request(n: u32, connection: &str) -> Vec<u8> {
    let (info_hash, port) = who(n);
    let hash: String = info_hash.map(|byte| format!("%{byte:02x}")).concat();
    format!(
        "GET /announce?info_hash={hash}&peer_id=-XX0001-{port:012}&port={port}&uploaded=0\
         &downloaded=0&left=9&compact=1&numwant=50 HTTP/1.1\r\nHost: x\r\n{connection}\r\n"
    )
    .into_bytes()
}

fn http_one_each(tracker: SocketAddr) -> u64 {
    let begin = Instant::now();
    let mut answers = 0;
    let mut answer = Vec::new();
    while begin.elapsed() < LOAD_TIME {
        let ask = |n: u64| {
            let mut stream = TcpStream::connect(tracker).expect("it accepts");
            let request = request(n as u32, "Connection: close\r\n");
            stream.write_all(&request).expect("it reads");
            stream
        };
        let streams: Vec<TcpStream> = (answers..answers + UNDER_WAY).map(ask).collect();
        for mut stream in streams {
            answer.clear();
            let _ = stream.read_to_end(&mut answer);
            assert!(has_peers(&answer), "an answer");
            answers += 1;
        }
    }
    answers
}

fn http_kept_open(tracker: SocketAddr) -> u64 {
    let mut streams: Vec<TcpStream> = (0..STREAMS)
        .map(|_| TcpStream::connect(tracker).expect("it accepts"))
        .collect();
    let begin = Instant::now();
    let mut answers = 0;
    while begin.elapsed() < LOAD_TIME {
        for (n, stream) in (answers as u32..).zip(&mut streams) {
            stream.write_all(&request(n, "")).expect("it reads");
        }
        for stream in &mut streams {
            read_answer(stream);
            answers += 1;
        }
    }
    answers
}

/// Whether a response lists peers, and is no refusal.
fn has_peers(response: &[u8]) -> bool {
    let is_http = response.starts_with(b"HTTP/1.");
    is_http && response.windows(7).any(|part| part == b"5:peers")
}

/// One response of a stream that stays open.
fn read_answer(stream: &mut TcpStream) {
    let mut bytes = Vec::new();
    let mut part = [0; 2048];
    loop {
        let n = stream.read(&mut part).expect("an answer");
        assert!(n > 0, "the stream stays open");
        bytes.extend_from_slice(&part[..n]);
        let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else {
            continue;
        };
        let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
        let len = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length:"));
        let len: usize = len
            .and_then(|len| len.trim().parse().ok())
            .expect("a length");
        if bytes.len() >= end + 4 + len {
            assert!(has_peers(&bytes), "an answer");
            return;
        }
    }
}
