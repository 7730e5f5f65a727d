//! Torrents as a whole: taking them up, their empty files, letting them go.

use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

use super::error::StorageError;
use super::files::{Farewell, FileSlot, FileState};
use super::jobs::{Presence, Scan, Work};
use super::journal::Binding;
use super::stall::Stalled;
use super::{Access, Event, Keep, Purpose, Storage, Torrent, memory};
use crate::base::bits::Bitfield;
use crate::base::id::{InfoHash, TorrentId};
use crate::meta::geometry::FileKind;
use crate::meta::metainfo::{FileEntry, Metainfo};

impl Storage {
    /// Takes up a torrent: looks at all its files and, if it may write, at the free space.
    ///
    /// [`Event::Scanned`] or [`Event::Failed`] follows; none of its files is created. One that was
    /// removed, or has failed or lapsed, may be taken up again.
    ///
    /// # Panics
    /// If a torrent with this id is there.
    pub fn add(&mut self, torrent: TorrentId, meta: Arc<Metainfo>) {
        self.take_in(torrent, meta, self.access);
    }

    pub(super) fn take_in(&mut self, torrent: TorrentId, meta: Arc<Metainfo>, access: Access) {
        let (meta, text) = Metainfo::apart(meta);
        if let Some(text) = text {
            self.hold(meta.info_hash, text);
        }
        if self.holds_up(torrent, &meta, access) {
            return;
        }
        let files = meta.files.iter().map(|_| FileSlot::new(FileState::Closed));
        let before = self.torrents.insert(
            torrent,
            Box::new(Torrent {
                files: files.collect(),
                touched: Bitfield::new(meta.geometry().piece_count()),
                failed_pieces: BTreeSet::new(),
                barriers: VecDeque::new(),
                new_dirs: BTreeSet::new(),
                closing: 0,
                loose_count: 0,
                has_files_elsewhere: false,
                is_lack_of_allocation_told: false,
                why_buffered: None,
                stalled: Stalled::default(),
                creating: 0,
                memory: None,
                access,
                meta,
            }),
        );
        assert!(before.is_none(), "torrent {torrent} added twice");
        self.watch_its_disk();
        self.scan(torrent);
    }

    /// The mount points on the way to a torrent's files when they were looked at last, in this run
    /// or an earlier one, by their whole paths.
    pub fn mounts(&self, info_hash: InfoHash) -> &[String] {
        self.mounts.get(&info_hash).map_or(&[], Vec::as_slice)
    }

    /// Says what [`mounts`](Self::mounts) were in an earlier run. A disk that is not there now is
    /// waited for, as is one that goes: no file is made in its place.
    pub fn recall_mounts(&mut self, info_hash: InfoHash, mounts: Vec<String>) {
        self.not_mounted.remove(&info_hash);
        match mounts.is_empty() {
            true => self.mounts.remove(&info_hash),
            false => self.mounts.insert(info_hash, mounts),
        };
    }

    /// A torrent that was said to wait for a disk of an earlier run is to do without it.
    pub fn do_without_disk(&mut self, info_hash: InfoHash) {
        if self.not_mounted.contains(&info_hash) {
            self.recall_mounts(info_hash, Vec::new());
        }
    }

    /// Looks at the files of a torrent, and at its journal as soon as nobody writes it.
    pub(super) fn scan(&mut self, torrent: TorrentId) {
        let Some(of) = self.torrents.get(&torrent) else {
            return;
        };
        let (meta, access) = (Arc::clone(&of.meta), of.access);
        let journal = self.journal_path(meta.info_hash);
        if self.is_log_open(meta.info_hash) {
            return self.waiting_scans.push(torrent);
        }
        let mounts = self.mounts(meta.info_hash).to_vec();
        let len_max = Binding::of(&meta).journal_len_max();
        let work = Work::Scan {
            root: Arc::clone(&self.root),
            meta,
            access,
            wants_anchor: self.anchor.is_none() && access == Access::ReadWrite,
            mounts,
            skipped: self.skipped(torrent),
            journal: journal.map(|path| (path, len_max)),
        };
        self.submit(Purpose::Scan(torrent), work);
    }

    /// Lets go of a torrent. Stored bytes are written, and its open files synced. Bytes that still
    /// wait for their pages are lost, and files that were closed earlier are with the kernel only:
    /// [`settle`](Self::settle) or [`sync`](Self::sync) first.
    pub fn remove(&mut self, torrent: TorrentId) {
        self.drop_torrent(torrent, Keep::Stored);
        self.former.remove(&torrent);
        self.skipped.remove(&torrent);
    }

