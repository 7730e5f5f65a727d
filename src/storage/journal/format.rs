//! The bytes of a journal, all numbers little-endian.
//!
//! ```text
//! preamble   magic (8 B) │ version (u16) │ 0 (u16) │ CRC-32C of these 12 B (u32)
//! frame      CRC-32C (u32) │ length of the body (u32) │ sequence number (u64) │ kind (u8) │ body
//! file       preamble │ snapshot │ record │ record │ …
//! ```
//!
//! The checksum of a frame goes on from that of the frame before, and sequence numbers count up by
//! one: a frame that is torn, flipped, repeated, out of order or left over from another journal
//! ends the file, as far as a reader is concerned. The preamble keeps its form in all versions.

use std::ops::Range;

use super::{Binding, BootId, Claims, Knowledge, Record, Stamp};
use crate::base::bits::Bitfield;
use crate::base::digest::crc32c;
use crate::base::id::PieceIndex;

/// The version that is written, and the newest that is read.
pub const VERSION: u16 = 1;

/// The place in a journal at which the next frame goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Sequence number of the next frame.
    pub(super) seq: u64,
    /// Checksum of the last one.
    pub(super) crc: u32,
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Snapshot = 1,
    Checked = 2,
    Durable = 3,
    Doubted = 4,
    Dropped = 5,
    Filled = 6,
    Stamped = 7,
    Timed = 8,
}

impl Kind {
    pub(super) fn from_byte(byte: u8) -> Option<Self> {
        [
            Self::Snapshot,
            Self::Checked,
            Self::Durable,
            Self::Doubted,
            Self::Dropped,
            Self::Filled,
            Self::Stamped,
            Self::Timed,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == byte)
    }
}

/// A whole journal that says `knowledge`, and where it goes on.
pub fn encode_snapshot(binding: &Binding, knowledge: &Knowledge) -> (Vec<u8>, Chain) {
    let mut out = preamble();
    let mut chain = Chain::after(&out);
    let mut body = Vec::new();
    body.extend(binding.info_hash.0);
    body.extend(binding.length.to_le_bytes());
    body.extend(binding.piece_len.to_le_bytes());
    body.extend(binding.piece_count.to_le_bytes());
    body.extend(binding.file_count.to_le_bytes());
    body.extend(binding.layout.to_le_bytes());
    body.push(u8::from(knowledge.boot.is_some()));
    body.extend(knowledge.boot.unwrap_or(BootId([0; 16])).0);
    body.extend(knowledge.generation.to_le_bytes());
    for stamp in &knowledge.stamps {
        push_stamp(&mut body, *stamp);
    }
    for time in &knowledge.times {
        body.extend(time.to_le_bytes());
    }
    body.extend(knowledge.claims.held.as_bytes());
    body.extend(knowledge.claims.marked.as_bytes());
    let blocks = knowledge.filled.iter();
    let blocks = blocks.map(|(&piece, blocks)| (piece, runs(blocks.ones())));
    push_filled(&mut body, blocks, FILLED_LEN_MAX);
    chain.push(Kind::Snapshot, &body, &mut out);
    (out, chain)
}

fn preamble() -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend(VERSION.to_le_bytes());
    out.extend([0, 0]);
    out.extend(crc32c(0, &out).to_le_bytes());
    out
}

impl Chain {
    /// The chain that begins behind `preamble`.
    pub(super) fn after(preamble: &[u8]) -> Self {
        Self {
            seq: 0,
            crc: crc32c(0, preamble),
        }
    }

    /// Appends `record` to `out`: one frame, or several where it is long.
    pub fn encode(&mut self, record: &Record, out: &mut Vec<u8>) {
        match record {
            Record::Checked(pieces) => self.push_pieces(Kind::Checked, pieces, out),
            Record::Durable(pieces) => self.push_pieces(Kind::Durable, pieces, out),
            Record::Doubted(pieces) => self.push_pieces(Kind::Doubted, pieces, out),
            Record::Dropped(pieces) => self.push_pieces(Kind::Dropped, pieces, out),
            Record::Filled(blocks) => {
                for some in blocks.chunks(ENTRIES_MAX) {
                    let mut body = Vec::new();
                    push_filled(&mut body, some.iter().cloned(), usize::MAX);
                    self.push(Kind::Filled, &body, out);
                }
            }
            Record::Stamped(stamps) => {
                for some in stamps.chunks(ENTRIES_MAX) {
                    let mut body = Vec::new();
                    for &(group, stamp) in some {
                        body.extend(group.to_le_bytes());
                        push_stamp(&mut body, stamp);
                    }
                    self.push(Kind::Stamped, &body, out);
                }
            }
            Record::Timed(times) => {
                let mut body = Vec::new();
                for &(group, time) in times {
                    body.extend(group.to_le_bytes());
                    body.extend(time.to_le_bytes());
                }
                self.push(Kind::Timed, &body, out);
            }
        }
    }

