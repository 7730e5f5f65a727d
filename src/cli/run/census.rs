//! Whether all whom this peer knows have everything (`--until-swarm-complete`).

use std::time::{Duration, Instant};

use super::{Outcome, Peer};

/// What is known of the swarms, for a peer that leaves when they are done.
#[derive(Debug, Default)]
pub(super) struct Swarms {
    /// Somebody else was there.
    is_anybody: bool,
    /// Since when all have everything.
    done_at: Option<Instant>,
    /// When it is looked at next.
    next_at: Option<Instant>,
}

impl Peer {
    /// Whether somebody else was there, and for some seconds all whom this peer knew in the swarms
    /// of its torrents had everything.
    pub(super) fn is_swarm_done(&mut self) -> bool {
        let now = Instant::now();
        if self.census.next_at.is_some_and(|at| now < at) {
            return false;
        }
        self.census.next_at = Some(now + CENSUS_INTERVAL);
        let is_whole = |outcome: &Outcome| *outcome == Outcome::Durable;
        let whole = self
            .torrents
            .iter()
            .filter(|(_, outcome)| is_whole(outcome));
        let engine = self.reactor.engine_mut();
        let mut missing = 0;
        for census in whole.filter_map(|(torrent, _)| engine.swarm_census(*torrent)) {
            self.census.is_anybody |= census.peers > 0;
            missing += census.peers - census.complete;
        }
        if missing > 0 || !self.census.is_anybody {
            self.census.done_at = None;
            return false;
        }
        let since = *self.census.done_at.get_or_insert(now);
        now - since >= SWARM_DONE_TIME
    }
}

/// How often a peer that leaves with its swarm counts it.
pub(super) const CENSUS_INTERVAL: Duration = Duration::from_millis(500);
/// How long all others have to have everything before it leaves: newcomers may be on their way.
const SWARM_DONE_TIME: Duration = Duration::from_secs(2);
