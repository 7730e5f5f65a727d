//! Progress as plain lines, for files and pipes that people read later.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::digest_of;
use crate::base::id::TorrentId;
use crate::cli::output::{Worth, printable};
use crate::cli::units::{show_count, show_len, show_percent, show_rate, show_time};
use crate::engine::action::{Report, Snapshot, State};

/// Decides which lines are due.
pub struct Plain {
    started: Instant,
    due: Instant,
    told: BTreeMap<TorrentId, u64>,
}

impl Plain {
    /// Nothing is told yet; the first figures are due one interval after `now`.
    pub fn new(now: Instant) -> Self {
        Self {
            started: now,
            due: now + INTERVAL,
            told: BTreeMap::new(),
        }
    }

    /// The line that tells `report`, if it is a change of the torrent.
    pub fn report(&self, report: &Report, snapshot: &Snapshot) -> Option<(String, Worth)> {
        change(report, snapshot, self.started.elapsed()).map(|line| (line, Worth::Keep))
    }

    /// When there may be something to tell again.
    pub fn due(&self) -> Instant {
        self.due
    }

    /// One line for each torrent that moved since the last, once an interval.
    pub fn tick(
        &mut self,
        torrents: &[(TorrentId, Snapshot)],
        now: Instant,
    ) -> Vec<(String, Worth)> {
        if now < self.due {
            return Vec::new();
        }
        self.due = now + INTERVAL;
        let mut lines = Vec::new();
        for (torrent, snapshot) in torrents {
            let digest = digest_of(snapshot);
            if self.told.insert(*torrent, digest) != Some(digest) {
                lines.push((named(snapshot, &figures(snapshot)), Worth::MayDrop));
            }
        }
        lines
    }

    /// What each torrent came to.
    pub fn finish(&self, torrents: &[(TorrentId, Snapshot)]) -> Vec<(String, Worth)> {
        let last = |(_, snapshot): &(TorrentId, Snapshot)| {
            let text = format!(
                "stopped with {} of {}, received {}, sent {} in {}",
                show_percent(snapshot.wanted_done_bytes(), snapshot.wanted_bytes),
                show_len(snapshot.wanted_bytes),
                show_len(snapshot.down_bytes),
                show_len(snapshot.up_bytes),
                show_time(self.started.elapsed()),
            );
            (named(snapshot, &text), Worth::Keep)
        };
        torrents.iter().map(last).collect()
    }
}

/// Between two lines of progress.
const INTERVAL: Duration = Duration::from_secs(10);

/// The line for a change of a torrent; `None` for what the log tells.
pub(super) fn change(report: &Report, snapshot: &Snapshot, age: Duration) -> Option<String> {
    let text = match report {
        Report::State {
            state: State::Error,
            reason,
            ..
        } => {
            let reason = reason.as_deref().unwrap_or("no reason known");
            match snapshot.retry_in {
                Some(_) => format!("error: {reason}; it goes on by itself as soon as it can"),
                None => format!("error: {reason}"),
            }
        }
        Report::State {
            state: state @ (State::Paused | State::Queued),
            reason: Some(reason),
            ..
        } => format!("{}: {reason}", state.name()),
        Report::State { state, .. } => {
            format!("{}, {}", state.name(), show_len(snapshot.length))
        }
        Report::Complete { .. } => format!(
            "complete, {} verified after {}",
            show_len(snapshot.wanted_bytes),
            show_time(age)
        ),
        Report::Durable { .. } => "durable, everything is synced to disk".into(),
        _ => return None,
    };
    Some(named(snapshot, &text))
}

