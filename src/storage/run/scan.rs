//! Looks at the files of a torrent before it begins, and at the disks that it lay on when it ran
//! last.

use std::path::Path;
use std::sync::Arc;

use crate::base::bits::Bitfield;
use crate::base::id::PieceIndex;
use crate::meta::geometry::FileKind;
use crate::meta::metainfo::Metainfo;
use crate::storage::Access;
use crate::storage::choose::is_skipped;
use crate::storage::error::StorageError;
use crate::storage::jobs::{Handle, Presence, Scan};
use crate::storage::journal::Stamp;
use crate::storage::os::{self, Places, Walker};
use crate::storage::reserve::Reserve;

/// Looks at all files, and at the free space if missing bytes must fit: those of files that are
/// not `skipped`, and of the pieces that those share with others.
pub(super) fn scan(
    mut walker: Walker,
    meta: &Metainfo,
    (access, skipped): (Access, Option<&Bitfield>),
    mounts: &[String],
    reserve: &Reserve,
) -> Result<Scan, StorageError> {
    let root = walker.root();
    let mut need = 0u64;
    let mut is_complete = true;
    let wanted = skipped.map(|skipped| wanted_pieces(meta, skipped));
    let mut files = Vec::with_capacity(meta.files.len());
    let mut stamps = vec![Stamp::default(); meta.files.len()];
    let mut times = vec![0; meta.files.len()];
    let entries = (0..).zip(&meta.files).zip(&mut stamps).zip(&mut times);
    for (((file, entry), stamp), time) in entries {
        let seen = match entry.kind {
            FileKind::Pad => None,
            FileKind::Data => walker.look(entry.path.as_path())?,
        };
        if let Some(seen) = seen
            && entry.len > 0
        {
            *stamp = seen.stamp;
            *time = seen.modified;
        }
        let presence = match (entry.kind, seen.map(|seen| seen.len)) {
            (FileKind::Pad, _) => Presence::Whole,
            (FileKind::Data, Some(len)) if len >= entry.len => Presence::Whole,
            (FileKind::Data, Some(len)) => Presence::Short { len },
            (FileKind::Data, None) => Presence::Absent,
        };
        if presence != Presence::Whole {
            let lacking = match &wanted {
                Some(wanted) if is_skipped(skipped, file) => shared_len(meta, file, wanted),
                _ => entry.len - seen.map_or(0, |seen| seen.len),
            };
            need = need.saturating_add(lacking);
            is_complete &= lacking == 0 && is_skipped(skipped, file);
        }
        files.push(presence);
    }
    let mounts = mounts_on_the_way(meta, &files, mounts, &walker)?;
    if access == Access::ReadWrite && !is_complete {
        os::is_writable(root)?;
        let free = reserve.room(root)?;
        if need > free {
            let path = root.to_path_buf();
            return Err(StorageError::NoSpace { path, need, free });
        }
    }
    Ok(Scan {
        files,
        stamps,
        times,
        mounts,
        boot: os::boot_id(),
        journal: None,
        anchor: None,
    })
}

/// The pieces in which files have bytes that are not `skipped`.
fn wanted_pieces(meta: &Metainfo, skipped: &Bitfield) -> Bitfield {
    let geometry = meta.geometry();
    let mut wanted = Bitfield::new(geometry.piece_count());
    for (file, entry) in (0..).zip(&meta.files) {
        if entry.kind == FileKind::Data && !is_skipped(Some(skipped), file) {
            for piece in geometry.pieces_of_file(file) {
                wanted.set(piece);
            }
        }
    }
    wanted
}

/// Bytes of a file that lie in pieces which are `wanted`.
fn shared_len(meta: &Metainfo, file: u32, wanted: &Bitfield) -> u64 {
    let geometry = meta.geometry();
    let begin = geometry.file_offset(file);
    let end = begin + geometry.file_len(file);
    let shared = geometry.pieces_of_file(file);
    let shared = shared.filter(|&piece| wanted.has(piece)).map(PieceIndex);
    let len_in = |piece| {
        let from = geometry.offset(piece, 0);
        let to = from + u64::from(geometry.piece_len(piece));
        to.min(end) - from.max(begin)
    };
    shared.map(len_in).sum()
}

/// The output folder, if its whole file system can be synced through it.
pub(super) fn anchor(root: &Path, places: &Places) -> Result<Option<Handle>, StorageError> {
    let folder = os::open_root(root, places)?;
    let is_whole = os::is_synced_as_a_whole(&folder);
    Ok(is_whole.then(|| Handle::File(Arc::new(folder.into()))))
}

/// The mount points on the way to the files of a torrent, by their whole paths.
///
/// # Errors
/// One that was `expected` is an ordinary folder, or not there, and none of the files below it is:
/// its disk is not mounted. Where some are, somebody has put them there, and that is well; nor does
/// it matter if the output folder is another one, and nothing of the torrent belongs there now.
fn mounts_on_the_way(
    meta: &Metainfo,
    files: &[Presence],
    expected: &[String],
    walker: &Walker,
) -> Result<Vec<String>, StorageError> {
    let root = walker.root();
    let real = root.canonicalize().unwrap_or_else(|_| root.to_owned());
    let paths = meta.files.iter().map(|entry| entry.path.as_path());
    let found = walker.mounts_on_the_way(&real, paths);
    // Whether none of the files below `dir` is there, all in the output folder if none is given.
    let is_bare = |dir: Option<&Path>| {
        let all = meta.files.iter().zip(files);
        let mut below = all.filter(|(entry, _)| {
            let is_below = dir.is_none_or(|dir| entry.path.as_path().starts_with(dir));
            entry.kind == FileKind::Data && is_below
        });
        let has_some = below.clone().next().is_some();
        has_some && below.all(|(_, presence)| *presence == Presence::Absent)
    };
    for mount in expected.iter().filter(|mount| !found.contains(mount)) {
        let path = Path::new(mount);
        let dir = match (real.starts_with(path), path.strip_prefix(&real)) {
            (true, _) => None,
            (false, Ok(below)) => Some(below),
            (false, Err(_)) => continue,
        };
        if is_bare(dir) {
            walker.is_bare(dir);
            let path = path.to_owned();
            return Err(StorageError::NotMounted { path });
        }
    }
    Ok(found)
}
