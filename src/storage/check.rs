//! Hashing pieces where they lie, up to four at once.
//!
//! Checks are worked off in the order in which they were asked for, those of downloaded pieces
//! before those of data found at start. [`Storage::work`] takes the first four whose next bytes
//! are in memory and moves them on together; windows for what comes next are requested ahead, so
//! that reading from the disk and hashing overlap.
//!
//! A piece that fails is hashed again block by block, and so is one that passes after it had
//! failed: the blocks that differ between the two name who sent the wrong ones.

use std::collections::VecDeque;
use std::sync::Arc;

use sha1::{Digest, Sha1};

use super::files::FileState;
use super::lanes::{Sha1State, update_lanes};
use super::lend::ZEROS;
use super::map::{Part, with_slices};
use super::span::{Place, chunks};
use super::window::{Want, Window};
use super::{Event, Storage};
use crate::base::id::{PieceIndex, TorrentId};
use crate::base::limits::{BLOCK_LEN, WINDOW_LEN};
use crate::base::verdict::Verdict;

/// The checks under way.
#[derive(Debug, Default)]
pub(super) struct Checks {
    /// The urgent ones first.
    queue: VecDeque<Check>,
    urgent_count: usize,
    backlog: u64,
}

/// One piece that is being hashed.
#[derive(Debug)]
struct Check {
    torrent: TorrentId,
    piece: PieceIndex,
    /// Bytes of the piece.
    len: u32,
    /// The next byte to hash.
    at: u32,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// The digest of the piece.
    Piece {
        state: Sha1State,
        /// The begin of a 64-byte block whose end lies in another window.
        carry: [u8; LANE_LEN],
        carry_len: usize,
    },
    /// One digest a block, for a piece that is `is_good`.
    Blocks {
        is_good: bool,
        hasher: Sha1,
        digests: Vec<u64>,
    },
}

/// The next bytes of a check.
#[derive(Clone, Copy, Debug)]
enum Next {
    /// There is no such file.
    Missing,
    /// They are not in memory yet.
    Waits,
    /// They are zeros.
    Zeros(u32),
    /// They are in memory.
    Window { slot: usize, start: u32, len: u32 },
}

impl Checks {
    /// Bytes of downloaded pieces still to be hashed.
    pub fn backlog(&self) -> u64 {
        self.backlog
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

    fn push(&mut self, check: Check, is_urgent: bool) {
        if is_urgent {
            self.backlog += u64::from(check.len);
            self.queue.insert(self.urgent_count, check);
            self.urgent_count += 1;
        } else {
            self.queue.push_back(check);
        }
    }

    fn remove(&mut self, index: usize) {
        let check = self.queue.remove(index).expect("index of a check");
        if index < self.urgent_count {
            self.urgent_count -= 1;
            if matches!(check.stage, Stage::Piece { .. }) {
                self.backlog -= u64::from(check.len - check.at);
            }
        }
    }

    fn advance(&mut self, index: usize, len: u32) {
        let check = &mut self.queue[index];
        check.at += len;
        if index < self.urgent_count && matches!(check.stage, Stage::Piece { .. }) {
            self.backlog -= u64::from(len);
        }
    }
}

impl Storage {
    /// Hashes `piece` as soon as all that was stored into it is in place; [`Event::Checked`]
    /// follows.
    pub fn check(&mut self, torrent: TorrentId, piece: PieceIndex) {
        let Some(of) = self.torrents.get_mut(&torrent) else {
            return;
        };
        let is_urgent = of.touched.clear(piece.0);
        let check = Check {
            torrent,
            piece,
            len: of.meta.geometry().piece_len(piece),
            at: 0,
            stage: Stage::Piece {
                state: Sha1State::new(),
                carry: [0; LANE_LEN],
                carry_len: 0,
            },
        };
        self.checks.push(check, is_urgent);
        self.read_ahead();
    }

    /// Whether [`work`](Self::work) would get anything done now.
    pub fn has_work(&mut self) -> bool {
        (0..self.checks.queue.len().min(CHECKS_AHEAD))
            .any(|index| !matches!(self.next_of(index), Next::Waits))
    }

