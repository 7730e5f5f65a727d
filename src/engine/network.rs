//! This host in the network of evpeers: the broadcast and the overlay, on the engine's streams.
//!
//! Evpeers know each other by `ev_peers` in their extension handshakes (BEP 10). Those that share
//! a swarm which is not private may use its stream for their link; others dial a stream for links
//! alone ([`link`](super::link)). Whatever of broadcast and overlay is due is done in the same
//! iteration of the loop as what made it due: a timer fires at once.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::conn::Stage;
use super::timers::TimerId;
use super::{Engine, State};
use crate::base::digest::sha1;
use crate::base::id::{ConnId, InfoHash, PeerId, TorrentId};
use crate::base::rng::Rng;
use crate::base::time::Instant;
use crate::discovery::overlay::{Action, Answer, Overlay, Purpose, Stream};
use crate::tracker::broadcast::{Broadcast, Event, Setup};
use crate::wire::ev_peers::{Message, Reason, Standing};

mod obey;

/// The lists of this host, its links, and what they run on.
#[derive(Debug)]
pub(super) struct Network {
    pub broadcast: Broadcast,
    pub overlay: Overlay,
    /// Streams to peers whose address is known, evpeers and others.
    streams: BTreeMap<ConnId, Held>,
    /// Where we stand in swarms now, not told yet; `None`: we left.
    standings: Vec<(InfoHash, Option<Standing>)>,
    /// Messages sent, and their bytes.
    sent: (u64, u64),
    armed: Instant,
}

/// A stream to a peer.
#[derive(Clone, Copy, Debug)]
struct Held {
    /// Where the peer accepts connections.
    addr: SocketAddr,
    /// The id under which it wants `ev_peers`; 0: it does not, and has no link.
    ev_peers_id: u8,
    /// It is an evpeer that is in no list, and has not said whether it wants links.
    is_stranger: bool,
}

impl Engine {
    /// The wall clock, milliseconds since 1970. To be told before [`Engine::listening`]: the
    /// epochs of this host begin with it. Otherwise the time of the engine has to go on from one
    /// run to the next.
    pub fn clock_told(&mut self, unix_ms: u64, now: Instant) {
        self.unix_ms_at_zero = unix_ms.saturating_sub(now.as_micros() / 1000);
    }

    /// The evpeers that are there, as far as is known, whatever they share.
    pub fn evpeers(&self) -> Vec<SocketAddr> {
        let network = self.network.iter();
        network.flat_map(|n| n.broadcast.network()).collect()
    }

    /// The peers of a swarm that evpeers know of: address, and whether it is a seed.
    pub fn known_in_swarm(&self, info_hash: InfoHash) -> Vec<(SocketAddr, bool)> {
        let network = self.network.iter();
        let peers = network.flat_map(|n| n.broadcast.swarm(info_hash));
        peers
            .map(|(addr, standing, _)| (addr, standing == Standing::Seed))
            .collect()
    }

    /// The evpeers to which links are open or being opened.
    pub fn links(&self) -> Vec<SocketAddr> {
        let network = self.network.iter();
        let links = network.flat_map(|network| network.overlay.links());
        links.map(|(_, stream)| stream.addr).collect()
    }

    /// Messages that were sent to evpeers because of others, and their bytes.
    pub fn gossip_sent(&self) -> (u64, u64) {
        let network = self.network.as_ref();
        network.map_or((0, 0), |network| network.sent)
    }

    /// Takes up the network, once the port is known.
    pub(super) fn start_network(&mut self, now: Instant) {
        if !self.config.broadcast || self.network.is_some() || self.port == 0 {
            return;
        }
        let mut text = self.secrets.tracker.to_vec();
        text.extend(b"ev_peers");
        let [secret @ .., _, _, _, _] = sha1(&text);
        let setup = Setup {
            unix_ms: self.unix_ms_at_zero + now.as_micros() / 1000,
            port: self.port,
            bind: self.config.bind,
            secret,
            rng: Rng::new(self.rng.next_u64()),
        };
        let rng = Rng::new(self.rng.next_u64());
        let mut network = Network {
            broadcast: Broadcast::new(setup, now),
            overlay: Overlay::new(self.secrets.peer_id, rng),
            streams: BTreeMap::new(),
            standings: Vec::new(),
            sent: (0, 0),
            armed: Instant::NEVER,
        };
        if self.interfaces.iter().next().is_some() {
            network.interfaces_found(&self.interfaces);
        }
        for &addr in &self.evpeers_met {
            network.overlay.heard(addr, now);
        }
        self.network = Some(Box::new(network));
        let ids: Vec<_> = self.torrents.iter().map(|(&id, t)| (id, t.state)).collect();
        for (id, state) in ids {
            self.network_stands(id, state);
        }
        self.touch_network();
    }

