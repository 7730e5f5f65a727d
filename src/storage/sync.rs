//! When everything stored so far is with the kernel, and when it is on the disk.
//!
//! A *barrier* stands behind the stores that came before it. It falls when none of those waits or
//! is only in a buffer of ours; for [`Storage::sync`], when the files and folders were brought to
//! the disk after that, and then the journal that says so. Stores that come later do not hold it
//! up.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use super::error::StorageError;
use super::files::{FileState, folders_of};
use super::jobs::{SyncFile, Work};
use super::journal::log::Mark;
use super::journal::{Record, time_of_group};
use super::logs::LogId;
use super::memory::Frozen;
use super::{Event, Purpose, Storage, Torrent};
use crate::base::id::{Ticket, TorrentId};

/// Somebody wants to know when the stores before it are safe.
#[derive(Debug)]
pub(super) struct Barrier {
    aim: Aim,
    /// Sequence number of the last store before it.
    seq: u64,
    stage: Stage,
    /// What its sync makes durable.
    frozen: Frozen,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Aim {
    /// The kernel has everything.
    Settled(Ticket),
    /// Everything is on the disk, and the journal says so there.
    Durable(Ticket),
    /// Everything is on the disk, and the journal may say so. Nobody else hears of it.
    Commit,
}

/// What a barrier waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The kernel to have everything.
    Writing,
    /// Its sync job.
    Syncing,
    /// The pieces of former processes to be read back from the disk.
    Proving,
    /// The look at when files were last written, which tells what others write later.
    Looking,
    /// The journal to be on the disk up to there.
    Noting(LogId, Mark),
}

impl Barrier {
    /// Nothing is claimed of a piece any more.
    pub fn forget(&mut self, piece: u32) {
        self.frozen.pieces.retain(|&frozen| frozen != piece);
        self.frozen.to_prove.retain(|&frozen| frozen != piece);
    }
}

impl Aim {
    fn reached(self, torrent: TorrentId) -> Option<Event> {
        match self {
            Self::Settled(ticket) => Some(Event::Settled { torrent, ticket }),
            Self::Durable(ticket) => Some(Event::Durable { torrent, ticket }),
            Self::Commit => None,
        }
    }
}

impl Storage {
    /// Asks for [`Event::Settled`]: every byte stored so far is with the kernel.
    pub fn settle(&mut self, torrent: TorrentId, ticket: Ticket) {
        self.raise(torrent, Aim::Settled(ticket));
    }

    /// Asks for [`Event::Durable`]: every byte stored so far is on the disk, and so is what a
    /// former process had left, as far as it was proven to be.
    pub fn sync(&mut self, torrent: TorrentId, ticket: Ticket) {
        self.raise(torrent, Aim::Durable(ticket));
    }

    /// The same for a process that is about to end: what a former one left is not waited for, the
    /// next one will go on with it.
    pub fn leave(&mut self, torrent: TorrentId, ticket: Ticket) {
        if let Some(memory) = self.memory(torrent) {
            memory.is_leaving = true;
        }
        self.raise(torrent, Aim::Durable(ticket));
    }

    /// Lets the pieces that are checked become durable.
    pub(super) fn raise_commit(&mut self, torrent: TorrentId) {
        self.raise(torrent, Aim::Commit);
    }

    fn raise(&mut self, id: TorrentId, aim: Aim) {
        if let Some(event) = aim.reached(id) {
            self.answer_for_waiting(id, event);
        }
        if let Some(torrent) = self.torrents.get_mut(&id) {
            if torrent.barriers.is_empty() {
                torrent.barriers.reserve_exact(1); // each torrent has one at the start
            }
            torrent.barriers.push_back(Barrier {
                aim,
                seq: self.seq,
                stage: Stage::Writing,
                frozen: Frozen::default(),
            });
            self.turn_barriers(id);
        }
    }

    /// Goes on with the barriers of a torrent after something came to its end.
    ///
    /// Those that wait for the kernel alone do not wait for the syncs before them; syncs go one
    /// after the other.
    pub(super) fn turn_barriers(&mut self, id: TorrentId) {
        self.settle_barriers(id);
        while let Some(torrent) = self.torrents.get_mut(&id)
            && let Some(barrier) = torrent.barriers.front_mut()
        {
            let (seq, stage) = (barrier.seq, barrier.stage);
            let is_created = torrent.creating == 0;
            match stage {
                Stage::Syncing | Stage::Looking => return,
                Stage::Writing if !is_created || !self.is_written_up_to(id, seq) => return,
                Stage::Writing => {
                    if !self.sync_files(id) {
                        return;
                    }
                }
                Stage::Proving => {
                    if self.awaits_proofs(id) {
                        return;
                    }
                    self.look_at_times(id);
                }
                Stage::Noting(log, mark) => {
                    let open = self.logs.get(&log);
                    if open.is_some_and(|open| !open.log.is_synced(mark)) {
                        return;
                    }
                    self.fall(id);
                }
            }
        }
    }

