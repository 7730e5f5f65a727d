//! The files of a torrent: which exist, which are open, who opens and closes them.
//!
//! ```text
//!            read ┌────────────▶ Open, reading ──── a store ───┐
//!  Closed ────────┤                                            ▼
//!    ▲  ▲         └─▶ Absent ─────────────────── a store ──▶ Opening ──▶ Open, writing
//!    │  └───────────────────────── least recently used ──────────────────────┘
//!    └─ (as Opening, with mode `Read`, between Closed and the first two)
//! ```
//!
//! Storage owns every open file; jobs under way share it. At most [`FILES_OPEN_MAX`] are open, and
//! a file with windows is never closed: its stores must be synced through the descriptor that was
//! open before them (an error of the write-back is told only to those).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::jobs::{Handle, OpenMode, Opened, Work};
use super::stall::Why;
use super::window::{Body, Want};
use super::{Purpose, Storage};
use crate::base::bits::Bitfield;
use crate::base::id::TorrentId;
use crate::base::limits::{FILES_OPEN_MAX, WINDOW_LEN, WINDOWS_COUNT_MAX};
use crate::storage::error::StorageError;

/// One file of a torrent.
#[derive(Debug)]
pub(super) struct FileSlot {
    pub state: FileState,
    /// When it was used last, in openings of any file.
    pub stamp: u64,
    /// Bytes were stored into it since the last sync.
    pub is_written: bool,
    /// It is there, and shorter than the torrent needs.
    pub is_short: bool,
    /// It was made, or made longer, since the last sync.
    pub is_created: bool,
    /// The names that lead to it are on the disk, or will be with the next sync.
    is_named: bool,
    /// It is not mapped, as its file system does not do that well.
    pub is_buffered: bool,
    /// It is open as one that is not wanted: nothing but what is stored may take room.
    pub is_sparse: bool,
    fresh: Fresh,
}

/// Whether a file is open.
#[derive(Debug)]
pub(super) enum FileState {
    /// It is not known whether it still exists.
    Closed,
    /// There is no such file, or it is too short to hold what the torrent says.
    Absent,
    /// A job opens it.
    Opening,
    /// It is open.
    Open { file: Handle, is_writable: bool },
}

/// What becomes of the unsynced bytes of a file that is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Farewell {
    /// They are synced before it is closed.
    Sync,
    /// They are left to the next sync of the whole file system, where there is such a thing: it
    /// costs as much as the sync of one file, and a torrent may have a hundred thousand.
    Postpone,
}

/// Which windows of a file were never written, so that they hold zeros.
#[derive(Debug)]
enum Fresh {
    None,
    /// The file's only window.
    Whole,
    /// One bit a window.
    Windows(Box<Bitfield>),
}

impl FileSlot {
    /// A file as the scan of the torrent's files found it.
    pub fn new(state: FileState) -> Self {
        Self {
            state,
            stamp: 0,
            is_written: false,
            is_short: false,
            is_created: false,
            is_named: false,
            is_buffered: false,
            is_sparse: false,
            fresh: Fresh::None,
        }
    }

    /// Whether the window `index` holds zeros as it was never written; asked once a window, as
    /// what asks may write it.
    pub fn take_fresh(&mut self, index: u32) -> bool {
        match &mut self.fresh {
            Fresh::None => false,
            Fresh::Whole => {
                self.fresh = Fresh::None;
                true
            }
            Fresh::Windows(windows) => windows.clear(index),
        }
    }

    /// Any window may have been written.
    pub fn forget_fresh(&mut self) {
        self.fresh = Fresh::None;
    }

    /// Everything behind `len_before` is zeros now.
    fn grown(&mut self, len_before: u64, len: u64) {
        if len <= WINDOW_LEN {
            if len_before == 0 {
                self.fresh = Fresh::Whole;
            }
            return;
        }
        // A file of more windows than an index counts does not pass the metainfo's limits.
        let windows = len.div_ceil(WINDOW_LEN) as u32;
        let known = len_before.div_ceil(WINDOW_LEN) as u32;
        let mut fresh = Bitfield::new(windows);
        (known..windows).for_each(|window| {
            fresh.set(window);
        });
        self.fresh = Fresh::Windows(Box::new(fresh));
    }
}

impl Storage {
    /// Brings the bytes of the admitted window in `slot`: opens its file first if need be.
    pub(super) fn load(&mut self, slot: usize) {
        let window = self.windows.get(slot);
        let (key, want) = (window.key, window.want);
        let Some(torrent) = self.torrents.get_mut(&key.torrent) else {
            return;
        };
        self.uses += 1;
        let file = &mut torrent.files[key.file as usize];
        file.stamp = self.uses;
        self.close_outgrown(key.torrent, key.file);
        let write = self.write_mode(key.torrent, key.file);
        let file = &self.torrents[&key.torrent].files[key.file as usize];
        match (&file.state, want) {
            (FileState::Opening, _) => {}
            (FileState::Absent, Want::Read) => self.drop_window(slot),
            (FileState::Closed, Want::Read) => {
                let mode = match file.is_short {
                    true => OpenMode::ReadShort,
                    false => OpenMode::Read,
                };
                self.open(key.torrent, key.file, mode);
            }
            (FileState::Closed | FileState::Absent, Want::Write) => {
                self.open(key.torrent, key.file, write);
            }
            (FileState::Open { is_writable, .. }, Want::Write) if !is_writable => {
                self.close(key.torrent, key.file, Farewell::Sync);
                self.open(key.torrent, key.file, write);
            }
            (FileState::Open { .. }, _) => self.load_from_open_file(slot),
        }
    }

