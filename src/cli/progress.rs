//! What a running peer says on standard output: bars on a terminal, plain lines elsewhere, or
//! JSON objects.
//!
//! The loop hands in every report and, now and then, the figures of all torrents. How often
//! anything is said is decided here: state changes at once, figures only when they changed.

mod bars;
mod json;
mod plain;

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use indicatif::MultiProgress;
use serde_json::Value;

use self::bars::Bars;
use self::json::Json;
use self::plain::Plain;
use super::args::PeerArgs;
use super::output::{Printer, Worth, printable};
use crate::base::digest::siphash;
use crate::base::id::{InfoHash, TorrentId};
use crate::control::api;
use crate::engine::action::{Report, Snapshot};

/// The one way in which this process tells its progress.
pub enum Progress {
    /// One live line a torrent.
    Bars(Bars),
    /// Lines at changes, and seldom in between.
    Plain(Plain, Printer),
    /// One object a line.
    Json(Json, Printer),
    /// Nothing.
    Quiet,
}

impl Progress {
    /// Chooses by the options and by what standard output is.
    ///
    /// # Errors
    /// The system has no thread to spare for printing.
    pub fn new(args: &PeerArgs) -> io::Result<Self> {
        let now = Instant::now();
        if args.json {
            Ok(Self::Json(Json::new(now), Printer::new(io::stdout())?))
        } else if args.talk.quiet {
            Ok(Self::Quiet)
        } else if io::stdout().is_terminal() {
            Ok(Self::Bars(Bars::new()))
        } else {
            Ok(Self::Plain(Plain::new(now), Printer::new(io::stdout())?))
        }
    }

    /// The bars that log lines must not write over.
    pub fn bars(&self) -> Option<MultiProgress> {
        match self {
            Self::Bars(bars) => Some(bars.handle()),
            Self::Plain(..) | Self::Json(..) | Self::Quiet => None,
        }
    }

    /// Tells what happened to the torrent that `snapshot` shows.
    pub fn report(&mut self, report: &Report, snapshot: &Snapshot) {
        match self {
            Self::Bars(bars) => bars.report(report, snapshot),
            Self::Plain(plain, printer) => {
                if let Some((line, worth)) = plain.report(report, snapshot) {
                    printer.print(line, worth);
                }
            }
            Self::Json(_, printer) => {
                if let Some((line, worth)) = Json::report(report, snapshot) {
                    printer.print(line, worth);
                }
            }
            Self::Quiet => {}
        }
    }

    /// Tells the port that is open, also if any was asked for.
    pub fn listening(&mut self, port: u16) {
        self.tell(&format!("listening on port {port}"), &api::listening(port));
    }

    /// Tells something that is said once: as `lines`, or as an `object` where those are printed.
    pub fn tell(&mut self, lines: &str, object: &Value) {
        match self {
            Self::Json(_, printer) => printer.print(object.to_string(), Worth::Keep),
            Self::Bars(_) | Self::Plain(..) | Self::Quiet => self.say(lines),
        }
    }

    /// Tells that a torrent was removed.
    pub fn removed(&mut self, name: &str, info_hash: InfoHash) {
        if let Self::Bars(bars) = self {
            bars.remove(info_hash);
        }
        self.say(&format!("{}: removed, its data stays", printable(name)));
    }

    /// Says something about the whole process; JSON readers have no use for it.
    pub fn say(&mut self, text: &str) {
        match self {
            Self::Bars(bars) => bars.say(text),
            Self::Plain(_, printer) => printer.print(text.to_owned(), Worth::Keep),
            Self::Json(..) | Self::Quiet => {}
        }
    }

    /// How long until [`Progress::tick`] has something to do; zero if it has now.
    pub fn time_to_tick(&self, now: Instant) -> Duration {
        match self {
            Self::Bars(bars) => bars.due().saturating_duration_since(now),
            Self::Plain(plain, _) => plain.due().saturating_duration_since(now),
            Self::Json(json, _) => json.due().saturating_duration_since(now),
            Self::Quiet => QUIET_TIME,
        }
    }

    /// Tells the figures of all torrents, if it is time to.
    pub fn tick(&mut self, torrents: &[(TorrentId, Snapshot)], now: Instant) {
        match self {
            Self::Bars(bars) => bars.tick(torrents, now),
            Self::Plain(plain, printer) => {
                for (line, worth) in plain.tick(torrents, now) {
                    printer.print(line, worth);
                }
            }
            Self::Json(json, printer) => {
                json.tick(torrents, now, |line, worth| printer.print(line, worth));
            }
            Self::Quiet => {}
        }
    }

    /// Tells the last figures and waits, for a short time, until they are written.
    pub fn finish(&mut self, torrents: &[(TorrentId, Snapshot)]) {
        match self {
            Self::Bars(bars) => bars.finish(torrents),
            Self::Plain(plain, printer) => {
                for (line, worth) in plain.finish(torrents) {
                    printer.print(line, worth);
                }
                printer.flush(LAST_LINES_TIME);
            }
            Self::Json(_, printer) => {
                for (line, worth) in Json::finish(torrents) {
                    printer.print(line, worth);
                }
                printer.flush(LAST_LINES_TIME);
            }
            Self::Quiet => {}
        }
    }
}

/// Between two ticks that tell nothing.
const QUIET_TIME: Duration = Duration::from_secs(60);
/// How long a stalled reader of standard output can delay the end.
const LAST_LINES_TIME: Duration = Duration::from_secs(1);

/// What the figures are known by whose change is worth a line; rates alone are not. Those of a
/// thousand torrents are not kept for the next comparison.
fn digest_of(snapshot: &Snapshot) -> u64 {
    let counters = [
        snapshot.done_bytes,
        snapshot.left_bytes,
        snapshot.checked_bytes,
        snapshot.up_bytes,
        snapshot.down_bytes,
        u64::from(snapshot.peers),
        u64::from(snapshot.seeds),
    ];
    siphash(&[0; 16], counters.map(u64::to_le_bytes).as_flattened())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::action::State;

    /// Figures of a torrent of 1000 bytes, `done` of which are there.
    pub(super) fn figures(state: State, done: u64) -> Snapshot {
        Snapshot {
            name: "x".into(),
            info_hash: InfoHash([1; 20]),
            state,
            reason: None,
            retry_in: None,
            length: 1000,
            wanted_bytes: 1000,
            left_bytes: 1000 - done,
            done_bytes: done,
            checked_bytes: done,
            up_bytes: 0,
            down_bytes: done,
            up_bytes_s: 0,
            down_bytes_s: 100,
            wasted_bytes: 0,
            peers: 2,
            seeds: 1,
        }
    }

    #[test]
    fn rates_alone_are_no_change() {
        let before = figures(State::Downloading, 5);
        let after = Snapshot {
            down_bytes_s: 7,
            up_bytes_s: 9,
            ..before.clone()
        };
        assert_eq!(digest_of(&before), digest_of(&after));
    }
}
