//! Files that somebody changes, or whose disk fails, while they are in use.
//!
//! It is noticed in three ways: a map loses its memory when it is touched ([`Map::is_poisoned`]),
//! the kernel cannot read what it was lent, and a look at the open files once a second, as long as
//! they are in use, finds one cut, gone or replaced. Whichever comes first, from then on nothing of
//! the torrent is lent or stored: it has lapsed, and what is there shows when it is added again.
//!
//! A disk that is gone is looked for also while no file is in use ([`Storage::watch_disks`]). The
//! torrent then waits as one whose files cannot be written does.
//!
//! [`Map::is_poisoned`]: super::map::Map::is_poisoned

use std::sync::Arc;
use std::time::Duration;

use super::error::StorageError;
use super::files::FileState;
use super::jobs::{Look, Work};
use super::journal::{Claim, Record};
use super::map;
use super::span::{Place, WindowKey, chunks};
use super::window::Body;
use super::{Event, Keep, Purpose, Storage};
use crate::base::id::TorrentId;
use crate::base::plan::{Segment, WritePlan};
use crate::base::time::Instant;

/// The look at open files, and at the disks of all torrents.
#[derive(Debug)]
pub(super) struct Watch {
    /// When it is due; never while no file is in use, unless disks are watched.
    pub at: Instant,
    /// Whether disks are looked at while no file is in use.
    of_disks: bool,
    /// Whose files and disks a job looks at, in its order, while there is such a job; `None` for
    /// torrents that went meanwhile.
    under_way: Option<Vec<Option<TorrentId>>>,
    /// Maps of this process that were poisoned before.
    poisoned: u64,
}

impl Watch {
    /// Nothing is in use.
    pub fn new() -> Self {
        Self {
            at: Instant::NEVER,
            of_disks: false,
            under_way: None,
            poisoned: map::poisoned_count(),
        }
    }

    /// What is seen of a torrent's files is of no interest any more.
    pub fn forget(&mut self, torrent: TorrentId) {
        for of in self.under_way.iter_mut().flatten() {
            if *of == Some(torrent) {
                *of = None;
            }
        }
    }
}

impl Storage {
    /// Bytes of open files are used: somebody has to look after them.
    pub(super) fn watch(&mut self) {
        self.watch_within(WATCH_INTERVAL);
    }

    /// From now on, as long as there are torrents, their disks are looked at also while none of
    /// their files is in use: one that is gone is to be told of, and files that are missing are not
    /// to be made where it was. To be called before the first torrent is added.
    pub fn watch_disks(&mut self) {
        self.watch.of_disks = true;
    }

    /// A torrent is there, in use or not.
    pub(super) fn watch_its_disk(&mut self) {
        if self.watch.of_disks {
            self.watch_within(DISKS_INTERVAL);
        }
    }

    fn watch_within(&mut self, time: Duration) {
        let at = self.now + time;
        if self.watch.at > at && self.watch.under_way.is_none() {
            self.watch.at = at;
        }
    }

    /// Has the open files looked at, if it is time.
    pub(super) fn turn_watch(&mut self) {
        if self.watch.at > self.now {
            return;
        }
        self.watch.at = Instant::NEVER;
        self.rest();
        let mut whose = Vec::new();
        let mut files = Vec::new();
        for &(id, index) in &self.open_files {
            let torrent = &self.torrents[&id];
            if let FileState::Open { file, .. } = &torrent.files[index as usize].state {
                let entry = &torrent.meta.files[index as usize];
                let is_short = torrent.files[index as usize].is_short;
                whose.push(Some(id));
                files.push(Look {
                    file: file.clone(),
                    path: entry.path.as_path().to_path_buf(),
                    len: if is_short { 0 } else { entry.len },
                });
            }
        }
        let mut torrents = Vec::new();
        if self.watch.of_disks {
            whose.extend(self.torrents.keys().copied().map(Some));
            torrents.extend(self.torrents.values().map(|of| Arc::clone(&of.meta)));
        }
        if whose.is_empty() {
            return;
        }
        self.watch.under_way = Some(whose);
        let work = Work::LookAtFiles {
            root: Arc::clone(&self.root),
            files,
            torrents,
        };
        self.submit(Purpose::Look, work);
    }

