//! What the operating systems do differently, and the one way to a file of a torrent.
//!
//! Files are reached from the output folder one component at a time with `O_NOFOLLOW`, so that no
//! symbolic link leads elsewhere, on any Unix and also while somebody else changes the tree.
//! (`openat2` with `RESOLVE_BENEATH` gives the same on Linux alone, and saves a system call or
//! two a file.)

mod heap;
mod places;
mod seen;
mod whole;

use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::error::StorageError;
use super::journal::BootId;
use super::map::Map;

pub(super) use heap::give_back;
use places::Place;
pub(super) use places::Places;
use seen::see;
pub(super) use seen::{Seen, see_open};
pub(super) use whole::{is_synced_as_a_whole, sync_file_system};

/// Opens the output folder.
///
/// # Errors
/// That it is missing, something else, not ours to enter, or not the one that it was.
pub(super) fn open_root(root: &Path, places: &Places) -> Result<OwnedFd, StorageError> {
    Ok(enter_root(root, places)?.0)
}

fn enter_root(root: &Path, places: &Places) -> Result<(OwnedFd, Place), StorageError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = fs::open(root, flags, Mode::empty()).map_err(|errno| {
        let path = root.to_owned();
        match errno {
            Errno::NOENT if places.knows(root) => StorageError::Gone { path },
            Errno::NOENT => StorageError::NoFolder { path },
            Errno::NOTDIR => StorageError::NotAFolder { path },
            _ => StorageError::from_io(root, "open the folder", &errno.into()),
        }
    })?;
    let place = places.enter_root(root, &opened)?;
    Ok((opened, place))
}

/// Whether new files may be made in the folder `root`.
pub(super) fn is_writable(root: &Path) -> Result<(), StorageError> {
    fs::access(root, fs::Access::WRITE_OK).map_err(|errno| match errno {
        Errno::ACCESS | Errno::ROFS => StorageError::ReadOnly {
            path: root.to_owned(),
        },
        _ => StorageError::from_io(root, "write to", &errno.into()),
    })
}

