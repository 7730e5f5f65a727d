//! How peers become known: every road leads to the registry and to the addresses to dial.
//!
//! What was seen at first hand (a handshake, an announce to our tracker) is told to others; what
//! was only heard is dialled, and told once the peer has answered.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::Engine;
use super::timers::TimerId;
use crate::base::address::Interfaces;
use crate::base::id::{ConnId, InfoHash, PeerId, TorrentId};
use crate::base::limits;
use crate::base::time::Instant;
use crate::discovery::candidates::Source;
use crate::discovery::pex::Departure;
use crate::tracker::registry::{Heard, Registry, Sighting, Terms};
use crate::tracker::server::{Reach, ServerEvent};
use crate::wire::announce::Event;
use crate::wire::pex::Flags;
use crate::wire::url::TrackerUrl;

impl Engine {
    /// An address of a peer that somebody told us.
    pub(super) fn heard_of(
        &mut self,
        id: TorrentId,
        addr: SocketAddr,
        source: Source,
        now: Instant,
    ) {
        let heard = match source {
            Source::User => Heard::User,
            Source::Tracker => Heard::Tracker,
            Source::Incoming => Heard::Announce,
            Source::Pex { .. } => Heard::Pex,
            Source::Lsd => Heard::Lsd,
            Source::Evpeer { .. } | Source::Session => Heard::Gossip,
        };
        let Some(torrent) = self.torrents.get_mut(&id) else {
            return;
        };
        torrent.candidates.add(addr, source, now);
        let info_hash = torrent.swarm.meta().info_hash;
        let sighting = Sighting {
            addr,
            peer_id: None,
            key: None,
            is_seed: None,
            is_paused: false,
            heard,
        };
        if heard != Heard::Announce {
            self.server
                .registry
                .heard(info_hash, &sighting, &self.interfaces, now);
            self.rearm_registry();
        }
        self.rearm_torrent(id, now);
    }

    /// A peer that we are connected to, and whose address we know: at the handshake if we dialled
    /// it, with its extension handshake if it dialled us, and again when it has everything, or
    /// says whether it wants more.
    pub(super) fn met(&mut self, conn: ConnId, now: Instant) {
        let Some((torrent, addr, peer_id, key, dialled)) = self.conn(conn).and_then(|state| {
            let exchange = state.exchange()?;
            Some((
                exchange.torrent,
                state.listens?,
                exchange.peer_id,
                exchange.key,
                exchange.dialled,
            ))
        }) else {
            return;
        };
        let Some(running) = self.torrents.get_mut(&torrent) else {
            return;
        };
        let peer = running.swarm.peer(key);
        let (is_seed, is_paused) = (peer.is_seed(), peer.upload_only && !peer.is_seed());
        let mut flags = Flags::default();
        if is_seed {
            flags = flags.with(Flags::SEED);
        }
        if dialled {
            flags = flags.with(Flags::REACHABLE);
        }
        running.roster.joined(addr, flags, now);
        log::debug!("met addr={addr} id={peer_id} seed={is_seed}");
        if dialled {
            self.server.dialled(addr, Reach::Reached);
        }
        let sighting = Sighting {
            addr,
            peer_id: Some(peer_id),
            key: None,
            is_seed: Some(is_seed),
            is_paused,
            heard: Heard::Handshake,
        };
        let info_hash = running.swarm.meta().info_hash;
        self.server
            .registry
            .heard(info_hash, &sighting, &self.interfaces, now);
        if peer_id.is_evpeer() {
            self.met_evpeer(torrent, addr, now);
        }
        self.network_met(conn, (torrent, peer_id), (addr, is_seed), now);
    }

    /// An evpeer can be asked for peers when the torrent's own trackers are silent.
    fn met_evpeer(&mut self, id: TorrentId, addr: SocketAddr, now: Instant) {
        let Some(torrent) = self.torrents.get_mut(&id) else {
            return;
        };
        if torrent.contacts.evpeers.len() < limits::LAST_RESORT_MAX
            && torrent.contacts.evpeers.insert(addr)
        {
            let known = torrent.contacts.evpeers.iter().copied().collect();
            self.set_last_resort(id, known, now);
        }
    }

    /// Dialling a peer brought nothing. If it announced itself to us it is there, and something
    /// in between keeps others out: our tracker tells it so.
    pub(super) fn not_reached(&mut self, id: TorrentId, addr: Option<SocketAddr>) {
        let (Some(torrent), Some(addr)) = (self.torrents.get(&id), addr) else {
            return;
        };
        let info_hash = torrent.swarm.meta().info_hash;
        let entry = self.server.registry.peer(info_hash, addr);
        if entry.is_some_and(|e| e.heard == Heard::Announce && !e.is_connected) {
            self.server.dialled(addr, Reach::Unreached);
        }
    }

    /// The connection to a peer has ended.
    pub(super) fn parted(
        &mut self,
        id: TorrentId,
        addr: SocketAddr,
        departure: Departure,
        now: Instant,
    ) {
        if let Some(torrent) = self.torrents.get_mut(&id) {
            torrent.roster.left(addr, departure, now);
            let info_hash = torrent.swarm.meta().info_hash;
            self.server.registry.disconnected(info_hash, addr, now);
        }
        self.rearm_registry();
    }

