//! A world in which engines exchange a torrent without a socket, a file or a clock.
//!
//! Real wire bytes go through the real [`Engine`] and the real [`Storage`]; only what is below
//! them is simulated: virtual time, streams with latency and a rate ([`net`]), a disk in memory
//! ([`disk`]). Every run with the same seed is the same run, to the last byte: [`World::digest`]
//! sums up all that happened.
//!
//! ```text
//!  heap of events (time, number) ──▶ host: engine + storage ──▶ actions, jobs ──▶ new events
//! ```

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::base::digest::sha1;
use crate::base::id::{ConnId, PeerId};
use crate::base::limits;
use crate::base::plan::WritePlan;
use crate::base::rng::Rng;
use crate::base::time::Instant;
use crate::config::{Config, StorageKind};
use crate::engine::{Action, Engine, HostPort, Report, Secrets, TorrentSpec};
use crate::meta::metainfo::Metainfo;
use crate::storage::{Access, Lent, Pace, Storage, StorageOptions};

pub mod disk;
mod event;
mod host;
pub mod net;

use disk::Disk;
use event::{Event, Scheduled};
use host::{Host, address, apply, tell};
use net::{Network, StreamId};

/// A host of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(pub u32);

/// What a host has of the torrent when it joins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Have {
    /// Every byte.
    All,
    /// No file.
    Nothing,
}

/// A host's line, the same for all.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// Time from one host to another.
    pub latency: Duration,
    /// What a host can send, bytes per second.
    pub bytes_per_sec: u64,
}

/// Hosts, their streams and the time.
pub struct World {
    now: Instant,
    rng: Rng,
    hosts: Vec<Host>,
    network: Network,
    events: BinaryHeap<Reverse<Scheduled>>,
    scheduled: u64,
    meta: Arc<Metainfo>,
    content: Arc<[u8]>,
    digest: [u8; 20],
    steps: u64,
}

impl World {
    /// A world in which `meta`, with `content` as its bytes, is exchanged over lines like `link`.
    ///
    /// # Panics
    /// If the content is not as long as the torrent.
    pub fn new(rng_seed: u64, link: Link, meta: Arc<Metainfo>, content: Arc<[u8]>) -> Self {
        assert_eq!(meta.geometry().length(), content.len() as u64);
        Self {
            now: Instant::from_micros(1),
            rng: Rng::new(rng_seed),
            hosts: Vec::new(),
            network: Network::new(link),
            events: BinaryHeap::new(),
            scheduled: 0,
            meta,
            content,
            digest: [0; 20],
            steps: 0,
        }
    }

    /// A host joins and is told of `peers`.
    pub fn add_peer(&mut self, have: Have, peers: &[HostId]) -> HostId {
        let id = HostId(self.hosts.len() as u32);
        let addr = address(id);
        let mut random = [0; 12];
        random
            .iter_mut()
            .for_each(|byte| *byte = self.rng.next_u64() as u8);
        let secrets = Secrets {
            rng_seed: self.rng.next_u64(),
            peer_id: PeerId::ours(random),
            key: self.rng.next_u64() as u32,
        };
        let config = Config {
            port: addr.port(),
            storage: StorageKind::Pwrite,
            ..Config::default()
        };
        let mut engine = Engine::new(config, secrets, self.now);
        engine.listening(addr.port());
        let host_port = |peer: &HostId| {
            let addr = address(*peer);
            HostPort {
                host: addr.ip().to_string(),
                port: addr.port(),
            }
        };
        let spec = TorrentSpec {
            meta: Arc::clone(&self.meta),
            peers: peers.iter().map(host_port).collect(),
            trackers: Vec::new(),
        };
        let torrent = engine
            .add_torrent(spec, self.now)
            .expect("a new engine has no torrent");
        let mut disk = Disk::new(Rng::new(self.rng.next_u64()));
        if have == Have::All {
            disk.fill(&self.meta, &self.content);
        }
        let options = StorageOptions {
            root: PathBuf::from("/"),
            kind: StorageKind::Pwrite,
            access: Access::ReadWrite,
            windows_len_max: limits::WINDOWS_LEN_MAX,
        };
        self.hosts.push(Host {
            engine,
            storage: Storage::new(options),
            disk,
            addr,
            torrent,
            streams: BTreeMap::new(),
            reports: Vec::new(),
            waiting: Vec::new(),
            timer: Instant::NEVER,
        });
        self.attend(id);
        id
    }

    /// Virtual time.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Events so far.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// A digest of every event so far: the same for the same seed.
    pub fn digest(&self) -> String {
        crate::base::id::hex(&self.digest)
    }

