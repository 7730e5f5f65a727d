//! Datagrams: what comes in on the port's UDP side and on the groups of local discovery.
//!
//! The shell tells the engine of every datagram as it came; what is to leave are actions. None of
//! it is a stream, and a sender may be invented: nothing here costs more than the datagram that
//! asked for it, nor is longer until the sender has proven that it is there.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;

use super::Engine;
use super::action::Action;
use super::timers::TimerId;
use crate::base::address::{Scope, scope};
use crate::base::id::TorrentId;
use crate::base::time::Instant;
use crate::discovery::Privacy;
use crate::discovery::candidates::Source;
use crate::discovery::lsd::Lsd;
use crate::tracker::asker::Asker;
use crate::wire::utp;

impl Engine {
    /// A datagram came in on our port: from whom, and to which of our addresses if the system
    /// says so.
    pub fn datagram(
        &mut self,
        from: SocketAddr,
        local: Option<IpAddr>,
        bytes: &[u8],
        now: Instant,
    ) {
        // Port 0 wants no answer (RFC 768), and no host has an address of no scope.
        if from.port() == 0 || scope(from.ip()) == Scope::Nowhere {
            return;
        }
        if self.udp_tracker_reply(from, bytes, now) {
            return;
        }
        if self.ending.is_some() {
            return;
        }
        if let Some(reset) = utp::reset_for(bytes, now.as_micros() as u32) {
            return self.send_datagram(from, local, Bytes::copy_from_slice(&reset));
        }
        let asker = Asker {
            remote: from,
            local,
            interfaces: &self.interfaces,
            links: self.network.as_ref().map(|network| &network.broadcast),
        };
        if let Some(answer) = self.server.datagram(bytes, &asker, now) {
            self.send_datagram(from, local, answer);
        }
        self.take_tracker_events(now);
    }

    pub(super) fn send_datagram(&mut self, to: SocketAddr, from: Option<IpAddr>, bytes: Bytes) {
        self.actions.push_back(Action::Datagram { to, from, bytes });
    }

    /// A datagram came in on a multicast group of local discovery (BEP 14), by the interface with
    /// this index.
    pub fn multicast(&mut self, from: SocketAddr, interface: u32, bytes: &[u8], now: Instant) {
        let Some(lsd) = &mut self.lsd else { return };
        for (info_hash, addr) in lsd.received(from, interface, bytes, now) {
            if let Some(&id) = self.by_hash.get(&info_hash) {
                log::debug!(
                    "heard on the link remote={addr} info_hash={}",
                    info_hash.short()
                );
                self.heard_of(id, addr, Source::Lsd, now);
            }
        }
        self.rearm_lsd();
    }

    /// The shell cannot join a group on an interface, or send to it.
    pub fn multicast_failed(
        &mut self,
        interface: u32,
        family: super::action::Family,
        why: &str,
        now: Instant,
    ) {
        if let Some(lsd) = &mut self.lsd {
            lsd.failed(interface, family, why, now);
        }
        self.rearm_lsd();
    }

    /// Begins local discovery, now that the port is known.
    pub(super) fn start_lsd(&mut self) {
        if !self.config.lsd || self.port == 0 {
            return;
        }
        let rng = crate::base::rng::Rng::new(self.rng.next_u64());
        let mut lsd = Lsd::new(self.port, rng);
        lsd.interfaces_found(&self.interfaces);
        self.lsd = Some(lsd);
        let ids: Vec<TorrentId> = self.torrents.keys().copied().collect();
        for id in ids {
            self.tell_lsd(id);
        }
    }

    /// Says on the links whether this torrent is here, as its state has it.
    pub(super) fn tell_lsd(&mut self, id: TorrentId) {
        let (Some(lsd), Some(torrent)) = (&mut self.lsd, self.torrents.get(&id)) else {
            return;
        };
        let meta = torrent.swarm.meta();
        match torrent.is_taking_part() {
            true => lsd.add(meta.info_hash, Privacy::of(meta)),
            false => lsd.remove(meta.info_hash),
        }
        self.rearm_lsd();
    }

    /// Sends what is due on the links.
    pub(super) fn lsd_due(&mut self, now: Instant) {
        while let Some(packet) = self.lsd.as_mut().and_then(|lsd| lsd.poll(now)) {
            self.actions.push_back(Action::Multicast {
                interface: packet.interface,
                family: packet.family,
                bytes: packet.bytes.into(),
            });
        }
        self.rearm_lsd();
    }

    /// Makes sure that the timer of local discovery fires in time.
    pub(super) fn rearm_lsd(&mut self) {
        if let Some(at) = self.lsd.as_ref().and_then(Lsd::next_deadline)
            && at < self.lsd_armed
        {
            self.lsd_armed = at;
            self.timers.arm(TimerId::Lsd, at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::PeerId;
    use crate::config::Config;
    use crate::engine::Secrets;

    #[test]
    fn nothing_is_sent_to_where_nobody_is() {
        let secrets = Secrets {
            rng_seed: 1,
            peer_id: PeerId([1; 20]),
            key: 7,
            tracker: [3; 16],
        };
        let now = Instant::from_micros(1_000_000);
        let config = Config {
            open_tracker: true,
            ..Config::default()
        };
        let mut engine = Engine::new(config, secrets, now);
        let connect = [
            0, 0, 4, 0x17, 0x27, 0x10, 0x19, 0x80, 0, 0, 0, 0, 0, 0, 0, 1,
        ];
        let cases = [
            ("10.0.0.6:9", true),
            ("10.0.0.6:0", false),
            ("[fd00::6]:0", false),
            ("224.0.0.1:9", false),
            ("0.0.0.0:9", false),
        ];
        for (from, is_answered) in cases {
            engine.datagram(from.parse().expect("an address"), None, &connect, now);
            let actions = std::iter::from_fn(|| engine.poll_action());
            let sent = actions.filter(|action| matches!(action, Action::Datagram { .. }));
            assert_eq!(sent.count() > 0, is_answered, "{from}");
        }
    }
}
