//! A disk in memory that executes storage's jobs, and fails as disks do.
//!
//! A file is what the kernel shows and what the platter holds. Writes change the first; syncs
//! bring it to the second. When the power goes, each page that was not synced may or may not have
//! been written back, whole or in part, and a file whose folder was not synced may be gone.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::base::bits::Bitfield;
use crate::base::rng::Rng;
use crate::base::time::Instant;
use crate::meta::metainfo::{FileEntry, FileKind, Metainfo};
use crate::meta::text::Text;
use crate::storage::Access;
use crate::storage::choose::is_skipped;
use crate::storage::error::StorageError;
use crate::storage::jobs::{
    Done, Handle, Job, Lane, OpenMode, Opened, Outcome, Presence, Scan, Work,
};
use crate::storage::journal::Stamp;

mod harm;
mod journal;
mod texts;

/// Files by name; handles are places in a list.
#[derive(Debug)]
pub struct Disk {
    files: BTreeMap<PathBuf, File>,
    handles: Vec<PathBuf>,
    /// The texts of torrents, which another thread keeps: they are always there.
    texts: BTreeMap<PathBuf, Text>,
    /// Files ever made: their inodes.
    made: u64,
    /// How often the power went.
    boots: u64,
    rng: Rng,
    faults: DiskFaults,
    tally: DiskTally,
    /// Calls since the faults were set.
    calls: u64,
    /// When each lane has done what it was given.
    free_at: [Instant; 3],
}

/// How a disk fails; not at all by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskFaults {
    /// Reads that fail, of a million.
    pub reads_ppm: u32,
    /// Writes that fail, of a million.
    pub writes_ppm: u32,
    /// Syncs that fail, of a million. What was to be synced is not, and no later sync tries again.
    pub syncs_ppm: u32,
    /// What every sync takes longer.
    pub slow_sync: Duration,
    /// Bytes that fit; no limit if not given.
    pub capacity: Option<u64>,
    /// A lack of space shows only when a file is made: so do quotas.
    pub hides_lack: bool,
    /// The one call that fails: this many others come before it.
    pub fails_at: Option<u64>,
}

/// What a disk has done and suffered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskTally {
    /// Jobs.
    pub jobs: u64,
    /// Jobs that failed by chance.
    pub errors: u64,
    /// Files, torrents or records of a journal that did not fit.
    pub refused: u64,
    /// Pages that a power cut took back, or tore.
    pub lost_pages: u64,
}

#[derive(Debug, Default)]
struct File {
    inode: u64,
    /// Writes so far.
    writes: u64,
    /// What the kernel shows.
    bytes: Vec<u8>,
    /// What is on the platter for sure; `None` if no folder names it there.
    synced: Vec<u8>,
    is_entry_synced: bool,
    /// Pages that differ.
    dirty: BTreeSet<usize>,
}

impl Disk {
    /// An empty disk; `rng` draws how long each job takes, and what fails.
    pub fn new(rng: Rng) -> Self {
        Self {
            files: BTreeMap::new(),
            handles: Vec::new(),
            texts: BTreeMap::new(),
            made: 0,
            boots: 0,
            rng,
            faults: DiskFaults::default(),
            tally: DiskTally::default(),
            calls: 0,
            free_at: [Instant::ZERO; 3],
        }
    }

    /// Puts all files of a torrent there, on the platter too.
    pub fn fill(&mut self, meta: &Metainfo, content: &[u8]) {
        for file in data_files(meta) {
            let bytes = &content[file.offset as usize..(file.offset + file.len) as usize];
            self.made += 1;
            let stored = File {
                inode: self.made,
                writes: 1,
                bytes: bytes.to_vec(),
                synced: bytes.to_vec(),
                is_entry_synced: true,
                dirty: BTreeSet::new(),
            };
            self.files.insert(path_of(file), stored);
        }
    }

    /// Whether all files of a torrent are there and right.
    pub fn holds(&self, meta: &Metainfo, content: &[u8]) -> bool {
        data_files(meta).all(|file| {
            let bytes = &content[file.offset as usize..(file.offset + file.len) as usize];
            let found = self.files.get(file.path.as_path());
            found.is_some_and(|found| found.bytes == bytes)
        })
    }

