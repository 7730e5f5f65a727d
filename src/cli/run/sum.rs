//! What the torrents come to together, and which of them have to be looked at to know it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::{Outcome, Peer};
use crate::base::id::TorrentId;
use crate::engine::action::Snapshot;

/// What all torrents come to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sum {
    /// There are some, and none can go on.
    pub is_failed: bool,
    /// There are some, and none is under way.
    pub is_done: bool,
}

impl Peer {
    /// Notes how far a torrent got.
    pub(super) fn came_to(&mut self, torrent: TorrentId, outcome: Outcome) {
        self.torrents.insert(torrent, outcome);
        self.sum = None;
    }

    /// What the torrents come to together. A thousand that are at rest are not looked at in every
    /// pass.
    pub(super) fn sum(&mut self) -> Sum {
        let torrents = &self.torrents;
        *self.sum.get_or_insert_with(|| {
            let is_failed = |o: &Outcome| matches!(o, Outcome::Failed { .. });
            let has_torrents = !torrents.is_empty();
            Sum {
                is_failed: has_torrents && torrents.values().all(is_failed),
                is_done: has_torrents && torrents.values().all(|o| *o != Outcome::Open),
            }
        })
    }

    /// How long until figures are to be told. While nothing moves that is not before a report: an
    /// idle process is not woken for it.
    pub(super) fn time_to_tick(&self, now: Instant) -> Duration {
        match self.is_still {
            true => Duration::MAX,
            false => self.progress.time_to_tick(now),
        }
    }

    /// Tells the figures that changed, if it is time to.
    pub(super) fn tell_figures(&mut self, now: Instant) {
        if self.time_to_tick(now).is_zero() {
            let figures = self.moving_figures();
            self.is_still = figures.is_empty();
            self.progress.tick(&figures, now);
        }
    }

    /// The figures of the torrents that may have changed since the last time.
    fn moving_figures(&mut self) -> Vec<(TorrentId, Snapshot)> {
        if self.progress.bars().is_some() {
            return self.figures();
        }
        // Who has come to rest since is told once more.
        let moving: BTreeSet<TorrentId> = self.reactor.engine_mut().moving().collect();
        let mut told = std::mem::replace(&mut self.moving, moving.clone());
        told.extend(moving);
        let shown = told.into_iter();
        let shown = shown.filter_map(|t| Some((t, self.reactor.snapshot(t)?)));
        shown.collect()
    }

    /// The figures of all torrents.
    pub(super) fn figures(&mut self) -> Vec<(TorrentId, Snapshot)> {
        let torrents = self.torrents.keys();
        let shown = torrents.filter_map(|&t| Some((t, self.reactor.snapshot(t)?)));
        shown.collect()
    }
}
