//! When a torrent has been seeded as much as its user wants, and what it remembers for that.
//!
//! A goal pauses the torrent, once everything is on disk: its trackers and peers hear of it as of
//! any pause. Who resumes it then wants it seeded on, whatever the goals say.

use std::time::Duration;

use super::torrent::Torrent;
use super::{Engine, State};
use crate::base::id::TorrentId;
use crate::base::time::Instant;
use crate::config::{Goal, SeedGoals};

/// For how long a torrent was seeded.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seeded {
    /// In former runs, and before the present time of it.
    before: Duration,
    /// In former runs.
    formerly: Duration,
    /// Since when it is seeded.
    since: Option<Instant>,
    /// Its user resumed it at its goal.
    pub goes_on: bool,
}

impl Seeded {
    /// What is remembered of former runs.
    pub fn formerly(before: Duration, goes_on: bool) -> Self {
        Self {
            before,
            formerly: before,
            since: None,
            goes_on,
        }
    }

    /// The torrent is in another state from `now` on.
    pub fn state_changed(&mut self, state: State, now: Instant) {
        self.before = self.time(now);
        self.since = (state == State::Seeding).then_some(now);
    }

    /// How long it was in former runs, seconds.
    pub fn formerly_s(&self) -> u64 {
        self.formerly.as_secs()
    }

    /// How long it was, in all runs.
    pub fn time(&self, now: Instant) -> Duration {
        let now = self.since.map_or(Duration::ZERO, |since| now - since);
        self.before.saturating_add(now)
    }
}

impl Torrent {
    /// When the goals are to be looked at, and why they end it then; `None`: nothing that is known
    /// now ends it.
    fn goal(&self, goals: SeedGoals, now: Instant) -> Option<(Instant, String)> {
        if let Some(Goal::At(milli)) = goals.ratio
            && self.has_sent(milli)
        {
            let (whole, thousandths) = (milli / 1000, milli % 1000);
            let text =
                format!("it has sent {whole}.{thousandths:03} times its size, its seed ratio");
            return Some((now, text));
        }
        let Some(Goal::At(seconds)) = goals.time else {
            return None;
        };
        let left = Duration::from_secs(seconds).saturating_sub(self.seeded.time(now));
        Some((
            now + left,
            format!("it was seeded for {seconds} s, its seed time"),
        ))
    }

    /// Whether it has sent so many thousandths of its size, in all runs.
    fn has_sent(&self, milli: u64) -> bool {
        let length = u128::from(self.swarm.meta().geometry().length());
        u128::from(self.totals().up) * 1000 >= length * u128::from(milli)
    }

    /// When the goals are to be looked at, if they may end it.
    pub(super) fn goal_at(&self, goals: SeedGoals, now: Instant) -> Option<Instant> {
        let may_end = self.state == State::Seeding && self.durable && !self.seeded.goes_on;
        let (at, _) = may_end.then(|| self.goal(goals, now)).flatten()?;
        Some(at)
    }
}

impl Engine {
    /// How much torrents are seeded.
    pub fn seed_goals(&self) -> SeedGoals {
        self.config.seed_goals
    }

    /// Pauses a torrent that was seeded as much as its user wants.
    pub(super) fn goal_due(&mut self, id: TorrentId, now: Instant) {
        let goals = self.config.seed_goals;
        let Some(torrent) = self.torrents.get(&id) else {
            return;
        };
        let is_reached = torrent.goal_at(goals, now).is_some_and(|at| at <= now);
        if is_reached && let Some((_, reason)) = torrent.goal(goals, now) {
            log::info!("torrent has reached its goal torrent={id}: {reason}");
            self.pause_for(id, Some(reason), now);
        }
    }

    /// The user resumes a torrent: if its goal is reached, that is of no interest any more. What is
    /// on disk may not have been looked at in this run.
    pub(super) fn goal_passed(&mut self, id: TorrentId, now: Instant) {
        let goals = self.config.seed_goals;
        if let Some(torrent) = self.torrents.get_mut(&id)
            && (torrent.was_complete || torrent.swarm.has_all_wanted())
            && torrent.goal(goals, now).is_some_and(|(at, _)| at <= now)
        {
            torrent.seeded.goes_on = true;
        }
    }

    /// The peers of a torrent's swarm that are known to be there, ourselves aside, and how many of
    /// them have everything, or want nothing more; `None` if there is no such torrent.
    ///
    /// Those are known that are connected, that announced themselves here or were seen here lately,
    /// and those that other evpeers tell of. An address that somebody named, and where nobody was
    /// met yet, is no peer.
    pub fn swarm_census(&self, id: TorrentId) -> Option<Census> {
        let torrent = self.torrents.get(&id)?;
        let info_hash = torrent.swarm.meta().info_hash;
        let mut known = std::collections::BTreeMap::new();
        let seen = self.server.registry.peers(info_hash);
        for entry in seen.filter(|entry| entry.heard.is_first_hand()) {
            if !entry.addr.ip().is_unspecified() {
                known.insert(entry.addr, entry.is_seed || entry.is_paused);
            }
        }
        let network = self.network.iter();
        for (addr, standing, _) in network.flat_map(|n| n.broadcast.swarm(info_hash)) {
            let is_done = standing.wants_nothing();
            known
                .entry(addr)
                .and_modify(|done| *done |= is_done)
                .or_insert(is_done);
        }
        for (_, (_, conn)) in &self.conns {
            if let Some(exchange) = conn.exchange()
                && exchange.torrent == id
            {
                let peer = torrent.swarm.peer(exchange.key);
                let addr = conn.listens.unwrap_or(conn.remote);
                known.insert(addr, peer.is_seed() || peer.upload_only);
            }
        }
        let complete = known.values().filter(|done| **done).count();
        Some(Census {
            peers: known.len(),
            complete,
        })
    }
}

/// The peers of a swarm that are known to be there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// All of them.
    pub peers: usize,
    /// Those that have everything, or want nothing more.
    pub complete: usize,
}
