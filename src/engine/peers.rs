//! Streams to and from peers: handshakes, messages, the end.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use super::conn::{Exchange, Purpose, Stage};
use super::extended::Told;
use super::link::LINKS;
use super::timers::TimerId;
use super::{Ending, Engine, Report, Taken};
use crate::base::id::{ConnId, TorrentId};
use crate::base::time::Instant;
use crate::discovery::candidates::{End, Reach};
use crate::discovery::pex::Departure;
use crate::engine::action::StorageAction;
use crate::swarm::{Caps, Effect, Origin};
use crate::wire::decoder::{Decoder, Step};
use crate::wire::extended::{self, ExtHandshake};
use crate::wire::handshake::{self, Handshake, Reserved, Sniff};
use crate::wire::message::{Message, Outgoing};
use crate::wire::pex::Pex;

impl Engine {
    /// The first bytes of an incoming stream: a peer's handshake, or nothing we know.
    pub(super) fn decide(&mut self, id: ConnId, bytes: &[u8], now: Instant) -> Taken {
        let Some(conn) = self.conn_mut(id) else {
            return Taken {
                used: bytes.len(),
                store: None,
            };
        };
        let Stage::Undecided(head) = &mut conn.stage else {
            unreachable!("matched by the caller")
        };
        let used = head.fill(bytes);
        match handshake::sniff(head.so_far()) {
            Sniff::Peer | Sniff::NeedMore => {}
            Sniff::Http => {
                let begun = head.so_far().to_vec();
                self.serve_http(id, &begun, now);
                return Taken { used, store: None };
            }
            Sniff::Unknown => {
                self.close(id, Ending::Fault("not a protocol that is spoken here"), now);
                return Taken {
                    used: bytes.len(),
                    store: None,
                };
            }
        }
        let whole = head.whole().copied();
        if let Some(whole) = whole {
            match Handshake::decode(&whole) {
                Ok(theirs) if theirs.info_hash == LINKS => {
                    self.link_shook_hands(id, theirs, false, now);
                }
                Ok(theirs) => self.shook_hands(id, None, theirs, now),
                Err(error) => self.close(id, Ending::Fault(&error.to_string()), now),
            }
        }
        Taken { used, store: None }
    }

    /// A stream that we dialled is up: our handshake goes first.
    pub(super) fn greet(&mut self, id: ConnId, torrent: TorrentId) {
        let Some(running) = self.torrents.get(&torrent) else {
            return;
        };
        let info_hash = running.swarm.meta().info_hash;
        let bytes = self.our_handshake(info_hash);
        let Some(conn) = self.conn_mut(id) else {
            return;
        };
        conn.stage = Stage::Greeting(torrent, Box::default());
        conn.outbox.push(Outgoing::Raw(bytes));
        self.flush(id);
    }

    /// Bytes of the other handshake, on a stream that we dialled.
    pub(super) fn greeted(&mut self, id: ConnId, bytes: &[u8], now: Instant) -> Taken {
        let Some(conn) = self.conn_mut(id) else {
            return Taken {
                used: bytes.len(),
                store: None,
            };
        };
        let Stage::Greeting(torrent, head) = &mut conn.stage else {
            unreachable!("matched by the caller")
        };
        let (torrent, used) = (*torrent, head.fill(bytes));
        let wrong = !matches!(
            handshake::sniff(head.so_far()),
            Sniff::Peer | Sniff::NeedMore
        );
        let whole = head.whole().copied();
        if wrong {
            self.close(id, Ending::Fault("does not speak the peer protocol"), now);
        } else if let Some(whole) = whole {
            match Handshake::decode(&whole) {
                Ok(theirs) => self.shook_hands(id, Some(torrent), theirs, now),
                Err(error) => self.close(id, Ending::Fault(&error.to_string()), now),
            }
        }
        Taken { used, store: None }
    }

    pub(super) fn our_handshake(&self, info_hash: crate::base::id::InfoHash) -> Bytes {
        let reserved = Reserved {
            fast: self.config.fast,
            extended: true,
            dht: false,
        };
        let ours = Handshake {
            reserved,
            info_hash,
            peer_id: self.secrets.peer_id,
        };
        Bytes::copy_from_slice(&ours.encode())
    }

