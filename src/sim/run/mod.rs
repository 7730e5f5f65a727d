//! One event after the other, and what engines want done.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::actor::{Input, open_line};
use super::event::{Answer, Event};
use super::host::{Node, host_at, tell};
use super::judge::{Failure, Fault};
use super::net::{Chunk, Part, Resumed, Side, StreamId};
use super::store::{RIGHT, WRONG};
use super::{HostId, World};
use crate::base::id::ConnId;
use crate::engine::{Action, Report};

mod actors;
mod time;
mod write;

impl World {
    /// Lets the next event happen.
    pub(super) fn next_event(&mut self) {
        let Some((at, event)) = self.events.pop() else {
            return;
        };
        self.now = at;
        let host = self.host_of(&event);
        let still_until = self.hosts[host.0 as usize].still_until;
        if still_until > at {
            return self.events.push(still_until, event);
        }
        self.trace.step(at, event.words());
        self.step(event);
    }

    fn host_of(&self, event: &Event) -> HostId {
        match *event {
            Event::Arrive(stream) => self.network.host_of(stream, Side::Acceptor),
            Event::Established(stream) => self.network.host_of(stream, Side::Dialler),
            Event::Deliver(stream, side)
            | Event::Ended(stream, side)
            | Event::Reset(stream, side) => self.network.host_of(stream, side),
            Event::Refused(host, _)
            | Event::LineFree(host)
            | Event::Timer(host)
            | Event::Disk(host, ..)
            | Event::Resolved(host, ..) => host,
        }
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::Arrive(stream) => self.arrive(stream),
            Event::Established(stream) => self.established(stream),
            Event::Refused(host, conn) => self.lost(host, conn, "connection refused"),
            Event::Deliver(stream, side) => self.deliver(stream, side),
            Event::Ended(stream, side) => self.ended(stream, side),
            Event::Reset(stream, side) => {
                if let Some((host, conn)) = self.network.end_of(stream, side) {
                    self.network.shut(stream, side, self.now);
                    self.lost(host, conn, "connection reset");
                }
            }
            Event::LineFree(host) => {
                self.hosts[host.0 as usize].awaits_line = false;
                self.pump(host);
            }
            Event::Timer(host) => self.timer(host),
            Event::Disk(id, life, done) => {
                let host = &mut self.hosts[id.0 as usize];
                if let Node::Peer(peer) = &mut host.node
                    && host.life == life
                {
                    peer.store.job_done(*done);
                    self.attend(id);
                }
            }
            Event::Resolved(id, life, answer) => {
                let host = &mut self.hosts[id.0 as usize];
                let now = host.clock(self.now);
                if let Node::Peer(peer) = &mut host.node
                    && host.life == life
                    && let Some(engine) = &mut peer.engine
                {
                    engine.resolved(answer.lookup, answer.addresses, now);
                    self.attend(id);
                }
            }
        }
    }

    fn arrive(&mut self, stream: StreamId) {
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

    fn established(&mut self, stream: StreamId) {
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
    fn lost(&mut self, id: HostId, conn: ConnId, why: &str) {
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

    fn ended(&mut self, stream: StreamId, side: Side) {
        let Some((id, conn)) = self.network.end_of(stream, side) else {
            return;
        };
        let host = &mut self.hosts[id.0 as usize];
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
    fn deliver(&mut self, stream: StreamId, side: Side) {
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

    /// Does all that a host wants done at this moment.
    pub(super) fn attend(&mut self, id: HostId) {
        loop {
            let mut idle = true;
            while let Some(action) = self.next_action(id) {
                idle = false;
                self.act(id, action);
            }
            if !matches!(self.hosts[id.0 as usize].node, Node::Peer(_)) {
                self.pump(id);
                break;
            }
            self.start_jobs(id);
            if let Node::Peer(peer) = &mut self.hosts[id.0 as usize].node {
                idle &= !peer.store.work();
            }
            while let Some(event) = self.next_storage_event(id) {
                idle = false;
                self.judges.storage_said(id, &event);
                self.storage_said(id, event);
            }
            if idle {
                self.pump(id);
                // What was to be sent may have to be read first.
                if !self.start_jobs(id) {
                    break;
                }
            }
        }
        self.arm(id);
    }

    /// Lets the disk of a host begin what storage wants done; whether there was anything.
    fn start_jobs(&mut self, id: HostId) -> bool {
        let host = &mut self.hosts[id.0 as usize];
        let (now, life) = (self.now, host.life);
        let Node::Peer(peer) = &mut host.node else {
            return false;
        };
        let mut any = false;
        peer.store.start_jobs(now, |done, at| {
            any = true;
            self.events.push(at, Event::Disk(id, life, Box::new(done)));
        });
        any
    }

    fn next_storage_event(&mut self, id: HostId) -> Option<crate::storage::Event> {
        match &mut self.hosts[id.0 as usize].node {
            Node::Peer(peer) => peer.store.poll_event(),
            Node::Actor(_) => None,
        }
    }

    fn storage_said(&mut self, id: HostId, event: crate::storage::Event) {
        let host = &mut self.hosts[id.0 as usize];
        let clock = host.clock(self.now);
        let Node::Peer(peer) = &mut host.node else {
            return;
        };
        if matches!(event, crate::storage::Event::Readable) {
            for conn in std::mem::take(&mut peer.waiting) {
                host.queue(conn);
            }
        } else if let Some(engine) = &mut peer.engine {
            self.inputs += 1;
            tell(engine, event, clock);
        }
    }

    fn next_action(&mut self, id: HostId) -> Option<Action> {
        match &mut self.hosts[id.0 as usize].node {
            Node::Peer(peer) => peer.engine.as_mut()?.poll_action(),
            Node::Actor(_) => None,
        }
    }

    fn act(&mut self, id: HostId, action: Action) {
        match action {
            Action::Connect { conn, remote } => self.connect(id, conn, remote),
            Action::Close { conn } => self.close(id, conn),
            Action::Flush { conn } => self.hosts[id.0 as usize].queue(conn),
            Action::Resolve { lookup, host, port } => {
                let addresses = match (host.parse::<IpAddr>(), self.names.get(&host)) {
                    (Ok(ip), _) => Ok(vec![SocketAddr::new(ip, port)]),
                    (Err(_), Some(known)) => Ok(known
                        .iter()
                        .map(|known| SocketAddr::new(known.ip(), port))
                        .collect()),
                    (Err(_), None) => Err(format!("no host is called {host}")),
                };
                let answer = Box::new(Answer { lookup, addresses });
                let life = self.hosts[id.0 as usize].life;
                self.events
                    .push(self.now + RESOLVER_TIME, Event::Resolved(id, life, answer));
            }
            Action::Storage(action) => {
                self.judges.asked_storage(id, &action);
                if let Node::Peer(peer) = &mut self.hosts[id.0 as usize].node {
                    peer.store.apply(action);
                }
            }
            Action::Datagram { .. } | Action::Multicast { .. } => {}
            Action::Report(report) => {
                if let Report::PeerBanned { remote, .. } = &report {
                    let banned = self.honest_at(*remote);
                    self.judges.banned(id, *remote, banned);
                }
                let host = &mut self.hosts[id.0 as usize];
                if let Report::Complete { .. } = report
                    && host.completed_at.is_none()
                {
                    host.completed_at = Some(self.now);
                    self.completed += 1;
                }
                host.reports.push(report);
            }
        }
    }

    /// Whether an honest host has this address, whatever the port.
    fn honest_at(&self, remote: SocketAddr) -> bool {
        let listens = SocketAddr::new(remote.ip(), self.hosts[0].addr.port());
        let host = host_at(listens).and_then(|host| self.hosts.get(host.0 as usize));
        match host.map(|host| &host.node) {
            Some(Node::Peer(_)) => true,
            Some(Node::Actor(stage)) => stage.actor.is_honest(),
            None => false,
        }
    }

    fn connect(&mut self, id: HostId, conn: ConnId, remote: SocketAddr) {
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

    fn close(&mut self, id: HostId, conn: ConnId) {
        if let Some(stream) = self.hosts[id.0 as usize].let_go(conn)
            && stream != NO_STREAM
            && let Some(side) = self.network.side_of(stream, id, conn)
        {
            self.end_stream(stream, side);
        }
    }

    pub(super) fn end_stream(&mut self, stream: StreamId, side: Side) {
        if let Some(at) = self.network.shut(stream, side, self.now) {
            self.events.push(at, Event::Ended(stream, side.other()));
        }
    }

    /// Ways were opened.
    pub(super) fn resume(&mut self) {
        for resumed in self.network.resume(self.now) {
            match resumed {
                Resumed::Chunk(stream, side, at) => {
                    self.events.push(at, Event::Deliver(stream, side));
                }
                Resumed::End(stream, side, at) => self.events.push(at, Event::Ended(stream, side)),
            }
        }
    }

    /// Stops the run if a judge found fault.
    pub(super) fn settle_judges(&mut self) -> Result<(), Box<Failure>> {
        if self.judges.wants_audit(self.trace.steps()) {
            self.audit_all();
        }
        match self.judges.take_fault() {
            None => Ok(()),
            Some(fault) => Err(self.failure(fault)),
        }
    }

    /// What is told of a fault.
    pub(super) fn failure(&self, fault: Fault) -> Box<Failure> {
        Box::new(Failure {
            fault,
            rng_seed: self.rng_seed,
            at: self.now,
            steps: self.trace.steps(),
            last: self.trace.last(),
        })
    }

    /// The costly judges: every engine audits itself, and is compared with what it has said.
    pub(super) fn audit_all(&mut self) {
        let now = self.now;
        for (index, host) in self.hosts.iter().enumerate() {
            let id = HostId(index as u32);
            if let Some(engine) = host.engine() {
                let streams = host.streams();
                self.judges
                    .audit(id, engine, host.clock(now), &streams, &self.network);
            }
        }
        self.judges
            .conservation(self.network.ledger(), self.network.in_flight());
    }
}

/// Stands for a stream to nowhere.
pub(super) const NO_STREAM: StreamId = StreamId(u32::MAX);
/// How long the resolver takes.
const RESOLVER_TIME: Duration = Duration::from_millis(2);
/// How long it takes to hear that nobody has an address.
const UNREACHABLE_TIME: Duration = Duration::from_millis(3);
