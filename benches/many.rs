//! What a thousand torrents that nobody asks for cost: 1,000 of 1 MiB, each a file of its own.
//!
//! `cargo bench --bench many`, or `-- 300` for another number. Two rounds, without a tracker and
//! with one (a process of its own). In each round a peer starts three times: with the data in
//! place, of which all has to be checked; again, when the journals vouch for it; and with the first
//! ten of the torrents alone, to which memory is compared. Times are from the start of the process
//! to the last `seeding` on its standard output. The data lies in the folder for temporary files:
//! `TMPDIR` names another disk. Goals: 3 s, 0.25 s, 4 KiB each, 0.2 %, and nothing held.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use evpeer::base::rng::Rng;
use evpeer::meta::create::{CreateOptions, Creator, NewFile};
use serde_json::Value;

#[path = "common/process.rs"]
mod process;

/// Bytes of each torrent.
const LEN: usize = 1024 * 1024;
/// Torrents of the peer that memory is compared to.
const FEW: usize = 10;
/// How long a peer is left alone after its start, until it has let go of what nobody uses.
const REST: Duration = Duration::from_secs(40);
/// How long its CPU time is taken.
const IDLE: Duration = Duration::from_secs(20);

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.iter().any(|arg| arg == "--test") {
        return; // `cargo test --benches`: building it is the test
    }
    let count = args.iter().find_map(|arg| arg.parse::<usize>().ok());
    let count = count.unwrap_or(1000);
    println!("trackers    start  torrents    ready  RSS KiB  anon KiB  fds  maps  idle CPU %");
    for has_tracker in [false, true] {
        round(count, has_tracker);
    }
}

fn round(count: usize, has_tracker: bool) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let place = |name: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir(&path).expect("the folder takes it");
        path
    };
    let (data, all, few, others) = (place("data"), place("all"), place("few"), place("tracker"));
    let tracker = has_tracker.then(|| Evpeer::start(&others, None, &["--open-tracker"]));
    let url = tracker.as_ref().map(|tracker| {
        let port = tracker.port;
        format!("http://127.0.0.1:{port}/announce")
    });
    for number in 0..count {
        let name = format!("{number:04}");
        let torrent = torrent(&data, &name, url.as_deref(), number as u64);
        let file = format!("{name}.torrent");
        std::fs::write(all.join(&file), &torrent).expect("the folder takes it");
        if number < FEW {
            std::fs::write(few.join(&file), &torrent).expect("the folder takes it");
        }
    }
    let trackers = url.map_or("none", |_| "one");
    let check = measured(trackers, "check", count, || {
        Evpeer::start(&data, Some(&all), &[])
    });
    let vouched = measured(trackers, "vouched", count, || {
        Evpeer::start(&data, None, &[])
    });
    std::fs::remove_dir_all(data.join(".evpeer")).expect("no peer runs");
    let base = measured(trackers, "base", FEW.min(count), || {
        Evpeer::start(&data, Some(&few), &[])
    });
    for (start, held) in [("check", check), ("vouched", vouched)] {
        let each = |all: u64, few: u64| {
            let more = all.saturating_sub(few) as f64;
            more / count.saturating_sub(FEW).max(1) as f64
        };
        println!(
            "{trackers:8} {start:>8}  each: {:.2} KiB of RSS, {:.2} KiB of them its own",
            each(held.rss_kib, base.rss_kib),
            each(held.anon_kib, base.anon_kib),
        );
    }
}

/// A file of seeded content, and its torrent.
fn torrent(data: &Path, name: &str, tracker: Option<&str>, rng_seed: u64) -> Vec<u8> {
    let mut rng = Rng::new(rng_seed);
    let mut bytes = vec![0; LEN];
    for word in bytes.chunks_exact_mut(8) {
        word.copy_from_slice(&rng.next_u64().to_le_bytes());
    }
    std::fs::write(data.join(name), &bytes).expect("the folder takes the content");
    let options = CreateOptions {
        name: name.to_owned(),
        files: vec![NewFile {
            path: Vec::new(),
            len: LEN as u64,
            executable: false,
        }],
        trackers: tracker.iter().map(|url| (*url).to_owned()).collect(),
        ..CreateOptions::default()
    };
    let mut creator = Creator::new(options).expect("the options are sound");
    creator.feed(&bytes).expect("as long as said");
    creator.finish().expect("all of it was fed")
}