    /// Both ends' handshakes are known; `dialled` names the torrent that we asked for.
    fn shook_hands(
        &mut self,
        id: ConnId,
        dialled: Option<TorrentId>,
        theirs: Handshake,
        now: Instant,
    ) {
        let torrent = match self.admit(id, dialled, &theirs, now) {
            Ok(torrent) => torrent,
            Err(ending) => return self.close(id, ending, now),
        };
        let ours = dialled
            .is_none()
            .then(|| self.our_handshake(theirs.info_hash));
        let caps = Caps {
            fast: self.config.fast && theirs.reserved.fast,
        };
        let Some(running) = self.torrents.get_mut(&torrent) else {
            return;
        };
        let Some((_, conn)) = self.conns.get_mut(id.index as usize) else {
            return;
        };
        let origin = Origin {
            remote: conn.remote,
            peer_id: theirs.peer_id,
        };
        let before = running.swarm.peer_count();
        let key = running.swarm.joined(id, origin, caps, now);
        let is_exempt = !self.config.limit_local && self.interfaces.is_on_link(origin.remote.ip());
        running.swarm.set_limited(key, !is_exempt);
        ours.into_iter()
            .for_each(|bytes| conn.outbox.push(Outgoing::Raw(bytes)));
        conn.stage = Stage::Exchange(Box::new(Exchange {
            torrent,
            key,
            peer_id: theirs.peer_id,
            extended: theirs.reserved.extended,
            upload_only_id: 0,
            client: None,
            pex: None,
            decoder: Decoder::default(),
            dialled: dialled.is_some(),
        }));
        let (remote, opened) = (conn.remote, conn.opened);
        self.crowd_changed(torrent, before);
        self.place_peer(id);
        self.bound_buffer(id, torrent);
        self.undecided.remove(&(opened, id));
        self.gate.joined(remote.ip());
        self.met(id, now);
        self.run_effects(torrent, now);
        if theirs.reserved.extended {
            self.send_extended(id, torrent);
        }
        self.flush(id);
        self.arm_torrent(torrent, now + super::timers::TICK);
        log::debug!("peer joined remote={remote} id={}", theirs.peer_id);
        self.report(Report::PeerJoined {
            torrent,
            remote,
            peer_id: theirs.peer_id,
        });
    }

