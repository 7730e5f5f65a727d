//! Streams for links alone: between evpeers that share no swarm, or none whose stream is open.
//!
//! They are on the same port and speak the same protocol. The info hash of their handshake is
//! [`LINKS`], which no torrent has; after the extension handshakes nothing but `ev_peers` messages
//! and keep-alives is said on them.

use bytes::Bytes;

use super::conn::{Head, Stage};
use super::{Ending, Engine, Taken};
use crate::base::id::{ConnId, InfoHash, PeerId};
use crate::base::limits;
use crate::base::time::Instant;
use crate::discovery::overlay::Purpose;
use crate::wire::decoder::{Decoder, Step};
use crate::wire::extended::{self, ExtHandshake, Ids};
use crate::wire::handshake::{self, Handshake, Sniff};
use crate::wire::message::{Message, Outgoing};

/// A stream for links whose handshakes are done.
#[derive(Debug)]
pub struct Link {
    /// The id in the other end's handshake.
    peer_id: PeerId,
    decoder: Decoder,
    /// The overlay has no use for it: it ends when nothing is left to be written.
    is_ending: bool,
}

impl Engine {
    /// A stream for links that we dialled is up: our handshake goes first.
    pub(super) fn greet_link(&mut self, id: ConnId) {
        let bytes = self.our_handshake(LINKS);
        if let Some(conn) = self.conn_mut(id) {
            conn.stage = Stage::Meeting(Box::<Head>::default());
            conn.outbox.push(Outgoing::Raw(bytes));
            self.flush(id);
        }
    }

    /// Bytes of the other handshake, on a stream for links that we dialled.
    pub(super) fn link_greeted(&mut self, id: ConnId, bytes: &[u8], now: Instant) -> Taken {
        let mut used = bytes.len();
        if let Some(conn) = self.conn_mut(id)
            && let Stage::Meeting(head) = &mut conn.stage
        {
            used = head.fill(bytes);
            let sniffed = handshake::sniff(head.so_far());
            let whole = head.whole().copied();
            if !matches!(sniffed, Sniff::Peer | Sniff::NeedMore) {
                self.close(id, Ending::Fault("does not speak the peer protocol"), now);
            } else if let Some(whole) = whole {
                match Handshake::decode(&whole) {
                    Ok(theirs) if theirs.info_hash == LINKS => {
                        self.link_shook_hands(id, theirs, true, now);
                    }
                    Ok(_) => self.close(id, Ending::Fault("answered for a torrent"), now),
                    Err(error) => self.close(id, Ending::Fault(&error.to_string()), now),
                }
            }
        }
        Taken { used, store: None }
    }

    /// Both ends' handshakes are known.
    pub(super) fn link_shook_hands(
        &mut self,
        id: ConnId,
        theirs: Handshake,
        dialled: bool,
        now: Instant,
    ) {
        if let Err(ending) = self.admit_link(id, &theirs, dialled, now) {
            return self.close(id, ending, now);
        }
        let ours = (!dialled).then(|| self.our_handshake(LINKS));
        let Some(conn) = self.conn_mut(id) else {
            return;
        };
        conn.stage = Stage::Link(Box::new(Link {
            peer_id: theirs.peer_id,
            decoder: Decoder::default(),
            is_ending: false,
        }));
        ours.into_iter()
            .for_each(|bytes| conn.outbox.push(Outgoing::Raw(bytes)));
        let (remote, opened, listens) = (conn.remote, conn.opened, conn.listens);
        self.undecided.remove(&(opened, id));
        self.link_streams.insert(id);
        self.gate.joined(remote.ip());
        let said = ExtHandshake {
            m: Ids {
                ev_peers: Some(extended::EV_PEERS_ID),
                ..Ids::default()
            },
            v: Some(concat!("evpeer ", env!("CARGO_PKG_VERSION")).to_owned()),
            p: (self.port != 0).then_some(self.port),
            yourip: Some(remote.ip().to_canonical()),
            ..ExtHandshake::default()
        };
        let body = Bytes::from(said.encode());
        if let Some(conn) = self.conn_mut(id) {
            conn.outbox.push(Outgoing::Extended { id: 0, body });
        }
        if let Some(addr) = listens {
            self.network_holds(id, addr, now);
        }
        self.flush(id);
    }

