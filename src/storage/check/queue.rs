//! The checks under way, in the order in which they are worked off.

use std::collections::VecDeque;
use std::time::Duration;

use super::LANES;
use super::hashing::{Check, Stage};
use crate::base::id::TorrentId;
use crate::base::limits;
use crate::base::time::Instant;

/// The checks under way.
#[derive(Debug, Default)]
pub(in crate::storage) struct Checks {
    /// The urgent ones first.
    pub(super) queue: VecDeque<Check>,
    pub(super) urgent_count: usize,
    backlog: u64,
    /// When somebody last had to wait for a window that is not to be hashed.
    others_waited: Option<Instant>,
}

impl Checks {
    /// Somebody waits for a window in order to serve, or to store.
    pub fn others_wait(&mut self, now: Instant) {
        self.others_waited = Some(now);
    }

    /// Windows that may be on their way at a time in order to be hashed: few where others need
    /// some, as the disk brings them in the order in which they are asked for.
    pub(super) fn windows_ahead(&self, now: Instant) -> usize {
        match self.others_waited {
            Some(at) if now - at < SHARED_TIME => WINDOWS_AHEAD_SHARED,
            _ => WINDOWS_AHEAD,
        }
    }

    /// Whether downloaded pieces fill the lanes, or have waited long enough for others to do so.
    pub(super) fn have_company(&self) -> bool {
        self.urgent_count == 0 || self.urgent_count >= LANES || self.backlog >= COMPANY_BACKLOG_MAX
    }

    /// Bytes of downloaded pieces still to be hashed.
    pub fn backlog(&self) -> u64 {
        self.backlog
    }

    /// Whether pieces of a torrent are to be hashed.
    pub fn is_any_of(&self, torrent: TorrentId) -> bool {
        self.queue.iter().any(|check| check.torrent == torrent)
    }

    /// Forgets the checks of a torrent.
    pub fn remove_torrent(&mut self, torrent: TorrentId) {
        let mut index = 0;
        while index < self.queue.len() {
            if self.queue[index].torrent == torrent {
                self.remove(index);
            } else {
                index += 1;
            }
        }
    }

    pub(super) fn push(&mut self, check: Check, is_urgent: bool) {
        if is_urgent {
            self.backlog += u64::from(check.len);
            self.queue.insert(self.urgent_count, check);
            self.urgent_count += 1;
        } else {
            self.queue.push_back(check);
        }
    }

    pub(super) fn remove(&mut self, index: usize) {
        let check = self.queue.remove(index).expect("index of a check");
        if self.queue.is_empty() && self.queue.capacity() > QUEUE_KEPT_MAX {
            self.queue = VecDeque::new(); // the room for the pieces of a thousand torrents
        }
        if index < self.urgent_count {
            self.urgent_count -= 1;
            if matches!(check.stage, Stage::Piece { .. }) {
                self.backlog -= u64::from(check.len - check.at);
            }
        }
    }

    pub(super) fn advance(&mut self, index: usize, len: u32) {
        let check = &mut self.queue[index];
        check.at += len;
        if index < self.urgent_count && matches!(check.stage, Stage::Piece { .. }) {
            self.backlog -= u64::from(len);
        }
    }
}

/// Checks for which the queue keeps room while it is empty.
const QUEUE_KEPT_MAX: usize = 256;
/// Bytes of downloaded pieces that wait for company at most.
const COMPANY_BACKLOG_MAX: u64 = limits::HASH_BACKLOG_MAX / 2;
/// Windows that are requested ahead of hashing at most.
pub(super) const WINDOWS_AHEAD: usize = 64;
/// Of these, so many are under way at a time if others needed some lately. Two keep the disk busy
/// while the one before them is hashed.
const WINDOWS_AHEAD_SHARED: usize = 2;
/// What lately means.
const SHARED_TIME: Duration = Duration::from_secs(1);
