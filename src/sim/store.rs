//! What is below an engine: the real storage over a disk in memory, or a book of tags.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::disk::Disk;
use super::net::Chunk;
use crate::base::bits::Bitfield;
use crate::base::id::PieceIndex;
use crate::base::limits;
use crate::base::plan::{Segment, WritePlan};
use crate::base::slot::Slot;
use crate::base::time::Instant;
use crate::base::verdict::Verdict;
use crate::config::StorageKind;
use crate::engine::StorageAction;
use crate::meta::metainfo::Metainfo;
use crate::storage::error::StorageError;
use crate::storage::jobs::Done;
use crate::storage::keep::torrent_path;
use crate::storage::{Access, Event, Lent, Pace, Storage, StorageOptions};

/// What the engine stores into.
pub(super) enum Store {
    /// The real code, real bytes.
    Real(Box<Real>),
    /// For large worlds: which blocks are there and right.
    Tagged(Box<Tagged>),
}

/// The real storage and its disk.
pub(super) struct Real {
    pub storage: Storage,
    pub disk: Disk,
}

/// Which pieces are there, without their bytes.
#[derive(Debug)]
pub(super) struct Tagged {
    meta: Option<Arc<Metainfo>>,
    /// Pieces that are there and right.
    pub have: Bitfield,
    begun: BTreeMap<PieceIndex, Begun>,
    events: VecDeque<Event>,
}

/// A piece that is not complete, or was not checked.
#[derive(Clone, Debug, Default)]
struct Begun {
    stored: u32,
    /// Blocks that are wrong.
    wrong: Vec<u32>,
}

impl Store {
    /// The real code over `disk`.
    pub fn real(disk: Disk) -> Self {
        let storage = new_storage();
        Self::Real(Box::new(Real { storage, disk }))
    }

    /// Does what the engine asks for.
    pub fn apply(&mut self, action: StorageAction) {
        match self {
            Self::Real(real) => {
                if let StorageAction::Hold { info_hash, text } = &action {
                    let path = torrent_path(Path::new(STATE_DIR), *info_hash);
                    real.disk.keep_text(path, text.clone()); // as the shell does
                }
                apply(&mut real.storage, action);
            }
            Self::Tagged(tagged) => tagged.apply(action),
        }
    }

    /// Stores payload.
    pub fn store(&mut self, slot: Slot, bytes: &[u8]) {
        match self {
            Self::Real(real) => real.storage.store(slot, bytes),
            Self::Tagged(tagged) => tagged.store(slot, bytes),
        }
    }

    /// Hashes what is there to be hashed; whether there was anything.
    pub fn work(&mut self) -> bool {
        match self {
            Self::Real(real) => real.storage.work(u64::MAX, Pace::AtOnce) > 0,
            Self::Tagged(_) => false,
        }
    }

    /// Starts what can block; when each result comes.
    pub fn start_jobs(&mut self, now: Instant, mut done: impl FnMut(Done, Instant)) {
        let Self::Real(real) = self else { return };
        real.storage.tick(now);
        while let Some(job) = real.storage.poll_job() {
            let (result, at) = real.disk.run(job, now);
            done(result, at);
        }
    }

    /// When time alone gives storage something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        match self {
            Self::Real(real) => real.storage.next_deadline(),
            Self::Tagged(_) => None,
        }
    }

    /// Takes the result of a job.
    pub fn job_done(&mut self, done: Done) {
        if let Self::Real(real) = self {
            real.storage.job_done(done);
        }
    }

    /// The process ended, or the power went: what is left for the next one.
    pub fn stopped(&mut self, is_power_cut: bool) {
        match self {
            Self::Real(real) => {
                real.storage = new_storage();
                if is_power_cut {
                    real.disk.power_cut();
                } else {
                    real.disk.let_go();
                }
            }
            Self::Tagged(tagged) => **tagged = tagged.reopened(),
        }
    }

    /// News for the engine.
    pub fn poll_event(&mut self) -> Option<Event> {
        match self {
            Self::Real(real) => real.storage.poll_event(),
            Self::Tagged(tagged) => tagged.events.pop_front(),
        }
    }

    /// Fills `chunk` with at most `room` bytes of the plan; `false` if storage has not got the
    /// first of them at hand.
    pub fn lend(&mut self, plan: &WritePlan, room: usize, chunk: &mut Chunk) -> bool {
        match self {
            Self::Real(real) => {
                let lent = real.storage.lend(plan, |slices| {
                    let mut left = room;
                    for slice in slices {
                        let len = slice.len().min(left);
                        chunk.push_bytes(&slice[..len]);
                        left -= len;
                    }
                });
                matches!(lent, Lent::Done(()))
            }
            Self::Tagged(tagged) => {
                tagged.lend(plan, room, chunk);
                true
            }
        }
    }
}

/// Storage with buffers: maps need a kernel.
fn new_storage() -> Storage {
    Storage::new(StorageOptions {
        root: PathBuf::from("/"),
        kind: StorageKind::Pwrite,
        access: Access::ReadWrite,
        windows_len_max: limits::WINDOWS_LEN_MAX,
        state_dir: Some(PathBuf::from(STATE_DIR)),
    })
}

