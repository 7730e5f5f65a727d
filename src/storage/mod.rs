//! Puts payload where it belongs, lends bytes to send, hashes pieces, and says when all is safe.
//!
//! [`Storage`] decides and remembers, but never blocks: what may block leaves as [`Job`]s
//! ([`Storage::poll_job`]), is executed elsewhere ([`jobs::run`], or the simulator), and comes back
//! ([`Storage::job_done`]). What others must know leaves as [`Event`]s.
//!
//! ```text
//!  store ──▶ window ready? ── yes ──▶ copied ──────┐              lend ──▶ ready? ── yes ─▶ slices
//!                │ no                              │                         │ no
//!                ▼                                 ▼                         ▼
//!          bytes wait ──── load ────▶ landed ──▶ check: hashed by    load, then `Readable`
//!                                                `work`, `Checked`
//! ```
//!
//! The one mechanism is the *window*: up to 1 MiB of one file in memory, mapped or in a buffer
//! (`window.rs` draws its life, `files.rs` that of a file). The windows and open files of all
//! torrents are owned here and limited in number; the least recently used go first. Nobody holds
//! one window while waiting for another, so that two windows are enough for any piece.
//!
//! The shell's loop, in this order: [`Storage::job_done`] for what came back, events, connections
//! ([`Storage::store`], [`Storage::lend`]), [`Storage::work`], and then [`Storage::poll_job`] until
//! it is empty: what a connection was promised is still there when its turn comes.
//!
//! Bytes are with the kernel at once in a map; in a buffer, when it was written back: after a good
//! check, when it makes room, and on [`Storage::settle`] and [`Storage::sync`]. Maps that hold up
//! the loop give way to buffers (`stall`). An error ends the torrent that it belongs to
//! ([`Event::Failed`]), no other. It may be added again: to be served only, as long as its files
//! cannot be written (`suspend`). What is remembered has room of its own ([`reserve`]). Of torrents
//! that rest neither windows nor files are held (`rest`), nor the hashes of pieces (`texts`).

mod changed;
mod check;
pub mod choose;
pub mod error;
mod files;
pub mod jobs;
pub mod journal;
pub mod keep;
pub mod lanes;
mod leave;
mod lend;
mod load;
mod logs;
pub mod map;
mod memory;
mod os;
mod partial;
mod prove;
pub mod reserve;
mod rest;
mod run;
mod span;
mod stall;
pub mod state;
mod store;
mod suspend;
mod sync;
mod texts;
mod torrents;
mod window;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use crate::base::bits::Bitfield;
use crate::base::burst::take_first;
use crate::base::id::{InfoHash, PieceIndex, Ticket, TorrentId};
use crate::base::limits::WINDOW_LEN;
use crate::base::status::DiskStatus;
use crate::base::time::Instant;
use crate::base::verdict::Verdict;
use crate::config::StorageKind;
use crate::meta::metainfo::Metainfo;

use changed::Watch;
use check::Checks;
pub use check::Pace;
use error::StorageError;
use files::FileSlot;
use jobs::{Done, Handle, Job, JobId, Outcome, Work};
pub use lend::Lent;
use logs::{LogId, LogStep, OpenLog};
use map::MapAccess;
use memory::Memory;
pub use os::Populate;
use rest::Rest;
use span::WindowKey;
use stall::{Stalled, Stalls, Why};
use sync::Barrier;
use texts::Texts;
use window::Windows;

/// How a [`Storage`] works.
#[derive(Clone, Debug)]
pub struct StorageOptions {
    /// The output folder: everything lies below it.
    pub root: PathBuf,
    /// How bytes reach files.
    pub kind: StorageKind,
    /// Whether files may be created and changed.
    pub access: Access,
    /// Bytes of windows at most; at least one window is used.
    pub windows_len_max: u64,
    /// The folder of the journals. Without one nothing is remembered over restarts.
    pub state_dir: Option<PathBuf>,
}

/// Whether files may be created and changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// They may.
    ReadWrite,
    /// They are only looked at: nothing is created, stores are dropped.
    ReadOnly,
}

