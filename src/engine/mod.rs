//! The protocol core: connections, timers, torrents; carries values between its siblings.
//!
//! The engine is told the time, the bytes and the answers of disk and resolver; it answers with
//! [`Action`]s. It opens no socket, reads no clock and touches no file, so the same code runs
//! under the reactor and under the simulator. After each input the caller drains
//! [`Engine::poll_action`] to `None`; payload that an input hands out is stored before that.
//!
//! | file | what is done there |
//! |---|---|
//! | `mod` | the inputs, and who gets them |
//! | `peers` | handshakes, messages of peers, the end of a connection |
//! | `extended` | what each side says of itself |
//! | `torrents` | checking, states, what storage answers |
//! | `http` | requests to our tracker |
//! | `announce` | announces, and HTTP exchanges with trackers |
//! | `announce_udp` | exchanges of datagrams with trackers |
//! | `datagrams` | what comes by UDP |
//! | `commands` | what a user asks of a running torrent |
//! | `plight` | torrents whose files cannot be written at present |
//! | `memory` | what is remembered of a torrent |
//! | `writing` | what leaves on a stream next |
//! | `why` | why a torrent does not get on |
//! | `discover`, `pex` | how peers become known |
//! | `network`, `link` | evpeers: the broadcast, and streams for links alone |
//! | `share` | connections and calls, shared over torrents |
//! | `goals` | when a torrent was seeded enough, and whether its swarm is complete |
//! | `pace` | limits of rate |
//! | `offences` | who is not let in, and for how long |
//! | `timers` | deadlines, dialling |
//! | `audit` | what must hold between any two inputs |

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};

use slab::Slab;

use crate::base::address::Interfaces;
use crate::base::burst::take_first;
use crate::base::id::{ConnId, InfoHash, PeerId, TorrentId};
use crate::base::limits;
use crate::base::rng::Rng;
use crate::base::slot::Slot;
use crate::base::time::Instant;
use crate::base::timers::TimerQueue;
use crate::config::Config;
use crate::discovery::gate::Gate;
use crate::discovery::lsd::Lsd;
use crate::tracker::registry::Openness;
use crate::tracker::secret::Secret;
use crate::tracker::server::Server;

pub mod action;
pub mod announce;
mod announce_udp;
mod audit;
mod choosing;
mod commands;
pub mod conn;
mod datagrams;
mod discover;
mod ending;
mod extended;
mod goals;
pub mod http;
pub mod link;
mod memory;
mod network;
mod offences;
pub mod outbox;
mod pace;
mod peers;
pub mod pex;
mod plight;
mod queue;
mod safe;
mod share;
mod timers;
pub mod torrent;
mod torrents;
pub mod view;
mod why;
mod writing;

pub use action::{Action, Family, LookupId, Report, Snapshot, State, StorageAction};
pub use goals::Census;
pub use torrent::{AddError, HostPort, OnDisk, TorrentSpec, Transferred};
pub use writing::PLAN_LEN;

use announce_udp::{UdpQuestion, UdpTrackers};
use conn::{Conn, Head, Purpose, Stage};
use ending::Ending;
use offences::Offences;
use pace::Pace;
use timers::TimerId;
use torrent::Torrent;

/// What has to be random, from the system's source.
#[derive(Clone, Copy, Debug)]
pub struct Secrets {
    /// Seed of the core's own generator.
    pub rng_seed: u64,
    /// Our peer id (BEP 20), new for every process.
    pub peer_id: PeerId,
    /// Tells trackers that it is still us after a change of address (BEP 7 `key`).
    pub key: u32,
    /// The key of our tracker's connection ids (BEP 15).
    pub tracker: [u8; 16],
}

/// What one call of [`Engine::received`] did with the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Bytes used from the front; the caller comes again with the rest.
    pub used: usize,
    /// Where the tail of the used bytes has to be stored: its last `len`.
    pub store: Option<Slot>,
}

