//! A file system in memory, over FUSE, whose calls fail or take their time when a test says so.

mod server;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{BackgroundSession, Config, Errno, FileAttr, FileType, INodeNo};

use server::Server;

/// What may be disturbed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    /// Opening a file.
    Open,
    /// Making a file or folder.
    Make,
    /// Giving a file another name.
    Rename,
    /// Bytes that the page cache does not have.
    Read,
    /// Bytes that leave the page cache.
    Write,
    /// `fsync` and `fdatasync`.
    Sync,
    /// `fdatasync` alone.
    SyncData,
}

/// Whose calls are disturbed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Those for data.
    Data,
    /// Those for what lies in a `.evpeer` folder.
    State,
}

/// How a call is disturbed.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// It fails with this.
    Fails(Errno),
    /// It takes so long.
    Takes(Duration),
}

/// What the file system can do.
#[derive(Clone, Copy, Debug, Default)]
pub struct Powers {
    /// It knows `fallocate`.
    pub allocates: bool,
    /// What it says when somebody wants a lock; without it the kernel has the locks.
    pub no_locks: Option<Errno>,
}

/// The file system, mounted until this goes.
pub struct Faulty {
    shared: Arc<Shared>,
    powers: Powers,
    session: Option<BackgroundSession>,
}

#[derive(Default)]
struct Shared(Mutex<State>);

#[derive(Default)]
struct State {
    nodes: BTreeMap<u64, Node>,
    last_ino: u64,
    /// What is to happen to the next calls.
    plans: BTreeMap<(Part, Call), Plan>,
    /// Calls that were disturbed.
    hits: BTreeMap<(Part, Call), u64>,
    /// Data files that were closed by who wrote them with bytes unsynced, before any call was
    /// disturbed.
    unsynced_closes: u64,
}

struct Plan {
    fault: Fault,
    /// So many calls go well before.
    skip: u64,
    /// So many are disturbed then.
    left: u64,
}