    /// From now on the disk fails like this.
    pub fn set_faults(&mut self, faults: DiskFaults) {
        self.faults = faults;
        self.calls = 0;
    }

    /// Bytes of a file; `None` if there is none of this name.
    pub fn len(&self, path: &str) -> Option<u64> {
        let file = self.files.get(Path::new(path))?;
        Some(file.bytes.len() as u64)
    }

    /// How often the power went.
    pub fn power_cuts(&self) -> u64 {
        self.boots
    }

    /// What it has done and suffered so far.
    pub fn tally(&self) -> DiskTally {
        self.tally
    }

    /// Executes a job; also when its result comes. Each lane does one job after the other.
    pub fn run(&mut self, job: Job, now: Instant) -> (Done, Instant) {
        self.tally.jobs += 1;
        let lane = match job.lane() {
            Lane::Paging => 0,
            Lane::Disk => 1,
            Lane::Journal => 2,
        };
        let lane = &mut self.free_at[lane];
        let mut takes = Duration::from_micros(20 + u64::from(self.rng.below(500)));
        if matches!(job.work, Work::Sync { .. }) {
            takes += self.faults.slow_sync;
        }
        *lane = (*lane).max(now) + takes;
        let at = *lane;
        let outcome = self.outcome(job.work);
        let id = job.id;
        (Done { id, outcome }, at)
    }

    fn outcome(&mut self, work: Work) -> Outcome {
        match work {
            Work::Scan {
                root,
                meta,
                access,
                skipped,
                journal,
                ..
            } => {
                let journal = journal.and_then(|(path, _)| self.read_journal(path));
                let scan = match access {
                    Access::ReadWrite => self.has_room(&root, &meta, skipped.as_deref()),
                    Access::ReadOnly => Ok(()),
                };
                let scan = scan.map(|()| self.scan(&meta));
                Outcome::Scanned(scan.map(|scan| Scan { journal, ..scan }))
            }
            Work::CreateEmpty { meta, skipped, .. } => {
                let mut dirs = BTreeSet::new();
                let files = (0..).zip(&meta.files);
                let files = files.filter(|(file, _)| !is_skipped(skipped.as_deref(), *file));
                let files = files.map(|(_, entry)| entry);
                for file in files.filter(|file| file.kind == FileKind::Data && file.len == 0) {
                    dirs.insert(dir_of(file.path.as_path()));
                    self.made_if_missing(path_of(file));
                }
                Outcome::CreatedEmpty(Ok(dirs.into_iter().collect()))
            }
            Work::Open {
                meta, file, mode, ..
            } => Outcome::Opened(self.open(&meta, file, mode)),
            Work::Read {
                file,
                offset,
                len,
                buffer,
                ..
            } => Outcome::Read(self.read(&file, offset, len, buffer)),
            Work::Write {
                file,
                offset,
                bytes,
                ranges,
                ..
            } => {
                let mut runs = ranges.iter().map(|r| r.start as usize..r.end as usize);
                let written = runs.try_for_each(|run| {
                    let at = offset as usize + run.start;
                    self.write(&file, at, &bytes[run])
                });
                Outcome::Finished(written)
            }
            Work::Sync {
                files, found, dirs, ..
            } => {
                let synced = files.iter().try_for_each(|file| self.sync(&file.file));
                let synced = synced.and_then(|()| self.sync_found(found));
                if synced.is_ok() {
                    self.sync_dirs(&dirs);
                }
                Outcome::Finished(synced)
            }
            Work::Close { file, written, .. } => {
                let synced = if written { self.sync(&file) } else { Ok(()) };
                Outcome::Finished(synced)
            }
            Work::LookAtFiles { files, .. } => Outcome::Looked(self.look_at(&files)),
            Work::LookAtTimes { meta, .. } => Outcome::Times(self.times(&meta)),
            Work::Prove {
                meta, piece, hash, ..
            } => Outcome::Proved(self.prove(&meta, piece, &hash)),
            Work::FindText { path, text } => {
                Outcome::TextFound(self.texts.get(&path) == Some(&text))
            }
            Work::ReadText { path, .. } => Outcome::TextRead(self.read_text(path)),
            Work::GiveBack => Outcome::GaveBack,
            Work::MakeJournal { path, bytes } => {
                Outcome::JournalMade(self.make_journal(path, bytes))
            }
            Work::MakeFirstJournal { path, bytes } => {
                Outcome::JournalMade(self.make_first_journal(path, &bytes))
            }
            Work::AppendJournal {
                file,
                offset,
                bytes,
                ..
            } => Outcome::Finished(self.append(&file, offset as usize, &bytes)),
            Work::InstallJournal { path, .. } => Outcome::Finished(self.install_journal(path)),
            Work::SyncJournal {
                file,
                path,
                has_new_name,
            } => Outcome::Finished(self.sync_journal(&file, &path, has_new_name)),
            Work::RemoveJournal { path } => {
                self.rename_handles(&path, Path::new(GONE));
                self.files.remove(&path);
                Outcome::Finished(Ok(()))
            }
            Work::LeaveJournal { file, len, .. } => {
                Outcome::JournalLeft(self.leave_journal(&file, len))
            }
            Work::OpenJournal { path, left } => Outcome::JournalMade(self.open_journal(path, left)),
            Work::Map { .. } | Work::Populate { .. } | Work::Unmap { .. } => {
                unreachable!("buffers are used here, not maps")
            }
        }
    }

