//! How soon a crowd of real processes has what one seed has, beside the time of a fluid, and how
//! much the seed sends for it: 20 leechers, 256 MiB, on loopback, every peer with the same
//! `--up-limit`.
//!
//! `cargo bench --bench swarm`, or `-- --leechers 20 --mib 256 --rate 8 --runs 3` for other
//! figures; the rate is in MiB/s. The leechers know nobody but the seed and start at once. The
//! clock starts with the first of them, when the seed is ready, so that the start of twenty
//! processes is in the figures. Every byte is compared in the end. The rate has to be one that the
//! machine carries for all together: the CPU time of all peers and that of the whole machine stand
//! beside each run. The data, 5.25 GiB, lies in the folder for temporary files: `TMPDIR=/dev/shm`
//! takes the disk out of the figures. Goals: 1.25 times the bound, 1.15 copies.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use content::content;
use serde_json::{Value, json};

#[path = "common/content.rs"]
mod content;
#[path = "common/process.rs"]
mod process;

const MIB: f64 = 1024.0 * 1024.0;
/// A run that takes so many times the bound has failed.
const PATIENCE: f64 = 10.0;
/// How long a process may take for anything else.
const LIMIT: Duration = Duration::from_secs(60);
/// The event that stands for the end of a process.
const ENDED: &str = "ended";

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.iter().any(|arg| arg == "--test") {
        return; // `cargo test --benches`: building it is the test
    }
    let option = |name: &str, usual: f64| {
        let place = args.iter().position(|arg| arg == name);
        let given = place.and_then(|place| args.get(place + 1)?.parse().ok());
        assert!(place.is_none() || given.is_some(), "{name} takes a number");
        given.unwrap_or(usual)
    };
    let crowd = Crowd {
        leechers: option("--leechers", 20.0) as usize,
        len: (option("--mib", 256.0) * MIB) as u64,
        rate: (option("--rate", 8.0) * MIB) as u64,
    };
    let runs = option("--runs", 3.0) as usize;
    let root = tempfile::tempdir().expect("a temporary folder");
    let meta = content(root.path(), crowd.len, None);
    let torrent = root.path().join("content.torrent");
    std::fs::write(&torrent, meta.text().expect("it was made").source())
        .expect("the folder takes it");
    println!(
        "{} leechers, {:.0} MiB, {:.2} MiB/s up each, the bound is {:.2} s",
        crowd.leechers,
        crowd.len as f64 / MIB,
        crowd.rate as f64 / MIB,
        crowd.bound().as_secs_f64(),
    );
    println!("started   first  median    last  ratio  copies  wasted  CPU of peers  of all");
    for _ in 0..runs {
        crowd.run(root.path(), &torrent);
    }
}

/// A seed and those who want what it has.
struct Crowd {
    leechers: usize,
    /// Bytes of the torrent.
    len: u64,
    /// What each of them may send, bytes a second.
    rate: u64,
}

impl Crowd {
    /// The time that a fluid takes: the seed's line has to carry all once, and all lines together
    /// as much as all lack. Nothing limits what a leecher takes.
    fn bound(&self) -> Duration {
        let (len, rate) = (self.len as f64, self.rate as f64);
        let leechers = self.leechers as f64;
        let all = leechers * len / (rate * (leechers + 1.0));
        Duration::from_secs_f64((len / rate).max(all))
    }

    /// One crowd, from nothing to everything, and its line of figures.
    fn run(&self, source: &Path, torrent: &Path) {
        let into = tempfile::tempdir().expect("a temporary folder");
        let (said, lines) = channel();
        let limit = self.rate.to_string();
        let seed = Peer::start(0, torrent, source, &["--up-limit", &limit], &said);
        wait_for(&lines, LIMIT, |line| line.event["state"] == "seeding");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, seed.port)).to_string();
        let options = ["--up-limit", &limit, "--peer", &address];

        let homes: Vec<_> = (1..=self.leechers)
            .map(|number| {
                let home = into.path().join(number.to_string());
                std::fs::create_dir(&home).expect("the folder takes it");
                home
            })
            .collect();
        let (began, busy) = (Instant::now(), Busy::now());
        let before = seed.cpu_time();
        let mut peers: Vec<Peer> = (1..)
            .zip(&homes)
            .map(|(number, home)| Peer::spawn(number, torrent, home, &options, &said))
            .collect();
        let started = began.elapsed();
        let mut times = Vec::new();
        let patience = self.bound().mul_f64(PATIENCE) + LIMIT;
        while times.len() < self.leechers {
            let line = wait_for(&lines, patience, |line| line.event["event"] == "complete");
            if line.peer > 0 {
                times.push((line.at - began).as_secs_f64());
            }
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let time = began.elapsed().as_secs_f64() * cores as f64;
        let of_leechers: Duration = peers.iter().map(Peer::cpu_time).sum();
        let cpu = (of_leechers + seed.cpu_time() - before).as_secs_f64() / time;
        let all = busy.share_since();

        peers.insert(0, seed);
        peers.iter().for_each(Peer::ask_to_leave);
        peers.iter_mut().for_each(Peer::wait);
        drop(said);
        let mut last = vec![Value::Null; peers.len()];
        for line in lines
            .iter()
            .filter(|line| line.event["event"] == "progress")
        {
            last[line.peer] = line.event;
        }
        let sum = |key: &str| {
            let figure = |event: &Value| event[key].as_f64().expect("the last figures");
            last[1..].iter().map(figure).sum::<f64>()
        };
        let copies = last[0]["up_bytes"].as_f64().expect("a figure") / self.len as f64;
        let wasted = sum("wasted_bytes") / (self.len as f64 * self.leechers as f64);
        for home in &homes {
            assert_same(&source.join("content"), &home.join("content"));
        }
        let slowest = times[times.len() - 1];
        println!(
            "{:5.2} s {:5.1} s {:5.1} s {:5.1} s {:6.3} {:7.3} {:5.2} % {:11.0} % {:5.0} %",
            started.as_secs_f64(),
            times[0],
            times[times.len() / 2],
            slowest,
            slowest / self.bound().as_secs_f64(),
            copies,
            wasted * 100.0,
            cpu * 100.0,
            all * 100.0,
        );
    }
}