/// What storage has to say.
#[derive(Debug)]
pub enum Event {
    /// A torrent's files were looked at.
    Scanned {
        /// The torrent.
        torrent: TorrentId,
        /// Pieces worth checking: all their files exist and are long enough.
        candidates: Bitfield,
        /// Pieces that were checked before, and may be served without being checked again.
        vouched: Bitfield,
        /// Blocks of other pieces that are there, unverified.
        filled: Vec<(PieceIndex, Bitfield)>,
    },
    /// A piece was hashed.
    Checked {
        /// The torrent.
        torrent: TorrentId,
        /// The piece.
        piece: PieceIndex,
        /// What came of it.
        verdict: Verdict,
    },
    /// Bytes that [`Storage::lend`] did not have may be there now: whoever waits tries again.
    Readable,
    /// Every byte stored before [`Storage::settle`] is with the kernel.
    Settled {
        /// The torrent.
        torrent: TorrentId,
        /// What it was asked with.
        ticket: Ticket,
    },
    /// Every byte stored before [`Storage::sync`], and every file's name, survives a power cut.
    Durable {
        /// The torrent.
        torrent: TorrentId,
        /// What it was asked with.
        ticket: Ticket,
    },
    /// A piece is not on the disk although it hashed right before: it has to be fetched again.
    Lost {
        /// The torrent.
        torrent: TorrentId,
        /// The piece.
        piece: PieceIndex,
    },
    /// What was stored since the last good sync may be lost, or somebody changed a file in use:
    /// whatever else is asked for the torrent is ignored until it is added again, which will check
    /// what is doubtful.
    Lapsed {
        /// The torrent.
        torrent: TorrentId,
        /// Why.
        error: StorageError,
    },
    /// What came of [`Storage::probe`]: whether the torrent's files can be written from now on.
    Probed {
        /// The torrent.
        torrent: TorrentId,
        /// If not, why.
        result: Result<(), StorageError>,
    },
    /// What came of [`Storage::text`].
    Text {
        /// The torrent.
        info_hash: InfoHash,
        /// Its .torrent file, or why it is not to be had.
        result: Result<Bytes, StorageError>,
    },
    /// The torrent's files cannot be used any more: whatever else is asked for it is ignored, until
    /// it is added again.
    Failed {
        /// The torrent.
        torrent: TorrentId,
        /// Why.
        error: StorageError,
    },
}

/// The files of all torrents.
#[derive(Debug)]
pub struct Storage {
    root: Arc<Path>,
    kind: StorageKind,
    access: Access,
    windows_len_max: u64,
    /// Apart from the map, whose nodes are half empty; as are the journals.
    torrents: BTreeMap<TorrentId, Box<Torrent>>,
    windows: Windows,
    checks: Checks,
    /// Open files, and those that a job is opening.
    open_files: Vec<(TorrentId, u32)>,
    jobs: VecDeque<Job>,
    under_way: BTreeMap<JobId, Purpose>,
    /// Torrents that are gone, but for jobs that are under way.
    leaving: BTreeMap<TorrentId, InfoHash>,
    /// Torrents that are taken up when those are gone altogether.
    waiting: BTreeMap<TorrentId, (Arc<Metainfo>, Access)>,
    /// The pieces of torrents that were given up, as far as they were verified then.
    former: BTreeMap<TorrentId, Bitfield>,
    jobs_count: u64,
    events: VecDeque<Event>,
    /// Stores so far: later ones have higher numbers.
    seq: u64,
    /// The output folder, open since before the first store: what was written to files that are
    /// closed again is synced through it.
    anchor: Option<Handle>,
    /// Uses of files so far.
    uses: u64,
    state_dir: Option<PathBuf>,
    /// What time it was at the last tick.
    now: Instant,
    /// When a tick has something to do, but for the look at files in use (`watch`).
    wake_at: Instant,
    /// Torrents with pieces whose bytes are not with the kernel yet.
    restless: BTreeSet<TorrentId>,
    logs: BTreeMap<LogId, Box<OpenLog>>,
    logs_count: u64,
    /// Journals that may have work to submit.
    log_queue: BTreeSet<LogId>,
    /// Torrents whose journal is still being written by a former life of theirs.
    waiting_scans: Vec<TorrentId>,
    watch: Watch,
    rest: Rest,
    texts: Texts,
    stalls: Stalls,
    /// Files that are not wanted, of the torrents that have some.
    skipped: BTreeMap<TorrentId, Arc<Bitfield>>,
    /// See [`Storage::mounts`].
    mounts: BTreeMap<InfoHash, Vec<String>>,
    /// Those of them whose disk was found missing.
    not_mounted: BTreeSet<InfoHash>,
}