    /// A torrent of ours is in another state.
    pub(super) fn network_stands(&mut self, id: TorrentId, state: State) {
        let Some(info_hash) = self.public_swarm(id) else {
            return;
        };
        let standing = match state {
            State::Downloading => Some(Standing::Leecher),
            State::Seeding if self.is_whole_seed(id) => Some(Standing::Seed),
            State::Seeding => Some(Standing::PartialSeed),
            State::Checking | State::Queued | State::Paused | State::Error => None,
        };
        if let Some(network) = &mut self.network {
            network.standings.push((info_hash, standing));
            self.touch_network();
        }
    }

    /// The info hash of a torrent, unless it is private: such a one stays out of all this.
    fn public_swarm(&self, id: TorrentId) -> Option<InfoHash> {
        let meta = self.torrents.get(&id)?.swarm.meta();
        (!meta.private).then_some(meta.info_hash)
    }

    /// Whether evpeers are told of each other on streams of this torrent.
    pub(super) fn gossips_about(&self, id: TorrentId) -> bool {
        self.network.is_some() && self.public_swarm(id).is_some()
    }

    /// A stream of a torrent's swarm is to the peer that accepts connections at `addr`; told again
    /// when that peer has everything.
    pub(super) fn network_met(
        &mut self,
        conn: ConnId,
        (torrent, peer_id): (TorrentId, PeerId),
        (addr, is_seed): (SocketAddr, bool),
        now: Instant,
    ) {
        let Some(info_hash) = self.public_swarm(torrent) else {
            return;
        };
        self.network_holds(conn, addr, now);
        if peer_id.is_evpeer() {
            // The stream may end before it says that it wants links: two seeds have no use for it.
            self.network_heard(addr, now);
            if let Some(network) = &mut self.network
                && let Some(held) = network.streams.get_mut(&conn)
                && held.ev_peers_id == 0
            {
                held.is_stranger = !network.broadcast.is_in_network(addr);
            }
        } else {
            self.network_saw(info_hash, addr, is_seed, now);
        }
    }

    /// A stream is to the peer that accepts connections at `addr`.
    pub(super) fn network_holds(&mut self, conn: ConnId, addr: SocketAddr, now: Instant) {
        let Some(network) = &mut self.network else {
            return;
        };
        if let std::collections::btree_map::Entry::Vacant(vacant) = network.streams.entry(conn) {
            vacant.insert(Held {
                addr,
                ev_peers_id: 0,
                is_stranger: false,
            });
            network.broadcast.met(addr, now);
            self.touch_network();
        }
    }

    /// A peer that does not speak for itself is in a swarm.
    pub(super) fn network_saw(
        &mut self,
        info_hash: InfoHash,
        addr: SocketAddr,
        is_seed: bool,
        now: Instant,
    ) {
        if let Some(network) = &mut self.network {
            let standing = match is_seed {
                true => Standing::Seed,
                false => Standing::Leecher,
            };
            network.broadcast.seen(info_hash, addr, standing, now);
            self.touch_network();
        }
    }

    /// A peer said that it leaves a swarm.
    pub(super) fn network_saw_leave(
        &mut self,
        info_hash: InfoHash,
        addr: SocketAddr,
        now: Instant,
    ) {
        if let Some(network) = &mut self.network {
            network.broadcast.left(info_hash, addr, now);
            self.touch_network();
        }
    }

    /// A peer that does not speak for itself was silent for so long that it is taken for gone.
    pub(super) fn network_expired(&mut self, info_hash: InfoHash, addr: SocketAddr, now: Instant) {
        if let Some(network) = &mut self.network {
            network.broadcast.expired(info_hash, addr, now);
            self.touch_network();
        }
    }