    /// Hashes what is in memory of the pieces to check, about `budget` bytes at most; returns how
    /// many it were. To be called in every turn of the loop.
    pub fn work(&mut self, budget: u64) -> u64 {
        let mut hashed = 0;
        while hashed < budget {
            let Some(len) = self.work_once(budget - hashed) else {
                break;
            };
            hashed += len;
        }
        self.read_ahead();
        hashed
    }

    /// Moves up to four checks on, or ends one; `None` if all of them wait.
    fn work_once(&mut self, budget: u64) -> Option<u64> {
        let mut lanes: Vec<(usize, Next)> = Vec::with_capacity(LANES);
        for index in 0..self.checks.queue.len().min(CHECKS_AHEAD) {
            match self.next_of(index) {
                Next::Missing => {
                    self.conclude(index, Verdict::Missing);
                    return Some(0);
                }
                Next::Waits => {}
                next if self.checks.queue[index].goes_alone(next) => {
                    return Some(self.hash_alone(index, next));
                }
                next => lanes.push((index, next)),
            }
            if lanes.len() == LANES {
                break;
            }
        }
        if lanes.is_empty() {
            return None;
        }
        Some(self.hash_side_by_side(&lanes, budget))
    }

    /// The next bytes of a check.
    fn next_of(&mut self, index: usize) -> Next {
        let check = &self.checks.queue[index];
        let torrent = &self.torrents[&check.torrent];
        let geometry = torrent.meta.geometry();
        if check.is_at_end() {
            return Next::Zeros(0);
        }
        let left = check.len - check.at;
        let mut rest = chunks(geometry, check.torrent, check.piece, check.at, left);
        let chunk = rest.next().expect("bytes are left");
        match chunk.place {
            Place::Pad => Next::Zeros(chunk.len.min(ZEROS.len() as u32)),
            Place::Window { key, start } => match self.windows.find(key) {
                Some(slot) if self.windows.get(slot).is_hashable() => Next::Window {
                    slot,
                    start,
                    len: chunk.len,
                },
                Some(_) => Next::Waits,
                None => match torrent.files[key.file as usize].state {
                    FileState::Absent => Next::Missing,
                    _ => Next::Waits,
                },
            },
        }
    }

    /// Hashes the next bytes of several checks at once, all of them equally many.
    fn hash_side_by_side(&mut self, lanes: &[(usize, Next)], budget: u64) -> u64 {
        let share = (budget / lanes.len() as u64).clamp(LANE_LEN as u64, SLICE_LEN) as u32;
        let len = lanes.iter().map(|(_, next)| next.len()).min().unwrap_or(0);
        let len = len.min(share) / LANE_LEN as u32 * LANE_LEN as u32;
        let mut parts = [Part::Bytes(&[]); LANES];
        for (part, (_, next)) in parts.iter_mut().zip(lanes) {
            *part = next.part(len, |slot| self.windows.get(slot));
        }
        let mut states: Vec<&mut Sha1State> = Vec::with_capacity(LANES);
        for (index, check) in self.checks.queue.iter_mut().enumerate() {
            if lanes.iter().any(|(lane, _)| *lane == index)
                && let Stage::Piece { state, .. } = &mut check.stage
            {
                states.push(state);
            }
            if states.len() == lanes.len() {
                break;
            }
        }
        with_slices(&parts[..lanes.len()], |slices| {
            update_lanes(&mut states, slices);
        });
        for (index, next) in lanes {
            self.advance(*index, *next, len);
        }
        u64::from(len) * lanes.len() as u64
    }

    /// Hashes the next bytes of one check: few of them, or those of blocks, or none at all, when
    /// it is at its end.
    fn hash_alone(&mut self, index: usize, next: Next) -> u64 {
        let check = &mut self.checks.queue[index];
        let len = check.alone_len(next);
        let part = next.part(len, |slot| self.windows.get(slot));
        with_slices(&[part], |slices| check.update(slices[0]));
        self.advance(index, next, len);
        if self.checks.queue[index].is_at_end() {
            self.conclude_stage(index);
        }
        u64::from(len)
    }

