//! A process over one folder, driven by hand: the real storage, whose jobs are run late, in any
//! order between the lanes, and in the broken orders that the tests must catch.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use evpeer::base::bits::Bitfield;
use evpeer::base::id::{PieceIndex, Ticket, TorrentId};
use evpeer::base::limits::WINDOWS_LEN_MAX;
use evpeer::base::rng::Rng;
use evpeer::base::slot::Slot;
use evpeer::base::time::Instant;
use evpeer::base::verdict::Verdict;
use evpeer::config::StorageKind;
use evpeer::meta::metainfo::{FileKind, Metainfo};
use evpeer::storage::jobs::{self, Done, Handle, Job, Lane, Outcome, Work};
use evpeer::storage::journal::BootId;
use evpeer::storage::{Access, Event, Pace, Storage, StorageOptions};
use sha1::{Digest, Sha1};

use super::kernel;

/// What is done when data is to be synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// What the product does.
    Good,
    /// The claims first, the sync some time later.
    JournalFirst,
    /// `sync_file_range` in place of `fdatasync`.
    RangeOnly,
    /// The files, but not the folders of their names.
    NoFolders,
}

/// Where a process works.
#[derive(Clone, Debug)]
pub struct Place {
    /// The output folder.
    pub root: PathBuf,
    /// The folder of the journals.
    pub state: PathBuf,
}

impl Place {
    /// The journal of `meta`.
    pub fn journal(&self, meta: &Metainfo) -> PathBuf {
        self.state.join(format!("{}.journal", meta.info_hash))
    }
}

/// What a torrent begins with.
#[derive(Debug)]
pub struct Begin {
    /// Pieces to check.
    pub candidates: Bitfield,
    /// Pieces that may be served.
    pub vouched: Bitfield,
    /// Blocks that are there.
    pub filled: Vec<(PieceIndex, Bitfield)>,
}

/// What a process said of pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// This one hashed right.
    Good(u32),
    /// This one did not, or is not there.
    Bad(u32),
    /// Everything so far is durable.
    Durable,
}

/// A process with one torrent.
pub struct Process {
    storage: Storage,
    meta: Arc<Metainfo>,
    order: Order,
    now: Instant,
    lanes: BTreeMap<u8, VecDeque<Job>>,
    /// Jobs that are run beside the loop, one a lane at most.
    beside: BTreeMap<u8, JoinHandle<Done>>,
    /// Results on their way.
    results: VecDeque<Done>,
    /// Syncs that were answered before they were done.
    owed: VecDeque<Job>,
    /// The run of the machine that it is told of, if not the real one.
    boot: Option<BootId>,
    begin: Option<Begin>,
    said: VecDeque<Said>,
}

impl Process {
    /// Starts and takes up the torrent; nothing is run yet.
    pub fn start(
        place: &Place,
        kind: StorageKind,
        order: Order,
        boot: Option<BootId>,
        meta: &Arc<Metainfo>,
    ) -> Self {
        let mut storage = Storage::new(StorageOptions {
            root: place.root.clone(),
            kind,
            access: Access::ReadWrite,
            windows_len_max: WINDOWS_LEN_MAX,
            state_dir: Some(place.state.clone()),
        });
        storage.add(TORRENT, Arc::clone(meta));
        Self {
            storage,
            meta: Arc::clone(meta),
            order,
            now: Instant::from_micros(1),
            lanes: BTreeMap::new(),
            beside: BTreeMap::new(),
            results: VecDeque::new(),
            owed: VecDeque::new(),
            boot,
            begin: None,
            said: VecDeque::new(),
        }
    }

    /// What the torrent begins with: runs until that is known, and makes the empty files.
    pub fn begin(&mut self) -> Begin {
        loop {
            self.drain_jobs();
            if let Some(begin) = self.begin.take() {
                self.storage.create_empty_files(TORRENT);
                return begin;
            }
        }
    }

    /// Stores `bytes` of a piece.
    pub fn store(&mut self, piece: u32, begin: u32, bytes: &[u8]) {
        let slot = Slot {
            torrent: TORRENT,
            piece: PieceIndex(piece),
            begin,
            len: bytes.len() as u32,
        };
        self.storage.store(slot, bytes);
    }

