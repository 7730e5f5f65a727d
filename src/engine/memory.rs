//! What is remembered of a torrent from one run to the next.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use super::conn::Stage;
use super::goals::Seeded;
use super::torrent::Transferred;
use super::view::{Direction, HostView};
use super::{Engine, State};
use crate::base::id::TorrentId;
use crate::base::time::Instant;
use crate::config::Goal;
use crate::config::session::{KnownPeer, SessionTorrent};
use crate::discovery::candidates::Source;

impl Engine {
    /// What is worth remembering of a torrent; its `known` are the peers that are connected, as
    /// seen at the beginning of time. Peers of private torrents come from their trackers alone
    /// (BEP 27) and are not remembered.
    pub fn remembered(&self, id: TorrentId, now: Instant) -> Option<SessionTorrent> {
        let torrent = self.torrents.get(&id)?;
        let totals = self.totals(id)?;
        let meta = torrent.swarm.meta();
        let mut known = Vec::new();
        for (_, (_, conn)) in &self.conns {
            if let Some(exchange) = conn.exchange()
                && exchange.torrent == id
                && let Some(addr) = conn.listens
                && !meta.private
            {
                known.push(KnownPeer {
                    addr,
                    last_seen: 0,
                    is_evpeer: exchange.peer_id.is_evpeer(),
                });
            }
        }
        Some(SessionTorrent {
            info_hash: meta.info_hash,
            is_paused: torrent.state == State::Paused,
            trackers: torrent.contacts.trackers.clone(),
            peers: torrent.contacts.peers.clone(),
            up_bytes: totals.up,
            down_bytes: totals.down,
            mounts: Vec::new(), // the shell knows them
            limits: self.torrent_limits(id),
            was_complete: torrent.was_complete,
            listed: match torrent.was_complete {
                true => Vec::new(),
                false => torrent.tracker.listing(),
            },
            untold: torrent.tracker.untold(),
            seeded_s: match self.config.seed_goals.time {
                Some(Goal::At(_)) => torrent.seeded.time(now).as_secs(),
                // Nobody asks for it, and it would be written over and over.
                _ => torrent.seeded.formerly_s(),
            },
            seeds_on: torrent.seeded.goes_on,
            choice: torrent.choice.clone(),
            known,
        })
    }

    /// Whether its trackers have heard of a torrent, or of its end, as far as that is in `memory`.
    pub fn is_as_told(&self, id: TorrentId, memory: &SessionTorrent) -> bool {
        self.torrents.get(&id).is_none_or(|torrent| {
            let is_listed = torrent.was_complete || torrent.tracker.listing() == memory.listed;
            is_listed && torrent.tracker.untold() == memory.untold
        })
    }

    /// Takes over the list of evpeers that were met in all runs, whatever they shared. Those that
    /// are new in it are tried for links.
    pub fn recall_evpeers(&mut self, evpeers: &[KnownPeer]) {
        let met: BTreeSet<SocketAddr> = evpeers.iter().map(|peer| peer.addr).collect();
        let before = std::mem::replace(&mut self.evpeers_met, met.clone());
        for addr in met.difference(&before) {
            self.network_heard(*addr, Instant::ZERO);
        }
    }

    /// The evpeers at the other ends of streams for links alone, as seen at the beginning of time:
    /// worth remembering too, though no torrent knows them.
    pub fn evpeers_linked(&self) -> Vec<KnownPeer> {
        let known = |(addr, _, _)| KnownPeer {
            addr,
            last_seen: 0,
            is_evpeer: true,
        };
        self.link_ends().map(known).collect()
    }

    /// Streams for links alone: where the other end accepts connections, who called whom, when
    /// something came last.
    fn link_ends(&self) -> impl Iterator<Item = (SocketAddr, Direction, Instant)> {
        let streams = self.link_streams.iter().filter_map(|id| self.conn(*id));
        let ready = streams.filter(|conn| matches!(conn.stage, Stage::Link(_)));
        ready.filter_map(|conn| {
            let addr = conn.listens?;
            let direction = match addr == conn.remote {
                true => Direction::Outgoing,
                false => Direction::Incoming,
            };
            Some((addr, direction, conn.last_in))
        })
    }

