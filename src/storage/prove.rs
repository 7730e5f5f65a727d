//! Pieces that are read back from the disk in the background: those that a former process stored,
//! and samples.
//!
//! A write-back that failed while no process held the file goes unnoticed: the page cache shows
//! what was stored, and the disk has something else. So pieces that a killed process had checked
//! are served at once, but are durable only when a sync returned 0 and the disk gave them back
//! right. A few pieces that are durable are looked at too, as the files may have been changed in
//! ways that their stamps do not show; if one is wrong, all of its files are looked at, and so are
//! files that somebody wrote since the last good end.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::error::StorageError;
use super::jobs::Work;
use super::journal::{Claim, Claims, Record};
use super::logs::LogId;
use super::{Event, Purpose, Storage};
use crate::base::id::{PieceIndex, TorrentId};
use crate::base::rng::Rng;
use crate::base::seldom::Blank;
use crate::base::time::Instant;

/// What is to be read back of one torrent.
#[derive(Debug, Default)]
pub(super) struct Proofs {
    /// Checked pieces that wait for a sync of their files.
    waiting: BTreeSet<u32>,
    /// Those whose files were synced.
    synced: BTreeSet<u32>,
    /// Durable pieces that may be wrong.
    suspects: BTreeSet<u32>,
    /// What a job reads.
    running: Option<Running>,
    /// When the next may be read.
    next_at: Instant,
    /// Somebody waits for what can be proven.
    is_awaited: bool,
}

/// A piece that is being read.
#[derive(Clone, Copy, Debug)]
struct Running {
    /// `None`: it is of no interest any more.
    piece: Option<u32>,
    /// Its files had been synced before: if it is right, it is durable. What the disk gives back
    /// without that may be gone after a power cut all the same, with the extents that lead to it.
    is_synced: bool,
}

impl Blank for Proofs {
    const BLANK: &'static Self = &Self {
        waiting: BTreeSet::new(),
        synced: BTreeSet::new(),
        suspects: BTreeSet::new(),
        running: None,
        next_at: Instant::ZERO,
        is_awaited: false,
    };

    fn is_blank(&self) -> bool {
        self.running.is_none() && !self.is_any_left()
    }
}

impl Proofs {
    /// What is to be proven of a torrent that begins with `claims`, `suspects` among them.
    pub fn new(claims: &Claims, suspects: Vec<u32>, now: Instant) -> Self {
        let durable: Vec<u32> = claims.of(Claim::Durable).collect();
        let mut rng = Rng::new(now.as_micros());
        let count = (durable.len() as u32).min(SAMPLES);
        let some = (0..count).map(|_| durable[rng.below(durable.len() as u32) as usize]);
        Self {
            waiting: claims.of(Claim::Checked).collect(),
            synced: BTreeSet::new(),
            suspects: some.chain(suspects).collect(),
            running: None,
            next_at: now + FIRST_DELAY,
            is_awaited: false,
        }
    }

    /// A piece is checked that has to be proven.
    pub fn wait(&mut self, piece: u32) {
        self.waiting.insert(piece);
    }

    /// Whether pieces wait for a sync.
    pub fn is_any_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The pieces that wait for a sync, as one is about to begin.
    pub fn take_waiting(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.waiting).into_iter().collect()
    }

    /// That sync returned 0.
    pub fn can_be_proven(&mut self, pieces: Vec<u32>) {
        self.synced.extend(pieces);
    }

    /// Nothing is claimed of a piece any more.
    pub fn forget(&mut self, piece: u32) {
        self.waiting.remove(&piece);
        self.synced.remove(&piece);
        self.suspects.remove(&piece);
        if let Some(running) = &mut self.running {
            running.piece = running.piece.filter(|&running| running != piece);
        }
    }

    /// When there is something to begin.
    pub fn next_at(&self) -> Instant {
        let has_none = self.synced.is_empty() && self.suspects.is_empty();
        match has_none || self.running.is_some() {
            true => Instant::NEVER,
            false => self.next_at,
        }
    }

    /// Whether anything is to be read, now or after a sync.
    pub fn is_any_left(&self) -> bool {
        self.is_any_unproven() || !self.suspects.is_empty() || self.is_any_waiting()
    }

    /// Whether pieces whose files were synced are still to be proven.
    fn is_any_unproven(&self) -> bool {
        !self.synced.is_empty() || self.running.is_some()
    }

    fn take_next(&mut self) -> Option<u32> {
        let synced = self.synced.pop_first();
        let piece = synced.or_else(|| self.suspects.pop_first());
        self.running = piece.map(|piece| Running {
            piece: Some(piece),
            is_synced: synced.is_some(),
        });
        piece
    }
}

