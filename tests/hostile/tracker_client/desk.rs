//! An engine with one torrent, and whoever its trackers are: the test answers for the resolver,
//! the streams and the datagrams, and moves the clock.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use evpeer::base::address::{Interface, Interfaces};
use evpeer::base::bits::Bitfield;
use evpeer::base::id::{ConnId, PeerId};
use evpeer::base::plan::WritePlan;
use evpeer::base::time::Instant;
use evpeer::config::Config;
use evpeer::engine::{
    Action, Engine, LookupId, OnDisk, PLAN_LEN, Report, Secrets, StorageAction, TorrentSpec,
};
use evpeer::meta::create::{CreateOptions, Creator, NewFile};
use evpeer::meta::metainfo::Metainfo;

/// The engine and what it did.
pub struct Desk {
    pub engine: Engine,
    pub now: Instant,
    /// What the resolver says; it never answers for other names.
    pub names: BTreeMap<String, Vec<IpAddr>>,
    /// Names that nobody has answered for.
    pub asked: Vec<(LookupId, String)>,
    /// Streams that were dialled, in order, and when.
    pub dialled: Vec<(ConnId, SocketAddr, Instant)>,
    /// Streams that the engine closed.
    pub closed: Vec<ConnId>,
    /// What the engine wrote on each stream.
    pub written: BTreeMap<ConnId, Vec<u8>>,
    /// Datagrams that left.
    pub datagrams: Vec<(SocketAddr, Vec<u8>)>,
    pub reports: Vec<Report>,
}

impl Desk {
    /// A leecher at 10.0.0.99/24 whose torrent has these trackers, a tier each; it has asked for
    /// their names.
    pub fn new(trackers: &[&str]) -> Self {
        let now = Instant::from_micros(1_000_000);
        let secrets = Secrets {
            rng_seed: 78,
            peer_id: PeerId(*b"-EV0100-hostile-row-"),
            key: 0xbeef,
            tracker: [7; 16],
        };
        let config = Config {
            lsd: false,
            ..Config::default()
        };
        let mut engine = Engine::new(config, secrets, now);
        engine.listening(6881, now);
        let own = Interface {
            index: 2,
            ip: IpAddr::from([10, 0, 0, 99]),
            prefix_len: 24,
        };
        engine.interfaces_found(Interfaces::new(vec![own]), now);
        let spec = TorrentSpec {
            meta: metainfo(),
            peers: Vec::new(),
            trackers: trackers.iter().map(|&url| url.to_owned()).collect(),
            choice: evpeer::base::choice::Choice::default(),
        };
        engine.add_torrent(spec, now).expect("the only one");
        let mut desk = Self {
            engine,
            now,
            names: BTreeMap::new(),
            asked: Vec::new(),
            dialled: Vec::new(),
            closed: Vec::new(),
            written: BTreeMap::new(),
            datagrams: Vec::new(),
            reports: Vec::new(),
        };
        desk.drain();
        desk.pass(Duration::ZERO);
        desk
    }

