//! Syncs of a whole file system.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

#[cfg(target_os = "linux")]
use rustix::fs;

/// Whether [`sync_file_system`] brings all that the folder `anchor` is on to the disk, and tells
/// errors of earlier write-backs (Linux 5.8).
///
/// Those that are named here do. One over FUSE is not told of it: what was written has reached its
/// server then, and no disk. Others are not asked.
#[cfg(target_os = "linux")]
pub(in crate::storage) fn is_synced_as_a_whole(anchor: impl AsFd) -> bool {
    const EXT: u32 = 0xef53;
    const XFS: u32 = 0x5846_5342;
    const BTRFS: u32 = 0x9123_683e;
    const F2FS: u32 = 0xf2f5_2010;
    const TMPFS: u32 = 0x0102_1994;
    fs::fstatfs(anchor).is_ok_and(|stat| {
        let kind = u32::try_from(stat.f_type & 0xffff_ffff);
        kind.is_ok_and(|kind| [EXT, XFS, BTRFS, F2FS, TMPFS].contains(&kind))
    })
}

/// Whether [`sync_file_system`] works: not known here.
#[cfg(not(target_os = "linux"))]
pub(in crate::storage) fn is_synced_as_a_whole(_anchor: impl AsFd) -> bool {
    false
}

/// Brings everything on the file system of `anchor` to the disk.
///
/// # Errors
/// Any write-back of this file system failed since `anchor` was opened, or since it was last told
/// so: `syncfs` keeps the place of every descriptor in the sequence of errors.
#[cfg(target_os = "linux")]
pub(in crate::storage) fn sync_file_system(anchor: &File) -> io::Result<()> {
    Ok(fs::syncfs(anchor)?)
}

/// Brings everything on the file system of `anchor` to the disk: not known here.
///
/// # Errors
/// Always `Unsupported`.
#[cfg(not(target_os = "linux"))]
pub(in crate::storage) fn sync_file_system(_anchor: &File) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