    /// The evpeers that are in the network as far as is known, those that are connected for a
    /// torrent that is not private, and those that were met in all runs, each once, by their
    /// addresses.
    pub fn network(&self, now: Instant) -> Vec<HostView> {
        let mut hosts = BTreeMap::new();
        let by_torrent = |addr| {
            let torrents = self.torrents.values();
            let mut torrents = torrents.filter(|torrent| !torrent.swarm.meta().private);
            torrents.find_map(|torrent| torrent.candidates.source(addr))
        };
        let met = self.evpeers_met.iter().map(|&addr| (addr, false));
        let here = self.evpeers().into_iter().map(|addr| (addr, true));
        for (addr, is_here) in met.chain(here) {
            let other = match self.evpeers_met.contains(&addr) {
                true => Source::Session,
                false => Source::Evpeer { sender: addr.ip() },
            };
            let host = HostView {
                addr,
                source: Some(by_torrent(addr).unwrap_or(other)),
                is_here,
                silent_for: None,
            };
            hosts.insert(addr, host);
        }
        for (addr, direction, last_in) in self.link_ends() {
            let known = hosts.get(&addr).and_then(|host| host.source);
            let host = HostView {
                addr,
                source: match direction {
                    Direction::Incoming => by_torrent(addr).or(Some(Source::Incoming)),
                    Direction::Outgoing => known,
                },
                is_here: true,
                silent_for: Some(now - last_in),
            };
            hosts.insert(addr, host);
        }
        for (_, (_, conn)) in &self.conns {
            let Some(exchange) = conn.exchange().filter(|e| e.peer_id.is_evpeer()) else {
                continue;
            };
            let torrent = self.torrents.get(&exchange.torrent);
            let torrent = torrent.filter(|torrent| !torrent.swarm.meta().private);
            let (Some(torrent), Some(addr)) = (torrent, conn.listens) else {
                continue;
            };
            let silent_for = now - conn.last_in;
            let heard = hosts.get(&addr).and_then(|host| host.silent_for);
            let host = HostView {
                addr,
                source: torrent.candidates.source(addr),
                is_here: true,
                silent_for: Some(heard.map_or(silent_for, |heard| heard.min(silent_for))),
            };
            hosts.insert(addr, host);
        }
        hosts.into_values().collect()
    }

