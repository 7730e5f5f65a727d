//! What the system's answers mean where a full disk may be behind them.

use std::io;
use std::path::{Path, PathBuf};

use crate::storage::error::StorageError;
use crate::storage::jobs::Handle;
use crate::storage::os;

impl Handle {
    /// Why bytes of a map of the file could not be had; the file must have `len` of them.
    pub(in crate::storage) fn why_unreadable(
        &self,
        root: &Path,
        path: PathBuf,
        len: u64,
    ) -> StorageError {
        let Self::File(file) = self else {
            return StorageError::Missing { path };
        };
        if file.metadata().is_ok_and(|found| found.len() < len) {
            return StorageError::Truncated { path };
        }
        lack_of_room(root, &path).unwrap_or_else(|| StorageError::Io {
            path,
            action: "page in",
            message: "the file system did not give the bytes".to_owned(),
        })
    }
}

pub(super) fn allocation_error(
    root: &Path,
    path: &Path,
    len: u64,
    held: u64,
    error: &io::Error,
) -> StorageError {
    match error.kind() {
        io::ErrorKind::FileTooLarge => StorageError::TooLarge {
            path: path.to_owned(),
            len,
        },
        _ => unstored(root, path, "allocate", len.saturating_sub(held), error),
    }
}

/// Why pages of a map are not to be had. A full disk is not told as such by all file systems.
pub(super) fn unbacked(path: &Path, error: &io::Error) -> StorageError {
    lack_of_room(folder_of(path), path)
        .unwrap_or_else(|| StorageError::from_io(path, "page in", error))
}

/// The error that `folder` has no room, if it has hardly any.
fn lack_of_room(folder: &Path, path: &Path) -> Option<StorageError> {
    let free = os::free_space(folder).ok()?;
    (free < NO_SPACE_LEN).then(|| StorageError::NoSpace {
        path: path.to_owned(),
        need: NO_SPACE_LEN,
        free,
    })
}

/// Why `len` bytes of `path`, in `folder` or below it, could not be put there: a lack of space is
/// told with its figures.
pub(super) fn unstored(
    folder: &Path,
    path: &Path,
    action: &'static str,
    len: u64,
    error: &io::Error,
) -> StorageError {
    match error.kind() {
        io::ErrorKind::StorageFull => os::no_space(folder, path, len),
        _ => StorageError::from_io(path, action, error),
    }
}

pub(super) fn folder_of(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

/// Free bytes below which a page that could not be had is taken for a sign of a full disk.
pub(super) const NO_SPACE_LEN: u64 = 1 << 20;
