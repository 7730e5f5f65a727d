//! What survives the process: the session is written when something changed, and the .torrent of
//! each torrent is kept beside it.
//!
//! A helper thread of its own writes and reads, so that neither the loop nor the syncs of data hold
//! it up. The session is written as a whole, one write at a time, soon after a change; figures that
//! change all the time are written once a minute.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::control::Control;
use super::lanes::{Ending, Lane, LaneDied};
use super::{Reactor, StartError, refused};
use crate::base::choice::Choice;
use crate::base::digest::sha1;
use crate::base::id::TorrentId;
use crate::base::time::Instant;
use crate::config::session::{Session, SessionTorrent};
use crate::control::session;
use crate::engine::action::{Report, State};
use crate::engine::{AddError, Engine, TorrentSpec};
use crate::storage::keep::{self, KeepDone, KeepJob, kept_paths, torrent_path};
use crate::storage::state::StateDir;

/// What a reactor is to remember, and where.
#[derive(Debug)]
pub struct Keeping {
    /// The state folder.
    pub state: StateDir,
    /// The output folder.
    pub output: PathBuf,
    /// What is remembered so far. Torrents that are never restored stay in it as they are.
    pub session: Session,
}

/// The memory at work.
pub(super) struct Memory {
    keeping: Keeping,
    lane: Lane<KeepJob, KeepDone>,
    /// The text that is on the disk, or on its way there; `None` before there is one, and if it
    /// could not be written.
    written: Option<Written>,
    is_writing: bool,
    /// Why the session could not be written; told once, until it is written or the reason changes.
    failure: Option<String>,
    schedule: Schedule,
    tickets: u64,
}

/// What a text is known by: that of a thousand torrents is not kept for the next comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Written {
    len: usize,
    digest: [u8; 20],
}

impl Written {
    fn of(text: &[u8]) -> Self {
        Self {
            len: text.len(),
            digest: sha1(text),
        }
    }
}

/// When the session is looked at: the sooner, the less there is to make text of.
#[derive(Clone, Copy, Debug)]
struct Schedule {
    due: Instant,
    /// When all is known of the peer that joined last.
    settled: Instant,
    /// Not before this, whatever happens.
    rested: Instant,
}

impl Schedule {
    /// At once.
    fn new() -> Self {
        Self {
            due: Instant::ZERO,
            settled: Instant::ZERO,
            rested: Instant::ZERO,
        }
    }

    /// Something changed that is worth a look at once.
    fn changed(&mut self, now: Instant) {
        self.due = self.due.min(now.max(self.rested));
    }

    /// A peer joined. Many come at a time, and their ports come a little later.
    fn joined(&mut self, now: Instant) {
        self.settled = now + SETTLE_TIME;
        self.due = self.due.min(self.settled.max(self.rested));
    }

    /// The session was looked at, a text of `len` bytes; who had only just joined then is looked
    /// for again.
    fn looked(&mut self, len: usize, now: Instant) {
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        let rest = REST_PER_BYTE.saturating_mul(len).min(INTERVAL);
        self.rested = now + rest;
        self.due = match self.settled > now {
            true => self.settled.max(self.rested),
            false => now + INTERVAL,
        };
    }
}