    /// Makes the wanted files without bytes, which no piece ever will.
    pub fn create_empty_files(&mut self, torrent: TorrentId) {
        let skipped = self.skipped(torrent);
        let Some(of) = self.torrents.get_mut(&torrent) else {
            return;
        };
        let is_empty = |file: &FileEntry| file.len == 0 && file.kind == FileKind::Data;
        if of.access == Access::ReadOnly || !of.meta.files.iter().any(is_empty) {
            return;
        }
        of.creating += 1;
        let work = Work::CreateEmpty {
            root: Arc::clone(&self.root),
            meta: Arc::clone(&of.meta),
            skipped,
        };
        self.submit(Purpose::CreateEmpty(torrent), work);
    }

    pub(super) fn scanned(&mut self, id: TorrentId, result: Result<Scan, StorageError>) {
        let Some(torrent) = self.torrents.get_mut(&id) else {
            return;
        };
        let mut scan = match result {
            Ok(scan) => scan,
            Err(error) => return self.fail(id, error),
        };
        self.anchor = self.anchor.take().or(scan.anchor.take());
        for (slot, presence) in torrent.files.iter_mut().zip(&scan.files) {
            if !matches!(slot.state, FileState::Closed) {
                continue;
            }
            match presence {
                Presence::Whole => {}
                Presence::Short { len: 1.. } => slot.is_short = true,
                Presence::Short { .. } | Presence::Absent => slot.state = FileState::Absent,
            }
        }
        let meta = Arc::clone(&torrent.meta);
        let mounts = std::mem::take(&mut scan.mounts);
        self.recall_mounts(meta.info_hash, mounts);
        let event = match self.journal_path(meta.info_hash) {
            Some(path) => self.take_up(id, scan, path),
            None => Ok(Event::Scanned {
                torrent: id,
                candidates: memory::whole_pieces(&meta, &scan.files),
                vouched: Bitfield::new(meta.geometry().piece_count()),
                filled: Vec::new(),
            }),
        };
        match event {
            Ok(event) => self.events.push_back(event),
            Err(error) => self.fail(id, error),
        }
    }

    pub(super) fn created_empty(
        &mut self,
        id: TorrentId,
        result: Result<Vec<PathBuf>, StorageError>,
    ) {
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

    pub(super) fn closed(
        &mut self,
        id: TorrentId,
        written: bool,
        result: Result<(), StorageError>,
    ) {
        let Some(torrent) = self.torrents.get_mut(&id) else {
            if let Err(error) = result {
                log::warn!("file of a removed torrent not synced: error={error}");
            }
            return;
        };
        torrent.closing -= u32::from(written);
        match result {
            Ok(()) => self.turn_barriers(id),
            Err(error) => self.lapse(id, error),
        }
    }

    /// The torrent is given up. What was stored is kept if the fault is not that of its files.
    pub(super) fn fail(&mut self, torrent: TorrentId, error: StorageError) {
        if !self.torrents.contains_key(&torrent) {
            return; // a late job of one that went: whoever waits to come after it is not concerned
        }
        if let StorageError::NotMounted { .. } = error {
            self.not_mounted
                .extend(self.torrents.get(&torrent).map(|of| of.meta.info_hash));
        }
        if error.is_lost_disk() {
            return self.lose_faith(torrent, error);
        }
        self.keep_in_mind(torrent);
        let keep = match error.may_pass() {
            true => Keep::Stored,
            false => Keep::Nothing,
        };
        if self.drop_torrent(torrent, keep) {
            self.events.push_back(Event::Failed { torrent, error });
        }
    }

    /// The torrent lapses if somebody changed its files, and has failed otherwise.
    pub(super) fn fail_or_lapse(&mut self, torrent: TorrentId, error: StorageError) {
        match error {
            StorageError::Truncated { .. }
            | StorageError::Replaced { .. }
            | StorageError::Missing { .. } => self.lose_faith(torrent, error),
            _ => self.fail(torrent, error),
        }
    }

    /// Forgets everything of a torrent; says whether there was such a torrent.
    pub(super) fn drop_torrent(&mut self, id: TorrentId, keep: Keep) -> bool {
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
        self.watch.forget(id);
        self.restless.remove(&id);
        self.waiting_scans.retain(|waiting| *waiting != id);
        let Some(gone) = self.torrents.remove(&id) else {
            return false;
        };
        self.leaves(id, gone.meta.info_hash);
        if let Some(memory) = gone.memory {
            self.close_log(memory.log);
        }
        true
    }
}