    /// The address of an evpeer came by another road.
    pub(super) fn network_heard(&mut self, addr: SocketAddr, now: Instant) {
        if let Some(network) = &mut self.network {
            network.overlay.heard(addr, now);
            self.touch_network();
        }
    }

    /// The other end of a stream wants `ev_peers` under this id; 0: not at all, or no more.
    pub(super) fn network_speaks(
        &mut self,
        conn: ConnId,
        (peer, purpose): (PeerId, Purpose),
        ev_peers_id: u8,
        now: Instant,
    ) {
        let Some(network) = &mut self.network else {
            return;
        };
        let Some(held) = network.streams.get_mut(&conn) else {
            return; // it does not say where it can be reached
        };
        let addr = held.addr;
        held.is_stranger = false;
        let before = std::mem::replace(&mut held.ev_peers_id, ev_peers_id);
        if before == 0 && ev_peers_id != 0 {
            let stream = Stream {
                peer,
                addr,
                purpose,
            };
            network.overlay.heard(addr, now);
            network.overlay.stream_ready(conn, stream, now);
        } else if before != 0 && ev_peers_id == 0 {
            network.broadcast.link_closed(conn, now);
            network.overlay.stream_closed(conn, now);
        }
        self.touch_network();
    }

    /// Whether both ends of a stream want `ev_peers`.
    pub(super) fn network_is_ready(&self, conn: ConnId) -> bool {
        let held = self.network.as_ref().and_then(|n| n.streams.get(&conn));
        held.is_some_and(|held| held.ev_peers_id != 0)
    }

    /// An `ev_peers` message came.
    pub(super) fn network_received(&mut self, conn: ConnId, body: &[u8], now: Instant) {
        // What was decided before it came is done before it is heard.
        while let Some(action) = self.overlay_action() {
            self.obey_overlay(action, now);
        }
        let Some(network) = &mut self.network else {
            return;
        };
        let Some(held) = network.streams.get(&conn).copied() else {
            return;
        };
        if held.ev_peers_id == 0 {
            return;
        }
        if !network.broadcast.has_link(conn) {
            let Ok(Message::Hello(hello)) = Message::decode(body) else {
                return; // its last messages cross with our good bye
            };
            if hello.is_drawn
                && network.overlay.lacks_room_for(conn, now)
                && let Some(worst) = network
                    .broadcast
                    .worst_link(|link| network.overlay.makes_room(link))
            {
                network.broadcast.link_dropped(worst, Reason::Surplus, now);
                network.overlay.distrusted(worst, now);
            }
            match network.overlay.offered(conn, hello.is_drawn, now) {
                Answer::Accept => network.broadcast.link_opened(conn, held.addr, false, now),
                Answer::Ignore => return,
                Answer::Refuse(reason) => {
                    let body = network.broadcast.refusal(held.addr, reason);
                    self.send_ev_peers(conn, body, now);
                    return self.touch_network();
                }
            }
        }
        if let Err(violation) = network.broadcast.received(conn, body, now) {
            log::debug!("link ended remote={}: {violation}", held.addr);
            network.overlay.distrusted(conn, now);
        }
        self.touch_network();
    }

    /// A stream is gone.
    pub(super) fn network_lost(&mut self, conn: ConnId, now: Instant) {
        let Some(network) = &mut self.network else {
            return;
        };
        if let Some(held) = network.streams.remove(&conn) {
            network.broadcast.link_closed(conn, now);
            network.broadcast.parted(held.addr);
            if held.ev_peers_id != 0 {
                network.overlay.stream_closed(conn, now);
            }
            if held.is_stranger && !network.broadcast.is_in_network(held.addr) {
                network.overlay.strange(held.addr, now);
            }
            self.touch_network();
        }
    }

    /// Dialling `addr` was in vain: for links, or for a swarm.
    pub(super) fn network_missed(
        &mut self,
        addr: Option<SocketAddr>,
        torrent: Option<TorrentId>,
        now: Instant,
    ) {
        let info_hash = torrent.and_then(|id| self.public_swarm(id));
        let (Some(network), Some(addr)) = (&mut self.network, addr) else {
            return;
        };
        if torrent.is_none() {
            network.overlay.dial_failed(addr, now);
        }
        network.broadcast.unreachable(addr, now);
        if let Some(info_hash) = info_hash {
            network.broadcast.left(info_hash, addr, now);
        }
        self.touch_network();
    }