    /// Takes what was seen of open files and disks.
    pub(super) fn looked(&mut self, seen: Vec<Option<StorageError>>) {
        let whose = self.watch.under_way.take().unwrap_or_default();
        for (of, error) in whose.into_iter().zip(seen) {
            if let (Some(id), Some(error)) = (of, error) {
                self.lose_faith(id, error);
            }
        }
        if !self.torrents.is_empty() {
            self.watch_its_disk();
        }
        if !self.open_files.is_empty() {
            self.watch_within(DISKS_INTERVAL); // until they are let go (`rest`)
        }
    }

    /// Lets the torrents lapse whose maps have lost their memory; says whether there were any.
    /// To be asked after every touch of a map, before anything is concluded from it.
    pub(super) fn has_lost_maps(&mut self) -> bool {
        let count = map::poisoned_count();
        if count == self.watch.poisoned {
            return false;
        }
        self.watch.poisoned = count;
        let is_poisoned = |body: &Body| matches!(body, Body::Map { map, .. } if map.is_poisoned());
        let windows = self.windows.iter();
        let lost = windows.filter(|(_, window)| is_poisoned(&window.body));
        let lost: Vec<WindowKey> = lost.map(|(_, window)| window.key).collect();
        for &key in &lost {
            if !self.torrents.contains_key(&key.torrent) {
                continue; // another window of it was lost too
            }
            let error = self.why_unreadable(key);
            self.lose_faith(key.torrent, error);
        }
        !lost.is_empty()
    }

    /// The kernel could not read bytes of `plan` that [`lend`](Self::lend) had lent (EFAULT): their
    /// torrent has lapsed.
    pub fn not_lent(&mut self, plan: &WritePlan) {
        for segment in &plan.segments {
            let Segment::Data(slot) = *segment else {
                continue;
            };
            let Some(torrent) = self.torrents.get(&slot.torrent) else {
                continue;
            };
            let meta = Arc::clone(&torrent.meta);
            let geometry = meta.geometry();
            let mut places = chunks(geometry, slot.torrent, slot.piece, slot.begin, slot.len);
            let key = places.find_map(|chunk| match chunk.place {
                Place::Window { key, .. } => Some(key),
                Place::Pad => None,
            });
            if let Some(key) = key {
                let error = self.why_unreadable(key);
                self.lose_faith(key.torrent, error);
            }
        }
    }

    /// What stored or verified bytes of a torrent may not be there any more: what is not on the
    /// disk for sure is doubtful, and the torrent has to be added again.
    pub(super) fn lose_faith(&mut self, id: TorrentId, error: StorageError) {
        let now = self.now;
        self.leave_anchor(&error);
        if !self.torrents.contains_key(&id) {
            return; // as in `fail`
        }
        self.keep_in_mind(id);
        if let Some(memory) = self.memory(id) {
            let log = memory.log;
            let log = self.log(log);
            let doubted: Vec<u32> = log.known().claims.of(Claim::Checked).collect();
            log.push(Record::Doubted(doubted), now);
        }
        if self.drop_torrent(id, Keep::Nothing) {
            self.events.push_back(Event::Lapsed { torrent: id, error });
        }
    }

    /// If the output folder itself is gone, nothing can be synced through it any more. All torrents
    /// that rely on that have to be checked.
    fn leave_anchor(&mut self, error: &StorageError) {
        let is_root = match error {
            StorageError::Gone { path } => **path == *self.root,
            StorageError::NotMounted { path } => self.root.starts_with(path),
            _ => false,
        };
        if !is_root || self.anchor.take().is_none() {
            return;
        }
        let all: Vec<TorrentId> = self.torrents.keys().copied().collect();
        for id in all {
            self.lose_faith(id, error.clone());
        }
    }

    /// Why bytes of a mapped window could not be had.
    fn why_unreadable(&self, key: WindowKey) -> StorageError {
        let path = self.path_of(key);
        let torrent = &self.torrents[&key.torrent];
        let len = torrent.meta.files[key.file as usize].len;
        match &torrent.files[key.file as usize].state {
            FileState::Open { file, .. } => file.why_unreadable(&self.root, path, len),
            _ => StorageError::Missing { path },
        }
    }
}

/// How often files in use are looked at.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// How often disks are looked at while no file is in use.
const DISKS_INTERVAL: Duration = Duration::from_secs(2);
