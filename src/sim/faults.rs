//! What can be done to hosts and lines while a world runs.

use std::time::Duration;

use super::event::Event;
use super::host::Node;
use super::net::{Link, Side};
use super::run::NO_STREAM;
use super::{HostId, World};
use crate::base::time::Instant;
use crate::config::Config;

impl World {
    /// The process of a host is killed: its streams end, its files stay as the kernel has them.
    pub fn kill(&mut self, host: HostId) {
        self.stop(host, false);
    }

    /// The power of a host goes: nobody hears of it, and what was not synced may be lost.
    pub fn cut(&mut self, host: HostId) {
        self.stop(host, true);
    }

    /// The bytes of a host's files change under it, so that what it sends may be wrong.
    pub fn rot(&mut self, host: HostId, path: &str, change: impl FnOnce(&mut Vec<u8>)) -> bool {
        self.judges.excuse(host);
        self.disk(host).is_some_and(|disk| disk.edit(path, change))
    }

    /// A host is told to end in good order: it says so to its trackers and peers, syncs its files,
    /// and is gone once that is done or has taken too long.
    pub fn leave(&mut self, id: HostId) {
        let host = &mut self.hosts[id.0 as usize];
        let now = host.clock(self.now);
        if let Node::Peer(peer) = &mut host.node
            && let Some(engine) = &mut peer.engine
        {
            engine.shutdown(now);
            peer.is_leaving = true;
            self.attend(id);
        }
    }

    /// Whether an engine that was told to end has nothing left to wait for.
    pub(super) fn has_left(&self, id: HostId) -> bool {
        let host = &self.hosts[id.0 as usize];
        let now = host.clock(self.now);
        host.engine().is_some_and(|engine| engine.is_finished(now))
    }

    /// What the user of a host has set from its next start on; `None` of an actor.
    pub fn config_mut(&mut self, id: HostId) -> Option<&mut Config> {
        match &mut self.hosts[id.0 as usize].node {
            Node::Peer(peer) => Some(&mut peer.spec.config),
            Node::Actor(_) => None,
        }
    }

    pub(super) fn stop(&mut self, id: HostId, is_power_cut: bool) {
        if !self.network.lines.is_up(id) {
            return;
        }
        self.judges.stopped(id);
        let host = &mut self.hosts[id.0 as usize];
        let streams = host.let_all_go();
        host.ring.clear();
        host.timer = Instant::NEVER;
        host.life += 1;
        match &mut host.node {
            Node::Peer(peer) => {
                peer.engine = None;
                peer.is_leaving = false;
                peer.waiting.clear();
                peer.store.stopped(is_power_cut);
                if let super::store::Store::Real(real) = &peer.store {
                    self.judges.left_behind(id, &real.disk);
                }
            }
            Node::Actor(stage) => stage.conns.clear(),
        }
        for (conn, stream) in streams {
            let Some(side) = self.network.side_of(stream, id, conn) else {
                continue;
            };
            if is_power_cut {
                self.network.vanish(stream, side);
            } else {
                self.end_stream(stream, side);
            }
        }
        self.network.lines.set_up(id, false);
    }

    /// A host that was killed or cut comes back, with what its disk still has. One that is about to
    /// leave is killed first.
    pub fn restart(&mut self, id: HostId) {
        if let Node::Peer(peer) = &self.hosts[id.0 as usize].node
            && peer.is_leaving
        {
            self.kill(id);
        }
        if self.network.lines.is_up(id) {
            return;
        }
        self.network.lines.set_up(id, true);
        self.start(id);
    }

    /// A host stands still for a while, as a suspended machine does, and its clock goes on.
    pub fn suspend(&mut self, host: HostId, time: Duration) {
        self.hosts[host.0 as usize].still_until = self.now + time;
    }

    /// How long it takes until no host stands still.
    pub fn all_moving_in(&self) -> Duration {
        let last = self.hosts.iter().map(|host| host.still_until).max();
        last.unwrap_or(self.now) - self.now
    }

    /// A host's clock jumps ahead.
    pub fn clock_jump(&mut self, id: HostId, ahead: Duration) {
        self.hosts[id.0 as usize].skew += ahead;
        self.hosts[id.0 as usize].timer = Instant::NEVER;
        self.attend(id);
    }

    /// Puts `hosts` on an island until [`heal`](Self::heal): they reach each other, nobody else.
    pub fn isolate(&mut self, hosts: &[HostId], island: u32) {
        for &host in hosts {
            self.network.lines.set_island(host, island);
        }
    }

    /// Cuts the way from one host to another; the way back stays open.
    pub fn cut_way(&mut self, from: HostId, to: HostId) {
        self.network.lines.set_cut(from, to, true);
    }

    /// A host is on no island any more; what waited for it goes on.
    pub fn rejoin(&mut self, host: HostId) {
        self.network.lines.set_island(host, 0);
        self.resume();
    }

    /// Opens all ways; what waited goes on.
    pub fn heal(&mut self) {
        self.network.lines.heal();
        self.resume();
    }

    /// Changes a host's line.
    pub fn set_link(&mut self, host: HostId, link: Link) {
        self.network.lines.set_link(host, link);
    }

    /// Lets a stream of a host break: both ends hear of it. Says whether there was one.
    pub fn reset_stream(&mut self, id: HostId) -> bool {
        let host = &self.hosts[id.0 as usize];
        let held = host.conns.iter().flatten().map(|held| held.stream);
        let held: Vec<_> = held.filter(|&stream| stream != NO_STREAM).collect();
        if held.is_empty() {
            return false;
        }
        let stream = held[self.rng.below(held.len() as u32) as usize];
        for side in [Side::Dialler, Side::Acceptor] {
            self.events.push(self.now, Event::Reset(stream, side));
        }
        true
    }
}
