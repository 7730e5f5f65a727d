//! The execution of jobs against the real file system: every call here may block.

use std::fs::{File, Metadata};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::choose::is_skipped;
use super::error::StorageError;
use super::jobs::{Done, Handle, Job, MapError, OpenMode, Opened, Outcome, Scan, SyncFile, Work};
use super::journal::Stamp;
use super::map::{Map, MapAccess};
use super::os::{self, Missing, Places, Populate, Walker};
use super::reserve::Reserve;
use crate::base::bits::Bitfield;
use crate::meta::geometry::FileKind;
use crate::meta::metainfo::{FileEntry, Metainfo};

mod fault;
mod journal;
mod look;
mod prove;
mod scan;
mod text;

use fault::{NO_SPACE_LEN, allocation_error, folder_of, unbacked, unstored};

/// Executes `job` against the real file system, with nothing remembered of earlier ones. Blocks.
///
/// # Panics
/// If the job is about a file of the simulator.
pub fn run(job: Job) -> Done {
    Runner::default().run(job)
}

/// Executes jobs against the real file system, and remembers which folders they went through: no
/// file is made, nor taken for missing, where a disk was mounted that is gone. Threads share what
/// it remembers by clones of it.
#[derive(Clone, Debug, Default)]
pub struct Runner {
    places: Arc<Places>,
    reserve: Arc<Reserve>,
}

impl Runner {
    /// Remembers nothing yet; journals that do not fit on their disk are helped by `reserve`.
    pub fn new(reserve: Arc<Reserve>) -> Self {
        Self {
            reserve,
            ..Self::default()
        }
    }

    /// Executes `job`. Blocks.
    ///
    /// # Panics
    /// If the job is about a file of the simulator.
    pub fn run(&self, job: Job) -> Done {
        let id = job.id;
        let outcome = execute(job.work, &self.places, &self.reserve);
        Done { id, outcome }
    }
}

