//! Runs a peer until it is stopped, or until it has what it came for.
//!
//! ```text
//!       all durable, with --exit-on-complete; and the swarm too, with --until-swarm-complete
//! Running ──────────────────────────────────────────────▶ Ending(Done)
//!    │  │        all in state `error`, and none is tried again  │
//!    │  └──────────────────────────────▶ Ending(Failed)        ├─▶ exit
//!    │        first SIGINT or SIGTERM                          │
//!    └─────────────────────────────────▶ Ending(Stopped) ──────┘
//!                                            second signal: exit at once
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::args::RunArgs;
use super::error::CliError;
use super::keeping;
use super::logging;
use super::output::{printable, printable_path};
use super::progress::Progress;
use super::source::{self, Source};
use super::watch::{self, Watch};
use crate::base::choice::Choice;
use crate::base::id::TorrentId;
use crate::config::Config;
use crate::config::session::{Session, SessionTorrent};
use crate::control::api;
use crate::engine::TorrentSpec;
use crate::engine::action::Report;
use crate::meta::metainfo::Metainfo;
use crate::meta::text::Room;
use crate::reactor::{Keeping, Reactor, ReactorOptions};
use crate::storage::Access;
use census::{CENSUS_INTERVAL, Swarms};
use outcome::Outcome;
use spread::Spreads;
use sum::Sum;
use watched::Watched;

mod census;
mod outcome;
mod spread;
mod sum;
mod watched;

/// Runs a peer for all torrents of `args`.
///
/// # Errors
/// Nothing was started (exit code 2, or 1 for a port that cannot be opened), or no torrent can go
/// on.
pub fn run(args: &RunArgs) -> Result<ExitCode, CliError> {
    let progress = Progress::new(&args.peer).map_err(CliError::NoThread)?;
    logging::start(&args.peer.talk, progress.bars())?;
    let sources = source::read_all(args.all_sources(), args.peer.bind)?;
    let places = keeping::places(&args.output, args.state_dir.as_deref());
    let is_tracker = args.peer.open_tracker == Some(true);
    let has_end = args.exit_on_complete || args.until_swarm_complete;
    // A tracker without torrents has nothing to be complete.
    let is_tracker_enough = is_tracker && !has_end;
    let is_enough = !sources.is_empty() || is_tracker_enough || args.watch.is_some();
    if !is_enough && !keeping::has_session(&places) {
        return Err(CliError::NoSource);
    }
    source::refuse_unusable_folder(&args.output)?;
    source::refuse_unusable_trackers(&args.trackers)?;
    refuse_common_files(&sources, &args.output)?;
    for source in &sources {
        let meta = source::named_as_in(&args.output, &source.meta);
        args.choosing.choice(&meta, &Choice::default())?;
    }
    let watch = args.watch.as_deref();
    let watch = watch.map(|folder| Watch::start(folder, &args.output));
    let watch = watch.transpose()?;
    let mut keeping = keeping::open(&places)?;
    let has_session = |k: &Keeping| keeping::is_session_in(k.state.path());
    if !is_enough && !keeping.as_ref().is_some_and(has_session) {
        return Err(CliError::NoSource);
    }
    let before = match &mut keeping {
        Some(keeping) => {
            keeping.session.given = args.peer.given().or(keeping.session.given);
            keeping.session.clone()
        }
        None => Session {
            given: args.peer.given(),
            ..Session::default()
        },
    };
    let state_dir = keeping.as_ref().map(|k| k.state.path().to_owned());
    let mut reactor = Reactor::new(ReactorOptions {
        config: Config {
            port_before: before.port,
            ..before.given.config()
        },
        root: args.output.clone(),
        access: Access::ReadWrite,
        state_dir: state_dir.clone(),
        watch_signals: true,
    })?;
    if let Some(keeping) = keeping {
        if keeping.state.is_fallback() {
            let path = printable_path(keeping.state.path());
            log::warn!("output folder cannot be written, the session is kept in {path}");
        }
        reactor.keep(keeping)?; // who hears that it listens may give orders
    }
    let mut peer = Peer::new(reactor, progress);
    if before.given.open_tracker == Some(true) {
        peer.tell_tracker();
    }
    peer.add_all(&sources, &before, args, state_dir.as_deref());
    peer.watched = watch.map(|watch| Watched {
        watch,
        may_have_more: false,
        peers: args.peer.host_ports(),
        trackers: args.trackers.clone(),
        choosing: args.choosing.clone(),
    });
    drop((sources, before)); // what is needed of them is the peer's
    peer.run(match (args.exit_on_complete, args.until_swarm_complete) {
        (_, true) => Leave::WithTheSwarm,
        (true, false) => Leave::Complete,
        (false, false) => Leave::WhenTold,
    })
}

