//! Faults of mapped memory, and how the process outlives them.
//!
//! A load or store of a mapped page that the file system cannot back (the file was cut, the disk
//! is full or fails) is answered by the kernel with SIGBUS, which would end the process. The
//! handler here puts zeroed memory of nobody's in the place of the rest of that mapping and notes
//! that the mapping is *poisoned*: whoever touched it finds out right afterwards, and believes
//! nothing that he saw there. Faults anywhere else go to whoever had the signal before.
#![expect(
    unsafe_code,
    reason = "a signal handler, and memory that is put in the place of other memory"
)]

use std::io;
use std::mem;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// A range of memory whose faults are survived, until this is dropped.
#[derive(Debug)]
pub(super) struct Guard {
    place: usize,
}

/// A row of the handler's table. `start` is 0 while the row is free, and [`TAKEN`] while its other
/// fields are not valid.
struct Row {
    start: AtomicUsize,
    end: AtomicUsize,
    is_poisoned: AtomicBool,
}

/// Stands for a row that is being filled or emptied: no mapping begins there.
const TAKEN: usize = 1;
/// Mappings that can be guarded at once: several times what all windows of a process need.
const ROWS: usize = 2048;

static TABLE: [Row; ROWS] = [const {
    Row {
        start: AtomicUsize::new(0),
        end: AtomicUsize::new(0),
        is_poisoned: AtomicBool::new(false),
    }
}; ROWS];
/// Mappings that were ever poisoned.
static POISONED: AtomicU64 = AtomicU64::new(0);
/// Where the search for a free row begins.
static NEXT: AtomicUsize = AtomicUsize::new(0);
/// What there was before, and how long a page is.
static BEFORE: OnceLock<Result<(libc::sigaction, usize), i32>> = OnceLock::new();

/// How many mappings have been poisoned in this process: whoever sees another number than before
/// has to look which they are.
pub(super) fn poisoned_count() -> u64 {
    POISONED.load(Ordering::Acquire)
}

impl Guard {
    /// Guards the `len` bytes from `start` on, which are whole pages of one mapping or its end.
    ///
    /// # Errors
    /// The handler cannot be installed, or too many mappings are guarded.
    pub fn new(start: usize, len: usize) -> io::Result<Self> {
        if let Err(errno) = BEFORE.get_or_init(install) {
            return Err(io::Error::from_raw_os_error(*errno));
        }
        let first = NEXT.fetch_add(1, Ordering::Relaxed);
        let free = (0..ROWS).map(|n| first.wrapping_add(n) % ROWS).find(|&n| {
            let row = &TABLE[n].start;
            let taken = row.compare_exchange(0, TAKEN, Ordering::AcqRel, Ordering::Relaxed);
            taken.is_ok()
        });
        let place = free.ok_or_else(|| io::Error::other("too many mappings"))?;
        let row = &TABLE[place];
        row.is_poisoned.store(false, Ordering::Relaxed);
        row.end.store(start + len, Ordering::Relaxed);
        row.start.store(start, Ordering::Release);
        Ok(Self { place })
    }

    /// Whether a page of it could not be had: nothing that is there can be believed.
    pub fn is_poisoned(&self) -> bool {
        TABLE[self.place].is_poisoned.load(Ordering::Acquire)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let row = &TABLE[self.place];
        row.start.store(TAKEN, Ordering::Relaxed);
        row.end.store(0, Ordering::Relaxed);
        row.start.store(0, Ordering::Release);
    }
}

/// Takes the signal over.
fn install() -> Result<(libc::sigaction, usize), i32> {
    let last_error = || io::Error::last_os_error().raw_os_error().unwrap_or(0);
    // SAFETY: all fields of a `sigaction` are numbers, sets of bits or a handler, for which zeros
    // are valid values.
    let (mut ours, mut before): (libc::sigaction, libc::sigaction) =
        unsafe { (mem::zeroed(), mem::zeroed()) };
    let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = on_fault;
    ours.sa_sigaction = handler as usize;
    ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: both point to a `sigaction` of ours; the handler lives as long as the process and
    // does only what a signal handler may: it reads and writes atomics, and calls `mmap` and
    // `sigaction`. `sysconf` has no conditions.
    let (installed, page_len) = unsafe {
        (
            libc::sigaction(libc::SIGBUS, &raw const ours, &raw mut before),
            libc::sysconf(libc::_SC_PAGESIZE),
        )
    };
    match usize::try_from(page_len) {
        Ok(page_len) if installed == 0 && page_len > 0 => Ok((before, page_len)),
        _ => Err(last_error()),
    }
}

/// The handler. The faulting instruction runs again when it returns.
extern "C" fn on_fault(signal: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let Some(Ok((before, page_len))) = BEFORE.get() else {
        return; // between its installation and the next line of `get_or_init`: it comes again
    };
    // SAFETY: the kernel hands a valid `siginfo_t` to a handler with SA_SIGINFO, and the address is
    // the field in use for SIGBUS.
    let address = unsafe { (*info).si_addr() } as usize;
    if replace(address, *page_len) {
        return;
    }
    // SAFETY: `before` is what the kernel said was installed before us. The instruction faults
    // again, and the signal goes there.
    unsafe {
        libc::sigaction(signal, before, ptr::null_mut());
    }
}

/// Puts fresh memory in the place of a guarded mapping from the page of `address` on; `false` if
/// no guarded mapping is there.
fn replace(address: usize, page_len: usize) -> bool {
    let found = TABLE.iter().find_map(|row| {
        let start = row.start.load(Ordering::Acquire);
        let end = row.end.load(Ordering::Relaxed);
        (start > TAKEN && (start..end).contains(&address)).then_some((row, end))
    });
    let Some((row, end)) = found else {
        return false;
    };
    let page = address / page_len * page_len;
    // SAFETY: `page..end`, rounded up to whole pages, is the rest of a mapping of ours: its `Guard`
    // is alive, as the thread that faulted is inside a load or store that borrows the `Map`, whose
    // guard is dropped before it is unmapped. The mapping keeps its place and length, so all
    // borrowed slices stay valid; what they show is not relied on, see `Guard::is_poisoned`.
    let mapped = unsafe {
        libc::mmap(
            page as *mut libc::c_void,
            end - page,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
            -1,
            0,
        )
    };
    if mapped == libc::MAP_FAILED {
        return false;
    }
    row.is_poisoned.store(true, Ordering::Release);
    POISONED.fetch_add(1, Ordering::Release);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_used_again() {
        for _ in 0..3 * ROWS {
            let guard = Guard::new(4096, 4096).expect("a row is free");
            assert!(!guard.is_poisoned());
        }
    }
}
