//! Streams: how they begin and end, and who is given what they carry.

use std::net::SocketAddr;
use std::time::Duration;

use super::NO_STREAM;
use crate::base::id::ConnId;
use crate::sim::actor::{Input, open_line};
use crate::sim::event::Event;
use crate::sim::host::{Node, Unread, host_at, interfaces};
use crate::sim::net::{Chunk, Part, Resumed, Side, StreamId};
use crate::sim::store::{RIGHT, WRONG};
use crate::sim::{HostId, World};

impl World {
    pub(super) fn arrive(&mut self, stream: StreamId) {
        let id = self.network.host_of(stream, Side::Acceptor);
        let Some((dialler, dialled)) = self.network.end_of(stream, Side::Dialler) else {
            return; // let go already
        };
        if !self.network.lines.is_up(id) || !self.network.lines.is_open(dialler, id) {
            return; // nobody answers: the dialler's patience ends it
        }
        let from = self.network.dialler_address(stream);
        let host = &mut self.hosts[id.0 as usize];
        let (now, local) = (host.clock(self.now), host.addr);
        let conn = match &mut host.node {
            Node::Peer(peer) => match &mut peer.engine {
                Some(engine) if peer.spec.is_reachable => engine.accepted(from, local, now),
                _ => return,
            },
            Node::Actor(stage) => Some(open_line(&mut stage.conns)),
        };
        self.inputs += 1;
        let back = self.now + self.network.lines.delay(id, dialler);
        match conn {
            Some(conn) => {
                self.hosts[id.0 as usize].hold(conn, stream);
                self.network.accept(stream, conn);
                self.judges.opened(stream, id, dialler);
                self.events.push(back, Event::Established(stream));
                self.act_on(id, Input::Accepted { conn, from });
            }
            None => self.events.push(back, Event::Refused(dialler, dialled)),
        }
        self.attend(id);
    }

    pub(super) fn established(&mut self, stream: StreamId) {
        let Some((id, conn)) = self.network.end_of(stream, Side::Dialler) else {
            return;
        };
        let host = &mut self.hosts[id.0 as usize];
        let (now, local) = (host.clock(self.now), host.addr);
        if let Node::Peer(peer) = &mut host.node
            && let Some(engine) = &mut peer.engine
        {
            self.inputs += 1;
            engine.connected(conn, local, now);
        }
        self.act_on(id, Input::Connected { conn });
        self.attend(id);
    }

    /// A stream of a host is gone without a proper end.
    pub(super) fn lost(&mut self, id: HostId, conn: ConnId, why: &str) {
        let host = &mut self.hosts[id.0 as usize];
        let now = host.clock(self.now);
        if host.let_go(conn).is_none() {
            return; // it has let go of it itself
        }
        if let Node::Peer(peer) = &mut host.node
            && let Some(engine) = &mut peer.engine
        {
            self.inputs += 1;
            engine.closed(conn, why, now);
        }
        self.actor_lost(id, conn);
        self.attend(id);
    }

    pub(super) fn ended(&mut self, stream: StreamId, side: Side) {
        let Some((id, conn)) = self.network.end_of(stream, side) else {
            return;
        };
        let host = &mut self.hosts[id.0 as usize];
        if let Some(unread) = host.unread.get_mut(&conn) {
            unread.has_ended = true;
            return;
        }
        let now = host.clock(self.now);
        match &mut host.node {
            Node::Peer(peer) => {
                if let Some(engine) = &mut peer.engine {
                    self.inputs += 1;
                    engine.end_of_stream(conn, now);
                }
                self.attend(id);
                // Whoever does not close at the end of a stream is left with one that is gone.
                if self.network.end_of(stream, side) == Some((id, conn)) {
                    self.network.shut(stream, side, self.now);
                    self.lost(id, conn, "closed by the other side");
                }
            }
            Node::Actor(_) => {
                host.let_go(conn);
                self.network.shut(stream, side, self.now);
                self.actor_lost(id, conn);
            }
        }
    }

    /// Hands the bytes at the front of a stream to its other end.
    pub(super) fn deliver(&mut self, stream: StreamId, side: Side) {
        if self.leaves_unread(stream, side) {
            return;
        }
        let Some((chunk, awaits_room)) = self.network.take(stream, side) else {
            return; // that end was gone when they came
        };
        let Some((id, conn)) = self.network.end_of(stream, side) else {
            return self.network.recycle(chunk);
        };
        self.trace.bytes(&chunk.bytes);
        self.judges.delivered(stream, side, &chunk, self.now);
        self.hand_over(id, conn, stream, &chunk);
        self.network.recycle(chunk);
        self.attend(id);
        if awaits_room && let Some((sender, conn)) = self.network.end_of(stream, side.other()) {
            self.hosts[sender.0 as usize].queue(conn);
            self.pump(sender);
        }
    }