/// Refuses two torrents that would write the same file.
fn refuse_common_files(sources: &[Source], output: &Path) -> Result<(), CliError> {
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
    Ok(())
}

/// The process while it runs: the loop, what is known of each torrent, and what is shown.
pub struct Peer {
    reactor: Reactor,
    progress: Progress,
    torrents: BTreeMap<TorrentId, Outcome>,
    /// Those whose figures may have changed since they were told.
    moving: BTreeSet<TorrentId>,
    /// There were none, and no report has come since.
    is_still: bool,
    /// What they come to together, unless one changed since that was seen.
    sum: Option<Sum>,
    /// When it is told that nobody has come, if nobody has.
    lonely_at: Option<Instant>,
    watched: Option<Watched>,
    census: Swarms,
    spreads: Spreads,
}

/// When a peer leaves by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// Never.
    WhenTold,
    /// When all that it has is on disk.
    Complete,
    /// When, beside that, all others whom it knows have everything too.
    WithTheSwarm,
}

/// Why the peer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Done,
    Failed,
    Stopped,
}

impl Peer {
    /// A peer without torrents; tells the port that is open.
    pub fn new(reactor: Reactor, mut progress: Progress) -> Self {
        progress.listening(reactor.local_port());
        Self {
            reactor,
            progress,
            torrents: BTreeMap::new(),
            moving: BTreeSet::new(),
            is_still: false,
            sum: None,
            lonely_at: None,
            watched: None,
            census: Swarms::default(),
            spreads: Spreads::default(),
        }
    }

    /// Others are asked to come: if none has after a while, says what may keep them away.
    pub fn expect_others(&mut self) {
        let is_reachable = |address: &SocketAddr| !address.ip().is_loopback();
        if self.reactor.addresses().iter().any(is_reachable) {
            self.lonely_at = Some(Instant::now() + LONELY_TIME);
        }
    }

    /// Takes up what ran before, with what this command says of it, and then what is new.
    fn add_all(
        &mut self,
        sources: &[Source],
        before: &Session,
        args: &RunArgs,
        state_dir: Option<&Path>,
    ) {
        let spec = |meta| TorrentSpec {
            meta,
            peers: args.peer.host_ports(),
            trackers: args.trackers.clone(),
            choice: Choice::default(),
        };
        for source in sources {
            let mut spec = spec(source::named_as_in(&args.output, &source.meta));
            spec.peers.extend(source.peers.iter().cloned());
            let memory = before.torrent(spec.meta.info_hash);
            let chosen = memory.map_or_else(Choice::default, |memory| memory.choice.clone());
            spec.choice = args.choosing.choice_or(&spec.meta, chosen);
            match memory {
                // Whoever names a torrent wants it to run.
                Some(memory) => {
                    let running = SessionTorrent {
                        is_paused: false,
                        ..memory.clone()
                    };
                    self.restore(keeping::joined(spec, memory), &running);
                }
                None => self.add(spec),
            }
        }
        let mut room = Room::default();
        for memory in &before.torrents {
            let is_named = |s: &Source| s.meta.info_hash == memory.info_hash;
            if !sources.iter().any(is_named)
                && let Some(meta) =
                    keeping::kept_torrent(memory, state_dir, &args.output, &mut room)
            {
                // Peers and trackers that are given are those of the torrents that are named, or
                // of all if none is.
                let mut spec = match sources.is_empty() {
                    true => spec(meta),
                    false => TorrentSpec {
                        meta,
                        peers: Vec::new(),
                        trackers: Vec::new(),
                        choice: Choice::default(),
                    },
                };
                let chosen = memory.choice.clone();
                spec.choice = match sources.is_empty() {
                    true => args.choosing.choice_or(&spec.meta, chosen),
                    false => chosen,
                };
                self.restore(keeping::joined(spec, memory), memory);
            }
        }
    }

    /// Takes up a torrent that ran before, unless one that is named now has a file of it.
    fn restore(&mut self, spec: TorrentSpec, memory: &SessionTorrent) {
        match self.reactor.restore(spec, memory) {
            Ok(torrent) => self.came_to(torrent, Outcome::Open),
            Err(error) => log::warn!(
                "torrent of the session not taken up info_hash={}: {error}",
                memory.info_hash
            ),
        }
    }

