//! What is remembered of a torrent: verdicts and blocks on their way into its journal.
//!
//! ```text
//!  hashed right ──▶ awaiting ──▶ checked ──▶ frozen ──▶ durable
//!                 bytes with      a commit    its sync
//!                 the kernel      is due      returned 0
//! ```
//!
//! A commit is a barrier (`sync`) that nobody hears of. It freezes the pieces that are checked when
//! its sync is submitted. It is due after 16 MiB or a second; while data pours in, after 256 MiB or
//! 30 s, as each sync costs the disk the same. What a former process stored is proven first
//! (`prove`).

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::Storage;
use super::journal::{self, Claim, Record, Stamp};
use super::keep;
use super::logs::LogId;
use super::partial::Partials;
use super::prove::Proofs;
use super::span::{Place, chunks};
use crate::base::bits::Bitfield;
use crate::base::id::{InfoHash, PieceIndex, TorrentId};
use crate::base::limits::BLOCK_LEN;
use crate::base::seldom::{Blank, Seldom};
use crate::base::slot::Slot;
use crate::base::time::Instant;
use crate::base::verdict::Verdict;
use crate::meta::metainfo::Metainfo;

mod commit;
mod former;
mod resume;

pub(super) use commit::Frozen;
use commit::Load;
pub(super) use resume::whole_pieces;

/// What is on its way into the journal of one torrent.
#[derive(Debug)]
pub(super) struct Memory {
    pub log: LogId,
    /// Which file each of the torrent's is.
    stamps: Vec<Stamp>,
    waiting: Seldom<Waiting>,
    /// When whole blocks are noted.
    partials_at: Instant,
    /// When some were noted last.
    partials_noted: Instant,
    /// Since when something waits for a commit.
    since: Instant,
    /// A commit waits or is under way.
    pub is_committing: bool,
    /// Pieces that a former process stored, at least a part of them.
    unproven: Bitfield,
    pub proofs: Seldom<Proofs>,
    /// The process is about to end.
    pub is_leaving: bool,
    load: Load,
}

/// What waits on its way there: nothing, most of the time.
#[derive(Debug, Default)]
struct Waiting {
    partials: Partials,
    /// Good pieces whose bytes are not all with the kernel, and the last store before the verdict.
    awaiting: Vec<(PieceIndex, u64)>,
    /// Pieces that are checked and in no commit yet, and their bytes.
    uncommitted: BTreeSet<u32>,
    uncommitted_len: u64,
    /// Files with such pieces that this process has not written.
    found: BTreeSet<u32>,
}

impl Blank for Waiting {
    const BLANK: &'static Self = &Self {
        partials: Partials::NONE,
        awaiting: Vec::new(),
        uncommitted: BTreeSet::new(),
        uncommitted_len: 0,
        found: BTreeSet::new(),
    };

    fn is_blank(&self) -> bool {
        let is_any_good = !self.awaiting.is_empty() || !self.uncommitted.is_empty();
        !is_any_good && self.found.is_empty() && self.partials.is_empty()
    }
}

impl Storage {
    /// Where the journal of a torrent is, if one is kept.
    pub(super) fn journal_path(&self, info_hash: InfoHash) -> Option<PathBuf> {
        Some(keep::journal_path(self.state_dir.as_ref()?, info_hash))
    }

    /// Bytes are being stored.
    pub(super) fn remember_store(&mut self, slot: Slot) {
        let (now, seq) = (self.now, self.seq);
        let Some(torrent) = self.torrents.get_mut(&slot.torrent) else {
            return;
        };
        let Some(memory) = &mut torrent.memory else {
            return;
        };
        memory.load.stored(slot.len.into(), now);
        let partials = &mut memory.waiting.partials;
        if partials.stored(slot, torrent.meta.geometry(), seq) {
            let due = match partials.fresh_count() >= PARTIALS_COUNT {
                true => memory.partials_noted + PARTIALS_PAUSE,
                false => now + PARTIALS_DELAY,
            };
            memory.partials_at = memory.partials_at.min(due);
            self.wake_at = self.wake_at.min(memory.partials_at);
        }
        let log = memory.log;
        if self.logs[&log].log.known().claims.held().has(slot.piece.0) {
            self.drop_claim(slot.torrent, slot.piece);
        }
    }

