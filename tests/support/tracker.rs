//! An HTTP tracker on a thread: answers `/announce` with everybody else it has heard of.
//!
//! Only as much as clients need to find each other (BEP 3, BEP 23), IPv4 only. A test has one
//! torrent a tracker, so all announcers are one swarm.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// A tracker that runs until it is dropped.
pub struct Tracker {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

/// One announce as the tracker understood it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announce {
    /// The info hash as it stood in the query, percent-encoded.
    pub info_hash: String,
    /// Where the announcer can be reached.
    pub peer: SocketAddrV4,
    /// `started`, `completed`, `stopped`, or empty.
    pub event: String,
    /// Bytes that it has still to get.
    pub left: u64,
}

#[derive(Default)]
struct Shared {
    announces: Mutex<Vec<Announce>>,
    swarm: Mutex<Vec<SocketAddrV4>>,
    homes: Mutex<BTreeMap<u16, Ipv4Addr>>,
    is_closing: AtomicBool,
}

impl Tracker {
    /// Starts one on a free port of `ip`.
    pub fn start(ip: Ipv4Addr) -> Self {
        let listener = TcpListener::bind((ip, 0)).expect("the address is ours");
        let address = listener
            .local_addr()
            .expect("a bound socket has an address");
        let shared = Arc::new(Shared::default());
        let acceptor = {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || accept(&listener, &shared))
        };
        Self {
            address,
            shared,
            acceptor: Some(acceptor),
        }
    }

    /// The announce URL.
    pub fn url(&self) -> String {
        format!("http://{}/announce", self.address)
    }

    /// Whoever announces `port` is at `ip`, whatever address its request comes from: clients that
    /// cannot be bound to an address announce from the first one of the interface.
    pub fn place(&self, peer: SocketAddrV4) {
        self.shared
            .homes
            .lock()
            .expect("no holder panics")
            .insert(peer.port(), *peer.ip());
    }

    /// All announces so far.
    pub fn announces(&self) -> Vec<Announce> {
        self.shared
            .announces
            .lock()
            .expect("no holder panics")
            .clone()
    }
}

impl Drop for Tracker {
    fn drop(&mut self) {
        self.shared.is_closing.store(true, Ordering::Release);
        drop(TcpStream::connect(self.address)); // wakes the acceptor
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.is_closing.load(Ordering::Acquire) {
            return;
        }
        let Ok(stream) = stream else { continue };
        let shared = Arc::clone(shared);
        // A client that stalls holds up nobody but itself.
        std::thread::spawn(move || drop(answer(&stream, &shared)));
    }
}

fn answer(mut stream: &TcpStream, shared: &Shared) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Ok(());
        }
    }
    let body = match parse(&head, stream.peer_addr()?.ip(), shared) {
        Some(announce) => reply(announce, shared),
        None => b"d14:failure reason12:bad announcee".to_vec(),
    };
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(&body)
}

fn parse(head: &str, from: IpAddr, shared: &Shared) -> Option<Announce> {
    let target = head.split(' ').nth(1)?;
    let query = target.strip_prefix("/announce?")?;
    let fields: BTreeMap<&str, &str> = query
        .split('&')
        .filter_map(|field| field.split_once('='))
        .collect();
    let port: u16 = fields.get("port")?.parse().ok()?;
    let home = shared
        .homes
        .lock()
        .expect("no holder panics")
        .get(&port)
        .copied();
    let ip = match (home, from) {
        (Some(home), _) => home,
        (None, IpAddr::V4(ip)) => ip,
        (None, IpAddr::V6(_)) => return None,
    };
    Some(Announce {
        info_hash: fields.get("info_hash")?.to_ascii_lowercase(),
        peer: SocketAddrV4::new(ip, port),
        event: fields.get("event").unwrap_or(&"").to_string(),
        left: fields
            .get("left")
            .and_then(|left| left.parse().ok())
            .unwrap_or(0),
    })
}

fn reply(announce: Announce, shared: &Shared) -> Vec<u8> {
    let mut swarm = shared.swarm.lock().expect("no holder panics");
    swarm.retain(|peer| *peer != announce.peer);
    let mut peers = Vec::new();
    for peer in swarm.iter() {
        peers.extend(peer.ip().octets());
        peers.extend(peer.port().to_be_bytes());
    }
    if announce.event != "stopped" {
        swarm.push(announce.peer);
    }
    shared
        .announces
        .lock()
        .expect("no holder panics")
        .push(announce);
    let interval = INTERVAL.as_secs();
    let mut body =
        format!("d8:intervali{interval}e12:min intervali{interval}e5:peers").into_bytes();
    body.extend(format!("{}:", peers.len()).bytes());
    body.extend(peers);
    body.push(b'e');
    body
}

/// How often announcers are told to come back.
const INTERVAL: Duration = Duration::from_secs(5);
