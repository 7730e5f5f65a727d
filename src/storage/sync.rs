//! When everything stored so far is with the kernel, and when it is on the disk.
//!
//! A *barrier* stands behind the stores that came before it. It falls when none of those waits or
//! is only in a buffer of ours; for [`Storage::sync`], when the files and folders were brought to
//! the disk after that. Stores that come later do not hold it up.

use std::sync::Arc;

use super::error::StorageError;
use super::files::FileState;
use super::jobs::{SyncFile, Work};
use super::{Event, Purpose, Storage};
use crate::base::id::TorrentId;

/// Somebody wants to know when the stores before it are safe.
#[derive(Debug)]
pub(super) struct Barrier {
    aim: Aim,
    /// Sequence number of the last store before it.
    seq: u64,
    /// Its sync job is under way.
    is_syncing: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Aim {
    Settled,
    Durable,
}

impl Aim {
    fn reached(self, torrent: TorrentId) -> Event {
        match self {
            Self::Settled => Event::Settled { torrent },
            Self::Durable => Event::Durable { torrent },
        }
    }
}

impl Storage {
    /// Asks for [`Event::Settled`]: every byte stored so far is with the kernel.
    pub fn settle(&mut self, torrent: TorrentId) {
        self.raise(torrent, Aim::Settled);
    }

    /// Asks for [`Event::Durable`]: every byte stored so far is on the disk.
    pub fn sync(&mut self, torrent: TorrentId) {
        self.raise(torrent, Aim::Durable);
    }

    fn raise(&mut self, id: TorrentId, aim: Aim) {
        self.answer_for_waiting(id, aim.reached(id));
        if let Some(torrent) = self.torrents.get_mut(&id) {
            torrent.barriers.push_back(Barrier {
                aim,
                seq: self.seq,
                is_syncing: false,
            });
            self.turn_barriers(id);
        }
    }

    /// Goes on with the barriers of a torrent after something came to its end.
    pub(super) fn turn_barriers(&mut self, id: TorrentId) {
        while let Some(torrent) = self.torrents.get_mut(&id)
            && let Some(barrier) = torrent.barriers.front_mut()
            && !barrier.is_syncing
        {
            let (aim, seq) = (barrier.aim, barrier.seq);
            if torrent.creating > 0 || !self.is_written_up_to(id, seq) {
                return;
            }
            match aim {
                Aim::Settled => self.fall(id),
                Aim::Durable => return self.sync_files(id),
            }
        }
    }

    /// Whether the kernel has all stores up to `seq`; sees to it that it will.
    fn is_written_up_to(&mut self, id: TorrentId, seq: u64) -> bool {
        let late: Vec<usize> = self
            .windows
            .iter()
            .filter(|(_, window)| window.key.torrent == id)
            .filter(|(_, window)| {
                window
                    .oldest_unwritten()
                    .is_some_and(|oldest| oldest <= seq)
            })
            .map(|(slot, _)| slot)
            .collect();
        for &slot in &late {
            if self.windows.get(slot).job.is_none() && self.windows.get(slot).is_dirty() {
                self.write_back(slot);
            }
        }
        late.is_empty()
    }

    /// Submits the sync of everything that was written since the last one.
    fn sync_files(&mut self, id: TorrentId) {
        let Some(torrent) = self.torrents.get_mut(&id) else {
            return;
        };
        if torrent.closing > 0 {
            return; // their syncs count too: wait for what they say
        }
        let mut files = Vec::new();
        for &(of, index) in &self.open_files {
            if of != id {
                continue;
            }
            let slot = &mut torrent.files[index as usize];
            if let FileState::Open { file, .. } = &slot.state
                && (slot.is_written || slot.is_created)
            {
                slot.is_written = false;
                files.push(SyncFile {
                    file: file.clone(),
                    path: self
                        .root
                        .join(torrent.meta.files[index as usize].path.as_path()),
                    created: std::mem::take(&mut slot.is_created),
                });
            }
        }
        let mut dirs: Vec<_> = std::mem::take(&mut torrent.new_dirs).into_iter().collect();
        if files.is_empty() && dirs.is_empty() && torrent.loose_count == 0 {
            return self.fall(id);
        }
        if let Some(barrier) = torrent.barriers.front_mut() {
            barrier.is_syncing = true;
        }
        let is_large = files.len() + dirs.len() > SYNC_COUNT_MAX && !torrent.has_files_elsewhere;
        let mut anchor = None;
        if (torrent.loose_count > 0 || is_large) && self.anchor.is_some() {
            anchor = self.anchor.clone();
            torrent.loose_count += 1; // until this sync is through: see `synced`
            if !torrent.has_files_elsewhere {
                files.clear();
                dirs.clear();
            }
        }
        let purpose = Purpose::Sync {
            torrent: id,
            loose_count: torrent.loose_count,
        };
        let work = Work::Sync {
            root: Arc::clone(&self.root),
            files,
            dirs,
            anchor,
        };
        self.submit(purpose, work);
    }

    /// Takes the result of a sync.
    ///
    /// The kernel tells a failed write-back once to each descriptor, and all torrents share the one
    /// that whole file systems are synced through: an error there ends all that rely on it.
    pub(super) fn synced(
        &mut self,
        id: TorrentId,
        loose_count: u32,
        result: Result<(), StorageError>,
    ) {
        match result {
            Ok(()) => {
                if let Some(torrent) = self.torrents.get_mut(&id) {
                    torrent.loose_count -= loose_count;
                }
                self.fall(id);
                self.turn_barriers(id);
            }
            Err(error) => {
                let mut failing = vec![id];
                if loose_count > 0 {
                    let loose = self.torrents.iter().filter(|(_, of)| of.loose_count > 0);
                    let others = loose.map(|(other, _)| *other);
                    failing.extend(others.filter(|other| *other != id));
                }
                for torrent in failing {
                    self.fail(torrent, error.clone());
                }
            }
        }
    }

    fn fall(&mut self, id: TorrentId) {
        let Some(torrent) = self.torrents.get_mut(&id) else {
            return;
        };
        if let Some(barrier) = torrent.barriers.pop_front() {
            self.events.push_back(barrier.aim.reached(id));
        }
    }
}

/// Files and folders above which a sync is one of the whole file system (measured: no false claim,
/// and the cost of one file's).
const SYNC_COUNT_MAX: usize = 32;
