//! Hashing pieces where they lie, up to four at once.
//!
//! Checks are worked off in the order in which they were asked for, those of downloaded pieces
//! before those of data found at start. [`Storage::work`] takes the first four whose next bytes
//! are in memory and moves them on together; windows for what comes next are requested ahead, so
//! that reading from the disk and hashing overlap.
//!
//! A piece that fails is hashed again block by block, and so is one that passes after it had
//! failed: the blocks that differ between the two name who sent the wrong ones.

mod hashing;
mod queue;

use std::sync::Arc;

use sha1::{Digest as _, Sha1};

use hashing::{Check, LANE_LEN, Stage};
pub(super) use queue::Checks;
use queue::WINDOWS_AHEAD;

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

/// Whether a downloaded piece may wait for others, to be hashed beside them at less cost.
///
/// Four pieces side by side cost less than half of what they cost one after the other. While
/// payload keeps coming they soon are four; the caller sees to it that none waits when it does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// It may.
    InCompany,
    /// It may not.
    AtOnce,
}

/// The next bytes of a check.
#[derive(Clone, Copy, Debug)]
enum Next {
    /// There is no such file.
    Missing,
    /// They are not in memory yet, or the hash to compare with is not.
    Waits,
    /// They are zeros.
    Zeros(u32),
    /// They are in memory.
    Window { slot: usize, start: u32, len: u32 },
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
            is_stored: is_urgent,
            stage: Stage::Piece {
                state: Sha1State::new(),
                carry: [0; LANE_LEN],
                carry_len: 0,
            },
        };
        self.checks.push(check, is_urgent);
        self.want_hashes(torrent);
        self.read_ahead();
    }

    /// Whether [`work`](Self::work) would get anything done now.
    pub fn has_work(&mut self) -> bool {
        (0..self.checks.queue.len().min(CHECKS_AHEAD))
            .any(|index| !matches!(self.next_of(index), Next::Waits))
    }

    /// Whether downloaded pieces wait to be hashed.
    pub fn has_urgent_work(&self) -> bool {
        self.checks.urgent_count > 0
    }

    /// Whether some of a downloaded piece could be hashed now.
    pub fn has_urgent_work_now(&mut self) -> bool {
        (0..self.checks.urgent_count.min(CHECKS_AHEAD))
            .any(|index| !matches!(self.next_of(index), Next::Waits))
    }

    /// Hashes what is in memory of the pieces to check, about `budget` bytes at most; returns how
    /// many it were. To be called in every turn of the loop.
    pub fn work(&mut self, budget: u64, pace: Pace) -> u64 {
        self.work_while(|_| true, budget, pace)
    }

    /// The same of downloaded pieces alone.
    pub fn work_urgent(&mut self, budget: u64, pace: Pace) -> u64 {
        self.work_while(Self::has_urgent_work, budget, pace)
    }

    /// The same of what was found on the disk alone, whatever downloaded pieces wait for.
    pub fn work_found(&mut self, budget: u64) -> u64 {
        let mut hashed = 0;
        while hashed < budget {
            let Some(len) = self.work_once(self.checks.urgent_count, budget - hashed) else {
                break;
            };
            hashed += len;
        }
        self.read_ahead();
        hashed
    }

    fn work_while(&mut self, goes_on: impl Fn(&Self) -> bool, budget: u64, pace: Pace) -> u64 {
        let mut hashed = 0;
        if pace == Pace::InCompany && !self.checks.have_company() {
            return 0;
        }
        while hashed < budget && goes_on(self) {
            let Some(len) = self.work_once(0, budget - hashed) else {
                break;
            };
            hashed += len;
        }
        self.read_ahead();
        hashed
    }

    /// Moves up to four checks on, or ends one; `None` if all from the one at `first` on wait.
    fn work_once(&mut self, first: usize, budget: u64) -> Option<u64> {
        let mut lanes: Vec<(usize, Next)> = Vec::with_capacity(LANES);
        for index in first..self.checks.queue.len().min(first + CHECKS_AHEAD) {
            match self.next_of(index) {
                Next::Missing => {
                    self.conclude(index, Verdict::Missing);
                    return Some(0);
                }
                Next::Waits => {}
                next if self.checks.queue[index].goes_alone(next.len()) => {
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
            return match self.has_hashes(check.torrent) {
                true => Next::Zeros(0),
                false => Next::Waits,
            };
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
        if self.has_lost_maps() {
            return 0;
        }
        for (index, next) in lanes {
            self.advance(*index, *next, len);
        }
        u64::from(len) * lanes.len() as u64
    }

    /// Hashes the next bytes of one check: few of them, or those of blocks, or none at all, when
    /// it is at its end.
    fn hash_alone(&mut self, index: usize, next: Next) -> u64 {
        let check = &mut self.checks.queue[index];
        let len = check.alone_len(next.len());
        let part = next.part(len, |slot| self.windows.get(slot));
        with_slices(&[part], |slices| check.update(slices[0]));
        if self.has_lost_maps() {
            return 0;
        }
        self.advance(index, next, len);
        if self.checks.queue[index].is_at_end() {
            self.conclude_stage(index);
        }
        u64::from(len)
    }

    fn advance(&mut self, index: usize, next: Next, len: u32) {
        if let Next::Window { slot, .. } = next {
            self.windows.touch(slot);
            self.watch();
        }
        self.checks.advance(index, len);
    }

    /// Ends a check, or begins with its blocks; it waits while the hashes of pieces are read.
    fn conclude_stage(&mut self, index: usize) {
        let check = &self.checks.queue[index];
        let Some(hash) = self.piece_hash(check.torrent, check.piece) else {
            return;
        };
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
                let is_good = digest == hash;
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
        let Check {
            torrent,
            piece,
            is_stored,
            ..
        } = self.checks.queue[index];
        self.checks.remove(index);
        self.remember_verdict(torrent, piece, &verdict, is_stored);
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
        let (mut count, mut under_way) = (0, 0);
        let under_way_max = self.checks.windows_ahead(self.now);
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
                let known = self.windows.find(key);
                if !known.is_some_and(|slot| self.windows.get(slot).is_ready()) {
                    if under_way == under_way_max {
                        return;
                    }
                    under_way += 1;
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
/// Bytes of one piece that are hashed before looking for others to go with.
const SLICE_LEN: u64 = 64 * 1024;
/// Checks that are looked at: so many may be under way.
const CHECKS_AHEAD: usize = 64;
/// One part in this many of all windows is requested ahead of hashing.
const AHEAD_SHARE: u64 = 4;
/// Fewer dirty bytes of a good piece are not written back at once.
const WRITE_BACK_LEN_MIN: u32 = 256 * 1024;