    /// A piece was hashed; `is_stored`: after bytes of it had been stored.
    pub(super) fn remember_verdict(
        &mut self,
        id: TorrentId,
        piece: PieceIndex,
        verdict: &Verdict,
        is_stored: bool,
    ) {
        let Some(torrent) = self.torrents.get_mut(&id) else {
            return;
        };
        let Some(memory) = &mut torrent.memory else {
            return;
        };
        if let Some(waiting) = memory.waiting.at_hand() {
            waiting.partials.forget(piece);
        }
        if let Verdict::Good { .. } = verdict {
            if !is_stored {
                let files = files_of(&torrent.meta, piece);
                memory.waiting.found.extend(files);
            }
            memory.waiting.awaiting.push((piece, self.seq));
            self.restless.insert(id);
            return;
        }
        memory.unproven.clear(piece.0);
        let known = self.logs[&memory.log].log.known();
        let is_noted = known.claims.get(piece.0) != Claim::Absent;
        if is_noted || known.filled.contains_key(&piece) {
            self.drop_claim(id, piece);
        }
    }

    /// Nothing is claimed of a piece any more.
    pub(super) fn drop_claim(&mut self, id: TorrentId, piece: PieceIndex) {
        let now = self.now;
        let Some(torrent) = self.torrents.get_mut(&id) else {
            return;
        };
        for barrier in &mut torrent.barriers {
            barrier.forget(piece.0);
        }
        let Some(memory) = &mut torrent.memory else {
            return;
        };
        if let Some(waiting) = memory.waiting.at_hand() {
            waiting.awaiting.retain(|(awaiting, _)| *awaiting != piece);
            if waiting.uncommitted.remove(&piece.0) {
                waiting.uncommitted_len -= u64::from(torrent.meta.geometry().piece_len(piece));
            }
        }
        memory.unproven.clear(piece.0);
        if let Some(proofs) = memory.proofs.at_hand() {
            proofs.forget(piece.0);
        }
        let log = memory.log;
        self.log(log).push(Record::Dropped(vec![piece.0]), now);
    }

    /// Notes the good pieces whose bytes have reached the kernel.
    pub(super) fn note_checked(&mut self, id: TorrentId) {
        let Some(memory) = self.memory(id) else {
            return;
        };
        let waiting = memory.waiting.at_hand();
        let awaiting = waiting.map(|waiting| std::mem::take(&mut waiting.awaiting));
        let awaiting = awaiting.unwrap_or_default();
        let mut checked = Vec::new();
        let mut late = Vec::new();
        for (piece, seq) in awaiting {
            let len = self.torrents[&id].meta.geometry().piece_len(piece);
            match self.is_with_kernel(id, piece, 0..len, seq) {
                true => checked.push(piece.0),
                false => late.push((piece, seq)),
            }
        }
        let now = self.now;
        let Some(torrent) = self.torrents.get_mut(&id) else {
            return;
        };
        let geometry = torrent.meta.geometry();
        let Some(memory) = &mut torrent.memory else {
            return;
        };
        if late.is_empty() {
            self.restless.remove(&id);
        }
        if checked.is_empty() && late.is_empty() {
            return;
        }
        memory.waiting.awaiting = late;
        if checked.is_empty() {
            return;
        }
        let was_waiting = memory.is_anything_waiting();
        for &piece in &checked {
            if memory.unproven.has(piece) {
                memory.proofs.wait(piece);
            } else if memory.waiting.uncommitted.insert(piece) {
                let len = geometry.piece_len(PieceIndex(piece));
                memory.waiting.uncommitted_len += u64::from(len);
            }
        }
        if !was_waiting {
            memory.since = now;
        }
        let log = memory.log;
        self.wake_at = self.wake_at.min(now);
        self.log(log).push(Record::Checked(checked), now);
    }

    /// Notes the blocks that were stored whole, as far as they have reached the kernel.
    fn note_filled(&mut self, id: TorrentId) {
        let now = self.now;
        let Some(memory) = self.memory(id) else {
            return;
        };
        let log = memory.log;
        let waiting = memory.waiting.at_hand();
        let fresh = waiting.map(|waiting| waiting.partials.take_fresh());
        let fresh = fresh.unwrap_or_default();
        let mut filled = Vec::new();
        for (piece, blocks) in fresh {
            let mut late = Vec::new();
            let mut whole = Vec::new();
            for (block, seq) in blocks {
                let begin = block * BLOCK_LEN;
                let len = self.torrents[&id].meta.geometry().block_len(piece, block);
                match self.is_with_kernel(id, piece, begin..begin + len, seq) {
                    true => whole.push(block),
                    false => late.push((block, seq)),
                }
            }
            if !late.is_empty()
                && let Some(memory) = self.memory(id)
            {
                memory.waiting.partials.put_back(piece, late);
            }
            whole.sort_unstable();
            whole.dedup();
            let has_room = self.logs[&log].log.known().filled.len() < FILLED_PIECES_MAX;
            if !whole.is_empty() && has_room {
                filled.push((piece, journal::runs(whole.into_iter())));
            }
        }
        if !filled.is_empty() {
            self.log(log).push(Record::Filled(filled), now);
        }
        if let Some(memory) = self.memory(id) {
            memory.partials_noted = now;
            memory.partials_at = match memory.waiting.partials.has_fresh() {
                true => now + PARTIALS_AGAIN,
                false => Instant::NEVER,
            };
        }
    }