#[derive(Debug)]
struct Torrent {
    meta: Arc<Metainfo>,
    access: Access,
    files: Vec<FileSlot>,
    /// Pieces that bytes were stored into since they were checked last.
    touched: Bitfield,
    /// Pieces whose last check failed after bytes had been stored.
    failed_pieces: BTreeSet<PieceIndex>,
    barriers: VecDeque<Barrier>,
    /// Folders whose content changed since the last sync.
    new_dirs: BTreeSet<PathBuf>,
    /// Written files that are being synced in order to be closed.
    closing: u32,
    /// Written files that were closed without a sync: the next one is of the whole file system.
    loose_count: u32,
    /// Some file lies on a file system that is mounted below the output folder.
    has_files_elsewhere: bool,
    /// The log says that files cannot be allocated; it does once, not for each of them.
    is_lack_of_allocation_told: bool,
    /// Why its files, or some, are written through buffers although they might be mapped.
    why_buffered: Option<Why>,
    stalled: Stalled,
    /// Jobs that make empty files.
    creating: u32,
    /// What is on its way into the journal, if there is one.
    memory: Option<Box<Memory>>,
}

/// Why a job was submitted.
#[derive(Clone, Copy, Debug)]
enum Purpose {
    Scan(TorrentId),
    Probe(TorrentId),
    CreateEmpty(TorrentId),
    Open {
        torrent: TorrentId,
        file: u32,
    },
    Load {
        key: WindowKey,
        access: MapAccess,
    },
    Populate(TorrentId),
    Unmap,
    WriteBack(WindowKey),
    /// Syncs also what so many closed files of the torrent had left.
    Sync {
        torrent: TorrentId,
        loose_count: u32,
    },
    Close {
        torrent: TorrentId,
        written: bool,
    },
    LookAtTimes(TorrentId),
    Look,
    FindText(InfoHash),
    ReadText(InfoHash),
    GiveBack,
    Prove {
        torrent: TorrentId,
        /// Tells the torrent from a later life of it.
        log: LogId,
        piece: PieceIndex,
    },
    Log {
        log: LogId,
        step: LogStep,
    },
}

/// What becomes of the bytes of a torrent that goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keep {
    /// They are written and synced.
    Stored,
    /// They cannot be.
    Nothing,
}

impl Storage {
    /// Storage without torrents; touches nothing yet.
    pub fn new(options: StorageOptions) -> Self {
        Self {
            root: options.root.into(),
            kind: options.kind,
            access: options.access,
            windows_len_max: options.windows_len_max.max(WINDOW_LEN),
            torrents: BTreeMap::new(),
            windows: Windows::default(),
            checks: Checks::default(),
            open_files: Vec::new(),
            jobs: VecDeque::new(),
            under_way: BTreeMap::new(),
            leaving: BTreeMap::new(),
            waiting: BTreeMap::new(),
            former: BTreeMap::new(),
            jobs_count: 0,
            events: VecDeque::new(),
            seq: 0,
            anchor: None,
            uses: 0,
            state_dir: options.state_dir,
            now: Instant::ZERO,
            wake_at: Instant::NEVER,
            restless: BTreeSet::new(),
            logs: BTreeMap::new(),
            logs_count: 0,
            log_queue: BTreeSet::new(),
            waiting_scans: Vec::new(),
            watch: Watch::new(),
            rest: Rest::default(),
            texts: Texts::new(),
            stalls: Stalls::default(),
            skipped: BTreeMap::new(),
            mounts: BTreeMap::new(),
            not_mounted: BTreeSet::new(),
        }
    }

