//! What broadcast and overlay want done.

use bytes::Bytes;
use std::net::SocketAddr;

use crate::base::id::{ConnId, InfoHash};
use crate::base::limits;
use crate::base::time::Instant;
use crate::discovery::candidates::Source;
use crate::discovery::overlay::Action;
use crate::engine::conn::Purpose as Dialled;
use crate::engine::timers::TICK;
use crate::engine::{Ending, Engine};
use crate::tracker::broadcast::{Event, Heard, List};
use crate::tracker::registry;
use crate::wire::message::Outgoing;

impl Engine {
    pub(super) fn obey_broadcast(&mut self, event: Event, now: Instant) {
        let heard = match event {
            Event::Send { link, body } => return self.send_ev_peers(link, body, now),
            Event::Heard(heard) => heard,
            other => {
                let Some(network) = &mut self.network else {
                    return;
                };
                let overlay = &mut network.overlay;
                return match other {
                    Event::Met { link } => overlay.met(link),
                    Event::Ended { link, reason } => overlay.link_ended(link, reason, now),
                    Event::Distrusted { link } => overlay.distrusted(link, now),
                    Event::Doubted { addr } => {
                        if !overlay.doubted(addr, now) {
                            network.broadcast.not_tried(addr, now);
                        }
                    }
                    Event::Disputed { addr } => overlay.disputed(addr, now),
                    Event::Send { .. } | Event::Heard(_) => {}
                };
            }
        };
        log::debug!(
            "heard list={} addr={} standing={:?} first_hand={}",
            match heard.list {
                List::Network => "network".to_owned(),
                List::Swarm(info_hash) => info_hash.short().to_string(),
            },
            heard.addr,
            heard.standing,
            heard.is_first_hand,
        );
        match heard.list {
            List::Network => self.heard_in_network(heard, now),
            List::Swarm(info_hash) => self.heard_in_swarm(info_hash, heard, now),
        }
    }

    fn heard_in_network(&mut self, heard: Heard, now: Instant) {
        let Some(network) = &mut self.network else {
            return;
        };
        match heard.standing.is_here() {
            true => network.overlay.heard(heard.addr, now),
            false => network.overlay.departed(heard.addr, now),
        }
    }

    fn heard_in_swarm(&mut self, info_hash: InfoHash, heard: Heard, now: Instant) {
        let Some(&id) = self.by_hash.get(&info_hash) else {
            return;
        };
        if !heard.standing.is_here() {
            let gossip = registry::Heard::Gossip;
            let registry = &mut self.server.registry;
            registry.left(info_hash, heard.addr, gossip, now);
            return;
        }
        // Those who want nothing of each other meet for links only.
        if !(heard.standing.wants_nothing() && self.is_whole_seed(id)) {
            let sender = heard.teller.unwrap_or(heard.addr.ip());
            self.heard_of(id, heard.addr, Source::Evpeer { sender }, now);
        }
    }

    pub(super) fn obey_overlay(&mut self, action: Action, now: Instant) {
        match action {
            Action::Dial(addr) => self.dial_link(addr, now),
            Action::Offer { conn, is_drawn } => {
                if let Some(network) = &mut self.network
                    && !network.broadcast.has_link(conn)
                    && let Some(held) = network.streams.get(&conn)
                {
                    let addr = held.addr;
                    network.broadcast.link_opened(conn, addr, is_drawn, now);
                }
            }
            Action::Drop { conn, reason } => {
                if let Some(network) = &mut self.network {
                    network.broadcast.link_dropped(conn, reason, now);
                }
                // What is left to say leaves first.
                while let Some(event) = self.network_event() {
                    self.obey_broadcast(event, now);
                }
                self.end_link_stream(conn, now);
            }
        }
    }

    fn dial_link(&mut self, addr: SocketAddr, now: Instant) {
        let is_full = self.dialling >= limits::HALF_OPEN_MAX + limits::HALF_OPEN_LINKS_MAX;
        let passed = match is_full || self.ending.is_some() {
            true => Err(now + TICK),
            false => self.gate.dial(addr, now),
        };
        let until = match passed {
            Err(until) => until,
            Ok(()) => {
                if let Some(id) = self.open(addr, Dialled::Link, now) {
                    self.link_streams.insert(id);
                    if let Some(conn) = self.conn_mut(id) {
                        conn.listens = Some(addr);
                    }
                }
                return;
            }
        };
        if let Some(network) = &mut self.network {
            network.overlay.dial_postponed(addr, until, now);
        }
    }

    pub(super) fn send_ev_peers(&mut self, conn: ConnId, body: Bytes, now: Instant) {
        let network = self.network.as_ref();
        let Some(held) = network.and_then(|network| network.streams.get(&conn)) else {
            return;
        };
        let (id, remote) = (held.ev_peers_id, held.addr);
        let Some(state) = self.conn_mut(conn).filter(|_| id != 0) else {
            return;
        };
        if state.outbox.len() > limits::LINK_UNSENT_LEN_MAX {
            return self.close(conn, Ending::Failed("does not read what it is told"), now);
        }
        let len = body.len() as u64;
        log::trace!("ev_peers sent remote={remote} len={len}");
        state.outbox.push(Outgoing::Extended { id, body });
        self.flush(conn);
        if let Some(network) = &mut self.network {
            network.sent = (network.sent.0 + 1, network.sent.1 + len);
        }
    }
}
