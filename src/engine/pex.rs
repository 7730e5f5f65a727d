//! Peer exchange (BEP 11) on the streams: what peers tell us of others, and what we tell them.

use bytes::Bytes;

use super::{Ending, Engine};
use crate::base::id::ConnId;
use crate::base::time::Instant;
use crate::discovery::Privacy;
use crate::discovery::candidates::Source;
use crate::discovery::pex::{Ourselves, PexIn, PexOut};
use crate::wire::message::Outgoing;
use crate::wire::pex::{Flags, Pex};

/// What was agreed on with one peer, and what was said since.
#[derive(Debug)]
pub struct PexLink {
    /// The id under which the peer wants to hear.
    id: u8,
    told: PexOut,
    heard: PexIn,
}

impl Engine {
    /// The peer said under which id it wants to hear of others; 0: not at all.
    pub(super) fn pex_agreed(&mut self, conn: ConnId, wanted: u8, now: Instant) {
        if !self.config.pex {
            return;
        }
        let Some((_, state)) = self.conns.get_mut(conn.index as usize) else {
            return;
        };
        let Some(exchange) = state.exchange_mut() else {
            return;
        };
        let is_open = self
            .torrents
            .get(&exchange.torrent)
            .is_some_and(|torrent| Privacy::of(torrent.swarm.meta()) == Privacy::Public);
        match &mut exchange.pex {
            _ if wanted == 0 || !is_open => exchange.pex = None,
            Some(link) => link.id = wanted,
            none @ None => {
                *none = Some(Box::new(PexLink {
                    id: wanted,
                    told: PexOut::new(&mut self.rng, now),
                    heard: PexIn::default(),
                }));
            }
        }
        self.arm_pex(conn, now);
    }

    /// Makes sure that the stream's timer fires when the peer is to be told.
    fn arm_pex(&mut self, conn: ConnId, now: Instant) {
        if let Some(at) = self.pex_deadline(conn) {
            self.timers
                .arm(super::timers::TimerId::Conn(conn), at.max(now));
        }
    }

    /// When the peer is to be told something, as far as is known now.
    pub(super) fn pex_deadline(&self, conn: ConnId) -> Option<Instant> {
        let exchange = self.conn(conn)?.exchange()?;
        let roster = &self.torrents.get(&exchange.torrent)?.roster;
        exchange.pex.as_ref()?.told.next_deadline(roster)
    }

    /// Tells the peer of the others what it has not heard yet, if it is time.
    pub(super) fn pex_due(&mut self, conn: ConnId, now: Instant) {
        let Some((_, state)) = self.conns.get_mut(conn.index as usize) else {
            return;
        };
        let (remote, listens) = (state.remote.ip(), state.listens);
        let Some(exchange) = state.exchange_mut() else {
            return;
        };
        let (Some(link), Some(torrent)) = (&mut exchange.pex, self.torrents.get(&exchange.torrent))
        else {
            return;
        };
        if let Some(pex) = link.told.next(&torrent.roster, remote, listens, now) {
            let message = Outgoing::Extended {
                id: link.id,
                body: Bytes::from(pex.encode()),
            };
            state.outbox.push(message);
            self.flush(conn);
        }
    }

    /// A `ut_pex` message.
    pub(super) fn pex_received(&mut self, conn: ConnId, pex: &Pex, now: Instant) {
        let Some((_, state)) = self.conns.get_mut(conn.index as usize) else {
            return;
        };
        let sender = state.remote.ip();
        let Some(exchange) = state.exchange_mut() else {
            return;
        };
        let torrent = exchange.torrent;
        // Nobody has to tell us: what comes without agreement is passed over.
        let Some(link) = &mut exchange.pex else {
            return;
        };
        let ourselves = Ourselves {
            interfaces: &self.interfaces,
            port: self.port,
        };
        match link.heard.received(pex, sender, ourselves, now) {
            Ok(peers) => {
                let is_seed = self.is_whole_seed(torrent);
                let is_of_use = |flags: Flags| !(is_seed && flags.has(Flags::SEED));
                for (addr, _) in peers.into_iter().filter(|(_, flags)| is_of_use(*flags)) {
                    self.heard_of(torrent, addr, Source::Pex { sender }, now);
                }
            }
            Err(fault) => self.close(conn, Ending::Fault(&fault.to_string()), now),
        }
    }
}
