//! Commits: when one is due, what it freezes, what becomes of it.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Memory, files_of};
use crate::base::id::{PieceIndex, TorrentId};
use crate::base::time::Instant;
use crate::storage::Storage;
use crate::storage::error::StorageError;
use crate::storage::journal::Record;
use crate::storage::prove::Proofs;

/// What one sync makes durable.
#[derive(Debug, Default)]
pub(in crate::storage) struct Frozen {
    pub pieces: Vec<u32>,
    pub to_prove: Vec<u32>,
    pub found: BTreeSet<u32>,
}

/// How much is stored a second.
#[derive(Debug)]
pub(super) struct Load {
    second: Instant,
    len: u64,
    was_high: bool,
}

impl Load {
    /// Nothing was stored before `now`.
    pub fn new(now: Instant) -> Self {
        Self {
            second: now,
            len: 0,
            was_high: false,
        }
    }

    pub fn stored(&mut self, len: u64, now: Instant) {
        self.turn(now);
        self.len += len;
    }

    /// Whether data pours in.
    fn is_high(&mut self, now: Instant) -> bool {
        self.turn(now);
        self.was_high || self.len >= LOAD_LEN
    }

    fn turn(&mut self, now: Instant) {
        let passed = now.since(self.second);
        if passed >= LOAD_TIME {
            self.was_high = self.len >= LOAD_LEN && passed < 2 * LOAD_TIME;
            self.len = 0;
            self.second = now;
        }
    }
}

impl Storage {
    /// Freezes what the sync that is about to be submitted will make durable: the pieces, and
    /// those that can be proven then. The files of both that nobody here has written are to be
    /// synced too.
    pub(in crate::storage) fn freeze(&mut self, id: TorrentId) -> Frozen {
        self.note_checked(id);
        let Some(torrent) = self.torrents.get_mut(&id) else {
            return Frozen::default();
        };
        let Some(memory) = &mut torrent.memory else {
            return Frozen::default();
        };
        let proofs = memory.proofs.at_hand();
        let to_prove = proofs.map_or_else(Vec::new, Proofs::take_waiting);
        memory.proofs.tidy();
        let waiting = memory.waiting.at_hand();
        let (pieces, mut found) = waiting.map_or_else(Default::default, |waiting| {
            waiting.uncommitted_len = 0;
            let pieces = std::mem::take(&mut waiting.uncommitted);
            (pieces, std::mem::take(&mut waiting.found))
        });
        memory.waiting.tidy();
        for &piece in &to_prove {
            found.extend(files_of(&torrent.meta, PieceIndex(piece)));
        }
        Frozen {
            pieces: pieces.into_iter().collect(),
            to_prove,
            found,
        }
    }

    /// The sync of what was frozen returned 0.
    pub(in crate::storage) fn commit(&mut self, id: TorrentId, frozen: Frozen) {
        let now = self.now;
        let Some(memory) = self.memory(id) else {
            return;
        };
        memory.is_committing = false;
        if !frozen.to_prove.is_empty() {
            memory.proofs.can_be_proven(frozen.to_prove);
        }
        let log = memory.log;
        if !frozen.pieces.is_empty() {
            self.log(log).push(Record::Durable(frozen.pieces), now);
        }
        self.wake_at = self.wake_at.min(now);
    }

    /// A sync failed: what was stored since the last good one is doubtful. Torrents that remember
    /// are to be opened again, the others have failed.
    pub(in crate::storage) fn lapse(&mut self, id: TorrentId, error: StorageError) {
        match self.memory(id) {
            Some(_) => self.lose_faith(id, error),
            None => self.fail(id, error),
        }
    }
}

impl Memory {
    /// When a commit is due; perhaps later, if less is stored meanwhile.
    pub(super) fn commit_at(&mut self, now: Instant) -> Instant {
        if !self.is_anything_waiting() || self.is_committing {
            return Instant::NEVER;
        }
        let (len_max, delay) = match self.load.is_high(now) {
            true => (COMMIT_LEN_LOADED, COMMIT_DELAY_LOADED),
            false => (COMMIT_LEN, COMMIT_DELAY),
        };
        if self.waiting.uncommitted_len >= len_max {
            return now;
        }
        let due = self.since + delay;
        if due <= now {
            return now;
        }
        due.min(now + LOAD_TIME)
    }
}

/// Bytes checked after which they are committed, and how long they wait at most.
const COMMIT_LEN: u64 = 16 << 20;
const COMMIT_DELAY: Duration = Duration::from_secs(1);
/// The same while data pours in.
const COMMIT_LEN_LOADED: u64 = 256 << 20;
const COMMIT_DELAY_LOADED: Duration = Duration::from_secs(30);
/// Data pours in if so many bytes come in such a time.
const LOAD_LEN: u64 = 16 << 20;
const LOAD_TIME: Duration = Duration::from_secs(1);