    /// Share of the torrent that a host has verified, from 0 to 1.
    pub fn progress(&mut self, host: HostId) -> f64 {
        let now = self.now;
        let host = &mut self.hosts[host.0 as usize];
        let snapshot = host
            .engine
            .snapshot(host.torrent, now)
            .expect("the torrent is there");
        snapshot.done_bytes as f64 / snapshot.length as f64
    }

    /// Payload that a host has sent and received, bytes.
    pub fn traffic(&mut self, host: HostId) -> (u64, u64) {
        let now = self.now;
        let host = &mut self.hosts[host.0 as usize];
        let snapshot = host
            .engine
            .snapshot(host.torrent, now)
            .expect("the torrent is there");
        (snapshot.up_bytes, snapshot.down_bytes)
    }

    /// What a host told its user.
    pub fn reports(&self, host: HostId) -> &[Report] {
        &self.hosts[host.0 as usize].reports
    }

    /// Whether the files on a host's disk are the torrent's content, byte for byte.
    pub fn is_content_right(&self, host: HostId) -> bool {
        self.hosts[host.0 as usize]
            .disk
            .holds(&self.meta, &self.content)
    }

    /// Lets time pass until `done` holds or `limit` has passed; whether it held.
    pub fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        let end = self.now + limit;
        while !done(self) {
            match self.events.peek() {
                Some(Reverse(next)) if next.at <= end => {}
                _ => {
                    self.now = end;
                    return done(self);
                }
            }
            let Reverse(next) = self.events.pop().expect("peeked above");
            self.now = next.at;
            self.step(next.event);
        }
        true
    }

    /// The power of a host goes: its streams end, it does nothing more.
    pub fn cut(&mut self, host: HostId) {
        let streams = std::mem::take(&mut self.hosts[host.0 as usize].streams);
        for stream in streams.into_values() {
            self.end_stream(stream, host);
        }
        self.hosts[host.0 as usize].timer = Instant::ZERO;
        self.network.vanish(address(host));
    }

    fn schedule(&mut self, at: Instant, event: Event) {
        self.scheduled += 1;
        self.events.push(Reverse(Scheduled {
            at,
            number: self.scheduled,
            event,
        }));
    }

    /// Notes what happens, for the digest.
    fn trace(&mut self, what: &str, bytes: &[u8]) {
        let line = format!("{} {what} ", self.now);
        let parts = [&self.digest[..], line.as_bytes(), bytes].concat();
        self.digest = sha1(&parts);
        self.steps += 1;
    }

    fn step(&mut self, event: Event) {
        let now = self.now;
        let host = match event {
            Event::Arrive(host, stream) => {
                self.trace(&format!("arrive {host:?} {stream:?}"), &[]);
                self.arrive(host, stream);
                host
            }
            Event::Established(host, conn) => {
                let to = &mut self.hosts[host.0 as usize];
                to.engine.connected(conn, to.addr, now);
                host
            }
            Event::Refused(host, conn) => {
                let to = &mut self.hosts[host.0 as usize];
                to.streams.remove(&conn);
                to.engine.closed(conn, "connection refused", now);
                host
            }
            Event::Deliver(stream, side) => match self.deliver(stream, side) {
                Some(host) => host,
                None => return,
            },
            Event::Ended(stream, side) => {
                let Some((host, conn)) = self.network.end_of(stream, side) else {
                    return;
                };
                self.hosts[host.0 as usize].streams.remove(&conn);
                self.hosts[host.0 as usize].engine.end_of_stream(conn, now);
                host
            }
            Event::Timer(host) => {
                let to = &mut self.hosts[host.0 as usize];
                if to.timer != now {
                    return; // another one was set since
                }
                to.timer = Instant::NEVER;
                to.engine.timers_fired(now);
                host
            }
            Event::Disk(host, done) => {
                self.hosts[host.0 as usize].storage.job_done(*done);
                host
            }
        };
        self.attend(host);
    }

    fn arrive(&mut self, host: HostId, stream: StreamId) {
        let from = self.network.dialler_address(stream);
        let to = &mut self.hosts[host.0 as usize];
        match to.engine.accepted(from, to.addr, self.now) {
            Some(conn) => {
                to.streams.insert(conn, stream);
                self.network.accept(stream, host, conn);
                let (dialler, conn) = self.network.dialler(stream);
                let at = self.now + self.network.latency();
                self.schedule(at, Event::Established(dialler, conn));
            }
            None => {
                let (dialler, conn) = self.network.dialler(stream);
                self.network.close(stream);
                let at = self.now + self.network.latency();
                self.schedule(at, Event::Refused(dialler, conn));
            }
        }
    }

    /// Hands the bytes at the front of a stream to the engine at its other end.
    fn deliver(&mut self, stream: StreamId, side: net::Side) -> Option<HostId> {
        let bytes = self.network.take(stream, side)?;
        self.trace(&format!("deliver {stream:?} {side:?}"), &bytes);
        let (sender, sending_conn) = self.network.end_of(stream, side.other())?;
        self.hosts[sender.0 as usize].waiting.push(sending_conn);
        self.wake(sender);
        let (host, conn) = self.network.end_of(stream, side)?;
        let now = self.now;
        let to = &mut self.hosts[host.0 as usize];
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let taken = to.engine.received(conn, rest, now);
            if let Some(slot) = taken.store {
                to.storage
                    .store(slot, &rest[taken.used - slot.len as usize..taken.used]);
            }
            rest = &rest[taken.used..];
        }
        Some(host)
    }

    /// Does all that a host wants done at this moment.
    fn attend(&mut self, id: HostId) {
        loop {
            let mut idle = true;
            while let Some(action) = self.hosts[id.0 as usize].engine.poll_action() {
                idle = false;
                self.act(id, action);
            }
            let host = &mut self.hosts[id.0 as usize];
            while let Some(job) = host.storage.poll_job() {
                let (done, delay) = host.disk.run(job);
                self.scheduled += 1;
                let number = self.scheduled;
                let event = Event::Disk(id, Box::new(done));
                self.events.push(Reverse(Scheduled {
                    at: self.now + delay,
                    number,
                    event,
                }));
            }
            idle &= host.storage.work(u64::MAX, Pace::AtOnce) == 0;
            while let Some(event) = host.storage.poll_event() {
                idle = false;
                tell(host, event, self.now);
            }
            if idle {
                break;
            }
        }
        self.wake(id);
        let host = &mut self.hosts[id.0 as usize];
        if let Some(at) = host.engine.next_deadline()
            && at < host.timer
        {
            host.timer = at.max(self.now + Duration::from_micros(1));
            let at = host.timer;
            self.schedule(at, Event::Timer(id));
        }
    }

    /// Lets every stream that waits try to write.
    fn wake(&mut self, id: HostId) {
        for conn in std::mem::take(&mut self.hosts[id.0 as usize].waiting) {
            self.write(id, conn);
        }
    }

    fn act(&mut self, id: HostId, action: Action) {
        match action {
            Action::Connect { conn, remote } => self.connect(id, conn, remote),
            Action::Close { conn } => {
                if let Some(stream) = self.hosts[id.0 as usize].streams.remove(&conn) {
                    self.end_stream(stream, id);
                }
            }
            Action::Flush { conn } => self.write(id, conn),
            Action::Resolve { lookup, .. } => {
                let answer = Err("this world has no names".to_owned());
                self.hosts[id.0 as usize]
                    .engine
                    .resolved(lookup, answer, self.now);
            }
            Action::Storage(action) => apply(&mut self.hosts[id.0 as usize].storage, action),
            Action::Report(report) => self.hosts[id.0 as usize].reports.push(report),
        }
    }

    fn connect(&mut self, id: HostId, conn: ConnId, remote: SocketAddr) {
        let at = self.now + self.network.latency();
        match self
            .network
            .host_at(remote)
            .filter(|host| (host.0 as usize) < self.hosts.len())
        {
            Some(host) => {
                let stream = self.network.open(id, conn, address(id));
                self.hosts[id.0 as usize].streams.insert(conn, stream);
                self.schedule(at, Event::Arrive(host, stream));
            }
            None => {
                let at = at + self.network.latency();
                self.schedule(at, Event::Refused(id, conn));
            }
        }
    }

    fn end_stream(&mut self, stream: StreamId, by: HostId) {
        if let Some(side) = self.network.shut(stream, by) {
            let at = self.network.last_arrival(stream, side, self.now);
            self.schedule(at, Event::Ended(stream, side));
        }
    }

    /// Moves what a connection wants to write into its stream, as far as that has room.
    fn write(&mut self, id: HostId, conn: ConnId) {
        let Some(&stream) = self.hosts[id.0 as usize].streams.get(&conn) else {
            return;
        };
        let Some(side) = self.network.side_towards_other(stream, id, conn) else {
            return;
        };
        let mut plan = WritePlan::default();
        loop {
            let room = self.network.room(stream, side);
            if room == 0 {
                return;
            }
            plan.clear();
            let host = &mut self.hosts[id.0 as usize];
            host.engine.write_plan(conn, &mut plan);
            if plan.is_empty() {
                return;
            }
            let lent = host.storage.lend(&plan, |slices| {
                slices
                    .iter()
                    .flat_map(|slice| slice.iter().copied())
                    .take(room)
                    .collect::<Vec<u8>>()
            });
            let Lent::Done(bytes) = lent else {
                host.waiting.push(conn);
                return;
            };
            host.engine.sent(conn, bytes.len(), self.now);
            let at = self.network.send(stream, side, id, bytes, self.now);
            self.schedule(at, Event::Deliver(stream, side));
        }
    }
}
