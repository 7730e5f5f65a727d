//! What the kernel asks, answered.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use fuser::{
    Errno, FileAttr, FileHandle, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, OpenAccMode, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyStatfs, ReplyWrite, Request, TimeOrNow,
    WriteFlags,
};

use super::{Call, Kind, Powers, Shared};

/// Answers the kernel.
pub(super) struct Server {
    pub shared: Arc<Shared>,
    pub powers: Powers,
}

impl Filesystem for Server {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        if self.powers.no_locks.is_some() {
            let asked = config.add_capabilities(InitFlags::FUSE_FLOCK_LOCKS);
            assert!(asked.is_ok(), "the kernel asks for locks");
        }
        Ok(())
    }

    fn setlk(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: LockOwner,
        _: u64,
        _: u64,
        _: i32,
        _: u32,
        _: bool,
        reply: ReplyEmpty,
    ) {
        match self.powers.no_locks {
            Some(errno) => reply.error(errno),
            None => reply.ok(),
        }
    }

    fn fallocate(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        _: i32,
        reply: ReplyEmpty,
    ) {
        if !self.powers.allocates {
            return reply.error(Errno::ENOSYS);
        }
        let len = (offset + length) as usize;
        let mut state = self.shared.lock();
        let made = state
            .file(ino.0)
            .map(|bytes| bytes.resize(bytes.len().max(len), 0));
        answer(made, reply);
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let state = self.shared.lock();
        let found = state.child(parent.0, name).and_then(|ino| state.attr(ino));
        drop(state);
        answer_entry(found, reply);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let found = self.shared.lock().attr(ino.0);
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
        let mut state = self.shared.lock();
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
        let suffered = self.shared.suffer(parent.0, Call::Make);
        let folder = Kind::Folder(BTreeMap::new());
        let made = suffered.and_then(|()| self.shared.lock().add(parent.0, name, mode, folder));
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
        let made = self.shared.lock().add(parent.0, name, mode, Kind::Socket);
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
        let suffered = self.shared.suffer(parent.0, Call::Make);
        let file = Kind::File(Vec::new());
        match suffered.and_then(|()| self.shared.lock().add(parent.0, name, mode, file)) {
            Ok(attr) => reply.created(
                &TTL,
                &attr,
                Generation(0),
                FileHandle(WRITABLE),
                FopenFlags::empty(),
            ),
            Err(errno) => reply.error(errno),
        }
    }

    fn open(&self, _: &Request, ino: INodeNo, flags: OpenFlags, reply: fuser::ReplyOpen) {
        let handle = match flags.acc_mode() {
            OpenAccMode::O_RDONLY => READ_ONLY,
            OpenAccMode::O_WRONLY | OpenAccMode::O_RDWR => WRITABLE,
        };
        match self.shared.suffer(ino.0, Call::Open) {
            Ok(()) => reply.opened(FileHandle(handle), FopenFlags::FOPEN_KEEP_CACHE),
            Err(errno) => reply.error(errno),
        }
    }

    fn release(
        &self,
        _: &Request,
        ino: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        if handle.0 == WRITABLE {
            self.shared.lock().closed(ino.0);
        }
        reply.ok();
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer(self.shared.lock().remove(parent.0, name), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer(self.shared.lock().remove(parent.0, name), reply);
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
        if let Err(errno) = self.shared.suffer(parent.0, Call::Rename) {
            return reply.error(errno);
        }
        let mut state = self.shared.lock();
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
        if let Err(errno) = self.shared.suffer(ino.0, Call::Read) {
            return reply.error(errno);
        }
        match self.shared.lock().file(ino.0) {
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
        if let Err(errno) = self.shared.suffer(ino.0, Call::Write) {
            return reply.error(errno);
        }
        let mut state = self.shared.lock();
        // A page that was only made ready to be written is zeros, and nobody waits for it.
        if data.iter().any(|byte| *byte != 0) {
            state.mark(ino.0, true);
        }
        match state.file(ino.0) {
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

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, data: bool, reply: ReplyEmpty) {
        let synced = self
            .shared
            .suffer(ino.0, Call::Sync)
            .and_then(|()| match data {
                true => self.shared.suffer(ino.0, Call::SyncData),
                false => Ok(()),
            });
        if synced.is_ok() {
            self.shared.lock().mark(ino.0, false);
        }
        answer(synced, reply);
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
        let mut state = self.shared.lock();
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
/// Handles of files.
const READ_ONLY: u64 = 0;
const WRITABLE: u64 = 1;
