//! A disk in memory that executes storage's jobs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::base::rng::Rng;
use crate::meta::metainfo::{FileKind, Metainfo};
use crate::storage::jobs::{Done, Handle, Job, OpenMode, Opened, Outcome, Presence, Scan, Work};

/// Files by name; handles are places in a list.
#[derive(Debug)]
pub struct Disk {
    files: BTreeMap<PathBuf, Vec<u8>>,
    handles: Vec<PathBuf>,
    rng: Rng,
}

impl Disk {
    /// An empty disk; `rng` draws how long each job takes.
    pub fn new(rng: Rng) -> Self {
        Self {
            files: BTreeMap::new(),
            handles: Vec::new(),
            rng,
        }
    }

    /// Puts all files of a torrent there.
    pub fn fill(&mut self, meta: &Metainfo, content: &[u8]) {
        for file in meta.files.iter().filter(|file| file.kind == FileKind::Data) {
            let (begin, end) = (file.offset as usize, (file.offset + file.len) as usize);
            self.files.insert(
                file.path.as_path().to_path_buf(),
                content[begin..end].to_vec(),
            );
        }
    }

    /// Whether all files of a torrent are there and right.
    pub fn holds(&self, meta: &Metainfo, content: &[u8]) -> bool {
        meta.files
            .iter()
            .filter(|file| file.kind == FileKind::Data)
            .all(|file| {
                let (begin, end) = (file.offset as usize, (file.offset + file.len) as usize);
                let found = self.files.get(file.path.as_path());
                found.is_some_and(|bytes| bytes[..] == content[begin..end])
            })
    }

    /// Executes a job; also how long that takes.
    pub fn run(&mut self, job: Job) -> (Done, Duration) {
        let outcome = match job.work {
            Work::Scan { meta, .. } => Outcome::Scanned(Ok(self.scan(&meta))),
            Work::CreateEmpty { meta, .. } => {
                let empty =
                    |f: &&crate::meta::metainfo::FileEntry| f.kind == FileKind::Data && f.len == 0;
                for file in meta.files.iter().filter(empty) {
                    self.files
                        .entry(file.path.as_path().to_path_buf())
                        .or_default();
                }
                Outcome::CreatedEmpty(Ok(Vec::new()))
            }
            Work::Open {
                meta, file, mode, ..
            } => Outcome::Opened(Ok(self.open(&meta, file, mode))),
            Work::Read {
                file,
                offset,
                len,
                mut buffer,
                ..
            } => {
                buffer.clear();
                let bytes = &self.files[&self.handles[number(&file)]];
                let end = (offset as usize + len as usize).min(bytes.len());
                buffer.extend_from_slice(&bytes[(offset as usize).min(end)..end]);
                buffer.resize(len as usize, 0);
                Outcome::Read(Ok(buffer))
            }
            Work::Write {
                file,
                offset,
                bytes,
                range,
                ..
            } => {
                let path = &self.handles[number(&file)];
                let stored = self.files.get_mut(path).expect("an open file exists");
                let begin = offset as usize + range.start;
                stored[begin..begin + range.len()].copy_from_slice(&bytes[range]);
                Outcome::Finished(Ok(()))
            }
            Work::Sync { .. } | Work::Close { .. } => Outcome::Finished(Ok(())),
            Work::Map { .. } | Work::Populate { .. } | Work::Unmap { .. } => {
                unreachable!("buffers are used here, not maps")
            }
        };
        let delay = Duration::from_micros(20 + u64::from(self.rng.below(500)));
        (
            Done {
                id: job.id,
                outcome,
            },
            delay,
        )
    }

    fn scan(&self, meta: &Arc<Metainfo>) -> Scan {
        let presence = |file: &crate::meta::metainfo::FileEntry| match file.kind {
            FileKind::Pad => Presence::Whole,
            FileKind::Data => match self.files.get(file.path.as_path()) {
                Some(bytes) if bytes.len() as u64 >= file.len => Presence::Whole,
                Some(_) => Presence::Short,
                None => Presence::Absent,
            },
        };
        Scan {
            files: meta.files.iter().map(presence).collect(),
            anchor: None,
        }
    }

    fn open(&mut self, meta: &Metainfo, file: u32, mode: OpenMode) -> Opened {
        let entry = &meta.files[file as usize];
        let path = entry.path.as_path().to_path_buf();
        let len_before = self.files.get(&path).map(|bytes| bytes.len() as u64);
        match (mode, len_before) {
            (OpenMode::Read, None) => return Opened::Absent,
            (OpenMode::Read, Some(len)) if len < entry.len => return Opened::Absent,
            (OpenMode::Read, Some(_)) => {}
            (OpenMode::Write, _) => {
                let bytes = self.files.entry(path.clone()).or_default();
                bytes.resize(bytes.len().max(entry.len as usize), 0);
            }
        }
        self.handles.push(path);
        Opened::Open {
            file: Handle::Sim(self.handles.len() as u64 - 1),
            is_writable: mode == OpenMode::Write,
            len_before: len_before.unwrap_or(0),
            allocated: true,
            is_at_home: true,
            dirs: Vec::new(),
        }
    }
}

fn number(file: &Handle) -> usize {
    match file {
        Handle::Sim(number) => *number as usize,
        Handle::File(_) => unreachable!("only files of this disk are handed out"),
    }
}
