//! The table of windows: which runs of which files are in memory, and what waits for them.
//!
//! ```text
//!           room            file open          job done
//!  Queued ────────▶ Admitted ────────▶ Loading ────────▶ Map | Heap ──▶ evicted
//!                      ▲                                   │
//!                      └── a store, but it was loaded ─────┘
//!                          from a file open for reading
//! ```
//!
//! A window counts against the limit from `Admitted` on. Bytes that arrive before it is ready wait
//! beside it. Nobody who waits for a window holds another one, so waiting always ends.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use slab::Slab;

use super::jobs::JobId;
use super::map::{Map, MapAccess, Part};
use super::os::Populate;
use super::span::WindowKey;
use crate::base::limits::WINDOW_LEN;

/// One window.
#[derive(Debug)]
pub(super) struct Window {
    pub key: WindowKey,
    /// Bytes: [`WINDOW_LEN`], or less at the end of a file.
    pub len: u32,
    pub body: Body,
    /// The most that was wanted of it.
    pub want: Want,
    /// When it was used last, in uses of any window.
    pub stamp: u64,
    /// The job that it waits for.
    pub job: Option<JobId>,
    /// Somebody was told that it is not ready, and waits for the event.
    pub has_readers: bool,
    /// It is written back in order to make room.
    pub is_leaving: bool,
    pending: Vec<Pending>,
}

/// What a window is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Want {
    Read,
    Write,
}

/// Where a window's bytes are.
#[derive(Debug)]
pub(super) enum Body {
    /// Nowhere: there is no room yet.
    Queued,
    /// Nowhere: there is room, but its file is not open yet.
    Admitted,
    /// A job brings them.
    Loading,
    /// In the page cache, mapped.
    Map { map: Arc<Map>, populated: Populate },
    /// In a buffer of ours. While a job writes it back, it is shared with the job.
    Heap {
        bytes: Arc<Vec<u8>>,
        /// Whether its file was open for writing when it was loaded.
        is_writable: bool,
        /// Nothing but what was stored may be written: its file is not wanted as a whole.
        is_sparse: bool,
        dirty: Option<Dirty>,
        /// Sequence number of the oldest store that is being written back.
        in_flight: Option<u64>,
    },
}

/// The part of a buffer that its file does not have yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Dirty {
    /// In order, and apart from each other. One that spans all stores, unless the window is sparse.
    pub ranges: Vec<Range<u32>>,
    /// Sequence number of the oldest store in it.
    pub seq: u64,
}

impl Dirty {
    /// Bytes were stored there.
    fn add(&mut self, new: Range<u32>, is_sparse: bool) {
        if !is_sparse && let [range] = &mut self.ranges[..] {
            *range = range.start.min(new.start)..range.end.max(new.end);
            return;
        }
        let first = self.ranges.partition_point(|range| range.end < new.start);
        let behind = self.ranges.partition_point(|range| range.start <= new.end);
        let touched = &self.ranges[first..behind];
        let start = touched
            .first()
            .map_or(new.start, |r| r.start.min(new.start));
        let end = touched.last().map_or(new.end, |r| r.end.max(new.end));
        self.ranges
            .splice(first..behind, std::iter::once(start..end));
        if self.ranges.len() > SPARSE_RANGES_MAX {
            let gap = |at: &usize| self.ranges[at + 1].start - self.ranges[*at].end;
            let least = (0..self.ranges.len() - 1).min_by_key(gap);
            if let Some(at) = least {
                self.ranges[at].end = self.ranges.remove(at + 1).end;
            }
        }
    }
}

/// Bytes that wait for their window.
#[derive(Debug)]
struct Pending {
    start: u32,
    bytes: Vec<u8>,
    seq: u64,
}

impl Window {
    /// Whether its bytes can be loaded from memory now.
    pub fn is_ready(&self) -> bool {
        matches!(self.body, Body::Map { .. } | Body::Heap { .. })
    }

    /// Whether it is in memory with everything that was stored into it.
    pub fn is_hashable(&self) -> bool {
        self.is_ready() && self.pending.is_empty()
    }

    /// Whether bytes can be stored into it now.
    pub fn takes_stores(&self) -> bool {
        match &self.body {
            Body::Queued | Body::Admitted | Body::Loading => false,
            Body::Map { map, .. } => map.access() == MapAccess::Write,
            Body::Heap {
                is_writable,
                in_flight,
                ..
            } => *is_writable && in_flight.is_none(),
        }
    }

