//! Progress on a terminal: one live line a torrent, changes above them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::plain::change;
use crate::base::id::{InfoHash, TorrentId};
use crate::cli::output::printable;
use crate::cli::units::{show_count, show_len, show_percent, show_rate, show_time};
use crate::engine::action::{Report, Snapshot, State};

/// The live lines.
pub struct Bars {
    started: Instant,
    due: Instant,
    lines: MultiProgress,
    torrents: BTreeMap<InfoHash, ProgressBar>,
}

impl Bars {
    /// No lines yet, on standard output.
    pub fn new() -> Self {
        let now = Instant::now();
        Self {
            started: now,
            due: now,
            lines: MultiProgress::with_draw_target(ProgressDrawTarget::stdout_with_hz(10)),
            torrents: BTreeMap::new(),
        }
    }

    /// What others must suspend before they write to the terminal.
    pub fn handle(&self) -> MultiProgress {
        self.lines.clone()
    }

    /// Prints a change above the live lines, which show it too.
    pub fn report(&mut self, report: &Report, snapshot: &Snapshot) {
        if let Some(line) = change(report, snapshot, self.started.elapsed()) {
            self.say(&line);
            self.draw(snapshot);
        }
    }

    /// Prints a line above the live ones.
    pub fn say(&self, text: &str) {
        // A terminal that is gone is no reason to stop.
        let _ = self.lines.println(text);
    }

    /// Takes the line of a torrent away.
    pub fn remove(&mut self, info_hash: InfoHash) {
        if let Some(bar) = self.torrents.remove(&info_hash) {
            bar.finish_and_clear();
        }
    }

    /// When the figures shall be drawn again.
    pub fn due(&self) -> Instant {
        self.due
    }

    /// Draws the figures.
    pub fn tick(&mut self, torrents: &[(TorrentId, Snapshot)], now: Instant) {
        self.due = now + INTERVAL;
        for (_, snapshot) in torrents {
            self.draw(snapshot);
        }
    }

    /// Draws the last figures and leaves them standing.
    pub fn finish(&mut self, torrents: &[(TorrentId, Snapshot)]) {
        self.tick(torrents, Instant::now());
        for bar in self.torrents.values() {
            bar.abandon();
        }
    }

    fn draw(&mut self, snapshot: &Snapshot) {
        let bar = self
            .torrents
            .entry(snapshot.info_hash)
            .or_insert_with(|| self.lines.add(new_bar(snapshot)));
        let text = figures(snapshot);
        if bar.message() == text {
            return; // an idle peer draws nothing
        }
        bar.set_position(match snapshot.state {
            State::Checking => snapshot.checked_bytes,
            _ => snapshot.length.saturating_sub(snapshot.left_bytes),
        });
        bar.set_message(text);
    }
}

/// Between two drawings.
const INTERVAL: Duration = Duration::from_millis(250);

/// What does not fit the width of the terminal is cut off at the end.
fn new_bar(snapshot: &Snapshot) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix:16!} [{bar:12}] {wide_msg}")
        .expect("the template is right")
        .progress_chars("=> ");
    ProgressBar::new(snapshot.length.max(1))
        .with_style(style)
        .with_prefix(printable(&snapshot.name))
}

/// How far, how fast both ways, with whom, how long: at most 48 columns, so that a terminal of
/// 80 has room for it.
fn figures(snapshot: &Snapshot) -> String {
    let peers = show_count(snapshot.peers as usize, "peer");
    let up = show_rate(snapshot.up_bytes_s);
    match snapshot.state {
        State::Checking => {
            let checked = show_percent(snapshot.checked_bytes, snapshot.length);
            format!("checking {checked}")
        }
        State::Downloading => {
            let done = show_percent(snapshot.wanted_done_bytes(), snapshot.wanted_bytes);
            let down = show_rate(snapshot.down_bytes_s);
            let left = snapshot.eta_s().map(Duration::from_secs).map(show_time);
            format!("{done} ↓{down} ↑{up} {peers} {}", left.unwrap_or_default())
        }
        State::Seeding => {
            let sent = show_len(snapshot.up_bytes);
            format!("seeding ↑{up} {peers}, {sent} sent")
        }
        State::Queued => "queued".into(),
        State::Paused => "paused".into(),
        State::Error => match snapshot.retry_in {
            Some(time) => format!("waiting ↑{up} {peers}, tried in {}", show_time(time)),
            None => "error".into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::figures as snapshot;
    use super::*;

    #[test]
    fn figures_fit_beside_name_and_bar() {
        let wide = |state| Snapshot {
            length: 4 << 40,
            done_bytes: 4 << 38,
            wanted_bytes: 4 << 40,
            left_bytes: 3 << 40,
            up_bytes: (1 << 40) + (1 << 38),
            down_bytes_s: 117 << 20,
            up_bytes_s: 117 << 20,
            peers: 99,
            retry_in: Some(Duration::from_secs(60)),
            ..snapshot(state, 0)
        };
        for state in [
            State::Checking,
            State::Downloading,
            State::Seeding,
            State::Error,
        ] {
            let text = figures(&wide(state));
            assert!(text.chars().count() <= 48, "{text}");
        }
        let text = figures(&wide(State::Downloading));
        assert_eq!(text, "25.0 % ↓117 MiB/s ↑117 MiB/s 99 peers 7 h 28 min");
    }
}
