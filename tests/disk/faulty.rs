//! A file system in memory, over FUSE, whose calls fail or take their time when a test says so.
//!
//! Only calls for data are disturbed: what lies in a `.evpeer` folder is another's concern. It
//! knows no `fallocate`.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyStatfs, ReplyWrite, Request, TimeOrNow,
    WriteFlags,
};

/// What may be disturbed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    /// Opening or making a file.
    Open,
    /// Bytes that the page cache does not have.
    Read,
    /// Bytes that leave the page cache.
    Write,
    /// `fsync` and `fdatasync`.
    Sync,
}

/// How a call is disturbed.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// It fails with this.
    Fails(Errno),
    /// It takes so long.
    Takes(Duration),
}

/// The file system, mounted until this goes.
pub struct Faulty {
    shared: Arc<Shared>,
    session: Option<BackgroundSession>,
}

#[derive(Default)]
struct Shared(Mutex<State>);

#[derive(Default)]
struct State {
    nodes: BTreeMap<u64, Node>,
    last_ino: u64,
    /// What is to happen to the next calls, and to how many of them.
    faults: BTreeMap<Call, (Fault, u64)>,
    /// Calls that were disturbed.
    hits: BTreeMap<Call, u64>,
}

struct Node {
    kind: Kind,
    mode: u32,
    /// It is not data.
    is_state: bool,
}

enum Kind {
    File(Vec<u8>),
    Socket,
    Folder(BTreeMap<OsString, u64>),
}

impl Kind {
    fn name(&self) -> FileType {
        match self {
            Self::File(_) => FileType::RegularFile,
            Self::Socket => FileType::Socket,
            Self::Folder(_) => FileType::Directory,
        }
    }
}

