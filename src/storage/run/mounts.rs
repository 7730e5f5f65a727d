//! Disks that a torrent lay on when it ran last.

use std::path::Path;

use crate::meta::geometry::FileKind;
use crate::meta::metainfo::Metainfo;
use crate::storage::error::StorageError;
use crate::storage::jobs::Presence;
use crate::storage::os::Walker;

/// The mount points on the way to the files of a torrent, relative to the output folder, which may
/// be one itself.
///
/// # Errors
/// One that was `expected` is an ordinary folder, or not there, and none of the files below it is:
/// its disk is not mounted. Where some are, somebody has put them there, and that is well.
pub(super) fn on_the_way(
    meta: &Metainfo,
    files: &[Presence],
    expected: &[String],
    walker: &Walker,
) -> Result<Vec<String>, StorageError> {
    let paths = || meta.files.iter().map(|entry| entry.path.as_path());
    let found = walker.mounts_on_the_way(paths());
    let is_bare = |mount: &Path| {
        let all = meta.files.iter().zip(files);
        let mut below = all.filter(|(entry, _)| {
            entry.kind == FileKind::Data && entry.path.as_path().starts_with(mount)
        });
        below.all(|(_, presence)| *presence == Presence::Absent)
    };
    let lost = |mount: &&String| !found.contains(mount) && is_bare(Path::new(mount.as_str()));
    match expected.iter().find(lost) {
        Some(mount) => Err(walker.is_bare(mount)),
        None => Ok(found),
    }
}