    /// Whether it was loaded in a way that will never take stores.
    pub fn is_read_only(&self) -> bool {
        match &self.body {
            Body::Queued | Body::Admitted | Body::Loading => false,
            Body::Map { map, .. } => map.access() == MapAccess::Read,
            Body::Heap { is_writable, .. } => !is_writable,
        }
    }

    /// Whether it is mapped.
    pub fn is_mapped(&self) -> bool {
        matches!(self.body, Body::Map { .. })
    }

    /// Copies `bytes` to `start`.
    ///
    /// # Panics
    /// If the window takes no stores now, or the bytes do not fit.
    pub fn write(&mut self, start: u32, bytes: &[u8], seq: u64) {
        assert!(self.takes_stores(), "store into {:?}", self.key);
        let end = start + bytes.len() as u32;
        match &mut self.body {
            Body::Map { map, .. } => map.write(start as usize, bytes),
            Body::Heap {
                bytes: buffer,
                dirty,
                is_sparse,
                ..
            } => {
                // Unique, as no job has it: this does not copy.
                let buffer = Arc::make_mut(buffer);
                buffer[start as usize..end as usize].copy_from_slice(bytes);
                let ranges = Vec::new();
                let dirty = dirty.get_or_insert(Dirty { ranges, seq });
                dirty.add(start..end, *is_sparse);
            }
            Body::Queued | Body::Admitted | Body::Loading => unreachable!("asserted above"),
        }
    }

    /// Its bytes from `start` on, `len` of them, if they are in memory.
    pub fn part(&self, start: u32, len: u32) -> Option<Part<'_>> {
        let (start, len) = (start as usize, len as usize);
        match &self.body {
            Body::Queued | Body::Admitted | Body::Loading => None,
            Body::Map { map, .. } => Some(Part::Map { map, start, len }),
            Body::Heap { bytes, .. } => Some(Part::Bytes(&bytes[start..start + len])),
        }
    }

    /// Whether bytes wait for it.
    pub fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Whether stored bytes are only here, not with the system.
    pub fn is_dirty(&self) -> bool {
        matches!(self.body, Body::Heap { dirty: Some(_), .. })
    }

    /// Bytes that the system does not have yet, and those between them that go with them.
    pub fn dirty_len(&self) -> u32 {
        match &self.body {
            Body::Heap {
                dirty: Some(dirty), ..
            } => dirty.ranges.iter().map(|r| r.end - r.start).sum(),
            _ => 0,
        }
    }

    /// Sequence number of the oldest store that the system does not have yet.
    pub fn oldest_unwritten(&self) -> Option<u64> {
        let (dirty, in_flight) = match &self.body {
            Body::Heap {
                dirty, in_flight, ..
            } => (dirty.as_ref().map(|d| d.seq), *in_flight),
            _ => (None, None),
        };
        let pending = self.pending.iter().map(|p| p.seq).min();
        [dirty, in_flight, pending].into_iter().flatten().min()
    }

    /// Keeps `bytes` until the window takes them.
    fn wait(&mut self, start: u32, bytes: &[u8], seq: u64) {
        // A sender's bytes come in order: most often they continue some that wait already.
        let end = start + bytes.len() as u32;
        for before in self.pending.iter_mut().rev().take(PENDING_LOOK_BACK) {
            let before_end = before.start + before.bytes.len() as u32;
            if before_end == start {
                before.bytes.extend_from_slice(bytes);
                return;
            }
            if before.start < end && start < before_end {
                break; // the later of two must land later
            }
        }
        self.pending.push(Pending {
            start,
            bytes: bytes.to_vec(),
            seq,
        });
    }
}

/// All windows of all torrents.
#[derive(Debug, Default)]
pub(super) struct Windows {
    slab: Slab<Window>,
    by_key: HashMap<WindowKey, usize>,
    /// Windows that wait for room, oldest first; entries may be stale.
    queue: VecDeque<WindowKey>,
    /// The one that was found last.
    last: Option<(WindowKey, usize)>,
    /// Bytes of windows from `Admitted` on.
    len: u64,
    /// Number of windows from `Admitted` on.
    count: usize,
    /// Bytes of windows that are written back in order to make room.
    leaving_len: u64,
    waiting_bytes: u64,
    uses: u64,
    spare: Vec<Vec<u8>>,
}

impl Windows {
    /// Bytes that wait for their windows.
    pub fn waiting_bytes(&self) -> u64 {
        self.waiting_bytes
    }

