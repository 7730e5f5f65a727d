//! A disk whose writes and flushes are known: the one file of a FUSE file system.
//!
//! The loop device above it writes through the page cache, so a write is logged before the file
//! system hears that it is done, and a flush of the device arrives as an FSYNC.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, INodeNo,
    KernelConfig, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyWrite,
    Request, WriteFlags,
};

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
pub struct Disk {
    folder: PathBuf,
    state: Arc<Mutex<State>>,
    session: Option<BackgroundSession>,
}

#[derive(Debug)]
struct State {
    content: Vec<u8>,
    log: Vec<Entry>,
}

struct Server(Arc<Mutex<State>>);

impl Disk {
    /// A disk that holds `content`, in the empty folder `folder`.
    pub fn mount(folder: &Path, content: Vec<u8>) -> io::Result<Self> {
        let log = Vec::new();
        let state = Arc::new(Mutex::new(State { content, log }));
        let server = Server(Arc::clone(&state));
        let session = fuser::spawn_mount(server, folder, &Config::default())?;
        Ok(Self {
            folder: folder.to_owned(),
            state,
            session: Some(session),
        })
    }

    /// The file.
    pub fn path(&self) -> PathBuf {
        self.folder.join(NAME)
    }

    /// Entries so far.
    pub fn log_len(&self) -> usize {
        lock(&self.state).log.len()
    }

    /// All that reached it; it is gone then.
    pub fn into_log(mut self) -> Vec<Entry> {
        self.unmount();
        std::mem::take(&mut lock(&self.state).log)
    }

    fn unmount(&mut self) {
        if let Some(session) = self.session.take() {
            session.umount_and_join().expect("nobody uses it any more");
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.unmount();
        }
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
        let bytes = data.to_vec();
        state.log.push(Entry::Write { offset, bytes });
        reply.written(data.len() as u32);
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        lock(&self.0).log.push(Entry::Flush);
        reply.ok();
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok(); // some descriptor was closed
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

const NAME: &str = "disk";
const FILE: INodeNo = INodeNo(2);
/// Its attributes never change.
const TTL: Duration = Duration::from_secs(3600);
