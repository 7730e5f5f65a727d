//! The tracker: announces by datagram and HTTP, scrapes; of one swarm of 1,000 peers, and of
//! 10,000 swarms of 10.
//!
//! Every peer announces itself again, asks for 50 others and gets them; the system calls around
//! that are not in here. What is measured is CPU time: it is what a tracker takes from a transfer,
//! and a busy machine disturbs it less.

use std::hint::black_box;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use evpeer::base::address::{Interface, Interfaces};
use evpeer::base::id::{InfoHash, PeerId};
use evpeer::base::time::Instant;
use evpeer::tracker::asker::Asker;
use evpeer::tracker::budget::Rates;
use evpeer::tracker::registry::{Openness, Terms};
use evpeer::tracker::secret::Secret;
use evpeer::tracker::server::{HttpReply, Server};
use evpeer::wire::request::RequestReader;
use evpeer::wire::udp_tracker::{Reply, Request, UdpAnnounce};
use evpeer::wire::url::percent_encode;
use rustix::time::{ClockId, clock_gettime};

/// Swarms, and peers of each.
const SHAPES: [(u32, u32); 2] = [(1, 1000), (10_000, 10)];

fn tracker(c: &mut Criterion<CpuTime>) {
    let mut group = c.benchmark_group("tracker");
    group.throughput(Throughput::Elements(1));
    for (swarms, peers) in SHAPES {
        let shape = format!("{swarms}x{peers}");
        let mut stage = Stage::new(swarms, peers);
        let datagrams = stage.datagrams();
        let mut next = datagrams.iter().cycle();
        group.bench_function(BenchmarkId::new("datagram", &shape), |b| {
            b.iter(|| {
                let (from, bytes) = next.next().expect("a cycle");
                let reply = stage.datagram(*from, black_box(bytes));
                assert!(reply > 20);
            });
        });
        for connection in ["keep-alive", "close"] {
            let requests = stage.requests("/announce", connection);
            let mut next = requests.iter().cycle();
            let id = BenchmarkId::new(format!("http announce, {connection}"), &shape);
            group.bench_function(id, |b| {
                b.iter(|| {
                    let (from, text) = next.next().expect("a cycle");
                    assert!(stage.http(*from, black_box(text)) > 200);
                });
            });
        }
        let requests = stage.requests("/scrape", "keep-alive");
        let mut next = requests.iter().cycle();
        group.bench_function(BenchmarkId::new("http scrape", &shape), |b| {
            b.iter(|| {
                let (from, text) = next.next().expect("a cycle");
                assert!(stage.http(*from, black_box(text)) > 100);
            });
        });
        let scrape = stage.scrape();
        group.bench_function(BenchmarkId::new("scrape of 74", &shape), |b| {
            b.iter(|| {
                let reply = stage.datagram(host(0), black_box(&scrape));
                assert_eq!(reply, 8 + 12 * 74);
            });
        });
    }
    group.finish();
}

/// A server whose peers have all announced themselves once.
struct Stage {
    server: Server,
    interfaces: Interfaces,
    now: Instant,
    swarms: u32,
    peers: u32,
}

impl Stage {
    fn new(swarms: u32, peers: u32) -> Self {
        let mut server = Server::new(Secret::new([7; 16]), Openness::Closed);
        server.set_rates(Rates {
            on_link: u32::MAX,
            on_link_host: u32::MAX,
            ..Rates::BESIDE_TORRENTS
        });
        let now = Instant::from_micros(1_000_000);
        for swarm in 0..swarms {
            server.registry.track(hash(swarm), Terms::default(), now);
        }
        let interface = Interface {
            index: 2,
            ip: IpAddr::from([10, 255, 0, 1]),
            prefix_len: 8,
        };
        let mut stage = Self {
            server,
            interfaces: Interfaces::new(vec![interface]),
            now,
            swarms,
            peers,
        };
        for (from, bytes) in stage.datagrams() {
            stage.datagram(from, &bytes);
        }
        stage
    }

    /// An announce of every peer in every swarm, swarm after swarm of one peer.
    fn datagrams(&mut self) -> Vec<(SocketAddr, Vec<u8>)> {
        let mut all = Vec::new();
        for peer in 0..self.peers {
            let connection = self.connect(host(peer));
            for swarm in 0..self.swarms {
                let mut bytes = Vec::new();
                Request::Announce {
                    connection,
                    transaction: 1,
                    announce: UdpAnnounce {
                        info_hash: hash(swarm),
                        peer_id: id(peer),
                        downloaded: 0,
                        left: u64::from(peer % 4),
                        uploaded: 0,
                        event: None,
                        is_paused: false,
                        ip: None,
                        key: peer,
                        numwant: Some(50),
                        port: 6881,
                    },
                    url_data: "",
                }
                .encode(&mut bytes);
                all.push((host(peer), bytes));
            }
        }
        all
    }

