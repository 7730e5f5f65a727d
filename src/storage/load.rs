//! How windows come into memory and leave it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::error::StorageError;
use super::files::FileState;
use super::jobs::{JobId, MapError, Work};
use super::map::{Map, MapAccess};
use super::os::Populate;
use super::span::WindowKey;
use super::stall::Why;
use super::window::{Body, Want};
use super::{Event, Purpose, Storage};
use crate::base::limits::WINDOWS_COUNT_MAX;
use crate::config::StorageKind;

impl Storage {
    /// Sees to it that the window will be in memory, ready for what it is wanted for.
    pub(super) fn request(&mut self, key: WindowKey, want: Want) -> usize {
        let Some(slot) = self.windows.find(key) else {
            let torrent = &self.torrents[&key.torrent];
            let len = key.len(torrent.meta.files[key.file as usize].len);
            return self.windows.insert(key, len, want);
        };
        let window = self.windows.get_mut(slot);
        if window.want < want {
            window.want = want;
            if window.is_read_only() {
                self.load_again(slot);
            } else if let Body::Map { map, populated } = &mut window.body
                && *populated == Populate::Read
            {
                *populated = Populate::Write;
                let map = Arc::clone(map);
                let path = self.path_of(key);
                self.submit(Purpose::Populate(key.torrent), Work::Populate { map, path });
            }
        }
        slot
    }

    /// Gives windows that wait their room, the oldest first, as long as there is any.
    pub(super) fn admit(&mut self) {
        while let Some(slot) = self.windows.first_queued() {
            if !self.make_room(u64::from(self.windows.get(slot).len)) {
                return;
            }
            self.windows.admit(slot);
            self.load(slot);
        }
    }

    /// Evicts windows until there is room for `len` bytes; says whether there is now.
    fn make_room(&mut self, len: u64) -> bool {
        loop {
            let (in_use, count) = self.windows.in_use();
            if in_use + len <= self.windows_len_max && count < WINDOWS_COUNT_MAX {
                return true;
            }
            let leaving = self.windows.leaving_len();
            if leaving > 0 && in_use - leaving + len <= self.windows_len_max {
                return false; // enough is on its way out
            }
            let Some(slot) = self.least_recently_used() else {
                return false;
            };
            if self.windows.get(slot).is_dirty() {
                self.write_back(slot);
                self.windows.leave(slot);
            } else {
                self.drop_window(slot);
            }
        }
    }

    /// The window to evict next: nobody waits for it, no job works on it, no check is about to
    /// hash it.
    pub(super) fn least_recently_used(&mut self) -> Option<usize> {
        let needed = self.windows_to_hash();
        self.windows
            .iter()
            .filter(|(slot, window)| {
                window.is_ready()
                    && window.job.is_none()
                    && !window.has_pending()
                    && !needed.contains(slot)
            })
            .min_by_key(|(_, window)| window.stamp)
            .map(|(slot, _)| slot)
    }

    /// Takes a window out of memory. Bytes that only it had are lost: the caller has seen to them.
    pub(super) fn drop_window(&mut self, slot: usize) {
        let window = self.windows.remove(slot);
        if window.has_readers {
            self.tell_readers();
        }
        self.discard(window.body);
    }

    fn discard(&mut self, body: Body) {
        match body {
            Body::Queued | Body::Admitted | Body::Loading => {}
            Body::Map { map, .. } => self.unmap(map),
            Body::Heap { bytes, .. } => self.windows.recycle(bytes),
        }
    }

    fn unmap(&mut self, map: Arc<Map>) {
        self.submit(Purpose::Unmap, Work::Unmap { map });
    }

    /// Loads a window anew, as bytes are to be stored: it was loaded from a file open for reading,
    /// or is mapped and shall not be.
    pub(super) fn load_again(&mut self, slot: usize) {
        let window = self.windows.get_mut(slot);
        let body = std::mem::replace(&mut window.body, Body::Admitted);
        self.discard(body);
        self.load(slot);
    }

