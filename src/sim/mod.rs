//! A world in which engines exchange a torrent without a socket, a file or a clock.
//!
//! Real wire bytes go through the real [`Engine`] and the real
//! [`Storage`](crate::storage::Storage); only what is below them is simulated: virtual time, lines
//! and streams ([`net`]), a disk in memory that fails as disks do ([`disk`]). Beside the engines
//! there may be [`actor`]s: foreign clients, trackers, attackers. Every run with the same seed is
//! the same run, to the last byte: [`World::digest`] sums up all that happened. [`judge`]s watch
//! every step.
//!
//! ```text
//!  heap of events (time, number) ──▶ host: engine + store ──▶ actions, jobs ──▶ new events
//!                    ▲                      │ bytes                  │
//!                    └──── lines, racks ◀───┴───────▶ judges ◀───────┘
//! ```
//!
//! | file | what is done there |
//! |---|---|
//! | `mod`, `spec`, `faults` | the face: hosts, time, what goes wrong |
//! | `run` | one event after the other, and what engines want done |
//! | `host`, `store`, `actor` | what runs on a host |
//! | `foreign`, `postman` | actors: clients that are not ours, attackers |
//! | `tracker`, `udp_tracker` | actors: trackers that tell the truth, lie, or are silent |
//! | `net` | streams, datagrams, lines, racks, islands |
//! | `disk` | files in memory |
//! | `judge`, `tap` | what must always hold |

use std::any::Any;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::base::bits::Bitfield;
use crate::base::choice::Choice;
use crate::base::id::PeerId;
use crate::base::rng::Rng;
use crate::base::time::Instant;
use crate::config::RateLimits;
use crate::config::session::KnownPeer;
use crate::engine::{Engine, HostPort, Report, Secrets, Snapshot, State, TorrentSpec};
use crate::meta::metainfo::Metainfo;

pub mod actor;
pub mod chance;
pub mod disk;
mod event;
mod faults;
pub mod forecast;
pub mod foreign;
mod host;
pub mod judge;
pub mod net;
pub mod postman;
mod run;
pub mod spec;
mod store;
pub mod tap;
mod trace;
pub mod tracker;
pub mod udp_tracker;

pub use judge::Failure;
pub use net::{Link, RackId, Uplink};
pub use spec::{Have, Judged, Payload, PeerSpec, tagged_torrent};

use actor::{Actor, Stage};
use disk::Disk;
use event::Events;
use host::{Host, Node, PeerNode, address, interfaces};
use judge::Judges;
use net::Network;
use store::{Store, Tagged};
use trace::Trace;

/// A host of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(pub u32);

/// Hosts, their streams and the time.
pub struct World {
    now: Instant,
    rng_seed: u64,
    rng: Rng,
    link: Link,
    hosts: Vec<Host>,
    network: Network,
    events: Events,
    meta: Arc<Metainfo>,
    payload: Payload,
    judges: Judges,
    trace: Trace,
    names: BTreeMap<String, Vec<SocketAddr>>,
    plan: crate::base::plan::WritePlan,
    /// Inputs that engines were given.
    inputs: u64,
    /// Hosts that said that they have everything.
    completed: u32,
}

impl World {
    /// A world in which `meta`, with `content` as its bytes, is exchanged over lines like `link`,
    /// strictly judged.
    ///
    /// # Panics
    /// If the content is not as long as the torrent.
    pub fn new(rng_seed: u64, link: Link, meta: Arc<Metainfo>, content: Arc<[u8]>) -> Self {
        assert_eq!(meta.geometry().length(), content.len() as u64);
        let payload = Payload::Real(content);
        Self::with(rng_seed, link, meta, payload, Judged::Strictly)
    }

    /// A world of many hosts, in which no payload is carried.
    pub fn tagged(rng_seed: u64, link: Link, meta: Arc<Metainfo>, judged: Judged) -> Self {
        Self::with(rng_seed, link, meta, Payload::Tagged, judged)
    }