    /// Takes up what was remembered of a torrent that was added a moment ago: peers to call,
    /// totals, its limits, what its trackers have to hear, and that it is paused. Its trackers and
    /// named peers came with the torrent.
    pub fn recall(&mut self, id: TorrentId, memory: &SessionTorrent, now: Instant) {
        let Some(torrent) = self.torrents.get_mut(&id) else {
            return;
        };
        torrent.former = Transferred {
            up: memory.up_bytes,
            down: memory.down_bytes,
            wasted: 0,
        };
        torrent.was_complete = memory.was_complete;
        torrent.tracker.were_listed(&memory.listed);
        torrent.tracker.owe(&memory.untold, now);
        let formerly = Duration::from_secs(memory.seeded_s);
        torrent.seeded = Seeded::formerly(formerly, memory.seeds_on);
        self.set_torrent_limits(id, memory.limits, now);
        for peer in &memory.known {
            self.heard_of(id, peer.addr, Source::Session, now);
        }
        if memory.is_paused {
            self.pause(id, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::base::id::{InfoHash, PeerId};
    use crate::config::Config;
    use crate::engine::{Secrets, TorrentSpec};
    use crate::meta::create::{CreateOptions, Creator, NewFile};
    use crate::meta::metainfo::Metainfo;
    use crate::wire::extended::ExtHandshake;
    use crate::wire::handshake::{Handshake, Reserved};

    const NOW: Instant = Instant::from_micros(1_000_000);

    fn engine() -> Engine {
        let secrets = Secrets {
            rng_seed: 1,
            peer_id: PeerId([1; 20]),
            key: 7,
            tracker: [3; 16],
        };
        Engine::new(Config::default(), secrets, NOW)
    }

    /// Takes up a torrent of one empty piece.
    fn add(engine: &mut Engine, name: &str, private: bool) -> (TorrentId, InfoHash) {
        let options = CreateOptions {
            name: name.to_owned(),
            files: vec![NewFile {
                path: Vec::new(),
                len: 16_384,
                executable: false,
            }],
            piece_len: Some(16_384),
            private,
            ..CreateOptions::default()
        };
        let mut creator = Creator::new(options).expect("the options are sound");
        creator.feed(&[0; 16_384]).expect("as long as said");
        let torrent = creator.finish().expect("all of it was fed");
        let meta = Metainfo::from_bytes(&torrent).expect("what is created can be read");
        let info_hash = meta.info_hash;
        let spec = TorrentSpec {
            meta: Arc::new(meta),
            peers: Vec::new(),
            trackers: Vec::new(),
            choice: crate::base::choice::Choice::default(),
        };
        let id = engine.add_torrent(spec, NOW).expect("it is new");
        (id, info_hash)
    }

    /// A peer connects for a torrent and says that it listens on port 6881.
    fn join(engine: &mut Engine, host: u8, peer_id: [u8; 20], info_hash: InfoHash) {
        let remote = SocketAddr::from(([10, 0, 0, host], 40_000));
        let local = SocketAddr::from(([10, 0, 0, 1], 6881));
        let conn = engine.accepted(remote, local, NOW).expect("there is room");
        let reserved = Reserved {
            fast: true,
            extended: true,
            dht: false,
        };
        let handshake = Handshake {
            reserved,
            info_hash,
            peer_id: PeerId(peer_id),
        };
        let told = ExtHandshake {
            p: Some(6881),
            ..ExtHandshake::default()
        };
        let told = told.encode();
        let mut bytes = handshake.encode().to_vec();
        bytes.extend_from_slice(&(told.len() as u32 + 2).to_be_bytes());
        bytes.extend_from_slice(&[20, 0]);
        bytes.extend_from_slice(&told);
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let taken = engine.received(conn, rest, NOW);
            assert!(taken.used > 0, "some of {rest:?} is used");
            rest = &rest[taken.used..];
        }
    }

    #[test]
    fn peers_of_private_torrents_are_neither_remembered_nor_in_the_network() {
        let mut engine = engine();
        let (open, open_hash) = add(&mut engine, "open", false);
        let (private, private_hash) = add(&mut engine, "private", true);
        join(&mut engine, 2, *b"-EV0100-aaaaaaaaaaaa", open_hash);
        join(&mut engine, 3, *b"-XX0100-bbbbbbbbbbbb", open_hash);
        join(&mut engine, 4, *b"-EV0100-cccccccccccc", private_hash);

        let known = |id| engine.remembered(id, NOW).expect("it is there").known;
        let found: Vec<(SocketAddr, bool)> = known(open)
            .iter()
            .map(|peer| (peer.addr, peer.is_evpeer))
            .collect();
        let addr = |host| SocketAddr::from(([10, 0, 0, host], 6881));
        assert_eq!(found, [(addr(2), true), (addr(3), false)]);
        assert_eq!(known(private), []);
        let hosts: Vec<SocketAddr> = engine.network(NOW).iter().map(|host| host.addr).collect();
        assert_eq!(hosts, [addr(2)]);
    }

    #[test]
    fn evpeer_of_a_former_run_is_listed_once_and_as_connected_when_it_is() {
        let mut engine = engine();
        let (_, info_hash) = add(&mut engine, "open", false);
        let former = |host| KnownPeer {
            addr: SocketAddr::from(([10, 0, 0, host], 6881)),
            last_seen: 1,
            is_evpeer: true,
        };
        engine.recall_evpeers(&[former(2), former(9)]);
        join(&mut engine, 2, *b"-EV0100-aaaaaaaaaaaa", info_hash);
        let later = NOW + Duration::from_secs(3);
        let hosts = engine.network(later);
        let shown: Vec<_> = hosts.iter().map(|h| (h.source, h.silent_for)).collect();
        let connected = (Some(Source::Incoming), Some(Duration::from_secs(3)));
        assert_eq!(shown, [connected, (Some(Source::Session), None)]);
    }
}