    /// How much waits, and how much is to be hashed of what was stored.
    ///
    /// The caller stops reading payload while either is above its limit
    /// ([`WAITING_LEN_MAX`](crate::base::limits::WAITING_LEN_MAX),
    /// [`HASH_BACKLOG_MAX`](crate::base::limits::HASH_BACKLOG_MAX)).
    pub fn status(&self) -> DiskStatus {
        DiskStatus {
            waiting_bytes: self.windows.waiting_bytes(),
            hash_backlog_bytes: self.checks.backlog(),
        }
    }

    /// How bytes reach files, where nothing speaks against it.
    pub fn kind(&self) -> StorageKind {
        self.kind
    }

    /// The next thing that others must know; `None` when all is told.
    pub fn poll_event(&mut self) -> Option<Event> {
        take_first(&mut self.events)
    }

    /// The next job to execute; `None` until something happens.
    pub fn poll_job(&mut self) -> Option<Job> {
        self.admit();
        self.pump_logs();
        take_first(&mut self.jobs)
    }

    /// Takes the result of a job. The caller tells how long it [`took`](Self::took).
    pub fn job_done(&mut self, done: Done) {
        self.take_result(done);
        self.let_in();
    }

    fn take_result(&mut self, done: Done) {
        let Some(purpose) = self.under_way.remove(&done.id) else {
            debug_assert!(false, "job {:?} was not under way", done.id);
            return;
        };
        match (purpose, done.outcome) {
            (Purpose::Scan(torrent), Outcome::Scanned(result)) => self.scanned(torrent, result),
            (Purpose::Probe(torrent), Outcome::Scanned(result)) => {
                self.probed(torrent, result);
            }
            (Purpose::CreateEmpty(torrent), Outcome::CreatedEmpty(result)) => {
                self.created_empty(torrent, result);
            }
            (Purpose::Open { torrent, file }, Outcome::Opened(result)) => {
                self.opened(torrent, file, result);
            }
            (Purpose::Load { key, .. }, Outcome::Mapped(result)) => {
                self.mapped(key, done.id, result);
            }
            (Purpose::Load { key, access }, Outcome::Read(result)) => {
                self.read(key, access, done.id, result);
            }
            (Purpose::WriteBack(key), Outcome::Finished(result)) => {
                self.written_back(key, done.id, result);
            }
            (Purpose::Populate(torrent), Outcome::Finished(result)) => {
                if let Err(error) = result {
                    self.fail_or_lapse(torrent, error);
                }
            }
            (
                Purpose::Sync {
                    torrent,
                    loose_count,
                },
                Outcome::Finished(result),
            ) => self.synced(torrent, loose_count, result),
            (Purpose::Close { torrent, written }, Outcome::Finished(result)) => {
                self.closed(torrent, written, result);
            }
            (Purpose::Unmap, Outcome::Unmapped) | (Purpose::GiveBack, Outcome::GaveBack) => {}
            (Purpose::Look, Outcome::Looked(seen)) => self.looked(seen),
            (Purpose::FindText(info_hash), Outcome::TextFound(is_kept)) => {
                self.text_found(info_hash, is_kept);
            }
            (Purpose::ReadText(info_hash), Outcome::TextRead(result)) => {
                self.text_read(info_hash, result);
            }
            (Purpose::LookAtTimes(torrent), Outcome::Times(times)) => {
                self.looked_at_times(torrent, &times);
            }
            (
                Purpose::Prove {
                    torrent,
                    log,
                    piece,
                },
                Outcome::Proved(result),
            ) => {
                if self.memory(torrent).is_some_and(|memory| memory.log == log) {
                    self.proved(torrent, piece, result);
                }
            }
            (Purpose::Log { log, step }, outcome) => self.log_done(log, step, outcome),
            (purpose, outcome) => panic!("{purpose:?} does not end as {outcome:?}"),
        }
    }

    fn submit(&mut self, purpose: Purpose, work: Work) -> JobId {
        self.jobs_count += 1;
        let id = JobId(self.jobs_count);
        self.under_way.insert(id, purpose);
        self.jobs.push_back(Job { id, work });
        id
    }
}

#[cfg(test)]
mod tests;
