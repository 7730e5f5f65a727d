//! Deadlines of hosts.

use std::time::Duration;

use crate::base::time::Instant;
use crate::sim::actor::Input;
use crate::sim::event::Event;
use crate::sim::host::Node;
use crate::sim::{HostId, World};

impl World {
    pub(super) fn timer(&mut self, id: HostId) {
        let host = &mut self.hosts[id.0 as usize];
        if host.timer > self.now {
            return; // that one stands for another
        }
        host.timer = Instant::NEVER;
        let now = host.clock(self.now);
        match &mut host.node {
            Node::Peer(peer) => {
                if let Some(engine) = &mut peer.engine {
                    self.inputs += 1;
                    engine.timers_fired(now);
                }
                self.attend(id);
            }
            Node::Actor(stage) => {
                stage.wake_at = Instant::NEVER;
                self.act_on(id, Input::Timer);
            }
        }
    }

    /// Makes sure that the host's next deadline is an event.
    pub(super) fn arm(&mut self, id: HostId) {
        let host = &mut self.hosts[id.0 as usize];
        let (at, store_at) = match &host.node {
            Node::Peer(peer) => match &peer.engine {
                Some(engine) => (engine.next_deadline(), peer.store.next_deadline()),
                None => (None, None),
            },
            Node::Actor(stage) => (Some(stage.wake_at), None),
        };
        let skew = host.skew.as_micros() as u64;
        let at = at.filter(|&at| at < Instant::NEVER);
        let at = at.map(|at| Instant::from_micros(at.as_micros().saturating_sub(skew)));
        let Some(at) = at.into_iter().chain(store_at).min() else {
            return;
        };
        let at = at.max(self.now + Duration::from_micros(1));
        if at < host.timer {
            host.timer = at;
            self.events.push(at, Event::Timer(id));
        }
    }
}