    fn requests(&self, path: &str, connection: &str) -> Vec<(SocketAddr, Vec<u8>)> {
        let mut all = Vec::new();
        for peer in 0..self.peers {
            for swarm in 0..self.swarms {
                let text = format!(
                    "GET {path}?info_hash={}&peer_id={}&port=6881&uploaded=0&downloaded=0\
                     &left={}&corrupt=0&key={peer:08X}&numwant=50&compact=1&no_peer_id=1 HTTP/1.1\
                     \r\nHost: 10.255.0.1:6881\r\nUser-Agent: libtorrent/2.0\r\n\
                     Accept-Encoding: gzip\r\nConnection: {connection}\r\n\r\n",
                    percent_encode(&hash(swarm).0),
                    percent_encode(&id(peer).0),
                    peer % 4,
                );
                all.push((host(peer), text.into_bytes()));
            }
        }
        all
    }

    fn scrape(&mut self) -> Vec<u8> {
        let connection = self.connect(host(0));
        let hashes: Vec<_> = (0..74).map(|n| hash(n * 131 % self.swarms).0).collect();
        let mut bytes = Vec::new();
        Request::Scrape {
            connection,
            transaction: 1,
            hashes: &hashes,
        }
        .encode(&mut bytes);
        bytes
    }

    fn connect(&mut self, from: SocketAddr) -> u64 {
        let mut bytes = Vec::new();
        Request::Connect { transaction: 1 }.encode(&mut bytes);
        let asker = Asker {
            remote: from,
            local: None,
            interfaces: &self.interfaces,
            links: None,
        };
        let reply = self.server.datagram(&bytes, &asker, self.now);
        match Reply::decode(&reply.expect("a connection id")) {
            Ok(Reply::Connect { connection, .. }) => connection,
            other => panic!("{other:?}"),
        }
    }

    /// The length of the answer.
    fn datagram(&mut self, from: SocketAddr, bytes: &[u8]) -> usize {
        self.now += Duration::from_micros(1);
        let asker = Asker {
            remote: from,
            local: Some(IpAddr::from([10, 255, 0, 1])),
            interfaces: &self.interfaces,
            links: None,
        };
        let reply = self.server.datagram(bytes, &asker, self.now);
        while let Some(event) = self.server.poll_event() {
            black_box(event);
        }
        black_box(reply.expect("a reply")).len()
    }

    /// The same, of a request that is read first.
    fn http(&mut self, from: SocketAddr, text: &[u8]) -> usize {
        self.now += Duration::from_micros(1);
        let asker = Asker {
            remote: from,
            local: Some(IpAddr::from([10, 255, 0, 1])),
            interfaces: &self.interfaces,
            links: None,
        };
        let (_, request) = RequestReader::default().received(text).expect("a request");
        let request = request.expect("a whole request");
        let reply = self.server.http(&request, &asker, self.now);
        while let Some(event) = self.server.poll_event() {
            black_box(event);
        }
        match black_box(reply) {
            HttpReply::Whole { bytes, .. } => bytes.len(),
            HttpReply::Torrent(info_hash) => panic!("the torrent of {info_hash}"),
        }
    }
}

fn host(peer: u32) -> SocketAddr {
    let [_, _, high, low] = peer.to_be_bytes();
    SocketAddr::new(IpAddr::from([10, 1, high, low]), 6881)
}

fn hash(swarm: u32) -> InfoHash {
    InfoHash(evpeer::base::digest::sha1(&swarm.to_be_bytes()))
}

fn id(peer: u32) -> PeerId {
    let mut id = *b"-LT2000-............";
    id[8..12].copy_from_slice(&peer.to_be_bytes());
    PeerId(id)
}

/// The CPU time of this thread.
struct CpuTime;

impl Measurement for CpuTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        let spent = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(spent.tv_sec as u64, spent.tv_nsec as u32)
    }

    fn end(&self, begin: Duration) -> Duration {
        self.start() - begin
    }

    fn add(&self, a: &Duration, b: &Duration) -> Duration {
        *a + *b
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        value.as_nanos() as f64
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(CpuTime);
    targets = tracker
}
criterion_main!(benches);
