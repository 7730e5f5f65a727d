//! Torrents that are gone while jobs of theirs are under way.
//!
//! Such a job may still write what the torrent had stored, or bring a file or window that somebody
//! asked for before. A torrent with the same id or the same files therefore waits until the last
//! of them has come to its end: nothing old is written over what it stores, and no result is taken
//! for one of its own.

use std::sync::Arc;

use super::{Access, Event, Purpose, Storage};
use crate::base::id::{InfoHash, TorrentId};
use crate::meta::metainfo::Metainfo;

impl Purpose {
    /// Whose job it is, if it matters to anybody when it ends.
    fn torrent(&self) -> Option<TorrentId> {
        match self {
            Self::Scan(torrent)
            | Self::Probe(torrent)
            | Self::CreateEmpty(torrent)
            | Self::Populate(torrent)
            | Self::Open { torrent, .. }
            | Self::Sync { torrent, .. }
            | Self::Close { torrent, .. }
            | Self::LookAtTimes(torrent)
            | Self::Prove { torrent, .. } => Some(*torrent),
            Self::Load { key, .. } | Self::WriteBack(key) => Some(key.torrent),
            // The journal outlives its torrent, and whoever comes back waits for it (`logs`).
            Self::Unmap | Self::Look | Self::Log { .. } => None,
            // Whoever comes back brings its text.
            Self::FindText(_) | Self::ReadText(_) | Self::GiveBack => None,
        }
    }
}

impl Storage {
    /// The torrent was dropped: jobs that are left of it hold up whoever comes after it.
    pub(super) fn leaves(&mut self, torrent: TorrentId, info_hash: InfoHash) {
        if self.has_jobs(torrent) {
            self.leaving.insert(torrent, info_hash);
        }
    }

    /// Has a torrent wait that cannot be taken up yet; says whether it has to.
    pub(super) fn holds_up(
        &mut self,
        torrent: TorrentId,
        meta: &Arc<Metainfo>,
        access: Access,
    ) -> bool {
        let is_old = |(old, info_hash): (&TorrentId, &InfoHash)| {
            *old == torrent || *info_hash == meta.info_hash
        };
        let is_held = self.leaving.iter().any(is_old);
        if is_held {
            let before = self.waiting.insert(torrent, (Arc::clone(meta), access));
            assert!(before.is_none(), "torrent {torrent} added twice");
        }
        is_held
    }

    /// Takes up those whose wait is over. A job has ended.
    pub(super) fn let_in(&mut self) {
        if self.leaving.is_empty() {
            return;
        }
        let mut leaving = std::mem::take(&mut self.leaving);
        leaving.retain(|torrent, _| self.has_jobs(*torrent));
        self.leaving = leaving;
        for (torrent, (meta, access)) in std::mem::take(&mut self.waiting) {
            self.take_in(torrent, meta, access);
        }
    }

    /// Nothing was stored for a torrent that waits: `event` is true of it at once.
    pub(super) fn answer_for_waiting(&mut self, torrent: TorrentId, event: Event) {
        if self.waiting.contains_key(&torrent) {
            self.events.push_back(event);
        }
    }

    fn has_jobs(&self, torrent: TorrentId) -> bool {
        let mut under_way = self.under_way.values();
        under_way.any(|purpose| purpose.torrent() == Some(torrent))
    }
}