    fn scan(&self, meta: &Arc<Metainfo>) -> Scan {
        let presence = |file: &FileEntry| match file.kind {
            FileKind::Pad => Presence::Whole,
            FileKind::Data => match self.files.get(file.path.as_path()) {
                Some(found) if found.bytes.len() as u64 >= file.len => Presence::Whole,
                Some(found) => Presence::Short {
                    len: found.bytes.len() as u64,
                },
                None => Presence::Absent,
            },
        };
        let stamp = |file: &FileEntry| match file.kind {
            FileKind::Data if file.len > 0 => self.stamp(file.path.as_path()),
            FileKind::Data | FileKind::Pad => Stamp::default(),
        };
        Scan {
            mounts: Vec::new(),
            files: meta.files.iter().map(presence).collect(),
            stamps: meta.files.iter().map(stamp).collect(),
            times: self.times(meta),
            boot: Some(self.boot()),
            journal: None,
            anchor: None,
        }
    }

    /// Whether all that is missing of a torrent fits.
    fn has_room(
        &mut self,
        root: &Path,
        meta: &Metainfo,
        skipped: Option<&Bitfield>,
    ) -> Result<(), StorageError> {
        let missing = |file: &FileEntry| {
            let found = self.files.get(file.path.as_path());
            file.len
                .saturating_sub(found.map_or(0, |f| f.bytes.len() as u64))
        };
        let files = (0..).zip(&meta.files);
        let files = files
            .filter(|(file, entry)| entry.kind == FileKind::Data && !is_skipped(skipped, *file));
        let need = files.map(|(_, entry)| missing(entry)).sum();
        match self.free() {
            Some(free) if free < need && !self.faults.hides_lack => {
                self.tally.refused += 1;
                let path = root.to_path_buf();
                Err(StorageError::NoSpace { path, need, free })
            }
            _ => Ok(()),
        }
    }

    /// Bytes that still fit, if there is a limit.
    fn free(&self) -> Option<u64> {
        Some(self.faults.capacity?.saturating_sub(self.used()))
    }

    /// Bytes of all files.
    pub fn used(&self) -> u64 {
        self.files.values().map(|f| f.bytes.len() as u64).sum()
    }

    fn open(&mut self, meta: &Metainfo, file: u32, mode: OpenMode) -> Result<Opened, StorageError> {
        let entry = &meta.files[file as usize];
        let path = path_of(entry);
        self.may_fail(0, &path, "open")?;
        let free = self.free();
        let found = self.files.get(&path);
        let len_before = found.map(|found| found.bytes.len() as u64);
        let mut dirs = Vec::new();
        let before = self.stamp(&path);
        match (mode, len_before) {
            (OpenMode::Read | OpenMode::ReadShort, None) => return Ok(Opened::Absent),
            (OpenMode::Read, Some(len)) if len < entry.len => return Ok(Opened::Absent),
            (OpenMode::Read | OpenMode::ReadShort, Some(_)) => {}
            (OpenMode::Write | OpenMode::WritePart, _) => {
                let need = entry.len.saturating_sub(len_before.unwrap_or(0));
                if let Some(free) = free.filter(|&free| free < need) {
                    self.tally.refused += 1;
                    return Err(StorageError::NoSpace { path, need, free });
                }
                if found.is_none() {
                    dirs.push(dir_of(&path));
                }
                let stored = self.made_if_missing(path.clone());
                let len = stored.bytes.len().max(entry.len as usize);
                stored.bytes.resize(len, 0);
            }
        }
        let after = self.stamp(&path);
        Ok(Opened::Open {
            file: self.handle(path),
            is_writable: matches!(mode, OpenMode::Write | OpenMode::WritePart),
            len_before: len_before.unwrap_or(0),
            stamps: [before, after],
            allocated: true,
            is_at_home: true,
            dirs,
        })
    }

