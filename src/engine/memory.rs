//! What is remembered of a torrent from one run to the next.

use super::torrent::Transferred;
use super::{Engine, State};
use crate::base::id::TorrentId;
use crate::base::time::Instant;
use crate::config::session::{KnownPeer, SessionTorrent};
use crate::discovery::candidates::Source;

impl Engine {
    /// What is worth remembering of a torrent; its `known` are the peers that are connected, as
    /// seen at the beginning of time. Peers of private torrents come from their trackers alone
    /// (BEP 27) and are not remembered.
    pub fn remembered(&self, id: TorrentId) -> Option<SessionTorrent> {
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
            trackers: torrent.extra_trackers.clone(),
            peers: torrent.extra_peers.clone(),
            up_bytes: totals.up,
            down_bytes: totals.down,
            known,
        })
    }

    /// Takes up what was remembered of a torrent that was added a moment ago: peers to call,
    /// totals, and that it is paused. Its trackers and named peers came with the torrent.
    pub fn recall(&mut self, id: TorrentId, memory: &SessionTorrent, now: Instant) {
        let Some(torrent) = self.torrents.get_mut(&id) else {
            return;
        };
        torrent.former = Transferred {
            up: memory.up_bytes,
            down: memory.down_bytes,
            wasted: 0,
        };
        for peer in &memory.known {
            self.heard_of(id, peer.addr, Source::Session, now);
        }
        if memory.is_paused {
            self.pause(id, now);
        }
    }
}