impl Faulty {
    /// Mounts it, empty, at the folder `folder`.
    ///
    /// # Errors
    /// That FUSE does not work here.
    pub fn mount(folder: &Path) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        shared
            .lock()
            .make(false, 0o755, Kind::Folder(BTreeMap::new()));
        let mut config = Config::default();
        config.n_threads = Some(4); // a slow call is not to hold up the others
        let session = fuser::spawn_mount(Server(Arc::clone(&shared)), folder, &config)?;
        Ok(Self {
            shared,
            session: Some(session),
        })
    }

    /// The next `count` calls of this kind are disturbed.
    pub fn disturb(&self, call: Call, fault: Fault, count: u64) {
        self.shared.lock().faults.insert(call, (fault, count));
    }

    /// Calls of this kind that were disturbed.
    pub fn hits(&self, call: Call) -> u64 {
        self.shared.lock().hits.get(&call).copied().unwrap_or(0)
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        self.shared.lock().faults.clear();
        if let Some(session) = self.session.take() {
            let _ = session.umount_and_join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits or fails as a test wants it; to be called without the lock.
    fn suffer(&self, ino: u64, call: Call) -> Result<(), Errno> {
        let fault = {
            let mut state = self.lock();
            let is_data = state.nodes.get(&ino).is_some_and(|node| !node.is_state);
            let Some((fault, left)) = state.faults.get_mut(&call).filter(|_| is_data) else {
                return Ok(());
            };
            if *left == 0 {
                return Ok(());
            }
            *left -= 1;
            let fault = *fault;
            *state.hits.entry(call).or_default() += 1;
            fault
        };
        match fault {
            Fault::Fails(errno) => Err(errno),
            Fault::Takes(time) => {
                std::thread::sleep(time);
                Ok(())
            }
        }
    }
}

impl State {
    fn make(&mut self, is_state: bool, mode: u32, kind: Kind) -> u64 {
        self.last_ino += 1;
        self.nodes.insert(
            self.last_ino,
            Node {
                kind,
                mode,
                is_state,
            },
        );
        self.last_ino
    }

    fn add(&mut self, parent: u64, name: &OsStr, mode: u32, kind: Kind) -> Result<FileAttr, Errno> {
        if self.child(parent, name).is_ok() {
            return Err(Errno::EEXIST);
        }
        let is_state = self.nodes[&parent].is_state || name == ".evpeer";
        let ino = self.make(is_state, mode, kind);
        self.folder(parent)?.insert(name.to_owned(), ino);
        self.attr(ino)
    }

    fn folder(&mut self, ino: u64) -> Result<&mut BTreeMap<OsString, u64>, Errno> {
        match self.nodes.get_mut(&ino).map(|node| &mut node.kind) {
            Some(Kind::Folder(children)) => Ok(children),
            Some(_) => Err(Errno::ENOTDIR),
            None => Err(Errno::ENOENT),
        }
    }

    fn child(&self, parent: u64, name: &OsStr) -> Result<u64, Errno> {
        match self.nodes.get(&parent).map(|node| &node.kind) {
            Some(Kind::Folder(children)) => children.get(name).copied().ok_or(Errno::ENOENT),
            _ => Err(Errno::ENOENT),
        }
    }

    fn file(&mut self, ino: u64) -> Result<&mut Vec<u8>, Errno> {
        match self.nodes.get_mut(&ino).map(|node| &mut node.kind) {
            Some(Kind::File(bytes)) => Ok(bytes),
            Some(_) => Err(Errno::EISDIR),
            None => Err(Errno::ENOENT),
        }
    }

    fn remove(&mut self, parent: u64, name: &OsStr) -> Result<(), Errno> {
        // An open file lives on without its name: the node stays.
        self.folder(parent)?
            .remove(name)
            .map(|_| ())
            .ok_or(Errno::ENOENT)
    }

    fn attr(&self, ino: u64) -> Result<FileAttr, Errno> {
        let node = self.nodes.get(&ino).ok_or(Errno::ENOENT)?;
        let size = match &node.kind {
            Kind::File(bytes) => bytes.len() as u64,
            Kind::Folder(_) | Kind::Socket => 0,
        };
        Ok(FileAttr {
            ino: INodeNo(ino),
            size,
            blocks: size.div_ceil(512),
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: node.kind.name(),
            perm: (node.mode & 0o7777) as u16,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }
}

/// Answers the kernel.
struct Server(Arc<Shared>);

impl Filesystem for Server {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let state = self.0.lock();
        let found = state.child(parent.0, name).and_then(|ino| state.attr(ino));
        drop(state);
        answer_entry(found, reply);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let found = self.0.lock().attr(ino.0);
        match found {
            Ok(attr) => reply.attr(&TTL, &attr),
            Err(errno) => reply.error(errno),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<std::time::SystemTime>,
        _: Option<FileHandle>,
        _: Option<std::time::SystemTime>,
        _: Option<std::time::SystemTime>,
        _: Option<std::time::SystemTime>,
        _: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut state = self.0.lock();
        if let (Some(mode), Some(node)) = (mode, state.nodes.get_mut(&ino.0)) {
            node.mode = mode;
        }
        let resized = match size {
            Some(size) => state
                .file(ino.0)
                .map(|bytes| bytes.resize(size as usize, 0)),
            None => Ok(()),
        };
        match resized.and_then(|()| state.attr(ino.0)) {
            Ok(attr) => reply.attr(&TTL, &attr),
            Err(errno) => reply.error(errno),
        }
    }

    fn mkdir(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        reply: ReplyEntry,
    ) {
        let folder = Kind::Folder(BTreeMap::new());
        let made = self.0.lock().add(parent.0, name, mode, folder);
        answer_entry(made, reply);
    }

    /// The kernel makes sockets with it.
    fn mknod(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        _: u32,
        reply: ReplyEntry,
    ) {
        let made = self.0.lock().add(parent.0, name, mode, Kind::Socket);
        answer_entry(made, reply);
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        let suffered = self.0.suffer(parent.0, Call::Open);
        let file = Kind::File(Vec::new());
        match suffered.and_then(|()| self.0.lock().add(parent.0, name, mode, file)) {
            Ok(attr) => reply.created(
                &TTL,
                &attr,
                Generation(0),
                FileHandle(0),
                FopenFlags::empty(),
            ),
            Err(errno) => reply.error(errno),
        }
    }

    fn open(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: fuser::ReplyOpen) {
        match self.0.suffer(ino.0, Call::Open) {
            Ok(()) => reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE),
            Err(errno) => reply.error(errno),
        }
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer(self.0.lock().remove(parent.0, name), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer(self.0.lock().remove(parent.0, name), reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        _: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let mut state = self.0.lock();
        let moved = state.child(parent.0, name).and_then(|ino| {
            state.folder(new_parent.0)?.insert(new_name.to_owned(), ino);
            state.remove(parent.0, name)
        });
        answer(moved, reply);
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        if let Err(errno) = self.0.suffer(ino.0, Call::Read) {
            return reply.error(errno);
        }
        match self.0.lock().file(ino.0) {
            Ok(bytes) => {
                let begin = bytes.len().min(offset as usize);
                let end = bytes.len().min(begin + size as usize);
                reply.data(&bytes[begin..end]);
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        if let Err(errno) = self.0.suffer(ino.0, Call::Write) {
            return reply.error(errno);
        }
        match self.0.lock().file(ino.0) {
            Ok(bytes) => {
                let end = offset as usize + data.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[offset as usize..end].copy_from_slice(data);
                reply.written(data.len() as u32);
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        answer(self.0.suffer(ino.0, Call::Sync), reply);
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn readdir(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let mut state = self.0.lock();
        let children = match state.folder(ino.0) {
            Ok(children) => children.clone(),
            Err(errno) => return reply.error(errno),
        };
        for (place, (name, child)) in children.iter().enumerate().skip(offset as usize) {
            let kind = state.nodes[child].kind.name();
            if reply.add(INodeNo(*child), place as u64 + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        reply.statfs(BLOCKS, BLOCKS, BLOCKS, BLOCKS, BLOCKS, 4096, 255, 4096);
    }
}

fn answer(result: Result<(), Errno>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(errno),
    }
}

fn answer_entry(result: Result<FileAttr, Errno>, reply: ReplyEntry) {
    match result {
        Ok(attr) => reply.entry(&TTL, &attr, Generation(0)),
        Err(errno) => reply.error(errno),
    }
}

/// How long the kernel may rely on what it was told.
const TTL: Duration = Duration::from_secs(1);
/// Blocks of 4 KiB that are said to be free.
const BLOCKS: u64 = 1 << 20;