    fn with(
        rng_seed: u64,
        link: Link,
        meta: Arc<Metainfo>,
        payload: Payload,
        judged: Judged,
    ) -> Self {
        let mut rng = Rng::new(rng_seed);
        Self {
            now: Instant::from_micros(1),
            rng_seed,
            network: Network::new(Rng::new(rng.next_u64())),
            rng,
            link,
            hosts: Vec::new(),
            events: Events::default(),
            judges: Judges::new(judged, Arc::clone(&meta), payload.clone()),
            meta,
            payload,
            trace: Trace::default(),
            names: BTreeMap::new(),
            plan: crate::base::plan::WritePlan::default(),
            inputs: 0,
            completed: 0,
        }
    }

    /// A host joins and is told of `peers`.
    pub fn add_peer(&mut self, have: Have, peers: &[HostId]) -> HostId {
        self.add(PeerSpec::new(have, peers))
    }

    /// A host joins.
    pub fn add(&mut self, spec: PeerSpec) -> HostId {
        let id = HostId(self.hosts.len() as u32);
        let link = spec.link.unwrap_or(self.link);
        self.network.lines.add_host(link, spec.rack);
        if let Some(lan) = spec.lan {
            self.network.lines.set_lan(id, lan);
        }
        let store = match &self.payload {
            Payload::Real(content) => {
                let mut disk = Disk::new(Rng::new(self.rng.next_u64()));
                if spec.have == Have::All {
                    disk.fill(&self.meta, content);
                }
                Store::real(disk)
            }
            Payload::Tagged => {
                let count = self.meta.geometry().piece_count();
                let have = match spec.have {
                    Have::All => Bitfield::full(count),
                    Have::Nothing | Have::NoTorrent => Bitfield::new(count),
                };
                Store::Tagged(Box::new(Tagged::new(have)))
            }
        };
        let node = PeerNode {
            spec,
            engine: None,
            store,
            torrent: crate::base::id::TorrentId(0),
            is_leaving: false,
            waiting: Vec::new(),
            posted_to: Default::default(),
        };
        self.hosts
            .push(Host::new(address(id), Node::Peer(Box::new(node))));
        self.start(id);
        id
    }

    /// A host joins that runs another program.
    pub fn add_actor(&mut self, actor: Box<dyn Actor>, link: Option<Link>) -> HostId {
        let id = HostId(self.hosts.len() as u32);
        self.network.lines.add_host(link.unwrap_or(self.link), None);
        let stage = Stage::new(actor, Rng::new(self.rng.next_u64()));
        self.hosts
            .push(Host::new(address(id), Node::Actor(Box::new(stage))));
        self.act_on(id, actor::Input::Joined);
        id
    }

    /// Starts the engine of a host.
    fn start(&mut self, id: HostId) {
        let random: [u8; 12] = std::array::from_fn(|_| self.rng.next_u64() as u8);
        let secrets = Secrets {
            rng_seed: self.rng.next_u64(),
            peer_id: PeerId::ours(random),
            key: self.rng.next_u64() as u32,
            tracker: std::array::from_fn(|_| self.rng.next_u64() as u8),
        };
        let host = &mut self.hosts[id.0 as usize];
        host.life += 1;
        host.timer = Instant::NEVER;
        let now = host.clock(self.now);
        let port = host.addr.port();
        let Node::Peer(peer) = &mut host.node else {
            return;
        };
        let mut config = peer.spec.config.clone();
        config.port = port;
        let mut engine = Engine::new(config, secrets, now);
        engine.listening(port, now);
        engine.interfaces_found(interfaces(id, peer.spec.prefix_len), now);
        let host_port = |addr: &SocketAddr| HostPort {
            host: addr.ip().to_string(),
            port: addr.port(),
        };
        if peer.spec.have == Have::NoTorrent {
            let met = |&addr: &SocketAddr| KnownPeer {
                addr,
                last_seen: 0,
                is_evpeer: true,
            };
            let met: Vec<KnownPeer> = peer.spec.peers.iter().map(met).collect();
            engine.recall_evpeers(&met);
        } else {
            let spec = TorrentSpec {
                meta: Arc::clone(&self.meta),
                peers: peer.spec.peers.iter().map(host_port).collect(),
                trackers: peer.spec.trackers.clone(),
                choice: Choice::default(),
            };
            peer.torrent = engine
                .add_torrent(spec, now)
                .expect("a new engine has no torrent");
        }
        peer.engine = Some(engine);
        self.judges.started(id);
        self.attend(id);
    }

