//! Two system calls that no safe crate has.

#![expect(unsafe_code, reason = "libc's functions are unsafe to call")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Begins to write back what the page cache holds of `file`, as the kernel may do at any time.
pub fn begin_write_back(file: &File) -> io::Result<()> {
    sync_range(file, libc::SYNC_FILE_RANGE_WRITE)
}

/// Writes back what the page cache holds of `file` and waits for it: what some take for a sync.
pub fn write_back(file: &File) -> io::Result<()> {
    let both = libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    sync_range(file, both | libc::SYNC_FILE_RANGE_WRITE)
}

fn sync_range(file: &File, flags: libc::c_uint) -> io::Result<()> {
    // SAFETY: the descriptor is open as long as `file` is borrowed; no memory is passed.
    let result = unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, flags) };
    outcome(result)
}

/// Cuts the file system of `folder` off from its disk: nothing reaches it any more.
pub fn cut_off(folder: &File) -> io::Result<()> {
    let flag: u32 = WITHOUT_LOG;
    // SAFETY: the call reads one number through the pointer, which lives until it returns.
    let result = unsafe { libc::ioctl(folder.as_raw_fd(), GOING_DOWN, &raw const flag) };
    outcome(result)
}

fn outcome(result: libc::c_int) -> io::Result<()> {
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// `EXT4_IOC_SHUTDOWN`, which is XFS's `XFS_IOC_GOINGDOWN` too.
const GOING_DOWN: libc::Ioctl = 0x8004_587D;
/// The file system's log is not brought to the disk before.
const WITHOUT_LOG: u32 = 2;