    /// Bytes and number of the windows that count against the limits.
    pub fn in_use(&self) -> (u64, usize) {
        (self.len, self.count)
    }

    /// Bytes that will be free when jobs under way return.
    pub fn leaving_len(&self) -> u64 {
        self.leaving_len
    }

    /// Windows that wait for room.
    pub fn queue_len(&self) -> usize {
        self.queue.len()
    }

    /// Finds a window.
    pub fn find(&mut self, key: WindowKey) -> Option<usize> {
        if let Some((last, slot)) = self.last
            && last == key
        {
            return Some(slot);
        }
        let slot = *self.by_key.get(&key)?;
        self.last = Some((key, slot));
        Some(slot)
    }

    /// The window in `slot`.
    pub fn get(&self, slot: usize) -> &Window {
        &self.slab[slot]
    }

    /// The window in `slot`.
    pub fn get_mut(&mut self, slot: usize) -> &mut Window {
        &mut self.slab[slot]
    }

    /// All windows, in an order that depends on what was done so far alone.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &Window)> {
        self.slab.iter()
    }

    /// Uses of windows so far: those of now have higher stamps.
    pub fn uses(&self) -> u64 {
        self.uses
    }

    /// Marks the window as used now.
    pub fn touch(&mut self, slot: usize) {
        self.uses += 1;
        self.slab[slot].stamp = self.uses;
    }

    /// Adds a window at the end of the queue.
    pub fn insert(&mut self, key: WindowKey, len: u32, want: Want) -> usize {
        self.uses += 1;
        let slot = self.slab.insert(Window {
            key,
            len,
            body: Body::Queued,
            want,
            stamp: self.uses,
            job: None,
            has_readers: false,
            is_leaving: false,
            pending: Vec::new(),
        });
        let before = self.by_key.insert(key, slot);
        assert!(before.is_none(), "one window a key");
        self.queue.push_back(key);
        slot
    }

    /// The window that has waited for room longest.
    pub fn first_queued(&mut self) -> Option<usize> {
        while let Some(&key) = self.queue.front() {
            if let Some(slot) = self.find(key)
                && matches!(self.slab[slot].body, Body::Queued)
            {
                return Some(slot);
            }
            self.queue.pop_front();
        }
        None
    }

    /// Gives the first window of the queue its room.
    pub fn admit(&mut self, slot: usize) {
        let key = self.queue.pop_front();
        let window = &mut self.slab[slot];
        assert_eq!(key, Some(window.key), "windows are admitted in order");
        window.body = Body::Admitted;
        self.len += u64::from(window.len);
        self.count += 1;
    }

    /// Takes the window out of the table; bytes that wait for it are gone with it.
    pub fn remove(&mut self, slot: usize) -> Window {
        let window = self.slab.remove(slot);
        self.by_key.remove(&window.key);
        self.last = None;
        if !matches!(window.body, Body::Queued) {
            self.len -= u64::from(window.len);
            self.count -= 1;
        }
        if window.is_leaving {
            self.leaving_len -= u64::from(window.len);
        }
        for pending in &window.pending {
            self.waiting_bytes -= pending.bytes.len() as u64;
        }
        window
    }

    /// Marks the window as one that goes as soon as it is written back.
    pub fn leave(&mut self, slot: usize) {
        let window = &mut self.slab[slot];
        assert!(!window.is_leaving, "a window leaves once");
        window.is_leaving = true;
        self.leaving_len += u64::from(window.len);
    }

    /// Takes [`leave`](Self::leave) back.
    pub fn stay(&mut self, slot: usize) {
        let window = &mut self.slab[slot];
        if std::mem::take(&mut window.is_leaving) {
            self.leaving_len -= u64::from(window.len);
        }
    }

    /// Keeps `bytes` until the window in `slot` takes them.
    pub fn wait(&mut self, slot: usize, start: u32, bytes: &[u8], seq: u64) {
        self.waiting_bytes += bytes.len() as u64;
        self.slab[slot].wait(start, bytes, seq);
    }

    /// Stores what waits for the window in `slot`, in the order in which it came; says whether
    /// there was anything.
    pub fn land(&mut self, slot: usize) -> bool {
        let window = &mut self.slab[slot];
        let pending = std::mem::take(&mut window.pending);
        for Pending { start, bytes, seq } in &pending {
            window.write(*start, bytes, *seq);
            self.waiting_bytes -= bytes.len() as u64;
        }
        !pending.is_empty()
    }

    /// A buffer to load a window into; empty, but perhaps with memory.
    pub fn buffer(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_default()
    }

    /// Keeps the memory of a buffer for the next window.
    pub fn recycle(&mut self, bytes: Arc<Vec<u8>>) {
        if let Ok(bytes) = Arc::try_unwrap(bytes)
            && self.spare.len() < SPARE_MAX
            && bytes.capacity() as u64 >= WINDOW_LEN
        {
            self.spare.push(bytes);
        }
    }
}

