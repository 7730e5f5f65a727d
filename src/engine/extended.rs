//! The extension protocol (BEP 10) on the streams: what each side says of itself.

use bytes::Bytes;

use super::conn::Stage;
use super::{Engine, State};
use crate::base::id::{ConnId, TorrentId};
use crate::base::limits;
use crate::base::time::Instant;
use crate::discovery::candidates::Source;
use crate::discovery::overlay::Purpose;
use crate::wire::extended::{self, ExtHandshake};
use crate::wire::message::Outgoing;
use crate::wire::pex::Pex;

/// An extended message, read.
pub(super) enum Told {
    /// BEP 10.
    Handshake(ExtHandshake),
    /// BEP 11.
    Pex(Pex),
    /// News between evpeers.
    EvPeers(Bytes),
}

impl Engine {
    /// Our extension handshake (BEP 10), also sent again when what it says has changed.
    pub(super) fn send_extended(&mut self, id: ConnId, torrent: TorrentId) {
        let complete = self
            .torrents
            .get(&torrent)
            .is_some_and(|t| t.state == State::Seeding);
        let Some(remote) = self.conn(id).map(|c| c.remote) else {
            return;
        };
        let private = self
            .torrents
            .get(&torrent)
            .is_some_and(|t| t.swarm.meta().private);
        let mut m = extended::OURS;
        if private || !self.config.pex {
            m.ut_pex = None;
        }
        if !self.gossips_about(torrent) {
            m.ev_peers = None;
        }
        let ours = ExtHandshake {
            m,
            v: Some(concat!("evpeer ", env!("CARGO_PKG_VERSION")).to_owned()),
            p: (self.port != 0).then_some(self.port),
            reqq: Some(limits::REQUESTS_IN_MAX),
            yourip: Some(remote.ip().to_canonical()),
            upload_only: complete.then_some(true),
            metadata_size: None,
        };
        let body = Bytes::from(ours.encode());
        if let Some(conn) = self.conn_mut(id) {
            conn.outbox.push(Outgoing::Extended { id: 0, body });
        }
    }

    /// The peer's extension handshake (BEP 10); it may come again with changes.
    pub(super) fn extended_told(&mut self, id: ConnId, theirs: ExtHandshake, now: Instant) {
        let Some((_, conn)) = self.conns.get_mut(id.index as usize) else {
            return;
        };
        let Stage::Exchange(exchange) = &mut conn.stage else {
            return;
        };
        if let Some(wanted) = theirs.m.upload_only {
            exchange.upload_only_id = wanted;
        }
        if let Some(name) = theirs.v {
            exchange.client = Some(name.into());
        }
        let (torrent, key) = (exchange.torrent, exchange.key);
        let Some(running) = self.torrents.get_mut(&torrent) else {
            return;
        };
        let mut is_new = false;
        if let Some(port) = theirs.p
            && conn.listens.is_none()
        {
            let mut listens = conn.remote;
            listens.set_port(port);
            conn.listens = Some(listens);
            running.candidates.add(listens, Source::Incoming, now);
            running.candidates.connected(listens);
            is_new = true;
        }
        if let Some(reqq) = theirs.reqq {
            running.swarm.queue_limit_told(key, reqq);
        }
        if let Some(upload_only) = theirs.upload_only {
            running.swarm.upload_only_told(key, upload_only);
            is_new = true;
        }
        if is_new {
            self.met(id, now);
        }
        if let Some(wanted) = theirs.m.ut_pex {
            self.pex_agreed(id, wanted, now);
        }
        if let Some(wanted) = theirs.m.ev_peers
            && self.gossips_about(torrent)
            && let Some(peer_id) = self.conn(id).and_then(|c| Some(c.exchange()?.peer_id))
        {
            self.network_speaks(id, (peer_id, Purpose::Swarm), wanted, now);
        }
    }
}
