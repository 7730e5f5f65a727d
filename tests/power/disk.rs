//! A disk whose writes and flushes are known: the one file of a FUSE file system.
//!
//! The loop device above it writes through the page cache, so a write is logged before the file
//! system hears that it is done, and a flush of the device arrives as an FSYNC.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    Config, Errno, FileAttr, FileHandle, FileType, Filesystem, INodeNo, KernelConfig, LockOwner,
    OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyWrite, Request, WriteFlags,
};

use super::{mounts, support};

/// What reached the disk.
#[derive(Clone, Debug)]
pub enum Entry {
    /// These bytes: in its cache.
    Write {
        /// Where.
        offset: u64,
        /// What.
        bytes: Vec<u8>,
    },
    /// Everything before is out of its cache.
    Flush,
}

/// A mounted disk.
///
/// A process of its own serves it: a thread of this one could wait for memory that another one
/// holds while that waits for the disk.
pub struct Disk {
    folder: PathBuf,
    places: Places,
    server: Child,
}

/// The files by which the server is told what to do and tells what it did.
struct Places {
    content: PathBuf,
    index: PathBuf,
    bytes: PathBuf,
}

#[derive(Debug)]
struct State {
    content: Vec<u8>,
    index: File,
    bytes: File,
}

struct Server(Mutex<State>);

impl Places {
    fn of(folder: &Path) -> Self {
        Self {
            content: folder.with_extension("content"),
            index: folder.with_extension("index"),
            bytes: folder.with_extension("bytes"),
        }
    }
}

impl Disk {
    /// A disk that holds `content`, in the empty folder `folder`.
    pub fn mount(folder: &Path, content: &[u8]) -> io::Result<Self> {
        let places = Places::of(folder);
        fs::write(&places.content, content)?;
        fs::write(&places.index, [])?;
        fs::write(&places.bytes, [])?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--exact", "disk::serve", "--ignored"]);
        let server = command.env(FOLDER, folder).stdout(Stdio::null()).spawn()?;
        let disk = Self {
            folder: folder.to_owned(),
            places,
            server,
        };
        support::wait_for("the disk", LIMIT, || disk.path().exists());
        Ok(disk)
    }

    /// The file.
    pub fn path(&self) -> PathBuf {
        self.folder.join(NAME)
    }

    /// Entries so far.
    pub fn log_len(&self) -> usize {
        let index = fs::metadata(&self.places.index).expect("it is ours");
        index.len() as usize / RECORD_LEN
    }

    /// All that reached it; it is gone then.
    pub fn into_log(mut self) -> Vec<Entry> {
        mounts::detach(&self.folder);
        // The loop device above lets go of the file a moment after its own file system went.
        let is_over = || self.server.try_wait().is_ok_and(|status| status.is_some());
        support::wait_for("the end of the disk", LIMIT, is_over);
        let index = fs::read(&self.places.index).expect("it is ours");
        let bytes = fs::read(&self.places.bytes).expect("it is ours");
        let mut at = 0;
        let (records, _) = index.as_chunks::<RECORD_LEN>();
        let entries = records.iter().map(|record| {
            let (offset, len) = record.split_at(RECORD_LEN / 2);
            let number = |half: &[u8]| u64::from_le_bytes(half.try_into().expect("8 B"));
            let (offset, len) = (number(offset), number(len) as usize);
            if len == 0 {
                return Entry::Flush;
            }
            at += len;
            let bytes = bytes[at - len..at].to_vec();
            Entry::Write { offset, bytes }
        });
        entries.collect()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// The server's process.
#[test]
#[ignore = "no test: serves the disk of one"]
fn serve() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let folder = PathBuf::from(folder);
    let places = Places::of(&folder);
    let append = |path| {
        File::options()
            .append(true)
            .open(path)
            .expect("it is there")
    };
    let server = Server(Mutex::new(State {
        content: fs::read(&places.content).expect("it is there"),
        index: append(&places.index),
        bytes: append(&places.bytes),
    }));
    fuser::mount(server, &folder, &Config::default()).expect("FUSE works");
}

impl State {
    /// An entry is there when its record is.
    fn log(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.bytes.write_all(data)?;
        let halves = [offset, data.len() as u64].map(u64::to_le_bytes);
        self.index.write_all(halves.as_flattened())
    }
}

impl Server {
    fn attr(&self, ino: INodeNo) -> FileAttr {
        let is_root = ino == INodeNo::ROOT;
        let len = lock(&self.0).content.len() as u64;
        let (kind, size) = match is_root {
            true => (FileType::Directory, 0),
            false => (FileType::RegularFile, len),
        };
        FileAttr {
            ino,
            size,
            blocks: size / 512,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm: 0o700,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

impl Filesystem for Server {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let _ = config.set_max_write(1 << 20);
        Ok(())
    }

    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match name == NAME {
            true => reply.entry(&TTL, &self.attr(FILE), fuser::Generation(0)),
            false => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TTL, &self.attr(ino));
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let state = lock(&self.0);
        let end = state.content.len().min(offset as usize + size as usize);
        reply.data(state.content.get(offset as usize..end).unwrap_or_default());
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut state = lock(&self.0);
        let begin = offset as usize;
        let Some(place) = state.content.get_mut(begin..begin + data.len()) else {
            return reply.error(Errno::ENOSPC);
        };
        place.copy_from_slice(data);
        match state.log(offset, data) {
            Ok(()) => reply.written(data.len() as u32),
            Err(error) => reply.error(error.into()),
        }
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        match lock(&self.0).log(0, &[]) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(error.into()),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok(); // some descriptor was closed
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

const NAME: &str = "disk";
/// Tells the server which folder it serves.
const FOLDER: &str = "EVPEER_TEST_DISK";
/// Offset and length of a write; a flush has no length.
const RECORD_LEN: usize = 16;
const LIMIT: Duration = Duration::from_secs(60);
const FILE: INodeNo = INodeNo(2);
/// Its attributes never change.
const TTL: Duration = Duration::from_secs(3600);