    /// What our tracker was told: who announces a torrent of ours is dialled.
    pub(super) fn take_tracker_events(&mut self, now: Instant) {
        while let Some(event) = self.server.poll_event() {
            let ServerEvent::Announced {
                info_hash,
                addr,
                peer_id,
                is_seed,
                event,
                ..
            } = event;
            let is_of_use = peer_id != self.secrets.peer_id && event != Some(Event::Stopped);
            self.announced_to_us(info_hash, (addr, peer_id), (is_seed, event), now);
            if let Some(&id) = self.by_hash.get(&info_hash)
                && is_of_use
                && !(is_seed && self.is_whole_seed(id))
            {
                self.heard_of(id, addr, Source::Incoming, now);
            }
        }
        self.rearm_registry();
    }

    /// Evpeers hear of who announced itself to our tracker.
    fn announced_to_us(
        &mut self,
        info_hash: InfoHash,
        (addr, peer_id): (SocketAddr, PeerId),
        (is_seed, event): (bool, Option<Event>),
        now: Instant,
    ) {
        let id = self.by_hash.get(&info_hash);
        if !id.is_some_and(|id| self.gossips_about(*id)) || peer_id == self.secrets.peer_id {
            return;
        }
        match event {
            Some(Event::Stopped) => self.network_saw_leave(info_hash, addr, now),
            _ if peer_id.is_evpeer() => self.network_heard(addr, now),
            _ => self.network_saw(info_hash, addr, is_seed, now),
        }
    }

    /// Our tracker knows the torrent, and that we are in its swarm.
    pub(super) fn track(&mut self, id: TorrentId, now: Instant) {
        let Some(torrent) = self.torrents.get(&id) else {
            return;
        };
        let meta = torrent.swarm.meta();
        let terms = Terms {
            is_private: meta.private,
            names_us: self.names_us(&meta.trackers),
        };
        let (info_hash, is_seed) = (meta.info_hash, torrent.swarm.is_complete());
        let is_paused = torrent.is_partial_seed();
        let registry = &mut self.server.registry;
        registry.track(info_hash, terms, now);
        if self.port == 0 {
            return;
        }
        for ip in OURSELVES {
            let sighting = Sighting {
                addr: SocketAddr::new(ip, self.port),
                peer_id: Some(self.secrets.peer_id),
                key: Some(self.secrets.key),
                is_seed: Some(is_seed),
                is_paused,
                heard: Heard::Ourselves,
            };
            registry.heard(info_hash, &sighting, &self.interfaces, now);
        }
        self.rearm_registry();
    }

    /// Our tracker lists us no more in the swarm of a torrent that is paused.
    pub(super) fn unlist(&mut self, id: TorrentId, now: Instant) {
        let Some(torrent) = self.torrents.get(&id) else {
            return;
        };
        let info_hash = torrent.swarm.meta().info_hash;
        for ip in OURSELVES {
            let addr = SocketAddr::new(ip, self.port);
            let registry = &mut self.server.registry;
            registry.left(info_hash, addr, Heard::Ourselves, now);
        }
    }

    /// Whether one of these trackers is ours.
    fn names_us(&self, trackers: &[Vec<String>]) -> bool {
        let is_us = |url: &String| {
            let Ok(url) = TrackerUrl::parse(url) else {
                return false;
            };
            let ip = url.host().trim_matches(['[', ']']).parse::<IpAddr>();
            url.port() == self.port && ip.is_ok_and(|ip| self.interfaces.is_ours(ip))
        };
        trackers.iter().flatten().any(is_us)
    }

    /// The interfaces of this machine, at the start and after each change.
    pub fn interfaces_found(&mut self, interfaces: Interfaces, now: Instant) {
        if self.interfaces == interfaces {
            return;
        }
        self.interfaces = interfaces;
        if let Some(lsd) = &mut self.lsd {
            lsd.interfaces_found(&self.interfaces);
        }
        self.gate.interfaces_found(&self.interfaces);
        if let Some(network) = &mut self.network {
            network.interfaces_found(&self.interfaces);
        }
        for torrent in self.torrents.values_mut() {
            torrent.candidates.interfaces_found(&self.interfaces);
        }
        self.rearm_lsd();
        let ids: Vec<TorrentId> = self.torrents.keys().copied().collect();
        for id in ids {
            self.track(id, now);
        }
        for conn in self.conn_ids() {
            self.place_peer(conn);
        }
        if !self.config.limit_local {
            self.limits_changed(now); // others are exempt now
        }
    }

    /// All that is known of peers, by swarm.
    pub fn registry(&self) -> &Registry {
        &self.server.registry
    }

    /// Forgets peers that fell silent. Evpeers hear of those that we had seen ourselves.
    pub(super) fn registry_due(&mut self, now: Instant) {
        for (info_hash, gone) in self.server.registry.expire(now) {
            let id = self.by_hash.get(&info_hash);
            if id.is_some_and(|id| self.gossips_about(*id)) {
                for change in gone.iter().filter(|change| change.heard.is_first_hand()) {
                    self.network_expired(info_hash, change.addr, now);
                }
            }
        }
        self.rearm_registry();
    }

    /// Makes sure that peers that fall silent are forgotten in time.
    pub(super) fn rearm_registry(&mut self) {
        if let Some(at) = self.server.registry.next_deadline()
            && at < self.registry_armed
        {
            self.registry_armed = at;
            self.timers.arm(TimerId::Registry, at);
        }
    }
}

/// Us, for our own tracker: every asker is told the address that it came in on.
const OURSELVES: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    IpAddr::V6(Ipv6Addr::UNSPECIFIED),
];
