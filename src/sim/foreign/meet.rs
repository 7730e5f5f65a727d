//! How a stream begins: dialling, the handshakes, saying what there is.

use std::net::SocketAddr;

use bytes::Bytes;

use super::peer::Peer;
use super::reader::Heard;
use super::{Foreign, LAZY_MAX, Opening, ROUND};
use crate::base::bits::Bitfield;
use crate::base::id::{ConnId, PeerId, PieceIndex};
use crate::sim::actor::Hands;
use crate::wire::handshake::{Handshake, Reserved};
use crate::wire::message::Outgoing;

impl Foreign {
    pub(super) fn joined(&mut self, hands: &mut Hands<'_>) {
        let now = hands.now;
        self.peer_id = self.new_id(hands);
        self.credited = now;
        self.next_tick = now;
        self.next_round = now + ROUND;
        if !self.vices.is_empty() {
            self.next_act = now;
        }
    }

    /// An id as clients of the field have it.
    pub(super) fn new_id(&self, hands: &mut Hands<'_>) -> PeerId {
        let mut id = *b"-XX0100-            ";
        id[8..].fill_with(|| b'a' + hands.rng.below(26) as u8);
        PeerId(id)
    }

    /// Dials whoever is due, unless there is a stream to that host already.
    pub(super) fn dial(&mut self, hands: &mut Hands<'_>) {
        if self.is_gone {
            return;
        }
        let copies = self.sybils();
        let due: Vec<SocketAddr> = self
            .dials
            .iter()
            .filter(|(remote, _)| !self.refused.contains(&remote.ip()))
            .filter(|(_, dial)| dial.conn.is_none() && dial.at <= hands.now)
            .map(|(&remote, _)| remote)
            .collect();
        for remote in due {
            let met = self.peers.values().filter(|p| p.remote.ip() == remote.ip());
            let missing = copies.saturating_sub(met.count());
            for _ in 0..missing {
                let conn = hands.connect(remote);
                let id = if copies > 1 {
                    self.new_id(hands)
                } else {
                    self.peer_id
                };
                let peer = Peer::new(remote, true, id, self.pieces().len(), hands.now);
                self.peers.insert(conn, peer);
                if let Some(dial) = self.dials.get_mut(&remote) {
                    dial.conn = Some(conn);
                }
            }
        }
    }

    pub(super) fn accepted(&mut self, conn: ConnId, from: SocketAddr, hands: &mut Hands<'_>) {
        if self.is_gone || self.refused.contains(&from.ip()) {
            return hands.close(conn);
        }
        let id = self.peer_id;
        let peer = Peer::new(from, false, id, self.pieces().len(), hands.now);
        self.peers.insert(conn, peer);
        self.counts.streams += 1;
        self.vice_begins(conn, hands);
    }

    pub(super) fn connected(&mut self, conn: ConnId, hands: &mut Hands<'_>) {
        let Some(peer) = self.peers.get_mut(&conn) else {
            return;
        };
        peer.since = hands.now;
        self.counts.streams += 1;
        if !self.vice_begins(conn, hands) {
            self.shake(conn, hands);
        }
    }

    pub(super) fn shake(&mut self, conn: ConnId, hands: &mut Hands<'_>) {
        let bytes = self.handshake(conn);
        hands.send(conn, &bytes);
    }

    /// The handshake for a stream.
    pub(super) fn handshake(&self, conn: ConnId) -> [u8; 68] {
        let id = self.peers.get(&conn).map_or(self.peer_id, |p| p.our_id);
        let shake = Handshake {
            reserved: Reserved {
                fast: self.manners.fast,
                extended: self.manners.extended,
                dht: false,
            },
            info_hash: self.meta.info_hash,
            peer_id: id,
        };
        shake.encode()
    }

    /// The other handshake is there.
    pub(super) fn met(&mut self, conn: ConnId, heard: &Heard, hands: &mut Hands<'_>) {
        let Heard::Handshake {
            fast,
            extended,
            info_hash,
            peer_id,
        } = *heard
        else {
            return self.drop_conn(conn, hands);
        };
        let Some(peer) = self.peers.get(&conn) else {
            return;
        };
        let (dialled, our_id) = (peer.dialled, peer.our_id);
        if info_hash != self.meta.info_hash || peer_id == our_id {
            return self.drop_conn(conn, hands);
        }
        let twin = self
            .peers
            .iter()
            .find(|(_, p)| p.is_met && p.their_id == peer_id && p.our_id == our_id)
            .map(|(&twin, p)| (twin, p.dialled));
        if let Some((twin, twin_dialled)) = twin {
            // Both ends keep the stream that was dialled by the smaller id.
            if twin_dialled == dialled || twin_dialled == (our_id < peer_id) {
                return self.drop_conn(conn, hands);
            }
            self.drop_conn(twin, hands);
        }
        if !dialled {
            self.shake(conn, hands);
        }
        let (fast, extended) = (fast && self.manners.fast, extended && self.manners.extended);
        if let Some(peer) = self.peers.get_mut(&conn) {
            peer.is_met = true;
            peer.their_id = peer_id;
            peer.fast = fast;
        }
        if extended {
            self.say_extended(conn, hands);
        }
        self.open(conn, hands);
        self.vice_opens(conn, hands);
    }

    /// The extension handshake (BEP 10).
    pub(super) fn say_extended(&mut self, conn: ConnId, hands: &mut Hands<'_>) {
        let reqq = self.manners.reqq;
        let reqq = reqq.map_or(String::new(), |reqq| format!("4:reqqi{reqq}e"));
        let port = hands.addr.port();
        let lies = self.lies_id();
        let body =
            format!("d1:md{lies}11:upload_onlyi3e6:ut_pexi1ee1:pi{port}e{reqq}1:v11:foreign 1.0e");
        let body = Bytes::from(body);
        self.say(conn, &Outgoing::Extended { id: 0, body }, hands);
    }

    /// Says what it has.
    pub(super) fn open(&mut self, conn: ConnId, hands: &mut Hands<'_>) {
        let claimed = self.claimed();
        let fast = self.peers.get(&conn).is_some_and(|peer| peer.fast);
        let count = claimed.count_ones();
        let bits = |bits: &Bitfield| Outgoing::Bitfield(Bytes::copy_from_slice(bits.as_bytes()));
        let some: Vec<u32> = claimed.ones().take(LAZY_MAX).collect();
        match self.manners.opening {
            Opening::Lazy if count > 0 => {
                let mut fewer = claimed.clone();
                some.iter().for_each(|&piece| {
                    fewer.clear(piece);
                });
                self.say(conn, &bits(&fewer), hands);
                for piece in some {
                    self.say(conn, &Outgoing::Have(PieceIndex(piece)), hands);
                }
            }
            Opening::Late if count > some.len() as u32 => {
                for piece in some {
                    self.say(conn, &Outgoing::Have(PieceIndex(piece)), hands);
                }
                self.say(conn, &bits(&claimed), hands);
            }
            _ if fast && claimed.is_full() => self.say(conn, &Outgoing::HaveAll, hands),
            _ if fast && count == 0 => self.say(conn, &Outgoing::HaveNone, hands),
            _ if count == 0 => {}
            _ => self.say(conn, &bits(&claimed), hands),
        }
    }
}
