//! Mapped windows: the only place where bytes of a map are touched.
//!
//! A [`Map`] is a run of one file, shared with the page cache. Bytes go in by [`Map::write`] and
//! are looked at by [`with_slices`], whose slices live only while its closure runs. Both happen on
//! the loop thread, which owns the window table; other threads create maps, populate their pages
//! and drop them, but neither load from nor store to them.
#![expect(
    unsafe_code,
    reason = "memory that the file system also owns has no safe type"
)]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::ptr;
use std::slice;

use memmap2::{MmapOptions, MmapRaw};

mod guard;

use guard::Guard;

/// A shared mapping of part of a file; unmapped when dropped.
#[derive(Debug)]
pub struct Map {
    /// Goes first: the handler must not know the memory when it is somebody else's.
    guard: Guard,
    raw: MmapRaw,
    access: MapAccess,
}

/// What a mapping allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapAccess {
    /// Loads only.
    Read,
    /// Loads and stores.
    Write,
}

impl Map {
    /// Maps `len` bytes of `file` from `offset` on, shared with the page cache.
    ///
    /// # Errors
    /// What `mmap` says; `UnexpectedEof` if the file ends before the range does, as the pages
    /// behind its end could not be touched.
    pub fn new(file: &File, offset: u64, len: u32, access: MapAccess) -> io::Result<Self> {
        if file.metadata()?.len() < offset + u64::from(len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut options = MmapOptions::new();
        options.offset(offset).len(len as usize);
        let raw = match access {
            MapAccess::Read => options.map_raw_read_only(file)?,
            MapAccess::Write => options.map_raw(file)?,
        };
        Ok(Self {
            guard: Guard::new(raw.as_ptr() as usize, raw.len())?,
            raw,
            access,
        })
    }

    /// Whether a page of it could not be had, as the file was cut or its disk is full or fails:
    /// from then on loads give zeros and stores go nowhere.
    pub fn is_poisoned(&self) -> bool {
        self.guard.is_poisoned()
    }

    /// Number of bytes.
    pub fn len(&self) -> usize {
        self.raw.len()
    }

    /// Whether there are no bytes, which `mmap` does not allow.
    pub fn is_empty(&self) -> bool {
        self.raw.len() == 0
    }

    /// What the mapping allows.
    pub fn access(&self) -> MapAccess {
        self.access
    }

    /// The mapping for `madvise`.
    pub(super) fn raw(&self) -> &MmapRaw {
        &self.raw
    }

    /// Copies `bytes` to `offset` of the mapping.
    ///
    /// # Panics
    /// If they do not fit, or the mapping is for loads only.
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        assert_eq!(self.access, MapAccess::Write, "store to a read-only map");
        let end = offset.checked_add(bytes.len()).expect("offset in a window");
        assert!(end <= self.raw.len(), "store of {end} B past the window");
        // SAFETY: `raw` maps `raw.len()` writable bytes for as long as `self` lives, and the range
        // lies within them (asserted above). `bytes` cannot overlap it: slices of a map exist only
        // inside `with_slices`, whose closure is not handed any `Map`. No other thread of ours
        // loads or stores here (module doc). Other processes may change the file at any time;
        // the bytes are never trusted before they hash right. If the file system cannot back the
        // page (truncated, full, device gone), the kernel raises SIGBUS, which `guard` answers:
        // the range stays memory of ours.
        unsafe {
            ptr::copy_nonoverlapping(
                bytes.as_ptr(),
                self.raw.as_mut_ptr().add(offset),
                bytes.len(),
            );
        }
    }
}

/// A run of bytes to look at.
#[derive(Clone, Copy)]
pub enum Part<'a> {
    /// Bytes of ordinary memory.
    Bytes(&'a [u8]),
    /// `len` bytes of a map from `start` on.
    Map {
        /// The mapping.
        map: &'a Map,
        /// First byte.
        start: usize,
        /// Number of bytes.
        len: usize,
    },
}