/// What an idle process holds.
struct Held {
    rss_kib: u64,
    anon_kib: u64,
}

/// Starts a peer, waits until all its torrents are seeding, and looks at what it is while idle.
fn measured(trackers: &str, name: &str, count: usize, start: impl FnOnce() -> Evpeer) -> Held {
    let begin = Instant::now();
    let mut peer = start();
    for _ in 0..count {
        peer.wait_for(|event| event["event"] == "state" && event["state"] == "seeding");
    }
    let ready = begin.elapsed();
    std::thread::sleep(REST);
    let before = peer.cpu_time();
    std::thread::sleep(IDLE);
    let idle = (peer.cpu_time() - before).as_secs_f64() / IDLE.as_secs_f64();
    let held = Held {
        rss_kib: peer.status_kib("VmRSS:"),
        anon_kib: peer.status_kib("RssAnon:"),
    };
    println!(
        "{trackers:8} {name:>8} {count:9} {:6.3} s {:8} {:9} {:4} {:5} {:11.3}",
        ready.as_secs_f64(),
        held.rss_kib,
        held.anon_kib,
        peer.fds(),
        peer.maps(),
        idle * 100.0,
    );
    peer.stop();
    held
}

/// A process, ended with this value.
struct Evpeer {
    child: Child,
    lines: BufReader<ChildStdout>,
    port: u16,
}

impl Evpeer {
    /// Starts a peer that reads and writes in `root`, for a torrent or a folder of them.
    fn start(root: &Path, torrents: Option<&Path>, options: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_evpeer"));
        command.arg("-o").arg(root);
        command.args(["-p", "0", "--bind", "127.0.0.1", "--json", "-q"]);
        if let Some(torrents) = torrents {
            command.arg("-t").arg(torrents);
        }
        command.args(options).stdout(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let lines = BufReader::new(child.stdout.take().expect("it is piped"));
        let port = 0;
        let mut this = Self { child, lines, port };
        let listening = this.wait_for(|event| event["event"] == "listening");
        this.port = listening["port"].as_u64().expect("a number") as u16;
        this
    }

    /// The next event that is so.
    fn wait_for(&mut self, is_it: impl Fn(&Value) -> bool) -> Value {
        let mut line = String::new();
        loop {
            line.clear();
            let len = self.lines.read_line(&mut line).expect("it talks");
            assert!(len > 0, "it ended before its time");
            let event: Value = serde_json::from_str(&line).expect("JSON");
            assert!(event["state"] != "error", "a torrent failed: {event}");
            if is_it(&event) {
                return event;
            }
        }
    }

    fn proc(&self, name: &str) -> String {
        let path = format!("/proc/{}/{name}", self.child.id());
        std::fs::read_to_string(path).expect("the process runs")
    }

    /// CPU time of all its threads.
    fn cpu_time(&self) -> Duration {
        process::cpu_time(&self.child)
    }

    /// A line of `/proc/PID/status`.
    fn status_kib(&self, key: &str) -> u64 {
        let status = self.proc("status");
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB"));
        kib.and_then(|kib| kib.parse().ok()).expect("a figure")
    }

    /// Descriptors, those of the process itself included.
    fn fds(&self) -> usize {
        let path = format!("/proc/{}/fd", self.child.id());
        std::fs::read_dir(path).expect("the process runs").count()
    }

    /// Mapped files of the data.
    fn maps(&self) -> usize {
        let maps = self.proc("maps");
        let is_data = |line: &&str| line.contains("/data/");
        maps.lines().filter(is_data).count()
    }

    /// Ends it in good order, so that its journals vouch for everything.
    fn stop(mut self) {
        let term = rustix::process::Signal::TERM;
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, term).expect("the process runs");
        let status = self.child.wait().expect("it is ours");
        assert!(status.success(), "{status}");
    }
}

impl Drop for Evpeer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
