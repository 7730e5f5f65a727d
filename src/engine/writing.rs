//! What leaves on a stream next, and that it has left.

use super::Engine;
use super::conn::Stage;
use super::outbox::Outbox;
use crate::base::id::{ConnId, TorrentId};
use crate::base::plan::WritePlan;
use crate::base::slot::Slot;
use crate::base::time::Instant;
use crate::swarm::{PeerKey, Swarm};
use crate::wire::message::Outgoing;

impl Engine {
    /// Appends what `conn` wants to write next to `plan`, about `most` bytes ([`PLAN_LEN`] is a
    /// good measure): what leaves later is decided later.
    pub fn write_plan(&mut self, conn: ConnId, most: usize, plan: &mut WritePlan) {
        let Some((generation, state)) = self.conns.get_mut(conn.index as usize) else {
            return;
        };
        if *generation != conn.generation {
            return;
        }
        state.flushing = false;
        let portion = self.write_portion(conn);
        let Some((_, state)) = self.conns.get_mut(conn.index as usize) else {
            return;
        };
        // What waits in the outbox is neither taken back nor passed by: under a limit it is little.
        let most = portion.map_or(most, |portion| most.min(portion));
        let mut torrent = TorrentId(0);
        if let Stage::Exchange(exchange) = &state.stage
            && !self.farewells.contains(&conn)
            && let Some(running) = self.torrents.get_mut(&exchange.torrent)
        {
            torrent = exchange.torrent;
            fill_outbox(&mut running.swarm, exchange.key, most, &mut state.outbox);
            plan.ahead = state.outbox.last_payload().and_then(|block| {
                let next = running.swarm.upload_ahead(exchange.key, block.piece)?;
                Some(Slot {
                    torrent,
                    piece: next.piece,
                    begin: next.begin,
                    len: next.len,
                })
            });
        }
        let is_idle = state.outbox.is_empty();
        let room = match is_idle {
            true => 0,
            false => self.write_room(conn),
        };
        if is_idle {
            self.write_idle(conn);
        }
        let Some(state) = self.conn_mut(conn) else {
            return;
        };
        let before = plan.len;
        if room > 0 {
            state.outbox.plan(torrent, most.min(room), plan);
        }
        if portion.is_some() {
            plan.cut(before.saturating_add(room));
        }
        plan.is_last = state.ends_after(plan.len);
    }

    /// `n` bytes of the last plan left.
    pub fn sent(&mut self, conn: ConnId, n: usize, now: Instant) {
        let Some((generation, state)) = self.conns.get_mut(conn.index as usize) else {
            return;
        };
        if *generation != conn.generation || n == 0 {
            return;
        }
        state.last_out = now;
        let payload = state.outbox.sent(n);
        self.paced_out(conn, n, now);
        let Some((_, state)) = self.conns.get_mut(conn.index as usize) else {
            return;
        };
        if matches!(state.stage, Stage::Http(_)) {
            return self.http_sent(conn, now);
        }
        if payload > 0
            && let Stage::Exchange(exchange) = &state.stage
            && let Some(torrent) = self.torrents.get_mut(&exchange.torrent)
        {
            let id = exchange.torrent;
            if torrent.swarm.uploaded(exchange.key, payload, now) {
                self.run_effects(id, now);
            }
        }
        self.link_sent(conn, now);
    }
}

/// Moves what the exchange has for this peer into its outbox, as far as it soon can leave.
fn fill_outbox(swarm: &mut Swarm, key: PeerKey, most: usize, outbox: &mut Outbox) {
    while outbox.len() < most
        && let Some(piece) = swarm.next_have(key)
    {
        outbox.push(Outgoing::Have(piece));
    }
    while outbox.len() < most
        && let Some(block) = swarm.next_upload(key)
    {
        outbox.push(Outgoing::Piece(block));
    }
}

/// Bytes that one plan should name, and that an outbox is filled up to.
pub const PLAN_LEN: usize = 256 * 1024;
