//! What can block: work that storage asks for, and its execution against the real file system.
//!
//! A [`Job`] owns what it works on (file, map, buffer), so that whatever happens to the torrent
//! meanwhile, it cannot work on the wrong thing. [`run`] executes it on whatever thread; the
//! [`Done`] goes back to [`Storage::job_done`](super::Storage::job_done).

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Access;
use super::error::StorageError;
use super::journal::{BootId, Stamp};
use super::map::{Map, MapAccess};
use super::os::Populate;
pub use super::run::{Runner, run};
use crate::base::bits::Bitfield;
use crate::base::id::{InfoHash, PieceIndex};
use crate::meta::metainfo::Metainfo;
use crate::meta::text::Text;

/// Names a job while it is under way; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub u64);

/// One piece of work that may block.
#[derive(Debug)]
pub struct Job {
    /// Goes back with the result.
    pub id: JobId,
    /// What to do.
    pub work: Work,
}

/// Where a job waits for its turn. Each lane runs its jobs one after the other, in the order
/// given: the limits on maps and open files rely on that order, correctness does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// What the exchange of payload waits for: maps, page-in, reads.
    Paging,
    /// What may take long: creation, allocation, writing back, syncing.
    Disk,
    /// What may take as long, but must not hold up payload, nor wait for it: journals, and what
    /// else is in the state folder.
    Journal,
}

/// An open file.
#[derive(Clone, Debug)]
pub enum Handle {
    /// A file of this machine.
    File(Arc<File>),
    /// A file of the simulator's disk, under its number there.
    Sim(u64),
}

/// What a file is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// Reading what is there; nothing is created or changed.
    Read,
    /// The same of a file that has fewer bytes than the torrent needs.
    ReadShort,
    /// Reading and writing: created, made long enough and allocated, never cut.
    Write,
    /// The same without room for what is never stored: the file is not wanted.
    WritePart,
}

