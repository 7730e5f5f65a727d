//! What nobody has used for a while is let go: windows, and files that have none and owe no sync.
//!
//! Torrents that nobody asks for hold no map and no descriptor of their data, however many they
//! are; journals are closed by themselves (`journal::log`). The look at files in use (`changed`)
//! goes through all of them anyway, every two seconds at least as long as there are any; so nothing
//! wakes for this alone.

use std::time::Duration;

use super::Storage;
use super::files::{Farewell, FileState};
use crate::base::id::TorrentId;
use crate::base::time::Instant;

/// How far the uses had come some time ago.
#[derive(Debug, Default)]
pub(super) struct Rest {
    since: Instant,
    windows: u64,
    files: u64,
}

impl Storage {
    /// Lets go of what was not used since the last time, if that is long ago.
    pub(super) fn rest(&mut self) {
        if self.now - self.rest.since < REST_TIME {
            return;
        }
        let now = Rest {
            since: self.now,
            windows: self.windows.uses(),
            files: self.uses,
        };
        let before = std::mem::replace(&mut self.rest, now);
        while let Some(slot) = self.least_recently_used() {
            let window = self.windows.get(slot);
            if window.stamp > before.windows || window.is_dirty() {
                break; // as are all that were used later; what is dirty is written first
            }
            self.drop_window(slot);
        }
        let held: Vec<(TorrentId, u32)> = self
            .windows
            .iter()
            .map(|(_, window)| (window.key.torrent, window.key.file))
            .collect();
        let is_resting = |&(torrent, file): &(TorrentId, u32)| {
            let slot = &self.torrents[&torrent].files[file as usize];
            let is_open = matches!(slot.state, FileState::Open { .. });
            is_open && !slot.is_written && slot.stamp <= before.files
        };
        let resting = self.open_files.iter().filter(|file| is_resting(file));
        let resting = resting.filter(|file| !held.contains(file));
        for (torrent, file) in resting.copied().collect::<Vec<_>>() {
            self.close(torrent, file, Farewell::Postpone);
        }
    }
}

/// How long nobody must have used them; at most twice that.
const REST_TIME: Duration = Duration::from_secs(15);
