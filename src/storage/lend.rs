//! Lending bytes to `writev`, straight from the windows.

use std::io::IoSlice;

use super::Storage;
use super::error::StorageError;
use super::files::FileState;
use super::map::{PARTS_MAX, Part, with_slices};
use super::span::{Place, WindowKey, chunks};
use super::store::crosses;
use super::window::Want;
use crate::base::limits::{BLOCK_LEN, WINDOW_LEN};
use crate::base::plan::{Segment, WritePlan};
use crate::base::slot::Slot;

/// What came of an attempt to lend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lent<R> {
    /// What the borrower made of the bytes.
    Done(R),
    /// The first bytes are not in memory: [`Event::Readable`](super::Event::Readable) follows.
    NotReady,
}

/// Where a run of the plan's bytes is, without borrowing it yet.
#[derive(Clone, Copy)]
enum Source {
    Scratch { start: usize, end: usize },
    Zeros { len: usize },
    Window { slot: usize, start: u32, len: u32 },
}

/// Runs of one plan, at most as many as `writev` is given at once.
struct Sources {
    all: [Source; PARTS_MAX],
    len: usize,
}

impl Storage {
    /// Lends the bytes of `plan` to `borrow`, as many of the first as are in memory, and starts to
    /// load the others.
    ///
    /// Of a plan without bytes nothing is lent, and `borrow` runs on no slices.
    pub fn lend<R>(
        &mut self,
        plan: &WritePlan,
        borrow: impl FnOnce(&[IoSlice<'_>]) -> R,
    ) -> Lent<R> {
        let mut sources = Sources::default();
        let mut failed = None;
        for segment in &plan.segments {
            let is_whole = match *segment {
                Segment::Bytes { start, end } => sources.push(Source::Scratch { start, end }),
                Segment::Data(slot) => {
                    self.find_sources(slot, &mut sources)
                        .unwrap_or_else(|error| {
                            failed = Some((slot.torrent, error));
                            false
                        })
                }
            };
            if !is_whole {
                break;
            }
        }
        let lent = match sources.len {
            0 if !plan.is_empty() => Lent::NotReady,
            _ => Lent::Done(self.lend_sources(plan, sources.as_slice(), borrow)),
        };
        if let Some(slot) = plan.ahead {
            self.bring(slot);
        }
        self.has_lost_maps();
        if let Some((torrent, error)) = failed {
            self.fail_or_lapse(torrent, error);
        }
        lent
    }

    fn lend_sources<R>(
        &self,
        plan: &WritePlan,
        sources: &[Source],
        borrow: impl FnOnce(&[IoSlice<'_>]) -> R,
    ) -> R {
        let mut parts = [Part::Bytes(&[]); PARTS_MAX];
        for (part, source) in parts.iter_mut().zip(sources) {
            *part = match *source {
                Source::Scratch { start, end } => Part::Bytes(&plan.scratch[start..end]),
                Source::Zeros { len } => Part::Bytes(&ZEROS[..len]),
                Source::Window { slot, start, len } => {
                    let part = self.windows.get(slot).part(start, len);
                    part.expect("found ready a moment ago")
                }
            };
        }
        with_slices(&parts[..sources.len()], |slices| {
            let mut vectors = [IoSlice::new(&[]); PARTS_MAX];
            for (vector, slice) in vectors.iter_mut().zip(slices) {
                *vector = IoSlice::new(slice);
            }
            borrow(&vectors[..slices.len()])
        })
    }

    /// Appends where the bytes of `slot` are; says whether all of them are there.
    ///
    /// # Errors
    /// One of its files is missing.
    fn find_sources(&mut self, slot: Slot, sources: &mut Sources) -> Result<bool, StorageError> {
        let Some(torrent) = self.torrents.get(&slot.torrent) else {
            return Ok(false);
        };
        let meta = torrent.meta.clone();
        let geometry = meta.geometry();
        let places = chunks(geometry, slot.torrent, slot.piece, slot.begin, slot.len);
        for chunk in places {
            let is_whole = match chunk.place {
                Place::Pad => sources.push_zeros(chunk.len as usize),
                Place::Window { key, start } => {
                    let Some(window) = self.readable(key)? else {
                        return Ok(false);
                    };
                    if crosses(start, chunk.len, (WINDOW_LEN / 2) as u32) {
                        let next = chunk.begin + (WINDOW_LEN as u32 - start);
                        self.request_ahead(&meta, slot, next, Want::Read);
                    }
                    sources.push(Source::Window {
                        slot: window,
                        start,
                        len: chunk.len,
                    })
                }
            };
            if !is_whole {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Starts to load what is lent soon, so that a disk which others keep busy has time for it.
    fn bring(&mut self, slot: Slot) {
        if let Some(torrent) = self.torrents.get(&slot.torrent) {
            let meta = torrent.meta.clone();
            self.request_ahead(&meta, slot, slot.begin, Want::Read);
        }
    }

    /// The window, if its bytes are in memory; else they will be.
    fn readable(&mut self, key: WindowKey) -> Result<Option<usize>, StorageError> {
        let file = &self.torrents[&key.torrent].files[key.file as usize];
        if matches!(file.state, FileState::Absent) && self.windows.find(key).is_none() {
            let path = self.path_of(key);
            return Err(StorageError::Missing { path });
        }
        self.watch();
        let slot = self.request(key, Want::Read);
        self.windows.touch(slot);
        let window = self.windows.get_mut(slot);
        if window.is_ready() {
            return Ok(Some(slot));
        }
        window.has_readers = true;
        self.checks.others_wait(self.now);
        Ok(None)
    }
}

impl Sources {
    /// Says whether there was room.
    fn push(&mut self, source: Source) -> bool {
        let Some(place) = self.all.get_mut(self.len) else {
            return false;
        };
        *place = source;
        self.len += 1;
        true
    }

    fn push_zeros(&mut self, mut len: usize) -> bool {
        while len > 0 {
            let run = len.min(ZEROS.len());
            if !self.push(Source::Zeros { len: run }) {
                return false;
            }
            len -= run;
        }
        true
    }

    fn as_slice(&self) -> &[Source] {
        &self.all[..self.len]
    }
}

impl Default for Sources {
    fn default() -> Self {
        Self {
            all: [Source::Zeros { len: 0 }; PARTS_MAX],
            len: 0,
        }
    }
}

/// What pad files hold (BEP 47).
pub(super) static ZEROS: [u8; BLOCK_LEN as usize] = [0; BLOCK_LEN as usize];
