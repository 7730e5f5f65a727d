//! How soon a network of real processes knows of a newcomer, that it is complete, and that it left.
//!
//! `cargo bench --bench gossip`. Fifty evpeers on loopback seed a small torrent, and come to know
//! each other from one address each. Then newcomers come, one after the other, each knowing one of
//! the fifty; it gets the torrent and leaves. What each of the fifty knows, and when, is what its
//! log says; lines are stamped as they are read, so that what this process needs to read them is in
//! the figures, as is everything else that shares the machine's cores with fifty processes.
//! At the end a thousand foreign seeds announce themselves to one of the fifty in a burst: by how
//! many messages a link do the others hear of them?

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use evpeer::base::rng::Rng;
use evpeer::meta::metainfo::Metainfo;
use socket2::{Domain, Socket, Type};

const HOSTS: usize = 50;
const JOINS: usize = 100;
/// Foreign seeds, and from how many addresses they announce themselves.
const ANNOUNCES: usize = 1000;
const ANNOUNCERS: usize = 20;
/// Bytes of the torrent.
const LEN: usize = 64 * 1024;
/// A step that takes longer has failed.
const LIMIT: Duration = Duration::from_secs(60);
/// Quiet in which the fifty are taken to have settled.
const REST: Duration = Duration::from_secs(3);

fn main() {
    if std::env::args().any(|arg| arg == "--test") {
        return; // `cargo test --benches`: building it is the test
    }
    let root = tempfile::tempdir().expect("a temporary folder");
    let torrent = content(root.path());
    let mut rng = Rng::new(1);
    let (said, receiver) = channel();
    let mut lines = Lines {
        receiver,
        early: VecDeque::new(),
    };
    let mut hosts: Vec<Peer> = Vec::new();
    for n in 0..HOSTS {
        let home = root.path().join(format!("host-{n}"));
        std::fs::create_dir(&home).expect("the folder is ours");
        std::fs::copy(root.path().join("content"), home.join("content")).expect("it has room");
        let known = (n > 0).then(|| hosts[rng.below(n as u32) as usize].addr);
        hosts.push(Peer::start(n, &torrent, &home, known, &mut lines, &said));
    }
    rest(&lines.receiver);
    let mut times: [Vec<Duration>; 4] = Default::default();
    for join in 0..JOINS {
        let home = root.path().join(format!("newcomer-{join}"));
        std::fs::create_dir(&home).expect("the folder is ours");
        let known = hosts[rng.below(HOSTS as u32) as usize].addr;
        let began = Instant::now();
        let mut newcomer = Peer::start(HOSTS, &torrent, &home, Some(known), &mut lines, &said);
        let news = [
            News::Here(newcomer.addr),
            News::Seed(newcomer.addr),
            News::Complete,
        ];
        let [here, seed, complete] = wait_for(&mut lines, news);
        times[0].push(here - began);
        times[1].push(here - newcomer.listened);
        times[2].push(seed.saturating_duration_since(complete));
        let left = Instant::now();
        newcomer.ask_to_leave();
        let [gone] = wait_for(&mut lines, [News::Gone(newcomer.addr)]);
        times[3].push(gone - left);
        newcomer.wait();
        rest_briefly(&lines.receiver);
    }
    println!("{HOSTS} evpeers, {JOINS} newcomers; until the last of the {HOSTS} knows, ms:");
    let names = [
        "a newcomer, from the start of its process",
        "a newcomer, from when it listens",
        "that it is complete, from when it says so",
        "that it left, from the signal",
    ];
    for (name, times) in names.iter().zip(&mut times) {
        times.sort_unstable();
        let ms = |place: usize| times[place].as_secs_f64() * 1000.0;
        let last = times.len() - 1;
        println!(
            "{name:42} p50 {:6.1}  p99 {:6.1}  max {:6.1}",
            ms(last / 2),
            ms(last * 99 / 100),
            ms(last)
        );
    }
    burst(hosts[0].addr, &torrent, &mut lines);
    for host in &mut hosts {
        host.ask_to_leave();
    }
    hosts.iter_mut().for_each(Peer::wait);
}