/// State, how far, how fast, with whom, how long.
pub(super) fn figures(snapshot: &Snapshot) -> String {
    let percent = |bytes| show_percent(bytes, snapshot.length);
    let wanted = || show_percent(snapshot.wanted_done_bytes(), snapshot.wanted_bytes);
    let mut peers = show_count(snapshot.peers as usize, "peer");
    if snapshot.seeds > 0 {
        peers += &format!(" ({})", show_count(snapshot.seeds as usize, "seed"));
    }
    let up = show_rate(snapshot.up_bytes_s);
    match snapshot.state {
        State::Checking => format!("checking {}", percent(snapshot.checked_bytes)),
        State::Downloading => {
            let left = snapshot.eta_s().map(Duration::from_secs);
            let left = left.map_or(String::new(), |t| format!(", {} left", show_time(t)));
            format!(
                "downloading {}, down {}, up {up}, {peers}{left}",
                wanted(),
                show_rate(snapshot.down_bytes_s),
            )
        }
        State::Seeding => format!(
            "seeding, up {up}, sent {}, {peers}",
            show_len(snapshot.up_bytes)
        ),
        State::Queued => format!("queued {}", wanted()),
        State::Paused => format!("paused {}", wanted()),
        State::Error => {
            let reason = snapshot.reason.as_deref().unwrap_or_default();
            match snapshot.retry_in {
                Some(time) => format!(
                    "waiting at {}, tried again in {}, up {up}, {peers}: {reason}",
                    wanted(),
                    show_time(time),
                ),
                None => format!("error: {reason}"),
            }
        }
    }
}

fn named(snapshot: &Snapshot, text: &str) -> String {
    format!("{}: {}", printable(&snapshot.name), printable(text))
}

#[cfg(test)]
mod tests {
    use super::super::tests::figures as snapshot;
    use super::*;

    const TORRENT: TorrentId = TorrentId(0);

    #[test]
    fn progress_is_told_every_ten_seconds_while_it_moves() {
        let start = Instant::now();
        let mut plain = Plain::new(start);
        let at = |done| [(TORRENT, snapshot(State::Downloading, done))];
        let cases = [
            // s   done  lines
            (0, 1, 0),
            (9, 2, 0),
            (10, 3, 1),
            (15, 4, 0),
            (20, 4, 1),
            (60, 4, 0),
            (70, 5, 1),
        ];
        for (seconds, done, lines) in cases {
            let told = plain.tick(&at(done), start + Duration::from_secs(seconds));
            assert_eq!(told.len(), lines, "at {seconds} s");
        }
    }

    #[test]
    fn figures_fit_the_state() {
        let cases = [
            (State::Checking, 500, "checking 50.0 %"),
            (
                State::Downloading,
                400,
                "downloading 40.0 %, down 100 B/s, up 0 B/s, 2 peers (1 seed), 6 s left",
            ),
            (
                State::Seeding,
                1000,
                "seeding, up 0 B/s, sent 0 B, 2 peers (1 seed)",
            ),
        ];
        for (state, done, text) in cases {
            assert_eq!(figures(&snapshot(state, done)), text);
        }
    }

    #[test]
    fn word_complete_stands_only_where_a_download_ended() {
        let plain = Plain::new(Instant::now());
        let seeding = snapshot(State::Seeding, 1000);
        let state = Report::State {
            torrent: TORRENT,
            state: State::Seeding,
            reason: None,
        };
        let complete = Report::Complete { torrent: TORRENT };
        let durable = Report::Durable { torrent: TORRENT };
        let says = |report| {
            let (line, _) = plain.report(report, &seeding).expect("a line");
            line.contains("complete")
        };
        assert!(says(&complete));
        assert!(!says(&state) && !says(&durable));
        assert!(!figures(&seeding).contains("complete"));
        let last = plain.finish(&[(TORRENT, seeding)]);
        assert!(!last[0].0.contains("complete"));
    }

    #[test]
    fn hostile_name_cannot_steer_the_terminal() {
        let hostile = Snapshot {
            name: "\u{1b}]0;title\u{7}".into(),
            ..snapshot(State::Seeding, 1000)
        };
        let line = change(
            &Report::Complete { torrent: TORRENT },
            &hostile,
            Duration::ZERO,
        );
        assert!(!line.expect("a line").contains(char::is_control));
    }
}