/// The kinds of work. Paths are relative to `root`, the output folder, where one is given.
#[derive(Debug)]
pub enum Work {
    /// Look at all files of a torrent, and at the free space.
    Scan {
        /// The output folder.
        root: Arc<Path>,
        /// The torrent.
        meta: Arc<Metainfo>,
        /// Whether missing bytes must fit.
        access: Access,
        /// Whether to open the output folder for later syncs of its whole file system.
        wants_anchor: bool,
        /// Mount points that were on the way to its files before, see [`Scan::mounts`].
        mounts: Vec<String>,
        /// Files for which no room is needed, as they are not wanted.
        skipped: Option<Arc<Bitfield>>,
        /// The torrent's journal, to be read as far as it may be long, and opened to be written.
        journal: Option<(PathBuf, u64)>,
    },
    /// Make the files without bytes.
    CreateEmpty {
        /// The output folder.
        root: Arc<Path>,
        /// The torrent.
        meta: Arc<Metainfo>,
        /// But for these.
        skipped: Option<Arc<Bitfield>>,
    },
    /// Open a file.
    Open {
        /// The output folder.
        root: Arc<Path>,
        /// The torrent.
        meta: Arc<Metainfo>,
        /// Index of the file.
        file: u32,
        /// What for.
        mode: OpenMode,
    },
    /// Map a window and make its pages present.
    Map {
        /// The file, open for writing if `access` is.
        file: Handle,
        /// For messages.
        path: PathBuf,
        /// Where the window begins in the file.
        offset: u64,
        /// Bytes of the window.
        len: u32,
        /// What the map is to allow.
        access: MapAccess,
        /// Which pages to make present.
        populate: Populate,
        /// The file is known to hold zeros there, and they are to be in memory before the pages
        /// are made present.
        fresh: bool,
    },
    /// Make the pages of a map present.
    Populate {
        /// The map.
        map: Arc<Map>,
        /// For messages.
        path: PathBuf,
    },
    /// Drop a map.
    Unmap {
        /// The last reference but for jobs under way on the same lane.
        map: Arc<Map>,
    },
    /// Fill a buffer with a window.
    Read {
        /// The file.
        file: Handle,
        /// For messages.
        path: PathBuf,
        /// Where the window begins in the file.
        offset: u64,
        /// Bytes of the window.
        len: u32,
        /// Memory to use again.
        buffer: Vec<u8>,
        /// The file is known to hold zeros there: it need not be asked.
        fresh: bool,
        /// The file may end before the window does: what it lacks is zeros.
        may_end: bool,
    },
    /// Write part of a window back.
    Write {
        /// The file, open for writing.
        file: Handle,
        /// The output folder.
        root: Arc<Path>,
        /// For messages.
        path: PathBuf,
        /// Where the window begins in the file.
        offset: u64,
        /// The window.
        bytes: Arc<Vec<u8>>,
        /// Which of its bytes to write.
        ranges: Vec<Range<u32>>,
    },
    /// Bring files and folders to the disk.
    Sync {
        /// The output folder.
        root: Arc<Path>,
        /// Files that were written.
        files: Vec<SyncFile>,
        /// Files that somebody else wrote, not open here.
        found: Vec<PathBuf>,
        /// Folders whose content changed.
        dirs: Vec<PathBuf>,
        /// Before them, everything on the file system of this folder.
        anchor: Option<Handle>,
    },
    /// Close a file that was read only, or bring it to the disk and close it.
    Close {
        /// The last reference but for jobs under way.
        file: Handle,
        /// For messages.
        path: PathBuf,
        /// Whether it was written since the last sync.
        written: bool,
    },
    /// Look whether open files still are those that their names stand for, and long enough, and
    /// whether the disks that torrents lie on are still there.
    LookAtFiles {
        /// The output folder.
        root: Arc<Path>,
        /// The files.
        files: Vec<Look>,
        /// The torrents.
        torrents: Vec<Arc<Metainfo>>,
    },
    /// Look when each file of a torrent was last written.
    LookAtTimes {
        /// The output folder.
        root: Arc<Path>,
        /// The torrent.
        meta: Arc<Metainfo>,
    },
    /// Hash a piece as the disk has it, not the page cache.
    Prove {
        /// The output folder.
        root: Arc<Path>,
        /// The torrent.
        meta: Arc<Metainfo>,
        /// The piece.
        piece: PieceIndex,
        /// What it must hash to.
        hash: [u8; 20],
    },
    /// Look whether the state folder has a torrent's text.
    FindText {
        /// Where it is kept.
        path: PathBuf,
        /// What it has to be.
        text: Text,
    },
    /// Read a torrent's text from the state folder.
    ReadText {
        /// Where it is kept.
        path: PathBuf,
        /// The torrent.
        info_hash: InfoHash,
    },
    /// Give memory that was freed back to the system.
    GiveBack,
    /// Make a journal beside the one that is there, and sync it.
    MakeJournal {
        /// The journal.
        path: PathBuf,
        /// What to write.
        bytes: Vec<u8>,
    },
    /// Make a journal where there is none: until it is synced it may be lost.
    MakeFirstJournal {
        /// The journal.
        path: PathBuf,
        /// What to write.
        bytes: Vec<u8>,
    },
    /// Write something behind what a journal holds.
    AppendJournal {
        /// The journal.
        file: Handle,
        /// For messages.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// What.
        bytes: Vec<u8>,
    },
    /// Sync the journal that was made beside another, give it that one's name, sync the folder.
    InstallJournal {
        /// The new journal.
        file: Handle,
        /// The name.
        path: PathBuf,
    },
    /// Sync a journal.
    SyncJournal {
        /// The journal.
        file: Handle,
        /// The name.
        path: PathBuf,
        /// Whether the folder has to be synced for the name.
        has_new_name: bool,
    },
    /// Remove a journal.
    RemoveJournal {
        /// The journal.
        path: PathBuf,
    },
    /// Close a journal all of which is on the disk.
    LeaveJournal {
        /// The last reference.
        file: Handle,
        /// The journal.
        path: PathBuf,
        /// Bytes that it must have.
        len: u64,
    },
    /// Open a journal again.
    OpenJournal {
        /// The journal.
        path: PathBuf,
        /// What it must be.
        left: Left,
    },
}

/// What a journal was like when it was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// Which file it is, and how long.
    pub stamp: Stamp,
    /// When it was written last: a number that is another one if anybody wrote it since.
    pub modified: u64,
}

/// An open file to look at.
#[derive(Debug)]
pub struct Look {
    /// The file.
    pub file: Handle,
    /// Its name in the output folder.
    pub path: PathBuf,
    /// Bytes that it must have.
    pub len: u64,
}

/// A file to bring to the disk.
#[derive(Debug)]
pub struct SyncFile {
    /// The file, open since before the first byte was stored.
    pub file: Handle,
    /// For messages.
    pub path: PathBuf,
    /// Whether its length and allocation are new too.
    pub created: bool,
}