/// Runs of a sparse window that are told apart: as many as a window has blocks. Of more, those with
/// the least between them are taken for one.
const SPARSE_RANGES_MAX: usize = 64;
/// Waiting runs that are looked at for the one that new bytes continue.
const PENDING_LOOK_BACK: usize = 16;
/// Buffers kept for re-use at most.
const SPARE_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::TorrentId;

    fn key(index: u32) -> WindowKey {
        WindowKey {
            torrent: TorrentId(0),
            file: 0,
            index,
        }
    }

    fn heap(len: usize) -> Body {
        Body::Heap {
            bytes: Arc::new(vec![0; len]),
            is_writable: true,
            is_sparse: false,
            dirty: None,
            in_flight: None,
        }
    }

    #[test]
    fn waiting_bytes_land_in_the_order_in_which_they_came() {
        let mut windows = Windows::default();
        let slot = windows.insert(key(0), 100, Want::Write);
        windows.wait(slot, 10, b"aaaa", 1);
        windows.wait(slot, 12, b"bb", 2);
        windows.wait(slot, 14, b"cc", 3);
        assert_eq!(windows.waiting_bytes(), 8);
        assert_eq!(windows.get(slot).oldest_unwritten(), Some(1));
        windows.get_mut(slot).body = heap(100);
        assert!(windows.land(slot));
        assert_eq!(windows.waiting_bytes(), 0);
        let Body::Heap { bytes, dirty, .. } = &windows.get(slot).body else {
            panic!("a buffer");
        };
        assert_eq!(&bytes[9..17], b"\0aabbcc\0");
        let ranges = std::iter::once(10..16).collect();
        assert_eq!(dirty, &Some(Dirty { ranges, seq: 1 }));
    }

    #[test]
    fn sparse_window_has_nothing_to_write_but_what_was_stored() {
        let stores = [10..20, 90..95, 30..40, 20..25, 8..12, 39..41, 95..100];
        for is_sparse in [true, false] {
            let ranges = Vec::new();
            let mut dirty = Dirty { ranges, seq: 1 };
            for store in stores.clone() {
                dirty.add(store, is_sparse);
            }
            let expected = match is_sparse {
                true => vec![8..25, 30..41, 90..100],
                false => std::iter::once(8..100).collect(),
            };
            assert_eq!(dirty.ranges, expected);
        }
        let ranges = Vec::new();
        let mut dirty = Dirty { ranges, seq: 1 };
        for at in (0..200).rev() {
            dirty.add(at * 10..at * 10 + 1, true);
        }
        dirty.add(900_000..900_001, true);
        assert!(dirty.ranges.len() <= SPARSE_RANGES_MAX);
        assert_eq!(
            dirty.ranges.last(),
            Some(&(900_000..900_001)),
            "the widest gap stays"
        );
    }

    #[test]
    fn bytes_that_come_one_by_one_wait_as_one_run() {
        let mut windows = Windows::default();
        let slot = windows.insert(key(0), 100, Want::Write);
        for i in 0..50 {
            windows.wait(slot, i, b"x", 1);
            windows.wait(slot, 50 + i, b"y", 1);
        }
        assert_eq!(windows.get(slot).pending.len(), 2);
    }

    #[test]
    fn removed_window_leaves_no_account_behind() {
        let mut windows = Windows::default();
        let slot = windows.insert(key(3), 100, Want::Read);
        assert_eq!(windows.in_use(), (0, 0));
        assert_eq!(windows.first_queued(), Some(slot));
        windows.admit(slot);
        windows.wait(slot, 0, b"abc", 1);
        windows.leave(slot);
        assert_eq!((windows.in_use(), windows.leaving_len()), ((100, 1), 100));
        windows.remove(slot);
        assert_eq!((windows.in_use(), windows.leaving_len()), ((0, 0), 0));
        assert_eq!((windows.waiting_bytes(), windows.find(key(3))), (0, None));
    }
}
