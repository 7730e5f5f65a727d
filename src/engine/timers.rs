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
    /// Waiting for trackers at the end.
    Shutdown,
}

/// How often an exchange with peers is told the time.
pub(super) const TICK: Duration = Duration::from_secs(1);

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
                TimerId::Shutdown => {}
            }
        }
    }

    /// A stream's deadline: arms the next one, or ends the stream. So every stream has one entry,
    /// from its first deadline on, whatever becomes of it meanwhile.
    fn conn_due(&mut self, id: ConnId, now: Instant) {
        let Some(conn) = self.conn_mut(id) else {
            return;
        };
        let opening = match &conn.stage {
            Stage::Dialling(_) => Some((limits::CONNECT_TIMEOUT, "no answer")),
            Stage::Undecided(_) | Stage::Greeting(..) => {
                Some((limits::HANDSHAKE_TIMEOUT, "no handshake"))
            }
            Stage::Announce(_) => Some((limits::TRACKER_TIMEOUT, "no answer in time")),
            Stage::Exchange(_) | Stage::Closing => None,
        };
        if let Some((patience, why)) = opening {
            // A dialled stream has its time for the handshake from when it was established.
            let since = if matches!(conn.stage, Stage::Greeting(..)) {
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
        let idle_at = conn.last_in + limits::IDLE_TIMEOUT;
        // What waits has not moved since the last write: the peer does not read.
        let stuck_at = conn.last_out + limits::UNREAD_TIMEOUT;
        if idle_at <= now || (!conn.outbox.is_empty() && stuck_at <= now) {
            return self.close(id, Ending::Failed("silent for too long"), now);
        }
        if conn.outbox.is_empty() && conn.last_out + limits::KEEPALIVE_INTERVAL <= now {
            conn.outbox.push(Outgoing::KeepAlive);
            conn.last_out = now;
            self.flush(id);
        }
        let Some(conn) = self.conn(id) else { return };
        let next = idle_at
            .min(conn.last_out + limits::KEEPALIVE_INTERVAL)
            .max(now + TICK);
        self.timers.arm(TimerId::Conn(id), next);
    }

    /// Makes sure that the torrent's timer fires at `at` or sooner.
    pub(super) fn arm_torrent(&mut self, id: TorrentId, at: Instant) {
        if let Some(torrent) = self.torrents.get_mut(&id)
            && torrent.state != State::Paused
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
        self.dial(id, now);
        self.announce_due(id, now);
        self.rearm_torrent(id, now);
    }

    /// Arms the earliest of what the torrent waits for.
    pub(super) fn rearm_torrent(&mut self, id: TorrentId, now: Instant) {
        let may_dial = self.may_dial();
        let Some(torrent) = self.torrents.get(&id) else {
            return;
        };
        let mut next = Instant::NEVER;
        if torrent.swarm.peer_count() > 0 {
            next = torrent.ticked.max(now) + TICK;
        }
        if torrent.state == State::Downloading || torrent.state == State::Seeding {
            if let Some(at) = torrent.candidates.next_deadline() {
                next = next.min(if may_dial { at } else { at.max(now + TICK) });
            }
            if self.config.trackers
                && let Some(at) = torrent.tracker.next_deadline()
            {
                next = next.min(at);
            }
        }
        if next < Instant::NEVER {
            self.arm_torrent(id, next.max(now));
        }
    }

    fn may_dial(&self) -> bool {
        self.dialling < limits::HALF_OPEN_MAX
            && self.conns.len() < self.config.conns_max as usize
            && self.ending.is_none()
    }

    /// Opens connections to addresses that are due.
    fn dial(&mut self, id: TorrentId, now: Instant) {
        while self.may_dial()
            && let Some(torrent) = self.torrents.get_mut(&id)
            && matches!(torrent.state, State::Downloading | State::Seeding)
            && let Some(remote) = torrent.candidates.take_due(now)
        {
            if let Some(conn) = self.open(remote, Purpose::Peer(id), now)
                && let Some(conn) = self.conn_mut(conn)
            {
                conn.listens = Some(remote);
            }
        }
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
