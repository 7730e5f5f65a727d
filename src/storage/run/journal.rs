//! The files of journals.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::OFlags;

use crate::storage::error::StorageError;
use crate::storage::jobs::{Handle, JournalFile, Left};
use crate::storage::os;
use crate::storage::reserve::Reserve;

/// Reads a journal and keeps it open. A journal that cannot be read is as good as none.
pub(super) fn read(path: &Path, len_max: u64) -> Option<JournalFile> {
    let mut bytes = Vec::new();
    let opened = open(OpenOptions::new().read(true).write(true), path);
    let read = opened.and_then(|file| {
        let found = file.metadata()?;
        if !found.is_file() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        bytes.reserve_exact(found.len().min(len_max) as usize);
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

/// What a journal that is about to be closed is like. It has `len` bytes, unless somebody cut it.
pub(super) fn leave(file: &File, path: &Path, len: u64) -> Result<Left, StorageError> {
    let seen =
        os::see_open(file).map_err(|error| StorageError::from_io(path, "look at", &error))?;
    if seen.len < len {
        let path = path.to_path_buf();
        return Err(StorageError::Truncated { path });
    }
    Ok(Left {
        stamp: seen.stamp,
        modified: seen.modified,
    })
}

/// Opens a journal that was left like this. Records go behind others that they go on from: a file
/// that is another one now, or that somebody wrote, does not get any.
pub(super) fn open_again(path: &Path, left: Left) -> Result<Handle, StorageError> {
    let opened = open(OpenOptions::new().read(true).write(true), path);
    let file = opened.map_err(|error| StorageError::from_io(path, "open", &error))?;
    match leave(&file, path, 0)? == left {
        true => Ok(Handle::File(Arc::new(file))),
        false => Err(StorageError::Io {
            path: path.to_path_buf(),
            action: "go on in",
            message: "somebody wrote or replaced it".to_owned(),
        }),
    }
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::time::{Duration, SystemTime};

    use super::*;

    /// Changes the journal at a path while nobody has it open.
    type Meddle = fn(&Path);

    #[test]
    fn closed_journal_is_opened_again_only_if_nobody_touched_it() {
        let cases: [(&str, Meddle, bool); 7] = [
            ("left alone  ", |_| (), true),
            ("gone        ", |path| fs::remove_file(path).unwrap(), false),
            (
                "a copy      ",
                |path| {
                    let bytes = fs::read(path).unwrap();
                    fs::rename(path, path.with_extension("old")).unwrap();
                    fs::write(path, bytes).unwrap();
                },
                false,
            ),
            (
                "a link to it",
                |path| {
                    let old = path.with_extension("old");
                    fs::rename(path, &old).unwrap();
                    symlink(old, path).unwrap();
                },
                false,
            ),
            (
                "longer      ",
                |path| {
                    let file = OpenOptions::new().write(true).open(path).unwrap();
                    file.write_all_at(b"more", 8).unwrap();
                },
                false,
            ),
            (
                "shorter     ",
                |path| {
                    let file = OpenOptions::new().write(true).open(path).unwrap();
                    file.set_len(4).unwrap();
                },
                false,
            ),
            (
                "written     ",
                |path| {
                    let file = OpenOptions::new().write(true).open(path).unwrap();
                    file.write_all_at(b"JOURNAL", 0).unwrap();
                    let later = SystemTime::now() + Duration::from_secs(1);
                    file.set_modified(later).unwrap(); // the clock of files may be coarse
                },
                false,
            ),
        ];
        for (what, meddle, is_opened) in cases {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("x.journal");
            let made = make_first(&path, b"journal.", &Reserve::default()).unwrap();
            let Handle::File(file) = made else {
                panic!("a real file");
            };
            let left = leave(&file, &path, 8).unwrap();
            drop(file);
            meddle(&path);
            let opened = open_again(&path, left);
            assert_eq!(opened.is_ok(), is_opened, "{what}: {opened:?}");
        }
    }

    #[test]
    fn journal_that_was_cut_is_not_left_as_if_it_were_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.journal");
        let Ok(Handle::File(file)) = make_first(&path, b"journal.", &Reserve::default()) else {
            panic!("a real file");
        };
        file.set_len(4).unwrap();
        let left = leave(&file, &path, 8);
        assert_eq!(left, Err(StorageError::Truncated { path }));
    }
}