    fn advance(&mut self, index: usize, next: Next, len: u32) {
        if let Next::Window { slot, .. } = next {
            self.windows.touch(slot);
        }
        self.checks.advance(index, len);
    }

    /// Ends a check, or begins with its blocks.
    fn conclude_stage(&mut self, index: usize) {
        let check = &mut self.checks.queue[index];
        let Some(torrent) = self.torrents.get(&check.torrent) else {
            return;
        };
        match &mut check.stage {
            Stage::Piece {
                state,
                carry,
                carry_len,
            } => {
                let digest = state.clone().finish(&carry[..*carry_len]);
                let is_good = digest == *torrent.meta.piece_hash(check.piece);
                if is_good && !torrent.failed_pieces.contains(&check.piece) {
                    let blocks = Vec::new();
                    return self.conclude(index, Verdict::Good { blocks });
                }
                check.at = 0;
                check.stage = Stage::Blocks {
                    is_good,
                    hasher: Sha1::new(),
                    digests: Vec::with_capacity(check.len.div_ceil(BLOCK_LEN) as usize),
                };
            }
            Stage::Blocks {
                is_good, digests, ..
            } => {
                let blocks = std::mem::take(digests);
                let verdict = match is_good {
                    true => Verdict::Good { blocks },
                    false => Verdict::Bad { blocks },
                };
                self.conclude(index, verdict);
            }
        }
    }

    fn conclude(&mut self, index: usize, verdict: Verdict) {
        let Check { torrent, piece, .. } = self.checks.queue[index];
        self.checks.remove(index);
        if let Some(of) = self.torrents.get_mut(&torrent) {
            match verdict {
                Verdict::Good { .. } => {
                    of.failed_pieces.remove(&piece);
                    self.write_back_piece(torrent, piece);
                }
                Verdict::Bad { .. } => {
                    of.failed_pieces.insert(piece);
                }
                Verdict::Missing => {}
            }
        }
        self.events.push_back(Event::Checked {
            torrent,
            piece,
            verdict,
        });
    }

    /// Writes the buffers of a good piece back, where that is worth a job: what is left over goes
    /// with the next piece, or when the window goes.
    fn write_back_piece(&mut self, id: TorrentId, piece: PieceIndex) {
        let meta = Arc::clone(&self.torrents[&id].meta);
        let geometry = meta.geometry();
        for chunk in chunks(geometry, id, piece, 0, geometry.piece_len(piece)) {
            if let Place::Window { key, .. } = chunk.place
                && let Some(slot) = self.windows.find(key)
                && self.windows.get(slot).dirty_len() >= WRITE_BACK_LEN_MIN
                && self.windows.get(slot).job.is_none()
            {
                self.write_back(slot);
            }
        }
    }

    /// Requests the windows that will be hashed next.
    fn read_ahead(&mut self) {
        let mut left = (self.windows_len_max / AHEAD_SHARE).max(WINDOW_LEN);
        let mut count = 0;
        for index in 0..self.checks.queue.len().min(CHECKS_AHEAD) {
            let check = &self.checks.queue[index];
            if check.is_at_end() {
                continue;
            }
            let (id, piece, at, len) = (check.torrent, check.piece, check.at, check.len);
            let meta = Arc::clone(&self.torrents[&id].meta);
            for chunk in chunks(meta.geometry(), id, piece, at, len - at) {
                let Place::Window { key, .. } = chunk.place else {
                    continue;
                };
                let file = &self.torrents[&id].files[key.file as usize];
                if matches!(file.state, FileState::Absent) && self.windows.find(key).is_none() {
                    break; // the piece is missing
                }
                let slot = self.request(key, Want::Read);
                self.windows.touch(slot);
                count += 1;
                left = left.saturating_sub(u64::from(self.windows.get(slot).len));
                if left == 0 || count == WINDOWS_AHEAD {
                    return;
                }
            }
        }
    }

    /// The windows that [`work`](Self::work) will use when it is called next.
    pub(super) fn windows_to_hash(&mut self) -> Vec<usize> {
        (0..self.checks.queue.len().min(CHECKS_AHEAD))
            .filter_map(|index| match self.next_of(index) {
                Next::Window { slot, .. } => Some(slot),
                _ => None,
            })
            .collect()
    }
}

impl Check {
    fn is_at_end(&self) -> bool {
        self.at == self.len
    }