/// What a process said, and when it was read.
struct Line {
    at: Instant,
    peer: usize,
    event: Value,
}

/// The next that is so.
fn wait_for(lines: &Receiver<Line>, limit: Duration, is_it: impl Fn(&Line) -> bool) -> Line {
    let end = Instant::now() + limit;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let line = lines.recv_timeout(left);
        let line = line.unwrap_or_else(|_| panic!("not within {limit:?}"));
        let (peer, event) = (line.peer, &line.event);
        let has_failed = event["state"] == "error" || event["event"] == ENDED;
        assert!(!has_failed, "peer {peer} failed: {event}");
        if is_it(&line) {
            return line;
        }
    }
}

/// A process, ended with this value.
struct Peer {
    child: Child,
    port: u16,
}

impl Peer {
    /// Starts one that reads and writes in `home`; what it says is handed on as it comes.
    fn spawn(
        number: usize,
        torrent: &Path,
        home: &Path,
        options: &[&str],
        said: &Sender<Line>,
    ) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_evpeer"));
        command.arg("-t").arg(torrent).arg("-o").arg(home);
        command.args(["-p", "0", "--bind", "127.0.0.1", "--json", "-q"]);
        command.args(["--no-lsd", "--no-tracker"]).args(options);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("it was built");
        let stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let said = said.clone();
        std::thread::spawn(move || {
            let say = |event| {
                let (at, peer) = (Instant::now(), number);
                said.send(Line { at, peer, event })
            };
            for text in stdout.lines().map_while(Result::ok) {
                if say(serde_json::from_str(&text).expect("JSON")).is_err() {
                    return;
                }
            }
            let _ = say(json!({ "event": ENDED }));
        });
        Self { child, port: 0 }
    }

    /// Starts one and waits until it listens.
    fn start(
        number: usize,
        torrent: &Path,
        home: &Path,
        options: &[&str],
        said: &Sender<Line>,
    ) -> Self {
        let (early, lines) = channel();
        let mut this = Self::spawn(number, torrent, home, options, &early);
        drop(early);
        let listening = wait_for(&lines, LIMIT, |line| line.event["event"] == "listening");
        this.port = listening.event["port"].as_u64().expect("a number") as u16;
        let said = said.clone();
        std::thread::spawn(move || lines.iter().try_for_each(|line| said.send(line)));
        this
    }

    /// CPU time of all its threads.
    fn cpu_time(&self) -> Duration {
        process::cpu_time(&self.child)
    }

    fn ask_to_leave(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let term = rustix::process::Signal::TERM;
        rustix::process::kill_process(pid, term).expect("it runs");
    }

    fn wait(&mut self) {
        let status = self.child.wait().expect("it is ours");
        assert!(status.success(), "{status}");
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What all cores have done so far, in the kernel's ticks: whatever else runs beside the peers.
struct Busy {
    busy: u64,
    all: u64,
}

impl Busy {
    fn now() -> Self {
        let text = std::fs::read_to_string("/proc/stat").expect("Linux");
        let first = text.lines().next().expect("that of all cores");
        let ticks: Vec<u64> = first
            .split_whitespace()
            .skip(1)
            .filter_map(|tick| tick.parse().ok())
            .collect();
        // user, nice, system, idle, iowait, irq, softirq, steal
        let all = ticks.iter().take(8).sum::<u64>();
        let idle = ticks[3] + ticks[4];
        Self {
            busy: all - idle,
            all,
        }
    }

    /// Which part of the machine was at work since then.
    fn share_since(&self) -> f64 {
        let now = Self::now();
        (now.busy - self.busy) as f64 / (now.all - self.all).max(1) as f64
    }
}

/// Compares two files, byte for byte.
fn assert_same(one: &Path, other: &Path) {
    let open = |path: &Path| File::open(path).expect("it is there");
    let (mut one, mut copy) = (open(one), open(other));
    let len = |file: &File| file.metadata().expect("it is open").len();
    assert_eq!(len(&one), len(&copy), "{}", other.display());
    let (mut bytes, mut copied) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    loop {
        let count = one.read(&mut bytes).expect("it can be read");
        if count == 0 {
            return;
        }
        let copied = &mut copied[..count];
        copy.read_exact(copied).expect("it is as long");
        assert!(bytes[..count] == *copied, "{} differs", other.display());
    }
}