    /// Takes down the barriers that wait for no sync and have nothing to wait for any more.
    fn settle_barriers(&mut self, id: TorrentId) {
        let mut place = 0;
        while let Some(torrent) = self.torrents.get(&id)
            && let Some(barrier) = torrent.barriers.get(place)
        {
            let (aim, seq, is_created) = (barrier.aim, barrier.seq, torrent.creating == 0);
            let is_settling = matches!(aim, Aim::Settled(_));
            if is_settling && is_created && self.is_written_up_to(id, seq) {
                if let Some(torrent) = self.torrents.get_mut(&id) {
                    torrent.barriers.remove(place);
                    torrent.let_go_of_room();
                }
                self.events.extend(aim.reached(id));
            } else if is_settling {
                return; // those behind it have more to wait for
            } else {
                place += 1;
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

    /// Submits the sync of everything that was written since the last one. Says whether the first
    /// barrier can go on now, as there is nothing to sync.
    fn sync_files(&mut self, id: TorrentId) -> bool {
        let Some(torrent) = self.torrents.get(&id) else {
            return false;
        };
        if torrent.closing > 0 {
            return false; // their syncs count too: wait for what they say
        }
        let frozen = self.freeze(id);
        let Some(torrent) = self.torrents.get_mut(&id) else {
            return false;
        };
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
        let mut found = Vec::new();
        for &index in &frozen.found {
            let path = torrent.meta.files[index as usize].path.as_path();
            // Who made its folders is not known: all names on the way have to be safe.
            torrent.new_dirs.extend(folders_of(path));
            found.push(path.to_path_buf());
        }
        let dirs: Vec<_> = std::mem::take(&mut torrent.new_dirs).into_iter().collect();
        if let Some(barrier) = torrent.barriers.front_mut() {
            barrier.frozen = frozen;
            barrier.stage = Stage::Syncing;
        }
        let is_nothing = files.is_empty() && found.is_empty() && dirs.is_empty();
        if is_nothing && torrent.loose_count == 0 {
            self.is_on_disk(id);
            return true;
        }
        self.submit_sync(id, files, found, dirs);
        false
    }

    fn submit_sync(
        &mut self,
        id: TorrentId,
        mut files: Vec<SyncFile>,
        mut found: Vec<PathBuf>,
        mut dirs: Vec<PathBuf>,
    ) {
        let Some(torrent) = self.torrents.get_mut(&id) else {
            return;
        };
        let count = files.len() + found.len() + dirs.len();
        let is_large = count > SYNC_COUNT_MAX && !torrent.has_files_elsewhere;
        let mut anchor = None;
        if (torrent.loose_count > 0 || is_large) && self.anchor.is_some() {
            anchor = self.anchor.clone();
            torrent.loose_count += 1; // until this sync is through: see `synced`
            if !torrent.has_files_elsewhere {
                files.clear();
                found.clear();
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
            found,
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
                self.is_on_disk(id);
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
                    self.lapse(torrent, error.clone());
                }
            }
        }
    }

    /// What the first barrier stands for is on the disk: the journal takes note of it, and has to
    /// be on the disk too before anybody is told.
    fn is_on_disk(&mut self, id: TorrentId) {
        let Some(torrent) = self.torrents.get_mut(&id) else {
            return;
        };
        let Some(barrier) = torrent.barriers.front_mut() else {
            return;
        };
        let (aim, frozen) = (barrier.aim, std::mem::take(&mut barrier.frozen));
        self.commit(id, frozen);
        let Some(torrent) = self.torrents.get_mut(&id) else {
            return;
        };
        match (torrent.barriers.front_mut(), torrent.memory.is_some(), aim) {
            (Some(barrier), true, Aim::Durable(_)) => {
                barrier.stage = Stage::Proving;
            }
            _ => self.fall(id),
        }
    }

    fn look_at_times(&mut self, id: TorrentId) {
        let Some(torrent) = self.torrents.get_mut(&id) else {
            return;
        };
        if let Some(barrier) = torrent.barriers.front_mut() {
            barrier.stage = Stage::Looking;
        }
        let work = Work::LookAtTimes {
            root: Arc::clone(&self.root),
            meta: Arc::clone(&torrent.meta),
        };
        self.submit(Purpose::LookAtTimes(id), work);
    }

    /// Takes what was seen of the files after a sync that somebody waits for.
    pub(super) fn looked_at_times(&mut self, id: TorrentId, times: &[u64]) {
        let now = self.now;
        let Some(torrent) = self.torrents.get_mut(&id) else {
            return;
        };
        let (Some(memory), Some(barrier)) = (&torrent.memory, torrent.barriers.front_mut()) else {
            return;
        };
        if barrier.stage != Stage::Looking {
            return; // the look was that of a former life
        }
        let log = memory.log;
        let open = &mut self.logs.get_mut(&log).expect("a torrent's journal").log;
        let (binding, known) = (*open.binding(), open.known());
        let times = (0..binding.group_count())
            .map(|group| (group, time_of_group(&binding, group, times)))
            .filter(|&(group, time)| known.times[group as usize] != time);
        let times: Vec<(u32, u64)> = times.collect();
        if !times.is_empty() {
            open.push(Record::Timed(times), now);
        }
        barrier.stage = Stage::Noting(log, open.sync(now));
        self.log_queue.insert(log);
        self.turn_barriers(id);
    }

    fn fall(&mut self, id: TorrentId) {
        let Some(torrent) = self.torrents.get_mut(&id) else {
            return;
        };
        let barrier = torrent.barriers.pop_front();
        torrent.let_go_of_room();
        let event = barrier.and_then(|barrier| barrier.aim.reached(id));
        self.events.extend(event);
    }
}

impl Torrent {
    /// Nobody waits any more: room for those who did is not kept.
    fn let_go_of_room(&mut self) {
        if self.barriers.is_empty() {
            self.barriers = VecDeque::new();
        }
    }
}

/// Files and folders above which a sync is one of the whole file system (measured: no false claim,
/// and the cost of one file's).
const SYNC_COUNT_MAX: usize = 32;