    /// Takes up a torrent that is not there yet.
    pub fn add(&mut self, spec: TorrentSpec) {
        let added = self.reactor.add_torrent(spec);
        let torrent = added.expect("each info hash is added once, and no two share a file");
        self.came_to(torrent, Outcome::Open);
    }

    /// Tells where any swarm may announce itself.
    pub fn tell_tracker(&mut self) {
        let urls = announce_urls(&self.reactor);
        let line = format!("tracker for any swarm: {}", urls.join("  "));
        self.progress.tell(&line, &api::tracker(&urls));
    }

    /// What is shown.
    pub fn progress(&mut self) -> &mut Progress {
        &mut self.progress
    }

    /// Goes on until there is a reason to end.
    ///
    /// # Errors
    /// No torrent can go on, or the loop cannot.
    pub fn run(&mut self, leave: Leave) -> Result<ExitCode, CliError> {
        let wait_max = match leave {
            Leave::WithTheSwarm => CENSUS_INTERVAL,
            Leave::WhenTold | Leave::Complete => Duration::MAX,
        };
        let end = loop {
            self.turn(wait_max)?;
            if self.reactor.signals_seen() > 0 || self.reactor.is_stop_wanted() {
                break End::Stopped;
            }
            let Sum { is_failed, is_done } = self.sum();
            if is_failed && self.watched.is_none() {
                break End::Failed;
            }
            let may_leave = match leave {
                Leave::WhenTold => false,
                Leave::Complete => is_done,
                Leave::WithTheSwarm => is_done && self.is_swarm_done(),
            };
            if may_leave {
                break End::Done;
            }
        };
        self.look_at_last_spreads();
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
        let now = Instant::now();
        let lonely = |at: Instant| at.saturating_duration_since(now);
        let wait = self.time_to_tick(now).min(wait_max);
        let wait = wait.min(self.spreads.wait(now));
        let wait = self.lonely_at.map_or(wait, |at| wait.min(lonely(at)));
        let wait = match self.watched {
            Some(Watched {
                may_have_more: true,
                ..
            }) => Duration::ZERO,
            Some(_) => wait.min(watch::LOOK_PAUSE),
            None => wait,
        };
        self.reactor.turn(wait)?;
        while let Some(report) = self.reactor.poll_report() {
            self.is_still = false;
            self.take(&report);
        }
        self.add_watched();
        self.look_at_spreads();
        let now = Instant::now();
        self.tell_figures(now);
        if self.lonely_at.is_some_and(|at| at <= now) {
            self.lonely_at = None;
            if !self.reactor.was_reached() {
                let port = self.reactor.local_port();
                self.progress.say(&format!(
                    "# nobody has come from another host yet; if some try, let TCP and UDP port \
                     {port} through the firewall of this one"
                ));
            }
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
            Report::Removed {
                torrent,
                name,
                info_hash,
            } => {
                self.torrents.remove(torrent);
                self.sum = None;
                self.progress.removed(name, *info_hash);
                return;
            }
            // The engine's log lines say all that there is.
            Report::TrackerAnswered { .. }
            | Report::TrackerFailed { .. }
            | Report::NameFailed { .. }
            | Report::Limited { .. }
            | Report::Chosen { .. } => return,
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
        self.moving.insert(torrent);
        self.progress.report(report, &snapshot);
        self.note_spread(report, &snapshot);
        if let Some(outcome) = Outcome::of(report, snapshot) {
            self.came_to(torrent, outcome);
        }
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
        let expected = u32::from(end == End::Stopped && self.reactor.signals_seen() > 0);
        self.reactor.shutdown();
        let deadline = Instant::now() + LAST_SYNC_TIME;
        while !self.reactor.is_finished() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            self.turn(left)?;
            if self.reactor.signals_seen() > expected {
                log::warn!("left at once: unwritten data is fetched again by the next start");
                return Ok(true);
            }
        }
        Ok(true)
    }

    fn first_failure(&self) -> Option<CliError> {
        self.torrents.values().find_map(Outcome::error)
    }
}

/// Where this peer's own tracker is found, the best address first.
pub fn announce_urls(reactor: &Reactor) -> Vec<String> {
    let addresses = reactor.addresses().into_iter();
    addresses
        .map(|address| format!("http://{address}/announce"))
        .collect()
}

/// How long others have to come to what is shared before it is told that none has.
const LONELY_TIME: Duration = Duration::from_secs(30);
/// How long the last sync may take before the process leaves without it.
const LAST_SYNC_TIME: Duration = Duration::from_secs(30);