/// The core of a peer.
#[derive(Debug)]
pub struct Engine {
    config: Config,
    secrets: Secrets,
    rng: Rng,
    /// The port that others reach us at.
    port: u16,
    conns: Slab<(u32, Conn)>,
    generation: u32,
    dialling: u32,
    calls: share::Calls,
    /// Incoming streams that have not said what they are, oldest first.
    undecided: BTreeSet<(Instant, ConnId)>,
    /// Streams on which HTTP requests come.
    http: BTreeSet<ConnId>,
    /// Streams for links alone, those that are being dialled too.
    link_streams: BTreeSet<ConnId>,
    /// Streams that end as soon as they are written out.
    farewells: BTreeSet<ConnId>,
    /// The network of evpeers, once the port is known.
    network: Option<Box<network::Network>>,
    /// The wall clock at the beginning of time.
    unix_ms_at_zero: u64,
    /// Apart from the map, whose nodes are half empty.
    torrents: BTreeMap<TorrentId, Box<Torrent>>,
    by_hash: BTreeMap<InfoHash, TorrentId>,
    torrents_added: u32,
    queue: queue::Queue,
    /// Up to when the turns of first announces are given out.
    announce_turns: Instant,
    timers: TimerQueue<TimerId>,
    lookups: BTreeMap<LookupId, Lookup>,
    lookups_made: u64,
    udp_trackers: UdpTrackers,
    /// Our own address as trackers see it.
    external_ips: BTreeMap<Family, IpAddr>,
    offences: Offences,
    /// Our tracker, and the peers of all swarms.
    server: Server,
    registry_armed: Instant,
    /// Local discovery, once the port is known.
    lsd: Option<Lsd>,
    lsd_armed: Instant,
    /// Where this machine can be reached.
    interfaces: Interfaces,
    /// What addresses off our links may take up.
    gate: Gate,
    /// Limits of rate.
    pace: Pace,
    actions: VecDeque<Action>,
    /// Set once the process is to end: when it gives up waiting for trackers.
    ending: Option<Instant>,
    /// Torrents whose last sync is under way.
    last_syncs: BTreeSet<TorrentId>,
    /// Evpeers that were met in all runs; as many as a session remembers.
    evpeers_met: BTreeSet<SocketAddr>,
}

/// Why a name is being looked up.
#[derive(Debug)]
enum Lookup {
    Peer(TorrentId, HostPort),
    Tracker(Box<announce::Announce>),
    UdpTracker(Box<UdpQuestion>),
}

impl Engine {
    /// A core without torrents.
    pub fn new(config: Config, secrets: Secrets, now: Instant) -> Self {
        let openness = match config.open_tracker {
            true => Openness::Open,
            false => Openness::Closed,
        };
        let server = Server::new(Secret::new(secrets.tracker), openness);
        Self {
            port: config.port,
            gate: Gate::new(config.conns_max),
            rng: Rng::new(secrets.rng_seed),
            pace: Pace::new(config.limits, now),
            config,
            secrets,
            conns: Slab::new(),
            generation: 0,
            dialling: 0,
            calls: share::Calls::default(),
            undecided: BTreeSet::new(),
            http: BTreeSet::new(),
            link_streams: BTreeSet::new(),
            farewells: BTreeSet::new(),
            network: None,
            unix_ms_at_zero: 0,
            torrents: BTreeMap::new(),
            by_hash: BTreeMap::new(),
            torrents_added: 0,
            queue: queue::Queue::default(),
            announce_turns: Instant::ZERO,
            timers: TimerQueue::default(),
            lookups: BTreeMap::new(),
            lookups_made: 0,
            udp_trackers: UdpTrackers::default(),
            external_ips: BTreeMap::new(),
            offences: Offences::default(),
            server,
            registry_armed: Instant::NEVER,
            lsd: None,
            lsd_armed: Instant::NEVER,
            interfaces: Interfaces::default(),
            actions: VecDeque::new(),
            ending: None,
            last_syncs: BTreeSet::new(),
            evpeers_met: BTreeSet::new(),
        }
    }

    /// The shell listens on `port`.
    pub fn listening(&mut self, port: u16, now: Instant) {
        self.port = port;
        self.start_lsd();
        self.start_network(now);
        let ids: Vec<TorrentId> = self.torrents.keys().copied().collect();
        for id in ids {
            self.track(id, now);
        }
    }

