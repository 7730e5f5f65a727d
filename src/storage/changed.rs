//! Files that somebody changes, or whose disk fails, while they are in use.
//!
//! It is noticed in three ways: a map loses its memory when it is touched ([`Map::is_poisoned`]),
//! the kernel cannot read what it was lent, and a look at the open files once a second, as long as
//! they are in use, finds one cut, gone or replaced. Whichever comes first, from then on nothing of
//! the torrent is lent or stored: it has lapsed, and what is there shows when it is added again.
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

/// The look at open files.
#[derive(Debug)]
pub(super) struct Watch {
    /// When it is due; never while no file is in use.
    pub at: Instant,
    /// The files that a job looks at; `None` for those of torrents that went meanwhile.
    under_way: Vec<Option<(TorrentId, u32)>>,
    /// Maps of this process that were poisoned before.
    poisoned: u64,
}

impl Watch {
    /// Nothing is in use.
    pub fn new() -> Self {
        Self {
            at: Instant::NEVER,
            under_way: Vec::new(),
            poisoned: map::poisoned_count(),
        }
    }

    /// What is seen of a torrent's files is of no interest any more.
    pub fn forget(&mut self, torrent: TorrentId) {
        for file in &mut self.under_way {
            if file.is_some_and(|(of, _)| of == torrent) {
                *file = None;
            }
        }
    }
}

impl Storage {
    /// Bytes of open files are used: somebody has to look after them.
    pub(super) fn watch(&mut self) {
        if self.watch.at == Instant::NEVER && self.watch.under_way.is_empty() {
            self.watch.at = self.now + WATCH_INTERVAL;
            self.wake_at = self.wake_at.min(self.watch.at);
        }
    }

    /// Has the open files looked at, if it is time.
    pub(super) fn turn_watch(&mut self) {
        if self.watch.at > self.now {
            self.wake_at = self.wake_at.min(self.watch.at);
            return;
        }
        self.watch.at = Instant::NEVER;
        let mut files = Vec::new();
        for &(id, index) in &self.open_files {
            let torrent = &self.torrents[&id];
            if let FileState::Open { file, .. } = &torrent.files[index as usize].state {
                let entry = &torrent.meta.files[index as usize];
                self.watch.under_way.push(Some((id, index)));
                files.push(Look {
                    file: file.clone(),
                    path: entry.path.as_path().to_path_buf(),
                    len: entry.len,
                });
            }
        }
        if !files.is_empty() {
            let root = Arc::clone(&self.root);
            self.submit(Purpose::Look, Work::LookAtFiles { root, files });
        }
    }

    /// Takes what was seen of the open files.
    pub(super) fn looked(&mut self, seen: Vec<Option<StorageError>>) {
        let files = std::mem::take(&mut self.watch.under_way);
        for (file, error) in files.into_iter().zip(seen) {
            if let (Some((id, _)), Some(error)) = (file, error) {
                self.lose_faith(id, error);
            }
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
