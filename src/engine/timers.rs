//! Deadlines: of streams, of torrents, of the end.

use std::net::SocketAddr;
use std::time::Duration;

use super::conn::{Conn, Purpose, Stage};
use super::{Action, Ending, Engine, State};
use crate::base::id::{ConnId, TorrentId};
use crate::base::limits;
use crate::base::time::Instant;
use crate::wire::message::Outgoing;

/// Whose deadline it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum TimerId {
    /// Hand-shakes, silence and keep-alives of a stream.
    Conn(ConnId),
    /// The exchange, dialling and announces of a torrent.
    Torrent(TorrentId),
    /// New pieces that some peers of a torrent have not heard of.
    News(TorrentId),
    /// Torrents that wait for their turn.
    Queue,
    /// Local discovery.
    Lsd,
    /// Peers that fall silent.
    Registry,
    /// Broadcast and overlay.
    Network,
    /// Streams that wait for their turn under a limit of rate.
    Pace,
    /// Datagrams to trackers.
    UdpTrackers,
    /// Waiting for trackers at the end.
    Shutdown,
}

/// How often an exchange with peers is told the time.
pub(super) const TICK: Duration = Duration::from_secs(1);
/// How often it is seen whether a peer is to be told of new ones.
const PEX_LOOK: Duration = Duration::from_secs(60);