    /// What has to be done next.
    pub fn poll_action(&mut self) -> Option<Action> {
        take_first(&mut self.actions)
    }

    /// A stream came in. `None`: there is no room for it, drop it.
    pub fn accepted(
        &mut self,
        remote: SocketAddr,
        local: SocketAddr,
        now: Instant,
    ) -> Option<ConnId> {
        if self.ending.is_some() || self.offences.is_refused(remote.ip(), now) {
            return None;
        }
        let mut conn = Conn::new(remote, Stage::Undecided(Box::<Head>::default()), now);
        conn.local = Some(local.ip());
        let id = self.insert_conn(conn, limits::HANDSHAKE_TIMEOUT);
        self.undecided.insert((now, id));
        // Whoever connects and says nothing makes room for those who come later and may speak.
        if self.undecided.len() > limits::UNDECIDED_MAX as usize
            && let Some(&(_, oldest)) = self.undecided.first()
        {
            self.close(oldest, Ending::Failed("others wait"), now);
        }
        Some(id)
    }

    /// Streams to and from peers and trackers, as far as is known what they are.
    fn peer_conns(&self) -> usize {
        self.conns.len() - self.undecided.len() - self.http.len() - self.link_streams.len()
    }

    /// A stream that was dialled is established.
    pub fn connected(&mut self, conn: ConnId, local: SocketAddr, now: Instant) {
        let Some(state) = self.conn_mut(conn) else {
            return;
        };
        state.local = Some(local.ip());
        state.last_in = now;
        let head = Stage::Undecided(Box::<Head>::default());
        let Stage::Dialling(purpose) = std::mem::replace(&mut state.stage, head) else {
            debug_assert!(false, "only a dialled stream gets connected");
            return;
        };
        let called = match purpose {
            Purpose::Peer(torrent) => Some(torrent),
            Purpose::Link | Purpose::Announce(_) => None,
        };
        self.call_ended(called, now);
        match purpose {
            Purpose::Peer(torrent) => self.greet(conn, torrent),
            Purpose::Link => self.greet_link(conn),
            Purpose::Announce(announce) => self.ask_tracker(conn, announce),
        }
    }

    /// Bytes came in. One step: the caller stores what `store` says, then comes again with what
    /// was not used.
    pub fn received(&mut self, conn: ConnId, bytes: &[u8], now: Instant) -> Taken {
        let Some(state) = self.conn_mut(conn) else {
            return Taken {
                used: bytes.len(),
                store: None,
            };
        };
        state.last_in = now;
        match &mut state.stage {
            Stage::Exchange(_) => {
                let taken = self.exchange_step(conn, bytes, now);
                self.paced_in(conn, taken.used, now);
                taken
            }
            Stage::Undecided(_) => self.decide(conn, bytes, now),
            Stage::Greeting(..) => self.greeted(conn, bytes, now),
            Stage::Meeting(_) => self.link_greeted(conn, bytes, now),
            Stage::Link(_) => self.link_step(conn, bytes, now),
            Stage::Announce(_) => self.tracker_said(conn, bytes, now),
            Stage::Http(_) => self.http_received(conn, bytes, now),
            Stage::Dialling(_) | Stage::Closing => Taken {
                used: bytes.len(),
                store: None,
            },
        }
    }

    /// The other side will send no more.
    pub fn end_of_stream(&mut self, conn: ConnId, now: Instant) {
        if let Some(Stage::Announce(_)) = self.conn(conn).map(|c| &c.stage) {
            self.tracker_finished(conn, now);
        } else {
            self.close(conn, Ending::Remote("closed by the peer"), now);
        }
    }

    /// The socket of `conn` failed, or could not be connected; the shell has dropped it.
    pub fn closed(&mut self, conn: ConnId, error: &str, now: Instant) {
        self.forget(conn, Ending::Failed(error), now);
    }