    /// Asks for a piece to be hashed.
    pub fn check(&mut self, piece: u32) {
        self.storage.check(TORRENT, PieceIndex(piece));
    }

    /// Asks for everything so far to be durable.
    pub fn sync(&mut self) {
        self.storage.sync(TORRENT, Ticket(0));
    }

    /// The same, before it ends.
    pub fn leave(&mut self) {
        self.storage.leave(TORRENT, Ticket(0));
    }

    /// Lets time pass.
    pub fn sleep(&mut self, time: Duration) {
        self.now += time;
    }

    /// The next thing that it said.
    pub fn poll(&mut self) -> Option<Said> {
        self.said.pop_front()
    }

    /// A turn of the loop, in which the lanes get somewhere, or not.
    pub fn turn(&mut self, rng: &mut Rng) {
        self.now += Duration::from_micros(u64::from(rng.below(20_000)));
        self.storage.tick(self.now);
        self.take_jobs();
        for _ in 0..rng.below(4) {
            let lane = LANES[rng.below(LANES.len() as u32) as usize];
            match (self.beside.contains_key(&lane), rng.below(4)) {
                (true, 0) => self.wait_for(lane),
                (true, _) => {}
                (false, 0) if self.order == Order::Good => self.run_beside(lane),
                (false, _) => self.run_next(lane),
            }
        }
        if rng.below(20) == 0 {
            self.pay();
        }
        while rng.below(3) > 0
            && let Some(done) = self.results.pop_front()
        {
            self.storage.job_done(done);
        }
        self.storage.work(64 << 20, Pace::AtOnce);
        self.hear();
    }

    /// Runs jobs until there are none; says whether there was anything to do.
    pub fn drain_jobs(&mut self) -> bool {
        let mut is_any = false;
        loop {
            self.storage.tick(self.now);
            self.take_jobs();
            for lane in LANES {
                self.wait_for(lane);
                self.run_next(lane);
            }
            let mut is_idle = self.results.is_empty();
            while let Some(done) = self.results.pop_front() {
                self.storage.job_done(done);
            }
            is_idle &= self.storage.work(64 << 20, Pace::AtOnce) == 0;
            is_idle &= !self.hear();
            if is_idle {
                return is_any;
            }
            is_any = true;
        }
    }

    fn take_jobs(&mut self) {
        while let Some(job) = self.storage.poll_job() {
            let lane = match job.lane() {
                Lane::Paging => 0,
                Lane::Disk => 1,
                Lane::Journal => 2,
            };
            self.lanes.entry(lane).or_default().push_back(job);
        }
    }

    fn run_next(&mut self, lane: u8) {
        if let Some(job) = self.next_job(lane) {
            let done = self.run(job);
            self.is_done(done);
        }
    }

    /// Runs the next job of a lane while the loop goes on, as the product does with all of them.
    fn run_beside(&mut self, lane: u8) {
        if let Some(job) = self.next_job(lane) {
            let thread = std::thread::spawn(move || jobs::run(job));
            self.beside.insert(lane, thread);
        }
    }

    fn wait_for(&mut self, lane: u8) {
        if let Some(thread) = self.beside.remove(&lane) {
            let done = thread.join().expect("a job does not panic");
            self.is_done(done);
        }
    }

    fn next_job(&mut self, lane: u8) -> Option<Job> {
        self.lanes.get_mut(&lane)?.pop_front()
    }

    fn is_done(&mut self, mut done: Done) {
        if let (Outcome::Scanned(Ok(scan)), Some(boot)) = (&mut done.outcome, self.boot) {
            scan.boot = Some(boot);
        }
        self.results.push_back(done);
    }

