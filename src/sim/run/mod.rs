//! One event after the other, and what engines want done.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::event::{Answer, Event};
use super::host::{Node, host_at, tell};
use super::judge::{Failure, Fault};
use super::net::{Side, StreamId};
use super::{HostId, World};
use crate::engine::{Action, Report};

mod actors;
mod datagrams;
mod streams;
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
            Event::Datagram(parcel) => self.network.parcel(parcel).receiver,
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
            Event::Datagram(parcel) => self.datagram_arrives(parcel),
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
        if self.has_left(id) {
            self.stop(id, false);
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
            Action::Read { conn } => self.read_on(id, conn),
            // What is on its way is bounded by the windows of the streams.
            Action::BoundBuffer { .. } => {}
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
            Action::Datagram { to, from, bytes } => self.send_datagram(id, from, to, bytes),
            Action::Multicast {
                interface,
                family,
                bytes,
            } => self.multicast(id, interface, family, bytes),
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
        self.judges.datagrams_conserved(
            self.network.datagram_ledger(),
            self.network.datagrams_in_flight(),
        );
    }
}

/// Stands for a stream to nowhere.
pub(super) const NO_STREAM: StreamId = StreamId(u32::MAX);
/// How long the resolver takes.
const RESOLVER_TIME: Duration = Duration::from_millis(2);
