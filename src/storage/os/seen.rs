//! What is to be seen of a file from outside.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{self, AtFlags, FileType};
use rustix::io::Errno;

use crate::storage::journal::Stamp;

/// What is seen of a file without opening it.
#[derive(Clone, Copy, Debug)]
pub(in crate::storage) struct Seen {
    /// Bytes.
    pub len: u64,
    /// Which file it is.
    pub stamp: Stamp,
    /// When it was last written, nanoseconds since some time.
    pub modified: u64,
    /// File, folder, link.
    pub(super) file_type: FileType,
}

/// Looks at an open file.
pub(in crate::storage) fn see_open(file: &File) -> io::Result<Seen> {
    Ok(see(file, Path::new(""))?)
}

/// Looks at `name` in `dir`, or at `dir` itself if the name is empty. Links are not followed.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn see(dir: impl AsFd, name: &Path) -> Result<Seen, Errno> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH;
    let wanted = fs::StatxFlags::BASIC_STATS | fs::StatxFlags::BTIME;
    match fs::statx(&dir, name, flags, wanted) {
        Ok(stat) => {
            let has_birth =
                fs::StatxFlags::from_bits_retain(stat.stx_mask).contains(fs::StatxFlags::BTIME);
            let birth = nanos(stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec.into());
            let device = u64::from(stat.stx_dev_major) << 32 | u64::from(stat.stx_dev_minor);
            let birth = if has_birth { birth } else { 0 };
            Ok(Seen {
                len: stat.stx_size,
                modified: nanos(stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec.into()),
                stamp: Stamp::new(device, stat.stx_ino, stat.stx_size, birth),
                file_type: FileType::from_raw_mode(stat.stx_mode.into()),
            })
        }
        Err(Errno::NOSYS | Errno::PERM) => see_without_birth(dir, name),
        Err(errno) => Err(errno),
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) fn see(dir: impl AsFd, name: &Path) -> Result<Seen, Errno> {
    see_without_birth(dir, name)
}

fn see_without_birth(dir: impl AsFd, name: &Path) -> Result<Seen, Errno> {
    let stat = match name.as_os_str().is_empty() {
        true => fs::fstat(dir)?,
        false => fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?,
    };
    let len = stat.st_size.unsigned_abs();
    #[allow(
        clippy::unnecessary_cast,
        reason = "their types differ between systems"
    )]
    let (device, inode) = (stat.st_dev as u64, stat.st_ino as u64);
    #[allow(
        clippy::unnecessary_cast,
        reason = "their types differ between systems"
    )]
    let (seconds, rest) = (stat.st_mtime as i64, stat.st_mtime_nsec as u64);
    Ok(Seen {
        len,
        modified: nanos(seconds, rest),
        stamp: Stamp::new(device, inode, len, 0),
        file_type: super::file_type(stat),
    })
}

/// Nanoseconds since some time.
pub(super) fn nanos(seconds: i64, rest: u64) -> u64 {
    seconds
        .cast_unsigned()
        .wrapping_mul(1_000_000_000)
        .wrapping_add(rest)
}