    /// Whether an engine does not read a stream at present, as its user has limited it: what came
    /// waits, and the sender sees its window fill.
    fn leaves_unread(&mut self, stream: StreamId, side: Side) -> bool {
        let Some((id, conn)) = self.network.end_of(stream, side) else {
            return false;
        };
        let host = &mut self.hosts[id.0 as usize];
        if let Some(unread) = host.unread.get_mut(&conn) {
            unread.chunks += 1;
            return true;
        }
        let Node::Peer(peer) = &mut host.node else {
            return false;
        };
        let engine = peer.engine.as_mut();
        if engine.is_none_or(|engine| engine.read_room(conn) > 0) {
            return false;
        }
        let unread = Unread {
            stream,
            side,
            chunks: 1,
            has_ended: false,
        };
        host.unread.insert(conn, unread);
        self.arm(id);
        true
    }

    /// An engine reads a stream again: what waits comes anew.
    pub(super) fn read_on(&mut self, id: HostId, conn: ConnId) {
        let Some(unread) = self.hosts[id.0 as usize].unread.remove(&conn) else {
            return;
        };
        let Unread { stream, side, .. } = unread;
        for _ in 0..unread.chunks {
            self.events.push(self.now, Event::Deliver(stream, side));
        }
        if unread.has_ended {
            self.events.push(self.now, Event::Ended(stream, side));
        }
    }

    fn hand_over(&mut self, id: HostId, conn: ConnId, stream: StreamId, chunk: &Chunk) {
        let mut rest = &chunk.bytes[..];
        for &part in &chunk.parts {
            match part {
                Part::Bytes(len) => {
                    let (bytes, after) = rest.split_at(len);
                    rest = after;
                    self.receive(id, conn, stream, bytes);
                }
                Part::Tag(slot, is_right) => {
                    let all = if is_right { &RIGHT } else { &WRONG };
                    self.receive(id, conn, stream, &all[..slot.len as usize]);
                }
            }
        }
    }

    fn receive(&mut self, id: HostId, conn: ConnId, stream: StreamId, mut bytes: &[u8]) {
        let host = &mut self.hosts[id.0 as usize];
        let now = host.clock(self.now);
        let Node::Peer(peer) = &mut host.node else {
            return self.act_on(id, Input::Received { conn, bytes });
        };
        let Some(engine) = &mut peer.engine else {
            return;
        };
        while !bytes.is_empty() {
            self.inputs += 1;
            let taken = engine.received(conn, bytes, now);
            if let Some(slot) = taken.store {
                let payload = &bytes[taken.used - slot.len as usize..taken.used];
                self.judges.stored(id, stream, slot);
                peer.store.store(slot, payload);
            }
            bytes = &bytes[taken.used..];
        }
    }

    pub(super) fn connect(&mut self, id: HostId, conn: ConnId, remote: SocketAddr) {
        self.judge_dial(id, remote);
        let known = host_at(remote).filter(|host| (host.0 as usize) < self.hosts.len());
        let Some(to) = known.filter(|&to| to != id || self.hosts.len() > 1) else {
            let host = &mut self.hosts[id.0 as usize];
            host.hold(conn, NO_STREAM);
            return self
                .events
                .push(self.now + UNREACHABLE_TIME, Event::Refused(id, conn));
        };
        let from = self.hosts[id.0 as usize].addr;
        let stream = self.network.open(id, conn, to, from);
        self.hosts[id.0 as usize].hold(conn, stream);
        let at = self.now + self.network.lines.delay(id, to);
        if !self.network.lines.is_open(id, to) {
            return; // nobody hears of it: the dialler's patience ends it
        }
        self.events.push(at, Event::Arrive(stream));
    }

    /// Off-link addresses that nobody but peers and trackers named are not dialled at will.
    fn judge_dial(&mut self, id: HostId, remote: SocketAddr) {
        let host = &self.hosts[id.0 as usize];
        let Node::Peer(peer) = &host.node else {
            return;
        };
        let spec = &peer.spec;
        let is_near = interfaces(id, spec.prefix_len).is_on_link(remote.ip());
        let text = remote.ip().to_string();
        let of_meta = self.meta.trackers.iter().flatten();
        let mut trackers = spec.trackers.iter().chain(of_meta);
        let is_named = spec.peers.iter().any(|peer| peer.ip() == remote.ip())
            || trackers.any(|url| url.contains(&text));
        if !is_near && !is_named {
            self.judges.dialled(id, remote, host.clock(self.now));
        }
    }

    pub(super) fn close(&mut self, id: HostId, conn: ConnId) {
        if let Some(stream) = self.hosts[id.0 as usize].let_go(conn)
            && stream != NO_STREAM
            && let Some(side) = self.network.side_of(stream, id, conn)
        {
            self.end_stream(stream, side);
        }
    }

    pub(in crate::sim) fn end_stream(&mut self, stream: StreamId, side: Side) {
        if let Some(at) = self.network.shut(stream, side, self.now) {
            self.events.push(at, Event::Ended(stream, side.other()));
        }
    }

    /// Ways were opened.
    pub(in crate::sim) fn resume(&mut self) {
        for resumed in self.network.resume(self.now) {
            match resumed {
                Resumed::Chunk(stream, side, at) => {
                    self.events.push(at, Event::Deliver(stream, side));
                }
                Resumed::End(stream, side, at) => self.events.push(at, Event::Ended(stream, side)),
            }
        }
    }
}

/// How long it takes to hear that nobody has an address.
const UNREACHABLE_TIME: Duration = Duration::from_millis(3);
