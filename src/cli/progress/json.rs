//! Progress as JSON objects, one a line.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::digest_of;
use crate::base::id::TorrentId;
use crate::cli::output::Worth;
use crate::control::api;
use crate::engine::action::{Report, Snapshot};

/// Decides which figures are due.
pub struct Json {
    due: Instant,
    told: BTreeMap<TorrentId, u64>,
}

impl Json {
    /// Nothing is told yet; the first figures are due at `now`.
    pub fn new(now: Instant) -> Self {
        Self {
            due: now,
            told: BTreeMap::new(),
        }
    }

    /// The object that tells `report`.
    pub fn report(report: &Report, snapshot: &Snapshot) -> Option<(String, Worth)> {
        let worth = match report {
            Report::State { .. } | Report::Complete { .. } | Report::Durable { .. } => Worth::Keep,
            _ => Worth::MayDrop,
        };
        api::event(report, snapshot).map(|object| (object.to_string(), worth))
    }

    /// When there may be something to tell again.
    pub fn due(&self) -> Instant {
        self.due
    }

    /// Has the figures told that changed since they were, once an interval; each as soon as it is
    /// made, as they may be those of a thousand torrents.
    pub fn tick(
        &mut self,
        torrents: &[(TorrentId, Snapshot)],
        now: Instant,
        mut tell: impl FnMut(String, Worth),
    ) {
        if now < self.due {
            return;
        }
        self.due = now + INTERVAL;
        for (torrent, snapshot) in torrents {
            let digest = digest_of(snapshot);
            if self.told.insert(*torrent, digest) != Some(digest) {
                tell(api::progress(snapshot).to_string(), Worth::MayDrop);
            }
        }
    }

    /// The last figures, whether they changed or not: what was sent and received is final here.
    pub fn finish(torrents: &[(TorrentId, Snapshot)]) -> Vec<(String, Worth)> {
        let last = |(_, snapshot): &(TorrentId, Snapshot)| {
            (api::progress(snapshot).to_string(), Worth::Keep)
        };
        torrents.iter().map(last).collect()
    }
}

/// Between two lines of a torrent that is moving.
const INTERVAL: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::super::tests::figures;
    use super::*;
    use crate::engine::action::State;

    #[test]
    fn only_changed_figures_are_told_and_not_too_often() {
        let start = Instant::now();
        let mut json = Json::new(start);
        let at = |done| [(TorrentId(0), figures(State::Downloading, done))];
        let cases = [
            // ms   done  lines
            (0, 1, 1),
            (100, 2, 0),
            (250, 2, 1),
            (500, 2, 0),
            (900, 3, 1),
            (60_000, 3, 0),
        ];
        for (ms, done, lines) in cases {
            let mut told = 0;
            let now = start + Duration::from_millis(ms);
            json.tick(&at(done), now, |_, _| told += 1);
            assert_eq!(told, lines, "at {ms} ms");
        }
        assert_eq!(Json::finish(&at(3)).len(), 1);
    }
}
