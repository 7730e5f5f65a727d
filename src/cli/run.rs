//! Runs a peer until it is stopped, or until it has what it came for.
//!
//! ```text
//!                     all durable, with --exit-on-complete
//! Running ──────────────────────────────────────────────▶ Ending(Done)
//!    │  │        all in state `error`                          │
//!    │  └──────────────────────────────▶ Ending(Failed)        ├─▶ exit
//!    │        first SIGINT or SIGTERM                          │
//!    └─────────────────────────────────▶ Ending(Stopped) ──────┘
//!                                            second signal: exit at once
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::args::{PeerAddress, RunArgs};
use super::error::CliError;
use super::logging;
use super::output::{printable, printable_path};
use super::progress::Progress;
use super::source::{self, Source};
use crate::base::id::TorrentId;
use crate::engine::action::{Report, Snapshot, State};
use crate::engine::{HostPort, TorrentSpec};
use crate::meta::metainfo::Metainfo;
use crate::reactor::{Reactor, ReactorOptions};
use crate::storage::Access;
use crate::storage::state::StateDir;

/// Runs a peer for all torrents of `args`.
///
/// # Errors
/// Nothing was started (exit code 2, or 1 for a port that cannot be opened), or no torrent can go
/// on.
pub fn run(args: &RunArgs) -> Result<ExitCode, CliError> {
    let progress = Progress::new(args).map_err(CliError::NoThread)?;
    logging::start(&args.talk, progress.bars())?;
    let sources = source::read_all(args.all_sources())?;
    if sources.is_empty() {
        return Err(CliError::NoSource);
    }
    source::refuse_unusable_folder(&args.output)?;
    source::refuse_unusable_trackers(&args.trackers)?;
    let metas = named_apart(&sources, &args.output)?;
    let state = open_state(args)?;
    let reactor = Reactor::new(ReactorOptions {
        config: args.config(),
        root: args.output.clone(),
        access: Access::ReadWrite,
        state_dir: Some(state.path().to_owned()),
        watch_signals: true,
    })?;
    let mut peer = Peer::new(reactor, progress);
    peer.add(metas, &state, args);
    peer.run(args.exit_on_complete)
}

/// What is to be run, under the names that the files have in `output`.
///
/// # Errors
/// Two torrents have a file in common.
fn named_apart(sources: &[Source], output: &Path) -> Result<Vec<Arc<Metainfo>>, CliError> {
    let mut metas: Vec<Arc<Metainfo>> = Vec::new();
    for source in sources {
        let meta = source::named_as_in(output, &source.meta);
        for other in &metas {
            if let Some(path) = meta.file_in_common(other) {
                return Err(CliError::SamePath {
                    name: meta.name.clone(),
                    other: other.name.clone(),
                    path: path.clone(),
                });
            }
        }
        metas.push(meta);
    }
    Ok(metas)
}

/// Takes the folders that this peer works in.
fn open_state(args: &RunArgs) -> Result<StateDir, CliError> {
    let home = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let home = home("XDG_STATE_HOME")
        .map(PathBuf::from)
        .or_else(|| home("HOME").map(|home| Path::new(&home).join(".local/state")));
    let state = StateDir::open(&args.output, args.state_dir.as_deref(), home.as_deref())?;
    if state.is_fallback() {
        log::warn!(
            "the output folder takes no files, state is kept elsewhere path={}",
            printable_path(state.path())
        );
    }
    Ok(state)
}

/// The process while it runs: the loop, what is known of each torrent, and what is shown.
struct Peer {
    reactor: Reactor,
    progress: Progress,
    torrents: BTreeMap<TorrentId, Outcome>,
}

/// How far a torrent got.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    /// It runs.
    Open,
    /// Everything is there and on disk.
    Durable,
    /// It cannot go on.
    Failed { name: String, reason: String },
}

/// Why the peer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Done,
    Failed,
    Stopped,
}

impl Peer {
    fn new(reactor: Reactor, mut progress: Progress) -> Self {
        progress.listening(reactor.local_port());
        Self {
            reactor,
            progress,
            torrents: BTreeMap::new(),
        }
    }

    fn add(&mut self, metas: Vec<Arc<Metainfo>>, state: &StateDir, args: &RunArgs) {
        for meta in metas {
            if let Err(error) = state.keep(&meta) {
                log::warn!(
                    "the .torrent cannot be kept info_hash={}: {error}",
                    meta.info_hash
                );
            }
            let added = self.reactor.add_torrent(TorrentSpec {
                meta,
                peers: args.peers.iter().map(host_port).collect(),
                trackers: args.trackers.clone(),
            });
            let torrent = added.expect("each info hash is read once, and no two share a file");
            self.torrents.insert(torrent, Outcome::Open);
        }
    }

