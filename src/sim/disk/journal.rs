//! What the disk does with journals, with pieces that are read back past the page cache, and with
//! looks at open files.

use std::path::{Path, PathBuf};

use super::{Disk, File, GONE, PAGE_LEN};
use crate::base::digest::sha1;
use crate::base::id::PieceIndex;
use crate::meta::metainfo::Metainfo;
use crate::storage::error::StorageError;
use crate::storage::jobs::{Handle, JournalFile, Left, Look};
use crate::storage::journal::{BootId, Stamp};

impl Disk {
    /// The present run of its machine.
    pub fn boot(&self) -> BootId {
        let mut boot = [1; 16];
        boot[..8].copy_from_slice(&self.boots.to_le_bytes());
        BootId(boot)
    }

    /// The bytes of a file as the kernel shows them.
    pub fn bytes(&self, path: &Path) -> Option<&[u8]> {
        self.files.get(path).map(|file| &file.bytes[..])
    }

    pub(super) fn stamp(&self, path: &Path) -> Stamp {
        let Some(file) = self.files.get(path) else {
            return Stamp::default();
        };
        Stamp::new(1, file.inode, file.bytes.len() as u64, file.inode)
    }

    pub(super) fn times(&self, meta: &Metainfo) -> Vec<u64> {
        let files = meta
            .files
            .iter()
            .map(|file| self.files.get(file.path.as_path()));
        files
            .map(|file| file.map_or(0, |file| file.writes))
            .collect()
    }

    /// What is wrong with each of some open files, if anything is.
    pub(super) fn look_at(&self, files: &[Look]) -> Vec<Option<StorageError>> {
        let look = |look: &Look| {
            let path = look.path.clone();
            match self.files.get(&self.path(&look.file)) {
                None => Some(StorageError::Missing { path }),
                Some(file) if (file.bytes.len() as u64) < look.len => {
                    Some(StorageError::Truncated { path })
                }
                Some(_) => None,
            }
        };
        files.iter().map(look).collect()
    }

    pub(super) fn made_if_missing(&mut self, path: PathBuf) -> &mut File {
        let made = &mut self.made;
        self.files.entry(path).or_insert_with(|| {
            *made += 1;
            File {
                inode: *made,
                ..File::default()
            }
        })
    }

    pub(super) fn read_journal(&mut self, path: PathBuf) -> Option<JournalFile> {
        let bytes = self.files.get(&path)?.bytes.clone();
        let file = self.handle(path);
        Some(JournalFile { bytes, file })
    }

    pub(super) fn make_journal(
        &mut self,
        path: PathBuf,
        bytes: Vec<u8>,
    ) -> Result<Handle, StorageError> {
        let beside = path.with_extension("journal.new");
        self.rename_handles(&beside, Path::new(GONE));
        self.files.remove(&beside);
        self.made_if_missing(beside.clone());
        let file = self.handle(beside);
        self.append(&file, 0, &bytes)?;
        self.sync(&file)?;
        Ok(file)
    }

    pub(super) fn make_first_journal(
        &mut self,
        path: PathBuf,
        bytes: &[u8],
    ) -> Result<Handle, StorageError> {
        self.rename_handles(&path, Path::new(GONE));
        self.files.remove(&path);
        self.made_if_missing(path.clone());
        let file = self.handle(path.clone());
        if let Err(error) = self.append(&file, 0, bytes) {
            // It gets its name when its bytes are written.
            self.rename_handles(&path, Path::new(GONE));
            self.files.remove(&path);
            return Err(error);
        }
        Ok(file)
    }

    pub(super) fn sync_journal(
        &mut self,
        file: &Handle,
        path: &Path,
        has_new_name: bool,
    ) -> Result<(), StorageError> {
        if self.path(file) == Path::new(GONE) {
            return Ok(());
        }
        self.sync(file)?;
        if has_new_name {
            self.sync_dirs(&[super::dir_of(path)]);
        }
        Ok(())
    }

    pub(super) fn append(
        &mut self,
        file: &Handle,
        at: usize,
        bytes: &[u8],
    ) -> Result<(), StorageError> {
        if self.path(file) == Path::new(GONE) {
            return Ok(());
        }
        let free = self.free();
        let path = self.path(file);
        let stored = self.file(file)?;
        let end = at + bytes.len();
        let need = end.saturating_sub(stored.bytes.len()) as u64;
        if let Some(free) = free.filter(|&free| free < need) {
            self.tally.refused += 1;
            return Err(StorageError::NoSpace { path, need, free });
        }
        stored.bytes.resize(stored.bytes.len().max(end), 0);
        self.write(file, at, bytes)
    }

