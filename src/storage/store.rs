//! Payload on its way in.

use std::sync::Arc;

use super::files::FileState;
use super::span::{Chunk, Place, WindowKey, chunks};
use super::window::Want;
use super::{Access, Storage};
use crate::base::id::{PieceIndex, TorrentId};
use crate::base::limits::WINDOW_LEN;
use crate::base::slot::Slot;
use crate::meta::metainfo::Metainfo;

impl Storage {
    /// Says that bytes of `piece` will come soon: its first files are created and allocated, its
    /// first windows loaded.
    pub fn prepare(&mut self, torrent: TorrentId, piece: PieceIndex) {
        let Some(of) = self.torrents.get(&torrent) else {
            return;
        };
        if of.access == Access::ReadOnly || self.windows.queue_len() > PREPARE_QUEUE_MAX {
            return;
        }
        let meta = Arc::clone(&of.meta);
        let geometry = meta.geometry();
        let len = geometry.piece_len(piece).min(PREPARE_LEN);
        for chunk in chunks(geometry, torrent, piece, 0, len).take(PREPARE_WINDOWS_MAX) {
            if let Place::Window { key, .. } = chunk.place {
                self.request(key, Want::Write);
            }
        }
    }

    /// Copies `bytes`, or the part of a block that has come so far, to their place.
    ///
    /// If the place is not in memory yet they wait; how much waits is in [`status`](Self::status),
    /// and the caller stops reading when it is too much. Bytes of pad files are dropped. The caller
    /// tells how long it [`took`](Self::took).
    ///
    /// # Panics
    /// If `bytes` are not as many as the slot says, or the slot is not inside its piece.
    pub fn store(&mut self, slot: Slot, bytes: &[u8]) {
        assert_eq!(slot.len as usize, bytes.len(), "bytes for {slot:?}");
        let Some(torrent) = self.torrents.get_mut(&slot.torrent) else {
            return;
        };
        if torrent.access == Access::ReadOnly {
            return;
        }
        self.seq += 1;
        torrent.touched.set(slot.piece.0);
        let meta = Arc::clone(&torrent.meta);
        self.remember_store(slot);
        self.watch();
        let spans = chunks(
            meta.geometry(),
            slot.torrent,
            slot.piece,
            slot.begin,
            slot.len,
        );
        for Chunk { begin, len, place } in spans {
            if let Place::Window { key, start } = place {
                let from = (begin - slot.begin) as usize;
                self.store_in_window(key, start, &bytes[from..from + len as usize]);
                if crosses(start, len, (WINDOW_LEN / 2) as u32) {
                    let next = begin + (WINDOW_LEN as u32 - start);
                    self.request_ahead(&meta, slot, next, Want::Write);
                }
            }
        }
    }

    fn store_in_window(&mut self, key: WindowKey, start: u32, bytes: &[u8]) {
        let slot = match self.windows.find(key) {
            Some(slot) => slot,
            None => self.request(key, Want::Write),
        };
        self.windows.touch(slot);
        if self.windows.get(slot).is_mapped() {
            self.stalls.store_begins(key.torrent);
            self.leave_map(slot);
        }
        let window = self.windows.get_mut(slot);
        if window.takes_stores() && !window.has_pending() {
            window.write(start, bytes, self.seq);
            if self.has_lost_maps() {
                return;
            }
            if let Some(torrent) = self.torrents.get_mut(&key.torrent) {
                torrent.files[key.file as usize].is_written = true;
            }
        } else {
            self.windows.wait(slot, start, bytes, self.seq);
            self.checks.others_wait(self.now);
            self.request(key, Want::Write);
        }
    }

    /// Requests the window of `slot.piece` at `begin`, if the piece reaches so far and the queue is
    /// short.
    pub(super) fn request_ahead(&mut self, meta: &Metainfo, slot: Slot, begin: u32, want: Want) {
        let geometry = meta.geometry();
        if begin >= geometry.piece_len(slot.piece) || self.windows.queue_len() > PREPARE_QUEUE_MAX {
            return;
        }
        let place = chunks(geometry, slot.torrent, slot.piece, begin, 1).next();
        if let Some(Chunk {
            place: Place::Window { key, .. },
            ..
        }) = place
        {
            let file = &self.torrents[&key.torrent].files[key.file as usize];
            if want == Want::Read && matches!(file.state, FileState::Absent) {
                return; // whoever reads it will be told
            }
            self.request(key, want);
        }
    }
}

/// Whether `start..start + len` contains `mark` but does not begin there.
pub(super) fn crosses(start: u32, len: u32, mark: u32) -> bool {
    start < mark && mark <= start + len
}

/// How much of a piece is brought into memory before its first byte comes.
const PREPARE_LEN: u32 = 2 * WINDOW_LEN as u32;
/// How many windows of it, where files are small.
const PREPARE_WINDOWS_MAX: usize = 8;
/// Windows that wait for room above which nothing is brought in that nobody waits for.
const PREPARE_QUEUE_MAX: usize = 16;