    /// Lets time pass.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.engine.next_deadline()
            && at <= end
        {
            self.now = self.now.max(at);
            self.engine.timers_fired(self.now);
            self.drain();
        }
        self.now = end;
        self.engine
            .audit(self.now)
            .unwrap_or_else(|what| panic!("{what}"));
    }

    /// Answers the resolver's oldest question that is open.
    pub fn resolve(&mut self, answer: Result<Vec<SocketAddr>, String>) {
        let (lookup, _) = self.asked.remove(0);
        self.engine.resolved(lookup, answer, self.now);
        self.drain();
    }

    /// The stream that was dialled last is established; what was asked on it.
    pub fn connect(&mut self) -> ConnId {
        let (conn, remote, _) = *self.dialled.last().expect("somebody was dialled");
        let own = match remote {
            SocketAddr::V4(_) => SocketAddr::from(([10, 0, 0, 99], 50_000)),
            SocketAddr::V6(_) => "[fd00::99]:50000".parse().expect("an address"),
        };
        self.engine.connected(conn, own, self.now);
        self.drain();
        assert!(self.request(conn).starts_with("GET /"), "it asks");
        conn
    }

    /// The stream that was dialled last comes to nothing.
    pub fn refuse(&mut self) {
        let (conn, ..) = *self.dialled.last().expect("somebody was dialled");
        self.engine.closed(conn, "connection refused", self.now);
        self.drain();
    }

    /// What was asked on a stream.
    pub fn request(&self, conn: ConnId) -> String {
        let written = self.written.get(&conn).cloned().unwrap_or_default();
        String::from_utf8(written).expect("a request is ASCII")
    }

    /// Bytes of a tracker; how many of them were taken before the stream was closed.
    pub fn say(&mut self, conn: ConnId, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() && self.is_open(conn) {
            let taken = self.engine.received(conn, rest, self.now);
            assert_eq!(taken.store, None);
            rest = &rest[taken.used..];
            self.drain();
        }
    }

    /// A whole response with this body; the tracker closes the stream.
    pub fn respond(&mut self, conn: ConnId, status: u16, fields: &str, body: &[u8]) {
        let len = body.len();
        let head = format!("HTTP/1.1 {status} So\r\n{fields}Content-Length: {len}\r\n\r\n");
        self.say(conn, &[head.as_bytes(), body].concat());
        if self.is_open(conn) {
            self.engine.end_of_stream(conn, self.now);
            self.drain();
        }
    }

    /// A datagram comes in.
    pub fn deliver(&mut self, from: SocketAddr, bytes: &[u8]) {
        self.engine.datagram(from, None, bytes, self.now);
        self.drain();
    }

    pub fn is_open(&self, conn: ConnId) -> bool {
        !self.closed.contains(&conn)
    }

    /// What was reported of trackers that failed, and forgets it.
    pub fn failures(&mut self) -> Vec<String> {
        let reports = std::mem::take(&mut self.reports).into_iter();
        let failure = |report| match report {
            Report::TrackerFailed { message, .. } => Some(message),
            _ => None,
        };
        reports.filter_map(failure).collect()
    }

    /// Peers that the trackers which answered named, and forgets it.
    pub fn answers(&mut self) -> Vec<u32> {
        let reports = std::mem::take(&mut self.reports).into_iter();
        let answer = |report| match report {
            Report::TrackerAnswered { peers, .. } => Some(peers),
            _ => None,
        };
        reports.filter_map(answer).collect()
    }

    /// When streams to this host were dialled.
    pub fn dials_of(&self, ip: IpAddr) -> Vec<Instant> {
        let of = self.dialled.iter().filter(|(_, to, _)| to.ip() == ip);
        of.map(|(.., at)| *at).collect()
    }

    /// Does what the engine asks for.
    fn drain(&mut self) {
        while let Some(action) = self.engine.poll_action() {
            match action {
                Action::Connect { conn, remote } => self.dialled.push((conn, remote, self.now)),
                Action::Close { conn } => self.closed.push(conn),
                Action::Flush { conn } => self.write(conn),
                Action::Datagram { to, bytes, .. } => self.datagrams.push((to, bytes.to_vec())),
                Action::Resolve { lookup, host, port } => self.look_up(lookup, host, port),
                Action::Storage(StorageAction::Open { torrent, meta, .. }) => {
                    let none = Bitfield::new(meta.geometry().piece_count());
                    self.engine
                        .scanned(torrent, OnDisk::unknown(none), self.now);
                }
                Action::Storage(_)
                | Action::Multicast { .. }
                | Action::Read { .. }
                | Action::BoundBuffer { .. } => {}
                Action::Report(report) => self.reports.push(report),
            }
        }
    }

    fn look_up(&mut self, lookup: LookupId, host: String, port: u16) {
        let addresses = match host.parse::<IpAddr>() {
            Ok(ip) => Some(vec![ip]),
            Err(_) => self.names.get(&host).cloned(),
        };
        match addresses {
            Some(ips) => {
                let addresses = ips.iter().map(|&ip| SocketAddr::new(ip, port)).collect();
                self.engine.resolved(lookup, Ok(addresses), self.now);
            }
            None => self.asked.push((lookup, host)),
        }
    }

    fn write(&mut self, conn: ConnId) {
        let mut plan = WritePlan::default();
        self.engine.write_plan(conn, PLAN_LEN, &mut plan);
        let written = self.written.entry(conn).or_default();
        written.extend_from_slice(&plan.scratch);
        self.engine.sent(conn, plan.len, self.now);
    }
}

fn metainfo() -> Arc<Metainfo> {
    let options = CreateOptions {
        name: "content".to_owned(),
        files: vec![NewFile {
            path: vec!["content".to_owned()],
            len: 100_000,
            executable: false,
        }],
        piece_len: Some(32 * 1024),
        ..CreateOptions::default()
    };
    let mut creator = Creator::new(options).expect("the options are sound");
    creator.feed(&[7; 100_000]).expect("as long as said");
    let bytes = creator.finish().expect("all of it was fed");
    Arc::new(Metainfo::from_bytes(&bytes).expect("what is created can be read"))
}
