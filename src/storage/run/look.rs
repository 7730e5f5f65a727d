//! Looks at files that are in use, and at the disks of those that are not.

use std::path::Path;
use std::sync::Arc;

use crate::meta::geometry::FileKind;
use crate::meta::metainfo::{FileEntry, Metainfo};
use crate::storage::error::StorageError;
use crate::storage::jobs::Look;
use crate::storage::os::{self, Places, Walker};

/// What is wrong with each of the open files `files`, and then with the disks of each of the
/// torrents `torrents`, if anything is.
pub(super) fn look_at(
    root: &Arc<Path>,
    files: &[Look],
    torrents: &[Arc<Metainfo>],
    places: &Places,
) -> Vec<Option<StorageError>> {
    let look = |walker: &mut Walker, look: &Look| {
        let path = root.join(&look.path);
        let seen = os::see_open(look.file.as_file())
            .map_err(|error| StorageError::from_io(&path, "look at", &error))?;
        let named = walker.look(&look.path)?;
        match named {
            _ if seen.len < look.len => Err(StorageError::Truncated { path }),
            None => Err(StorageError::Missing { path }),
            Some(named) if named.stamp != seen.stamp => Err(StorageError::Replaced { path }),
            Some(_) => Ok(()),
        }
    };
    match Walker::new(root, places) {
        Ok(mut walker) => {
            let files = files.iter().map(|file| look(&mut walker, file).err());
            let mut seen: Vec<_> = files.collect();
            // Seldom: without a disk below the output folder a thousand torrents cost nothing.
            let knows_mounts = walker.knows_mounts();
            seen.extend(torrents.iter().map(|meta| {
                if !knows_mounts {
                    return None;
                }
                let paths = meta.files.iter().map(|entry| entry.path.as_path());
                walker.look_at_mounts(paths).err()
            }));
            seen
        }
        Err(error) => vec![Some(error); files.len() + torrents.len()],
    }
}

/// When each file was last written, as the scan tells it.
pub(super) fn times(root: &Arc<Path>, meta: &Metainfo, places: &Places) -> Vec<u64> {
    let Ok(mut walker) = Walker::new(root, places) else {
        return vec![0; meta.files.len()];
    };
    let mut time = |entry: &FileEntry| match entry.kind {
        FileKind::Data if entry.len > 0 => {
            let seen = walker.look(entry.path.as_path()).ok().flatten();
            seen.map_or(0, |seen| seen.modified)
        }
        FileKind::Data | FileKind::Pad => 0,
    };
    meta.files.iter().map(&mut time).collect()
}