impl Storage {
    /// Whether a barrier has to wait for proofs, which then are not put off.
    pub(super) fn awaits_proofs(&mut self, id: TorrentId) -> bool {
        let now = self.now;
        let Some(memory) = self.memory(id) else {
            return false;
        };
        let is_leaving = memory.is_leaving;
        let Some(proofs) = memory.proofs.at_hand() else {
            return false;
        };
        let awaits = proofs.is_any_unproven() && !is_leaving;
        proofs.is_awaited = awaits;
        if awaits {
            proofs.next_at = now;
            self.wake_at = self.wake_at.min(now);
        }
        awaits
    }

    /// Begins to read the next piece back, if its time has come.
    pub(super) fn turn_proofs(&mut self, id: TorrentId) {
        let now = self.now;
        let Some(torrent) = self.torrents.get_mut(&id) else {
            return;
        };
        let meta = Arc::clone(&torrent.meta);
        let Some(memory) = torrent
            .memory
            .as_mut()
            .filter(|m| m.proofs.next_at() <= now)
        else {
            return;
        };
        let Some(text) = self.texts.of(meta.info_hash) else {
            memory.proofs.next_at = now + DELAY;
            return self.want_hashes(id);
        };
        if let Some(piece) = memory.proofs.take_next() {
            let root = Arc::clone(&self.root);
            let log = memory.log;
            let piece = PieceIndex(piece);
            let hash = *text.piece_hash(piece);
            let work = Work::Prove {
                root,
                meta,
                piece,
                hash,
            };
            let purpose = Purpose::Prove {
                torrent: id,
                log,
                piece,
            };
            self.submit(purpose, work);
        }
    }

    /// Takes the result of reading a piece back.
    pub(super) fn proved(
        &mut self,
        id: TorrentId,
        piece: PieceIndex,
        result: Result<bool, StorageError>,
    ) {
        let now = self.now;
        let Some(memory) = self.memory(id) else {
            return;
        };
        let running = memory.proofs.running.take();
        let read = running.filter(|running| running.piece == Some(piece.0));
        memory.proofs.next_at = match memory.proofs.is_awaited {
            true => now,
            false => now + DELAY,
        };
        let (log, next_at) = (memory.log, memory.proofs.next_at);
        memory.proofs.tidy();
        self.wake_at = self.wake_at.min(next_at);
        if let Some(Running { is_synced, .. }) = read {
            match result {
                Ok(true) if is_synced => self.take_proof(id, log, piece),
                Ok(true) => {}
                Ok(false) => self.lose(id, piece),
                Err(error) => self.fail(id, error),
            }
        }
        self.turn_barriers(id);
    }

    /// A piece whose files were synced is on the disk.
    fn take_proof(&mut self, id: TorrentId, log: LogId, piece: PieceIndex) {
        let now = self.now;
        let log = self.log(log);
        if log.known().claims.get(piece.0) == Claim::Checked {
            log.push(Record::Durable(vec![piece.0]), now);
        }
        if let Some(memory) = self.memory(id) {
            memory.is_proven(piece);
        }
    }

    /// A piece is not on the disk, whatever was claimed.
    fn lose(&mut self, id: TorrentId, piece: PieceIndex) {
        let Some(memory) = self.memory(id) else {
            return;
        };
        let log = memory.log;
        let claims = &self.logs[&log].log.known().claims;
        if claims.get(piece.0) == Claim::Durable {
            let meta = &self.torrents[&id].meta;
            let geometry = meta.geometry();
            let spans = geometry.spans(piece, 0, geometry.piece_len(piece));
            let files = spans.filter(|span| !span.pad).map(|span| span.file);
            let pieces = files.flat_map(|file| geometry.pieces_of_file(file));
            let suspects: Vec<u32> = pieces.filter(|&p| claims.held().has(p)).collect();
            let name = meta.info_hash.short();
            log::warn!("piece is wrong on disk, all of its files are read info_hash={name}");
            if let Some(memory) = self.memory(id) {
                memory.proofs.suspects.extend(suspects);
            }
        }
        self.drop_claim(id, piece);
        self.events.push_back(Event::Lost { torrent: id, piece });
    }
}

/// Durable pieces that are read back at the start.
const SAMPLES: u32 = 8;
/// How long after the start that begins.
const FIRST_DELAY: Duration = Duration::from_secs(1);
/// How long the disk is left to others between two pieces.
const DELAY: Duration = Duration::from_millis(5);