impl Reactor {
    /// Remembers from now on, and serves the control socket in the state folder. Without a socket,
    /// as where the file system has none, it goes on and says so.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn keep(&mut self, keeping: Keeping) -> Result<(), StartError> {
        let reserve = Arc::clone(&self.lanes.reserve);
        let run = move |job| keep::run(job, &reserve);
        let lane = Lane::start("state", run, Ending::Finish, &self.waker);
        let lane = lane.map_err(refused("a thread"))?;
        match Control::open(keeping.state.path(), self.poll.registry()) {
            Ok(control) => self.control = Some(control),
            Err(error) => log::warn!(
                "no control socket, evpeer ctl will not reach this peer: {error} folder={}",
                keeping.state.path().display()
            ),
        }
        let mut memory = Memory {
            keeping,
            lane,
            written: None,
            is_writing: false,
            failure: None,
            schedule: Schedule::new(),
            tickets: 0,
        };
        memory.keeping.session.port = self.port;
        self.engine.recall_evpeers(&memory.keeping.session.evpeers);
        self.memory = Some(memory);
        Ok(())
    }

    /// Takes up a torrent of the session.
    ///
    /// # Errors
    /// The engine's, for instance that it is there already.
    pub fn restore(
        &mut self,
        spec: TorrentSpec,
        memory: &SessionTorrent,
    ) -> Result<TorrentId, AddError> {
        self.storage
            .recall_mounts(memory.info_hash, memory.mounts.clone());
        let id = self.add_torrent(spec)?;
        let now = self.clock.now();
        self.engine.recall(id, memory, now);
        self.settle_call(now);
        Ok(id)
    }

    /// When the session is to be looked at.
    pub(super) fn memory_due(&self) -> Option<Instant> {
        let memory = self.memory.as_ref().filter(|memory| !memory.is_writing)?;
        Some(memory.schedule.due)
    }

    /// Notes what is worth writing down.
    pub(super) fn note_for_memory(&mut self, report: &Report) {
        let now = self.clock.now();
        if let Report::Removed { info_hash, .. } = report {
            self.storage.forget_text(*info_hash);
        }
        let Some(memory) = &mut self.memory else {
            return;
        };
        match report {
            // What the user did, or waited for: at once.
            Report::State {
                state:
                    State::Checking
                    | State::Queued
                    | State::Paused
                    | State::Downloading
                    | State::Seeding,
                ..
            }
            | Report::Complete { .. }
            | Report::Limited { .. }
            | Report::Chosen { .. } => memory.schedule.changed(now),
            Report::Removed { info_hash, .. } => {
                memory.keeping.session.remove(*info_hash);
                self.storage.recall_mounts(*info_hash, Vec::new());
                let folder = memory.keeping.state.path();
                let paths = kept_paths(folder, *info_hash);
                memory.lane.submit(KeepJob::Forget { paths });
                memory.schedule.changed(now);
            }
            Report::PeerJoined { .. } => memory.schedule.joined(now),
            // Whether the end of a download was told is not to be guessed by the next run.
            Report::TrackerAnswered { torrent, .. } => {
                let info_hash = self.engine.metainfo(*torrent).map(|meta| meta.info_hash);
                let told = info_hash.and_then(|hash| memory.keeping.session.torrent(hash));
                if !told.is_some_and(|told| self.engine.is_as_told(*torrent, told)) {
                    memory.schedule.changed(now);
                }
            }
            _ => {}
        }
    }

    /// A torrent was added: its .torrent is kept.
    pub(super) fn keep_torrent(&mut self, spec: &TorrentSpec) {
        if let (Some(memory), Some(text)) = (&mut self.memory, spec.meta.text()) {
            let path = torrent_path(memory.keeping.state.path(), spec.meta.info_hash);
            let text = text.clone();
            memory.lane.submit(KeepJob::Torrent { path, text });
        }
    }

    /// Has a .torrent read; `None` if there is nobody to do it.
    pub(super) fn load_torrent(&mut self, path: PathBuf) -> Option<u64> {
        let memory = self.memory.as_mut()?;
        memory.tickets += 1;
        let ticket = memory.tickets;
        let root = memory.keeping.output.clone();
        memory.lane.submit(KeepJob::Load { ticket, path, root });
        Some(ticket)
    }

    /// Output folder and state folder, to be shown.
    pub(super) fn folders(&self) -> (String, String) {
        let keeping = self.memory.as_ref().map(|memory| &memory.keeping);
        let shown = |path: &std::path::Path| path.display().to_string();
        keeping.map_or_else(Default::default, |keeping| {
            (shown(&keeping.output), shown(keeping.state.path()))
        })
    }

    /// Carries home what the thread has done.
    pub(super) fn take_kept(&mut self, now: Instant) -> Result<(), LaneDied> {
        while let Some(memory) = &mut self.memory
            && let Some(done) = memory.lane.poll_done()?
        {
            match done {
                KeepDone::Session(result) => {
                    memory.is_writing = false;
                    let failure = result.err().map(|error| error.to_string());
                    if let Some(error) = &failure {
                        if memory.failure != failure {
                            log::warn!("session not written, tried again later: {error}");
                        }
                        let written = memory.written.take();
                        let len = written.map_or(0, |written| written.len);
                        memory.schedule.looked(len, now);
                    }
                    memory.failure = failure;
                }
                KeepDone::Files(Ok(())) => {}
                KeepDone::Files(Err(error)) => log::warn!("state not written: {error}"),
                KeepDone::Loaded { ticket, result } => {
                    let spec = result.map(|meta| TorrentSpec {
                        meta,
                        peers: Vec::new(),
                        trackers: Vec::new(),
                        choice: Choice::default(),
                    });
                    self.torrent_loaded(ticket, spec, now);
                }
            }
        }
        Ok(())
    }

    /// Writes the session down if it is time to and something changed.
    pub(super) fn remember_due(&mut self, now: Instant) {
        if self.memory_due().is_some_and(|at| at <= now) {
            self.remember(now);
        }
    }

    /// Writes the session down if something changed.
    pub(super) fn remember(&mut self, now: Instant) {
        let Some(memory) = &mut self.memory else {
            return;
        };
        let unix_s = super::clock::unix_s();
        let session = &mut memory.keeping.session;
        for id in self.engine.torrents().collect::<Vec<_>>() {
            if let Some(mut torrent) = self.engine.remembered(id, now) {
                torrent.mounts = self.storage.mounts(torrent.info_hash).to_vec();
                session.update(torrent, unix_s);
            }
        }
        remember_limits(session, &self.engine);
        session.met(&self.engine.evpeers_linked(), unix_s);
        self.engine.recall_evpeers(&session.evpeers);
        let text = session::encode(session);
        memory.schedule.looked(text.len(), now);
        let written = Some(Written::of(&text));
        if written != memory.written {
            memory.written = written;
            memory.is_writing = true;
            let path = memory.keeping.state.path().join(keep::SESSION);
            memory.lane.submit(KeepJob::Session { path, text });
        }
    }
}

