//! How long a turn of the loop lasts while a download of 200 MiB/s is made durable: the stall meter
//! of the leecher, read by `evpeer ctl status --json` at the end of 2 GiB.
//!
//! `cargo bench --bench stall`, or `-- 100` for another rate in MiB/s. Both backings take turns.
//! The seed and the leecher are processes; the line between them lets bytes pass by the clock. The
//! data lies in the folder for temporary files: `TMPDIR` names another disk.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Instant;

use content::content;
use line::Line;
use serde_json::Value;

#[path = "common/content.rs"]
mod content;
#[path = "common/line.rs"]
mod line;

const LEN: u64 = 2 << 30;
const MIB: f64 = 1024.0 * 1024.0;
const ROUNDS: usize = 3;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.iter().any(|arg| arg == "--test") {
        return; // `cargo test --benches`: building it is the test
    }
    let rate = args.iter().find_map(|arg| arg.parse::<f64>().ok());
    let rate = rate.unwrap_or(200.0);
    let root = tempfile::tempdir().expect("a temporary folder");
    let meta = content(root.path(), LEN, None);
    let torrent = root.path().join("content.torrent");
    std::fs::write(&torrent, meta.text().expect("it was made").source())
        .expect("the folder takes it");
    let seed = Evpeer::start(root.path(), &torrent, &[]);
    let target = SocketAddr::from((Ipv4Addr::LOCALHOST, seed.port));
    println!("backing    MiB/s    turns  median     p99   p99.9  longest (in)  over 50 ms");
    for _ in 0..ROUNDS {
        for backing in ["map", "pwrite"] {
            let line = Line::start(target, rate * MIB);
            let into = tempfile::tempdir().expect("a temporary folder");
            let peer = format!("127.0.0.1:{}", line.port);
            let begin = Instant::now();
            let options = ["--peer", &peer, "--storage", backing];
            let mut leecher = Evpeer::start(into.path(), &torrent, &options);
            leecher.wait_for("complete");
            let took = begin.elapsed();
            let status = status(into.path());
            let turns = &status["loop"];
            let ms = |name: &str| turns[name].as_f64().expect("a figure") / 1000.0;
            println!(
                "{backing:8} {:7.1} {:8} {:7.2} {:7.2} {:7.2} {:7.2} ms ({}) {:4}",
                LEN as f64 / MIB / took.as_secs_f64(),
                turns["turns"],
                ms("median_us"),
                ms("p99_us"),
                ms("p999_us"),
                ms("longest_us"),
                turns["longest_in"],
                turns["over_50_ms"],
            );
        }
    }
}

/// A process, ended with this value.
struct Evpeer {
    child: Child,
    lines: BufReader<ChildStdout>,
    port: u16,
}

impl Evpeer {
    /// Starts a peer that reads and writes in `root`.
    fn start(root: &Path, torrent: &Path, options: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_evpeer"));
        command.arg("-t").arg(torrent).arg("-o").arg(root);
        command.args(["-p", "0", "--bind", "127.0.0.1", "--json", "-q", "--no-lsd"]);
        command.args(options).stdout(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let lines = BufReader::new(child.stdout.take().expect("it is piped"));
        let port = 0;
        let mut this = Self { child, lines, port };
        let listening = this.wait_for("listening");
        this.port = listening["port"].as_u64().expect("a number") as u16;
        this
    }

    /// The next event of this name.
    fn wait_for(&mut self, name: &str) -> Value {
        let mut line = String::new();
        loop {
            line.clear();
            let len = self.lines.read_line(&mut line).expect("it talks");
            assert!(len > 0, "it ended before {name}");
            let event: Value = serde_json::from_str(&line).expect("JSON");
            if event["event"] == name {
                return event;
            }
        }
    }
}

impl Drop for Evpeer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What `ctl status` says of the peer whose data is in `root`.
fn status(root: &Path) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_evpeer"));
    command
        .args(["ctl", "-o"])
        .arg(root)
        .args(["status", "--json"]);
    let output = command.output().expect("it starts");
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}