/// Bytes that the file system of `root` has left for us.
pub(super) fn free_space(root: &Path) -> Result<u64, StorageError> {
    let stat = fs::statvfs(root)
        .map_err(|errno| StorageError::from_io(root, "ask for the free space of", &errno.into()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// The error that says that `need` more bytes do not fit at `path`, with what is free now.
pub(super) fn no_space(root: &Path, path: &Path, need: u64) -> StorageError {
    StorageError::NoSpace {
        path: path.to_owned(),
        need,
        free: free_space(root).unwrap_or(0),
    }
}

/// Whether missing folders are made on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    Create,
    Tolerate,
}

/// A folder somewhere below the output folder, found by walking; the last one found is kept, as
/// the files of a torrent come folder by folder.
pub(super) struct Walker<'a> {
    root: &'a Path,
    root_fd: OwnedFd,
    root_place: Place,
    places: &'a Places,
    last: Option<(PathBuf, Option<OwnedFd>)>,
    /// Folders whose content changed, relative to the output folder.
    pub changed: Vec<PathBuf>,
}

impl<'a> Walker<'a> {
    /// Starts at the output folder.
    pub fn new(root: &'a Path, places: &'a Places) -> Result<Self, StorageError> {
        let (root_fd, root_place) = enter_root(root, places)?;
        Ok(Self {
            root,
            root_fd,
            root_place,
            places,
            last: None,
            changed: Vec::new(),
        })
    }

    /// The output folder.
    pub fn root(&self) -> &'a Path {
        self.root
    }

    /// Opens the folder `dir`, given relative to the output folder; `None` if it does not exist.
    pub fn dir(&mut self, dir: &Path, missing: Missing) -> Result<Option<&OwnedFd>, StorageError> {
        let known = matches!(&self.last, Some((path, fd)) if path == dir
            && (fd.is_some() || missing == Missing::Tolerate));
        if !known {
            let fd = self.walk(dir, missing)?;
            self.last = Some((dir.to_owned(), fd));
        }
        Ok(self.last.as_ref().and_then(|(_, fd)| fd.as_ref()))
    }

    fn walk(&mut self, dir: &Path, missing: Missing) -> Result<Option<OwnedFd>, StorageError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut path = PathBuf::new();
        let mut place = self.root_place;
        let mut fd = fs::openat(&self.root_fd, ".", flags, Mode::empty())
            .map_err(|e| StorageError::from_io(self.root, "open the folder", &e.into()))?;
        for name in dir.components() {
            let parent = path.clone();
            path.push(name);
            let mut opened = fs::openat(&fd, name.as_os_str(), flags, Mode::empty());
            if matches!(opened, Err(Errno::NOENT)) {
                if self.places.knows(&self.root.join(&path)) {
                    let path = self.root.join(&path);
                    return Err(StorageError::Gone { path });
                }
                if missing == Missing::Tolerate {
                    return Ok(None);
                }
                match fs::mkdirat(&fd, name.as_os_str(), Mode::from_raw_mode(0o777)) {
                    Ok(()) => self.changed.push(parent),
                    Err(Errno::EXIST) => {}
                    Err(errno) => return Err(self.creating(&path, errno)),
                }
                opened = fs::openat(&fd, name.as_os_str(), flags, Mode::empty());
            }
            fd = match opened {
                Ok(inner) => inner,
                Err(errno) => {
                    return Err(self.no_dir(&fd, name.as_os_str(), &path, errno));
                }
            };
            place = self
                .places
                .enter_below(&self.root.join(&path), &fd, &place)?;
        }
        Ok(Some(fd))
    }

    /// What a failure to make the folder or file `path` means.
    pub fn creating(&self, path: &Path, errno: Errno) -> StorageError {
        let full = self.root.join(path);
        match errno {
            Errno::NOSPC => no_space(self.root, &full, 0),
            _ => StorageError::from_io(&full, "create", &errno.into()),
        }
    }

    fn no_dir(&self, parent: &OwnedFd, name: &OsStr, path: &Path, errno: Errno) -> StorageError {
        let path = self.root.join(path);
        match fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).map(file_type) {
            Ok(FileType::Symlink) => StorageError::Symlink { path },
            Ok(FileType::Directory) | Err(_) => {
                StorageError::from_io(&path, "open the folder", &errno.into())
            }
            Ok(other) => StorageError::NotADir {
                path,
                kind: kind_name(other),
            },
        }
    }

    /// Length and stamp of the file at `path`, relative to the output folder; `None` if it does
    /// not exist.
    ///
    /// # Errors
    /// Something other than a file is there, or a link on the way.
    pub fn look(&mut self, path: &Path) -> Result<Option<Seen>, StorageError> {
        let (dir, name) = split(path);
        let full = self.root.join(path);
        let Some(dir) = self.dir(dir, Missing::Tolerate)? else {
            return Ok(None);
        };
        match see(dir, Path::new(name)) {
            Ok(seen) => {
                expect_file(full, seen.file_type)?;
                Ok(Some(seen))
            }
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(StorageError::from_io(&full, "look at", &errno.into())),
        }
    }

    /// Whether a disk was found on the way to any file, below the output folder.
    pub fn knows_mounts(&self) -> bool {
        !self.places.mounts_below(self.root).is_empty()
    }

    /// Looks whether the disks that the files `paths` lie on are still there.
    ///
    /// # Errors
    /// One is not.
    pub fn look_at_mounts<'p>(
        &mut self,
        paths: impl Iterator<Item = &'p Path> + Clone,
    ) -> Result<(), StorageError> {
        for mount in self.places.mounts_below(self.root) {
            if paths.clone().any(|path| path.starts_with(&mount)) {
                self.last = None; // what was opened before is not what is there now
                self.dir(&mount, Missing::Tolerate)?;
            }
        }
        Ok(())
    }

    /// The mount points on the way to the files `paths`, as far as they were found, by their whole
    /// paths: those that the output folder `real` lies on first.
    pub fn mounts_on_the_way<'p>(
        &self,
        real: &Path,
        paths: impl Iterator<Item = &'p Path> + Clone,
    ) -> Vec<String> {
        let above = places::mounts_above(real).into_iter();
        let below = self.places.mounts_below(self.root).into_iter();
        let below = below.filter(|mount| paths.clone().any(|path| path.starts_with(mount)));
        let below = below.map(|mount| real.join(mount));
        // What is no text is not remembered.
        let text = |mount: PathBuf| mount.into_os_string().into_string().ok();
        above.chain(below).filter_map(text).collect()
    }

    /// The folder `dir`, relative to the output folder, or the whole path of one above it, is the
    /// bare mount point of a disk. What comes in its place will be another one.
    pub fn is_bare(&self, dir: Option<&Path>) {
        let path = dir.map(|dir| self.root.join(dir));
        self.places.forget(path.as_deref().unwrap_or(self.root));
    }

    /// Opens the file at `path`, relative to the output folder, for reading; `None` if it does not
    /// exist.
    pub fn open_for_reading(&mut self, path: &Path) -> Result<Option<File>, StorageError> {
        let (dir, name) = split(path);
        let Some(dir) = self.dir(dir, Missing::Tolerate)? else {
            return Ok(None);
        };
        // NONBLOCK: opening a pipe without a writer would wait for ever.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match fs::openat(dir, name, flags, Mode::empty()) {
            Ok(fd) => self.opened(path, fd).map(Some),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(self.not_opened(path, errno)),
        }
    }

    /// Opens the file at `path`, relative to the output folder, for reading and writing; makes it
    /// and the folders on the way if they do not exist. Says whether it was made.
    pub fn open_for_writing(
        &mut self,
        path: &Path,
        executable: bool,
    ) -> Result<(File, bool), StorageError> {
        let (parent, name) = split(path);
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(if executable { 0o777 } else { 0o666 });
        let dir = self.dir(parent, Missing::Create)?;
        let dir = dir.expect("a missing folder was made or is an error");
        // The second look finds the file that somebody else made between the first two.
        for flags in [flags, flags | OFlags::CREATE | OFlags::EXCL, flags] {
            match fs::openat(dir, name, flags, mode) {
                Ok(fd) => {
                    let created = flags.contains(OFlags::CREATE);
                    if created {
                        self.changed.push(parent.to_owned());
                    }
                    return self.opened(path, fd).map(|file| (file, created));
                }
                Err(Errno::NOENT | Errno::EXIST) => {}
                Err(errno) => return Err(self.not_opened(path, errno)),
            }
        }
        Err(self.creating(path, Errno::EXIST))
    }

    /// Whether a file lies on the file system of the output folder, not on one that is mounted
    /// somewhere below.
    pub fn is_at_home(&self, file: &Metadata) -> bool {
        fs::fstat(&self.root_fd).is_ok_and(|root| root.st_dev == file.dev())
    }

    /// Removes the file at `path` that was made a moment ago.
    pub fn remove(&mut self, path: &Path) {
        let (dir, name) = split(path);
        if let Ok(Some(dir)) = self.dir(dir, Missing::Tolerate) {
            // Best effort: the caller is about to report the error that made it useless.
            let _ = fs::unlinkat(dir, name, AtFlags::empty());
        }
    }

    fn opened(&self, path: &Path, fd: OwnedFd) -> Result<File, StorageError> {
        let full = self.root.join(path);
        let stat = fs::fstat(&fd)
            .map_err(|errno| StorageError::from_io(&full, "look at", &errno.into()))?;
        expect_file(full, file_type(stat))?;
        Ok(File::from(fd))
    }

    fn not_opened(&mut self, path: &Path, errno: Errno) -> StorageError {
        match errno {
            Errno::NOSPC => self.creating(path, errno),
            // A link, a folder or a socket says so by its type.
            _ => match self.look(path) {
                Err(error) => error,
                Ok(_) => StorageError::from_io(&self.root.join(path), "open", &errno.into()),
            },
        }
    }
}