/// The result of a job.
#[derive(Debug)]
pub struct Done {
    /// Which job.
    pub id: JobId,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of a job, by its kind.
#[derive(Debug)]
pub enum Outcome {
    /// Of `Scan`.
    Scanned(Result<Scan, StorageError>),
    /// Of `CreateEmpty`: folders whose content changed.
    CreatedEmpty(Result<Vec<PathBuf>, StorageError>),
    /// Of `Open`.
    Opened(Result<Opened, StorageError>),
    /// Of `Map`.
    Mapped(Result<Arc<Map>, MapError>),
    /// Of `Read`.
    Read(Result<Vec<u8>, StorageError>),
    /// Of `Populate`, `Write`, `Sync`, `Close` and of the work on journals that makes none.
    Finished(Result<(), StorageError>),
    /// Of `LookAtFiles`: for each file, and behind them for each torrent, what is wrong with it, if
    /// anything is. A disk that is always there says nothing of torrents.
    Looked(Vec<Option<StorageError>>),
    /// Of `LookAtTimes`: one number a file, 0 where there is none.
    Times(Vec<u64>),
    /// Of `Prove`: whether the piece is there and hashes right.
    Proved(Result<bool, StorageError>),
    /// Of `FindText`.
    TextFound(bool),
    /// Of `ReadText`.
    TextRead(Result<Text, StorageError>),
    /// Of `GiveBack`.
    GaveBack,
    /// Of `MakeJournal`, `MakeFirstJournal` and `OpenJournal`.
    JournalMade(Result<Handle, StorageError>),
    /// Of `LeaveJournal`.
    JournalLeft(Result<Left, StorageError>),
    /// Of `Unmap`.
    Unmapped,
}

/// What a torrent's files look like before it begins.
#[derive(Debug)]
pub struct Scan {
    /// One for each file of the metainfo.
    pub files: Vec<Presence>,
    /// One for each file of the metainfo; nothing for pad files and those without bytes.
    pub stamps: Vec<Stamp>,
    /// When each file was last written.
    pub times: Vec<u64>,
    /// The mount points on the way to the files, by their whole paths.
    pub mounts: Vec<String>,
    /// The run of the machine.
    pub boot: Option<BootId>,
    /// The torrent's journal, if it was asked for and there is one.
    pub journal: Option<JournalFile>,
    /// The output folder, if it was asked for and its whole file system can be synced through it:
    /// such a sync fails if any write-back failed since the folder was opened.
    pub anchor: Option<Handle>,
}

/// A journal as it was found.
#[derive(Debug)]
pub struct JournalFile {
    /// Its bytes, as many as a journal may have.
    pub bytes: Vec<u8>,
    /// The file, open for reading and writing.
    pub file: Handle,
}

/// Whether a file is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// No such file.
    Absent,
    /// Fewer bytes than the torrent needs.
    Short {
        /// As many.
        len: u64,
    },
    /// Enough bytes, or a pad file, which needs none.
    Whole,
}

/// What came of opening a file.
#[derive(Debug)]
pub enum Opened {
    /// There is none, or it is too short to be read from.
    Absent,
    /// It is open.
    Open {
        /// The file.
        file: Handle,
        /// It may be written.
        is_writable: bool,
        /// The length that it had; what lies behind is zeros.
        len_before: u64,
        /// Which file it was before it was made or made longer, and which it is now.
        stamps: [Stamp; 2],
        /// Every byte has its place on the disk; if not, a store to a map of it may fail.
        allocated: bool,
        /// It lies on the file system of the output folder.
        is_at_home: bool,
        /// Folders whose content changed.
        dirs: Vec<PathBuf>,
    },
}

/// Why a window could not be mapped.
#[derive(Debug)]
pub enum MapError {
    /// The file system does not map this file.
    Refused(io::Error),
    /// The file cannot be used at all.
    Failed(StorageError),
}

impl Job {
    /// Where it waits for its turn.
    pub fn lane(&self) -> Lane {
        match &self.work {
            // A journal's records are few bytes for the page cache and must not wait for a sync.
            Work::Map { .. }
            | Work::Populate { .. }
            | Work::Unmap { .. }
            | Work::Read { .. }
            | Work::LookAtFiles { .. }
            | Work::OpenJournal { .. }
            | Work::AppendJournal { .. } => Lane::Paging,
            Work::Open { mode, .. } => match mode {
                OpenMode::Read | OpenMode::ReadShort => Lane::Paging,
                OpenMode::Write | OpenMode::WritePart => Lane::Disk,
            },
            Work::Scan { .. }
            | Work::CreateEmpty { .. }
            | Work::Write { .. }
            | Work::Sync { .. }
            | Work::Close { .. }
            | Work::LookAtTimes { .. }
            | Work::Prove { .. } => Lane::Disk,
            Work::FindText { .. }
            | Work::ReadText { .. }
            | Work::GiveBack
            | Work::MakeJournal { .. }
            | Work::MakeFirstJournal { .. }
            | Work::InstallJournal { .. }
            | Work::SyncJournal { .. }
            | Work::LeaveJournal { .. }
            | Work::RemoveJournal { .. } => Lane::Journal,
        }
    }
}
