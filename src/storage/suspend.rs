//! Torrents whose files cannot be written at present: a full disk, a quota, a read-only disk.
//!
//! ```text
//!  add ──▶ Failed, and the error may pass ──▶ add_to_serve ──▶ Scanned: lent, never stored
//!                                                  ▲                 │ probe
//!                                                  │ no              ▼
//!                                                  └────────────── Probed ── yes ──▶ stored again
//! ```

use std::sync::Arc;

use super::error::StorageError;
use super::jobs::{Scan, Work};
use super::{Access, Event, Purpose, Storage};
use crate::base::id::TorrentId;
use crate::meta::metainfo::Metainfo;

impl Storage {
    /// Takes up a torrent as [`add`](Self::add) does, but to be served only: no file is created or
    /// changed, stores are dropped, and it does not matter whether what is missing would fit.
    ///
    /// # Panics
    /// If a torrent with this id is there.
    pub fn add_to_serve(&mut self, torrent: TorrentId, meta: Arc<Metainfo>) {
        self.take_in(torrent, meta, Access::ReadOnly);
    }

    /// Looks whether a torrent that is served only can be written by now: whether its folder may be
    /// written to, and what is missing fits. [`Event::Probed`] follows, if the torrent is there; if
    /// so, it takes stores from then on.
    pub fn probe(&mut self, torrent: TorrentId) {
        let Some(of) = self.torrents.get(&torrent) else {
            return;
        };
        let work = Work::Scan {
            root: Arc::clone(&self.root),
            meta: Arc::clone(&of.meta),
            access: Access::ReadWrite,
            wants_anchor: self.anchor.is_none() && self.access == Access::ReadWrite,
            mounts: self.mounts(of.meta.info_hash).to_vec(),
            skipped: self.skipped(torrent),
            journal: None,
        };
        self.submit(Purpose::Probe(torrent), work);
    }

    pub(super) fn probed(&mut self, id: TorrentId, result: Result<Scan, StorageError>) {
        let access = self.access;
        let Some(torrent) = self.torrents.get_mut(&id) else {
            return;
        };
        let result = result.map(|scan| self.anchor = self.anchor.take().or(scan.anchor));
        if result.is_ok() {
            torrent.access = access;
        }
        let torrent = id;
        self.events.push_back(Event::Probed { torrent, result });
    }
}