/// Foreign seeds announce themselves to the first host, all at once, and the others hear of it.
fn burst(tracker: SocketAddr, torrent: &Path, lines: &mut Lines) {
    rest(&lines.receiver);
    let bytes = std::fs::read(torrent).expect("it was made");
    let meta = Metainfo::from_bytes(&bytes).expect("it is one");
    let hash: String = meta.info_hash.0.map(|byte| format!("%{byte:02x}")).concat();
    let mut streams: Vec<_> = (0..ANNOUNCERS)
        .map(|n| connect_from(n, tracker).expect("loopback"))
        .collect();
    let began = Instant::now();
    for n in 0..ANNOUNCES {
        let port = 2000 + n / ANNOUNCERS;
        let request = format!(
            "GET /announce?info_hash={hash}&peer_id=-XX0001-{n:012}&port={port}&uploaded=0\
             &downloaded=0&left=0&numwant=0&compact=1 HTTP/1.1\r\nHost: x\r\n\r\n"
        );
        let stream = &mut streams[n % ANNOUNCERS];
        stream.write_all(request.as_bytes()).expect("it is read");
        let len = stream.read(&mut [0; 2048]).expect("it is answered");
        assert!(len > 0, "answer {n}");
    }
    let announced = began.elapsed();
    let mut sent: BTreeMap<String, usize> = BTreeMap::new();
    let mut known: BTreeSet<(usize, String)> = BTreeSet::new();
    let end = Instant::now() + LIMIT;
    let mut last = began;
    while known.len() < (HOSTS - 1) * ANNOUNCES {
        let line = lines.next(end).unwrap_or_else(|| {
            panic!("not within {LIMIT:?}: {} were told of", known.len());
        });
        let word = |name: &str| {
            let rest = line.text.split(name).nth(1)?;
            Some(rest.split(' ').next()?.to_owned())
        };
        if let (0, Some(remote)) = (line.host, word("ev_peers sent remote=")) {
            *sent.entry(remote).or_default() += 1;
        } else if let (true, Some(addr)) = (line.text.contains("heard list="), word("addr=127.9."))
            && line.host > 0
            && known.insert((line.host, addr))
        {
            last = line.at;
        }
    }
    println!(
        "{ANNOUNCES} announces in {:.0} ms: known to all {:.0} ms later; one host told them in \
         {:?} messages on each of its links",
        announced.as_secs_f64() * 1000.0,
        (last - began - announced).as_secs_f64() * 1000.0,
        sent.values().collect::<Vec<_>>()
    );
}

fn connect_from(n: usize, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    let from = SocketAddr::from(([127, 9, 0, n as u8 + 1], 0));
    socket.bind(&from.into())?;
    socket.connect(&to.into())?;
    Ok(socket.into())
}

/// A line that a process wrote, and when it was read.
struct Line {
    at: Instant,
    host: usize,
    text: String,
}

/// What all processes write, in the order in which it was read.
struct Lines {
    receiver: Receiver<Line>,
    /// Read while somebody was waited for.
    early: VecDeque<Line>,
}

impl Lines {
    /// The next line, if there is one before `end`.
    fn next(&mut self, end: Instant) -> Option<Line> {
        self.early.pop_front().or_else(|| {
            let left = end.saturating_duration_since(Instant::now());
            self.receiver.recv_timeout(left).ok()
        })
    }
}

/// What is waited for.
#[derive(Clone, Copy)]
enum News {
    /// All of the fifty know that somebody is there.
    Here(SocketAddr),
    /// All of the fifty know that it has everything.
    Seed(SocketAddr),
    /// All of the fifty know that it is gone.
    Gone(SocketAddr),
    /// The newcomer says that it has everything.
    Complete,
}

impl News {
    fn is_told_by(self, line: &Line) -> bool {
        let has = |word: &str| line.text.contains(word);
        let is_of = |addr: SocketAddr| has(&format!("addr={addr} ")) && line.host < HOSTS;
        let is_heard = || has("heard list=");
        match self {
            Self::Here(addr) => is_of(addr) && (has("met addr=") || is_heard()),
            Self::Seed(addr) => {
                let is_met = has("met addr=") && has("seed=true");
                is_of(addr) && (is_met || (is_heard() && has("standing=Seed")))
            }
            Self::Gone(addr) => is_of(addr) && has("list=network") && has("standing=Left"),
            Self::Complete => line.host == HOSTS && has("\"event\":\"complete\""),
        }
    }

    fn tellers(self) -> usize {
        match self {
            Self::Here(_) | Self::Seed(_) | Self::Gone(_) => HOSTS,
            Self::Complete => 1,
        }
    }
}

