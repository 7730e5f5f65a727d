//! The tracker of a running peer, asked by sockets of the test's own: HTTP and UDP on one port.

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use support::data::DataSet;
use support::evpeer::{Evpeer, Setup};
use support::rawpeer::{Fast, RawPeer};
use support::torrent::HandMade;
use support::{folder, scratch, wait_for};

/// A seed of a small torrent, which tracks it too.
struct Seed {
    evpeer: Evpeer,
    torrent: HandMade,
    _scratch: tempfile::TempDir,
}

impl Seed {
    fn start(args: &[&str]) -> Self {
        let scratch = scratch();
        let set = DataSet::file(&folder(scratch.path(), "data"), "small", 100_000, 3);
        let torrent = HandMade::of(&set, 16 * 1024, None);
        let mut setup = Setup::new(&torrent.path, &set.folder);
        setup.args = args;
        let evpeer = Evpeer::start("seed", &setup);
        evpeer.wait_for_state("seeding", LIMIT);
        Self {
            evpeer,
            torrent,
            _scratch: scratch,
        }
    }

    fn at(&self) -> SocketAddr {
        self.evpeer.address
    }

    fn announce(&self, port: u16, more: &str) -> String {
        let hash: String = self.torrent.info_hash.map(|b| format!("%{b:02x}")).concat();
        format!(
            "GET /announce?info_hash={hash}&peer_id=-XX0001-{port:012}&port={port}\
             &uploaded=0&downloaded=0&left=9&compact=1{more} HTTP/1.1\r\nHost: x\r\n"
        )
    }
}

/// One response of a stream that stays open.
fn response(stream: &mut TcpStream) -> (String, Vec<u8>) {
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("a response");
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let len = head
        .lines()
        .find_map(|line| {
            line.to_ascii_lowercase()
                .strip_prefix("content-length:")?
                .trim()
                .parse()
                .ok()
        })
        .expect("responses say how long they are");
    let mut body = vec![0; len];
    stream.read_exact(&mut body).expect("the whole body");
    (head, body)
}

#[test]
fn requests_sent_at_once_are_answered_in_their_order() {
    let seed = Seed::start(&[]);
    let mut stream = TcpStream::connect(seed.at()).unwrap();
    let hash: String = seed.torrent.info_hash.map(|b| format!("{b:02x}")).concat();
    let mut all = String::new();
    for port in [7001, 7002] {
        all += &seed.announce(port, "");
        all += "\r\n";
    }
    all += &format!("GET /torrents/{hash}.torrent HTTP/1.1\r\nHost: x\r\n\r\n");
    all += "GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(all.as_bytes()).unwrap();

    let (head, body) = response(&mut stream);
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(
        body.windows(8).any(|w| w == b"8:interv"),
        "an announce's answer"
    );
    let (_, body) = response(&mut stream);
    let told = [127, 0, 0, 1, (7001u16 >> 8) as u8, 7001u16 as u8];
    assert!(
        body.windows(6).any(|w| w == told),
        "the first is told to the second"
    );
    let (_, body) = response(&mut stream);
    assert_eq!(
        body,
        fs::read(&seed.torrent.path).unwrap(),
        "the torrent file"
    );
    let (head, _) = response(&mut stream);
    assert!(head.starts_with("HTTP/1.1 404"), "{head}");
    assert_eq!(stream.read(&mut [0]).unwrap(), 0, "and the stream ends");
    seed.evpeer.leave();
}

/// Row 91 of the hostile inputs: a request that comes byte by byte has ten seconds.
#[test]
fn slow_request_ends_after_ten_seconds_and_hinders_nobody() {
    let seed = Seed::start(&[]);
    let begin = Instant::now();
    let mut slow = TcpStream::connect(seed.at()).unwrap();
    slow.set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    let request = seed.announce(7001, "");
    let mut bytes = request.bytes();
    loop {
        let _ = bytes.next().map(|byte| slow.write_all(&[byte]));
        match slow.read(&mut [0; 512]) {
            Ok(0) => break,
            Ok(_) => panic!("an answer to half a request"),
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
        assert!(begin.elapsed() < LIMIT, "it is still open");
    }
    let lasted = begin.elapsed();
    assert!(
        lasted >= Duration::from_secs(9),
        "it was given time: {lasted:?}"
    );
    seed.evpeer.leave();
}

/// Rows 54 and 91: streams that say nothing, or little, keep no peer out.
#[test]
fn silent_streams_keep_no_peer_out() {
    let seed = Seed::start(&[]);
    let mut silent = Vec::new();
    for n in 0..2000 {
        let mut stream = TcpStream::connect(seed.at()).unwrap();
        if n % 2 == 0 {
            let _ = stream.write_all(b"GET /announce?");
        }
        silent.push(stream);
    }
    let mut peer = RawPeer::dial(seed.at(), &seed.torrent.info_hash, Fast::Offered);
    peer.become_unchoked();
    peer.assert_serves(0, 0, seed.torrent.block(0, 0, 16 * 1024));
    seed.evpeer.leave();
}

#[test]
fn udp_answers_leave_from_the_address_that_was_asked() {
    let scratch = scratch();
    let mut command = std::process::Command::new(support::evpeer::BINARY);
    command
        .args(["--json", "--open-tracker", "--no-lsd", "-p", "0", "-o"])
        .arg(scratch.path());
    let process = support::process::Process::spawn("tracker", &mut command);
    let port = process.wait_for_line("a `listening` event", LIMIT, |line| {
        let event: serde_json::Value = serde_json::from_str(line).ok()?;
        u16::try_from(event["port"].as_u64()?).ok()
    });
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let asked = SocketAddr::from(([127, 0, 0, 2], port));

    // BEP 15: connect
    let connect = [
        0, 0, 4, 0x17, 0x27, 0x10, 0x19, 0x80, 0, 0, 0, 0, 9, 9, 9, 9,
    ];
    socket.send_to(&connect, asked).unwrap();
    let mut answer = [0; 100];
    let (len, from) = socket.recv_from(&mut answer).unwrap();
    assert_eq!((len, from), (16, asked));
    assert_eq!(answer[..8], [0, 0, 0, 0, 9, 9, 9, 9]);

    // BEP 29: a SYN of uTP is refused
    let mut syn = [0; 20];
    syn[..4].copy_from_slice(&[0x41, 0, 0x12, 0x34]);
    socket.send_to(&syn, asked).unwrap();
    let (len, from) = socket.recv_from(&mut answer).unwrap();
    assert_eq!((len, from), (20, asked));
    assert_eq!(answer[..4], [0x31, 0, 0x12, 0x34]);
}

#[test]
fn announced_peer_is_dialled() {
    let seed = Seed::start(&[]);
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut stream = TcpStream::connect(seed.at()).unwrap();
    let request = seed.announce(port, "&event=started") + "\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    response(&mut stream);
    listener.set_nonblocking(true).unwrap();
    let mut dialled = None;
    wait_for("it dials who announced", LIMIT, || {
        dialled = listener.accept().ok();
        dialled.is_some()
    });
    let (mut stream, _) = dialled.unwrap();
    stream.set_nonblocking(false).unwrap();
    let mut hello = [0; 48];
    stream.read_exact(&mut hello).unwrap();
    assert_eq!(hello[28..48], seed.torrent.info_hash);
    seed.evpeer.leave();
}

const LIMIT: Duration = Duration::from_secs(30);