    fn open(&mut self, torrent: TorrentId, file: u32, mode: OpenMode) {
        while self.open_files.len() >= FILES_OPEN_MAX && self.close_least_recently_used() {}
        let root = Arc::clone(&self.root);
        let Some(of) = self.torrents.get_mut(&torrent) else {
            return;
        };
        let slot = &mut of.files[file as usize];
        slot.state = FileState::Opening;
        slot.is_sparse = mode == OpenMode::WritePart;
        let meta = Arc::clone(&of.meta);
        self.open_files.push((torrent, file));
        let work = Work::Open {
            root,
            meta,
            file,
            mode,
        };
        self.submit(Purpose::Open { torrent, file }, work);
    }

    /// Takes the result of opening a file: every window that waited for it goes on.
    pub(super) fn opened(
        &mut self,
        id: TorrentId,
        index: u32,
        result: Result<Opened, StorageError>,
    ) {
        let Some(torrent) = self.torrents.get_mut(&id) else {
            // Removed meanwhile: the file is closed where that may block.
            if let Ok(Opened::Open { file, .. }) = result {
                self.submit_close(id, file, PathBuf::new(), false);
            }
            return;
        };
        let meta = Arc::clone(&torrent.meta);
        let entry = &meta.files[index as usize];
        let slot = &mut torrent.files[index as usize];
        match result {
            Err(error) => return self.fail(id, error),
            Ok(Opened::Absent) => {
                slot.state = FileState::Absent;
                self.forget_open(id, index);
            }
            Ok(Opened::Open {
                file,
                len_before,
                allocated,
                is_at_home,
                dirs,
                is_writable,
                stamps,
            }) => {
                slot.state = FileState::Open { file, is_writable };
                slot.is_short &= !is_writable;
                if is_writable && len_before < entry.len {
                    slot.grown(len_before, entry.len);
                    slot.is_created = true;
                }
                let is_unnamed = is_writable && !std::mem::replace(&mut slot.is_named, true);
                if !allocated && torrent.buffer(index, Why::Unallocated) {
                    let is_told = std::mem::replace(&mut torrent.is_lack_of_allocation_told, true);
                    let level = if is_told {
                        log::Level::Debug
                    } else {
                        log::Level::Warn
                    };
                    let path = &entry.path;
                    log::log!(
                        level,
                        "file cannot be allocated, written through buffers: path={path}"
                    );
                }
                torrent.has_files_elsewhere |= !is_at_home;
                torrent.new_dirs.extend(dirs);
                if is_unnamed {
                    // A former process may have made any of them and died before its sync.
                    torrent.new_dirs.extend(folders_of(entry.path.as_path()));
                }
                if let Err(error) = self.remember_file(id, index, stamps) {
                    return self.fail_or_lapse(id, error);
                }
            }
        }
        let waiting: Vec<usize> = self
            .windows
            .iter()
            .filter(|(_, w)| w.key.torrent == id && w.key.file == index)
            .filter(|(_, w)| matches!(w.body, Body::Admitted))
            .map(|(slot, _)| slot)
            .collect();
        for slot in waiting {
            self.load(slot);
        }
        self.turn_barriers(id);
    }

    /// Closes the open file that was used least recently among those without windows.
    fn close_least_recently_used(&mut self) -> bool {
        let mut busy: Vec<(TorrentId, u32)> = Vec::with_capacity(WINDOWS_COUNT_MAX);
        let windows = self.windows.iter();
        let windows = windows.filter(|(_, w)| !matches!(w.body, Body::Queued));
        busy.extend(windows.map(|(_, w)| (w.key.torrent, w.key.file)));
        busy.sort_unstable();
        let victim = self
            .open_files
            .iter()
            .filter(|file| busy.binary_search(file).is_err())
            .filter_map(|&(torrent, file)| {
                let slot = &self.torrents.get(&torrent)?.files[file as usize];
                matches!(slot.state, FileState::Open { .. }).then_some((slot.stamp, torrent, file))
            })
            .min();
        if let Some((_, torrent, file)) = victim {
            self.close(torrent, file, Farewell::Postpone);
        }
        victim.is_some()
    }

    /// Closes an open file.
    pub(super) fn close(&mut self, id: TorrentId, index: u32, farewell: Farewell) {
        let root = Arc::clone(&self.root);
        let Some(torrent) = self.torrents.get_mut(&id) else {
            return;
        };
        let slot = &mut torrent.files[index as usize];
        let FileState::Open { file, .. } = std::mem::replace(&mut slot.state, FileState::Closed)
        else {
            panic!("file {index} of torrent {id} is not open");
        };
        let mut written = std::mem::take(&mut slot.is_written);
        slot.is_created &= !written;
        let is_synced_later = self.anchor.is_some() && !torrent.has_files_elsewhere;
        if written && farewell == Farewell::Postpone && is_synced_later {
            torrent.loose_count += 1;
            written = false;
        }
        torrent.closing += u32::from(written);
        let path = root.join(torrent.meta.files[index as usize].path.as_path());
        self.forget_open(id, index);
        self.submit_close(id, file, path, written);
    }

    fn submit_close(&mut self, torrent: TorrentId, file: Handle, path: PathBuf, written: bool) {
        let work = Work::Close {
            file,
            path,
            written,
        };
        self.submit(Purpose::Close { torrent, written }, work);
    }

    fn forget_open(&mut self, torrent: TorrentId, file: u32) {
        self.open_files.retain(|&open| open != (torrent, file));
    }
}

/// All folders on the way to a file, below the output folder and that one too.
pub(super) fn folders_of(path: &Path) -> impl Iterator<Item = PathBuf> + '_ {
    path.ancestors().skip(1).map(Path::to_path_buf)
}

const _: () = assert!(
    WINDOWS_COUNT_MAX < FILES_OPEN_MAX,
    "some open file has no window"
);