    fn push_pieces(&mut self, kind: Kind, pieces: &[u32], out: &mut Vec<u8>) {
        let mut pieces = pieces.to_vec();
        pieces.sort_unstable();
        pieces.dedup();
        for some in runs(pieces.into_iter()).chunks(ENTRIES_MAX) {
            let mut body = Vec::new();
            push_runs(&mut body, some);
            self.push(kind, &body, out);
        }
    }

    fn push(&mut self, kind: Kind, body: &[u8], out: &mut Vec<u8>) {
        let mut frame = Vec::with_capacity(FRAME_HEAD_LEN + body.len());
        frame.extend([0; 4]);
        frame.extend((body.len() as u32).to_le_bytes());
        frame.extend(self.seq.to_le_bytes());
        frame.push(kind as u8);
        frame.extend(body);
        self.crc = crc32c(self.crc, &frame[4..]);
        self.seq += 1;
        frame[..4].copy_from_slice(&self.crc.to_le_bytes());
        out.extend(frame);
    }
}

fn push_stamp(out: &mut Vec<u8>, stamp: Stamp) {
    out.extend(stamp.lasting.to_le_bytes());
    out.extend(stamp.in_boot.to_le_bytes());
}

/// Ascending numbers as runs.
pub(in crate::storage) fn runs(numbers: impl Iterator<Item = u32>) -> Vec<Range<u32>> {
    let mut runs: Vec<Range<u32>> = Vec::new();
    for number in numbers {
        match runs.last_mut() {
            Some(run) if run.end == number => run.end += 1,
            _ => runs.push(number..number + 1),
        }
    }
    runs
}

/// Ascending runs: their number, and of each the distance from the one before and its length.
fn push_runs(out: &mut Vec<u8>, runs: &[Range<u32>]) {
    push_number(out, runs.len() as u32);
    let mut end = 0;
    for run in runs {
        push_number(out, run.start - end);
        push_number(out, run.end - run.start);
        end = run.end;
    }
}

/// Blocks by piece, as many of the first as fit `len_max` bytes.
fn push_filled(
    out: &mut Vec<u8>,
    blocks: impl Iterator<Item = (PieceIndex, Vec<Range<u32>>)>,
    len_max: usize,
) {
    let begin = out.len();
    out.extend([0; 4]);
    let mut count = 0_u32;
    for (piece, runs) in blocks {
        let before = out.len();
        out.extend(piece.0.to_le_bytes());
        push_runs(out, &runs);
        if out.len() - begin > len_max {
            out.truncate(before);
            break;
        }
        count += 1;
    }
    out[begin..begin + 4].copy_from_slice(&count.to_le_bytes());
}

/// Seven bits a byte, the lowest first; the highest bit says that more follow.
fn push_number(out: &mut Vec<u8>, mut number: u32) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Takes values from the front of a body. `None`: it is not what it should be.
pub(super) struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn number(&mut self) -> Option<u32> {
        let mut number = 0_u64;
        for shift in (0..35).step_by(7) {
            let [byte] = self.array()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(number).ok();
            }
        }
        None
    }

    pub fn stamp(&mut self) -> Option<Stamp> {
        Some(Stamp {
            lasting: self.u64()?,
            in_boot: self.u64()?,
        })
    }

    pub fn row(&mut self, len: u32) -> Option<Bitfield> {
        Bitfield::from_bytes(self.bytes(len.div_ceil(8) as usize)?, len)
    }

    pub fn claims(&mut self, piece_count: u32) -> Option<Claims> {
        Some(Claims {
            held: self.row(piece_count)?,
            marked: self.row(piece_count)?,
        })
    }

    /// Runs of numbers below `bound`.
    pub fn runs(&mut self, bound: u32) -> Option<Vec<Range<u32>>> {
        let count = self.number()?;
        let mut runs = Vec::new();
        let mut end = 0_u32;
        for _ in 0..count {
            let start = end.checked_add(self.number()?)?;
            end = start.checked_add(self.number()?)?;
            if start >= end || end > bound {
                return None;
            }
            runs.push(start..end);
        }
        Some(runs)
    }

    pub fn pieces(&mut self, bound: u32) -> Option<Vec<u32>> {
        Some(self.runs(bound)?.into_iter().flatten().collect())
    }

    pub fn filled(&mut self, binding: &Binding) -> Option<Vec<(PieceIndex, Vec<Range<u32>>)>> {
        let count = self.u32()?;
        let mut filled = Vec::new();
        for _ in 0..count {
            let piece = self.u32()?;
            if piece >= binding.piece_count {
                return None;
            }
            let runs = self.runs(binding.block_count(piece))?;
            filled.push((PieceIndex(piece), runs));
        }
        Some(filled)
    }
}

/// Says in its first byte that it is no text, and changes if somebody takes it for one.
pub(super) const MAGIC: [u8; 8] = *b"\xe5EVJ\r\n\x1a\n";
pub(super) const PREAMBLE_LEN: usize = 16;
pub(super) const FRAME_HEAD_LEN: usize = 17;
/// Runs, pieces or groups that one record's frame names at most: some KiB.
const ENTRIES_MAX: usize = 1024;
/// Bytes of filled blocks in a snapshot at most: what does not fit is fetched again.
const FILLED_LEN_MAX: usize = 12 * 1024;