    /// Submits the job that brings the bytes of the window in `slot`, whose file is open.
    pub(super) fn load_from_open_file(&mut self, slot: usize) {
        let window = self.windows.get(slot);
        let (key, len, want) = (window.key, window.len, window.want);
        let path = self.path_of(key);
        let Some(torrent) = self.torrents.get_mut(&key.torrent) else {
            return;
        };
        let file_slot = &mut torrent.files[key.file as usize];
        let FileState::Open { file, is_writable } = &file_slot.state else {
            panic!("{} is not open", path.display());
        };
        let file = file.clone();
        let access = match is_writable {
            true => MapAccess::Write,
            false => MapAccess::Read,
        };
        let is_short = file_slot.is_short;
        let is_buffered = file_slot.is_buffered || file_slot.is_sparse || is_short;
        let work = if self.kind == StorageKind::Pwrite || is_buffered {
            Work::Read {
                file,
                path,
                offset: key.offset(),
                len,
                fresh: file_slot.take_fresh(key.index),
                may_end: is_short,
                buffer: self.windows.buffer(),
            }
        } else {
            Work::Map {
                file,
                path,
                offset: key.offset(),
                len,
                access,
                populate: match want {
                    Want::Write => Populate::Write,
                    Want::Read => Populate::Read,
                },
                fresh: want == Want::Write && file_slot.take_fresh(key.index),
            }
        };
        let job = self.submit(Purpose::Load { key, access }, work);
        let window = self.windows.get_mut(slot);
        window.body = Body::Loading;
        window.job = Some(job);
    }

    /// Takes the result of mapping a window.
    pub(super) fn mapped(&mut self, key: WindowKey, id: JobId, result: Result<Arc<Map>, MapError>) {
        let Some(slot) = self.waiting_for(key, id) else {
            if let Ok(map) = result {
                self.unmap(map);
            }
            return;
        };
        match result {
            Ok(map) => {
                let window = self.windows.get_mut(slot);
                let populated = match map.access() {
                    MapAccess::Read => Populate::Read,
                    MapAccess::Write if window.want == Want::Write => Populate::Write,
                    MapAccess::Write => Populate::Read,
                };
                window.body = Body::Map { map, populated };
                self.loaded(slot);
            }
            Err(MapError::Refused(error)) => self.map_refused(slot, &error),
            Err(MapError::Failed(error)) => self.fail_or_lapse(key.torrent, error),
        }
    }

    /// Goes on with buffers where the file system does not map a file.
    fn map_refused(&mut self, slot: usize, error: &io::Error) {
        let key = self.windows.get(slot).key;
        let path = self.path_of(key);
        if self.kind == StorageKind::Map {
            let message = error.to_string();
            return self.fail(key.torrent, StorageError::Unmappable { path, message });
        }
        let Some(torrent) = self.torrents.get_mut(&key.torrent) else {
            return;
        };
        if torrent.buffer(key.file, Why::Unmappable) {
            let path = &torrent.meta.files[key.file as usize].path;
            log::warn!("file cannot be mapped, buffered instead: path={path} error={error}");
        }
        self.windows.get_mut(slot).body = Body::Admitted;
        self.load(slot);
    }

    /// Takes the result of reading a window.
    pub(super) fn read(
        &mut self,
        key: WindowKey,
        access: MapAccess,
        id: JobId,
        result: Result<Vec<u8>, StorageError>,
    ) {
        let Some(slot) = self.waiting_for(key, id) else {
            return;
        };
        match result {
            Ok(bytes) => {
                let torrent = self.torrents.get(&key.torrent);
                let is_sparse = torrent.is_some_and(|of| of.files[key.file as usize].is_sparse);
                self.windows.get_mut(slot).body = Body::Heap {
                    bytes: Arc::new(bytes),
                    is_writable: access == MapAccess::Write,
                    is_sparse,
                    dirty: None,
                    in_flight: None,
                };
                self.loaded(slot);
            }
            Err(error) => self.fail_or_lapse(key.torrent, error),
        }
    }