    fn read(
        &mut self,
        file: &Handle,
        offset: u64,
        len: u32,
        mut buffer: Vec<u8>,
    ) -> Result<Vec<u8>, StorageError> {
        self.may_fail(self.faults.reads_ppm, &self.path(file), "read")?;
        buffer.clear();
        let bytes = &self.file(file)?.bytes;
        let end = (offset as usize + len as usize).min(bytes.len());
        buffer.extend_from_slice(&bytes[(offset as usize).min(end)..end]);
        buffer.resize(len as usize, 0);
        Ok(buffer)
    }

    fn write(&mut self, file: &Handle, at: usize, bytes: &[u8]) -> Result<(), StorageError> {
        self.may_fail(self.faults.writes_ppm, &self.path(file), "write")?;
        let stored = self.file(file)?;
        stored.writes += 1;
        stored.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        let pages = at / PAGE_LEN..(at + bytes.len()).div_ceil(PAGE_LEN);
        stored.dirty.extend(pages);
        Ok(())
    }

    fn sync(&mut self, file: &Handle) -> Result<(), StorageError> {
        let failed = self.may_fail(self.faults.syncs_ppm, &self.path(file), "sync");
        let stored = self.file(file)?;
        if let Err(error) = failed {
            // As Linux does: the pages count as clean, and nobody will write them.
            stored.dirty.clear();
            return Err(error);
        }
        stored.synced.clone_from(&stored.bytes);
        stored.dirty.clear();
        Ok(())
    }

    fn sync_dirs(&mut self, dirs: &[PathBuf]) {
        for (path, file) in &mut self.files {
            file.is_entry_synced |= dirs.contains(&dir_of(path));
        }
    }

    fn handle(&mut self, path: PathBuf) -> Handle {
        self.handles.push(path);
        Handle::Sim(self.handles.len() as u64 - 1)
    }

    fn may_fail(
        &mut self,
        chance_ppm: u32,
        path: &Path,
        action: &'static str,
    ) -> Result<(), StorageError> {
        let is_the_one = self.faults.fails_at == Some(self.calls);
        self.calls += 1;
        let is_chance = chance_ppm > 0 && self.rng.below(1_000_000) < chance_ppm;
        if !is_the_one && !is_chance {
            return Ok(());
        }
        self.tally.errors += 1;
        Err(StorageError::Io {
            path: path.to_path_buf(),
            action,
            message: "input/output error".to_owned(),
        })
    }

    fn path(&self, file: &Handle) -> PathBuf {
        self.handles[number(file)].clone()
    }

    fn file(&mut self, handle: &Handle) -> Result<&mut File, StorageError> {
        let path = &self.handles[number(handle)];
        let missing = || StorageError::Missing { path: path.clone() };
        self.files.get_mut(path).ok_or_else(missing)
    }
}

fn data_files(meta: &Metainfo) -> impl Iterator<Item = &FileEntry> {
    meta.files.iter().filter(|f| f.kind == FileKind::Data)
}

fn path_of(file: &FileEntry) -> PathBuf {
    file.path.as_path().to_path_buf()
}

fn dir_of(path: &Path) -> PathBuf {
    path.parent().map(Path::to_path_buf).unwrap_or_default()
}

fn number(file: &Handle) -> usize {
    match file {
        Handle::Sim(number) => *number as usize,
        Handle::File(_) => unreachable!("only files of this disk are handed out"),
    }
}

/// The path of a file that has no name any more.
const GONE: &str = "(gone)";
/// What the kernel writes back at a time, and what the disk writes at a time, bytes.
const PAGE_LEN: usize = 4096;
const SECTOR_LEN: usize = 512;

#[cfg(test)]
mod tests;
