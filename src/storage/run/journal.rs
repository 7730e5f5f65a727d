//! The files of journals.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::OFlags;

use crate::storage::error::StorageError;
use crate::storage::jobs::{Handle, JournalFile};
use crate::storage::reserve::Reserve;

/// Reads a journal and keeps it open. A journal that cannot be read is as good as none.
pub(super) fn read(path: &Path, len_max: u64) -> Option<JournalFile> {
    let mut bytes = Vec::new();
    let opened = open(OpenOptions::new().read(true).write(true), path);
    let read = opened.and_then(|file| {
        if !file.metadata()?.is_file() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        (&file).take(len_max).read_to_end(&mut bytes)?;
        Ok(file)
    });
    match read {
        Ok(file) => Some(JournalFile {
            bytes,
            file: Handle::File(Arc::new(file)),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            let error = StorageError::from_io(path, "read", &error);
            log::warn!("journal cannot be used: {error}");
            None
        }
    }
}

/// Makes a file beside the journal, with these bytes, and syncs it.
pub(super) fn make(path: &Path, bytes: &[u8], reserve: &Reserve) -> Result<Handle, StorageError> {
    let made = reserve.spend(bytes.len() as u64, || {
        let file = make_beside(path, bytes)?;
        file.sync_all()?;
        Ok(file)
    });
    match made {
        Ok(file) => Ok(Handle::File(Arc::new(file))),
        Err(error) => Err(StorageError::from_io(&beside(path), "write", &error)),
    }
}

/// Makes the journal, with these bytes; neither they nor its name are synced.
pub(super) fn make_first(
    path: &Path,
    bytes: &[u8],
    reserve: &Reserve,
) -> Result<Handle, StorageError> {
    let made = reserve.spend(bytes.len() as u64, || {
        let file = make_beside(path, bytes)?;
        fs::rename(beside(path), path)?;
        Ok(file)
    });
    match made {
        Ok(file) => Ok(Handle::File(Arc::new(file))),
        Err(error) => Err(StorageError::from_io(path, "write", &error)),
    }
}

/// The file is another one than any that was made there before, so that whoever still writes to
/// one of those does not write to this.
fn make_beside(path: &Path, bytes: &[u8]) -> io::Result<File> {
    let beside = beside(path);
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    let file = open(options.read(true).write(true).create_new(true), &beside)?;
    file.write_all_at(bytes, 0)?;
    Ok(file)
}

/// Syncs the journal, and its folder if its name is new.
pub(super) fn sync(file: &File, path: &Path, has_new_name: bool) -> Result<(), StorageError> {
    let synced = file.sync_data().and_then(|()| match has_new_name {
        true => sync_folder_of(path),
        false => Ok(()),
    });
    synced.map_err(|error| StorageError::from_io(path, "sync", &error))
}

/// Writes `bytes` at `offset`.
pub(super) fn append(
    file: &File,
    path: &Path,
    offset: u64,
    bytes: &[u8],
    reserve: &Reserve,
) -> Result<(), StorageError> {
    reserve
        .spend(bytes.len() as u64, || file.write_all_at(bytes, offset))
        .map_err(|error| StorageError::from_io(path, "write", &error))
}

/// Gives the file beside the journal, which is `file`, the journal's name for good.
pub(super) fn install(file: &File, path: &Path) -> Result<(), StorageError> {
    let failed = |error: io::Error| StorageError::from_io(path, "replace", &error);
    file.sync_data().map_err(failed)?;
    fs::rename(beside(path), path).map_err(failed)?;
    sync_folder_of(path).map_err(failed)
}

/// Removes the journal.
pub(super) fn remove(path: &Path) -> Result<(), StorageError> {
    let removed = match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    };
    removed
        .and_then(|()| sync_folder_of(path))
        .map_err(|error| StorageError::from_io(path, "remove", &error))
}

fn open(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    options.custom_flags(flags.bits().cast_signed()).open(path)
}

fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

fn beside(path: &Path) -> PathBuf {
    path.with_extension("journal.new")
}