    /// Whether the stream may stay: an evpeer's, not our own, with room for it.
    fn admit_link(
        &mut self,
        id: ConnId,
        theirs: &Handshake,
        dialled: bool,
        now: Instant,
    ) -> Result<(), Ending<'static>> {
        let Some(remote) = self.conn(id).map(|conn| conn.remote) else {
            return Err(Ending::Local("is gone"));
        };
        if self.network.is_none() {
            return Err(Ending::Local("no links here"));
        }
        if theirs.peer_id == self.secrets.peer_id {
            if dialled {
                self.network_is_us(remote);
            }
            return Err(Ending::Redundant("this is our own address"));
        }
        if !theirs.reserved.extended {
            return Err(Ending::Fault("wants links without the extension protocol"));
        }
        let is_known_bad = self.offences.is_banned(remote.ip(), theirs.peer_id);
        if is_known_bad || self.offences.is_refused(remote.ip(), now) {
            return Err(Ending::Local("broke the rules before"));
        }
        let is_full = self.link_streams.len() >= limits::LINK_STREAMS_MAX;
        if !dialled && (is_full || !self.gate.has_room(remote.ip())) {
            return Err(Ending::Local("no room for another link"));
        }
        Ok(())
    }

    /// One message.
    pub(super) fn link_step(&mut self, id: ConnId, bytes: &[u8], now: Instant) -> Taken {
        let all = Taken {
            used: bytes.len(),
            store: None,
        };
        let Some((_, conn)) = self.conns.get_mut(id.index as usize) else {
            return all;
        };
        let Stage::Link(link) = &mut conn.stage else {
            return all;
        };
        let peer_id = link.peer_id;
        let (used, step) = match link.decoder.step(bytes) {
            Ok(step) => step,
            Err(error) => {
                self.close(id, Ending::Fault(&error.to_string()), now);
                return all;
            }
        };
        match step {
            Step::NeedMore | Step::Message(Message::KeepAlive) => {}
            Step::Message(Message::Extended { id: 0, body }) => match ExtHandshake::decode(body) {
                Ok(theirs) => self.link_told(id, peer_id, &theirs, now),
                Err(error) => self.close(id, Ending::Fault(&error.to_string()), now),
            },
            Step::Message(Message::Extended {
                id: extended::EV_PEERS_ID,
                body,
            }) => {
                // The body is in the decoder, which the stream owns.
                let body = Bytes::copy_from_slice(body);
                self.network_received(id, &body, now);
            }
            Step::Message(_) | Step::Payload { .. } | Step::BlockBegins(_) => {
                self.close(id, Ending::Fault("exchanges pieces without a torrent"), now);
                return all;
            }
        }
        Taken { used, store: None }
    }

    /// The other end's extension handshake.
    fn link_told(&mut self, id: ConnId, peer_id: PeerId, theirs: &ExtHandshake, now: Instant) {
        let Some(conn) = self.conn_mut(id) else {
            return;
        };
        if let (None, Some(port)) = (conn.listens, theirs.p) {
            let mut listens = conn.remote;
            listens.set_port(port);
            conn.listens = Some(listens);
            self.network_holds(id, listens, now);
        }
        if let Some(wanted) = theirs.m.ev_peers {
            self.network_speaks(id, (peer_id, Purpose::Overlay), wanted, now);
        }
    }

    /// The overlay has no use for a stream: ends it if it is for links alone.
    pub(super) fn end_link_stream(&mut self, id: ConnId, now: Instant) {
        let Some(conn) = self.conn_mut(id) else {
            return;
        };
        let Stage::Link(link) = &mut conn.stage else {
            return;
        };
        link.is_ending = true;
        if conn.outbox.is_empty() {
            self.close(id, Ending::Redundant("no link on it"), now);
        }
    }

    /// Something left on a stream: ends it if that was the last.
    pub(super) fn link_sent(&mut self, id: ConnId, now: Instant) {
        let is_farewell = self.farewells.contains(&id);
        let is_done = self.conn(id).is_some_and(|conn| {
            let is_ending = matches!(&conn.stage, Stage::Link(link) if link.is_ending);
            conn.outbox.is_empty() && (is_ending || is_farewell)
        });
        if is_done {
            self.close(id, Ending::Redundant("nothing is left to say"), now);
        }
    }
}

/// The info hash of streams for links: no SHA-1 that anybody will find.
pub const LINKS: InfoHash = InfoHash(*b"evpeer: links, no sw");
