//! The execution of jobs against the real file system: every call here may block.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Access;
use super::error::StorageError;
use super::jobs::{
    Done, Handle, Job, MapError, OpenMode, Opened, Outcome, Presence, Scan, SyncFile, Work,
};
use super::map::{Map, MapAccess};
use super::os::{self, Missing, Populate, Walker};
use crate::meta::geometry::FileKind;
use crate::meta::metainfo::{FileEntry, Metainfo};

/// Executes `job` against the real file system. Blocks.
///
/// # Panics
/// If the job is about a file of the simulator.
pub fn run(job: Job) -> Done {
    let outcome = match job.work {
        Work::Scan {
            root,
            meta,
            access,
            wants_anchor,
        } => Outcome::Scanned(scan(&root, &meta, access, wants_anchor)),
        Work::CreateEmpty { root, meta } => Outcome::CreatedEmpty(create_empty(&root, &meta)),
        Work::Open {
            root,
            meta,
            file,
            mode,
        } => Outcome::Opened(open(&root, &meta.files[file as usize], mode)),
        Work::Map {
            file,
            path,
            offset,
            len,
            access,
            populate,
            fresh,
        } => Outcome::Mapped(
            match fresh {
                true => fill(&file, offset, len),
                false => Ok(()),
            }
            .map_err(|error| MapError::Failed(StorageError::from_io(&path, "fill", &error)))
            .and_then(|()| map(&file, &path, offset, len, access, populate)),
        ),
        Work::Populate { map, path } => Outcome::Finished(
            os::populate(&map, Populate::Write).map_err(|error| unbacked(&path, &error)),
        ),
        Work::Unmap { map } => {
            drop(map);
            Outcome::Unmapped
        }
        Work::Read {
            file,
            path,
            offset,
            len,
            buffer,
            fresh,
        } => Outcome::Read(
            read(&file, offset, len, buffer, fresh)
                .map_err(|error| StorageError::from_io(&path, "read", &error)),
        ),
        Work::Write {
            file,
            root,
            path,
            offset,
            bytes,
            range,
        } => Outcome::Finished(write(&file, &root, &path, offset, &bytes, range)),
        Work::Sync {
            root,
            files,
            dirs,
            anchor,
        } => Outcome::Finished(sync(&root, &files, &dirs, anchor.as_ref())),
        Work::Close {
            file,
            path,
            written,
        } => Outcome::Finished(if written {
            sync_file(&file, &path, false)
        } else {
            Ok(())
        }),
    };
    Done {
        id: job.id,
        outcome,
    }
}

impl Handle {
    fn as_file(&self) -> &File {
        match self {
            Self::File(file) => file,
            Self::Sim(number) => panic!("file {number} of the simulator has no descriptor"),
        }
    }
}

fn scan(
    root: &Arc<Path>,
    meta: &Metainfo,
    access: Access,
    wants_anchor: bool,
) -> Result<Scan, StorageError> {
    let mut walker = Walker::new(root)?;
    let mut need = 0u64;
    let mut is_complete = true;
    let mut files = Vec::with_capacity(meta.files.len());
    for entry in &meta.files {
        let presence = match entry.kind {
            FileKind::Pad => Presence::Whole,
            FileKind::Data => match walker.file_len(entry.path.as_path())? {
                Some(len) if len >= entry.len => Presence::Whole,
                Some(len) => {
                    need = need.saturating_add(entry.len - len);
                    Presence::Short
                }
                None => {
                    need = need.saturating_add(entry.len);
                    Presence::Absent
                }
            },
        };
        is_complete &= presence == Presence::Whole;
        files.push(presence);
    }
    if access == Access::ReadWrite && !is_complete {
        os::is_writable(root)?;
        if need > os::free_space(root)? {
            return Err(os::no_space(root, root, need));
        }
    }
    let anchor = match wants_anchor && os::SYNCS_FILE_SYSTEMS {
        true => Some(Handle::File(Arc::new(os::open_root(root)?.into()))),
        false => None,
    };
    Ok(Scan { files, anchor })
}

fn create_empty(root: &Arc<Path>, meta: &Metainfo) -> Result<Vec<PathBuf>, StorageError> {
    let mut walker = Walker::new(root)?;
    for entry in &meta.files {
        let path = entry.path.as_path();
        let is_empty = entry.kind == FileKind::Data && entry.len == 0;
        if is_empty && walker.file_len(path)?.is_none() {
            walker.open_for_writing(path, entry.executable)?;
        }
    }
    Ok(walker.changed)
}

fn open(root: &Arc<Path>, entry: &FileEntry, mode: OpenMode) -> Result<Opened, StorageError> {
    let mut walker = Walker::new(root)?;
    let relative = entry.path.as_path();
    let path = root.join(relative);
    let (file, created) = match mode {
        OpenMode::Read => match walker.open_for_reading(relative)? {
            Some(file) => (file, false),
            None => return Ok(Opened::Absent),
        },
        OpenMode::Write => walker.open_for_writing(relative, entry.executable)?,
    };
    let metadata = file
        .metadata()
        .map_err(|error| StorageError::from_io(&path, "look at", &error))?;
    let len_before = metadata.len();
    let allocated = match mode {
        OpenMode::Read if len_before < entry.len => return Ok(Opened::Absent),
        OpenMode::Read => true,
        OpenMode::Write => match make_room(&file, len_before, entry.len) {
            Ok(allocated) => allocated,
            Err(error) => {
                // Leave nothing half-made: back to the length that it had, or away.
                if created {
                    walker.remove(relative);
                } else if len_before < entry.len {
                    let _ = file.set_len(len_before);
                }
                let held = metadata.blocks().saturating_mul(512);
                return Err(allocation_error(root, &path, entry.len, held, &error));
            }
        },
    };
    Ok(Opened::Open {
        file: Handle::File(Arc::new(file)),
        is_writable: mode == OpenMode::Write,
        len_before,
        allocated,
        is_at_home: walker.is_at_home(&metadata),
        dirs: walker.changed,
    })
}