impl Engine {
    /// When [`Engine::timers_fired`] has something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.timers.next_deadline()
    }

    /// Does what is due at `now`.
    pub fn timers_fired(&mut self, now: Instant) {
        while let Some(id) = self.timers.poll(now) {
            match id {
                TimerId::Conn(conn) => self.conn_due(conn, now),
                TimerId::Torrent(torrent) => self.torrent_due(torrent, now),
                TimerId::News(torrent) => {
                    if let Some(running) = self.torrents.get_mut(&torrent) {
                        running.swarm.news_due(now);
                        self.run_effects(torrent, now);
                    }
                }
                TimerId::Queue => self.queue_due(now),
                TimerId::Lsd => {
                    self.lsd_armed = Instant::NEVER;
                    self.lsd_due(now);
                }
                TimerId::Registry => {
                    self.registry_armed = Instant::NEVER;
                    self.registry_due(now);
                }
                TimerId::Network => self.network_due(now),
                TimerId::Pace => self.pace_due(now),
                TimerId::UdpTrackers => self.udp_trackers_timer(now),
                TimerId::Shutdown => {}
            }
        }
    }

    /// A stream's deadline: arms the next one, or ends the stream. So every stream has one entry,
    /// from its first deadline on, whatever becomes of it meanwhile.
    fn conn_due(&mut self, id: ConnId, now: Instant) {
        let speaks = self.network_is_ready(id);
        let waits_to_read = self.waits_to_read(id, now);
        let waits_to_write = self.waits_to_write(id, now);
        let Some(conn) = self.conn_mut(id) else {
            return;
        };
        let opening = match &conn.stage {
            Stage::Dialling(_) => Some((limits::CONNECT_TIMEOUT, "no answer")),
            Stage::Undecided(_) | Stage::Greeting(..) | Stage::Meeting(_) => {
                Some((limits::HANDSHAKE_TIMEOUT, "no handshake"))
            }
            Stage::Announce(_) => Some((limits::TRACKER_TIMEOUT, "no answer in time")),
            Stage::Link(_) if !speaks => {
                Some((limits::HANDSHAKE_TIMEOUT, "no extension handshake"))
            }
            Stage::Exchange(_) | Stage::Http(_) | Stage::Link(_) | Stage::Closing => None,
        };
        if let Some((patience, why)) = opening {
            // A dialled stream has its time for the handshake from when it was established.
            let since = if matches!(conn.stage, Stage::Greeting(..) | Stage::Meeting(_)) {
                conn.last_out
            } else {
                conn.opened
            };
            if since + patience <= now {
                self.close(id, Ending::Failed(why), now);
            } else {
                self.timers.arm(TimerId::Conn(id), since + patience);
            }
            return;
        }
        if let Stage::Http(http) = &conn.stage {
            let mut end = http.deadline(conn.last_in);
            if !conn.outbox.is_empty() {
                end = end.min(conn.last_out.max(conn.last_in) + limits::HTTP_REQUEST_TIMEOUT);
            }
            if end <= now {
                return self.close(id, Ending::Failed("no request in time"), now);
            }
            // Deadlines move both ways; the next look is at the nearest that there can be.
            let next = end.min(now + limits::HTTP_REQUEST_TIMEOUT);
            return self.timers.arm(TimerId::Conn(id), next.max(now + TICK));
        }
        let idle_at = conn.last_in + limits::IDLE_TIMEOUT;
        // What waits has not moved since the last write: the peer does not read.
        let stuck_at = conn.last_out + limits::UNREAD_TIMEOUT;
        let is_silent = idle_at <= now && !waits_to_read;
        let is_stuck = stuck_at <= now && !conn.outbox.is_empty() && !waits_to_write;
        if is_silent || is_stuck {
            return self.close(id, Ending::Failed("silent for too long"), now);
        }
        if conn.outbox.is_empty() && conn.last_out + limits::KEEPALIVE_INTERVAL <= now {
            conn.outbox.push(Outgoing::KeepAlive);
            conn.last_out = now;
            self.flush(id);
        }
        let Some(conn) = self.conn(id) else { return };
        let mut next = idle_at.min(conn.last_out + limits::KEEPALIVE_INTERVAL);
        if conn.exchange().is_some_and(|e| e.pex.is_some()) {
            self.pex_due(id, now);
            let told = self.pex_deadline(id).unwrap_or(Instant::NEVER);
            next = next.min(told).min(now + PEX_LOOK);
        }
        next = next.max(now + TICK);
        self.timers.arm(TimerId::Conn(id), next);
    }

    /// Makes sure that the torrent's timer fires at `at` or sooner.
    pub(super) fn arm_torrent(&mut self, id: TorrentId, at: Instant) {
        if let Some(torrent) = self.torrents.get_mut(&id)
            && !matches!(torrent.state, State::Paused | State::Queued)
            && at < torrent.armed
        {
            torrent.armed = at;
            self.timers.arm(TimerId::Torrent(id), at);
        }
    }

    fn torrent_due(&mut self, id: TorrentId, now: Instant) {
        let Some(torrent) = self.torrents.get_mut(&id) else {
            return;
        };
        if torrent.armed > now {
            return; // a later entry than this one stands for the torrent
        }
        torrent.armed = Instant::NEVER;
        if now - torrent.ticked >= TICK {
            torrent.ticked = now;
            torrent.swarm.tick(now);
            self.run_effects(id, now);
        }
        self.plight_due(id, now);
        self.goal_due(id, now);
        self.dial(id, now);
        self.announce_due(id, now);
        self.rearm_torrent(id, now);
    }

    /// Arms the earliest of what the torrent waits for.
    pub(super) fn rearm_torrent(&mut self, id: TorrentId, now: Instant) {
        let Some(torrent) = self.torrents.get(&id) else {
            return;
        };
        let mut next = Instant::NEVER;
        if torrent.swarm.peer_count() > 0 {
            next = torrent.ticked.max(now) + TICK;
        }
        if let Some(plight) = &torrent.plight
            && torrent.is_waiting()
            && self.ending.is_none()
        {
            next = next.min(plight.deadline());
        }
        if let Some(at) = torrent.goal_at(self.config.seed_goals, now)
            && self.ending.is_none()
        {
            next = next.min(at);
        }
        if torrent.is_taking_part() {
            let reach = self.reach(id, now);
            if let Some(at) = torrent.candidates.next_deadline(reach) {
                let may_dial = at > now || self.may_dial(id, now);
                next = next.min(if may_dial { at } else { now + TICK });
            }
            if self.config.trackers
                && let Some(at) = torrent.tracker.next_deadline()
            {
                let may_announce = at > now || self.may_announce();
                next = next.min(if may_announce { at } else { now + TICK });
            }
        }
        if next < Instant::NEVER {
            self.arm_torrent(id, next.max(now));
        }
    }

    /// Opens connections to addresses that are due.
    fn dial(&mut self, id: TorrentId, now: Instant) {
        if let Some(torrent) = self.torrents.get_mut(&id) {
            torrent.candidates.ripen(now);
        }
        while self.would_call(id, now)
            && self.may_dial(id, now)
            && let reach = self.reach(id, now)
            && let Some(torrent) = self.torrents.get_mut(&id)
            && let Some(remote) = torrent.candidates.take_due(reach, &mut self.gate, now)
        {
            if let Some(conn) = self.open(remote, Purpose::Peer(id), now)
                && let Some(conn) = self.conn_mut(conn)
            {
                conn.listens = Some(remote);
            }
            self.call_begun(id, now);
        }
        self.wait_to_call(id, now);
    }

    /// Dials `remote`.
    pub(super) fn open(
        &mut self,
        remote: SocketAddr,
        purpose: Purpose,
        now: Instant,
    ) -> Option<ConnId> {
        self.dialling += 1;
        let conn = Conn::new(remote, Stage::Dialling(purpose), now);
        let id = self.insert_conn(conn, limits::CONNECT_TIMEOUT);
        self.actions.push_back(Action::Connect { conn: id, remote });
        Some(id)
    }
}