struct Node {
    kind: Kind,
    mode: u32,
    part: Part,
    /// It was written since the last sync that went well.
    is_unsynced: bool,
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
    pub fn mount(folder: &Path, powers: Powers) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let root = Kind::Folder(BTreeMap::new());
        shared.lock().make(Part::Data, 0o755, root);
        let mut faulty = Self {
            shared,
            powers,
            session: None,
        };
        faulty.mount_again(folder)?;
        Ok(faulty)
    }

    /// The same, but `None`, and a word about it, if FUSE does not work here and does not have to.
    pub fn mount_or_skip(folder: &Path, powers: Powers) -> Option<Self> {
        match Self::mount(folder, powers) {
            Ok(faulty) => Some(faulty),
            Err(error) => {
                let required = std::env::var_os("EVPEER_REQUIRE_CLIENTS").is_some_and(|v| v == "1");
                assert!(!required, "no FUSE, and EVPEER_REQUIRE_CLIENTS=1: {error}");
                super::support::skip("FUSE does not work here");
                None
            }
        }
    }

    /// Mounts it at the folder `folder` with all that it holds.
    ///
    /// # Errors
    /// That FUSE does not work here.
    pub fn mount_again(&mut self, folder: &Path) -> io::Result<()> {
        let mut config = Config::default();
        config.n_threads = Some(4); // a slow call is not to hold up the others
        let server = Server {
            shared: Arc::clone(&self.shared),
            powers: self.powers,
        };
        self.session = Some(fuser::spawn_mount(server, folder, &config)?);
        Ok(())
    }

    /// Ends its process, as far as the kernel can tell: whoever uses it is told that it is gone.
    /// Then unmounts what is left of it from `folder`.
    pub fn end(&mut self, folder: &Path) {
        let found = std::os::unix::fs::MetadataExt::dev(&folder.metadata().expect("mounted"));
        let control = Path::new("/sys/fs/fuse/connections");
        let abort = control.join((found & 0xff).to_string()).join("abort");
        if !abort.exists() {
            let mut mount = Command::new("mount");
            mount.args(["-t", "fusectl", "none"]).arg(control);
            assert!(mount.status().is_ok_and(|status| status.success()));
        }
        std::fs::write(abort, "1").expect("root may");
        let unmount = Command::new("umount").arg("-l").arg(folder).status();
        assert!(unmount.is_ok_and(|status| status.success()));
        if let Some(session) = self.session.take() {
            let _ = session.join(); // it says that its connection was aborted
        }
    }

    /// The next `count` calls of this kind for data are disturbed.
    pub fn disturb(&self, call: Call, fault: Fault, count: u64) {
        self.disturb_later((Part::Data, call), fault, 0, count);
    }

    /// After `skip` calls of this kind, `count` are disturbed.
    pub fn disturb_later(&self, what: (Part, Call), fault: Fault, skip: u64, count: u64) {
        let left = count;
        let plan = Plan { fault, skip, left };
        self.shared.lock().plans.insert(what, plan);
    }

    /// Puts a file on the disk that no page cache knows; the path is relative to its root.
    pub fn put(&self, path: &Path, bytes: Vec<u8>) {
        let mut state = self.shared.lock();
        let mut parent = ROOT;
        let above = path.parent().expect("a path of a file");
        for name in above {
            parent = state.child(parent, name).unwrap_or_else(|_| {
                let folder = Kind::Folder(BTreeMap::new());
                let made = state.add(parent, name, 0o755, folder);
                made.expect("it is not there").ino.0
            });
        }
        let name = path.file_name().expect("a path of a file");
        let made = state.add(parent, name, 0o644, Kind::File(bytes));
        made.expect("it is not there");
    }

    /// Nothing is disturbed from now on.
    pub fn calm(&self) {
        self.shared.lock().plans.clear();
    }

    /// Calls for data of this kind that were disturbed.
    pub fn hits(&self, call: Call) -> u64 {
        self.hits_of((Part::Data, call))
    }

    /// Calls of this kind that were disturbed.
    pub fn hits_of(&self, what: (Part, Call)) -> u64 {
        self.shared.lock().hits.get(&what).copied().unwrap_or(0)
    }

    /// Data files that were closed by who wrote them with bytes unsynced, before any call was
    /// disturbed.
    pub fn unsynced_closes(&self) -> u64 {
        self.shared.lock().unsynced_closes
    }

    /// What has reached the disk of a file, page cache or not; the path is relative to its root.
    pub fn content(&self, path: &Path) -> Option<Vec<u8>> {
        let mut state = self.shared.lock();
        let mut ino = ROOT;
        for name in path {
            ino = state.child(ino, name).ok()?;
        }
        state.file(ino).ok().cloned()
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        self.calm();
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
            let Some(part) = state.nodes.get(&ino).map(|node| node.part) else {
                return Ok(());
            };
            match state.plans.get_mut(&(part, call)) {
                Some(plan) if plan.skip > 0 => {
                    plan.skip -= 1;
                    return Ok(());
                }
                Some(plan) if plan.left > 0 => {
                    plan.left -= 1;
                    let fault = plan.fault;
                    *state.hits.entry((part, call)).or_default() += 1;
                    fault
                }
                _ => return Ok(()),
            }
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
    fn make(&mut self, part: Part, mode: u32, kind: Kind) -> u64 {
        self.last_ino += 1;
        let node = Node {
            kind,
            mode,
            part,
            is_unsynced: false,
        };
        self.nodes.insert(self.last_ino, node);
        self.last_ino
    }

    fn add(&mut self, parent: u64, name: &OsStr, mode: u32, kind: Kind) -> Result<FileAttr, Errno> {
        if self.child(parent, name).is_ok() {
            return Err(Errno::EEXIST);
        }
        let part = match name == ".evpeer" {
            true => Part::State,
            false => self.nodes[&parent].part,
        };
        let ino = self.make(part, mode, kind);
        self.folder(parent)?.insert(name.to_owned(), ino);
        self.attr(ino)
    }

    /// A file was closed by who could write it.
    fn closed(&mut self, ino: u64) {
        let is_lost = |node: &&Node| node.is_unsynced && node.part == Part::Data;
        if self.hits.is_empty() && self.nodes.get(&ino).filter(is_lost).is_some() {
            self.unsynced_closes += 1;
        }
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

    /// Notes that bytes were written, or synced.
    fn mark(&mut self, ino: u64, is_unsynced: bool) {
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.is_unsynced = is_unsynced;
        }
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

/// The number of the topmost folder.
const ROOT: u64 = 1;