/// When each of these was told by all that have to tell it.
fn wait_for<const COUNT: usize>(lines: &mut Lines, news: [News; COUNT]) -> [Instant; COUNT] {
    let end = Instant::now() + LIMIT;
    let mut told = news.map(|_| [false; HOSTS + 1]);
    let mut times = news.map(|_| None);
    while times.contains(&None) {
        let line = lines.next(end).unwrap_or_else(|| {
            let counts = told.map(|told| told.iter().filter(|told| **told).count());
            panic!("not within {LIMIT:?}: told by {counts:?}")
        });
        for (n, one) in news.iter().enumerate() {
            if one.is_told_by(&line) && times[n].is_none() {
                told[n][line.host] = true;
                if told[n].iter().filter(|told| **told).count() == one.tellers() {
                    times[n] = Some(line.at);
                }
            }
        }
    }
    times.map(|at| at.expect("it was waited for"))
}

/// Waits until nobody has said anything of others for a while.
fn rest(lines: &Receiver<Line>) {
    let end = Instant::now() + LIMIT;
    let mut last = Instant::now();
    while last.elapsed() < REST && Instant::now() < end {
        match lines.recv_timeout(REST) {
            Ok(line) if line.text.contains("heard list=") => last = line.at,
            Ok(_) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => panic!("nobody speaks any more"),
        }
    }
}

/// Waits for the window in which news are gathered to pass, so that each join is one of its own.
fn rest_briefly(lines: &Receiver<Line>) {
    let end = Instant::now() + Duration::from_millis(300);
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        let _ = lines.recv_timeout(left);
    }
}

/// A process.
struct Peer {
    child: Child,
    addr: SocketAddr,
    listened: Instant,
}

impl Peer {
    /// Starts one and waits until it listens.
    fn start(
        host: usize,
        torrent: &Path,
        home: &Path,
        known: Option<SocketAddr>,
        lines: &mut Lines,
        said: &Sender<Line>,
    ) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_evpeer"));
        let talks = if host == 0 { "-vv" } else { "-v" };
        command.args(["--json", talks, "--no-lsd", "--no-tracker", "-p", "0"]);
        command.args(["--bind", "127.0.0.1", "-t"]).arg(torrent);
        command.arg("-o").arg(home);
        if let Some(known) = known {
            command.args(["--peer", &known.to_string()]);
        }
        command.stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut peer = Self {
            child: command.spawn().expect("it was built"),
            addr: (Ipv4Addr::LOCALHOST, 0).into(),
            listened: Instant::now(),
        };
        let child = &mut peer.child;
        read(host, child.stdout.take().expect("piped"), said.clone());
        read(host, child.stderr.take().expect("piped"), said.clone());
        let end = Instant::now() + LIMIT;
        let mut early = VecDeque::new();
        loop {
            let line = lines.next(end).expect("it listens soon");
            let port = line.text.strip_prefix("{\"event\":\"listening\"");
            let port = port.and_then(|rest| rest.split("\"port\":").nth(1));
            if let (Some(port), true) = (port, line.host == host) {
                let digits: String = port.chars().take_while(char::is_ascii_digit).collect();
                peer.addr.set_port(digits.parse().expect("a port"));
                peer.listened = line.at;
                lines.early = early;
                return peer;
            }
            early.push_back(line);
        }
    }

    fn ask_to_leave(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let signal = rustix::process::Signal::TERM;
        rustix::process::kill_process(pid, signal).expect("it runs");
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

/// Hands on what is written, line by line, as it comes.
fn read(host: usize, stream: impl Read + Send + 'static, said: Sender<Line>) {
    std::thread::spawn(move || {
        for text in BufReader::new(stream).lines().map_while(Result::ok) {
            let at = Instant::now();
            if said.send(Line { at, host, text }).is_err() {
                return;
            }
        }
    });
}

/// A small file and its torrent.
fn content(root: &Path) -> PathBuf {
    let mut rng = Rng::new(7);
    let bytes: Vec<u8> = (0..LEN).map(|_| rng.next_u64() as u8).collect();
    let file = root.join("content");
    std::fs::write(&file, bytes).expect("the folder is ours");
    let torrent = root.join("content.torrent");
    let mut command = Command::new(env!("CARGO_BIN_EXE_evpeer"));
    command.arg("create").arg(&file).arg("-o").arg(&torrent);
    let output = command.output().expect("it was built");
    assert!(output.status.success(), "{output:?}");
    torrent
}