    /// Whether the stream may take part: a torrent of ours, not ourselves, not twice, not banned.
    fn admit(
        &mut self,
        id: ConnId,
        dialled: Option<TorrentId>,
        theirs: &Handshake,
        now: Instant,
    ) -> Result<TorrentId, Ending<'static>> {
        let torrent = *self
            .by_hash
            .get(&theirs.info_hash)
            .ok_or(Ending::Fault("asks for a torrent that is not here"))?;
        if dialled.is_some_and(|wanted| wanted != torrent) {
            return Err(Ending::Fault("answered for another torrent"));
        }
        if theirs.peer_id == self.secrets.peer_id {
            let called = self.conn(id).filter(|_| dialled.is_some());
            if let Some(remote) = called.map(|conn| conn.remote) {
                self.network_is_us(remote);
            }
            return Err(Ending::Fault("this is our own address"));
        }
        let running = &self.torrents[&torrent];
        if !running.takes_peers() {
            return Err(Ending::Local("the torrent is stopped"));
        }
        let remote = self.conn(id).map_or(([0, 0, 0, 0], 0).into(), |c| c.remote);
        if dialled.is_none() && !self.gate.has_room(remote.ip()) {
            return Err(Ending::Local("no room for another peer"));
        }
        if self.offences.is_banned(remote.ip(), theirs.peer_id) {
            return Err(Ending::Fault("sent wrong data before"));
        }
        let twin = running
            .swarm
            .peers()
            .find(|(_, p)| p.origin.peer_id == theirs.peer_id);
        let twin = twin.map(|(_, peer)| peer.conn);
        if let Some(twin) = twin {
            let twin_dialled = self
                .conn(twin)
                .and_then(|c| c.exchange())
                .is_some_and(|e| e.dialled);
            // Both ends keep the stream that was dialled by the smaller peer id.
            let keep_dialled = self.secrets.peer_id < theirs.peer_id;
            if twin_dialled == dialled.is_some() || twin_dialled == keep_dialled {
                return Err(Ending::Redundant("connected already"));
            }
            self.close(twin, Ending::Redundant("connected twice"), now);
        }
        // Whoever is called had room kept for him, unless he is to take the place of another.
        // Whoever comes in the place of his twin has that.
        let taken = match dialled {
            Some(_) => self.peers_joined(),
            None => self.peer_conns(),
        };
        let is_full = twin.is_none() && taken >= self.config.conns_max as usize;
        if is_full && !self.make_room(torrent, now) {
            return Err(Ending::Local("no room for another peer"));
        }
        Ok(torrent)
    }

    /// One message, or a part of a block.
    pub(super) fn exchange_step(&mut self, id: ConnId, bytes: &[u8], now: Instant) -> Taken {
        let all = Taken {
            used: bytes.len(),
            store: None,
        };
        let Some((_, conn)) = self.conns.get_mut(id.index as usize) else {
            return all;
        };
        let Stage::Exchange(exchange) = &mut conn.stage else {
            return all;
        };
        let (torrent, key, extended) = (exchange.torrent, exchange.key, exchange.extended);
        let Some(running) = self.torrents.get_mut(&torrent) else {
            return all;
        };
        let (used, step) = match exchange.decoder.step(bytes) {
            Ok(step) => step,
            Err(error) => {
                self.close(id, Ending::Fault(&error.to_string()), now);
                return all;
            }
        };
        let mut store = None;
        let mut told = None;
        let outcome = match step {
            Step::NeedMore => return Taken { used, store },
            Step::Payload { done, len, .. } => {
                let part = &bytes[used - len as usize..used];
                store = running.swarm.payload(key, done, part, now);
                Ok(())
            }
            Step::BlockBegins(block) => running.swarm.block_begins(key, block, now),
            Step::Message(Message::Extended { id: 0, body }) if extended => {
                told = Some(ExtHandshake::decode(body).map(Told::Handshake));
                Ok(())
            }
            Step::Message(Message::Extended {
                id: extended::UPLOAD_ONLY_ID,
                body,
            }) if extended => {
                if let Some(&flag) = body.first() {
                    running.swarm.upload_only_told(key, flag != 0);
                    self.met(id, now);
                }
                Ok(())
            }
            Step::Message(Message::Extended {
                id: extended::PEX_ID,
                body,
            }) if extended => {
                told = Some(Pex::decode(body).map(Told::Pex));
                Ok(())
            }
            Step::Message(Message::Extended {
                id: extended::EV_PEERS_ID,
                body,
            }) if extended => {
                told = Some(Ok(Told::EvPeers(Bytes::copy_from_slice(body))));
                Ok(())
            }
            Step::Message(message) => running.swarm.message(key, message, now),
        };
        match told {
            Some(Ok(Told::Handshake(theirs))) => self.extended_told(id, theirs, now),
            Some(Ok(Told::Pex(pex))) => self.pex_received(id, &pex, now),
            Some(Ok(Told::EvPeers(body))) => self.network_received(id, &body, now),
            Some(Err(error)) => self.close(id, Ending::Fault(&error.to_string()), now),
            None => {}
        }
        match outcome {
            Ok(()) => self.run_effects(torrent, now),
            Err(fault) if fault.may_retry() => {
                self.offended(id, now);
                self.close(id, Ending::Local(&fault.to_string()), now);
            }
            Err(fault) => self.close(id, Ending::Fault(&fault.to_string()), now),
        }
        Taken { used, store }
    }

    /// Does what the exchange wants done.
    pub(super) fn run_effects(&mut self, torrent: TorrentId, now: Instant) {
        while let Some(running) = self.torrents.get_mut(&torrent)
            && let Some(effect) = running.swarm.poll_effect(now)
        {
            match effect {
                Effect::Send(conn, message) => {
                    if let Some(conn) = self.conn_mut(conn) {
                        conn.outbox.push(message);
                    }
                    self.flush(conn);
                }
                Effect::DropRequests(conn) => {
                    if let Some(conn) = self.conn_mut(conn) {
                        conn.outbox.drop_requests();
                    }
                }
                Effect::Flush(conn) => self.flush(conn),
                Effect::News(at) => self.timers.arm(TimerId::News(torrent), at),
                Effect::Close(conn, why) => {
                    self.close(conn, Ending::Redundant(&why.to_string()), now);
                }
                Effect::Ban(origin, piece) => self.ban(torrent, origin, piece, now),
                Effect::Prepare(piece) => self.storage(StorageAction::Prepare { torrent, piece }),
                Effect::Store(slot, bytes) => self.storage(StorageAction::Store { slot, bytes }),
                Effect::Check(piece) => self.storage(StorageAction::Check { torrent, piece }),
                Effect::Spoilt(piece) => {
                    log::warn!("piece on disk is wrong: torrent={torrent} piece={piece}");
                    self.piece_lost(torrent, piece, now);
                }
                Effect::PeerComplete(conn) => self.met(conn, now),
                Effect::Completed => self.settle(torrent),
            }
        }
    }

    /// Removes a stream from every list; whether it was there.
    pub(super) fn forget(&mut self, id: ConnId, ending: Ending<'_>, now: Instant) -> bool {
        if self.conn(id).is_none() {
            return false;
        }
        if matches!(ending, Ending::Fault(_)) {
            self.offended(id, now);
        }
        let (_, conn) = self.conns.remove(id.index as usize);
        self.link_streams.remove(&id);
        self.farewells.remove(&id);
        self.pace.forget(id);
        self.network_lost(id, now);
        let age = now - conn.opened;
        let end = match ending {
            Ending::Fault(_) => End::Never,
            Ending::Redundant(_) => End::Redundant,
            // Nor is it dialled for a while.
            _ if self.offences.is_refused(conn.remote.ip(), now) => End::Redundant,
            Ending::Failed(_) | Ending::Remote(_) | Ending::Local(_) => End::Lost,
        };
        log::debug!(
            "connection ended remote={} reason={}",
            conn.remote,
            ending.text()
        );
        match conn.stage {
            Stage::Closing => {}
            Stage::Undecided(_) => {
                self.undecided.remove(&(conn.opened, id));
            }
            Stage::Http(_) => {
                self.http.remove(&id);
            }
            Stage::Dialling(Purpose::Peer(torrent)) => {
                self.call_ended(Some(torrent), now);
                self.not_reached(torrent, conn.listens);
                self.network_missed(conn.listens, Some(torrent), now);
                self.peer_ended(torrent, conn.listens, End::Unreachable, None, now);
            }
            Stage::Dialling(Purpose::Announce(announce)) => {
                self.call_ended(None, now);
                self.announce_failed(announce, ending.text(), now);
            }
            Stage::Dialling(Purpose::Link) => {
                self.call_ended(None, now);
                self.network_missed(conn.listens, None, now);
            }
            Stage::Meeting(_) => self.network_missed(conn.listens, None, now),
            Stage::Link(_) => self.gate.left(conn.remote.ip()),
            Stage::Greeting(torrent, _) => {
                if matches!(ending, Ending::Failed(_) | Ending::Remote(_)) {
                    self.network_doubts(conn.listens, now);
                }
                self.peer_ended(torrent, conn.listens, end, None, now);
            }
            Stage::Announce(announce) => self.announce_failed(announce, ending.text(), now),
            Stage::Exchange(exchange) => {
                let torrent = exchange.torrent;
                if let Some(running) = self.torrents.get_mut(&torrent) {
                    let before = running.swarm.peer_count();
                    running.swarm.left(exchange.key, now);
                    self.crowd_changed(torrent, before);
                }
                let reason = ending.text().to_owned();
                self.report(Report::PeerLeft {
                    torrent,
                    remote: conn.remote,
                    reason,
                });
                self.gate.left(conn.remote.ip());
                self.peer_ended(torrent, conn.listens, end, Some(age), now);
                self.run_effects(torrent, now);
            }
        }
        true
    }

    /// A stream to a peer, or an attempt at one, has ended; `age` is that of an exchange.
    fn peer_ended(
        &mut self,
        torrent: TorrentId,
        listens: Option<SocketAddr>,
        end: End,
        age: Option<Duration>,
        now: Instant,
    ) {
        let (Some(running), Some(listens)) = (self.torrents.get_mut(&torrent), listens) else {
            return;
        };
        running
            .candidates
            .ended(listens, end, age.unwrap_or_default(), now);
        let is_twin = |c: &super::Conn| {
            c.listens == Some(listens) && c.exchange().is_some_and(|e| e.torrent == torrent)
        };
        if self.conns.iter().any(|(_, (_, conn))| is_twin(conn)) {
            running.candidates.connected(listens);
        } else if age.is_some() {
            let departure = match end {
                End::Never => Departure::Banned,
                End::Unreachable | End::Lost | End::Redundant => Departure::Usual,
            };
            self.parted(torrent, listens, departure, now);
        }
        let Some(running) = self.torrents.get_mut(&torrent) else {
            return;
        };
        if let Some(at) = running.candidates.next_deadline(Reach::Everywhere) {
            self.arm_torrent(torrent, at);
        }
    }
}
