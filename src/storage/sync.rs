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
        let dirs = std::mem::take(&mut torrent.new_dirs);
        if files.is_empty() && dirs.is_empty() {
            return self.fall(id);
        }
        if let Some(barrier) = torrent.barriers.front_mut() {
            barrier.is_syncing = true;
        }
        let work = Work::Sync {
            root: Arc::clone(&self.root),
            files,
            dirs: dirs.into_iter().collect(),
        };
        self.submit(Purpose::Sync(id), work);
    }

    /// Takes the result of a sync.
    pub(super) fn synced(&mut self, id: TorrentId, result: Result<(), StorageError>) {
        match result {
            Ok(()) => {
                self.fall(id);
                self.turn_barriers(id);
            }
            Err(error) => self.fail(id, error),
        }
    }

    fn fall(&mut self, id: TorrentId) {
        let Some(torrent) = self.torrents.get_mut(&id) else {
            return;
        };
        if let Some(barrier) = torrent.barriers.pop_front() {
            self.events.push_back(match barrier.aim {
                Aim::Settled => Event::Settled { torrent: id },
                Aim::Durable => Event::Durable { torrent: id },
            });
        }
    }
}
