//! Progress on a terminal: one live line a torrent, changes above them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::plain::{change, figures};
use crate::base::id::TorrentId;
use crate::cli::output::printable;
use crate::engine::action::{Report, Snapshot, State};

/// The live lines.
pub struct Bars {
    started: Instant,
    due: Instant,
    lines: MultiProgress,
    torrents: BTreeMap<TorrentId, ProgressBar>,
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

    /// Prints a change above the live lines.
    pub fn report(&self, report: &Report, snapshot: &Snapshot) {
        if let Some(line) = change(report, snapshot, self.started.elapsed()) {
            self.say(&line);
        }
    }

    /// Prints a line above the live ones.
    pub fn say(&self, text: &str) {
        // A terminal that is gone is no reason to stop.
        let _ = self.lines.println(text);
    }

    /// When the figures shall be drawn again.
    pub fn due(&self) -> Instant {
        self.due
    }

    /// Draws the figures.
    pub fn tick(&mut self, torrents: &[(TorrentId, Snapshot)], now: Instant) {
        self.due = now + INTERVAL;
        for (torrent, snapshot) in torrents {
            let bar = self
                .torrents
                .entry(*torrent)
                .or_insert_with(|| self.lines.add(new_bar(snapshot)));
            let text = printable(&figures(snapshot));
            if bar.message() == text {
                continue; // an idle peer draws nothing
            }
            bar.set_position(match snapshot.state {
                State::Checking => snapshot.checked_bytes,
                _ => snapshot.done_bytes,
            });
            bar.set_message(text);
        }
    }

    /// Draws the last figures and leaves them standing.
    pub fn finish(&mut self, torrents: &[(TorrentId, Snapshot)]) {
        self.tick(torrents, Instant::now());
        for bar in self.torrents.values() {
            bar.abandon();
        }
    }
}

/// Between two drawings.
const INTERVAL: Duration = Duration::from_millis(250);

fn new_bar(snapshot: &Snapshot) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix:24!} {wide_bar} {msg}")
        .expect("the template is right")
        .progress_chars("=> ");
    ProgressBar::new(snapshot.length.max(1))
        .with_style(style)
        .with_prefix(printable(&snapshot.name))
}