    /// The resolver answered.
    pub fn resolved(
        &mut self,
        lookup: LookupId,
        answer: Result<Vec<SocketAddr>, String>,
        now: Instant,
    ) {
        match self.lookups.remove(&lookup) {
            Some(Lookup::Peer(torrent, host)) => self.peer_resolved(torrent, host, answer, now),
            Some(Lookup::Tracker(announce)) => self.tracker_resolved(announce, answer, now),
            Some(Lookup::UdpTracker(question)) => {
                self.udp_tracker_resolved(*question, answer, now);
            }
            None => {}
        }
    }

    /// The process shall end: trackers are told, connections to peers are closed.
    pub fn shutdown(&mut self, now: Instant) {
        if self.ending.is_some() {
            return;
        }
        self.ending = Some(now + SHUTDOWN_TIME);
        self.timers.arm(TimerId::Shutdown, now + SHUTDOWN_TIME);
        let told = self.leave_network(now);
        self.farewells.extend(told);
        for conn in self.conn_ids() {
            let is_asking = matches!(
                self.conn(conn).map(|c| &c.stage),
                Some(Stage::Announce(_) | Stage::Dialling(Purpose::Announce(_)))
            );
            if !is_asking && !self.farewells.contains(&conn) {
                self.close(conn, Ending::Local("shutting down"), now);
            }
        }
        let ids: Vec<TorrentId> = self.torrents.keys().copied().collect();
        for id in ids {
            self.stop_announcing(id, now);
            if self.torrents[&id].is_open {
                self.leave_storage(id);
            }
        }
    }

    /// Whether nothing is left to wait for after [`Engine::shutdown`]: everything stored is
    /// durable, and trackers have heard of it or had their time.
    pub fn is_finished(&self, now: Instant) -> bool {
        self.last_syncs.is_empty()
            && self.ending.is_some_and(|deadline| {
                let is_idle = self.conns.is_empty() && self.lookups.is_empty();
                now >= deadline || (is_idle && self.udp_trackers.len() == 0)
            })
    }

    /// Number of open and opening streams.
    pub fn conn_count(&self) -> usize {
        self.conns.len()
    }

    fn report(&mut self, report: Report) {
        self.note_what_trackers_say(&report);
        self.actions.push_back(Action::Report(report));
    }

    fn storage(&mut self, action: StorageAction) {
        self.actions.push_back(Action::Storage(action));
    }

    fn insert_conn(&mut self, conn: Conn, patience: std::time::Duration) -> ConnId {
        self.generation = self.generation.wrapping_add(1);
        let deadline = conn.opened + patience;
        let index = self.conns.insert((self.generation, conn));
        let id = ConnId {
            index: index as u32,
            generation: self.generation,
        };
        self.timers.arm(TimerId::Conn(id), deadline);
        id
    }

    fn conn(&self, id: ConnId) -> Option<&Conn> {
        match self.conns.get(id.index as usize) {
            Some((generation, conn)) if *generation == id.generation => Some(conn),
            _ => None,
        }
    }

    fn conn_mut(&mut self, id: ConnId) -> Option<&mut Conn> {
        match self.conns.get_mut(id.index as usize) {
            Some((generation, conn)) if *generation == id.generation => Some(conn),
            _ => None,
        }
    }

    fn conn_ids(&self) -> Vec<ConnId> {
        let id = |(index, (generation, _)): (usize, &(u32, Conn))| ConnId {
            index: index as u32,
            generation: *generation,
        };
        self.conns.iter().map(id).collect()
    }

    /// Asks the shell for a write turn, once until it takes it.
    fn flush(&mut self, id: ConnId) {
        if let Some(conn) = self.conn_mut(id)
            && !conn.flushing
        {
            conn.flushing = true;
            self.actions.push_back(Action::Flush { conn: id });
        }
    }

    /// Ends a stream from our side.
    fn close(&mut self, id: ConnId, ending: Ending<'_>, now: Instant) {
        if self.forget(id, ending, now) {
            self.actions.push_back(Action::Close { conn: id });
        }
    }
}

/// How long trackers may take to hear that we leave.
const SHUTDOWN_TIME: std::time::Duration = std::time::Duration::from_secs(1);