    /// A stream to `addr` was open and ended without a word: if an evpeer should be there, we look
    /// whether it is, as others than it may have taken the stream.
    pub(super) fn network_doubts(&mut self, addr: Option<SocketAddr>, now: Instant) {
        if let (Some(network), Some(addr)) = (&mut self.network, addr)
            && network.broadcast.is_in_network(addr)
        {
            network.overlay.disputed(addr, now);
            self.touch_network();
        }
    }

    /// We are known by this address too.
    pub(super) fn network_is_us(&mut self, addr: SocketAddr) {
        if let Some(network) = &mut self.network {
            network.broadcast.own_address_found(addr);
        }
    }

    /// Has the network looked at as soon as the input at hand is done with.
    fn touch_network(&mut self) {
        self.arm_network(Instant::ZERO);
    }

    fn arm_network(&mut self, at: Instant) {
        if let Some(network) = &mut self.network
            && at < network.armed
        {
            network.armed = at;
            self.timers.arm(TimerId::Network, at);
        }
    }

    /// Does what is due in the network.
    pub(super) fn network_due(&mut self, now: Instant) {
        if let Some(network) = &mut self.network {
            if network.armed > now {
                return; // a later entry than this one stands for it
            }
            network.armed = Instant::NEVER;
        }
        while let Some(network) = &mut self.network {
            network.poll(now);
            let mut is_moving = false;
            while let Some(event) = self.network_event() {
                is_moving = true;
                self.obey_broadcast(event, now);
            }
            while let Some(action) = self.overlay_action() {
                is_moving = true;
                self.obey_overlay(action, now);
            }
            if !is_moving {
                break;
            }
        }
        if let Some(network) = &mut self.network {
            network.armed = Instant::NEVER;
            let next = network.broadcast.next_deadline();
            let next = next.min(network.overlay.next_deadline());
            self.arm_network(next.max(now + STEP));
        }
    }

    fn network_event(&mut self) -> Option<Event> {
        self.network.as_mut()?.broadcast.poll_event()
    }

    fn overlay_action(&mut self) -> Option<Action> {
        self.network.as_mut()?.overlay.poll_action()
    }

    /// The process ends: links are told at once. Gives back the streams on which something is
    /// still to leave.
    pub(super) fn leave_network(&mut self, now: Instant) -> Vec<ConnId> {
        let Some(network) = &mut self.network else {
            return Vec::new();
        };
        let is_link = |conn: &&ConnId| network.broadcast.has_link(**conn);
        let linked: Vec<ConnId> = network.streams.keys().filter(is_link).copied().collect();
        network.broadcast.leaving(now);
        while let Some(event) = self.network_event() {
            if let Event::Send { link, body } = event {
                self.send_ev_peers(link, body, now);
            }
        }
        self.network = None;
        let waits = |conn: &ConnId| {
            let conn = self.conn(*conn);
            conn.is_some_and(|c| !c.outbox.is_empty() && !matches!(c.stage, Stage::Dialling(_)))
        };
        linked.into_iter().filter(waits).collect()
    }
}

impl Network {
    pub fn interfaces_found(&mut self, interfaces: &crate::base::address::Interfaces) {
        self.broadcast.interfaces_found(interfaces);
        self.overlay.interfaces_found(interfaces);
    }

    fn poll(&mut self, now: Instant) {
        for (info_hash, standing) in std::mem::take(&mut self.standings) {
            match standing {
                Some(standing) => {
                    self.broadcast.swarm_joined(info_hash, standing, now);
                    self.broadcast.standing_changed(info_hash, standing, now);
                }
                None => self.broadcast.swarm_left(info_hash, now),
            }
        }
        self.broadcast.poll(now);
        self.overlay.counted(self.broadcast.network_len());
        self.overlay.poll(now);
        if self.overlay.is_short_of_addresses(now) {
            let sample = self.broadcast.sample(REFILL);
            self.overlay.refill(sample, now);
        }
    }
}

/// Time between two looks at the network without an input in between, at least.
const STEP: std::time::Duration = std::time::Duration::from_millis(1);
/// Addresses that the overlay is given when it is short of them.
const REFILL: usize = 64;