impl Part<'_> {
    /// Number of bytes.
    pub fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Map { len, .. } => *len,
        }
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Runs `look` on the bytes of `parts`, which it cannot keep.
///
/// # Panics
/// If there are more than [`PARTS_MAX`] parts, or one reaches beyond its map.
pub fn with_slices<R>(parts: &[Part<'_>], look: impl FnOnce(&[&[u8]]) -> R) -> R {
    let mut slices: [&[u8]; PARTS_MAX] = [&[]; PARTS_MAX];
    for (slice, part) in slices[..parts.len()].iter_mut().zip(parts) {
        *slice = match *part {
            Part::Bytes(bytes) => bytes,
            Part::Map { map, start, len } => {
                let Range { start, end } = start..start.checked_add(len).expect("in a window");
                assert!(end <= map.raw.len(), "load of {end} B past the window");
                // SAFETY: the range lies within the mapping (asserted above), which outlives this
                // function as `parts` borrows it. `look` is generic over the slices' lifetime, so
                // it cannot keep them, and it is called before we return; stores of ours need
                // the loop thread, which is here. Another process may change the bytes while
                // `look` reads them: they are only hashed or handed to the kernel, never used as
                // indices or lengths. A page that the file system cannot back raises SIGBUS here,
                // which `guard` answers, or EFAULT in a system call.
                unsafe { slice::from_raw_parts(map.raw.as_ptr().add(start), len) }
            }
        };
    }
    look(&slices[..parts.len()])
}

/// How often the calling thread has slept in the kernel so far, be it in calls or in faults;
/// `None` where the system does not tell. To have left the processor to others is no sleep.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn sleeps_of_thread() -> Option<u64> {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::uninit();
    // SAFETY: `usage` has room for what the call writes, and it is only looked at if the call says
    // that it did.
    let usage = unsafe {
        match libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr()) {
            0 => usage.assume_init(),
            _ => return None,
        }
    };
    u64::try_from(usage.ru_nvcsw).ok()
}

/// How often the calling thread has slept in the kernel so far: not known here.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) fn sleeps_of_thread() -> Option<u64> {
    None
}

/// How many mappings were poisoned in this process, see [`Map::is_poisoned`].
pub fn poisoned_count() -> u64 {
    guard::poisoned_count()
}

/// Parts that [`with_slices`] takes at most: what `writev` is given at once.
pub const PARTS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn file_of(bytes: &[u8]) -> File {
        use std::io::Write;
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn stores_are_seen_by_loads_and_by_the_file() {
        use std::os::unix::fs::FileExt;
        let file = file_of(&[7; 10_000]);
        let map = Map::new(&file, 4096, 5000, MapAccess::Write).unwrap();
        map.write(10, b"abc");
        let part = Part::Map {
            map: &map,
            start: 9,
            len: 5,
        };
        with_slices(&[part, Part::Bytes(b"xy")], |slices| {
            assert_eq!(slices, [&b"\x07abc\x07"[..], b"xy"]);
        });
        let mut read = [0; 5];
        file.read_exact_at(&mut read, 4096 + 9).unwrap();
        assert_eq!(&read, b"\x07abc\x07");
    }

    #[test]
    fn range_past_the_end_of_the_file_is_refused() {
        let file = file_of(&[7; 5000]);
        let error = Map::new(&file, 4096, 905, MapAccess::Read).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(
            Map::new(&file, 4096, 904, MapAccess::Read).unwrap().len(),
            904
        );
    }

    /// Goal: a file that is cut while it is mapped costs its bytes, and not the process.
    #[test]
    fn maps_of_a_file_that_was_cut_are_poisoned() {
        let file = file_of(&[7; 3 * 4096]);
        let maps = [MapAccess::Read, MapAccess::Write]
            .map(|access| Map::new(&file, 0, 3 * 4096, access).unwrap());
        let sum = |map: &Map| {
            let len = 3 * 4096;
            let part = Part::Map { map, start: 0, len };
            with_slices(&[part], |slices| {
                slices[0].iter().map(|&byte| u64::from(byte)).sum::<u64>()
            })
        };
        assert_eq!(maps.each_ref().map(sum), [7 * 3 * 4096; 2]);
        file.set_len(4096).unwrap();
        let before = poisoned_count();
        assert!(maps.iter().all(|map| !map.is_poisoned()));
        assert_eq!(
            sum(&maps[0]),
            7 * 4096,
            "zeros are in place of what is gone"
        );
        assert!(maps[0].is_poisoned() && !maps[1].is_poisoned());
        maps[1].write(2 * 4096 + 5, b"lost");
        assert!(maps[1].is_poisoned());
        assert!(poisoned_count() >= before + 2);
        assert_eq!(file.metadata().unwrap().len(), 4096);
    }

    #[test]
    #[should_panic(expected = "past the window")]
    fn store_past_the_window_panics() {
        let file = file_of(&[7; 5000]);
        let map = Map::new(&file, 0, 5000, MapAccess::Write).unwrap();
        map.write(4998, b"abc");
    }
}