/// Which run of the machine this is, where the system tells.
pub(super) fn boot_id() -> Option<BootId> {
    // Linux; elsewhere there is no such file, and nothing outlives the process.
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    let (pairs, _) = digits.as_chunks::<2>();
    let bytes: Vec<u8> = pairs
        .iter()
        .map(|[high, low]| (high * 16 + low) as u8)
        .collect();
    Some(BootId(bytes.try_into().ok()?))
}

fn split(path: &Path) -> (&Path, &OsStr) {
    let name = path.file_name().expect("a safe path has a last component");
    (path.parent().unwrap_or(Path::new("")), name)
}

fn file_type(stat: fs::Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

fn expect_file(path: PathBuf, found: FileType) -> Result<(), StorageError> {
    match found {
        FileType::RegularFile => Ok(()),
        FileType::Symlink => Err(StorageError::Symlink { path }),
        other => Err(StorageError::NotAFile {
            path,
            kind: kind_name(other),
        }),
    }
}

fn kind_name(file_type: FileType) -> &'static str {
    match file_type {
        FileType::RegularFile => "file",
        FileType::Directory => "folder",
        FileType::Symlink => "symbolic link",
        FileType::Fifo => "pipe",
        FileType::Socket => "socket",
        FileType::CharacterDevice | FileType::BlockDevice => "device",
        _ => "thing of unknown kind",
    }
}