    /// Whether the next bytes do not go side by side with those of other checks.
    fn goes_alone(&self, next: Next) -> bool {
        match &self.stage {
            Stage::Blocks { .. } => true,
            Stage::Piece { carry_len, .. } => {
                *carry_len > 0 || next.len() < SIDE_BY_SIDE_LEN_MIN || self.is_at_end()
            }
        }
    }

    /// How many of the next bytes are hashed when this check goes alone.
    fn alone_len(&self, next: Next) -> u32 {
        let block_left = BLOCK_LEN - self.at % BLOCK_LEN;
        match &self.stage {
            Stage::Blocks { .. } => next.len().min(block_left),
            Stage::Piece { carry_len: 0, .. } => next.len().min(SIDE_BY_SIDE_LEN_MIN),
            Stage::Piece { carry_len, .. } => next.len().min((LANE_LEN - carry_len) as u32),
        }
    }

    /// Takes up the next bytes.
    fn update(&mut self, mut bytes: &[u8]) {
        match &mut self.stage {
            Stage::Piece {
                state,
                carry,
                carry_len,
            } => {
                if *carry_len > 0 {
                    let n = bytes.len().min(LANE_LEN - *carry_len);
                    carry[*carry_len..*carry_len + n].copy_from_slice(&bytes[..n]);
                    *carry_len += n;
                    bytes = &bytes[n..];
                    if *carry_len == LANE_LEN {
                        update_lanes(&mut [&mut *state], &[&carry[..]]);
                        *carry_len = 0;
                    }
                }
                let (whole, rest) = bytes.split_at(bytes.len() / LANE_LEN * LANE_LEN);
                if !whole.is_empty() {
                    update_lanes(&mut [&mut *state], &[whole]);
                }
                if !rest.is_empty() {
                    carry[..rest.len()].copy_from_slice(rest);
                    *carry_len = rest.len();
                }
            }
            Stage::Blocks {
                hasher, digests, ..
            } => {
                hasher.update(bytes);
                let end = self.at + bytes.len() as u32;
                if end.is_multiple_of(BLOCK_LEN) || end == self.len {
                    let digest = hasher.finalize_reset();
                    let [a, b, c, d, e, f, g, h, ..] = <[u8; 20]>::from(digest);
                    digests.push(u64::from_be_bytes([a, b, c, d, e, f, g, h]));
                }
            }
        }
    }
}

impl Next {
    fn len(self) -> u32 {
        match self {
            Self::Missing | Self::Waits => 0,
            Self::Zeros(len) | Self::Window { len, .. } => len,
        }
    }

    /// The first `len` of the bytes.
    fn part<'a>(self, len: u32, window: impl FnOnce(usize) -> &'a Window) -> Part<'a> {
        match self {
            Self::Missing | Self::Waits => Part::Bytes(&[]),
            Self::Zeros(_) => Part::Bytes(&ZEROS[..len as usize]),
            Self::Window { slot, start, .. } => window(slot)
                .part(start, len)
                .expect("a window that can be hashed"),
        }
    }
}

/// Streams that are hashed side by side.
const LANES: usize = 4;
/// Bytes that SHA-1 takes at once.
const LANE_LEN: usize = 64;
/// Bytes of one piece that are hashed before looking for others to go with.
const SLICE_LEN: u64 = 64 * 1024;
/// Shorter runs are hashed alone, so that they do not shorten those of others.
const SIDE_BY_SIDE_LEN_MIN: u32 = 4096;
/// Checks that are looked at: so many may be under way.
const CHECKS_AHEAD: usize = 64;
/// Windows that are requested ahead of hashing at most.
const WINDOWS_AHEAD: usize = 64;
/// One part in this many of all windows is requested ahead of hashing.
const AHEAD_SHARE: u64 = 4;
/// Fewer dirty bytes of a good piece are not written back at once.
const WRITE_BACK_LEN_MIN: u32 = 256 * 1024;

const _: () = assert!(SIDE_BY_SIDE_LEN_MIN as usize >= LANE_LEN);
