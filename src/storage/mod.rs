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
//! check, when it makes room, and on [`Storage::settle`] and [`Storage::sync`]. An error ends the
//! torrent that it belongs to ([`Event::Failed`]), no other.

mod check;
pub mod error;
mod files;
pub mod jobs;
pub mod keep;
pub mod lanes;
mod leave;
mod lend;
mod load;
pub mod map;
mod os;
mod run;
mod span;
pub mod state;
mod store;
mod sync;
mod window;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::bits::Bitfield;
use crate::base::id::{InfoHash, PieceIndex, TorrentId};
use crate::base::limits::WINDOW_LEN;
use crate::base::status::DiskStatus;
use crate::base::verdict::Verdict;
use crate::config::StorageKind;
use crate::meta::geometry::FileKind;
use crate::meta::metainfo::{FileEntry, Metainfo};

use check::Checks;
pub use check::Pace;
use error::StorageError;
use files::{Farewell, FileSlot, FileState};
use jobs::{Done, Handle, Job, JobId, Outcome, Presence, Scan, Work};
pub use lend::Lent;
use map::MapAccess;
pub use os::Populate;
use span::WindowKey;
use sync::Barrier;
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
    },
    /// Every byte stored before [`Storage::sync`], and every file's name, survives a power cut.
    Durable {
        /// The torrent.
        torrent: TorrentId,
    },
    /// The torrent's files cannot be used any more: whatever else is asked for it is ignored.
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
    torrents: BTreeMap<TorrentId, Torrent>,
    windows: Windows,
    checks: Checks,
    /// Open files, and those that a job is opening.
    open_files: Vec<(TorrentId, u32)>,
    jobs: VecDeque<Job>,
    under_way: BTreeMap<JobId, Purpose>,
    /// Torrents that are gone, but for jobs that are under way.
    leaving: BTreeMap<TorrentId, InfoHash>,
    /// Torrents that are taken up when those are gone altogether.
    waiting: BTreeMap<TorrentId, Arc<Metainfo>>,
    jobs_count: u64,
    events: VecDeque<Event>,
    /// Stores so far: later ones have higher numbers.
    seq: u64,
    /// The output folder, open since before the first store: what was written to files that are
    /// closed again is synced through it.
    anchor: Option<Handle>,
    /// Uses of files so far.
    uses: u64,
}

#[derive(Debug)]
struct Torrent {
    meta: Arc<Metainfo>,
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
    /// Jobs that make empty files.
    creating: u32,
}