    /// A rack to put hosts into.
    pub fn add_rack(&mut self, uplink: Uplink) -> RackId {
        self.network.lines.add_rack(uplink)
    }

    /// Makes `name` known to every resolver.
    pub fn set_name(&mut self, name: &str, hosts: &[HostId]) {
        let addresses = hosts.iter().map(|&host| address(host)).collect();
        self.names.insert(name.to_owned(), addresses);
    }

    /// Where a host listens.
    pub fn addr(&self, host: HostId) -> SocketAddr {
        self.hosts[host.0 as usize].addr
    }

    /// Number of hosts that have ever joined.
    pub fn host_count(&self) -> u32 {
        self.hosts.len() as u32
    }

    /// Virtual time.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// The seed of everything random.
    pub fn rng_seed(&self) -> u64 {
        self.rng_seed
    }

    /// The torrent.
    pub fn meta(&self) -> &Arc<Metainfo> {
        &self.meta
    }

    /// Events so far.
    pub fn steps(&self) -> u64 {
        self.trace.steps()
    }

    /// Inputs that engines were given so far: messages, parts of blocks, time, answers.
    pub fn inputs(&self) -> u64 {
        self.inputs
    }

    /// A digest of every event so far: the same for the same seed.
    pub fn digest(&self) -> String {
        self.trace.digest()
    }

    /// A host's figures; `None` while it is down, or runs no engine.
    pub fn snapshot(&mut self, host: HostId) -> Option<Snapshot> {
        let now = self.now;
        let host = &mut self.hosts[host.0 as usize];
        let now = host.clock(now);
        let Node::Peer(peer) = &mut host.node else {
            return None;
        };
        let torrent = peer.torrent;
        peer.engine.as_mut()?.snapshot(torrent, now)
    }

    /// Share of the torrent that a host has verified, from 0 to 1; 0 while it is down.
    pub fn progress(&mut self, host: HostId) -> f64 {
        self.snapshot(host).map_or(0.0, |snapshot| {
            snapshot.done_bytes as f64 / snapshot.length as f64
        })
    }

    /// Whether a host has everything and seeds it; of another, whether it has what it wants.
    pub fn is_complete(&self, host: HostId) -> bool {
        match &self.hosts[host.0 as usize].node {
            Node::Peer(peer) => {
                let engine = peer.engine.as_ref();
                engine.and_then(|e| e.state(peer.torrent)) == Some(State::Seeding)
                    || peer.spec.have == Have::NoTorrent
            }
            Node::Actor(stage) => stage.actor.is_complete(),
        }
    }

    /// Hosts that began without everything and have told their users that they have it.
    pub fn completed(&self) -> u32 {
        self.completed
    }

    /// When a host told its user so for the first time.
    pub fn completed_at(&self, host: HostId) -> Option<Instant> {
        self.hosts[host.0 as usize].completed_at
    }

    /// The engine of a host, while it runs.
    pub fn engine(&self, host: HostId) -> Option<&Engine> {
        self.hosts[host.0 as usize].engine()
    }

    /// The program of a host, if it is one of this kind.
    pub fn actor<T: Actor>(&self, host: HostId) -> Option<&T> {
        match &self.hosts[host.0 as usize].node {
            Node::Peer(_) => None,
            Node::Actor(stage) => (&*stage.actor as &dyn Any).downcast_ref(),
        }
    }

    /// The same, for a test that changes its mind.
    pub fn actor_mut<T: Actor>(&mut self, host: HostId) -> Option<&mut T> {
        match &mut self.hosts[host.0 as usize].node {
            Node::Peer(_) => None,
            Node::Actor(stage) => (&mut *stage.actor as &mut dyn Any).downcast_mut(),
        }
    }

    /// Payload that a host has sent and received, bytes; of its present life.
    pub fn traffic(&mut self, host: HostId) -> (u64, u64) {
        self.snapshot(host)
            .map_or((0, 0), |snapshot| (snapshot.up_bytes, snapshot.down_bytes))
    }