/// Hands what the engine wants of storage to it.
fn apply(storage: &mut Storage, action: StorageAction) {
    match action {
        StorageAction::Open {
            torrent,
            meta,
            writable: true,
        } => storage.add(torrent, meta),
        StorageAction::Open { torrent, meta, .. } => storage.add_to_serve(torrent, meta),
        StorageAction::Probe { torrent } => storage.probe(torrent),
        StorageAction::DoWithoutDisk { info_hash } => storage.do_without_disk(info_hash),
        StorageAction::Hold { info_hash, text } => storage.hold(info_hash, text),
        StorageAction::Text { info_hash } => storage.text(info_hash),
        StorageAction::Choose { torrent, skipped } => storage.choose(torrent, skipped),
        StorageAction::Begin { torrent } => storage.create_empty_files(torrent),
        StorageAction::Prepare { torrent, piece } => storage.prepare(torrent, piece),
        StorageAction::Store { slot, bytes } => storage.store(slot, &bytes),
        StorageAction::Check { torrent, piece } => storage.check(torrent, piece),
        StorageAction::Settle { torrent, ticket } => storage.settle(torrent, ticket),
        StorageAction::Sync { torrent, ticket } => storage.sync(torrent, ticket),
        StorageAction::Leave { torrent, ticket } => storage.leave(torrent, ticket),
        StorageAction::Close { torrent } => storage.remove(torrent),
    }
}

impl Tagged {
    /// A host that has these pieces.
    pub fn new(have: Bitfield) -> Self {
        Self {
            meta: None,
            have,
            begun: BTreeMap::new(),
            events: VecDeque::new(),
        }
    }

    /// The same pieces, after a restart.
    pub fn reopened(&self) -> Self {
        Self::new(self.have.clone())
    }

    fn apply(&mut self, action: StorageAction) {
        match action {
            StorageAction::Open { torrent, meta, .. } => {
                self.meta = Some(meta);
                let candidates = self.have.clone();
                self.events.push_back(Event::Scanned {
                    torrent,
                    vouched: Bitfield::new(candidates.len()),
                    candidates,
                    filled: Vec::new(),
                });
            }
            StorageAction::Store { slot, bytes } => self.store(slot, &bytes),
            StorageAction::Check { torrent, piece } => {
                let verdict = self.check(piece);
                self.events.push_back(Event::Checked {
                    torrent,
                    piece,
                    verdict,
                });
            }
            StorageAction::Settle { torrent, ticket } => {
                self.events.push_back(Event::Settled { torrent, ticket })
            }
            StorageAction::Sync { torrent, ticket } | StorageAction::Leave { torrent, ticket } => {
                self.events.push_back(Event::Durable { torrent, ticket })
            }
            StorageAction::Probe { torrent } => {
                let result = Ok(());
                self.events.push_back(Event::Probed { torrent, result });
            }
            StorageAction::Text { info_hash } => {
                let result = Err(StorageError::TextNotKept);
                self.events.push_back(Event::Text { info_hash, result });
            }
            StorageAction::Hold { .. }
            | StorageAction::DoWithoutDisk { .. }
            | StorageAction::Begin { .. }
            | StorageAction::Choose { .. }
            | StorageAction::Prepare { .. }
            | StorageAction::Close { .. } => {}
        }
    }

    fn store(&mut self, slot: Slot, bytes: &[u8]) {
        let begun = self.begun.entry(slot.piece).or_default();
        begun.stored += slot.len;
        let block = slot.begin / limits::BLOCK_LEN;
        let place = begun.wrong.iter().position(|&wrong| wrong == block);
        let is_right = is_right(bytes);
        match place {
            Some(place) if is_right && slot.begin.is_multiple_of(limits::BLOCK_LEN) => {
                begun.wrong.swap_remove(place);
            }
            None if !is_right => begun.wrong.push(block),
            _ => {}
        }
    }

    fn check(&mut self, piece: PieceIndex) -> Verdict {
        let Some(meta) = &self.meta else {
            return Verdict::Missing;
        };
        if self.have.has(piece.0) {
            return Verdict::Good { blocks: Vec::new() };
        }
        let Some(begun) = self.begun.get_mut(&piece) else {
            return Verdict::Missing;
        };
        let geometry = meta.geometry();
        if begun.stored < geometry.piece_len(piece) {
            return Verdict::Missing;
        }
        let digest = |block: u32, wrong: &[u32]| u64::from(wrong.contains(&block));
        let blocks: Vec<u64> = (0..geometry.block_count(piece))
            .map(|block| digest(block, &begun.wrong))
            .collect();
        if begun.wrong.is_empty() {
            self.begun.remove(&piece);
            self.have.set(piece.0);
            Verdict::Good { blocks }
        } else {
            begun.stored = 0;
            Verdict::Bad { blocks }
        }
    }

    fn lend(&mut self, plan: &WritePlan, room: usize, chunk: &mut Chunk) {
        let mut left = room;
        for segment in &plan.segments {
            match *segment {
                Segment::Bytes { start, end } => {
                    let len = (end - start).min(left);
                    chunk.push_bytes(&plan.scratch[start..start + len]);
                    left -= len;
                }
                Segment::Data(slot) => {
                    let len = slot.len.min(left as u32);
                    let is_right = self.have.has(slot.piece.0);
                    chunk.push_tag(Slot { len, ..slot }, is_right);
                    left -= len as usize;
                }
            }
            if left == 0 {
                return;
            }
        }
    }
}

/// Where the journals are.
pub(super) const STATE_DIR: &str = "state";
/// Payload that stands for right bytes, and for wrong ones.
pub(super) static RIGHT: [u8; TAG_LEN_MAX] = [0; TAG_LEN_MAX];
pub(super) static WRONG: [u8; TAG_LEN_MAX] = [1; TAG_LEN_MAX];

/// Whether payload of a world with tags is right.
fn is_right(bytes: &[u8]) -> bool {
    bytes.first().is_none_or(|&first| first == 0)
}

/// Bytes of one tag at most: a block.
pub(super) const TAG_LEN_MAX: usize = limits::BLOCK_LEN as usize;
