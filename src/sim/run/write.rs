//! Who writes next on a host's line, and what.

use super::NO_STREAM;
use crate::base::id::ConnId;
use crate::sim::event::Event;
use crate::sim::host::Node;
use crate::sim::net::{Chunk, Sent, Side, StreamId};
use crate::sim::{HostId, World};

impl World {
    /// Lets the connections of a host write, each in its turn, while its line is free.
    pub(super) fn pump(&mut self, id: HostId) {
        loop {
            let host = &mut self.hosts[id.0 as usize];
            if host.ring.is_empty() || host.awaits_line {
                return;
            }
            let free_at = self.network.lines.free_at(id);
            if free_at > self.now {
                host.awaits_line = true;
                return self.events.push(free_at, Event::LineFree(id));
            }
            let Some(conn) = host.ring.pop_front() else {
                return;
            };
            if let Some(held) = host.held(conn) {
                held.queued = false;
                let stream = held.stream;
                self.write(id, conn, stream);
            }
        }
    }

    /// Moves one chunk of what a connection wants to write into its stream.
    fn write(&mut self, id: HostId, conn: ConnId, stream: StreamId) {
        if stream == NO_STREAM {
            return;
        }
        let Some(side) = self.network.side_of(stream, id, conn).map(Side::other) else {
            return;
        };
        let room = self.network.room(stream, side).min(self.turn_len(id));
        if room == 0 {
            return; // the stream says when there is room again
        }
        let mut chunk = self.network.chunk();
        let has_more = self.fill_chunk(id, conn, room, &mut chunk);
        if self.is_paced(id, conn) {
            self.arm(id); // it may have to wait for its turn
        }
        if chunk.len == 0 {
            self.network.recycle(chunk);
            return self.finish(id, conn);
        }
        self.judges.sent(stream, side, &chunk, self.now);
        match self.network.send(stream, side, chunk, self.now) {
            Sent::Arrives(at) => self.events.push(at, Event::Deliver(stream, side)),
            Sent::Parked | Sent::Lost(None) => {}
            Sent::Lost(Some(at)) => self.events.push(at, Event::Reset(stream, side.other())),
        }
        if has_more {
            self.hosts[id.0 as usize].queue(conn);
        }
    }

    /// Whether the user of a host limits what it sends on a connection.
    fn is_paced(&self, id: HostId, conn: ConnId) -> bool {
        let engine = self.hosts[id.0 as usize].engine();
        engine.is_some_and(|engine| engine.write_portion(conn).is_some())
    }

    /// Closes the stream of an actor that has sent all that it wanted to.
    fn finish(&mut self, id: HostId, conn: ConnId) {
        if let Node::Actor(stage) = &mut self.hosts[id.0 as usize].node
            && let Some(line) = stage.conns.get_mut(conn.index as usize)
            && line.as_ref().is_some_and(|line| line.is_closing)
        {
            *line = None;
            self.close(id, conn);
        }
    }

    /// Bytes that a connection sends in its turn on the line.
    fn turn_len(&self, id: HostId) -> usize {
        let rate = self.network.lines.link(id).up_bytes_s;
        (rate / 10_000).clamp(TURN_LEN_MIN, TURN_LEN_MAX) as usize
    }

    /// Fills a chunk with what a connection wants to write; whether it may have more.
    fn fill_chunk(&mut self, id: HostId, conn: ConnId, room: usize, chunk: &mut Chunk) -> bool {
        let host = &mut self.hosts[id.0 as usize];
        let now = host.clock(self.now);
        match &mut host.node {
            Node::Peer(peer) => {
                let Some(engine) = &mut peer.engine else {
                    return false;
                };
                self.plan.clear();
                engine.write_plan(conn, room, &mut self.plan);
                if self.plan.is_empty() {
                    return false;
                }
                if !peer.store.lend(&self.plan, room, chunk) {
                    peer.waiting.push(conn);
                    return false;
                }
                self.inputs += 1;
                engine.sent(conn, chunk.len, now);
                let is_cut = engine.write_portion(conn).is_some();
                is_cut || self.plan.len > chunk.len || self.plan.len >= room
            }
            Node::Actor(stage) => {
                let Some(Some(line)) = stage.conns.get_mut(conn.index as usize) else {
                    return false;
                };
                let len = room.min(line.out.len());
                let (front, back) = line.out.as_slices();
                let first = len.min(front.len());
                chunk.push_bytes(&front[..first]);
                chunk.push_bytes(&back[..len - first]);
                line.out.drain(..len);
                !line.out.is_empty() || line.is_closing
            }
        }
    }
}

/// Bytes that a connection sends in its turn: what its line carries in 0.1 ms, in these bounds.
const TURN_LEN_MIN: u64 = 16 * 1024 + 13;
const TURN_LEN_MAX: u64 = 128 * 1024;