    /// The user of a host limits its rates from now on.
    pub fn limit(&mut self, host: HostId, limits: RateLimits) {
        let node = &mut self.hosts[host.0 as usize];
        let now = node.clock(self.now);
        if let Node::Peer(peer) = &mut node.node
            && let Some(engine) = &mut peer.engine
        {
            engine.set_limits(limits, now);
            self.attend(host);
        }
    }

    /// What a host told its user.
    pub fn reports(&self, host: HostId) -> &[Report] {
        &self.hosts[host.0 as usize].reports
    }

    /// Whether the files on a host's disk are the torrent's content, byte for byte.
    pub fn is_content_right(&self, host: HostId) -> bool {
        match (&self.hosts[host.0 as usize].node, &self.payload) {
            (Node::Peer(peer), Payload::Real(content)) => match &peer.store {
                Store::Real(real) => real.disk.holds(&self.meta, content),
                Store::Tagged(_) => false,
            },
            (Node::Peer(peer), Payload::Tagged) => match &peer.store {
                Store::Tagged(tagged) => tagged.have.is_full(),
                Store::Real(_) => false,
            },
            (Node::Actor(_), _) => true,
        }
    }

    /// A host's disk; `None` in worlds without payload.
    pub fn disk(&mut self, host: HostId) -> Option<&mut Disk> {
        match &mut self.hosts[host.0 as usize].node {
            Node::Peer(peer) => match &mut peer.store {
                Store::Real(real) => Some(&mut real.disk),
                Store::Tagged(_) => None,
            },
            Node::Actor(_) => None,
        }
    }

    /// Who told others of evpeers last, but for those that it met just then, and when; and who
    /// opened a link with another last. `None` in worlds that are loosely judged.
    pub fn gossiped(&self) -> [Option<(HostId, Instant)>; 2] {
        [self.judges.gossiped, self.judges.greeted]
    }

    /// What carries the bytes.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Lets time pass until `done` holds or `limit` has passed; whether it held.
    ///
    /// # Panics
    /// If a judge finds fault; the message says with what, and which seed it was.
    pub fn run_until(&mut self, limit: Duration, done: impl FnMut(&mut Self) -> bool) -> bool {
        match self.advance(limit, done) {
            Ok(held) => held,
            Err(failure) => panic!("{failure}"),
        }
    }

    /// As [`run_until`](Self::run_until), for those who want to know rather than stop.
    ///
    /// # Errors
    /// A judge found fault.
    pub fn advance(
        &mut self,
        limit: Duration,
        mut done: impl FnMut(&mut Self) -> bool,
    ) -> Result<bool, Box<Failure>> {
        let end = self.now + limit;
        self.settle_judges()?;
        while !done(self) {
            match self.events.next_at() {
                Some(at) if at <= end => {}
                _ => {
                    self.now = end;
                    return Ok(done(self));
                }
            }
            self.next_event();
            self.settle_judges()?;
        }
        Ok(true)
    }

    /// The failure of a host that a judge found fault with when all was over.
    pub fn at_fault(&mut self, judge: &'static str, host: HostId, text: String) -> Box<Failure> {
        self.failure(judge::Fault {
            judge,
            host: Some(host),
            text,
            talk: Vec::new(),
        })
    }

    /// The failure of a host that should have become complete.
    pub fn unfinished(&mut self, host: HostId, text: String) -> Box<Failure> {
        let swarm = self.engine(host).and_then(|engine| {
            let torrent = engine.torrents().next()?;
            engine.swarm(torrent)
        });
        let talk = swarm.map(|swarm| swarm.describe()).unwrap_or_default();
        self.failure(judge::Fault {
            judge: "end",
            host: Some(host),
            text,
            talk,
        })
    }

    /// Changes after how many events the costly judges look: 1 is after each.
    pub fn set_audit_interval(&mut self, events: u64) {
        self.judges.audit_interval = events.max(1);
    }

    /// Asks every judge, also for what is costly to find out.
    ///
    /// # Errors
    /// A judge found fault.
    pub fn audit(&mut self) -> Result<(), Box<Failure>> {
        self.audit_all();
        self.settle_judges()
    }
}
