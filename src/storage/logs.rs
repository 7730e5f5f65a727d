//! The journals of all torrents: carries their work to the lanes and the results back.
//!
//! A journal outlives its torrent until everything is written. A torrent that comes back meanwhile
//! waits for that, as it could read only half of it.

use std::path::PathBuf;

use super::jobs::{Outcome, Work};
use super::journal::log::{Log, LogWork, SinkId};
use super::keep::journal_path;
use super::{Purpose, Storage};
use crate::base::id::{InfoHash, TorrentId};
use crate::base::time::Instant;

/// Names the journal of one life of a torrent; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LogId(pub u64);

/// A journal that is kept.
#[derive(Debug)]
pub(super) struct OpenLog {
    pub log: Log,
    /// The torrent, as long as it is there.
    pub torrent: Option<TorrentId>,
}

/// What a job does for a journal.
#[derive(Clone, Copy, Debug)]
pub(super) enum LogStep {
    Make,
    Append(SinkId),
    Install,
    Sync,
    Remove,
    Close,
    Rest,
    Open(SinkId),
}

impl Storage {
    /// Keeps a journal from now on.
    pub(super) fn insert_log(&mut self, torrent: TorrentId, log: Log) -> LogId {
        self.logs_count += 1;
        let id = LogId(self.logs_count);
        let torrent = Some(torrent);
        let open = OpenLog { log, torrent };
        self.logs.insert(id, Box::new(open));
        self.log_queue.insert(id);
        id
    }

    /// The journal of a torrent that has one.
    pub(super) fn log(&mut self, id: LogId) -> &mut Log {
        self.log_queue.insert(id); // whoever asks for it has something for it
        &mut self.logs.get_mut(&id).expect("a torrent's journal").log
    }

    /// The torrent is gone; its journal goes when everything is written.
    pub(super) fn close_log(&mut self, id: LogId) {
        if let Some(open) = self.logs.get_mut(&id) {
            open.torrent = None;
            self.log_queue.insert(id);
        }
    }

    /// Submits what journals want done.
    pub(super) fn pump_logs(&mut self) {
        while let Some(id) = self.log_queue.pop_first() {
            let now = self.now;
            let folder = self.state_dir.as_deref();
            let (Some(open), Some(folder)) = (self.logs.get_mut(&id), folder) else {
                continue;
            };
            let path = journal_path(folder, open.log.binding().info_hash);
            let mut all = Vec::new();
            let next = |log: &mut Log| log.poll_work(now).or_else(|| log.poll_removal());
            while let Some(work) = next(&mut open.log) {
                all.push(job_of(work, path.clone()));
            }
            if let Some(at) = open.log.next_deadline() {
                self.wake_at = self.wake_at.min(at);
            }
            let is_over = open.torrent.is_none() && open.log.is_idle();
            for (step, work) in all {
                self.submit(Purpose::Log { log: id, step }, work);
            }
            if is_over {
                self.let_log_go(id);
            }
        }
    }

    /// Forgets a journal that has nothing to do any more, and lets those in that wait for it.
    fn let_log_go(&mut self, id: LogId) {
        let Some(open) = self.logs.remove(&id) else {
            return;
        };
        let log = open.log;
        let path = self.journal_path(log.binding().info_hash);
        if let (Some(file), Some(path)) = (log.into_file(), path) {
            let (log, step) = (id, LogStep::Close);
            let written = false;
            self.submit(
                Purpose::Log { log, step },
                Work::Close {
                    file,
                    path,
                    written,
                },
            );
        }
        let waiting = std::mem::take(&mut self.waiting_scans);
        for torrent in waiting {
            self.scan(torrent);
        }
    }

    /// Takes the result of a job for a journal.
    pub(super) fn log_done(&mut self, id: LogId, step: LogStep, outcome: Outcome) {
        let now = self.now;
        let Some(open) = self.logs.get_mut(&id) else {
            return; // its file was closed
        };
        let log = &mut open.log;
        match (step, outcome) {
            (LogStep::Make, Outcome::JournalMade(result)) => log.made(result, now),
            (LogStep::Append(sink), Outcome::Finished(result)) => log.appended(sink, result, now),
            (LogStep::Install, Outcome::Finished(result)) => log.installed(result, now),
            (LogStep::Sync, Outcome::Finished(result)) => log.synced(result, now),
            (LogStep::Remove, Outcome::Finished(result)) => log.removed(&result),
            (LogStep::Close, Outcome::Finished(_)) => {}
            (LogStep::Rest, Outcome::JournalLeft(result)) => log.rested(result, now),
            (LogStep::Open(sink), Outcome::JournalMade(result)) => log.opened(sink, result, now),
            (step, outcome) => panic!("{step:?} does not end as {outcome:?}"),
        }
        let torrent = open.torrent;
        self.log_queue.insert(id);
        self.pump_logs();
        if let Some(torrent) = torrent {
            self.turn_barriers(torrent);
        }
    }

    /// Looks after every journal whose time has come.
    pub(super) fn wake_logs(&mut self, now: Instant) {
        for (&id, open) in &self.logs {
            match open.log.next_deadline() {
                Some(at) if at <= now => {
                    self.log_queue.insert(id);
                }
                Some(at) => self.wake_at = self.wake_at.min(at),
                None => {}
            }
        }
    }

    /// Whether the journal of such a torrent is kept.
    pub(super) fn is_log_open(&self, info_hash: InfoHash) -> bool {
        let mut logs = self.logs.values();
        logs.any(|open| open.log.binding().info_hash == info_hash)
    }
}

fn job_of(work: LogWork, path: PathBuf) -> (LogStep, Work) {
    match work {
        LogWork::Make(bytes) => (LogStep::Make, Work::MakeJournal { path, bytes }),
        LogWork::MakeFirst(bytes) => (LogStep::Make, Work::MakeFirstJournal { path, bytes }),
        LogWork::Append {
            sink,
            file,
            offset,
            bytes,
        } => (
            LogStep::Append(sink),
            Work::AppendJournal {
                file,
                path,
                offset,
                bytes,
            },
        ),
        LogWork::Install(file) => (LogStep::Install, Work::InstallJournal { file, path }),
        LogWork::Sync(file) => {
            let has_new_name = false;
            (
                LogStep::Sync,
                Work::SyncJournal {
                    file,
                    path,
                    has_new_name,
                },
            )
        }
        LogWork::SyncFirst(file) => {
            let has_new_name = true;
            (
                LogStep::Sync,
                Work::SyncJournal {
                    file,
                    path,
                    has_new_name,
                },
            )
        }
        LogWork::Remove => (LogStep::Remove, Work::RemoveJournal { path }),
        LogWork::Rest(file, len) => (LogStep::Rest, Work::LeaveJournal { file, path, len }),
        LogWork::Open(sink, left) => (LogStep::Open(sink), Work::OpenJournal { path, left }),
        LogWork::Close(file) => {
            let written = false;
            (
                LogStep::Close,
                Work::Close {
                    file,
                    path,
                    written,
                },
            )
        }
    }
}