/// Takes in the limits of all torrents together, if they are others than the session gives.
fn remember_limits(session: &mut Session, engine: &Engine) {
    let given = session.given.config();
    let (limits, local) = (engine.limits(), engine.limits_local());
    let chosen = |now: u64, given: u64| (now != given).then_some(now);
    let session = &mut session.given;
    session.up_limit = chosen(limits.up, given.limits.up).or(session.up_limit);
    session.down_limit = chosen(limits.down, given.limits.down).or(session.down_limit);
    if local != given.limit_local {
        session.limit_local = Some(local);
    }
}

/// How long news of peers are collected.
const SETTLE_TIME: Duration = Duration::from_secs(1);
/// Pause after a session was made text of, for each of its bytes: a session of 1 MiB, which is
/// several thousand peers, takes some milliseconds once a second at most.
const REST_PER_BYTE: Duration = Duration::from_micros(1);
/// How often figures that change all the time are written.
const INTERVAL: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_micros(ms * 1000)
    }

    #[test]
    fn peer_that_joined_right_before_a_look_is_looked_for_again() {
        let mut schedule = Schedule::new();
        schedule.looked(0, at(0));
        assert_eq!(schedule.due, at(60_000));
        schedule.joined(at(5000));
        schedule.joined(at(5990));
        assert_eq!(schedule.due, at(6000), "those who come do not put it off");
        schedule.looked(0, at(6000));
        assert_eq!(schedule.due, at(6990));
        schedule.changed(at(6500));
        assert_eq!(schedule.due, at(6500));
        schedule.looked(0, at(6500));
        assert_eq!(schedule.due, at(6990), "nor does another cause end it");
        schedule.looked(0, at(6990));
        assert_eq!(schedule.due, at(66_990));
    }

    #[test]
    fn large_session_is_made_text_of_seldom() {
        let mut schedule = Schedule::new();
        schedule.looked(5_000_000, at(0));
        schedule.changed(at(100));
        assert_eq!(schedule.due, at(5000));
        schedule.looked(5_000_000, at(5000));
        schedule.joined(at(5001));
        assert_eq!(schedule.due, at(10_000));
        schedule.looked(usize::MAX, at(10_000));
        schedule.changed(at(10_001));
        assert_eq!(schedule.due, at(70_000), "but once a minute all the same");
    }
}