    fn run(&mut self, exit_on_complete: bool) -> Result<ExitCode, CliError> {
        let end = loop {
            self.turn(Duration::MAX)?;
            if self.reactor.signals_seen() > 0 {
                break End::Stopped;
            }
            let is_failed = |o: &Outcome| matches!(o, Outcome::Failed { .. });
            if self.torrents.values().all(is_failed) {
                break End::Failed;
            }
            if exit_on_complete && self.torrents.values().all(|o| *o != Outcome::Open) {
                break End::Done;
            }
        };
        let was_told_before = end == End::Stopped && self.first_failure().is_some();
        let is_synced = self.end(end)?;
        let figures = self.figures();
        self.progress.finish(&figures);
        match self.first_failure() {
            Some(failure) if !was_told_before => Err(failure),
            _ if is_synced => Ok(ExitCode::SUCCESS),
            _ => Err(CliError::NotSynced),
        }
    }

    /// One pass of the loop, and what is to be told after it.
    fn turn(&mut self, wait_max: Duration) -> Result<(), CliError> {
        let wait = self.progress.time_to_tick(Instant::now()).min(wait_max);
        self.reactor.turn(wait)?;
        while let Some(report) = self.reactor.poll_report() {
            self.take(&report);
        }
        let now = Instant::now();
        if self.progress.time_to_tick(now).is_zero() {
            let figures = self.figures();
            self.progress.tick(&figures, now);
        }
        Ok(())
    }

    fn take(&mut self, report: &Report) {
        let torrent = match report {
            Report::TrackerAnswered {
                url,
                warning: Some(warning),
                ..
            } => {
                log::warn!("tracker warns url={url}: {}", printable(warning));
                return;
            }
            // The engine's log lines say all that there is.
            Report::TrackerAnswered { .. }
            | Report::TrackerFailed { .. }
            | Report::NameFailed { .. } => return,
            Report::State { torrent, .. }
            | Report::Complete { torrent }
            | Report::Durable { torrent }
            | Report::PeerJoined { torrent, .. }
            | Report::PeerLeft { torrent, .. }
            | Report::PeerBanned { torrent, .. } => *torrent,
        };
        let Some(snapshot) = self.reactor.snapshot(torrent) else {
            return;
        };
        self.progress.report(report, &snapshot);
        let outcome = match report {
            Report::Durable { .. } => Outcome::Durable,
            Report::State {
                state: State::Error,
                reason,
                ..
            } => Outcome::Failed {
                name: snapshot.name,
                reason: reason.clone().unwrap_or_default(),
            },
            _ => return,
        };
        self.torrents.insert(torrent, outcome);
    }

    /// Ends in good order; says whether everything stored is on disk.
    ///
    /// A signal more than what led here ends it at once, which is safe too: what was stored is
    /// checked by the next start.
    fn end(&mut self, end: End) -> Result<bool, CliError> {
        if end == End::Stopped {
            self.progress
                .say("stopping in good order; once more to leave at once");
        }
        self.reactor.shutdown();
        let deadline = Instant::now() + LAST_SYNC_TIME;
        while !self.reactor.is_finished() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            self.turn(left)?;
            if self.reactor.signals_seen() > u32::from(end == End::Stopped) {
                log::warn!("left at once: unwritten data is fetched again by the next start");
                return Ok(true);
            }
        }
        Ok(true)
    }

    fn figures(&mut self) -> Vec<(TorrentId, Snapshot)> {
        let torrents = self.torrents.keys();
        let shown = torrents.filter_map(|&t| Some((t, self.reactor.snapshot(t)?)));
        shown.collect()
    }

    fn first_failure(&self) -> Option<CliError> {
        self.torrents.values().find_map(|outcome| match outcome {
            Outcome::Failed { name, reason } => Some(CliError::TorrentFailed {
                name: name.clone(),
                reason: reason.clone(),
            }),
            _ => None,
        })
    }
}

/// How long the last sync may take before the process leaves without it.
const LAST_SYNC_TIME: Duration = Duration::from_secs(30);

fn host_port(peer: &PeerAddress) -> HostPort {
    HostPort {
        host: peer.host.clone(),
        port: peer.port,
    }
}