    /// The window that waits for the job `id`, if it was not dropped meanwhile.
    fn waiting_for(&mut self, key: WindowKey, id: JobId) -> Option<usize> {
        let slot = self.windows.find(key)?;
        let window = self.windows.get_mut(slot);
        (window.job == Some(id)).then(|| {
            window.job = None;
            slot
        })
    }

    /// Serves everybody who waits for the window in `slot`, whose bytes have come.
    fn loaded(&mut self, slot: usize) {
        let window = self.windows.get(slot);
        if window.want == Want::Write && window.is_read_only() {
            return self.load_again(slot); // a store came while it was loaded for reading
        }
        self.windows.touch(slot);
        self.land(slot);
        let window = self.windows.get_mut(slot);
        if std::mem::take(&mut window.has_readers) {
            self.tell_readers();
        }
    }

    /// Stores what waits for the window in `slot`.
    fn land(&mut self, slot: usize) {
        let key = self.windows.get(slot).key;
        if self.windows.get(slot).is_mapped() {
            self.stalls.store_begins(key.torrent);
        }
        let has_landed = self.windows.land(slot);
        if self.has_lost_maps() {
            return;
        }
        if has_landed && let Some(torrent) = self.torrents.get_mut(&key.torrent) {
            torrent.files[key.file as usize].is_written = true;
        }
        self.turn_barriers(key.torrent);
    }

    /// Writes the dirty part of a buffer to its file.
    pub(super) fn write_back(&mut self, slot: usize) {
        let key = self.windows.get(slot).key;
        let path = self.path_of(key);
        let state = &self.torrents[&key.torrent].files[key.file as usize].state;
        let FileState::Open { file, .. } = state else {
            panic!("{} was closed with bytes to write", path.display());
        };
        let file = file.clone();
        let Body::Heap {
            bytes,
            dirty,
            in_flight,
            ..
        } = &mut self.windows.get_mut(slot).body
        else {
            return;
        };
        let Some(taken) = dirty.take() else {
            return;
        };
        *in_flight = Some(taken.seq);
        // A sync that was submitted after the store, but before this, does not see it.
        if let Some(torrent) = self.torrents.get_mut(&key.torrent) {
            torrent.files[key.file as usize].is_written = true;
        }
        let work = Work::Write {
            file,
            root: Arc::clone(&self.root),
            path,
            offset: key.offset(),
            bytes: Arc::clone(bytes),
            ranges: taken.ranges,
        };
        let job = self.submit(Purpose::WriteBack(key), work);
        self.windows.get_mut(slot).job = Some(job);
    }

    /// Takes the result of writing a buffer back.
    pub(super) fn written_back(
        &mut self,
        key: WindowKey,
        id: JobId,
        result: Result<(), StorageError>,
    ) {
        let slot = self.waiting_for(key, id);
        if let Err(error) = result {
            if !self.torrents.contains_key(&key.torrent) {
                log::warn!("bytes of a removed torrent not written: error={error}");
            }
            return self.fail(key.torrent, error);
        }
        let Some(slot) = slot else {
            return;
        };
        let window = self.windows.get_mut(slot);
        if let Body::Heap { in_flight, .. } = &mut window.body {
            *in_flight = None;
        }
        if window.is_leaving && !window.has_pending() {
            self.drop_window(slot);
            return self.turn_barriers(key.torrent);
        }
        self.windows.stay(slot);
        self.land(slot);
        self.close_outgrown(key.torrent, key.file);
    }

    /// Says once that whoever waits for bytes may try again.
    pub(super) fn tell_readers(&mut self) {
        if !matches!(self.events.back(), Some(Event::Readable)) {
            self.events.push_back(Event::Readable);
        }
    }

    pub(super) fn path_of(&self, key: WindowKey) -> PathBuf {
        let meta = &self.torrents[&key.torrent].meta;
        self.root.join(meta.files[key.file as usize].path.as_path())
    }
}