    /// Whether the kernel has the stores up to number `seq` into a run of a piece; sees to it that
    /// it will.
    fn is_with_kernel(
        &mut self,
        id: TorrentId,
        piece: PieceIndex,
        run: std::ops::Range<u32>,
        seq: u64,
    ) -> bool {
        let meta = Arc::clone(&self.torrents[&id].meta);
        let mut is_there = true;
        let len = run.end - run.start;
        for chunk in chunks(meta.geometry(), id, piece, run.start, len) {
            let Place::Window { key, .. } = chunk.place else {
                continue;
            };
            let Some(slot) = self.windows.find(key) else {
                continue;
            };
            let window = self.windows.get(slot);
            if window
                .oldest_unwritten()
                .is_some_and(|oldest| oldest <= seq)
            {
                is_there = false;
                if window.job.is_none() && window.is_dirty() {
                    self.write_back(slot);
                }
            }
        }
        is_there
    }

    /// Tells what time it is: to be called once in every turn of the loop, before
    /// [`poll_job`](Self::poll_job). What is remembered is written by it.
    pub fn tick(&mut self, now: Instant) {
        self.now = now;
        self.turn_stalls();
        let restless: Vec<TorrentId> = self.restless.iter().copied().collect();
        for id in restless {
            self.note_checked(id);
        }
        // Not with the others: it comes every two seconds, and they are as many as the torrents.
        self.turn_watch();
        self.turn_texts();
        if now < self.wake_at {
            return;
        }
        self.wake_at = Instant::NEVER;
        let remembered = self.torrents.iter().filter(|(_, t)| t.memory.is_some());
        let ids: Vec<TorrentId> = remembered.map(|(id, _)| *id).collect();
        for id in ids {
            self.turn_memory(id);
        }
        self.wake_logs(now);
    }

    /// When [`tick`](Self::tick) has something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        let at = self.wake_at.min(self.watch.at).min(self.texts.next_at());
        Some(at).filter(|&at| at < Instant::NEVER)
    }

    /// Does what is due for one torrent, and notes when there will be more.
    fn turn_memory(&mut self, id: TorrentId) {
        let now = self.now;
        if self
            .memory(id)
            .is_some_and(|memory| memory.partials_at <= now)
        {
            self.note_filled(id);
        }
        self.turn_proofs(id);
        let Some(memory) = self.memory(id) else {
            return;
        };
        let commit_at = memory.commit_at(now);
        let wake_at = memory.partials_at.min(memory.proofs.next_at());
        if commit_at <= now {
            memory.is_committing = true;
            self.wake_at = self.wake_at.min(wake_at);
            return self.raise_commit(id);
        }
        self.wake_at = self.wake_at.min(wake_at).min(commit_at);
    }

    pub(super) fn memory(&mut self, id: TorrentId) -> Option<&mut Memory> {
        self.torrents.get_mut(&id)?.memory.as_deref_mut()
    }
}

impl Memory {
    /// A piece that a former process stored was read back from the disk.
    pub fn is_proven(&mut self, piece: PieceIndex) {
        self.unproven.clear(piece.0);
    }

    fn is_anything_waiting(&self) -> bool {
        !self.waiting.uncommitted.is_empty() || self.proofs.is_any_waiting()
    }
}

/// The files on disk that a piece has bytes in.
fn files_of(meta: &Metainfo, piece: PieceIndex) -> impl Iterator<Item = u32> + '_ {
    let geometry = meta.geometry();
    let spans = geometry.spans(piece, 0, geometry.piece_len(piece));
    spans.filter(|span| !span.pad).map(|span| span.file)
}

/// How long a whole block of an unfinished piece waits until it is noted, if few come.
const PARTIALS_DELAY: Duration = Duration::from_millis(75);
/// So many blocks, 512 KiB, do not wait: they would be fetched twice after a kill.
const PARTIALS_COUNT: usize = 32;
/// But some are noted at most every so often, as it lets the journal grow.
const PARTIALS_PAUSE: Duration = Duration::from_millis(10);
/// When it is looked at again if its bytes were not with the kernel.
const PARTIALS_AGAIN: Duration = Duration::from_millis(5);
/// Unfinished pieces whose blocks are noted at most.
const FILLED_PIECES_MAX: usize = 4096;

#[cfg(test)]
pub(super) mod tests;
