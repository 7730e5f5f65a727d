//! What actors want done.

use super::NO_STREAM;
use crate::base::id::ConnId;
use crate::sim::actor::{Deed, Input};
use crate::sim::event::Event;
use crate::sim::host::Node;
use crate::sim::{HostId, World};

impl World {
    pub(super) fn actor_lost(&mut self, id: HostId, conn: ConnId) {
        if let Node::Actor(stage) = &mut self.hosts[id.0 as usize].node
            && let Some(line) = stage.conns.get_mut(conn.index as usize)
        {
            *line = None;
            self.act_on(id, Input::Ended { conn });
        }
    }

    /// Lets an actor act, and does what it wants done.
    pub(in crate::sim) fn act_on(&mut self, id: HostId, input: Input<'_>) {
        let host = &mut self.hosts[id.0 as usize];
        let (addr, now) = (host.addr, host.clock(self.now));
        let Node::Actor(stage) = &mut host.node else {
            return;
        };
        stage.handle(input, addr, now);
        while let Some(deed) = self.next_deed(id) {
            match deed {
                Deed::Connect(conn, remote) => self.connect(id, conn, remote),
                Deed::Write(conn) => self.hosts[id.0 as usize].queue(conn),
                Deed::Close(conn) => {
                    self.drop_line(id, conn);
                    self.close(id, conn);
                }
                Deed::Reset(conn) => {
                    self.drop_line(id, conn);
                    self.break_stream(id, conn);
                }
                Deed::Datagram(datagram) => self.post(id, &datagram),
                Deed::Multicast(family, bytes) => self.multicast_of(id, family, bytes),
            }
        }
        self.pump(id);
        self.arm(id);
    }

    fn drop_line(&mut self, id: HostId, conn: ConnId) {
        if let Node::Actor(stage) = &mut self.hosts[id.0 as usize].node
            && let Some(line) = stage.conns.get_mut(conn.index as usize)
        {
            *line = None;
        }
    }

    /// A host lets a stream break.
    fn break_stream(&mut self, id: HostId, conn: ConnId) {
        if let Some(stream) = self.hosts[id.0 as usize].let_go(conn)
            && stream != NO_STREAM
            && let Some(side) = self.network.side_of(stream, id, conn)
        {
            let other = side.other();
            let to = self.network.host_of(stream, other);
            let at = self.now + self.network.lines.delay(id, to);
            self.network.vanish(stream, side);
            if self.network.lines.is_open(id, to) {
                self.events.push(at, Event::Reset(stream, other));
            }
        }
    }

    fn next_deed(&mut self, id: HostId) -> Option<Deed> {
        match &mut self.hosts[id.0 as usize].node {
            Node::Peer(_) => None,
            Node::Actor(stage) => stage.deeds.pop_front(),
        }
    }
}
