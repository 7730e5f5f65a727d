//! Files that are not wanted.
//!
//! No file is made of one, but where a piece that a wanted file shares has bytes in it: the piece
//! must be whole to be verified, and to be served. The file is then made in its own place, as long
//! as it will be, and holds these bytes and nothing else: the rest is a hole without room on the
//! disk. So nothing has to be moved when the file is wanted after all; what it holds stands in the
//! journal like anything else, and its room is made when it is opened next to be written.

use std::sync::Arc;

use super::Storage;
use super::files::{Farewell, FileState};
use super::jobs::OpenMode;
use super::window::Body;
use crate::base::bits::Bitfield;
use crate::base::id::TorrentId;

impl Storage {
    /// These files of a torrent are not wanted, all others are. To be said before
    /// [`add`](Self::add) if it matters then whether there is room for them, and kept until
    /// [`remove`](Self::remove).
    pub fn choose(&mut self, torrent: TorrentId, skipped: Vec<u32>) {
        match skipped.iter().max() {
            None => drop(self.skipped.remove(&torrent)),
            Some(last) => {
                let mut files = Bitfield::new(last + 1);
                for file in skipped {
                    files.set(file);
                }
                self.skipped.insert(torrent, Arc::new(files));
            }
        }
        let files = self.torrents.get(&torrent).map(|of| of.files.iter());
        let sparse = (0..).zip(files.into_iter().flatten());
        let sparse: Vec<u32> = sparse
            .filter_map(|(f, slot)| slot.is_sparse.then_some(f))
            .collect();
        for file in sparse {
            if self.write_mode(torrent, file) == OpenMode::Write {
                self.write_all_back(torrent, file);
                self.close_outgrown(torrent, file);
            }
        }
    }

    /// Closes a file that is open as one that is not wanted, and is wanted by now, if nothing is
    /// under way in it: it is opened anew when it is needed, and gets its room then.
    pub(super) fn close_outgrown(&mut self, torrent: TorrentId, file: u32) -> bool {
        let is_sparse = self
            .torrents
            .get(&torrent)
            .is_some_and(|of| of.files[file as usize].is_sparse);
        let may_close = is_sparse && self.outgrows_part(torrent, file);
        if may_close {
            self.drop_idle_windows(torrent, file);
            self.close(torrent, file, Farewell::Sync);
            if let Some(of) = self.torrents.get_mut(&torrent) {
                of.files[file as usize].is_sparse = false;
                of.files[file as usize].forget_fresh();
            }
        }
        may_close
    }

    /// Writes back what only the windows of a file have, as far as no job works on them.
    fn write_all_back(&mut self, torrent: TorrentId, file: u32) {
        let windows = self.windows.iter();
        let dirty = windows.filter(|(_, window)| {
            let is_of_file = window.key.torrent == torrent && window.key.file == file;
            is_of_file && window.job.is_none() && window.is_dirty()
        });
        let dirty: Vec<usize> = dirty.map(|(slot, _)| slot).collect();
        for slot in dirty {
            self.write_back(slot);
        }
    }

    /// The files of a torrent that are not wanted, if there are any. Those behind its end are.
    pub(super) fn skipped(&self, torrent: TorrentId) -> Option<Arc<Bitfield>> {
        self.skipped.get(&torrent).cloned()
    }

    /// How a file is opened to store into it.
    pub(super) fn write_mode(&self, torrent: TorrentId, file: u32) -> OpenMode {
        match is_skipped(self.skipped.get(&torrent).map(|files| &**files), file) {
            true => OpenMode::WritePart,
            false => OpenMode::Write,
        }
    }

    /// Whether a file that is open as one that is not wanted should be opened anew, as it is
    /// wanted by now, and can be: nothing is under way in it.
    fn outgrows_part(&self, torrent: TorrentId, file: u32) -> bool {
        let Some(of) = self.torrents.get(&torrent) else {
            return false;
        };
        let slot = &of.files[file as usize];
        let mut windows = self.windows.iter().map(|(_, window)| window);
        slot.is_sparse
            && matches!(slot.state, FileState::Open { .. })
            && self.write_mode(torrent, file) == OpenMode::Write
            && windows.all(|window| {
                let is_of_file = window.key.torrent == torrent && window.key.file == file;
                let is_idle = match window.body {
                    Body::Queued | Body::Admitted => true,
                    Body::Loading => false,
                    Body::Map { .. } | Body::Heap { .. } => {
                        window.job.is_none() && !window.has_pending() && !window.is_dirty()
                    }
                };
                !is_of_file || is_idle
            })
    }

    /// Takes the windows of such a file out of memory, but for those that wait for it.
    fn drop_idle_windows(&mut self, torrent: TorrentId, file: u32) {
        let windows = self.windows.iter();
        let its = windows.filter(|(_, window)| {
            window.key.torrent == torrent && window.key.file == file && window.is_ready()
        });
        let its: Vec<usize> = its.map(|(slot, _)| slot).collect();
        for slot in its {
            self.drop_window(slot);
        }
    }
}

/// Whether a file is among those that are not wanted.
pub fn is_skipped(skipped: Option<&Bitfield>, file: u32) -> bool {
    skipped.is_some_and(|skipped| file < skipped.len() && skipped.has(file))
}