fn execute(work: Work, places: &Places, reserve: &Reserve) -> Outcome {
    match work {
        Work::Scan {
            root,
            meta,
            access,
            wants_anchor,
            mounts,
            skipped,
            journal,
        } => {
            let walker = Walker::new(&root, places);
            let scanned = walker.and_then(|walker| {
                scan::scan(
                    walker,
                    &meta,
                    (access, skipped.as_deref()),
                    &mounts,
                    reserve,
                )
            });
            Outcome::Scanned(scanned.and_then(|scan| {
                let journal = journal.and_then(|(path, len_max)| journal::read(&path, len_max));
                let anchor = match wants_anchor {
                    true => scan::anchor(&root, places)?,
                    false => None,
                };
                Ok(Scan {
                    journal,
                    anchor,
                    ..scan
                })
            }))
        }
        Work::CreateEmpty {
            root,
            meta,
            skipped,
        } => Outcome::CreatedEmpty(create_empty(&root, &meta, skipped.as_deref(), places)),
        Work::Open {
            root,
            meta,
            file,
            mode,
        } => {
            let entry = &meta.files[file as usize];
            Outcome::Opened(open(&root, entry, mode, places, reserve))
        }
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
            .map_err(|error| {
                MapError::Failed(unstored(
                    folder_of(&path),
                    &path,
                    "fill",
                    len.into(),
                    &error,
                ))
            })
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
            may_end,
        } => Outcome::Read(
            read(&file, offset, len, buffer, fresh, may_end)
                .map_err(|error| StorageError::from_io(&path, "read", &error)),
        ),
        Work::Write {
            file,
            root,
            path,
            offset,
            bytes,
            ranges,
        } => Outcome::Finished(write(&file, &root, &path, offset, &bytes, &ranges)),
        Work::Sync {
            root,
            files,
            found,
            dirs,
            anchor,
        } => Outcome::Finished(sync(&root, &files, &found, &dirs, anchor.as_ref(), places)),
        Work::Close {
            file,
            path,
            written,
        } => Outcome::Finished(if written {
            sync_file(&file, &path, false)
        } else {
            Ok(())
        }),
        Work::LookAtFiles {
            root,
            files,
            torrents,
        } => Outcome::Looked(look::look_at(&root, &files, &torrents, places)),
        Work::LookAtTimes { root, meta } => Outcome::Times(look::times(&root, &meta, places)),
        Work::Prove {
            root,
            meta,
            piece,
            hash,
        } => Outcome::Proved(prove::prove(&root, &meta, (piece, &hash), places)),
        Work::FindText { path, text } => Outcome::TextFound(text::is_kept(&path, &text)),
        Work::ReadText { path, info_hash } => Outcome::TextRead(text::read(&path, info_hash)),
        Work::GiveBack => {
            os::give_back();
            Outcome::GaveBack
        }
        Work::MakeJournal { path, bytes } => {
            Outcome::JournalMade(journal::make(&path, &bytes, reserve))
        }
        Work::MakeFirstJournal { path, bytes } => {
            Outcome::JournalMade(journal::make_first(&path, &bytes, reserve))
        }
        Work::AppendJournal {
            file,
            path,
            offset,
            bytes,
        } => {
            let file = file.as_file();
            Outcome::Finished(journal::append(file, &path, offset, &bytes, reserve))
        }
        Work::InstallJournal { file, path } => {
            Outcome::Finished(journal::install(file.as_file(), &path))
        }
        Work::SyncJournal {
            file,
            path,
            has_new_name,
        } => Outcome::Finished(journal::sync(file.as_file(), &path, has_new_name)),
        Work::RemoveJournal { path } => Outcome::Finished(journal::remove(&path)),
        Work::LeaveJournal { file, path, len } => {
            Outcome::JournalLeft(journal::leave(file.as_file(), &path, len))
        }
        Work::OpenJournal { path, left } => Outcome::JournalMade(journal::open_again(&path, left)),
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

fn create_empty(
    root: &Arc<Path>,
    meta: &Metainfo,
    skipped: Option<&Bitfield>,
    places: &Places,
) -> Result<Vec<PathBuf>, StorageError> {
    let mut walker = Walker::new(root, places)?;
    for (file, entry) in (0..).zip(&meta.files) {
        let path = entry.path.as_path();
        let is_empty = entry.kind == FileKind::Data && entry.len == 0;
        if is_empty && !is_skipped(skipped, file) && walker.look(path)?.is_none() {
            walker.open_for_writing(path, entry.executable)?;
        }
    }
    Ok(walker.changed)
}

fn open(
    root: &Arc<Path>,
    entry: &FileEntry,
    mode: OpenMode,
    places: &Places,
    reserve: &Reserve,
) -> Result<Opened, StorageError> {
    let mut walker = Walker::new(root, places)?;
    let relative = entry.path.as_path();
    let path = root.join(relative);
    let (file, created) = match mode {
        OpenMode::Read | OpenMode::ReadShort => match walker.open_for_reading(relative)? {
            Some(file) => (file, false),
            None => return Ok(Opened::Absent),
        },
        OpenMode::Write | OpenMode::WritePart => {
            walker.open_for_writing(relative, entry.executable)?
        }
    };
    let look = |error: io::Error| StorageError::from_io(&path, "look at", &error);
    let metadata = file.metadata().map_err(look)?;
    let len_before = metadata.len();
    let before = match created {
        true => Stamp::default(),
        false => os::see_open(&file).map_err(look)?.stamp,
    };
    let room = match mode {
        OpenMode::Read if len_before < entry.len => return Ok(Opened::Absent),
        OpenMode::Read | OpenMode::ReadShort => Ok(true),
        OpenMode::Write => make_room(&file, &path, &metadata, entry.len, root, reserve),
        OpenMode::WritePart if len_before >= entry.len => Ok(true),
        OpenMode::WritePart => match file.set_len(entry.len) {
            Ok(()) => Ok(true),
            Err(error) => Err(unstored(root, &path, "make longer", NO_SPACE_LEN, &error)),
        },
    };
    let allocated = match room {
        Ok(allocated) => allocated,
        Err(error) => {
            // Leave nothing half-made: back to the length that it had, or away.
            if created {
                walker.remove(relative);
            } else if len_before < entry.len {
                let _ = file.set_len(len_before);
            }
            return Err(error);
        }
    };
    let now = os::see_open(&file).map_err(look)?.stamp;
    Ok(Opened::Open {
        file: Handle::File(Arc::new(file)),
        is_writable: matches!(mode, OpenMode::Write | OpenMode::WritePart),
        len_before,
        stamps: [before, now],
        allocated,
        is_at_home: walker.is_at_home(&metadata),
        dirs: walker.changed,
    })
}

/// Makes `file`, at `path` below `root`, at least `len` bytes long; says whether all of them have
/// their place on the disk. `before` is what it was.
fn make_room(
    file: &File,
    path: &Path,
    before: &Metadata,
    len: u64,
    root: &Path,
    reserve: &Reserve,
) -> Result<bool, StorageError> {
    let held = before.blocks().saturating_mul(512);
    let need = len.saturating_sub(held);
    if need > 0 && reserve.is_cut() {
        let free = reserve.room(root)?;
        if need > free {
            let path = path.to_path_buf();
            return Err(StorageError::NoSpace { path, need, free });
        }
    }
    let made = match os::allocate(file, len) {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => match before.len() < len {
            true => file.set_len(len).map(|()| false),
            false => Ok(false),
        },
        result => result.map(|()| true),
    };
    made.map_err(|error| allocation_error(root, path, len, held, &error))
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

fn read(
    file: &Handle,
    offset: u64,
    len: u32,
    mut buffer: Vec<u8>,
    fresh: bool,
    may_end: bool,
) -> io::Result<Vec<u8>> {
    if fresh || may_end {
        buffer.clear();
    }
    buffer.resize(len as usize, 0);
    if !fresh {
        let held = match may_end {
            true => file.as_file().metadata()?.len().saturating_sub(offset),
            false => u64::from(len),
        };
        let held = held.min(len.into()) as usize;
        file.as_file().read_exact_at(&mut buffer[..held], offset)?;
    }
    Ok(buffer)
}

fn write(
    file: &Handle,
    root: &Path,
    path: &Path,
    offset: u64,
    bytes: &[u8],
    ranges: &[Range<u32>],
) -> Result<(), StorageError> {
    for range in ranges {
        let run = &bytes[range.start as usize..range.end as usize];
        let offset = offset + u64::from(range.start);
        file.as_file()
            .write_all_at(run, offset)
            .map_err(|error| unstored(root, path, "write", run.len() as u64, &error))?;
    }
    Ok(())
}

fn sync(
    root: &Path,
    files: &[SyncFile],
    found: &[PathBuf],
    dirs: &[PathBuf],
    anchor: Option<&Handle>,
    places: &Places,
) -> Result<(), StorageError> {
    if let Some(anchor) = anchor {
        os::sync_file_system(anchor.as_file()).map_err(|error| {
            let action = "sync the file system of";
            unstored(root, root, action, NO_SPACE_LEN, &error)
        })?;
    }
    for SyncFile {
        file,
        path,
        created,
    } in files
    {
        sync_file(file, path, *created)?;
    }
    if found.is_empty() && dirs.is_empty() {
        return Ok(());
    }
    let mut walker = Walker::new(root, places)?;
    for name in found {
        let path = root.join(name);
        let Some(file) = walker.open_for_reading(name)? else {
            return Err(StorageError::Missing { path });
        };
        sync_found(&file).map_err(|error| StorageError::from_io(&path, "sync", &error))?;
    }
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

/// Brings a file that somebody else wrote to the disk. Where nothing can be written, or written
/// late, there is nothing to bring.
fn sync_found(file: &File) -> io::Result<()> {
    match file.sync_all() {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::ReadOnlyFilesystem
                    | io::ErrorKind::InvalidInput
                    | io::ErrorKind::Unsupported
            ) =>
        {
            Ok(())
        }
        result => result,
    }
}

fn sync_file(file: &Handle, path: &Path, created: bool) -> Result<(), StorageError> {
    let file = file.as_file();
    let synced = if created {
        file.sync_all()
    } else {
        file.sync_data()
    };
    synced.map_err(|error| unstored(folder_of(path), path, "sync", NO_SPACE_LEN, &error))
}

/// Bytes that are written at once where zeros are to be in memory: a folio that the kernel finds
/// room for easily.
const FILL_LEN: u32 = 128 * 1024;