    /// Runs a job in the order that is tried.
    fn run(&mut self, job: Job) -> Done {
        let id = job.id;
        match (self.order, job.work) {
            (Order::JournalFirst, work @ Work::Sync { .. }) => {
                self.owed.push_back(Job { id, work });
                Done {
                    id,
                    outcome: Outcome::Finished(Ok(())),
                }
            }
            (
                Order::RangeOnly,
                Work::Sync {
                    root,
                    files,
                    found,
                    dirs,
                    anchor: _,
                },
            ) => {
                let work = Work::Sync {
                    root: Arc::clone(&root),
                    files: Vec::new(),
                    found: Vec::new(),
                    dirs,
                    anchor: None,
                };
                let done = jobs::run(Job { id, work });
                for file in &files {
                    if let Handle::File(file) = &file.file {
                        kernel::write_back(file).expect("no disk fails here");
                    }
                }
                for name in found {
                    let file = File::open(root.join(name)).expect("it was found");
                    kernel::write_back(&file).expect("no disk fails here");
                }
                done
            }
            (
                Order::NoFolders,
                Work::Sync {
                    root,
                    files,
                    found,
                    anchor,
                    ..
                },
            ) => {
                let work = Work::Sync {
                    root,
                    files,
                    found,
                    dirs: Vec::new(),
                    anchor,
                };
                jobs::run(Job { id, work })
            }
            (_, work) => jobs::run(Job { id, work }),
        }
    }

    /// Does the first of the syncs that were answered before they were done.
    fn pay(&mut self) {
        if let Some(job) = self.owed.pop_front() {
            jobs::run(job);
        }
    }

    fn hear(&mut self) -> bool {
        let mut is_any = false;
        while let Some(event) = self.storage.poll_event() {
            is_any = true;
            match event {
                Event::Scanned {
                    candidates,
                    vouched,
                    filled,
                    ..
                } => {
                    self.begin = Some(Begin {
                        candidates,
                        vouched,
                        filled,
                    });
                }
                Event::Checked { piece, verdict, .. } => {
                    let said = match verdict {
                        Verdict::Good { .. } => Said::Good(piece.0),
                        Verdict::Bad { .. } | Verdict::Missing => Said::Bad(piece.0),
                    };
                    self.said.push_back(said);
                }
                Event::Durable { .. } => self.said.push_back(Said::Durable),
                Event::Lost { piece, .. } => self.said.push_back(Said::Bad(piece.0)),
                Event::Readable
                | Event::Settled { .. }
                | Event::Probed { .. }
                | Event::Text { .. } => {}
                Event::Lapsed { error, .. } | Event::Failed { error, .. } => {
                    panic!("{}: {error}", self.meta.info_hash)
                }
            }
        }
        is_any
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A system call that has begun comes to its end, whatever becomes of the process.
        for (_, thread) in std::mem::take(&mut self.beside) {
            let _ = thread.join();
        }
    }
}

/// Something of a data file is written back by the kernel, as it may be at any time.
pub fn write_back_some(root: &Path, meta: &Metainfo, rng: &mut Rng) {
    let file = rng.below(meta.files.len() as u32) as usize;
    let path = root.join(meta.files[file].path.as_path());
    if let Ok(file) = File::open(path) {
        kernel::begin_write_back(&file).expect("no disk fails here");
    }
}

/// Those of the pieces in `claimed` that the files below `root` do not hold.
pub fn wrong_pieces(root: &Path, meta: &Metainfo, claimed: &Bitfield) -> Vec<u32> {
    let contents = meta.files.iter().map(|file| match file.kind {
        FileKind::Data => fs::read(root.join(file.path.as_path())).unwrap_or_default(),
        FileKind::Pad => vec![0; file.len as usize],
    });
    let contents: Vec<Vec<u8>> = contents.collect();
    let geometry = meta.geometry();
    let is_wrong = |piece: &u32| {
        let piece = PieceIndex(*piece);
        let mut hasher = Sha1::new();
        for span in geometry.spans(piece, 0, geometry.piece_len(piece)) {
            let begin = span.offset as usize;
            let content = &contents[span.file as usize];
            match content.get(begin..begin + span.len as usize) {
                Some(bytes) => hasher.update(bytes),
                None => return true,
            }
        }
        <[u8; 20]>::from(hasher.finalize()) != *meta.text().expect("it was read").piece_hash(piece)
    };
    claimed.ones().filter(is_wrong).collect()
}

/// All pieces of a torrent.
pub fn all_pieces(meta: &Metainfo) -> BTreeSet<u32> {
    (0..meta.geometry().piece_count()).collect()
}

/// The lanes of jobs.
const LANES: [u8; 3] = [0, 1, 2];
const TORRENT: TorrentId = TorrentId(1);