/// Gives every byte of the first `len` of `file` its place on the disk.
///
/// # Errors
/// `Unsupported` where the file system, or the operating system, cannot do that.
#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
pub(super) fn allocate(file: &File, len: u64) -> io::Result<()> {
    loop {
        match fs::fallocate(file, fs::FallocateFlags::empty(), 0, len) {
            Ok(()) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => {
                return Err(io::ErrorKind::Unsupported.into());
            }
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Gives every byte of the first `len` of `file` its place on the disk: not known here.
///
/// # Errors
/// Always `Unsupported`.
#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
pub(super) fn allocate(_file: &File, _len: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Makes reads of `file` come from the disk, past the page cache, or through it again; says
/// whether the file system takes that. Direct reads have to be aligned to [`DIRECT_ALIGN`].
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn set_direct(file: &File, is_direct: bool) -> bool {
    let Ok(mut flags) = fs::fcntl_getfl(file) else {
        return false;
    };
    flags.set(OFlags::DIRECT, is_direct);
    fs::fcntl_setfl(file, flags).is_ok()
}

/// Makes reads of `file` come from the disk: not known here.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) fn set_direct(_file: &File, _is_direct: bool) -> bool {
    false
}

/// Drops what the page cache holds of `file` and the disk has too, as far as it can be dropped.
pub(super) fn forget_cached(file: &File) {
    #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
    // Advice: if it is not taken, the reader reads what is cached.
    let _ = fs::fadvise(file, 0, None, fs::Advice::DontNeed);
    #[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
    let _ = file;
}

/// Direct reads begin and end at multiples of this many bytes of memory and file: no disk has
/// larger sectors.
pub(super) const DIRECT_ALIGN: usize = 4096;

/// Which first touch of a map's pages is to be paid ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Populate {
    /// Loads.
    Read,
    /// Stores.
    Write,
}

/// Makes the pages of `map` present, where the operating system can (Linux 5.14).
///
/// # Errors
/// The file system cannot back a page: touching it would raise SIGBUS.
#[cfg(target_os = "linux")]
pub(super) fn populate(map: &Map, what: Populate) -> io::Result<()> {
    let advice = match what {
        Populate::Read => memmap2::Advice::PopulateRead,
        Populate::Write => memmap2::Advice::PopulateWrite,
    };
    match map.raw().advise(advice) {
        Err(error) if is_unbacked(&error) => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(target_os = "linux")]
fn is_unbacked(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::FAULT | Errno::HWPOISON | Errno::NOSPC | Errno::IO)
    )
}

/// Makes the pages of `map` present: not known here, the first touch pays.
///
/// # Errors
/// None.
#[cfg(not(target_os = "linux"))]
pub(super) fn populate(_map: &Map, _what: Populate) -> io::Result<()> {
    Ok(())
}