    pub(super) fn install_journal(&mut self, path: PathBuf) -> Result<(), StorageError> {
        let beside = path.with_extension("journal.new");
        let missing = || StorageError::Missing {
            path: beside.clone(),
        };
        let mut file = self.files.remove(&beside).ok_or_else(missing)?;
        file.synced.clone_from(&file.bytes);
        file.dirty.clear();
        file.is_entry_synced = true;
        self.rename_handles(&path, Path::new(GONE));
        self.rename_handles(&beside, &path);
        self.files.insert(path.clone(), file);
        // An error of the last step, the sync of the folder, comes after all is done.
        self.may_fail(self.faults.syncs_ppm, &path, "sync the folder")
    }

    pub(super) fn leave_journal(&self, file: &Handle, len: u64) -> Result<Left, StorageError> {
        let path = self.path(file);
        let left = self.left(&path);
        match self.files.get(&path) {
            Some(found) if (found.bytes.len() as u64) < len => {
                Err(StorageError::Truncated { path })
            }
            // One that lost its name can be closed all the same.
            Some(_) | None => Ok(left),
        }
    }

    pub(super) fn open_journal(
        &mut self,
        path: PathBuf,
        left: Left,
    ) -> Result<Handle, StorageError> {
        self.may_fail(self.faults.writes_ppm, &path, "open")?;
        if !self.files.contains_key(&path) {
            return Err(StorageError::Missing { path });
        }
        match self.left(&path) == left {
            true => Ok(self.handle(path)),
            false => Err(StorageError::Replaced { path }),
        }
    }

    fn left(&self, path: &Path) -> Left {
        Left {
            stamp: self.stamp(path),
            modified: self.files.get(path).map_or(0, |file| file.writes),
        }
    }

    /// Syncs files that nobody has open.
    pub(super) fn sync_found(&mut self, found: Vec<PathBuf>) -> Result<(), StorageError> {
        for path in found {
            if !self.files.contains_key(&path) {
                return Err(StorageError::Missing { path });
            }
            let file = self.handle(path);
            self.sync(&file)?;
        }
        Ok(())
    }

    /// Whoever had the file `from` open has `to` now.
    pub(super) fn rename_handles(&mut self, from: &Path, to: &Path) {
        for path in &mut self.handles {
            if path == from {
                *path = to.to_path_buf();
            }
        }
    }

    /// Whether the platter has a piece, after what is dirty was written.
    pub(super) fn prove(
        &mut self,
        meta: &Metainfo,
        piece: PieceIndex,
        hash: &[u8; 20],
    ) -> Result<bool, StorageError> {
        let geometry = meta.geometry();
        let mut bytes = Vec::new();
        for span in geometry.spans(piece, 0, geometry.piece_len(piece)) {
            if span.pad {
                bytes.resize(bytes.len() + span.len as usize, 0);
                continue;
            }
            let path = meta.files[span.file as usize].path.as_path();
            if !self.files.contains_key(path) {
                return Ok(false);
            }
            let handle = self.handle(path.to_path_buf());
            self.may_fail(self.faults.reads_ppm, path, "read")?;
            let file = self.file(&handle)?;
            let range = span.offset as usize..span.offset as usize + span.len as usize;
            let Some(found) = file.on_platter(range) else {
                return Ok(false);
            };
            bytes.extend(found);
        }
        Ok(sha1(&bytes) == *hash)
    }
}

impl File {
    /// The bytes of a range as the platter has them once what is dirty there was written.
    fn on_platter(&mut self, range: std::ops::Range<usize>) -> Option<Vec<u8>> {
        if range.end > self.bytes.len() {
            return None;
        }
        self.synced
            .resize(self.synced.len().max(self.bytes.len()), 0);
        for page in range.start / PAGE_LEN..range.end.div_ceil(PAGE_LEN) {
            if self.dirty.remove(&page) {
                let end = ((page + 1) * PAGE_LEN).min(self.bytes.len());
                let page = page * PAGE_LEN..end;
                self.synced[page.clone()].copy_from_slice(&self.bytes[page]);
            }
        }
        Some(self.synced[range].to_vec())
    }
}