/// Makes `file` at least `len` bytes long; says whether all of them have their place on the disk.
fn make_room(file: &File, len_before: u64, len: u64) -> io::Result<bool> {
    match os::allocate(file, len) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::Unsupported => {
            if len_before < len {
                file.set_len(len)?;
            }
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

fn allocation_error(
    root: &Path,
    path: &Path,
    len: u64,
    held: u64,
    error: &io::Error,
) -> StorageError {
    match error.kind() {
        io::ErrorKind::StorageFull => os::no_space(root, path, len.saturating_sub(held)),
        io::ErrorKind::FileTooLarge => StorageError::TooLarge {
            path: path.to_owned(),
            len,
        },
        _ => StorageError::from_io(path, "allocate", error),
    }
}

/// Writes the zeros that the file holds there anyway.
///
/// The page cache then holds large folios, which a store fault maps whole. Faults on pages that
/// are not in the cache map one page of 4 KiB each, and each goes over all buffers of its folio:
/// on Linux 6.18 and ext4 four to eight times as expensive for a window.
fn fill(file: &Handle, offset: u64, len: u32) -> io::Result<()> {
    static ZEROS: [u8; FILL_LEN as usize] = [0; FILL_LEN as usize];
    for begin in (0..len).step_by(FILL_LEN as usize) {
        let run = FILL_LEN.min(len - begin) as usize;
        file.as_file()
            .write_all_at(&ZEROS[..run], offset + u64::from(begin))?;
    }
    Ok(())
}

fn map(
    file: &Handle,
    path: &Path,
    offset: u64,
    len: u32,
    access: MapAccess,
    populate: Populate,
) -> Result<Arc<Map>, MapError> {
    let map = Map::new(file.as_file(), offset, len, access);
    let map = map.map_err(|error| map_error(path, error))?;
    os::populate(&map, populate).map_err(|error| MapError::Failed(unbacked(path, &error)))?;
    Ok(Arc::new(map))
}

fn map_error(path: &Path, error: io::Error) -> MapError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => MapError::Failed(StorageError::Truncated {
            path: path.to_owned(),
        }),
        _ => MapError::Refused(error),
    }
}

fn unbacked(path: &Path, error: &io::Error) -> StorageError {
    StorageError::from_io(path, "page in", error)
}

fn read(
    file: &Handle,
    offset: u64,
    len: u32,
    mut buffer: Vec<u8>,
    fresh: bool,
) -> io::Result<Vec<u8>> {
    if fresh {
        buffer.clear();
    }
    buffer.resize(len as usize, 0);
    if !fresh {
        file.as_file().read_exact_at(&mut buffer, offset)?;
    }
    Ok(buffer)
}

fn write(
    file: &Handle,
    root: &Path,
    path: &Path,
    offset: u64,
    bytes: &[u8],
    range: Range<usize>,
) -> Result<(), StorageError> {
    let len = range.len() as u64;
    let offset = offset + range.start as u64;
    file.as_file()
        .write_all_at(&bytes[range], offset)
        .map_err(|error| match error.kind() {
            io::ErrorKind::StorageFull => os::no_space(root, path, len),
            _ => StorageError::from_io(path, "write", &error),
        })
}

fn sync(
    root: &Path,
    files: &[SyncFile],
    dirs: &[PathBuf],
    anchor: Option<&Handle>,
) -> Result<(), StorageError> {
    if let Some(anchor) = anchor {
        os::sync_file_system(anchor.as_file())
            .map_err(|error| StorageError::from_io(root, "sync the file system of", &error))?;
    }
    for SyncFile {
        file,
        path,
        created,
    } in files
    {
        sync_file(file, path, *created)?;
    }
    if dirs.is_empty() {
        return Ok(());
    }
    let mut walker = Walker::new(root)?;
    for dir in dirs {
        let path = root.join(dir);
        match walker.dir(dir, Missing::Tolerate)? {
            Some(fd) => rustix::fs::fsync(fd)
                .map_err(|errno| StorageError::from_io(&path, "sync the folder", &errno.into()))?,
            None => return Err(StorageError::Missing { path }),
        }
    }
    Ok(())
}

fn sync_file(file: &Handle, path: &Path, created: bool) -> Result<(), StorageError> {
    let file = file.as_file();
    let synced = if created {
        file.sync_all()
    } else {
        file.sync_data()
    };
    synced.map_err(|error| StorageError::from_io(path, "sync", &error))
}

/// Bytes that are written at once where zeros are to be in memory: a folio that the kernel finds
/// room for easily.
const FILL_LEN: u32 = 128 * 1024;