/// Why a job was submitted.
#[derive(Clone, Copy, Debug)]
enum Purpose {
    Scan(TorrentId),
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
            jobs_count: 0,
            events: VecDeque::new(),
            seq: 0,
            anchor: None,
            uses: 0,
        }
    }

    /// Takes up a torrent: looks at all its files and, if it may write, at the free space.
    ///
    /// [`Event::Scanned`] or [`Event::Failed`] follows; nothing is created. One that was removed,
    /// or has failed, may be taken up again.
    ///
    /// # Panics
    /// If a torrent with this id is there.
    pub fn add(&mut self, torrent: TorrentId, meta: Arc<Metainfo>) {
        if self.holds_up(torrent, &meta) {
            return;
        }
        let files = meta.files.iter().map(|_| FileSlot::new(FileState::Closed));
        let before = self.torrents.insert(
            torrent,
            Torrent {
                files: files.collect(),
                touched: Bitfield::new(meta.geometry().piece_count()),
                failed_pieces: BTreeSet::new(),
                barriers: VecDeque::new(),
                new_dirs: BTreeSet::new(),
                closing: 0,
                loose_count: 0,
                has_files_elsewhere: false,
                creating: 0,
                meta: Arc::clone(&meta),
            },
        );
        assert!(before.is_none(), "torrent {torrent} added twice");
        let work = Work::Scan {
            root: Arc::clone(&self.root),
            meta,
            access: self.access,
            wants_anchor: self.anchor.is_none() && self.access == Access::ReadWrite,
        };
        self.submit(Purpose::Scan(torrent), work);
    }

    /// Lets go of a torrent. Stored bytes are written, and its open files synced. Bytes that still
    /// wait for their pages are lost, and files that were closed earlier are with the kernel only:
    /// [`settle`](Self::settle) or [`sync`](Self::sync) first.
    pub fn remove(&mut self, torrent: TorrentId) {
        self.drop_torrent(torrent, Keep::Stored);
    }

    /// Makes the files without bytes, which no piece ever will.
    pub fn create_empty_files(&mut self, torrent: TorrentId) {
        let Some(of) = self.torrents.get_mut(&torrent) else {
            return;
        };
        let is_empty = |file: &FileEntry| file.len == 0 && file.kind == FileKind::Data;
        if self.access == Access::ReadOnly || !of.meta.files.iter().any(is_empty) {
            return;
        }
        of.creating += 1;
        let work = Work::CreateEmpty {
            root: Arc::clone(&self.root),
            meta: Arc::clone(&of.meta),
        };
        self.submit(Purpose::CreateEmpty(torrent), work);
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

    /// The next thing that others must know; `None` when all is told.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The next job to execute; `None` until something happens.
    pub fn poll_job(&mut self) -> Option<Job> {
        self.admit();
        self.jobs.pop_front()
    }

    /// Takes the result of a job.
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
                    self.fail(torrent, error);
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
            (Purpose::Unmap, Outcome::Unmapped) => {}
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

    fn scanned(&mut self, id: TorrentId, result: Result<Scan, StorageError>) {
        let Some(torrent) = self.torrents.get_mut(&id) else {
            return;
        };
        let scan = match result {
            Ok(scan) => scan,
            Err(error) => return self.fail(id, error),
        };
        self.anchor = self.anchor.take().or(scan.anchor);
        let geometry = torrent.meta.geometry();
        let mut candidates = Bitfield::full(geometry.piece_count());
        for (index, presence) in (0..).zip(&scan.files) {
            if *presence == Presence::Whole {
                continue;
            }
            for piece in geometry.pieces_of_file(index) {
                candidates.clear(piece);
            }
            let slot = &mut torrent.files[index as usize];
            if matches!(slot.state, FileState::Closed) {
                slot.state = FileState::Absent;
            }
        }
        self.events.push_back(Event::Scanned {
            torrent: id,
            candidates,
        });
    }

    fn created_empty(&mut self, id: TorrentId, result: Result<Vec<PathBuf>, StorageError>) {
        let Some(torrent) = self.torrents.get_mut(&id) else {
            return;
        };
        torrent.creating -= 1;
        match result {
            Ok(dirs) => {
                torrent.new_dirs.extend(dirs);
                self.turn_barriers(id);
            }
            Err(error) => self.fail(id, error),
        }
    }

    fn closed(&mut self, id: TorrentId, written: bool, result: Result<(), StorageError>) {
        let Some(torrent) = self.torrents.get_mut(&id) else {
            if let Err(error) = result {
                log::warn!("file of a removed torrent not synced: error={error}");
            }
            return;
        };
        torrent.closing -= u32::from(written);
        match result {
            Ok(()) => self.turn_barriers(id),
            Err(error) => self.fail(id, error),
        }
    }

    fn fail(&mut self, torrent: TorrentId, error: StorageError) {
        if self.drop_torrent(torrent, Keep::Nothing) {
            self.events.push_back(Event::Failed { torrent, error });
        }
    }

    /// Forgets everything of a torrent; says whether there was such a torrent.
    fn drop_torrent(&mut self, id: TorrentId, keep: Keep) -> bool {
        self.waiting.remove(&id);
        if !self.torrents.contains_key(&id) {
            return false;
        }
        let windows: Vec<usize> = self
            .windows
            .iter()
            .filter(|(_, window)| window.key.torrent == id)
            .map(|(slot, _)| slot)
            .collect();
        for slot in windows {
            if keep == Keep::Stored && self.windows.get(slot).is_dirty() {
                self.write_back(slot);
            }
            self.drop_window(slot);
        }
        let (ours, others) = self.open_files.iter().partition(|(of, _)| *of == id);
        self.open_files = others;
        let ours: Vec<(TorrentId, u32)> = ours;
        for (_, file) in ours {
            if let Some(torrent) = self.torrents.get_mut(&id) {
                let slot = &mut torrent.files[file as usize];
                slot.is_written &= keep == Keep::Stored;
                if matches!(slot.state, FileState::Open { .. }) {
                    self.close(id, file, Farewell::Sync);
                }
            }
        }
        self.checks.remove_torrent(id);
        let gone = self.torrents.remove(&id);
        if let Some(torrent) = &gone {
            self.leaves(id, torrent.meta.info_hash);
        }
        gone.is_some()
    }
}

#[cfg(test)]
mod tests;
